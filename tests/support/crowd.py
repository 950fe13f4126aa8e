"""Fills catalogue and store with very many images, artifacts and repositories, as pushes and judgements leave them.

    crowd = Crowd(catalogue, now=now, store=folder)
    crowd.grow(1000)        # 1,000 manifests: 500 tagged images, 250 artifacts about one image, 250 repositories
    crowd.grow(10_000)      # … and the rest of 10,000
    crowd.litter(1000)      # what a collector takes away

The rows are those that the registry's own functions write (tests/registry/catalogue/test_growth.py compares them), put
in a table at a time: SQLite's executemany, PostgreSQL's COPY. No audit records; a decision is as long as a usual one.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, text

from ocispec.descriptor import MediaType
from ocispec.digest import Digest
from policy.codec import encode_decision
from policy.model import Decision, State
from registry.catalogue import schema
from registry.catalogue.database import Catalogue
from registry.store.keys import blob_key

TAGGED: Final = "crowd/tagged"
"""One repository with an image for each number, each with its own layer on one layer that all share, and a tag."""

SUBJECT: Final = "crowd/subject"
"""One repository with one image, and an artifact about it for each number."""

EACH: Final = "crowd/each"
"""What the names of as many repositories begin with, each with the same image."""

LITTER: Final = "crowd/litter"
"""One repository with untagged images, and blobs that no manifest needs."""

ARTIFACT_TYPE: Final = "application/vnd.example.sbom"
RARE_TYPE: Final = "application/vnd.example.rare"
"""The type of one in RARE artifacts, and of the first three: a page of two is full in the smallest crowd, too."""

RARE: Final = 500
BASE_LAYER: Final = b"the layer that all images share"
EMPTY: Final = b"{}"

_LONG: Final = 365 * 86_400

_PIECE: Final = 5000
"""Numbers whose rows are put in at a time."""

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A manifest with the blobs that it reaches: (kind of reference, media type, content) each."""

    reached: tuple[tuple[str, str, bytes], ...]
    artifact_type: str = ""
    subject: str = ""
    raw: bytes = b""

    @property
    def digest(self) -> str:
        """The manifest's digest."""
        return digest(self.raw)


