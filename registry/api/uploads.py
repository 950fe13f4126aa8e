"""Pushing blobs: distribution specification 1.1, "Pushing blobs" (end-4 to end-6, end-11, end-13, end-14).

The digest-so-far is kept beside the session, so docker's POST, one PATCH and PUT hash and write a layer once.
A session belongs to the account and repository that began it; to everybody else it does not exist.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from flask import Blueprint, Response, request
from sqlalchemy import Connection

from ocispec.digest import HEX_LENGTH, Digest
from registry.access import Right
from registry.api.base import digest_of, empty_response, repository_name, require_right
from registry.api.blobs import location
from registry.api.body import Body, announced
from registry.catalogue.blobs import add_blob, mount_blob
from registry.catalogue.leases import Lease, renew_lease
from registry.catalogue.scope import readable_with
from registry.catalogue.uploads import (
    add_upload,
    check_sessions,
    find_upload,
    forget_upload,
    hold_upload,
    release_upload,
    renew_upload,
)
from registry.context import caller, context
from registry.errors import (
    BlobMismatchError,
    DigestInvalidError,
    LeaseLostError,
    QuotaError,
    RegistryError,
    SizeInvalidError,
    UploadOrderError,
    UploadUnknownError,
)
from registry.quotas import Room
from registry.quotas import room as room_under_quotas
from registry.store.interface import Upload

blueprint = Blueprint("uploads", __name__)

_CONTENT_RANGE: Final = re.compile(r"(?:bytes )?(\d{1,18})-(\d{1,18})(?:/(?:\*|\d{1,18}))?", re.ASCII)

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


@blueprint.post("/v2/<path:name>/blobs/uploads/", strict_slashes=False)
def begin_upload(name: str) -> Response:
    """Mount a blob, take a whole one, or begin a session."""
    repository = repository_name(name)
    require_right(Right.CREATE, repository)
    mounted = request.args.get("mount")
    if mounted is not None and _mount(repository, digest_of(mounted)):
        return _created(repository, digest_of(mounted))
    digest = request.args.get("digest")
    if digest is not None:
        return _put_whole(repository, digest_of(digest))
    with context().catalogue.look() as conn:
        check_sessions(conn, caller().name, most=context().settings.limits.uploads_per_account)
        room_under_quotas(conn, repository, caller().name).check(1)
    algorithm = request.args.get("digest-algorithm")
    if algorithm is not None and algorithm not in HEX_LENGTH:
        known = " or ".join(HEX_LENGTH)
        raise DigestInvalidError(f"digest-algorithm: got {algorithm[:40]!r}, expected {known}")
    upload = context().store.begin()
    with context().catalogue.write(durable=False) as conn:
        add_upload(conn, upload, repository=repository, account=caller().name, now=context().clock())
    return _accepted(repository, upload, status=202)


@blueprint.get("/v2/<path:name>/blobs/uploads/<upload_id>")
def upload_status(name: str, upload_id: str) -> Response:
    """How far a session has come."""
    repository = repository_name(name)
    require_right(Right.CREATE, repository)
    with context().catalogue.read() as conn:
        upload = find_upload(conn, _session_id(upload_id), repository=repository, account=caller().name)
    return _accepted(repository, upload, status=204)


@blueprint.patch("/v2/<path:name>/blobs/uploads/<upload_id>")
def append_upload(name: str, upload_id: str) -> Response:
    """Take a chunk, or a stream of no announced length."""
    repository = repository_name(name)
    require_right(Right.CREATE, repository)
    with _held(repository, upload_id) as session:
        session.take_body()
    session.check()
    return _accepted(repository, session.upload, status=202)


@blueprint.put("/v2/<path:name>/blobs/uploads/<upload_id>")
def finish_upload(name: str, upload_id: str) -> Response:
    """Take a last chunk, if there is one, and make the session's bytes a blob."""
    repository = repository_name(name)
    require_right(Right.CREATE, repository)
    text = request.args.get("digest")
    if text is None:
        raise DigestInvalidError(f"upload {upload_id[:80]}: digest is missing from the query")
    digest = digest_of(text)
    with _held(repository, upload_id, digest) as session:
        session.take_body()
        session.check()
        size = session.commit(digest)
    context().judge.notify_upload_ended(session.upload.id, digest, size)
    return _created(repository, digest)


