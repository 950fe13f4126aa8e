"""How tests are shared out among workers: a file stays together, so that its fixtures are made once and in order."""

from __future__ import annotations

from typing import Final

import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]  # it ships no types
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # it ships no types

TOGETHER: Final = {
    "tests/chain/test_bad_registry.py": "chain",
    "tests/chain/test_chain.py": "chain",
    "tests/chain/test_leftovers.py": "chain",
}
"""Files that share what is dear, like one running registry: they stay on one worker."""


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # its base has no types
    """A worker gets whole files. (`--dist loadgroup` would do, if its marks reached the items of pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return TOGETHER.get(path, path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """The scheduler, whatever `--dist` says."""
    return ByFile(config, log)
