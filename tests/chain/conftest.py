"""One registry for the whole folder, started by `pratique serve` with all its processes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chain.stage import Chain, Desk, app_image, base_image
from tests.support.live import prepared
from tests.support.tools import need_root


@pytest.fixture(scope="session")
def chain() -> Iterator[Chain]:
    """A registry that runs, and everybody around it."""
    need_root()
    # Not /tmp, which is a tmpfs on Debian 13: a root index cannot be mounted from one.
    folder = Path(tempfile.mkdtemp(prefix="pratique-chain-", dir="/var/tmp"))
    with prepared() as live:
        live.start()
        base = base_image()
        made = Chain(live=live, desk=Desk.at(folder), base=base, app=app_image(base))
        try:
            made.set_up()
            yield made
        finally:
            if live.process is not None:
                live.stop()
            shutil.rmtree(folder)


@pytest.fixture(scope="session")
def app(chain: Chain) -> str:
    """The reference of an application that was pushed, approved and cleared."""
    base = chain.push(chain.base, "shared/base")
    reference = chain.push(chain.app, "shared/app")
    chain.approve_base(base)
    chain.approve_top(reference)
    chain.cleared(reference)
    return reference
