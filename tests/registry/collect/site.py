"""A registry's own code on a catalogue and store of which every call is a step of a schedule (support/scheduler.py).

Clients are the real handlers, asked through Flask's test client; the collector is the real one. Before each schedule
the site is emptied. What clients were promised is kept, and `check` compares it with what is there.
"""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Table, delete, insert, select, text
from werkzeug.test import TestResponse

from ocispec.descriptor import MediaType
from ocispec.digest import Digest
from ocispec.manifest import Manifest, parse_manifest
from registry.access import EVERYTHING, Role
from registry.app import create_app
from registry.audit import Audit
from registry.authenticate import hash_secret, new_secret
from registry.catalogue import schema
from registry.catalogue.accounts import Account, add_account
from registry.catalogue.database import Catalogue
from registry.collect.blobs import free_blobs, release_blobs
from registry.collect.leases import Leases
from registry.collect.orphans import sweep
from registry.collect.run import Run
from registry.identity.open import open_identity
from registry.judge.queue import JudgeQueue
from registry.prepare import prepare
from registry.settings import parse
from registry.settings_collect import CollectSettings
from registry.store.files import FilesStore
from tests.support.scheduler import Scheduler, SteppedCatalogue, SteppedStore

EPOCH = datetime.now(UTC).replace(microsecond=0)
"""When schedules begin: by the clock that dates files."""

PATIENCE = 0.1
"""Seconds of a schedule's time that a client waits for a deletion: four looks."""

GRACE = 1800
"""Seconds of grace, for whoever is told that a blob is there."""

STEPS = (release_blobs, free_blobs, sweep)
"""The steps of the collector that take blobs away."""


class RefusedError(Exception):
    """A client was refused, and gives up."""


@dataclass(frozen=True, slots=True)
class Thing:
    """The smallest that can be pushed: a manifest with one blob."""

    content: bytes

    @property
    def blob(self) -> Digest:
        """The blob."""
        return Digest.of(self.content)

    @property
    def manifest(self) -> Manifest:
        """An artifact whose config is the blob."""
        config = {"mediaType": "application/vnd.test", "digest": str(self.blob), "size": len(self.content)}
        members = {"schemaVersion": 2, "mediaType": str(MediaType.OCI_MANIFEST), "config": config, "layers": []}
        parsed = parse_manifest(json.dumps(members).encode(), MediaType.OCI_MANIFEST)
        assert isinstance(parsed, Manifest)
        return parsed