@blueprint.delete("/v2/<path:name>/blobs/uploads/<upload_id>")
def cancel_upload(name: str, upload_id: str) -> Response:
    """Drop a session."""
    repository = repository_name(name)
    require_right(Right.CREATE, repository)
    with _held(repository, upload_id) as session:
        session.cancel()
    context().judge.notify_upload_ended(session.upload.id, None)
    return empty_response(204)


class _Session:
    """A session while this request holds it: nobody else writes to it."""

    def __init__(self, repository: str, upload: Upload, holder: str) -> None:
        self._repository = repository
        self._holder = holder
        self._body: Body | None = None
        self.upload = upload
        self.lease: Lease | None = None
        self.over = False

    def take_body(self) -> None:
        """Append the request's body; what came of one that is cut off is kept.

        Raises:
            UploadOrderError: it does not continue where the session stands.
            QuotaError: it is more than there is room for.
        """
        length = _announced_length(self._repository, self.upload)
        if length == 0:
            return
        room = _room(self._repository)
        room.check(length or 1)
        if self.upload.size == 0:
            context().judge.notify_layer_upload(self.upload.id)
        limit = context().settings.limits.blob_bytes - self.upload.size
        with room.kept(limit), context().bodies.one(caller().name):
            self._body = Body(limit=room.least(limit), length=length, on_pause=self._renew)
            self.upload = context().store.append(self.upload, self._body)

    def check(self) -> None:
        """Say whether all of the body came.

        Raises:
            BodyCutOffError: it did not.
        """
        if self._body is not None:
            self._body.check()

    def commit(self, digest: Digest) -> int:
        """Make it a blob of the repository, and return its size."""
        try:
            size = context().store.commit(self.upload, digest)
        except (BlobMismatchError, UploadUnknownError):
            self._forget()
            raise

        def record(conn: Connection) -> None:
            by, now = caller().name, context().clock()
            add_blob(conn, self._repository, digest, size, by=by, now=now, lease=self.lease)
            forget_upload(conn, self.upload.id)

        try:
            context().catalogue.change(record)
        except (LeaseLostError, QuotaError):
            self._forget()
            raise
        self.over, self.lease = True, None
        return size

    def cancel(self) -> None:
        """Drop it."""
        context().store.cancel(self.upload.id)
        self._forget()

    def let_go(self) -> None:
        """Let go of it, and record how far it has come; of a lease, because nothing was stored under it."""
        if self.lease is not None:
            context().leases.end(self.lease)
        if not self.over:
            with context().catalogue.write(durable=False) as conn:
                release_upload(conn, self.upload, self._holder, now=context().clock())

    def _renew(self) -> None:
        with context().catalogue.write(durable=False) as conn:
            renew_upload(conn, self.upload.id, self._holder, now=context().clock())
            if self.lease is not None:
                renew_lease(conn, self.lease, until=context().leases.end_of(self.upload.size))

    def _forget(self) -> None:
        self.over = True
        with context().catalogue.write(durable=False) as conn:
            forget_upload(conn, self.upload.id)


