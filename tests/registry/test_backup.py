"""Backup and restore: a registry in use, its data folder lost, another database; what is refused, what is reported."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from sqlalchemy import delete, insert, select, text, update

from ocispec.digest import Digest
from policy.model import State
from policy.seal import seal
from policy.statements import Withdrawal
from registry import audit
from registry.backup.file import Reader
from registry.backup.make import LEFT_OUT, make_backup
from registry.backup.restore import Restored, restore_backup
from registry.catalogue import schema
from registry.catalogue.database import Catalogue
from registry.errors import BackupError, CatalogueError
from registry.places import Places
from registry.prepare import RESTORING, prepare
from registry.settings import Settings, load, parse
from registry.signer.memory import Memory
from tests.support.bench import Bench
from tests.support.images import image
from tests.support.live import WholeRegistry, prepared
from tests.support.postgres import Postgres
from tests.support.trust import NOW, REGISTRY

REPOSITORY = "team/app"
BUILT = image([{"bin/": b"", "bin/sh": b"#!"}])


@dataclass(slots=True)
class Place:
    """A registry whose judge is on a bench, and one to be restored to, with the same store and signer's folder."""

    bench: Bench
    settings: Settings
    folder: Path

    def back_up(self, name: str = "backup") -> Path:
        """Make a backup."""
        path = self.folder / name
        make_backup(self.settings, path, now=self.bench.now)
        return path

    def restore(self, path: Path, url: str, *, older_memory: bool = False) -> Restored:
        """Restore into another database."""
        settings = _settings(self.settings.data, url)
        return restore_backup(settings, path, now=self.bench.now, older_memory=older_memory, store=self.bench.store)

    def another(self) -> str:
        """The URL of a database without tables."""
        return f"sqlite:///{self.folder}/another.sqlite"


@pytest.fixture
def place(tmp_path: Path, database: str) -> Iterator[Place]:
    """A registry with a cleared image, on each kind of database."""
    with _made(tmp_path, database) as made:
        yield made


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The same on SQLite, for tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("still")
    with _made(folder, f"sqlite:///{folder}/catalogue.sqlite") as made:
        yield made


@contextmanager
def _made(folder: Path, database: str) -> Iterator[Place]:
    signer = folder / "signer"
    signer.mkdir()
    bench = Bench(folder, database)
    bench.memory.close()
    (folder / "memory.sqlite").rename(signer / "memory.sqlite")
    bench.close()
    (folder / "memory.sqlite").symlink_to(signer / "memory.sqlite")
    bench = Bench(folder, database, ring=bench.ring)
    with bench.catalogue.write() as conn:
        conn.execute(insert(schema.meta).values(name="registry", value=REGISTRY))
    bench.publish()
    bench.push(REPOSITORY, BUILT, "1")
    bench.approve(REPOSITORY, BUILT, "base", bench.ring.alice, bench.ring.bob)
    bench.settle()
    assert bench.state(REPOSITORY, BUILT.digest) is State.CLEARED
    yield Place(bench=bench, settings=_settings(folder, database), folder=folder)
    bench.close()


def _settings(data: Path, url: str) -> Settings:
    return parse(json.dumps({"name": REGISTRY, "data": str(data), "catalogue": url}).encode())


def _rows(url: str) -> dict[str, list[tuple[object, ...]]]:
    catalogue = Catalogue(url)
    with catalogue.read() as conn:
        found = {
            table.name: [tuple(row) for row in conn.execute(select(table).order_by(*table.primary_key))]
            for table in schema.metadata.sorted_tables
        }
    catalogue.close()
    return found


# ---- one database and the other -------------------------------------------------------------------------------------


def test_all_rows_come_back_on_either_kind_of_database(place: Place, server: Postgres) -> None:
    before = _rows(str(place.settings.catalogue))
    path = place.back_up()
    assert path.stat().st_mode & 0o777 == 0o600
    for url in (place.another(), server.empty()):
        done = place.restore(path, url)
        assert done.found.sound, done.found
        assert done.notes == ()
        after = _rows(url)
        changed = {"audit", "jobs", "generations", "statements"}
        for name in before.keys() - changed - LEFT_OUT:
            assert after[name] == before[name], name
        assert after["statements"] == before["statements"]
        assert after["audit"][: len(before["audit"])] == before["audit"]
        assert [row[2] for row in after["audit"][len(before["audit"]) :]] == ["restore"]


