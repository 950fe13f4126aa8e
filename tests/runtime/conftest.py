"""Fixtures for real containers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.boxes import Box, build, busybox_files
from tests.runtime.starter import Image
from tests.support.tools import need_root


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """A busybox userland in two layers."""
    need_root()
    upper = {"etc/motd": "from the upper layer\n", "bin/.wh.vi": ""}
    return build(tmp_path_factory.mktemp("image"), [{**busybox_files(), "etc/motd": "from the lower layer\n"}, upper])


@pytest.fixture
def box(image: Image, tmp_path: Path) -> Iterator[Box]:
    """A place for containers, empty again at the end."""
    with Box(tmp_path, image) as box:
        yield box