@contextmanager
def _held(repository: str, upload_id: str, digest: Digest | None = None) -> Iterator[_Session]:
    """A session, and a lease on the `digest` that it is to become, in one transaction where nothing is in the way."""
    leases = context().leases
    with context().catalogue.write(durable=False) as conn:
        upload, holder = hold_upload(
            conn, _session_id(upload_id), repository=repository, account=caller().name, now=context().clock()
        )
        session = _Session(repository, upload, holder)
        if digest is not None:
            session.lease = leases.try_take(conn, digest, why="push", size=upload.size)
    try:
        if digest is not None and session.lease is None:
            session.lease = leases.take(digest, why="push", size=upload.size)
        yield session
    except BaseException:
        with suppress(RegistryError):  # what is on its way already says more
            session.let_go()
        raise
    session.let_go()


def _put_whole(repository: str, digest: Digest) -> Response:
    """The monolithic form: the whole blob in the POST."""
    leases, room, limit = context().leases, _room(repository), context().settings.limits.blob_bytes
    room.check(announced() or 1)
    with leases.held(digest, why="push", size=announced() or 0) as lease:
        with room.kept(limit), context().bodies.one(caller().name):
            body = Body(limit=room.least(limit), length=announced(), on_pause=lambda: leases.renew(lease))
            size = context().store.put(digest, body.to_the_end())
        by = caller().name
        context().catalogue.change(
            lambda conn: add_blob(conn, repository, digest, size, by=by, now=context().clock(), lease=lease)
        )
    return _created(repository, digest)


def _room(repository: str) -> Room:
    """What the quotas leave the caller to bring."""
    with context().catalogue.look() as conn:
        return room_under_quotas(conn, repository, caller().name)


def _mount(repository: str, digest: Digest) -> bool:
    """Take a blob from a repository that the caller may read; False in every other case, whatever the cause (R4)."""
    principal = caller()
    named = request.args.get("from")
    with context().catalogue.look() as conn:
        # One query either way, which asks the repositories that the caller may read and no other: how long it takes
        # says nothing about those that it may not.
        found = readable_with(conn, principal, digest, only=named)
    if found is None:
        return False
    # Looked at again: since the look before, it may have been taken out of there, and be on its way out.
    return context().catalogue.change(
        lambda conn: mount_blob(conn, [found], repository, digest, by=principal.name, now=context().clock())
    )


def _announced_length(repository: str, upload: Upload) -> int | None:
    """The length of the chunk that this request brings, None where it names none.

    Raises:
        UploadOrderError: its Content-Range does not continue where the session stands.
        SizeInvalidError: its two lengths differ.
    """
    text = request.headers.get("Content-Range")
    if text is None:
        return announced()
    match = _CONTENT_RANGE.fullmatch(text)
    if match is None or int(match[1]) != upload.size or int(match[2]) < int(match[1]):
        raise UploadOrderError(
            f"upload {upload.id}: chunk is {text[:60]!r}, expected one that starts at {upload.size}",
            size=upload.size,
            location=_session_path(repository, upload),
        )
    length = int(match[2]) - int(match[1]) + 1
    if announced() not in {None, length}:
        raise SizeInvalidError(f"upload {upload.id}: chunk of {length} bytes, sent with a length of {announced()}")
    return length


def _created(repository: str, digest: Digest) -> Response:
    headers = {"Location": location(repository, digest), "Docker-Content-Digest": str(digest)}
    return empty_response(201, headers)


def _accepted(repository: str, upload: Upload, *, status: int) -> Response:
    headers = {
        "Location": _session_path(repository, upload),
        "Range": f"0-{max(upload.size - 1, 0)}",
        "Docker-Upload-UUID": str(uuid.UUID(upload.id)),
    }
    return empty_response(status, headers)


def _session_path(repository: str, upload: Upload) -> str:
    """Where a session is; the specification wants a UUID in it."""
    return f"/v2/{repository}/blobs/uploads/{uuid.UUID(upload.id)}"


def _session_id(text: str) -> str:
    """The id of the session that a path names.

    Raises:
        UploadUnknownError: no session is named like that.
    """
    if _UUID.fullmatch(text) is None:
        raise UploadUnknownError(f"upload {text[:80]!r}: not known")
    return text.replace("-", "")
