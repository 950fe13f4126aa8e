"""What is counted as a component, in which layer, and what could not be read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scanner.errors import ScanError
from scanner.inventory import inventory
from tests.scanner.scanning import read, scanned
from tests.support.images import Content, Link
from tests.support.packages import SITE_PACKAGES, Deb, Files, Wheel, dpkg_files, os_release, python_files

STATUS = "var/lib/dpkg/status"
GIT = Deb(name="git", version="1:2.47.2-0.1", architecture="amd64", files={"usr/bin/git": b"\x7fELF git"})


@pytest.mark.parametrize(
    ("status", "counts"),
    [
        ("install ok installed", True),
        ("hold ok installed", True),
        ("install ok unpacked", True),
        ("install ok half-configured", True),
        ("install reinstreq half-installed", True),
        ("install ok triggers-awaited", True),
        ("install ok triggers-pending", True),
        ("deinstall ok config-files", False),
        ("purge ok not-installed", False),
    ],
)
def test_6_a_removed_package_is_no_component_but_a_half_configured_one_is(status: str, counts: bool) -> None:
    image = scanned({**os_release(), **dpkg_files([replace(GIT, status=status)])})
    assert bool(image.purls()) == counts
    assert image.unknowns() == []


def test_what_a_component_says_of_itself() -> None:
    deb = replace(GIT, source="git-core", source_version="1:2.47.2-0", licence="GPL-2 or Expat")
    component = scanned({**os_release(), **dpkg_files([deb])}).inventory.components[0]
    assert component.purl == "pkg:deb/debian/git@1:2.47.2-0.1?arch=amd64&distro=debian-13"
    assert (component.source, component.source_version) == ("git-core", "1:2.47.2-0")
    assert component.licences == "GPL-2.0-only OR MIT"
    assert (component.location, component.files) == (STATUS, 3)


def test_packages_of_several_architectures_are_several_components() -> None:
    debs = [
        Deb(
            name="libc6",
            version="2.41-12",
            architecture=arch,
            multi_arch="same",
            files={f"usr/lib/{arch}/libc.so": b"c"},
        )
        for arch in ("amd64", "i386")
    ]
    files = {**os_release(), **dpkg_files(debs[:1])}
    files |= dpkg_files(debs[1:])
    both = dpkg_files(debs[:1])[STATUS] + b"\n" + dpkg_files(debs[1:])[STATUS]
    # Files that both ship are the same in both, as dpkg demands.
    image = scanned({**files, STATUS: both})
    assert [component.purl.partition("?")[2] for component in image.inventory.components] == [
        "arch=amd64&distro=debian-13",
        "arch=i386&distro=debian-13",
    ]
    assert image.unknowns() == []


def test_the_layer_of_a_component_is_the_first_in_which_its_version_appeared() -> None:
    base: Files = {**os_release(), **dpkg_files([GIT])}
    curl = Deb(name="curl", version="8-1", files={"usr/bin/curl": b"curl"})
    wget = Deb(name="wget", version="1-1", files={"usr/bin/wget": b"wget"})
    second = dpkg_files([curl], below=base[STATUS])
    third = dpkg_files([wget], below=second[STATUS])
    image = scanned(base, {"opt/empty": b"x"}, second, third)
    assert {component.name: component.layer for component in image.inventory.components} == {
        "git": 0,
        "curl": 2,
        "wget": 3,
    }
    assert image.unknowns() == []


def test_a_package_that_came_back_belongs_to_the_layer_that_brought_it_back() -> None:
    base: Files = {**os_release(), **dpkg_files([GIT, Deb(name="dash", version="1")])}
    without = {STATUS: dpkg_files([Deb(name="dash", version="1")])[STATUS]}
    again = dpkg_files([GIT], below=without[STATUS])
    image = scanned(base, without, again)
    assert {component.name: component.layer for component in image.inventory.components} == {"git": 2, "dash": 0}


def test_11_python_packages_of_a_deb_are_counted_once_by_file_ownership() -> None:
    site = "usr/lib/python3/dist-packages"
    shipped = python_files(Wheel(name="requests", version="2.32.3"), site=site)
    deb = Deb(name="python3-requests", version="2.32.3-5", files=shipped)
    own = python_files(Wheel(name="Flask", version="3.1.3"))
    image = scanned({**os_release(), **dpkg_files([deb]), **own})
    components = {component.name: component for component in image.inventory.components}
    assert components["requests"].owner == components["python3-requests"].purl
    assert components["flask"].owner == ""
    assert [component.name for component in image.inventory.components if not component.owner] == [
        "python3-requests",
        "flask",
    ]
    assert image.unknowns() == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("app/lib/Zope.Interface-5.0.egg-info/PKG-INFO", "Name: Zope.Interface\nVersion: 5.0\n"),
        (
            "usr/lib/python2.7/Zope.Interface-5.0.egg-info",
            "Metadata-Version: 1.1\nName: Zope.Interface\nVersion: 5.0\n",
        ),
        ("opt/x.egg/EGG-INFO/PKG-INFO", "Name: Zope.Interface\r\nVersion: 5.0\r\n\r\nDescription: no\r\n"),
        ("srv/zope.dist-info/METADATA", "Name: Zope.Interface\nVersion: 5.0\nLicense: ZPL-2.1\n"),
    ],
)
def test_every_form_of_installed_python_metadata_is_read(path: str, text: str) -> None:
    image = scanned({path: text.encode()})
    assert [(component.name, component.version) for component in image.inventory.components] == [
        ("zope-interface", "5.0")
    ]
    assert image.inventory.components[0].purl == "pkg:pypi/zope.interface@5.0"
    assert image.unknowns() == []


def test_old_lists_of_installed_files_give_ownership() -> None:
    folder = "usr/lib/python2.7/six.egg-info"
    files = {
        f"{folder}/PKG-INFO": b"Name: six\nVersion: 1.0\n",
        f"{folder}/installed-files.txt": b"../six.py\nPKG-INFO\n",
        "usr/lib/python2.7/six.py": b"import sys\n",
    }
    assert scanned(files).inventory.components[0].files == 2


@pytest.mark.parametrize(
    ("files", "subject", "words"),
    [
        ({STATUS: b"no field\n"}, STATUS, "expected 'Field: value'"),
        ({STATUS: b" continued\n"}, STATUS, "continuation without a field"),
        ({STATUS: b"Package: a\nPackage: b\n"}, STATUS, "stands twice"),
        ({STATUS: b"Package: a\nStatus: install ok installed\nArchitecture: all\n"}, STATUS, "a: version is None"),
        ({STATUS: b"Package: A!\nStatus: install ok installed\n"}, STATUS, "package is 'A!'"),
        ({STATUS: b"Package: a\nVersion: 1\nArchitecture: all\n"}, STATUS, "its status is missing"),
        (
            {STATUS: b"Package: a\nVersion: 1\nArchitecture: all\nStatus: install ok fine\n"},
            STATUS,
            "which dpkg does not know",
        ),
        (
            {STATUS: b"Package: a\nVersion: 1\nArchitecture: all\nStatus: install ok installed\nSource: A B\n"},
            STATUS,
            "expected NAME or NAME (VERSION)",
        ),
        ({"a/x.dist-info/METADATA": b"Name: x\n"}, "a/x.dist-info/METADATA", "got 1 names and 0 versions"),
        ({"a/x.dist-info/METADATA": b""}, "a/x.dist-info/METADATA", "got 0 names and 0 versions"),
        ({"a/x.dist-info/METADATA": b"Name: x\nVersion: \xff\n"}, "a/x.dist-info/METADATA", "cannot be a distribution"),
        ({"etc/os-release": b"NAME=x\n"}, "etc/os-release", "names no system"),
    ],
)
def test_a_record_that_cannot_be_read_is_unknown(files: Files, subject: str, words: str) -> None:
    found = [item for item in scanned({**os_release(), **files}).inventory.unknowns if item.subject == subject]
    assert [words in item.detail for item in found] == [True]


def test_two_paragraphs_of_one_package_are_told_and_both_count() -> None:
    one, other = dpkg_files([GIT])[STATUS], dpkg_files([replace(GIT, version="1:9-1")])[STATUS]
    image = scanned({**os_release(), **dpkg_files([GIT]), STATUS: one + b"\n" + other})
    assert [component.version for component in image.inventory.components] == ["1:2.47.2-0.1", "1:9-1"]
    assert any("stands in it twice" in item.detail for item in image.unknowns("unreadable-record"))


def test_l4_a_package_removed_by_whiteout_is_not_in_the_image() -> None:
    wheel = python_files(Wheel(name="salt", version="3000.1"))
    image = scanned(wheel, {f"{SITE_PACKAGES}/.wh..wh..opq": b""})
    assert image.purls() == []
    assert image.unknowns() == []


def test_l6_a_record_behind_a_symlink_is_unknown_not_overlooked() -> None:
    base: dict[str, Content] = {"usr/share/salt.dist-info/README": b"x", "x": Link("usr/share/salt.dist-info")}
    hidden = {"x/METADATA": b"Name: salt\nVersion: 3000.1\n"}
    found = scanned(base, hidden).unknowns("unreadable-record")
    assert [(item.subject, item.layer) for item in found] == [("usr/share/salt.dist-info/METADATA", 1)]
    assert "spells it in another way" in found[0].detail


def test_l6_a_record_that_is_a_hard_link_of_another_name_is_unknown() -> None:
    files: dict[str, Content] = {
        "a": b"Name: salt\nVersion: 3000.1\n",
        "usr/salt.dist-info/METADATA": Link("a", hard=True),
    }
    found = scanned(files).unknowns("unreadable-record")
    assert [item.subject for item in found] == ["usr/salt.dist-info/METADATA"]


def test_a_record_under_a_linked_folder_is_read_where_it_lies() -> None:
    base: dict[str, Content] = {"usr/lib/python3/keep": b"", "lib": Link("usr/lib")}
    layer = python_files(Wheel(name="flask", version="3.1.3"), site="lib/python3/site-packages")
    image = scanned(base, layer)
    assert image.inventory.components[0].location.startswith("usr/lib/python3/site-packages/flask")
    assert image.unknowns() == []


def test_what_no_cataloger_reads_is_told_once_for_each_ecosystem() -> None:
    files = {
        **os_release(),
        "lib/apk/db/installed": b"P:musl\n",
        "app/node_modules/left-pad/package.json": b"{}",
        "app/node_modules/@scope/x/package.json": b"{}",
        "app/package.json": b"{}",
        "srv/app.jar": b"PK",
        "usr/lib/ruby/specifications/rake-1.gemspec": b"",
        "usr/share/bazaar": b"not a jar",
    }
    found = {item.subject: item.detail for item in scanned(files).unknowns("unsupported-ecosystem")}
    assert sorted(found) == ["apk", "gem", "maven", "npm"]
    assert found["npm"].startswith("2 packages or databases of this kind")


def test_files_that_a_package_owns_are_no_gap() -> None:
    deb = Deb(name="node-left-pad", version="1", files={"usr/share/node_modules/left-pad/package.json": b"{}"})
    assert scanned({**os_release(), **dpkg_files([deb])}).unknowns() == []


def elf(kind: int = 3) -> bytes:
    """The head of an ELF file for little-endian machines; e_type 2 is a program, 3 a library, 1 an object file."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + bytes([kind, 0]) + bytes(40)