def test_numbers_go_on_behind_those_that_were_restored(place: Place, server: Postgres) -> None:
    url = server.empty()
    place.restore(place.back_up(), url)
    catalogue = Catalogue(url)
    with catalogue.write() as conn:
        last = conn.scalar(text("SELECT max(id) FROM jobs"))
        values = {"kind": "x", "subject": "y", "not_before": place.bench.now, "created": place.bench.now}
        assert conn.execute(insert(schema.jobs).values(**values).returning(schema.jobs.c.id)).scalar_one() > last
    catalogue.close()


def test_a_backup_is_one_state_however_much_is_written_meanwhile(place: Place) -> None:
    stop, failures = threading.Event(), []

    def write() -> None:
        chain = place.bench.audit
        while not stop.is_set():
            with place.bench.catalogue.write() as conn:
                for _ in range(20):
                    chain.append(conn, audit.Event.RULE, principal="test", subject="x")

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(4):
            path = place.back_up(f"backup-{number}")
            backup = Reader(path)
            rows = [values for table, _, values in backup.rows() if table == "audit"]
            if (len(rows), rows[-1][-1]) != (backup.head.records, backup.head.chain):
                failures.append(number)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert place.restore(path, place.another()).found.sound


def test_a_backup_of_an_older_release_is_restored(tmp_path: Path) -> None:
    old = Catalogue(f"sqlite:///{tmp_path}/old.sqlite")
    old.create("0008")
    path = tmp_path / "backup"
    lines: list[object] = [
        {
            "format": "pratique-backup",
            "version": 1,
            "registry": REGISTRY,
            "revision": "0008",
            "made": "2026-11-24T12:00:00Z",
            "records": 0,
            "chain": audit.GENESIS,
            "memory": "",
            "generation": 0,
        },
        {"table": "meta", "columns": ["name", "value"]},
        ["registry", REGISTRY],
        {"table": "repositories", "columns": ["name", "created", "created_by"]},
        [REPOSITORY, 1_700_000_000, "somebody"],
    ]
    _write(path, lines, {"meta": 1, "repositories": 1})
    old.close()
    settings = _settings(tmp_path / "data", f"sqlite:///{tmp_path}/new.sqlite")
    assert restore_backup(settings, path, now=NOW).found.sound
    found = _rows(str(settings.catalogue))
    assert found["repositories"][0][0] == REPOSITORY


# ---- what is refused ------------------------------------------------------------------------------------------------


def _cut(path: Path) -> None:
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    path.write_bytes(gzip.compress(b"".join(lines[:-1])))


def _cut_in_the_middle(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _change(path: Path) -> None:
    content = gzip.decompress(path.read_bytes())
    assert content.count(b'"cleared"')
    path.write_bytes(gzip.compress(content.replace(b'"cleared"', b'"revoked"', 1)))


def _go_on(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"[1]\n"))


def _no_backup(path: Path) -> None:
    path.write_bytes(gzip.compress(b'{"some": "thing"}\n'))


def _later(path: Path) -> None:
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content.replace(b'"version":1', b'"version":2', 1)))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (_cut, "is cut off: it has no end"),
        (_cut_in_the_middle, "ended before the end-of-stream marker"),
        (_change, "digest mismatch"),
        (_go_on, "goes on behind its end"),
        (_no_backup, "is no backup of a registry's catalogue"),
        (_later, "is of format version 2, this release knows 1"),
        (Path.unlink, "No such file"),
        (lambda path: path.write_bytes(b"text"), "Not a gzipped file"),
    ],
)
def test_what_is_damaged_is_refused_before_anything_is_changed(
    still: Place, tmp_path: Path, damage: Callable[[Path], None], problem: str
) -> None:
    path = still.back_up(f"{tmp_path.name}.backup")
    damage(path)
    with pytest.raises(BackupError, match=problem):
        still.restore(path, f"sqlite:///{tmp_path}/another.sqlite")
    assert not (tmp_path / "another.sqlite").exists()


def test_nothing_is_written_over(still: Place) -> None:
    path = still.back_up("twice")
    with pytest.raises(BackupError, match="is there already"):
        still.back_up("twice")
    before = _rows(str(still.settings.catalogue))
    with pytest.raises(BackupError, match="restored into an empty database"):
        still.restore(path, str(still.settings.catalogue))
    assert _rows(str(still.settings.catalogue)) == before
    assert [found.name for found in still.folder.iterdir() if found.name.startswith(".")] == []


