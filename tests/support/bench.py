"""A judge on the bench: catalogue, files and signer in one process, driven step by step, under a clock that is set.

    bench = Bench(folder)
    bench.publish()
    bench.push("team/app", image, "1")
    bench.settle()                       # until nothing is due
    assert bench.state("team/app", image.digest) is State.CLEARED

Layers are read in real confined children; the signer is the real one, called directly.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Row, select

from ocispec.digest import Digest
from ocispec.layer import read_layer
from ocispec.manifest import Index, Manifest
from policy.errors import PolicyError, TrustError
from policy.model import ImageFacts, State
from policy.private_key import PrivateKey
from registry import assemble, statements
from registry.access import Principal, Role
from registry.audit import Audit
from registry.catalogue import schema
from registry.catalogue.blobs import add_blob
from registry.catalogue.database import Catalogue
from registry.judge import jobs
from registry.judge.advising import Advising
from registry.judge.confine import Cell
from registry.judge.importing import AdvisoryFolder
from registry.judge.jobs import JobKind
from registry.judge.judge import Judge
from registry.judge.keeper import Local, Works
from registry.judge.outcome import Outcomes
from registry.judge.reading import Reader
from registry.judge.tasks import Tasks
from registry.judge.warm import warm
from registry.judge.worker import Worker
from registry.judge.works import WORKS
from registry.publish import Publisher
from registry.push import Push, push_manifest
from registry.served import Values, values
from registry.signer.memory import Memory
from registry.signer.protocol import SignerRefusedError
from registry.signer.signer import Judged, SignedTag, Signer, Status
from registry.store.files import FilesStore
from registry.store.interface import BlobStore
from scanner.facts import LayerScanner
from tests.support import judging
from tests.support import trust as builders
from tests.support.images import BuiltImage, BuiltIndex
from tests.support.trust import NOW, REGISTRY, Keyring

T = TypeVar("T")

PUSHER = Principal(name="pusher", role=Role.PUSHER)


@dataclass(slots=True)
class DirectSigner:
    """The signer as its client shows it, without a socket between; `before` runs before each question."""

    signer: Signer
    before: Callable[[str], None] = lambda _question: None

    def status(self) -> Status:
        """See `Signing`."""
        return self.signer.status()

    def take_trust(self, envelope: bytes) -> None:
        """See `Signing`."""
        self._ask("trust", lambda: self.signer.take_trust(envelope))

    def learn(self, envelope: bytes) -> None:
        """See `Signing`."""
        self._ask("learn", lambda: self.signer.learn(envelope))

    def judge(self, evidence: bytes) -> Judged:
        """See `Signing`."""
        return self._ask("judge", lambda: self.signer.judge(evidence))

    def clear_index(self, repository: str, raw: bytes, media_type: str, children: Sequence[bytes]) -> bytes:
        """See `Signing`."""
        return self._ask("index", lambda: self.signer.clear_index(repository, raw, media_type, children))

    def sign_tag(self, repository: str, tag: str, clearance: bytes) -> SignedTag:
        """See `Signing`."""
        return self._ask("tag", lambda: self.signer.sign_tag(repository, tag, clearance))

    def date_list(self) -> bytes:
        """See `Signing`."""
        return self._ask("date", self.signer.date_list)

    def sign_checkpoint(self, records: int, head: Digest) -> bytes:
        """See `Signing`."""
        return self._ask("checkpoint", lambda: self.signer.sign_checkpoint(records, head))

    def _ask(self, question: str, answer: Callable[[], T]) -> T:
        self.before(question)
        try:
            return answer()
        except TrustError as error:
            raise SignerRefusedError(error.code, error.subject, error.detail) from error
        except PolicyError as error:
            raise SignerRefusedError("malformed", "request", str(error)) from error


@dataclass(slots=True)
class Bench:
    """Everything that a judge works with, on `database` or SQLite; `works` replaces what children do.

    `open_catalogue` and `wrap` put something between it and catalogue and store.
    """

    folder: Path
    database: str = ""
    works: Works = field(default_factory=lambda: WORKS)
    now: datetime = NOW
    ring: Keyring = field(default_factory=builders.keyring)
    open_catalogue: Callable[[str], Catalogue] = lambda url: Catalogue(url, connections=4)
    wrap: Callable[[FilesStore], BlobStore] = lambda store: store
    catalogue: Catalogue = field(init=False)
    store: BlobStore = field(init=False)
    memory: Memory = field(init=False)
    signer: DirectSigner = field(init=False)
    worker: Worker = field(init=False)

    def __post_init__(self) -> None:
        """Open everything."""
        warm()
        (self.folder / "empty").mkdir(exist_ok=True)
        (self.folder / "advisories" / "incoming").mkdir(parents=True, exist_ok=True)
        self.catalogue = self.open_catalogue(self.database or f"sqlite:///{self.folder / 'catalogue.sqlite'}")
        self.catalogue.create()
        self.store = self.wrap(FilesStore(self.folder / "store"))
        self.memory = Memory(self.folder / "memory.sqlite")
        self.signer = DirectSigner(
            Signer(key=self.ring.registry, registry=REGISTRY, memory=self.memory, clock=self.clock)
        )
        self.worker = self.new_worker()
        self.worker.begin()

    def clock(self) -> datetime:
        """The time on the bench."""
        return self.now

    def pass_time(self, duration: timedelta) -> None:
        """Set the clock forward."""
        self.now += duration

    @property
    def audit(self) -> Audit:
        """The audit chain."""
        return Audit(self.clock)

    def new_worker(self, folder: AdvisoryFolder | None = None, *, short: float = 0.0) -> Worker:
        """A further worker on the same catalogue, as another process would be; `folder` as on another machine.

        Uploads that take `short` seconds or more are read while they come.
        """
        spawner = Local(cell=Cell(root=self.folder / "empty"), works=self.works)
        tasks = Tasks(spawner, limit=4)
        folder = folder or AdvisoryFolder(self.folder / "advisories")
        reader = Reader(
            store=self.store,
            catalogue=self.catalogue,
            tasks=tasks,
            clock=self.clock,
            advisories=folder,
            short=short,
        )
        publisher = Publisher(store=self.store, audit=self.audit, registry=REGISTRY)
        judge = Judge(
            registry=REGISTRY,
            store=self.store,
            catalogue=self.catalogue,
            reader=reader,
            signer=self.signer,
            outcomes=Outcomes(audit=self.audit, publisher=publisher, signer=self.signer),
            clock=self.clock,
        )
        return Worker(
            catalogue=self.catalogue,
            judge=judge,
            reader=reader,
            tasks=tasks,
            signer=self.signer,
            audit=self.audit,
            advising=Advising(folder=folder, store=self.store, catalogue=self.catalogue, clock=self.clock),
            clock=self.clock,
        )

    def close(self) -> None:
        """Close everything."""
        self.worker.close()
        self.memory.close()
        self.catalogue.close()

    # ---- what others do ----------------------------------------------------------------------------------------

    def publish(self, *, required: bool = True) -> None:
        """trust.json, the small policy and the first revocation list."""
        with self.catalogue.write() as conn:
            statements.lock_statements(conn)
            statements.accept_trust(conn, self.ring.envelope, by="test", now=self.now)
        self.post(judging.published_policy(self.ring, now=self.now, required=required))
        self.post(judging.published_list(self.ring, now=self.now))

    def post(self, envelope: bytes) -> Digest:
        """Hand a statement in, as the control API does."""
        with self.catalogue.write() as conn:
            statements.lock_statements(conn)
            trust = statements.trust_in_force(conn, self.now)
            assert trust is not None
            accepted = statements.accept(conn, trust, envelope, by="test", now=self.now)
            jobs.enqueue(conn, JobKind.REJUDGE, f"statement {accepted.signed.digest}", now=self.now)
            jobs.enqueue(conn, JobKind.LIST, now=self.now)
        return accepted.signed.digest

    def push(self, repository: str, built: BuiltImage | BuiltIndex, tag: str | None = None) -> None:
        """Push an image, or an index with its images, as the web does."""
        for image in built.images if isinstance(built, BuiltIndex) else (built,):
            self._push_blobs(repository, image)
            self._push_manifest(repository, image.manifest, tag if image is built else None)
        if isinstance(built, BuiltIndex):
            self._push_manifest(repository, built.index, tag)

    def _push_blobs(self, repository: str, built: BuiltImage) -> None:
        for digest, content in built.blobs.items():
            self.store.put(digest, [content], size=len(content))
            with self.catalogue.write() as conn:
                add_blob(conn, repository, digest, len(content), by="pusher", now=self.now)

    def _push_manifest(self, repository: str, parsed: Manifest | Index, tag: str | None) -> None:
        with self.catalogue.write() as conn:
            tags = (tag,) if tag is not None else ()
            push = Push(repository=repository, parsed=parsed, tags=tags, principal=PUSHER, source="", now=self.now)
            push_manifest(conn, self.audit, push, referrers=1000)
            jobs.enqueue(
                conn,
                JobKind.JUDGE,
                jobs.subject_of(repository, parsed.digest),
                now=self.now,
                priority=jobs.Priority.PUSH,
            )

    def facts(self, repository: str, built: BuiltImage) -> ImageFacts:
        """What identifies an image, as an approver works it out."""
        contents, scanned = [], []
        for layer in built.layers:
            scanner = LayerScanner()
            content = read_layer(io.BytesIO(layer.tar), visitor=scanner, what="layer")
            contents.append(content)
            scanned.append(scanner.facts(content.diff_id))
        made, _ = assemble.assemble(contents, scanned, {})
        found, _ = assemble.image_facts(
            made,
            registry=REGISTRY,
            repository=repository,
            manifest=built.manifest,
            config=built.config,
            first_seen=self.now,
        )
        return found

    def approve(self, repository: str, built: BuiltImage, level: str, *keys: PrivateKey) -> Digest:
        """Approve a whole image."""
        return self.post(judging.approve(self.facts(repository, built), level, *keys, now=self.now))

    def revoke(self, number: int, **entries: tuple[object, ...]) -> Digest:
        """Publish a revocation list."""
        return self.post(judging.published_list(self.ring, number, now=self.now, **entries))

    # ---- driving and looking -------------------------------------------------------------------------------------

    def settle(self, worker: Worker | None = None, *, rounds: int = 2000) -> None:
        """Step a worker until nothing is due and no child runs."""
        chosen = worker or self.worker
        for _ in range(rounds):
            chosen.step(0.05)
            if chosen.idle():
                return
        raise AssertionError("the judge does not come to rest")

    def image(self, repository: str, digest: Digest) -> Row[tuple[object, ...]]:
        """An image's row."""
        table = schema.images
        with self.catalogue.read() as conn:
            row = conn.execute(select(table).where(table.c.repository == repository, table.c.digest == digest)).first()
        assert row is not None
        return row

    def state(self, repository: str, digest: Digest) -> State:
        """An image's state."""
        return State(self.image(repository, digest).state)

    def clearance(self, repository: str, digest: Digest) -> bytes | None:
        """An image's current clearance."""
        table = schema.clearances.c
        with self.catalogue.read() as conn:
            return conn.scalar(select(table.envelope).where(table.repository == repository, table.digest == digest))

    def tag(self, repository: str, tag: str) -> Values:
        """A tag's values."""
        with self.catalogue.read() as conn:
            found = values(conn, repository, tag)
        assert found is not None
        return found
