"""Package databases that lie, named after the attacks: L8 (forged or recombined evidence) and L6 (evasion)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ocispec.layer import LayerContent
from scanner.facts import LayerFacts
from scanner.model import Unknown
from tests.scanner.scanning import Scanned, assembled, read, scanned
from tests.support.images import Content, Dir, Link
from tests.support.packages import Deb, Files, Wheel, distroless_files, dpkg_files, os_release, python_files

CODE = "database-contradicts-files"
STATUS = "var/lib/dpkg/status"

OLD = Deb(
    name="openssl",
    version="3.5.1-1",
    architecture="amd64",
    files={
        "usr/bin/openssl": b"\x7fELF old program",
        "usr/lib/libssl.so.3": b"\x7fELF old library",
        "etc/ssl/openssl.cnf": b"setting = 1\n",
    },
    conffiles=("etc/ssl/openssl.cnf",),
)
NEW = replace(
    OLD,
    version="3.5.1-1+deb13u1",
    files={
        "usr/bin/openssl": b"\x7fELF new program",
        "usr/lib/libssl.so.3": b"\x7fELF new library",
        "etc/ssl/openssl.cnf": b"setting = 1\n",
    },
)
OTHER = Deb(name="bash", version="5.2-1", architecture="amd64", files={"usr/bin/bash": b"\x7fELF bash"})

BASE: Files = {**os_release(), **dpkg_files([OLD, OTHER])}


def upgraded(deb: Deb, below: Files) -> Files:
    """What a layer holds in which `deb` was installed on `below`."""
    return dpkg_files([deb], below=below[STATUS])


def contradictions(image: Scanned) -> list[Unknown]:
    return image.unknowns(CODE)


def test_an_honest_image_has_none() -> None:
    assert scanned(BASE).unknowns() == []


def test_an_honest_upgrade_has_none_and_its_layer_is_the_upgrades() -> None:
    image = scanned(BASE, upgraded(NEW, BASE))
    assert image.unknowns() == []
    layers = {component.name: (component.version, component.layer) for component in image.inventory.components}
    assert layers == {"openssl": ("3.5.1-1+deb13u1", 1), "bash": ("5.2-1", 0)}


def test_l8_one_edited_line_of_the_package_database_makes_no_hole_look_mended() -> None:
    forged = BASE[STATUS].replace(b"Version: 3.5.1-1\n", b"Version: 3.5.1-1+deb13u1\n")
    assert forged != BASE[STATUS]
    found = contradictions(scanned(BASE, {STATUS: forged}))
    assert [(item.layer, item.subject.partition("?")[0]) for item in found] == [
        (1, "pkg:deb/debian/openssl@3.5.1-1%2Bdeb13u1")
    ]
    assert "is new in layer 1, but 4 of its 4 files were not written there" in found[0].detail


def test_l8_an_edited_line_and_some_files_written_again_are_seen_too() -> None:
    forged = BASE[STATUS].replace(b"Version: 3.5.1-1\n", b"Version: 3.5.1-1+deb13u1\n")
    harmless = "usr/share/doc/openssl/copyright"
    found = contradictions(scanned(BASE, {STATUS: forged, harmless: BASE[harmless]}))
    assert ["3 of its 4 files were not written there" in item.detail for item in found] == [True]


def test_l8_the_patched_packages_database_and_checksums_without_its_files() -> None:
    records = {path: content for path, content in upgraded(NEW, BASE).items() if path.startswith("var/lib/dpkg")}
    found = contradictions(scanned(BASE, records))
    # The files are not what the new checksums say; those that both versions share were not written.
    assert any("are not what its checksums say: usr/bin/openssl, usr/lib/libssl.so.3" in item.detail for item in found)


def test_l8_a_layer_built_on_a_patched_base_put_on_the_unpatched_one() -> None:
    patched: Files = {**os_release(), **dpkg_files([NEW, OTHER])}
    added = Deb(name="curl", version="8-1", architecture="amd64", files={"usr/bin/curl": b"\x7fELF curl"})
    on_patched = upgraded(added, patched)
    # On the base that it was made for, it says nothing wrong.
    assert scanned(patched, on_patched).unknowns() == []
    # On the other, its copy of the database hides the base's hole.
    found = contradictions(scanned(BASE, on_patched))
    assert [(item.layer, "openssl" in item.subject) for item in found] == [(1, True)]


def test_l8_checksums_that_were_emptied_bear_nothing_out() -> None:
    forged = BASE[STATUS].replace(b"Version: 3.5.1-1\n", b"Version: 3.5.1-1+deb13u1\n")
    found = contradictions(scanned(BASE, {STATUS: forged, "var/lib/dpkg/info/openssl.md5sums": b""}))
    assert any("4 of its 5 listed files have no checksum" in item.detail for item in found)
    assert any("were taken out of its own checksums" in item.detail for item in found)


def test_l8_a_package_taken_out_of_the_database_leaves_its_files_behind() -> None:
    without = dpkg_files([OTHER])
    image = scanned(BASE, {STATUS: without[STATUS]})
    assert image.purls() == ["pkg:deb/debian/bash@5.2-1"]
    found = contradictions(image)
    assert [(item.subject, item.layer) for item in found] == [("var/lib/dpkg/info/openssl", 1)]
    assert "were taken out of the database" in found[0].detail


def test_l8_a_package_removed_with_its_files_is_simply_gone() -> None:
    removal: dict[str, Content] = {STATUS: dpkg_files([OTHER])[STATUS]}
    for path in OLD.shipped:
        folder, _, name = path.rpartition("/")
        if path not in OLD.conffiles:
            removal[f"{folder}/.wh.{name}"] = b""
    for suffix in ("list", "md5sums", "conffiles"):
        removal[f"var/lib/dpkg/info/.wh.openssl.{suffix}"] = b""
    image = scanned(BASE, removal)
    assert image.purls() == ["pkg:deb/debian/bash@5.2-1"]
    assert image.unknowns() == []


def test_l6_a_deleted_package_database_is_no_clean_image() -> None:
    image = scanned(BASE, {"var/lib/.wh.dpkg": b""})
    assert image.purls() == []
    assert {item.subject for item in contradictions(image)} == {
        "var/lib/dpkg/info/bash",
        "var/lib/dpkg/info/openssl",
    }


def test_l6_a_deleted_database_of_many_packages_is_told_once() -> None:
    many = [Deb(name=f"p{n}", version="1", files={f"usr/lib/p{n}": b"%d" % n}) for n in range(40)]
    found = contradictions(scanned({**os_release(), **dpkg_files(many)}, {"var/lib/.wh.dpkg": b""}))
    assert [item.subject for item in found] == [STATUS]
    assert "40 packages of lower layers are not in the database" in found[0].detail


def test_l6_a_replaced_program_is_told_by_the_packages_checksum() -> None:
    found = contradictions(scanned(BASE, {"usr/bin/openssl": b"\x7fELF something else"}))
    assert [(item.layer, item.detail) for item in found] == [
        (1, "1 of its 4 files are not what its checksums say: usr/bin/openssl")
    ]


@pytest.mark.parametrize("content", [Link("/usr/bin/bash"), Dir()])
def test_l6_a_program_replaced_by_another_kind_of_file(content: Content) -> None:
    assert len(contradictions(scanned(BASE, {"usr/bin/openssl": content}))) == 1


def test_l6_a_forged_os_release_is_told_by_the_packages_checksum() -> None:
    base_files = Deb(name="base-files", version="13.8", files=os_release())
    base: dict[str, Content] = {**dpkg_files([base_files]), "etc/os-release": Link("../usr/lib/os-release")}
    assert scanned(base).unknowns() == []
    forged = os_release(version="12")["usr/lib/os-release"]
    for place in ("usr/lib/os-release", "etc/os-release"):
        image = scanned(base, {place: forged})
        assert [item.layer for item in contradictions(image)], place
    # Also where the shipped file was removed, so that nothing disagrees with the forged one.
    removed: dict[str, Content] = {"etc/os-release": forged, "usr/lib/.wh.os-release": b""}
    assert [
        "is not the os-release that it ships" in item.detail for item in contradictions(scanned(base, removed))
    ] == [True]


def test_a_conffile_may_be_edited() -> None:
    assert scanned(BASE, {"etc/ssl/openssl.cnf": b"setting = 2\n"}).unknowns() == []


def test_documentation_may_be_left_out() -> None:
    slim = {path: content for path, content in BASE.items() if not path.startswith("usr/share/doc")}
    image = scanned(slim)
    assert image.unknowns() == []
    assert [component.licences for component in image.inventory.components] == ["", ""]


def test_a_deleted_file_is_no_contradiction_but_all_of_them_are() -> None:
    removed: dict[str, Content] = {"usr/bin/.wh.bash": b""}
    assert [item.detail for item in contradictions(scanned(BASE, removed))] == []
    removed["usr/share/doc/.wh.bash"] = b""
    found = contradictions(scanned(BASE, removed))
    assert ["none of its 3 files is there: usr/bin/bash" in item.detail for item in found] == [True]


def test_files_below_an_aliased_folder_are_found() -> None:
    # Before /usr was merged, packages listed bin/… and lib/…; dpkg's records keep those names.
    aliased = Deb(name="dash", version="1", files={"bin/dash": b"\x7fELF dash"})
    files: dict[str, Content] = {**os_release(), **dpkg_files([aliased])}
    files["usr/bin/dash"] = files.pop("bin/dash")
    files["bin"] = Link("usr/bin")
    image = scanned(files)
    assert image.unknowns() == []
    assert image.inventory.components[0].files == 3


def test_a_diverted_file_is_looked_for_where_it_lies() -> None:
    diverted = Deb(name="vim", version="1", files={"usr/share/vim/tags": b"vim's tags"})
    diverting = Deb(name="vim-runtime", version="1", files={"usr/share/vim/tags": b"runtime's tags"})
    files: Files = {**os_release(), **dpkg_files([diverted, diverting])}
    files["usr/share/vim/tags.vim"] = b"vim's tags"
    files["var/lib/dpkg/diversions"] = b"/usr/share/vim/tags\n/usr/share/vim/tags.vim\nvim-runtime\n"
    assert scanned(files).unknowns() == []
    del files["var/lib/dpkg/diversions"]
    assert [item.subject.partition("@")[0] for item in contradictions(scanned(files))] == ["pkg:deb/debian/vim"]


def test_a_distroless_image_is_checked_by_its_own_checksums() -> None:
    base: Files = {**os_release(), **distroless_files([OLD, OTHER])}
    image = scanned(base)
    assert image.purls() == ["pkg:deb/debian/bash@5.2-1", "pkg:deb/debian/openssl@3.5.1-1"]
    assert image.unknowns() == []
    record = "var/lib/dpkg/status.d/openssl"
    forged = scanned(base, {record: base[record].replace(b"3.5.1-1", b"3.5.1-1+deb13u1")})
    assert ["were not written there" in item.detail for item in contradictions(forged)] == [True]
    silent = {path: content for path, content in base.items() if not path.endswith("openssl.md5sums")}
    assert ["nothing in the database says which files" in item.detail for item in contradictions(scanned(silent))] == [
        True
    ]


SITE = "usr/local/lib/python3.13/site-packages"
SALT = Wheel(name="salt", version="3000.1", files={"salt/__init__.py": b"old\n", "salt/master.py": b"old too\n"})
SALT_FIXED = replace(SALT, version="3000.2", files={"salt/__init__.py": b"new\n", "salt/master.py": b"new too\n"})
PYTHON: Files = {**os_release(), **python_files(SALT)}


def removed_python(*, files: bool) -> dict[str, Content]:
    """Whiteouts of what pip removes when salt is upgraded."""
    gone: dict[str, Content] = {f"{SITE}/.wh.salt-3000.1.dist-info": b""}
    return {**gone, f"{SITE}/.wh.salt": b""} if files else gone


def test_an_honest_pip_upgrade_has_none() -> None:
    image = scanned(PYTHON, {**removed_python(files=True), **python_files(SALT_FIXED)})
    assert image.unknowns() == []
    assert [(item.version, item.layer) for item in image.inventory.components] == [("3000.2", 1)]


def test_l8_an_edited_version_in_a_distributions_metadata() -> None:
    path = f"{SITE}/salt-3000.1.dist-info/METADATA"
    found = contradictions(scanned(PYTHON, {path: PYTHON[path].replace(b"3000.1", b"3000.2")}))
    assert any("are not what RECORD says" in item.detail for item in found)
    assert any("3000.2 is new in layer 1" in item.detail for item in found)


def test_l8_a_newer_dist_info_over_the_old_files() -> None:
    lie = replace(SALT_FIXED, files=SALT.files)
    metadata = {path: content for path, content in python_files(lie).items() if "dist-info" in path}
    found = contradictions(scanned(PYTHON, {**removed_python(files=False), **metadata}))
    assert ["2 of its 5 files were not written there" in item.detail for item in found] == [True]


def test_l8_a_removed_dist_info_leaves_its_files_behind() -> None:
    image = scanned(PYTHON, removed_python(files=False))
    assert image.purls() == []
    assert [item.subject for item in contradictions(image)] == [f"{SITE}/salt-3000.1.dist-info/RECORD"]


def test_l8_a_distribution_without_checksums_in_another_ones_place() -> None:
    egg = {f"{SITE}/salt.egg-info/PKG-INFO": b"Name: salt\nVersion: 3000.1\n"}
    newer = {f"{SITE}/salt.egg-info/PKG-INFO": b"Name: salt\nVersion: 3000.2\n"}
    assert contradictions(scanned({**os_release(), **egg})) == []
    assert [
        "no checksum bears it out" in item.detail for item in contradictions(scanned(os_release(), egg, newer))
    ] == [True]


def test_l6_a_changed_module_is_told_by_record() -> None:
    found = contradictions(scanned(PYTHON, {f"{SITE}/salt/master.py": b"malicious\n"}))
    assert [(item.layer, item.detail) for item in found] == [
        (1, f"1 of its 5 files are not what RECORD says: {SITE}/salt/master.py")
    ]


def test_a_layer_that_is_read_once_serves_every_image_that_has_it() -> None:
    base, upgrade = read(BASE), read(upgraded(NEW, BASE))

    def image(*parts: tuple[LayerContent, LayerFacts]) -> Scanned:
        return assembled([part[0] for part in parts], [part[1] for part in parts])

    assert image(base).purls() != image(base, upgrade).purls()
    assert image(base).inventory == scanned(BASE).inventory
