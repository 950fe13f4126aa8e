"""A registry of which any call of the store, of its S3 engine or of the catalogue can be made to fail.

It is the real application, asked through Flask's test client, and the real collector. What a client was told is
kept; `check` compares it with what a new application finds on the same data.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import select, text
from werkzeug.test import TestResponse

from ocispec.digest import Digest
from registry import audit
from registry.access import EVERYTHING, Role
from registry.app import make_app, make_context
from registry.authenticate import hash_secret
from registry.catalogue import schema
from registry.catalogue.accounts import Account, add_account
from registry.catalogue.collections import Begun, begin_collection, bury_collections, request_collection
from registry.catalogue.database import Catalogue
from registry.collect.collector import collect
from registry.collect.leases import Leases
from registry.collect.run import SILENCE, Run
from registry.context import Context, install
from registry.errors import RegistryError
from registry.housekeeping import tidy
from registry.identity.open import open_identity
from registry.judge.queue import JudgeQueue
from registry.prepare import prepare
from registry.settings import Settings, parse
from registry.settings_collect import CollectSettings
from registry.settings_storage import S3Settings
from registry.store.files import FilesStore
from registry.store.interface import BlobStore
from registry.store.s3 import S3Store
from registry.store.s3_bucket import Bucket
from registry.store.s3_engine import Engine
from tests.support.faults import FaultyCatalogue, FaultyEngine, FaultyStore, Killed, Plan
from tests.support.images import BuiltImage

SECRET: Final = "a secret of the tests, as every account here has it"
PLAN: Final = Plan()
APP: Final = make_app()
"""One for all worlds: what it works with is another one in each process that is begun."""


class RefusedError(Exception):
    """A client was answered that the registry cannot do it now, and gives up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What worlds are made on: a filled catalogue to be copied, and a bucket, or none for files."""

    folder: Path
    bucket: S3Settings | None = None
    engine: Engine | None = None

    @property
    def template(self) -> Path:
        """The catalogue with its accounts."""
        return self.folder / "template" / "catalogue.sqlite"


def ground(folder: Path, bucket: S3Settings | None = None, engine: Engine | None = None) -> Ground:
    """Ground in a new folder, with an account of each role that is needed."""
    made = Ground(folder=folder, bucket=bucket, engine=engine)
    settings = _settings(made.template.parent)
    prepare(settings, now=_now())
    catalogue = Catalogue(settings.catalogue_url)
    with catalogue.write() as conn:
        for role in (Role.PUSHER, Role.HOST):
            account = Account(
                name=str(role),
                role=role,
                grants=EVERYTHING,
                secret=hash_secret(SECRET),
                created=_now(),
                created_by="test",
            )
            add_account(conn, account)
    catalogue.close()
    return made


@dataclass(slots=True)
class World:
    """One registry in a folder of its own; `told` is what clients were answered, `tried` all that they ever sent."""

    ground: Ground
    folder: Path
    plan: Plan = PLAN
    later: timedelta = timedelta(0)
    blobs: set[tuple[str, Digest]] = field(default_factory=set)
    images: dict[tuple[str, Digest], BuiltImage] = field(default_factory=dict)
    tags: dict[tuple[str, str], set[Digest | None]] = field(default_factory=dict)
    tried: dict[Digest, bytes] = field(default_factory=dict)
    settings: Settings = field(init=False)
    catalogue: Catalogue = field(init=False)
    store: BlobStore = field(init=False)
    parts: Context = field(init=False)

    def __post_init__(self) -> None:
        """Copy the catalogue, and open everything."""
        self.settings = _settings(self.folder)
        self.folder.mkdir()
        shutil.copy(self.ground.template, self.folder / "catalogue.sqlite")
        self.open(prepared=True)

    def clock(self) -> datetime:
        """The time here."""
        return _now() + self.later

    def open(self, plan: Plan = PLAN, *, prepared: bool = False) -> None:
        """Make store, catalogue and all that handlers work with, as a new process does; what `plan` says goes wrong."""
        self.plan = plan
        if plan is PLAN and not prepared:
            prepare(self.settings, now=self.clock(), store=self._store(plan))
        self.catalogue = FaultyCatalogue(self.settings.catalogue_url, plan)
        self.store = self._store(plan)
        parts = make_context(
            self.settings,
            store=self.store,
            catalogue=self.catalogue,
            identity=open_identity(self.settings, self.catalogue, self.clock),
            judge=JudgeQueue(self.catalogue, self.settings.judge_socket, self.clock),
            clock=self.clock,
            leases=Leases(self.catalogue, self.clock, patience=0),
        )
        install(APP.extensions, parts)
        self.parts = parts

    def close(self) -> None:
        """End the process: what it had not written yet is lost."""
        for log in (self.parts.reads, self.parts.refusals):
            with suppress(RegistryError, Killed):
                log.flush()
        self.catalogue.close()

    def remove(self) -> None:
        """Leave nothing behind, however it ended."""
        self.close()
        shutil.rmtree(self.folder)
        if self.ground.bucket is not None:
            bucket = Bucket(self._bucket(), self.ground.engine)
            bucket.delete(*[found.key for found in bucket.list("")])

    def restart(self, plan: Plan = PLAN) -> None:
        """End the process, and begin another one on the same data."""
        self.close()
        self.open(plan)

    def _store(self, plan: Plan) -> BlobStore:
        if self.ground.bucket is None:
            return FaultyStore(FilesStore(self.settings.store_folder), plan)
        assert self.ground.engine is not None
        return S3Store(self._bucket(), FaultyEngine(self.ground.engine, plan))

    def _bucket(self) -> S3Settings:
        assert self.ground.bucket is not None
        return replace(self.ground.bucket, prefix=f"{self.folder.name}/")

    # ---- clients ----------------------------------------------------------------------------------------------------

    def request(
        self, method: str, path: str, *, body: bytes = b"", account: str = "pusher", **more: str
    ) -> TestResponse:
        """One request."""
        encoded = base64.b64encode(f"{account}:{SECRET}".encode()).decode()
        headers = {"Authorization": f"Basic {encoded}"} | {name.replace("_", "-"): more[name] for name in more}
        return APP.test_client().open(path, method=method, data=body, headers=headers)

    def ask(self, method: str, path: str, expected: int, *, body: bytes = b"", **more: str) -> TestResponse:
        """One request of a client that gives up when it is told that the registry cannot do it now."""
        answer = self.request(method, path, body=body, **more)
        if answer.status_code != expected:
            assert answer.status_code == 503, f"{method} {path}: {answer.status} {answer.text}"
            assert answer.headers["Retry-After"]
            raise RefusedError(answer.text)
        return answer

    def push_blob(self, repository: str, content: bytes) -> None:
        """Push a blob in one request."""
        digest = self.trying(content)
        self.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", 201, body=content)
        self.blobs.add((repository, digest))

    def push_chunks(self, repository: str, chunks: list[bytes], *, algorithm: str = "sha256") -> None:
        """Push a blob in several requests, the last with the last chunk."""
        digest = self.trying(b"".join(chunks), algorithm)
        location = self.ask("POST", f"/v2/{repository}/blobs/uploads/", 202).headers["Location"]
        for chunk in chunks[:-1]:
            location = self.ask("PATCH", location, 202, body=chunk).headers["Location"]
        self.ask("PUT", f"{location}?digest={digest}", 201, body=chunks[-1])
        self.blobs.add((repository, digest))

    def trying(self, content: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of what is about to be sent."""
        digest = Digest.of(content, algorithm)
        self.tried[digest] = content
        return digest

    def put_manifest(self, repository: str, image: BuiltImage, tag: str) -> None:
        """Push a manifest with a tag."""
        values = self.tags.setdefault((repository, tag), {None})
        values.add(image.digest)
        path = f"/v2/{repository}/manifests/{tag}"
        self.ask("PUT", path, 201, body=image.manifest.raw, Content_Type=image.manifest.media_type)
        self.tags[repository, tag] = {image.digest}
        self.images[repository, image.digest] = image

    def push(self, repository: str, image: BuiltImage, tag: str) -> None:
        """Push an image, its blobs first."""
        for content in image.blobs.values():
            self.push_blob(repository, content)
        self.put_manifest(repository, image, tag)

    def delete(self, path: str, *, forget: Callable[[], None], done: int = 202) -> None:
        """Delete something that may be gone already; from now on it may be there or not, afterwards it is not."""
        forget()
        answer = self.request("DELETE", path)
        if answer.status_code not in {done, 404}:
            assert answer.status_code == 503, answer.text
            raise RefusedError(answer.text)
        assert self.request("HEAD", path).status_code in {404, 503}

    def forget_image(self, repository: str, image: BuiltImage) -> None:
        """From now on it may be there or not."""
        self.images.pop((repository, image.digest), None)

    # ---- by the way -------------------------------------------------------------------------------------------------

    def collect(self) -> Run:
        """A run of the collector that looks at everything."""
        plain = Catalogue(self.settings.catalogue_url, connections=1)
        with plain.write() as conn:
            wanted = request_collection(conn, by="test", dry_run=False, now=self.clock())
            bury_collections(conn, "test", now=self.clock())
            begun = begin_collection(conn, wanted, worker="test", now=self.clock(), until=self.clock() + SILENCE)
        plain.close()
        assert isinstance(begun, Begun)
        run = Run(
            id=wanted,
            attempt=begun.attempt,
            started=begun.started,
            catalogue=self.catalogue,
            store=self.store,
            audit=audit.Audit(self.clock),
            clock=self.clock,
            settings=CollectSettings(),
        )
        collect(run)
        return run

    # ---- what must hold ---------------------------------------------------------------------------------------------

    def check(self) -> None:
        """What was acknowledged is there; the rest is whole or absent; no host gets anything."""
        for repository in {name for name, _ in (*self.blobs, *self.images, *self.tags)}:
            for digest, content in self.tried.items():
                answer = self.request("GET", f"/v2/{repository}/blobs/{digest}")
                assert answer.status_code == (200 if (repository, digest) in self.blobs else answer.status_code)
                assert answer.status_code == 404 or answer.data == content
                assert self.request("GET", f"/v2/{repository}/blobs/{digest}", account="host").status_code in {403, 404}
        for (repository, digest), image in self.images.items():
            path = f"/v2/{repository}/manifests/{digest}"
            assert self.request("GET", path).data == image.manifest.raw
            assert self.request("GET", path, account="host").status_code == 403
        for (repository, tag), values in self.tags.items():
            answer = self.request("GET", f"/v2/{repository}/manifests/{tag}")
            found = Digest.of(answer.data) if answer.status_code == 200 else None
            assert found in values, f"{repository}:{tag}"
            assert answer.status_code in {200, 404}

    def check_rest(self) -> None:
        """Catalogue and chain are sound; two days later nothing is left of what was never finished."""
        self.later += timedelta(days=2)
        tidy(self.parts)
        run = self.collect()
        assert run.tally.missing == []
        self.check_manifests()
        with self.catalogue.read() as conn:
            assert conn.execute(text("PRAGMA foreign_key_check")).all() == []
            needed = select(schema.references.c.digest).where(schema.references.c.kind != "child")
            wanted = set(conn.scalars(needed))
            assert set(conn.scalars(select(schema.blobs.c.digest))) == wanted
            assert conn.execute(select(schema.uploads)).all() == []
            assert conn.execute(select(schema.leases)).all() == []
            records = audit.read(conn, after=0, limit=100_000)
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        assert all(record == replace(record, hash="").sealed() for record in records)
        stored = {found.digest for found in self.store.listing()}
        assert stored == wanted
        for digest in stored:
            with self.store.open(digest) as stream:
                assert Digest.of(stream.read(), digest.algorithm) == digest
        assert self._unfinished() == []

    def check_manifests(self) -> None:
        """What was acknowledged as an image is there, blob by blob."""
        for (repository, digest), image in self.images.items():
            answer = self.request("GET", f"/v2/{repository}/manifests/{digest}")
            assert answer.data == image.manifest.raw
            for blob, content in image.blobs.items():
                assert self.request("GET", f"/v2/{repository}/blobs/{blob}").data == content

    def _unfinished(self) -> list[str]:
        """What is left of uploads in the store."""
        if self.ground.bucket is None:
            top = self.settings.store_folder
            return [str(path) for name in ("uploads", "tmp") for path in (top / name).iterdir()]
        bucket = Bucket(self._bucket(), self.ground.engine)
        return [*(found.key for found in bucket.list("uploads/")), *(found.key for found in bucket.unfinished(""))]


def _settings(folder: Path) -> Settings:
    members = {
        "name": "localhost:5000",
        "data": str(folder),
        "judge": {"push_wait_ms": 0},
        "limits": {"free_bytes": 0},
    }
    return parse(json.dumps(members).encode())


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