def digest(content: bytes) -> str:
    """The digest of some bytes, as text."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def image(name: str) -> Made:
    """An image with a config and a layer of its own, on the layer that all share."""
    layers = (BASE_LAYER, f"layer of {name}".encode())
    diff_ids = [digest(layer) for layer in layers]
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    reached = [("config", MediaType.OCI_CONFIG, json.dumps({**config, "author": name}).encode())]
    reached += [("layer", MediaType.OCI_LAYER, layer) for layer in layers]
    return _manifest(tuple(reached))


def referrer(number: int, subject: Made) -> Made:
    """An artifact about an image: the empty config, and one blob."""
    kind = RARE_TYPE if number < 3 or number % RARE == 0 else ARTIFACT_TYPE
    reached = (("config", MediaType.OCI_EMPTY, EMPTY), ("layer", "text/plain", f"of referrer {number}".encode()))
    return _manifest(reached, artifact_type=kind, subject=subject)


def _manifest(
    reached: Sequence[tuple[str, str, bytes]], *, artifact_type: str = "", subject: Made | None = None
) -> Made:
    described = [{"mediaType": kind, "digest": digest(blob), "size": len(blob)} for _, kind, blob in reached]
    members: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_MANIFEST,
        "config": described[0],
        "layers": described[1:],
    }
    if artifact_type:
        members["artifactType"] = artifact_type
    if subject is not None:
        about = {"mediaType": MediaType.OCI_MANIFEST, "digest": subject.digest, "size": len(subject.raw)}
        members["subject"] = about
    return Made(
        reached=tuple(reached),
        artifact_type=artifact_type,
        subject=subject.digest if subject is not None else "",
        raw=json.dumps(members).encode(),
    )


SUBJECT_IMAGE: Final = image("the subject")
ENVELOPE: Final = json.dumps({"payload": "A" * 400}).encode()
_IMAGE: Final = str(Digest.of(b"image")).encode()
_EVIDENCE: Final = str(Digest.of(b"evidence")).encode()
_DECISION: Final = encode_decision(
    Decision(
        state=State.CLEARED,
        level="base",
        parent=None,
        verdicts=(),
        image=Digest.of(b"image"),
        policy_name="policy",
        policy_version=1,
        policy=Digest.of(b"policy"),
        evidence=Digest.of(b"evidence"),
        rests_on=(Digest.of(b"approval"),),
        taken=datetime(2026, 1, 1, tzinfo=UTC),
    )
)

SHARED: Final = frozenset({BASE_LAYER, EMPTY, *(content for _, _, content in SUBJECT_IMAGE.reached)})


@dataclass(slots=True)
class Crowd:
    """What was put in so far. `pushed` is when all of it came; `store` is the folder of a files engine, if one.

    `littered` is how much litter there is, `collected` how much of it is gone again, as the caller knows.
    """

    catalogue: Catalogue
    pushed: datetime
    store: Path | None = None
    by: str = "pusher"
    size: int = 0
    littered: int = 0
    collected: int = 0
    _rows: defaultdict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    _known: set[tuple[str, str]] = field(default_factory=set)

    def grow(self, size: int) -> None:
        """Have `size` manifests in the end: half are tagged images, a quarter artifacts, a quarter in EACH."""
        if not self.size:
            for name in (TAGGED, SUBJECT):
                self._repository(name)
            self._image(SUBJECT, SUBJECT_IMAGE)
            self._tag(SUBJECT, "1", SUBJECT_IMAGE)
        for numbers in _pieces(tagged(self.size), tagged(size)):
            for number in numbers:
                made = image(f"image {number}")
                self._image(TAGGED, made)
                self._tag(TAGGED, tag(number), made)
            self._write()
        for numbers in _pieces(listed(self.size), listed(size)):
            for number in numbers:
                self._artifact(SUBJECT, referrer(number, SUBJECT_IMAGE))
                self._repository(repository(number))
                self._image(repository(number), SUBJECT_IMAGE)
                self._tag(repository(number), "1", SUBJECT_IMAGE)
            self._write()
        self.size = size

    def litter(self, count: int) -> None:
        """Put in so much more of what a collector takes away: untagged images, and blobs that nothing needs."""
        self._repository(LITTER)
        made = self.littered + self.collected  # a collector took some away, and their names are not used again
        for numbers in _pieces(made, made + count):
            for number in numbers:
                self._image(LITTER, image(f"litter {number}"))
                self._blob(LITTER, f"loose blob {number}".encode())
            self._write()
        self.littered += count

    def settle(self) -> None:
        """Have the database do now what it does by itself at some time after rows were put in.

        PostgreSQL's autovacuum looks at tables, and marks the pages of which all is visible: both make other plans.
        SQLite takes over what stands in its log.
        """
        with self.catalogue.look() as conn:
            conn.execute(
                text("VACUUM ANALYZE" if conn.dialect.name == "postgresql" else "PRAGMA wal_checkpoint(TRUNCATE)")
            )

    # ---- what a push leaves -----------------------------------------------------------------------------------------

    def _repository(self, name: str) -> None:
        if self._is_new("repository", name, shared=True):
            self._rows["repositories"].append((name, self._time, self.by))

    def _blob(self, repository: str, content: bytes) -> None:
        found = digest(content)
        shared = content in SHARED
        if self._is_new("blob", found, shared=shared):
            self._rows["blobs"].append((found, len(content), self._time, None, None))
            if self.store is not None:
                self._file(found, content)
        if self._is_new(repository, found, shared=shared):
            self._rows["repository_blobs"].append((repository, found, self._time, self.by, self._time))

    def _add(self, repository: str, made: Made, *, kind: str, artifact_type: str, state_of: str | None) -> None:
        found = made.digest
        if self._is_new("content", found, shared=made is SUBJECT_IMAGE):
            self._rows["contents"].append((found, made.raw))
        for _, _, content in made.reached:
            self._blob(repository, content)
        row = (repository, found, MediaType.OCI_MANIFEST, len(made.raw), kind, artifact_type, made.subject or None)
        self._rows["manifests"].append((*row, state_of, "{}", self._time, self.by, None))
        reached = dict.fromkeys((digest(content), what) for what, _, content in made.reached)
        self._rows["manifest_references"] += [(repository, found, each, what) for each, what in reached]

    def _artifact(self, repository: str, made: Made) -> None:
        self._add(repository, made, kind="artifact", artifact_type=made.artifact_type, state_of=made.subject)

    def _image(self, repository: str, made: Made) -> None:
        """An image that was judged and cleared."""
        self._add(repository, made, kind="image", artifact_type=MediaType.OCI_CONFIG, state_of=None)
        found, time = made.digest, self._time
        evidence = digest(f"evidence on {repository}@{found}".encode())
        content = _DECISION.replace(_IMAGE, found.encode()).replace(_EVIDENCE, evidence.encode())
        decision = digest(content)
        state = ("cleared", "base", None, "", "", None, decision, 0, time, time, time)
        self._rows["images"].append((repository, found, *state))
        self._rows["decisions"].append((decision, repository, found, content, evidence, time))
        self._rows["clearances"].append((repository, found, ENVELOPE, None, time, time + _LONG))
        config, *layers = (digest(each) for _, _, each in made.reached)
        keys = (f"config:{config}", *(f"layer:{each}" for each in layers), f"chain:{digest(found.encode())}")
        self._rows["image_keys"] += [(repository, found, key) for key in keys]
        for each, (_, _, layer) in zip(layers, made.reached[1:], strict=True):
            if self._is_new("layer", each, shared=layer in SHARED):
                self._rows["layers"].append((each, 1, each, len(layer), "none", time))
        self._rows["jobs"].append(("judge", f"{repository}@{found}", 0, 1, time + _LONG, 0, "", None, "", time, "", ""))

    def _tag(self, repository: str, name: str, made: Made) -> None:
        found, time = made.digest, self._time
        self._rows["tags"].append((repository, name, found, time, self.by, found, time, 1, ENVELOPE))

    # ---- writing ----------------------------------------------------------------------------------------------------

    @property
    def _time(self) -> int:
        return int(self.pushed.timestamp())

    def _is_new(self, where: str, what: str, *, shared: bool) -> bool:
        """What is one number's alone comes once, and need not be remembered."""
        if not shared:
            return True
        if (where, what) in self._known:
            return False
        self._known.add((where, what))
        return True

    def _file(self, found: str, content: bytes) -> None:
        assert self.store is not None
        path = self.store / blob_key(Digest.parse(found))
        try:
            path.write_bytes(content)
        except FileNotFoundError:
            path.parent.mkdir(parents=True)
            path.write_bytes(content)

    def _write(self) -> None:
        with self.catalogue.write(durable=False) as conn:
            for table in schema.metadata.sorted_tables:
                rows = self._rows.pop(table.name, [])
                if rows:
                    # A number that counts up by itself is not among the values.
                    columns = [column.name for column in table.columns][-len(rows[0]) :]
                    put(conn, table.name, columns, rows)


def put(conn: Connection, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Insert rows of raw values, as fast as the database can."""
    names = ", ".join(f'"{name}"' for name in columns)
    driver: Any = conn.connection.dbapi_connection
    if conn.dialect.name == "sqlite":
        marks = ", ".join("?" * len(columns))
        driver.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)  # noqa: S608 -- our own names
        return
    with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row([str(value) if type(value) is MediaType else value for value in row])


def tagged(size: int) -> int:
    """How many tags TAGGED has in a crowd of so many manifests."""
    return size // 2


def listed(size: int) -> int:
    """How many referrers there are in SUBJECT, and how many repositories in EACH."""
    return size // 4


def tag(number: int) -> str:
    """The tag of an image in TAGGED."""
    return f"v{number:06d}"


def repository(number: int) -> str:
    """The name of a repository of EACH."""
    return f"{EACH}/{number:06d}"


def _pieces(start: int, end: int) -> Iterator[range]:
    for at in range(start, end, _PIECE):
        yield range(at, min(at + _PIECE, end))
