"""Advisory data that is handed in: imported beside the judge's work, and everything judged by it again."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from ocispec.digest import Digest
from registry.catalogue import schema
from registry.catalogue.advisories import Upload, add_upload, last_import, snapshot_in_use
from registry.catalogue.holds import let_go
from registry.judge import jobs
from registry.judge.derived import report_key
from registry.judge.importing import AdvisoryFolder
from registry.judge.jobs import JobKind
from registry.judge.works import read_report
from tests.support.bench import Bench
from tests.support.images import image
from tests.support.packages import Deb, dpkg_files, os_release

REPOSITORY = "team/base"
RECORD = {
    "schema_version": "1.6.0",
    "id": "DEBIAN-CVE-2026-0001",
    "modified": "2026-01-01T00:00:00Z",
    "aliases": ["CVE-2026-0001"],
    "affected": [
        {
            "package": {"ecosystem": "Debian:13", "name": "tool"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0-1"}]}],
        }
    ],
}


@pytest.fixture
def bench(tmp_path: Path, database: str) -> Iterator[Bench]:
    made = Bench(tmp_path, database)
    made.publish()
    made.settle()
    yield made
    made.close()


def _hand_in(bench: Bench, kind: str, name: str, content: Path) -> None:
    """As the control API does."""
    raw = content.read_bytes()
    digest = Digest.of(raw)
    bench.store.put(digest, [raw])
    with bench.catalogue.write() as conn:
        add_upload(conn, Upload(digest=digest, kind=kind, name=name, size=len(raw), by="scanner", received=bench.now))
        jobs.enqueue(conn, JobKind.ADVISORIES, now=bench.now)


def _settle(bench: Bench) -> None:
    deadline = time.monotonic() + 30
    while not bench.worker.idle():
        assert time.monotonic() < deadline
        bench.worker.step(0.05)


def _osv(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("DEBIAN-CVE-2026-0001.json", json.dumps(RECORD))
    return path


def test_new_advisories_judge_everything_again(bench: Bench, tmp_path: Path) -> None:
    built = image([{**os_release(), **dpkg_files([Deb(name="tool", version="1.0-1")])}])
    bench.push(REPOSITORY, built, "1")
    bench.approve(REPOSITORY, built, "base", bench.ring.alice, bench.ring.bob)
    _settle(bench)
    raw = bench.store.get_derived(report_key(built.digest))
    assert raw is not None
    assert read_report(raw).findings == ()
    _hand_in(bench, "osv", "osv Debian:13", _osv(tmp_path / "all.zip"))
    _settle(bench)
    raw = bench.store.get_derived(report_key(built.digest))
    assert raw is not None
    report = read_report(raw)
    assert [finding.id for finding in report.findings] == ["DEBIAN-CVE-2026-0001"]
    assert [source.name for source in report.data] == ["osv Debian:13"]
    with bench.catalogue.read() as conn:
        row = conn.execute(select(schema.advisories)).one()
        events = conn.scalars(select(schema.audit.c.after).where(schema.audit.c.event == "advisories")).all()
    assert row.records == 1
    assert events == [str(bench.worker.advising.folder.digest())]


def test_l7_data_that_cannot_be_read_leave_the_data_before(bench: Bench, tmp_path: Path) -> None:
    _hand_in(bench, "osv", "osv Debian:13", _osv(tmp_path / "all.zip"))
    _settle(bench)
    before = bench.worker.advising.folder.snapshot.read_bytes()
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    _hand_in(bench, "kev", "kev", bad)
    _settle(bench)
    assert bench.worker.advising.folder.snapshot.read_bytes() == before
    with bench.catalogue.read() as conn:
        events = conn.scalars(select(schema.audit.c.after).where(schema.audit.c.event == "advisories")).all()
        ended = last_import(conn)
    assert events[-1].startswith("import failed")
    assert ended is not None
    assert ended.state == "failed"
    assert "kev" in ended.detail


def test_whole_snapshot_replaces_what_was_there(bench: Bench, tmp_path: Path) -> None:
    _hand_in(bench, "osv", "osv Debian:13", _osv(tmp_path / "all.zip"))
    _settle(bench)
    snapshot = tmp_path / "snapshot.sqlite"
    snapshot.write_bytes(bench.worker.advising.folder.snapshot.read_bytes())
    bench.worker.advising.folder.snapshot.unlink()
    _hand_in(bench, "snapshot", "snapshot", snapshot)
    _settle(bench)
    assert bench.worker.advising.folder.snapshot.exists()
    other = tmp_path / "other.sqlite"
    other.write_bytes(b"no database")
    _hand_in(bench, "snapshot", "snapshot", other)
    _settle(bench)
    with bench.catalogue.read() as conn:
        events = conn.scalars(select(schema.audit.c.after).where(schema.audit.c.event == "advisories")).all()
    assert events[-1].startswith("import failed")


def test_judge_beside_another_judges_by_the_same_data(bench: Bench, tmp_path: Path) -> None:
    """A second registry on the same catalogue and store, with a folder of its own."""
    _hand_in(bench, "osv", "osv Debian:13", _osv(tmp_path / "all.zip"))
    _settle(bench)
    folder = AdvisoryFolder(tmp_path / "second")
    (folder.root / "incoming").mkdir(parents=True)
    second = bench.new_worker(folder)
    built = image([{**os_release(), **dpkg_files([Deb(name="tool", version="1.0-1")])}])
    bench.push(REPOSITORY, built, "1")
    deadline = time.monotonic() + 30
    second.step(0.0)
    with bench.catalogue.read() as conn:
        assert jobs.is_due(conn, JobKind.JUDGE, jobs.subject_of(REPOSITORY, built.digest), now=bench.now)
        wanted = snapshot_in_use(conn)
    while not second.idle():
        assert time.monotonic() < deadline
        second.step(0.05)
    assert folder.digest() == wanted == bench.worker.advising.folder.digest()
    raw = bench.store.get_derived(report_key(built.digest))
    assert raw is not None
    assert [finding.id for finding in read_report(raw).findings] == ["DEBIAN-CVE-2026-0001"]
    second.close()


def test_judge_that_cannot_get_the_data_judges_nothing_and_goes_on_with_the_rest(bench: Bench, tmp_path: Path) -> None:
    _hand_in(bench, "osv", "osv Debian:13", _osv(tmp_path / "all.zip"))
    _settle(bench)
    wanted = bench.worker.advising.folder.digest()
    assert wanted is not None
    bench.store.delete(wanted)
    folder = AdvisoryFolder(tmp_path / "second")
    (folder.root / "incoming").mkdir(parents=True)
    second = bench.new_worker(folder)
    built = image()
    bench.push(REPOSITORY, built, "1")
    with bench.catalogue.write() as conn:
        jobs.enqueue(conn, JobKind.REJUDGE, "nothing", now=bench.now)
    for _ in range(20):
        second.step(0.01)
    with bench.catalogue.read() as conn:
        assert jobs.is_due(conn, JobKind.JUDGE, jobs.subject_of(REPOSITORY, built.digest), now=bench.now)
        assert not jobs.is_due(conn, JobKind.REJUDGE, "nothing", now=bench.now)
    second.close()


def test_snapshot_of_an_earlier_release_is_shared(bench: Bench, tmp_path: Path) -> None:
    _hand_in(bench, "osv", "osv Debian:13", _osv(tmp_path / "all.zip"))
    _settle(bench)
    have = bench.worker.advising.folder.digest()
    assert have is not None
    with bench.catalogue.write() as conn:
        let_go(conn, "advisories in use")
    bench.store.delete(have)
    bench.new_worker().begin()
    with bench.catalogue.read() as conn:
        assert snapshot_in_use(conn) == have
    assert bench.store.size(have) == bench.worker.advising.folder.snapshot.stat().st_size
