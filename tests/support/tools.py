"""Real tools that tests run against, found on PATH.

A missing tool skips its tests on a developer's machine. With PRATIQUE_REQUIRE_ALL=1, as CI sets it, the
same lack is a failure: nothing may be skipped there.
"""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def lacking(what: str) -> NoReturn:
    """Skip this test for want of `what`, or fail it where nothing may be skipped."""
    if os.environ.get("PRATIQUE_REQUIRE_ALL") == "1":
        pytest.fail(f"{what} is missing, and PRATIQUE_REQUIRE_ALL=1 lets no test be skipped")
    pytest.skip(f"{what} is missing")


def need(tool: str) -> str:
    """The path of `tool`."""
    path = shutil.which(tool)
    if path is None:
        lacking(tool)
    return path


def need_root() -> None:
    """This test mounts, makes namespaces or cgroups: it needs root."""
    if os.geteuid() != 0:
        lacking("root")
