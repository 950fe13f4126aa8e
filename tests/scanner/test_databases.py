"""Which layers write a package database: those may not be approved by themselves."""

from __future__ import annotations

import pytest

from scanner.databases import writes_package_database
from tests.scanner.scanning import Layer, read
from tests.support.images import Dir, Link
from tests.support.packages import Deb, Wheel, distroless_files, dpkg_files, python_files

PACKAGE = Deb(name="bash", version="5")


@pytest.mark.parametrize(
    "layer",
    [
        dpkg_files([PACKAGE]),
        distroless_files([PACKAGE]),
        {"var/lib/dpkg/info/bash.md5sums": b""},
        {"var/lib/dpkg/.wh.status": b""},
        {"var/lib/dpkg/.wh..wh..opq": b""},
        {"var/lib/.wh.dpkg": b""},
        {"var/.wh.lib": b""},
        {".wh.var": b""},
        {"var/lib/.wh..wh..opq": b""},
        {".wh..wh..opq": b""},
        {"var/lib/dpkg": Link("/opt/dpkg")},
        {"var/lib": Link("/opt/lib")},
        {"var": Link("/opt/var")},
        {"x/dpkg/status": b"Package: a\n"},
        {"lib/apk/db/installed": b""},
        {"usr/lib/sysimage/rpm/rpmdb.sqlite": b""},
        {"a": b"x", "var/lib/dpkg/status": Link("a", hard=True)},
    ],
)
def test_l8_a_layer_that_writes_removes_or_displaces_a_database(layer: Layer) -> None:
    assert writes_package_database(read(layer)[0].members)


@pytest.mark.parametrize(
    "layer",
    [
        {"app/main.py": b"x"},
        python_files(Wheel(name="flask", version="3.1.3")),
        {"var/lib/dpkg": Dir(), "var/lib/dpkg/info": Dir(), "var/lib": Dir(), "var": Dir(), "usr/lib": Dir()},
        {"var/lib/dpkg-cross": b"x"},
        {"var/lib/app/data": b"x"},
        {"usr/share/doc/dpkg/copyright": b"x"},
        {"var/lib/.wh.app": b""},
    ],
)
def test_a_layer_that_does_not(layer: Layer) -> None:
    assert not writes_package_database(read(layer)[0].members)
