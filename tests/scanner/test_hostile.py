"""L5: package records made to take for ever, or to fill what reads them. Each of these ends soon, with an answer."""

from __future__ import annotations

import pytest

from scanner import inventory as inventory_module
from scanner import view as view_module
from scanner.deb822 import MAX_PARAGRAPHS, Deb822Error, paragraphs
from scanner.errors import ScanError
from scanner.licences.debian import copyright_expression
from scanner.records import RecordKind
from scanner.reduce import reduce_record
from tests.scanner.scanning import scanned
from tests.support.images import Content, Link
from tests.support.packages import SITE_PACKAGES, Deb, Wheel, dpkg_files, os_release, python_files

STATUS = "var/lib/dpkg/status"


def test_l5_a_field_of_a_million_lines() -> None:
    text = "Package: a\nConffiles:\n" + " /x 0\n" * 1_000_000
    assert len(next(iter(paragraphs(text)))["conffiles"]) == 5_000_000


def test_l5_more_packages_than_any_system_has() -> None:
    with pytest.raises(Deb822Error, match="more than"):
        list(paragraphs("Package: a\n\n" * (MAX_PARAGRAPHS + 1)))
    found = scanned({**os_release(), STATUS: b"Package: a\n\n" * (MAX_PARAGRAPHS + 1)}).unknowns("unreadable-record")
    assert ["more than" in item.detail for item in found] == [True]


@pytest.mark.parametrize(
    "line", [" " * 3_000_000 + "x", "a and" * 500_000, "," * 3_000_000, "a with " * 500_000, "a, or " * 500_000]
)
def test_l5_a_licence_line_of_megabytes(line: str) -> None:
    assert len(copyright_expression(f"Format: x\n\nFiles: *\nLicense: {line}\n")) < 10_000


@pytest.mark.parametrize(
    "content",
    [
        b"Name: x\n" + b" folded\n" * 200_000 + b"Version: 1\n",
        b"Name: x\nVersion: 1\n" + b"Classifier: License :: x\n" * 100_000,
        b"Name: x\nVersion: 1\nLicense: " + b"( MIT OR " * 100_000,
        b"Name: x\nVersion: 1\nLicense-Expression: " + b"(" * 300_000,
        b"Name: x\nVersion: 1\nLicense: " + b"/usr/share/common-licenses/" * 100_000,
    ],
)
def test_l5_metadata_of_megabytes(content: bytes) -> None:
    text, problem = reduce_record(RecordKind.PYTHON_METADATA, content)
    assert len(text) + len(problem) < 1_000_000


def test_l5_lists_that_lead_through_ever_more_symlinks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "MAX_LINKS", 10)
    files: dict[str, Content] = {**os_release(), **dpkg_files([Deb(name="a", version="1")])}
    files |= {f"links/{n}": Link("/usr/lib") for n in range(50)}
    files["var/lib/dpkg/info/a.list"] = "".join(f"/links/{n}/x\n" for n in range(50)).encode()
    with pytest.raises(ScanError, match="more than 10 symlinks"):
        scanned(files)


def test_l5_more_records_than_an_image_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "MAX_TEXT", 100)
    with pytest.raises(ScanError, match="expected at most 100"):
        scanned({**os_release(), **dpkg_files([Deb(name="a", version="1")])})


def test_l5_more_components_than_an_image_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory_module, "MAX_COMPONENTS", 3)
    debs = [Deb(name=f"p{n}", version="1") for n in range(4)]
    with pytest.raises(ScanError, match="more than 3 components"):
        scanned({**os_release(), **dpkg_files(debs)})


def test_l5_more_unknowns_than_anybody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory_module, "MAX_UNKNOWNS", 3)
    broken = {f"a/x{n}.dist-info/METADATA": b"Name: x\n" for n in range(9)}
    found = scanned({**os_release(), **broken}).inventory.unknowns
    assert len(found) == 4
    assert found[-1].detail.startswith("6 more things could not be told")


def test_l5_a_list_with_paths_that_leave_the_tree() -> None:
    files = {**os_release(), **dpkg_files([Deb(name="a", version="1")])}
    files["var/lib/dpkg/info/a.list"] = b"/../../etc/shadow\n//usr//lib/os-release\n/\n/" + b"x/" * 2_000 + b"\n"
    assert scanned(files).inventory.components[0].files == 1


def test_l8_a_record_that_names_the_old_files_without_checksums() -> None:
    """A newer dist-info whose RECORD owns the old modules, but says nothing of their content."""
    old = python_files(Wheel(name="salt", version="3000.1"))
    forged = python_files(Wheel(name="salt", version="3000.2"))
    folder = f"{SITE_PACKAGES}/salt-3000.2.dist-info"
    lines = forged[f"{folder}/RECORD"].decode().splitlines()
    lines = [f"{line.split(',')[0]},," if line.startswith("salt/") else line for line in lines]
    layer: dict[str, Content] = {path: content for path, content in forged.items() if "dist-info" in path}
    layer |= {f"{folder}/RECORD": "\n".join(lines).encode(), f"{SITE_PACKAGES}/.wh.salt-3000.1.dist-info": b""}
    found = scanned({**os_release(), **old}, layer).unknowns("database-contradicts-files")
    assert [item.subject for item in found] == [f"{SITE_PACKAGES}/salt-3000.1.dist-info/RECORD"]


def test_l8_a_record_that_cannot_be_read_to_its_end() -> None:
    files = python_files(Wheel(name="salt", version="3000.1"))
    record = f"{SITE_PACKAGES}/salt-3000.1.dist-info/RECORD"
    files[record] = b"x" * 200_000 + b",,\n" + files[record]
    found = scanned({**os_release(), **files}).unknowns("unreadable-record")
    assert [(item.subject, "RECORD cannot be read" in item.detail) for item in found] == [
        ("pkg:pypi/salt@3000.1", True)
    ]