def test_programs_that_nobody_owns_are_told_once_a_layer() -> None:
    owned = Deb(name="bash", version="5", files={"usr/bin/bash": elf()})
    base = {**os_release(), **dpkg_files([owned])}
    app = {"app/one": elf(2), "app/two.so": elf(3), "app/object.o": elf(1), "app/script": b"#!/bin/sh\n"}
    found = scanned(base, app).unknowns("unowned-executable")
    assert [(item.layer, item.subject) for item in found] == [(1, "app/one")]
    assert found[0].detail.startswith("2 ELF programs and libraries")


def test_programs_of_a_python_package_are_owned() -> None:
    wheel = Wheel(name="numpy", version="2.0", files={"numpy/core.so": elf()})
    assert scanned({**os_release(), **python_files(wheel)}).unknowns() == []


def test_an_image_without_os_release_says_so() -> None:
    assert [item.code for item in scanned({"app": b"x"}).inventory.unknowns] == ["no-operating-system"]


def test_the_operating_system_is_read_as_os_release_5_says() -> None:
    text = b"# comment\nID=debian\nVERSION_ID=\"13\"\nPRETTY_NAME='Debian \\'x'\nVERSION_CODENAME=trixie\nNAME=\"open\n"
    system = scanned({"etc/x": b"", "usr/lib/os-release": text}).inventory.operating_system
    assert system is not None
    assert (system.id, system.version_id, system.codename) == ("debian", "13", "trixie")


def test_l6_two_os_releases_that_disagree_are_unknown() -> None:
    files = {**os_release(), "etc/os-release": os_release(version="12")["usr/lib/os-release"]}
    found = [item for item in scanned(files).inventory.unknowns if item.code == "no-operating-system"]
    assert ["debian 12" in item.detail and "debian 13" in item.detail for item in found] == [True]


def test_facts_of_another_number_of_layers_are_refused() -> None:
    image = scanned(os_release(), {"a": b"x"})
    with pytest.raises(ScanError, match="of which no facts are known"):
        inventory(image.tree, image.facts[:1])


def test_an_inventory_is_a_function_of_its_layers() -> None:
    files = {**os_release(), **dpkg_files([GIT]), **python_files(Wheel(name="flask", version="3.1.3"))}
    assert scanned(files).inventory == scanned(dict(reversed(files.items()))).inventory
    assert read(files)[1].diff_id != read(dict(reversed(files.items())))[1].diff_id
