"""Faults at the n-th thing that a registry does to its store, its S3 engine or its catalogue, for every n.

    def scenario(plan: Plan) -> None: ...                # does everything through wrappers that ask `plan`

    for plan in plans(scenario): scenario(plan)          # one for every point and every kind of fault

What is counted are calls of our own interfaces: `FaultyStore` wraps a `BlobStore`, `FaultyEngine` an `Engine`, and
`FaultyCatalogue` is a catalogue whose transactions fail. A call fails before it had an effect, or after, when only the
answer is lost; or the process is dead after it: nothing that it would do then happens any more, not even by way of an
error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from enum import Enum
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Connection

from ocispec.digest import Digest
from registry.catalogue.database import Catalogue
from registry.errors import CatalogueConflictError, CatalogueError, CatalogueLostError, StorageError
from registry.store.interface import BlobStore, StoredBlob, StoredDerived, Upload
from registry.store.keys import DerivedKey
from registry.store.s3_engine import Engine
from registry.store.s3_time import Allowance

COMMIT = "catalogue.write"
VOLATILE = "catalogue.write, not durable"
"""How the end of a writing transaction is called among the points."""


class Killed(BaseException):
    """The process is dead. No handler of errors is for it."""


class Fault(Enum):
    """What goes wrong at a point."""

    BEFORE = "fails without effect"
    AFTER = "has its effect, and its answer is lost"
    DEATH = "has its effect, and nothing follows it"
    END = "has no effect, and nothing follows it"
    CONFLICT = "is undone because of another transaction"


class Plan:
    """Counts points, and has one of them go wrong; with `at` 0 none does."""

    def __init__(self, at: int = 0, fault: Fault = Fault.BEFORE) -> None:
        """The point number `at`, from 1 on."""
        self.at, self.fault = at, fault
        self.names: list[str] = []
        self.changing: list[bool] = []
        self.armed = True
        self.dead = False

    def __repr__(self) -> str:
        """Which point, what it is, and what becomes of it."""
        name = self.names[self.at - 1] if self.happened else "nothing"
        return f"point {self.at} ({name}): {self.fault.value}"

    @property
    def happened(self) -> bool:
        """Whether the point was come to."""
        return 0 < self.at <= len(self.names)

    def disarm(self) -> None:
        """Nothing goes wrong from now on."""
        self.armed = False

    @property
    def changes(self) -> bool:
        """Whether what goes wrong would change something; True if nothing does."""
        return not self.happened or self.changing[self.at - 1]

    def check_alive(self) -> None:
        """Raise Killed if the process is dead."""
        if self.dead:
            raise Killed

    def come(self, name: str, *, changes: bool = True) -> Fault | None:
        """One more thing is about to be done, which `changes` something; what is to become of it."""
        self.check_alive()
        self.names.append(name)
        self.changing.append(changes)
        return self.fault if self.armed and len(self.names) == self.at else None

    def die(self) -> None:
        """Nothing happens any more."""
        self.dead = True
        raise Killed

    @contextmanager
    def point(self, name: str, *, changes: bool = True) -> Iterator[None]:
        """One call of a store or engine.

        Raises:
            StorageError: it has failed.
            Killed: the process is dead.
        """
        fault = self.come(name, changes=changes)
        if fault is Fault.BEFORE:
            raise StorageError(f"{name}: a fault of the test")
        yield
        self.check_alive()  # what it was given may have come to points too
        if fault is Fault.AFTER:
            raise StorageError(f"{name}: its answer was lost by the test")
        if fault is Fault.DEATH:
            self.die()


def plans(scenario: Callable[[Plan], None]) -> Iterator[Plan]:
    """A plan for every point of `scenario`, which is run once without a fault to count them, and every kind of fault.

    What changes nothing just fails: with its answer lost it is the same. A death before a point is one after the point
    before, but for commits: between those, the signer remembers what it signs. Once something went wrong, other points
    may be come to: those are no new ones.
    """
    smooth = Plan()
    scenario(smooth)
    for at, (name, changes) in enumerate(zip(smooth.names, smooth.changing, strict=True), start=1):
        yield Plan(at, Fault.BEFORE)
        if changes:
            yield from (Plan(at, Fault.AFTER), Plan(at, Fault.DEATH))
        if name in {COMMIT, VOLATILE}:
            yield Plan(at, Fault.END)


def in_turns(found: Iterator[Plan]) -> Iterator[Plan]:
    """One of the plans for each point: the first kind of fault for one, the second for the next."""
    for turn, (_, same) in enumerate(groupby(found, key=lambda plan: plan.at)):
        choice = list(same)
        yield choice[turn % len(choice)]


class FaultyStore:
    """A `BlobStore` whose calls are points of a plan."""

    def __init__(self, store: BlobStore, plan: Plan) -> None:
        """Wrap `store`."""
        self._store, self._plan = store, plan

    def _point(self, name: str) -> AbstractContextManager[None]:
        return self._plan.point(f"store.{name}")

    def _looking(self, name: str) -> AbstractContextManager[None]:
        return self._plan.point(f"store.{name}", changes=False)

    def size(self, digest: Digest) -> int | None:
        """See `Blobs`."""
        with self._looking("size"):
            return self._store.size(digest)

    def open(self, digest: Digest, *, start: int = 0, length: int | None = None) -> BinaryIO:
        """See `Blobs`."""
        opened: BinaryIO | None = None
        try:
            with self._looking("open"):
                opened = self._store.open(digest, start=start, length=length)
        except BaseException:
            if opened is not None:
                opened.close()  # its answer is lost, and so nobody else can
            raise
        return opened

    def redirect(self, digest: Digest) -> str | None:
        """See `Blobs`."""
        with self._looking("redirect"):
            return self._store.redirect(digest)

    def put(self, digest: Digest, chunks: Iterable[bytes], *, size: int | None = None) -> int:
        """See `Blobs`."""
        with self._point("put"):
            return self._store.put(digest, chunks, size=size)

    def delete(self, digest: Digest) -> bool:
        """See `Blobs`."""
        with self._point("delete"):
            return self._store.delete(digest)

    def digests(self) -> Iterator[Digest]:
        """See `Blobs`."""
        with self._looking("digests"):
            return self._store.digests()

    def listing(self) -> Iterator[StoredBlob]:
        """See `Blobs`."""
        with self._looking("listing"):
            return self._store.listing()

    def begin(self) -> Upload:
        """See `Uploads`."""
        with self._point("begin"):
            return self._store.begin()

    def append(self, upload: Upload, chunks: Iterable[bytes]) -> Upload:
        """See `Uploads`."""
        with self._point("append"):
            return self._store.append(upload, chunks)

    def commit(self, upload: Upload, digest: Digest) -> int:
        """See `Uploads`."""
        with self._point("commit"):
            return self._store.commit(upload, digest)

    def cancel(self, upload_id: str) -> None:
        """See `Uploads`."""
        with self._point("cancel"):
            self._store.cancel(upload_id)

    def expire(self, before: datetime) -> tuple[str, ...]:
        """See `Uploads`."""
        with self._point("expire"):
            return self._store.expire(before)

    def growing_file(self, upload_id: str) -> Path | None:
        """See `Uploads`."""
        return self._store.growing_file(upload_id)

    def put_derived(self, key: DerivedKey, content: bytes) -> None:
        """See `DerivedObjects`."""
        with self._point(f"put_derived {key.name}"):
            self._store.put_derived(key, content)

    def get_derived(self, key: DerivedKey) -> bytes | None:
        """See `DerivedObjects`."""
        with self._looking(f"get_derived {key.name}"):
            return self._store.get_derived(key)

    def delete_derived(self, key: DerivedKey) -> None:
        """See `DerivedObjects`."""
        with self._point(f"delete_derived {key.name}"):
            self._store.delete_derived(key)

    def derived(self) -> Iterator[DerivedKey]:
        """See `DerivedObjects`."""
        with self._looking("derived"):
            return self._store.derived()

    def derived_listing(self) -> Iterator[StoredDerived]:
        """See `DerivedObjects`."""
        with self._looking("derived_listing"):
            return self._store.derived_listing()

    def check(self) -> None:
        """See `BlobStore`."""
        with self._looking("check"):
            self._store.check()


class FaultyEngine:
    """An S3 `Engine` whose requests are points of a plan."""

    def __init__(self, engine: Engine, plan: Plan) -> None:
        """Wrap `engine`."""
        self._engine, self._plan = engine, plan

    def call(
        self, operation: str, parameters: Mapping[str, object], *, size: int = 0, patient: bool = False
    ) -> dict[str, Any]:
        """See `Engine`."""
        looks = operation.startswith(("head_", "get_", "list_"))
        with self._plan.point(f"s3.{operation}", changes=not looks):
            return self._engine.call(operation, parameters, size=size, patient=patient)

    def presigned(self, key: str, *, seconds: int) -> str:
        """See `Engine`."""
        return self._engine.presigned(key, seconds=seconds)

    def allowance(self, size: int = 0) -> Allowance:
        """See `Engine`."""
        return self._engine.allowance(size)


class FaultyCatalogue(Catalogue):
    """A catalogue whose transactions are points of a plan; one that fails in place of its commit is undone."""

    def __init__(self, url: str, plan: Plan, *, connections: int = 8) -> None:
        """See `Catalogue`."""
        super().__init__(url, connections=connections)
        self._plan = plan

    @contextmanager
    def write(self, *, durable: bool = True, stamped: bool = True) -> Iterator[Connection]:
        """See `Catalogue`."""
        self._plan.check_alive()
        with super().write(durable=durable, stamped=stamped) as conn:
            yield conn
            fault = self._plan.come(COMMIT if durable else VOLATILE)
            if fault is Fault.CONFLICT:
                raise CatalogueConflictError(f"{COMMIT}: undone because of another transaction, says the test")
            if fault is Fault.BEFORE:
                raise CatalogueError(f"{COMMIT}: a fault of the test")
            if fault is Fault.END:
                self._plan.die()
        if fault is Fault.AFTER:
            raise CatalogueLostError(f"{COMMIT}: its answer was lost by the test")
        if fault is Fault.DEATH:
            self._plan.die()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """See `Catalogue`."""
        self._look("read")
        with super().read() as conn:
            yield conn

    @contextmanager
    def look(self) -> Iterator[Connection]:
        """See `Catalogue`."""
        self._look("look")
        with super().look() as conn:
            yield conn

    def _look(self, name: str) -> None:
        if self._plan.come(f"catalogue.{name}", changes=False) is not None:
            raise CatalogueError(f"catalogue.{name}: a fault of the test")
