"""The facts of a layer: kept exactly, bounded, and never in the way of reading it."""

from __future__ import annotations

import hashlib
import json
import tracemalloc

import pytest

from ocispec.digest import Digest
from scanner import facts as facts_module
from scanner.errors import ScanError
from scanner.facts import FACTS_VERSION, LayerFacts, dump, load
from scanner.records import LIMITS, RecordKind, record_kind
from tests.scanner.scanning import read, scanned
from tests.support.packages import Deb, Wheel, dpkg_files, os_release, python_files

FILES = {
    **os_release(),
    **dpkg_files(
        [Deb(name="bash", version="5", files={"usr/bin/bash": b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00"})]
    ),
    **python_files(Wheel(name="flask", version="3.1.3")),
    "empty": b"",
}


def test_facts_survive_the_round_trip() -> None:
    facts = read(FILES)[1]
    assert load(dump(facts), facts.diff_id) == facts
    assert dump(facts) == dump(read(FILES)[1])


def test_every_file_is_hashed_and_named_by_its_place_in_the_tar() -> None:
    content, facts = read(FILES)
    md5, sha256, elf = facts.md5_table(), facts.sha256_table(), facts.elf_offsets()
    for member in content.members:
        data = FILES.get(member.path.decode())
        if data:
            offset = member.offset  # type: ignore[union-attr]  # every member with data is an Entry
            assert md5[offset] == hashlib.md5(data, usedforsecurity=False).digest()
            assert (offset in sha256) == (b"site-packages" in member.path)
            assert (offset in elf) == (member.path == b"usr/bin/bash")


def test_paths_that_are_not_utf_8_survive() -> None:
    name = b"usr/lib/python3/\xff\xfe.dist-info/METADATA".decode("utf-8", "surrogateescape")
    image = scanned({name: b"Name: x\nVersion: 1\n"})
    assert load(dump(image.facts[0]), image.facts[0].diff_id) == image.facts[0]
    assert image.inventory.components[0].location == "usr/lib/python3/\\xff\\xfe.dist-info/METADATA"


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"[]",
        b"{}",
        b'{"version":1}',
        b"[" * 100_000,
        dump(read({"a": b"x"})[1]).replace(b'"md5":"', b'"md5":"A'),
        dump(read({"a": b"x"})[1]).replace(b'"records":[]', b'"records":[[1,"x","y","z"]]'),
        dump(read({"a": b"x"})[1]).replace(b'"records":[]', b'"records":[["1","os-release","y","z"]]'),
        dump(read({"a": b"x"})[1]).replace(b'"records":[]', b'"records":[1]'),
        dump(read({"a": b"x"})[1]).replace(b'"problems":[]', b'"problems":[[1,"y",2]]'),
        dump(read({"a": b"x"})[1]).replace(b'"version":1', b'"version":0'),
    ],
)
def test_what_the_scanner_did_not_write_is_refused(broken: bytes) -> None:
    with pytest.raises(ScanError, match="facts of layer sha256:"):
        load(broken, read({"a": b"x"})[1].diff_id)


def test_facts_of_another_layer_are_refused() -> None:
    facts = read(FILES)[1]
    with pytest.raises(ScanError, match="expected 1"):
        load(dump(facts), Digest.of(b"another"))


def test_facts_larger_than_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = read(FILES)[1]
    monkeypatch.setattr(facts_module, "MAX_JSON", 100)
    with pytest.raises(ScanError, match="expected at most 100"):
        load(dump(facts), facts.diff_id)


def test_l5_a_record_larger_than_its_kind_allows_is_unknown_and_not_kept() -> None:
    large = b"Name: x\nVersion: 1\n\n" + bytes(LIMITS[RecordKind.PYTHON_METADATA])
    tracemalloc.start()
    try:
        image = scanned({"a/x.dist-info/METADATA": large})
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    found = image.unknowns("unreadable-record")
    assert [(item.subject, "expected at most" in item.detail) for item in found] == [("a/x.dist-info/METADATA", True)]
    assert image.purls() == []
    assert len(dump(image.facts[0])) < 1000
    assert held < 2 * len(large)


def test_l5_more_records_than_we_keep_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_module, "MAX_RECORDS", 3)
    monkeypatch.setattr(facts_module, "MAX_PROBLEMS", 2)
    files = {f"a/x{n}.dist-info/METADATA": b"Name: x\nVersion: 1\n" for n in range(9)}
    image = scanned(files)
    assert len(image.purls()) == 3
    assert [problem.detail for problem in image.facts[0].problems][:2] == [
        "the layer has more package records than we keep"
    ] * 2
    assert "more than 2 package records" in image.facts[0].problems[2].detail
    # What was not kept is Unknown, each by its path.
    assert len(image.unknowns("unreadable-record")) == 6


def test_a_long_description_is_not_kept() -> None:
    text = b"Name: x\nVersion: 1\nLicense-Expression: MIT\n\n" + b"words " * 10_000
    facts = read({"a/x.dist-info/METADATA": text})[1]
    assert [record.text for record in facts.records] == ["x\n1\nMIT"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("var/lib/dpkg/status", RecordKind.DPKG_STATUS),
        ("var/lib/dpkg/status-old", None),
        ("var/lib/dpkg/status.d/base", RecordKind.DPKG_STATUS_D),
        ("var/lib/dpkg/status.d/base.md5sums", RecordKind.DPKG_CHECKSUMS),
        ("var/lib/dpkg/info/bash.list", RecordKind.DPKG_LIST),
        ("var/lib/dpkg/info/libc6:amd64.md5sums", RecordKind.DPKG_CHECKSUMS),
        ("var/lib/dpkg/info/bash.conffiles", RecordKind.DPKG_CONFFILES),
        ("var/lib/dpkg/info/bash.postinst", None),
        ("var/lib/dpkg/diversions", RecordKind.DPKG_DIVERSIONS),
        ("usr/share/doc/bash/copyright", RecordKind.DEB_COPYRIGHT),
        ("usr/share/doc/bash/examples/copyright", None),
        ("etc/os-release", RecordKind.OS_RELEASE),
        ("usr/lib/os-release", RecordKind.OS_RELEASE),
        ("opt/os-release", None),
        ("x/a.dist-info/METADATA", RecordKind.PYTHON_METADATA),
        ("x/a.dist-info/RECORD", RecordKind.PYTHON_RECORD),
        ("x/METADATA", None),
        ("a.egg-info/PKG-INFO", RecordKind.PYTHON_METADATA),
        ("x/a.egg-info", RecordKind.PYTHON_METADATA),
        ("x/a.egg/EGG-INFO/PKG-INFO", RecordKind.PYTHON_METADATA),
        ("x/a.egg-info/installed-files.txt", RecordKind.PYTHON_FILES),
        ("src/PKG-INFO", None),
    ],
)
def test_which_files_are_records(path: str, kind: RecordKind | None) -> None:
    assert record_kind(path.encode()) == kind


def test_facts_say_their_version() -> None:
    assert json.loads(dump(LayerFacts(diff_id=Digest.of(b""), records=())))["version"] == FACTS_VERSION