def test_another_registrys_backup_is_refused(still: Place) -> None:
    path = still.back_up("others")
    settings = parse(json.dumps({"name": "other.example", "data": str(still.folder)}).encode())
    with pytest.raises(BackupError, match=r"is of registry 'registry.*the settings are of 'other.example'"):
        restore_backup(settings, path, now=still.bench.now)


def test_a_registry_does_not_start_on_what_is_half_restored(still: Place, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/another.sqlite"
    still.restore(still.back_up("half"), url)
    settings = _settings(still.folder, url)
    prepare(settings, now=still.bench.now)
    catalogue = Catalogue(url)
    with catalogue.write() as conn:
        conn.execute(insert(schema.meta).values(name=RESTORING, value="2026-11-24T12:00:00Z"))
    catalogue.close()
    with pytest.raises(CatalogueError, match="restoring the backup of 2026-11-24T12:00:00Z did not come to its end"):
        prepare(settings, now=still.bench.now)


# ---- what is reported -----------------------------------------------------------------------------------------------


def test_blobs_that_the_store_does_not_have_are_named(place: Place) -> None:
    layer = BUILT.layers[0].descriptor
    place.bench.store.delete(layer.digest)
    done = place.restore(place.back_up(), place.another())
    assert done.found.missing == (f"{layer.digest} of {layer.size} bytes",)
    assert not done.found.sound


def test_a_chain_that_was_written_anew_is_found(place: Place) -> None:
    with place.bench.catalogue.write() as conn:
        table = schema.audit
        conn.execute(update(table).where(table.c.seq == 2).values(principal="somebody else"))
        conn.execute(delete(table).where(table.c.seq == 3))
    found = place.restore(place.back_up(), place.another()).found
    assert [problem.partition(":")[0] for problem in found.problems] == [
        "changed at record 2",
        "gap at record 4",
        "broken-link at record 4",
        "checkpoint-mismatch at record 2",
    ]


# ---- the signer's memory --------------------------------------------------------------------------------------------


def test_what_officers_said_after_the_backup_is_taken_from_the_signers_memory(place: Place) -> None:
    path, bench = place.back_up(), place.bench
    bench.pass_time(timedelta(hours=1))
    approval = bench.approve(REPOSITORY, BUILT, "base", bench.ring.alice)
    bench.settle()
    between = place.back_up("between")
    withdrawal = Withdrawal(statement=approval, reason="wrong", issued=bench.now)
    bench.post(seal(withdrawal, bench.ring.alice))
    bench.revoke(2, digests=(BUILT.digest,))
    bench.settle()
    assert bench.state(REPOSITORY, BUILT.digest) is State.REVOKED
    done = place.restore(path, place.another())
    assert done.notes == ("revocation list 2 taken from the signer's memory",)
    found = _rows(place.another())["statements"]
    assert {row[3] for row in found if row[1] == "RevocationList"} == {1, 2}
    (place.folder / "another.sqlite").unlink()
    done = place.restore(between, place.another())
    assert f"statement {approval} was withdrawn after the backup" in done.notes
    # A judge on what was restored comes to the same end.
    bench.worker.close()
    again = Bench(place.folder, place.another(), ring=bench.ring, now=bench.now)
    again.settle()
    assert again.state(REPOSITORY, BUILT.digest) is State.REVOKED
    assert again.tag(REPOSITORY, "1").served == bench.tag(REPOSITORY, "1").served
    again.close()


def test_an_older_copy_of_the_signers_memory_is_refused_unless_it_is_on_purpose(place: Place) -> None:
    bench, memory = place.bench, Places(place.settings).signer_memory
    older = memory.read_bytes()
    bench.revoke(2, digests=())
    bench.settle()
    other = image([{"bin/": b"", "bin/sh": b"#!other"}])
    bench.push(REPOSITORY, other, "1")
    bench.approve(REPOSITORY, other, "base", bench.ring.alice, bench.ring.bob)
    bench.settle()
    with bench.catalogue.read() as conn:
        number = conn.scalar(select(schema.tags.c.number).where(schema.tags.c.tag == "1"))
    path = place.back_up()
    memory.write_bytes(older)
    with pytest.raises(BackupError, match="an older copy, which would sign numbers that hosts refuse"):
        place.restore(path, place.another())
    place.restore(path, place.another(), older_memory=True)
    found = Memory(memory)
    told = found.tag(REPOSITORY, "1")
    assert told is not None
    assert told.number == number == 2
    found.close()


def test_another_memory_is_told_and_nothing_is_taken_from_it(place: Place) -> None:
    path, memory = place.back_up(), Places(place.settings).signer_memory
    memory.unlink()
    done = place.restore(path, place.another())
    assert len(done.notes) == 1
    assert "the one here is not there: a start is refused until `pratique serve --adopt-signer`" in done.notes[0]
    assert not memory.exists()


# ---- a whole registry -----------------------------------------------------------------------------------------------


def _command(live: WholeRegistry, verb: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pratique", verb, "--config", str(live.settings_file), str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.slow
def test_a_registry_in_use_is_lost_and_comes_back(server: Postgres) -> None:
    first, second, late = (image([{"bin/": b"", "bin/sh": b"#!%d" % number}]) for number in range(3))
    with prepared() as live:
        live.start()
        live.bootstrap()
        live.publish()
        for number, built in enumerate((first, second)):
            live.push(REPOSITORY, built, str(number))
            live.approve(REPOSITORY, built, "base", live.ring.alice, live.ring.bob)
            live.until(REPOSITORY, built.digest, "cleared")
        made = _command(live, "backup", live.folder / "backup")
        assert made.returncode == 0, made.stderr
        again = _command(live, "backup", live.folder / "backup")
        assert again.returncode == 1
        assert len(again.stderr.splitlines()) == 1
        assert "is there already" in again.stderr
        live.push(REPOSITORY, late, "late")
        live.revoke(2, digests=(second.digest,))
        live.until(REPOSITORY, second.digest, "revoked")
        live.stop()
        _lose(live, server.empty())
        done = _command(live, "restore", live.folder / "backup")
        assert (done.returncode, done.stderr) == (0, ""), done
        assert "revocation list 2 taken from the signer's memory" in done.stdout
        live.start()
        try:
            _check(live, first.digest, second.digest, late.digest)
            live.push(REPOSITORY, late, "late")
            live.approve(REPOSITORY, late, "base", live.ring.alice, live.ring.bob)
            live.until(REPOSITORY, late.digest, "cleared")
            assert live.request("GET", f"/v2/{REPOSITORY}/manifests/late", account="host").status == 200
        finally:
            live.stop()


def _lose(live: WholeRegistry, url: str) -> None:
    """The data folder is lost, but for copies of store and signer's folder; the new catalogue is on PostgreSQL."""
    data, copies = live.settings.data, live.folder / "copies"
    for name in ("store", "signer"):
        shutil.copytree(data / name, copies / name)
    shutil.rmtree(data)
    shutil.copytree(copies, data)
    members = yaml.safe_load(live.settings_file.read_text())
    live.settings_file.write_text(yaml.safe_dump({**members, "catalogue": url}))
    live.settings = load(live.settings_file)


def _check(live: WholeRegistry, cleared: Digest, revoked: Digest, late: Digest) -> None:
    live.until(REPOSITORY, revoked, "revoked")
    live.until(REPOSITORY, cleared, "cleared")
    for reference in ("0", cleared):
        answer = live.request("GET", f"/v2/{REPOSITORY}/manifests/{reference}", account="host")
        assert Digest.of(answer.body) == cleared
    assert live.request("GET", f"/v2/{REPOSITORY}/manifests/{revoked}", account="host").status == 403
    assert live.request("GET", f"/v2/{REPOSITORY}/manifests/{late}").status == 404
    catalogue = live.catalogue()
    with catalogue.read() as conn:
        records = audit.read(conn, after=0, limit=10_000)
    catalogue.close()
    assert "restore" in {record.event for record in records}
    report = audit.verify(records, [], verify_envelope=live.ring.trust.verifier(records[-1].time), registry="")
    assert report.sound


def _write(path: Path, lines: list[object], rows: dict[str, int]) -> None:
    import hashlib

    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    end = {"rows": rows, "sha256": hashlib.sha256(body).hexdigest()}
    path.write_bytes(gzip.compress(body + json.dumps(end).encode() + b"\n"))
