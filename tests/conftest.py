"""How tests are shared out among workers: a file stays together, so that its fixtures are made once and in order."""

from __future__ import annotations

import pytest


# First, because xdist reads the groups in this very hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put each test that names no group into the group of its file (`--dist loadgroup`)."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.as_posix()))
