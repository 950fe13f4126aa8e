"""The import of advisory data: what is read, what is refused, and what is told of it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from ocispec.digest import Digest
from ocispec.strictjson import JsonValue
from scanner.advisories import sources as sources_module
from scanner.advisories.build import import_sources
from scanner.advisories.endoflife import parse_products
from scanner.advisories.kev import parse_catalogue
from scanner.advisories.osv import named_packages, parse_advisory
from scanner.advisories.severity import from_score, from_word, worst
from scanner.advisories.sources import Source, SourceKind, documents, sources_in
from scanner.advisories.store import AdvisoryStore, file_digest
from scanner.errors import ScanError
from scanner.model import Severity
from tests.scanner.records import record
from tests.scanner.scanning import NOW, RECORDS, demo_store

GOOD = record("PYSEC-2026-1", "Some.Package", "introduced 0", "fixed 2.0", ecosystem="PyPI", aliases=["CVE-2026-1"])


def folder_of(where: Path, *records: Mapping[str, JsonValue] | bytes) -> Source:
    """A folder of OSV records."""
    where.mkdir(parents=True, exist_ok=True)
    for number, item in enumerate(records):
        raw = item if isinstance(item, bytes) else json.dumps(item).encode()
        (where / f"{number}.json").write_bytes(raw)
    return Source(kind=SourceKind.OSV, name="osv PyPI", path=where)


def zip_of(where: Path, members: Mapping[str, bytes]) -> Source:
    """A zip of OSV records, as the public exports are."""
    with zipfile.ZipFile(where, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return Source(kind=SourceKind.OSV, name="osv PyPI", path=where)


@contextmanager
def imported(target: Path, *sources: Source) -> Iterator[AdvisoryStore]:
    """The store of an import."""
    snapshot = import_sources(sources, target, now=NOW)
    with AdvisoryStore.open(target, digest=snapshot.digest) as store:
        yield store


def test_the_demos_records_are_all_good(tmp_path: Path) -> None:
    with demo_store(tmp_path) as store:
        assert [(source.name, source.records, source.broken) for source in store.sources] == [
            ("osv Debian:13", 5, 0),
            ("osv PyPI", 3, 0),
            ("kev", 4, 0),
            ("endoflife", 3, 0),
        ]
        assert store.records == 8
        assert store.exploited(["CVE-2020-11651"])
        assert not store.exploited(["CVE-2020-1", "GHSA-x"])
        assert [cycle.name for cycle in store.product_cycles("django")][-2:] == ["3.2", "2.2"]
        assert store.purl_cycles("pkg:pypi/django") == store.product_cycles("django")
        assert store.age(NOW + timedelta(days=3)) == timedelta(days=3)


def test_each_demo_record_names_its_source() -> None:
    for path in RECORDS.rglob("*.json"):
        text = path.read_text()
        assert "https://" in text, path


def test_a_record_is_found_by_its_normal_name_and_its_ecosystem(tmp_path: Path) -> None:
    with imported(tmp_path / "a.db", folder_of(tmp_path / "in", GOOD)) as store:
        found = store.advisories("PyPI", "some-package")
        assert [(item.id, item.aliases, item.affected[0].name) for item in found] == [
            ("PYSEC-2026-1", ("CVE-2026-1",), "some-package")
        ]
        assert store.advisories("PyPI", "Some.Package") == ()
        assert store.advisories("Debian:13", "some-package") == ()
        assert store.covers("PyPI")
        assert not store.covers("Debian:13")


def test_a_zip_and_its_folder_give_the_same_digest_of_the_source(tmp_path: Path) -> None:
    raw = json.dumps(GOOD).encode()
    one = import_sources([folder_of(tmp_path / "in", raw)], tmp_path / "a.db", now=NOW)
    other = import_sources([zip_of(tmp_path / "all.zip", {"0.json": raw})], tmp_path / "b.db", now=NOW)
    assert one.sources == other.sources


def test_of_two_records_with_one_id_the_later_modified_counts(tmp_path: Path) -> None:
    newer = {**GOOD, "modified": "2026-05-01T00:00:00Z", "summary": "newer"}
    older = {**GOOD, "modified": "2026-04-30T23:00:00-02:00", "summary": "later, by its time zone"}
    for order in ((newer, older, GOOD), (GOOD, older, newer)):
        with imported(tmp_path / "a.db", folder_of(tmp_path / "in", *order)) as store:
            assert [item.summary for item in store.advisories("PyPI", "some-package")] == ["later, by its time zone"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": 5}, "id is a number"),
        ({"id": "a b"}, "expected the id of a vulnerability"),
        ({"modified": None}, "modified is missing"),
        ({"modified": "yesterday"}, "expected an RFC 3339 time"),
        ({"published": "1-01-01T00:00:00Z"}, "expected an RFC 3339 time"),
        ({"aliases": ["CVE-1,"]}, "expected the id of a vulnerability"),
        ({"aliases": "CVE-1"}, "aliases is a string"),
        ({"severity": ["high"]}, "expected an object"),
        ({"affected": ["x"]}, "expected an object"),
    ],
)
def test_a_broken_record_is_counted_told_and_not_dropped(
    tmp_path: Path, change: Mapping[str, JsonValue], words: str
) -> None:
    bad = {**GOOD, **change}
    source = folder_of(tmp_path / "in", bad, record("PYSEC-2", "other", "introduced 0", ecosystem="PyPI"))
    snapshot = import_sources([source], tmp_path / "a.db", now=NOW)
    assert [(item.records, item.broken) for item in snapshot.sources] == [(1, 1)]
    assert words in snapshot.problems[0].detail
    with AdvisoryStore.open(snapshot.path) as store:
        assert len(store.problems()) == 1
        if "affected" not in change:
            # What it says of the package is not known, so that a scan of the package says so.
            assert [words in item.detail for item in store.broken("PyPI", "some-package")] == [True]


@pytest.mark.parametrize(
    "events",
    [
        [],
        [{"fixed": "1"}],
        [{"introduced": "0", "fixed": "1"}],
        [{"introduced": 0}],
        [{"introduced": ""}],
        ["introduced"],
        [{"removed": "1"}, {"introduced": "0"}],
    ],
)
def test_events_that_break_the_schema(events: list[JsonValue]) -> None:
    ranges: JsonValue = [{"type": "ECOSYSTEM", "events": events}]
    affected: JsonValue = [{"package": {"ecosystem": "PyPI", "name": "p"}, "ranges": ranges}]
    document = {**GOOD, "affected": affected}
    raw = json.dumps(document).encode()
    with pytest.raises(ScanError):
        parse_advisory(raw, what="record")
    assert named_packages(raw) == ("PYSEC-2026-1", frozenset({("PyPI", "p")}))


@pytest.mark.parametrize("raw", [b"", b"[]", b"\xff", b'{"id":1,"id":2}', b"[" * 100_000])
def test_what_is_no_record_at_all(tmp_path: Path, raw: bytes) -> None:
    snapshot = import_sources([folder_of(tmp_path / "in", raw, GOOD)], tmp_path / "a.db", now=NOW)
    assert snapshot.sources[0].broken == 1
    assert named_packages(raw) == ("", frozenset())


def test_unknown_members_are_left_alone_as_the_schema_asks() -> None:
    advisory = parse_advisory(json.dumps({**GOOD, "schema_version": "1.99.0", "novel": [1]}).encode(), what="record")
    assert advisory.id == "PYSEC-2026-1"


def test_a_record_of_a_repository_alone_is_of_no_package() -> None:
    ranges: JsonValue = [{"type": "GIT", "repo": "r", "events": [{"introduced": "0"}]}]
    affected: JsonValue = [{"ranges": ranges}]
    document = {**GOOD, "affected": affected}
    assert parse_advisory(json.dumps(document).encode(), what="record").affected[0].name == ""


@pytest.mark.parametrize(
    ("kind", "score", "severity"),
    [
        ("CVSS_V3", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", Severity.CRITICAL),  # 9.8
        ("CVSS_V3", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", Severity.CRITICAL),  # 10.0
        ("CVSS_V3", "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H", Severity.HIGH),  # 7.8
        ("CVSS_V3", "CVSS:3.1/AV:N/AC:H/PR:N/UI:R/S:C/C:H/I:N/A:N", Severity.MEDIUM),  # 6.1
        ("CVSS_V3", "CVSS:3.0/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", Severity.MEDIUM),  # 6.1
        ("CVSS_V3", "CVSS:3.1/AV:L/AC:H/PR:L/UI:N/S:U/C:L/I:N/A:N", Severity.LOW),  # 2.5
        ("CVSS_V3", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", Severity.NONE),  # 0.0
        ("CVSS_V2", "AV:N/AC:L/Au:N/C:C/I:C/A:C", Severity.HIGH),  # 10.0; v2 knows no critical
        ("CVSS_V2", "AV:L/AC:M/Au:N/C:N/I:P/A:C", Severity.MEDIUM),  # 5.4
        ("CVSS_V2", "AV:L/AC:H/Au:M/C:N/I:N/A:P", Severity.LOW),  # 0.8
        ("Ubuntu", "negligible", Severity.LOW),
        # What cannot be read counts as the worst.
        ("CVSS_V3", "CVSS:3.1/AV:N", Severity.CRITICAL),
        ("CVSS_V3", "CVSS:3.1/AV:X/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", Severity.CRITICAL),
        ("CVSS_V4", "CVSS:4.0/AV:L/AC:H/AT:P/PR:H/UI:A/VC:N/VI:N/VA:L/SC:N/SI:N/SA:N", Severity.CRITICAL),
        ("NEW", "9", Severity.CRITICAL),
    ],
)
def test_severities_of_scores(kind: str, score: str, severity: Severity) -> None:
    assert from_score(kind, score) is severity


def test_severities_of_words() -> None:
    assert from_word("MODERATE") is Severity.MEDIUM
    assert from_word("whatever") is Severity.NONE
    assert worst() is Severity.NONE
    assert worst(Severity.LOW, Severity.CRITICAL, Severity.HIGH) is Severity.CRITICAL


def test_l5_a_zip_whose_members_are_larger_than_they_say_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources_module, "MAX_RECORD", 1000)
    bomb = zip_of(tmp_path / "all.zip", {"0.json": bytes(10_000_000), "1.json": json.dumps(GOOD).encode()})
    read = list(documents(bomb))
    assert [(item.name, len(item.raw) <= 1000, bool(item.problem)) for item in read] == [
        ("0.json", True, True),
        ("1.json", True, False),
    ]


def test_l5_a_source_beyond_the_total_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources_module, "MAX_TOTAL", 1000)
    members = {f"{n}.json": bytes(400) for n in range(9)}
    with pytest.raises(ScanError, match="more than 1000 bytes when inflated"):
        import_sources([zip_of(tmp_path / "all.zip", members)], tmp_path / "a.db", now=NOW)
    monkeypatch.setattr(sources_module, "MAX_RECORDS", 3)
    with pytest.raises(ScanError, match="got 9 records, expected at most 3"):
        list(documents(zip_of(tmp_path / "all.zip", members)))
    assert not (tmp_path / "a.db").exists()


@pytest.mark.parametrize("damage", ["content", "directory", "encrypted"])
def test_a_damaged_zip_is_told(tmp_path: Path, damage: str) -> None:
    good = json.dumps(GOOD).encode()
    source = zip_of(tmp_path / "all.zip", {"0.json": good * 1, "1.json": json.dumps({**GOOD, "id": "X-2"}).encode()})
    raw = bytearray(source.path.read_bytes())
    if damage == "directory":
        source.path.write_bytes(raw[:-30])
        with pytest.raises(ScanError, match="not a zip that can be read"):
            list(documents(source))
        return
    if damage == "content":
        raw[60:80] = bytes(20)
    else:
        # The flag "encrypted" of the first member, in the local header and in the directory.
        raw[6] |= 1
        raw[raw.index(b"PK\x01\x02") + 8] |= 1
    source.path.write_bytes(raw)
    read = list(documents(source))
    assert [bool(item.problem) for item in read] == [True, False]
    snapshot = import_sources([source], tmp_path / "a.db", now=NOW)
    assert (snapshot.sources[0].records, snapshot.sources[0].broken) == (1, 1)


def test_a_failed_import_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "db" / "a.db"
    target.parent.mkdir()
    snapshot = import_sources([folder_of(tmp_path / "in", GOOD)], target, now=NOW)
    for bad in (folder_of(tmp_path / "bad", b"{}"), replace(folder_of(tmp_path / "none"), path=tmp_path / "missing")):
        with pytest.raises(ScanError):
            import_sources([folder_of(tmp_path / "in", GOOD), bad], target, now=NOW)
    assert file_digest(target) == snapshot.digest
    assert [path.name for path in target.parent.iterdir()] == ["a.db"]


def test_a_source_without_a_single_good_record_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match=r"expected at least one: osv PyPI 0\.json"):
        import_sources([folder_of(tmp_path / "in", b"{}")], tmp_path / "a.db", now=NOW)
    with pytest.raises(ScanError, match="expected at least one: it is empty"):
        import_sources([folder_of(tmp_path / "empty")], tmp_path / "a.db", now=NOW)
    with pytest.raises(ScanError, match="no source given"):
        import_sources([], tmp_path / "a.db", now=NOW)


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="cannot be written"):
        import_sources([folder_of(tmp_path / "in", GOOD)], tmp_path / "missing" / "a.db", now=NOW)


def test_l7_a_snapshot_of_another_digest_format_or_kind_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "a.db"
    import_sources([folder_of(tmp_path / "in", GOOD)], target, now=NOW)
    with pytest.raises(ScanError, match="digest mismatch"):
        AdvisoryStore.open(target, digest=Digest.of(b"another"))
    with pytest.raises(ScanError, match="no such file"):
        AdvisoryStore.open(tmp_path / "missing.db")
    for name, content in (("text", b"not a database"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ScanError, match=r"cannot be read|not a snapshot"):
            AdvisoryStore.open(tmp_path / name)
    with contextlib.closing(sqlite3.connect(target)) as database, database:
        database.execute("UPDATE meta SET value='99' WHERE key='format'")
    with pytest.raises(ScanError, match="format is '99', expected '1'"):
        AdvisoryStore.open(target)


def test_a_snapshot_is_read_only(tmp_path: Path) -> None:
    with (
        imported(tmp_path / "a.db", folder_of(tmp_path / "in", GOOD)) as store,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        store._database.execute("DELETE FROM record")


def test_the_public_layout_is_found(tmp_path: Path) -> None:
    folder_of(tmp_path / "osv" / "PyPI", GOOD)
    (tmp_path / "osv" / "Go").mkdir()
    zip_of(tmp_path / "osv" / "Go" / "all.zip", {"x.json": b"{}"})
    assert [(source.kind.value, source.name) for source in sources_in(tmp_path)] == [
        ("osv", "osv Go"),
        ("osv", "osv PyPI"),
    ]
    with pytest.raises(ScanError, match="no advisory data"):
        sources_in(tmp_path / "osv")


def test_the_kev_catalogue_keeps_what_it_can_and_tells_the_rest() -> None:
    entries: list[JsonValue] = [
        {"cveID": "CVE-2026-1234", "dateAdded": "2026-01-01", "knownRansomwareCampaignUse": "Known"},
        {"cveID": "CVE-26-1", "dateAdded": "2026-01-01"},
        {"cveID": "CVE-2026-1234", "dateAdded": "soon"},
        "x",
    ]
    found, problems = parse_catalogue(json.dumps({"vulnerabilities": entries}).encode(), what="kev")
    assert [(item.cve, item.ransomware) for item in found] == [("CVE-2026-1234", True)]
    assert len(problems) == 3
    with pytest.raises(ScanError):
        parse_catalogue(b"[]", what="kev")


def test_end_of_life_products_keep_what_they_can_and_tell_the_rest() -> None:
    good = {
        "name": "x",
        "identifiers": [{"type": "purl", "id": "pkg:deb/debian/x?arch=source"}, {"type": "cpe", "id": "c"}],
        "releases": [
            {"name": "2", "eolFrom": None, "isEol": True},
            {"name": "1", "eolFrom": "2024-01-01", "isEol": False},
        ],
    }
    bad: list[JsonValue] = [
        "x",
        {"name": 5},
        {"name": "y", "releases": [{"name": "1", "eolFrom": "soon"}]},
        {"name": "z", "releases": [{"name": "1", "isEol": "yes"}]},
        {"name": "z", "releases": ["1"]},
    ]
    products, problems = parse_products(json.dumps({"result": [good, *bad]}).encode(), what="endoflife")
    assert [(item.name, item.identifiers) for item in products] == [("x", ("pkg:deb/debian/x",))]
    assert [(item.name, item.eol, item.ended) for item in products[0].cycles] == [
        ("2", "", True),
        ("1", "2024-01-01", False),
    ]
    assert len(problems) == 5
    with pytest.raises(ScanError):
        parse_products(b"{", what="endoflife")


def test_broken_entries_of_catalogues_are_counted(tmp_path: Path) -> None:
    kev, products = tmp_path / "kev.json", tmp_path / "products.json"
    kev.write_text(json.dumps({"vulnerabilities": [{"cveID": "CVE-2026-1234", "dateAdded": "2026-01-01"}, {}]}))
    products.write_text(json.dumps({"result": [{"name": "x"}, {}]}))
    snapshot = import_sources(
        [
            Source(kind=SourceKind.KEV, name="kev", path=kev),
            Source(kind=SourceKind.END_OF_LIFE, name="endoflife", path=products),
        ],
        tmp_path / "a.db",
        now=NOW,
    )
    assert [(item.records, item.broken) for item in snapshot.sources] == [(1, 1), (1, 1)]


def test_a_store_whose_file_is_damaged_says_so(tmp_path: Path) -> None:
    target = tmp_path / "a.db"
    records = [{**GOOD, "id": f"X-{n}", "summary": "s" * 200} for n in range(200)]
    import_sources([folder_of(tmp_path / "in", *records)], target, now=NOW)
    raw = target.read_bytes()
    target.write_bytes(raw[:8192] + bytes(len(raw) - 8192))
    with pytest.raises(ScanError, match="cannot be read"), AdvisoryStore.open(target) as damaged:
        damaged.advisories("PyPI", "some-package")


def test_documents_of_a_single_file(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_bytes(json.dumps(GOOD).encode())
    source = Source(kind=SourceKind.OSV, name="osv one", path=path)
    assert [item.name for item in documents(source)] == ["one.json"]