class Site:
    """A registry without processes; `tick` is how far the clock goes on at each step of a schedule."""

    def __init__(self, folder: Path) -> None:
        """Make the catalogue, one account, and the application, in `folder`."""
        self.scheduler = Scheduler()
        self.tick = timedelta(seconds=1)
        self.elapsed = timedelta(0)
        self.collectors_die = False
        self.promised: list[tuple[str, str, Thing]] = []
        self.secret = new_secret()
        members = {
            "name": "localhost:5000",
            "data": f"{folder}/data",
            "judge": {"push_wait_ms": 0},
            "collect": {"grace": GRACE},
        }
        self.settings = parse(json.dumps(members).encode())
        prepare(self.settings, now=EPOCH)
        self.plain = Catalogue(self.settings.catalogue_url, connections=4)
        self._account()
        self._first = {table: self._rows(table) for table in schema.metadata.sorted_tables}
        self.files = FilesStore(self.settings.store_folder)
        self.catalogue = SteppedCatalogue(self.settings.catalogue_url, lambda: self.scheduler)
        self.store = SteppedStore(self.files, lambda: self.scheduler)
        self.leases = Leases(self.catalogue, self.clock, pause=self._pause, patience=PATIENCE)
        self.app = create_app(
            self.settings,
            store=self.store,
            catalogue=self.catalogue,
            identity=open_identity(self.settings, self.plain, self.clock),
            judge=JudgeQueue(self.catalogue, self.settings.judge_socket, self.clock),
            clock=self.clock,
            leases=self.leases,
        )
        encoded = base64.b64encode(f"pusher:{self.secret}".encode()).decode()
        self.header = {"Authorization": f"Basic {encoded}"}

    def close(self) -> None:
        """Close the catalogue."""
        self.catalogue.close()
        self.plain.close()

    def clock(self) -> datetime:
        """The time here."""
        return EPOCH + self.elapsed + self.scheduler.steps * self.tick

    def begin(self, scheduler: Scheduler) -> None:
        """Empty everything, for a new schedule."""
        self.scheduler = scheduler
        self.elapsed, self.tick = timedelta(0), timedelta(seconds=1)
        self.collectors_die = False
        self.promised.clear()
        with self.plain.write(durable=False) as conn:
            for table in reversed(schema.metadata.sorted_tables):
                conn.execute(delete(table))
            for table, rows in self._first.items():
                if rows:
                    conn.execute(insert(table), rows)
        for name in ("blobs", "uploads", "derived"):
            for path in (self.settings.store_folder / name).iterdir():
                shutil.rmtree(path)

    def expect(self, status: int) -> None:
        """A client must be answered 201, or it gives up where it may be refused.

        That is where the clock runs away; and what a collector was deleting when it died is deleted until it is
        taken up again.
        """
        if status != 201:
            if self.tick > timedelta(seconds=1):
                assert status in {400, 404, 503}
            else:
                assert self.collectors_die, f"refused with {status}"
                assert status == 503
            raise RefusedError

    # ---- clients ----------------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, *, body: bytes = b"", media_type: str = "") -> TestResponse:
        """One request, as the pusher."""
        headers = {**self.header, **({"Content-Type": media_type} if media_type else {})}
        return self.app.test_client().open(path, method=method, data=body, headers=headers)

    def push_blob(self, repository: str, content: bytes) -> int:
        """Push a blob in one request."""
        path = f"/v2/{repository}/blobs/uploads/?digest={Digest.of(content)}"
        return self.request("POST", path, body=content).status_code

    def begin_upload(self, repository: str, content: bytes) -> str:
        """Send a blob's bytes to a session, and return where it is."""
        location = self.request("POST", f"/v2/{repository}/blobs/uploads/").headers["Location"]
        assert self.request("PATCH", location, body=content).status_code == 202
        return location

    def finish_upload(self, location: str, content: bytes) -> int:
        """Make a session's bytes a blob."""
        return self.request("PUT", f"{location}?digest={Digest.of(content)}").status_code

    def mount(self, source: str, repository: str, digest: Digest) -> int:
        """Mount a blob: 201 if it is there, 202 if a session was begun instead."""
        return self.request("POST", f"/v2/{repository}/blobs/uploads/?mount={digest}&from={source}").status_code

    def has_blob(self, repository: str, digest: Digest) -> bool:
        """Ask for a blob, as pushers do before they send it."""
        return self.request("HEAD", f"/v2/{repository}/blobs/{digest}").status_code == 200

    def put_manifest(self, repository: str, tag: str, thing: Thing) -> int:
        """Push a manifest; if it is taken, the tag is promised."""
        manifest = thing.manifest
        path = f"/v2/{repository}/manifests/{tag}"
        status = self.request("PUT", path, body=manifest.raw, media_type=manifest.media_type).status_code
        if status == 201:
            self.promised.append((repository, tag, thing))
        return status

    def push(self, repository: str, tag: str, thing: Thing) -> int:
        """Push blob and manifest; returns what the manifest was answered."""
        self.expect(self.push_blob(repository, thing.content))
        return self.put_manifest(repository, tag, thing)

    def delete_tag(self, repository: str, tag: str) -> int:
        """Delete a tag; nothing is promised of it any more."""
        status = self.request("DELETE", f"/v2/{repository}/manifests/{tag}").status_code
        if status == 202:
            self.promised[:] = [each for each in self.promised if each[:2] != (repository, tag)]
        return status

    def delete_manifest(self, repository: str, digest: Digest) -> int:
        """Delete a manifest with all its tags."""
        status = self.request("DELETE", f"/v2/{repository}/manifests/{digest}").status_code
        if status == 202:
            self.promised[:] = [
                each for each in self.promised if (each[0], each[2].manifest.digest) != (repository, digest)
            ]
        return status

    # ---- the collector ----------------------------------------------------------------------------------------------

    def run(self, name: str = "run", *, grace: int = GRACE, dry: bool = False) -> Run:
        """A run of the collector that looks at everything, and is known to go on."""
        with self.plain.write(durable=False) as conn:
            conn.execute(delete(schema.collections).where(schema.collections.c.id == name))
            conn.execute(
                insert(schema.collections).values(
                    id=name,
                    requested=EPOCH,
                    requested_by="test",
                    dry_run=dry,
                    state="running",
                    worker="",
                    report="",
                    attempt=name,
                )
            )
        return Run(
            id=name,
            attempt=name,
            started=self.clock(),
            catalogue=self.catalogue,
            store=self.store,
            audit=Audit(self.clock),
            clock=self.clock,
            settings=CollectSettings(grace=grace),
            dry=dry,
        )

    def end(self, name: str = "run") -> None:
        """A run is over, however it ended."""
        with self.plain.write(durable=False) as conn:
            conn.execute(delete(schema.collections).where(schema.collections.c.id == name))

    # ---- what must hold ---------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Nothing that was promised is lost; a last run, in quiet, frees all that nothing needs, and nothing else."""
        self._check_promises()
        self.end()
        self.elapsed += timedelta(days=2)
        last = self.run("last")
        for step in STEPS:
            step(last)
        self.end("last")
        self._check_promises()
        assert last.tally.missing == []
        assert last.tally.left.keys() <= {"leased"}
        self._check_nothing_is_left()

    def _check_promises(self) -> None:
        promised = {(repository, tag) for repository, tag, _ in self.promised}
        with self.plain.read() as conn:
            for repository, tag in promised:
                at = schema.tags.c
                pushed = conn.scalar(select(at.pushed).where(at.repository == repository, at.tag == tag))
                assert pushed is not None, f"{repository}:{tag} was acknowledged, and is gone"
                possible = [
                    each.manifest.digest for where, name, each in self.promised if (where, name) == (repository, tag)
                ]
                assert pushed in possible, f"{repository}:{tag}"
            needed = conn.execute(
                select(schema.references.c.repository, schema.references.c.digest).where(
                    schema.references.c.kind != "child"
                )
            ).all()
            for repository, digest in needed:
                at = schema.repository_blobs.c
                assert conn.scalar(select(at.digest).where(at.repository == repository, at.digest == digest)), (
                    f"blob {digest} is needed in {repository}, and not there"
                )
                deleting = conn.execute(select(schema.blobs.c.deleting).where(schema.blobs.c.digest == digest)).one()
                assert deleting == (None,), f"blob {digest} is needed, and in deletion"
                with self.files.open(digest) as stream:
                    assert Digest.of(stream.read(), digest.algorithm) == digest
            assert conn.execute(text("PRAGMA foreign_key_check")).all() == []

    def _check_nothing_is_left(self) -> None:
        with self.plain.read() as conn:
            needed = set(conn.scalars(select(schema.references.c.digest)))
            known = set(conn.scalars(select(schema.blobs.c.digest)))
            assert conn.scalars(select(schema.blobs.c.digest).where(schema.blobs.c.deleting.is_not(None))).all() == []
        assert known == needed, "the catalogue knows what nothing needs"
        assert set(self.files.digests()) == needed, "the store has what nothing needs"

    # ---- how --------------------------------------------------------------------------------------------------------

    def _pause(self, seconds: float) -> None:
        self.scheduler.pause(seconds)

    def _account(self) -> None:
        made = Account(
            name="pusher",
            role=Role.PUSHER,
            grants=EVERYTHING,
            secret=hash_secret(self.secret),
            created=EPOCH,
            created_by="test",
        )
        with self.plain.write() as conn:
            add_account(conn, made)

    def _rows(self, table: Table) -> list[dict[str, object]]:
        with self.plain.read() as conn:
            return [dict(row._mapping) for row in conn.execute(select(table))]


@contextmanager
def site() -> Iterator[Site]:
    """A site in memory, where the system has a folder there."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="pratique-site-", dir=memory if memory.is_dir() else None))
    made = Site(folder)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)
