"""Blobs: distribution specification 1.1, "Pulling blobs" (end-2) and "Deleting Blobs" (end-10)."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from flask import Blueprint, Response, request
from sqlalchemy import Connection

from ocispec.digest import Digest
from registry.access import Right
from registry.api.base import digest_of, empty_response, offer, repository_name, require_right
from registry.api.conditions import entity_tag, is_range_valid, is_unchanged
from registry.audit import Event
from registry.catalogue.blobs import hold_repository, is_firm, manifest_using, remove_blob, touch_blob
from registry.context import caller, context, source
from registry.errors import BlobUnknownError, InUseError, RangeInvalidError, StorageError
from registry.limits import Shares
from registry.telemetry.environ import COPIES
from registry.visibility import check_blob

if TYPE_CHECKING:
    import io

blueprint = Blueprint("blobs", __name__)

_log = logging.getLogger("pratique.registry")

CHUNK: Final = 1024 * 1024
SMALL_CHUNK: Final = 64 * 1024
"""Bytes of a blob that are sent at a time, at most and at least; the server keeps some for who reads slowly."""

CHUNKS: Final = 8 * CHUNK
"""Bytes of the chunks of all blobs that are being sent, while there are not too many for SMALL_CHUNK."""

LONG: Final = 4 * 1024 * 1024
"""Bytes from which on sending them takes so long that where it is done is worth a thought."""

_MEDIA_TYPE: Final = "application/octet-stream"

_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII | re.IGNORECASE)


@blueprint.get("/v2/<path:name>/blobs/<digest>")
def get_blob(name: str, digest: str) -> Response:
    """Send a blob, or the part that the Range header asks for, or say where it is; HEAD sends the headers alone."""
    repository, wanted = repository_name(name), digest_of(digest)
    principal = caller()
    with context().catalogue.look() as conn:
        size, settled = check_blob(conn, context().artifacts, principal, repository, wanted)
    headers = {
        "Docker-Content-Digest": str(wanted),
        "Accept-Ranges": "bytes",
        "ETag": entity_tag(wanted),
        "Cache-Control": "private, max-age=31536000, immutable",
    }
    if is_unchanged(wanted, f"{repository}@{wanted}"):
        return empty_response(304, headers)
    if request.method == "GET" and (address := context().store.redirect(wanted)) is not None:
        return _redirected(repository, wanted, address)
    # HEAD is answered without a Range header's part (section 14.2), and so is a part of another content.
    ranged = request.method == "GET" and is_range_valid(wanted)
    start, length, status = _asked_range(size) if ranged else (0, size, 200)
    headers["Content-Length"] = str(length)
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{size}"
    if request.method == "HEAD":
        _promise(repository, wanted)
        if settled:
            # A promise is of half the grace: given again, it may be of so much less.
            offer(None, seconds=context().settings.collect.grace / 16)
        return Response(None, status=status, headers=headers, content_type=_MEDIA_TYPE)
    over = _begun(principal.name, length)
    try:
        stream = context().store.open(wanted, start=start, length=None if status == 200 else length)
        read = (f"{repository}@{wanted}", "blob")
        context().reads.note(principal=principal.name, source=source(), subject=read[0], after=read[1])
        if settled:
            offer(*read)
        again = request.environ.get(COPIES, False)
        body = _sent(stream, length, wanted, context().downloads, again=again)
        answer = Response(body, status=status, headers=headers, content_type=_MEDIA_TYPE)
    except BaseException:
        over()
        raise
    answer.call_on_close(over)
    return answer


def _begun(account: str, length: int) -> Callable[[], None]:
    """One more blob is being sent; what is returned says that it is over, once or more often.

    Raises:
        TooManyRequestsError: as many are sent as may be.
    """
    over = context().downloads.begin(account)
    if length < LONG:
        return over
    ended = context().placement.spread()

    def both() -> None:
        over()
        ended()

    return both


def _redirected(repository: str, digest: Digest, address: str) -> Response:
    """Send who may read a blob to where it is: that address is the permission, so nobody keeps it."""
    after = "blob, by redirect"
    context().reads.note(principal=caller().name, source=source(), subject=f"{repository}@{digest}", after=after)
    headers = {"Location": address, "Docker-Content-Digest": str(digest), "Cache-Control": "no-store"}
    return empty_response(307, headers)


def _promise(repository: str, digest: Digest) -> None:
    """Have a blob that a pusher was told of stay for a while: it will not send it, since it is there.

    Raises:
        BlobUnknownError: it has just left.
    """
    if not caller().may(Right.CREATE, repository):
        return
    now = context().clock()
    since = now - timedelta(seconds=context().settings.collect.grace / 2)
    with context().catalogue.look() as conn:
        if is_firm(conn, repository, digest, since=since):
            return
    with context().catalogue.write(durable=False) as conn:
        if not touch_blob(conn, repository, digest, now=now):
            raise BlobUnknownError(f"blob {digest}: not known in {repository}")


@blueprint.delete("/v2/<path:name>/blobs/<digest>")
def delete_blob(name: str, digest: str) -> Response:
    """Take a blob out of a repository, unless a manifest there needs it."""
    repository, wanted = repository_name(name), digest_of(digest)
    require_right(Right.DELETE, repository)
    principal = caller()

    def delete(conn: Connection) -> None:
        hold_repository(conn, repository)
        user = manifest_using(conn, repository, wanted)
        if user is not None:
            raise InUseError(f"blob {wanted}: manifest {user} of {repository} needs it")
        if not remove_blob(conn, repository, wanted):
            raise BlobUnknownError(f"blob {wanted}: not known in {repository}")
        context().audit.append(
            conn,
            Event.DELETE,
            principal=principal.name,
            source=source(),
            subject=f"{repository}@{wanted}",
            before="blob",
        )

    context().catalogue.change(delete)
    return empty_response(202)


def _asked_range(size: int) -> tuple[int, int, int]:
    """Start, length and status for the Range header (RFC 9110 section 14.2); one range, or all of it."""
    text = request.headers.get("Range")
    match = _RANGE.fullmatch(text) if text else None
    if match is None or match[0] == "bytes=-":
        return 0, size, 200
    # One that ends before it begins may be ignored or refused (section 14.2); sending all of it would serve nobody.
    first, last = match[1], match[2]
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last), size - 1) if first and last else size - 1
    if start >= size or end < start:
        raise RangeInvalidError(f"range {text!r}: the blob has {size} bytes", size=size)
    return start, end - start + 1, 206


def _sent(stream: BinaryIO, length: int, digest: Digest, downloads: Shares, *, again: bool) -> Iterator[bytes]:
    """The bytes of a blob that were promised; with `again`, in the same buffer each time that it is full.

    What is read anew into memory that is in the processor's cache costs half of what new memory does.

    Raises:
        StorageError: there are fewer. The server breaks the connection off, so that nobody waits for the rest.
    """
    sent = 0
    readinto = cast("io.RawIOBase", stream).readinto
    buffer = bytearray(min(_share(downloads), max(length, 1)))
    with stream:
        while count := readinto(buffer):
            sent += count
            yield cast("bytes", buffer) if again and count == len(buffer) else bytes(memoryview(buffer)[:count])
            if len(buffer) > (share := _share(downloads)):
                buffer = bytearray(share)
    if sent != length:
        message = f"blob {digest}: got {sent} bytes from the store, expected {length}"
        _log.error("%s", message)  # behind the headers no handler of the application sees it
        raise StorageError(message)


def _share(downloads: Shares) -> int:
    """Bytes that one blob of those that are being sent may have in a chunk now."""
    return min(max(CHUNKS // max(downloads.count(), 1), SMALL_CHUNK), CHUNK)


def location(repository: str, digest: Digest) -> str:
    """Where a blob is, as a Location header says it."""
    return f"/v2/{repository}/blobs/{digest}"
