"""Kills a collector at each point where it could die, and has the next attempt finish: `python -m … FOLDER STEP COUNT`.

A point is before and after each transaction, and each call that changes the store. For each point the world is made
anew, a child does the run and is killed there with SIGKILL, and this process takes the run up. Prints how many points
there were. A process of its own, since the children are forked.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, select

from ocispec.digest import Digest
from registry.audit import Audit, read
from registry.catalogue import schema
from registry.catalogue.collections import (
    Begun,
    Progress,
    begin_collection,
    bury_collections,
    find_collection,
    list_collected,
    request_collection,
)
from registry.catalogue.database import Catalogue
from registry.catalogue.rules import lock_rules, put_rule
from registry.collect.collector import collect_and_tell
from registry.collect.report import Reason
from registry.collect.retention import Retention
from registry.collect.run import SILENCE, Run
from registry.judge.layers import layer_keys
from registry.rules import Kind, Rule
from registry.settings_collect import CollectSettings
from registry.store.files import FilesStore
from registry.store.keys import DerivedKey
from tests.registry.collect.site import EPOCH, Site, Thing
from tests.support.scheduler import Scheduler

KEPT, UNTAGGED, UNNEEDED = Thing(b"kept"), Thing(b"untagged"), Thing(b"needed by nothing")
ORPHAN, DOOMED = Thing(b"nobody knows it"), Thing(b"its deletion was begun")
REASONS = {
    Reason.TAG,
    Reason.NOT_NEEDED,
    Reason.IN_NO_REPOSITORY,
    Reason.INTERRUPTED,
    Reason.ORPHAN,
    Reason.DERIVED,
    Reason.DECISION,
}
DAY = timedelta(days=1)
GONE = {UNNEEDED.blob, ORPHAN.blob, DOOMED.blob}
"""What goes by the first run."""
LAYER = layer_keys(Digest.of(b"a layer that is gone"))[0]


@dataclass(slots=True)
class Fuse:
    """Kills this process at the `left`th point."""

    left: int = -1
    passed: int = 0

    def point(self) -> None:
        """One point."""
        self.passed += 1
        if self.passed == self.left:
            os.kill(os.getpid(), signal.SIGKILL)


class FusedCatalogue(Catalogue):
    """Points before and after each transaction that writes."""

    def __init__(self, url: str, fuse: Fuse) -> None:
        """On the catalogue at `url`."""
        super().__init__(url, connections=2)
        self._fuse = fuse

    @contextmanager
    def write(self, **options: bool) -> Iterator[Connection]:
        """See `Catalogue`."""
        self._fuse.point()
        with super().write(**options) as conn:
            yield conn
        self._fuse.point()


class FusedStore(FilesStore):
    """Points before and after each deletion."""

    def __init__(self, folder: Path, fuse: Fuse) -> None:
        """On the store in `folder`."""
        super().__init__(folder)
        self._fuse = fuse

    def delete(self, digest: Digest) -> bool:
        """See `Blobs`."""
        self._fuse.point()
        there = super().delete(digest)
        self._fuse.point()
        return there

    def delete_derived(self, key: DerivedKey) -> None:
        """See `DerivedObjects`."""
        self._fuse.point()
        super().delete_derived(key)
        self._fuse.point()


class World:
    """A registry with something for each step of the collector to do."""

    def __init__(self, folder: Path) -> None:
        """Make it once; `again` brings it back."""
        self.site = Site(folder / "site")
        self.saved = folder / "saved"
        self.now = EPOCH + 10 * DAY
        self._fill()
        self.site.plain.close()
        self.site.catalogue.close()
        shutil.copytree(folder / "site", self.saved)

    def again(self) -> None:
        """Bring it back as it was."""
        folder = self.saved.parent / "site"
        self.site.plain.close()
        shutil.rmtree(folder)
        shutil.copytree(self.saved, folder)

    def clock(self) -> datetime:
        """A time that stands still."""
        return self.now

    def collect(self, fuse: Fuse, run: str, worker: str) -> None:
        """One attempt at a run."""
        catalogue = FusedCatalogue(self.site.settings.catalogue_url, fuse)
        with catalogue.write() as conn:
            begun = begin_collection(conn, run, worker=worker, now=self.now, until=self.now + SILENCE)
        assert isinstance(begun, Begun)
        made = Run(
            id=run,
            attempt=begun.attempt,
            started=begun.started,
            catalogue=catalogue,
            store=FusedStore(self.site.settings.store_folder, fuse),
            audit=Audit(self.clock),
            clock=self.clock,
            settings=CollectSettings(grace=3600, decisions=1),
        )
        assert collect_and_tell(made, by="test")
        catalogue.close()

    def request(self) -> str:
        """Ask for a run."""
        with self.site.plain.write() as conn:
            return request_collection(conn, by="test", dry_run=False, now=self.now)

    def bury(self, worker: str) -> None:
        """Know that a worker is dead."""
        with self.site.plain.write() as conn:
            bury_collections(conn, worker, now=self.now)

    def check(self, run: str) -> None:
        """All that was to go is gone, nothing else is, and the run says so."""
        stored = set(self.site.files.digests())
        assert stored == {KEPT.blob}, stored
        assert self.site.files.get_derived(LAYER) is None
        with self.site.plain.read() as conn:
            assert set(conn.scalars(select(schema.blobs.c.digest))) == {KEPT.blob}
            assert list(conn.scalars(select(schema.tags.c.tag))) == ["kept"]
            assert len(list(conn.scalars(select(schema.manifests.c.digest)))) == 1
            assert len(list(conn.scalars(select(schema.decisions.c.digest)))) == 0
            found = find_collection(conn, run)
            listed = {thing.subject for _, thing in list_collected(conn, run, after=0, limit=1000)}
            chain = read(conn, after=0, limit=10_000)
        assert found is not None
        assert found.state is Progress.DONE, found
        report = json.loads(found.report)
        assert report["missing"]["count"] == 0, report
        assert [record.seq for record in chain] == list(range(1, len(chain) + 1))
        # What the last batch of a dead attempt took may be missing from the list, never from the state.
        if found.attempts == 1:
            assert {str(digest) for digest in GONE} <= listed, listed
            assert {each["reason"] for each in report["reasons"]} == REASONS

    def _fill(self) -> None:
        site = self.site
        site.begin(Scheduler())
        site.elapsed = timedelta(0)
        assert site.push("team/a", "kept", KEPT) == 201
        assert site.push("team/a", "goes", UNTAGGED) == 201
        assert site.push_blob("team/b", UNNEEDED.content) == 201
        site.files.put(ORPHAN.blob, [ORPHAN.content])
        site.files.put(DOOMED.blob, [DOOMED.content])
        site.files.put_derived(LAYER, b"a reading")
        rule = Rule(
            pattern="team/*",
            kind=Kind.RETENTION,
            value=Retention(tags=("goes",), pushed=DAY, untagged=timedelta(hours=1)),
            changed=EPOCH,
            changed_by="test",
        )
        old = {"created": EPOCH, "size": len(DOOMED.content)}
        with site.plain.write() as conn:
            lock_rules(conn)
            put_rule(conn, rule)
            blob = {"digest": DOOMED.blob, "deleting": EPOCH, "deleting_by": "somebody", **old}
            conn.execute(schema.blobs.insert().values(blob))
            conn.execute(schema.decisions.insert().values(_decision()))
        for path in site.settings.store_folder.rglob("*"):
            os.utime(path, (EPOCH.timestamp(), EPOCH.timestamp()))


def _decision() -> dict[str, Any]:
    gone = Digest.of(b"an image that is gone")
    taken = datetime(2020, 1, 1, tzinfo=UTC)
    return {
        "digest": Digest.of(b"decision"),
        "repository": "team/a",
        "image": gone,
        "content": b"{}",
        "evidence": gone,
        "taken": taken,
    }


def forked(work: Callable[[], None]) -> int:
    """How a child ended that did the work."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def until_done(world: World, run: str) -> None:
    """Run after run until nothing is left to be let go of: what one lets go of stays for a grace."""
    for _ in range(3):
        world.collect(Fuse(), run, "next")
        world.now += timedelta(hours=2)
        run = world.request()
    with world.site.plain.write() as conn:
        conn.execute(delete(schema.collections).where(schema.collections.c.id == run))


def main() -> None:
    """All points from one on, every so many."""
    world = World(Path(sys.argv[1]))
    first, every = int(sys.argv[2]), int(sys.argv[3])
    point, end = first, world.now
    while True:
        world.again()
        world.now = end
        run = world.request()
        fuse = Fuse(left=point)
        code = forked(lambda fuse=fuse, run=run: world.collect(fuse, run, "first"))  # type: ignore[misc]
        if code == 0:
            break
        assert code == -signal.SIGKILL, f"point {point}: the collector ended with {code}"
        with world.site.plain.write() as conn:
            now = conn.scalar(select(schema.collections.c.state).where(schema.collections.c.id == run))
        if now == Progress.DONE:
            break
        if now == Progress.RUNNING:
            world.bury("first")
        until_done(world, run)
        world.check(run)
        point += every
    sys.stdout.write(f"{point}\n")


if __name__ == "__main__":
    main()
