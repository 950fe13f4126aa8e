"""What the web asks of the judge: judge this, follow this upload, tell me what came of it.

Requests are rows of the catalogue (`jobs.py`), written in the transaction of the push itself; the datagram
that follows only wakes the judge. A datagram that is lost costs a second at most: the judge also looks by itself.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, select

from ocispec import fields
from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.strictjson import parse_object
from policy import canonical
from policy.model import State
from registry.catalogue import schema
from registry.catalogue.database import Catalogue
from registry.judge.jobs import JobKind, Priority, enqueue, is_due, subject_of
from registry.sockets import connect
from registry.store.keys import check_upload_id

MAX_DATAGRAM: Final = 4096
_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known of an image now; `pending` while a judgement is due."""

    state: State
    reason: str
    message: str
    decision: Digest | None
    judged: datetime | None
    pending: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """There is something in the queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadGrows:
    """The bytes of an upload arrive; where, the judge's own store knows."""

    upload: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadEnded:
    """An upload became the blob `digest` of `size` bytes, or nothing (None)."""

    upload: str
    digest: Digest | None
    size: int


Notice = Wake | UploadGrows | UploadEnded


class JudgeQueue:
    """The judge as others see it; safe for many threads. `socket_path` is where it listens."""

    def __init__(self, catalogue: Catalogue, socket_path: Path, clock: Callable[[], datetime]) -> None:
        """Nothing is opened before the first notice."""
        self._catalogue, self._path, self._clock = catalogue, socket_path, clock

    def enqueue_judgement(self, conn: Connection, repository: str, digest: Digest) -> None:
        """Have an image or index judged, in the caller's writing transaction; call `wake` after it."""
        enqueue(conn, JobKind.JUDGE, subject_of(repository, digest), now=self._clock(), priority=Priority.PUSH)

    def wake(self) -> None:
        """Tell the judge that the queue is not empty."""
        self._send({})

    def notify_layer_upload(self, upload_id: str) -> None:
        """The first bytes of an upload, which may be a layer, have arrived; the judge may read it while it grows."""
        self._send({"upload": upload_id})

    def notify_upload_ended(self, upload_id: str, digest: Digest | None, size: int = 0) -> None:
        """The upload is a blob now, or (None) was dropped."""
        members: dict[str, canonical.Canonical] = {"ended": upload_id, "size": size}
        if digest is not None:
            members["digest"] = str(digest)
        self._send(members)

    def wait_for_decision(self, repository: str, digest: Digest, timeout: float) -> Standing | None:
        """What is known of an image once no judgement of it is due, at the latest after `timeout` seconds.

        None if there is no such image.
        """
        ends = time.monotonic() + timeout
        pause = _FIRST_PAUSE
        while True:
            with self._catalogue.read() as conn:
                standing = standing_of(conn, repository, digest, now=self._clock())
            left = ends - time.monotonic()
            if standing is None or not standing.pending or left <= 0:
                return standing
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _send(self, members: dict[str, canonical.Canonical]) -> None:
        try:
            with connect(self._path, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.send(canonical.encode(members))
        except OSError:
            # Not there, or busy: it will look by itself, and read the layer from the store.
            return


def standing_of(conn: Connection, repository: str, digest: Digest, *, now: datetime) -> Standing | None:
    """What the catalogue says of an image, or None if it is not there."""
    table = schema.images
    row = conn.execute(select(table).where(table.c.repository == repository, table.c.digest == digest)).first()
    if row is None:
        return None
    return Standing(
        state=State(row.state),
        reason=row.reason,
        message=row.message,
        decision=row.decision,
        judged=row.judged,
        pending=is_due(conn, JobKind.JUDGE, subject_of(repository, digest), now=now),
    )


def parse_notice(raw: bytes) -> Notice:
    """The notice in a datagram.

    Raises:
        SpecError, UploadUnknownError: it is none.
    """
    members = parse_object(raw, what="notice", max_bytes=MAX_DATAGRAM)
    if "upload" in members:
        return UploadGrows(upload=check_upload_id(fields.text(members, "upload", what="notice")))
    if "ended" in members:
        digest = fields.text(members, "digest", what="notice", default="")
        return UploadEnded(
            upload=check_upload_id(fields.text(members, "ended", what="notice")),
            digest=Digest.parse(digest) if digest else None,
            size=fields.integer(members, "size", what="notice"),
        )
    if members:
        raise SpecError("notice: expected upload, ended, or nothing")
    return Wake()
