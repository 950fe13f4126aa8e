"""Advisory, exploit and end-of-life data: handed in as files, imported by the judge.

| endpoint | who |
| --- | --- |
| POST /api/v1/advisories?kind=osv|kev|endoflife|snapshot&name=&older= | scanner, admin; older=true: admin |
| GET /api/v1/advisories | scanner, officer, auditor, admin |

An upload replaces the one of the same kind and name before it; a snapshot (made by `pratique advisories import`)
replaces all that came before. A source whose newest record is older than it was is not imported, unless an admin says
`older=true`: whoever can take data back can make a known vulnerability unknown (L7).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Final

from flask import Blueprint, Response, request
from sqlalchemy import select

from ocispec.digest import Digest
from ocispec.strictjson import JsonValue
from policy.times import format_time
from registry.access import Role
from registry.api.base import json_response
from registry.api.body import Body, announced
from registry.api.control.shared import require_role
from registry.audit import Event
from registry.catalogue.advisories import LastImport, Upload, add_upload, forget_newest, last_import, snapshot_in_use
from registry.catalogue.schema import advisories
from registry.context import caller, context, source
from registry.errors import UnsupportedRequestError
from registry.judge.importing import KINDS
from registry.judge.jobs import JobKind, enqueue
from registry.store.interface import Upload as Session

blueprint = Blueprint("advisories", __name__)

MAX_UPLOAD: Final = 8 * 1024**3
"""Bytes of one upload: the export of every ecosystem has about 1 GB."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 :._+-]{0,99}", re.ASCII)


@blueprint.post("/api/v1/advisories")
def post_advisories() -> Response:
    """Take a file, and have it imported; the answer does not wait for that."""
    require_role(Role.SCANNER, Role.ADMIN)
    kind, name = request.args.get("kind", ""), request.args.get("name", "")
    if kind not in KINDS:
        raise UnsupportedRequestError(f"kind: got {kind[:40]!r}, expected one of {', '.join(KINDS)}")
    name, older = name or kind, request.args.get("older", "false")
    if older not in {"true", "false"}:
        raise UnsupportedRequestError(f"older: got {older[:40]!r}, expected true or false")
    if older == "true":
        require_role(Role.ADMIN)
    if _NAME.fullmatch(name) is None:
        raise UnsupportedRequestError(f"name: got {name[:80]!r}, expected letters, digits, blanks and :._+-")
    session, digest = _receive()
    with context().leases.held(digest, why="advisories", size=session.size) as lease:
        size = context().store.commit(session, digest)
        now, principal = context().clock(), caller()
        upload = Upload(digest=digest, kind=kind, name=name, size=size, by=principal.name, received=now)
        with context().catalogue.write() as conn:
            current = select(advisories.c.digest).where(
                advisories.c.current, advisories.c.kind == kind, advisories.c.name == name
            )
            before = conn.scalar(current)
            add_upload(conn, upload, lease=lease)
            if older == "true":
                forget_newest(conn, upload)
            context().audit.append(
                conn,
                Event.ADVISORIES,
                principal=principal.name,
                source=source(),
                subject=f"{kind} {name}",
                before=str(before or ""),
                after=f"{digest} of {size} bytes" + (", older or not" if older == "true" else ""),
            )
            enqueue(conn, JobKind.ADVISORIES, now=now)
    context().judge.wake()
    response = json_response({"digest": str(digest), "kind": kind, "name": name, "bytes": size})
    response.status_code = 202
    return response


def _receive() -> tuple[Session, Digest]:
    """Put the body into the store as a session, which is to become a blob of that digest."""
    store, running = context().store, hashlib.sha256()

    def hashed(chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            running.update(chunk)
            yield chunk

    upload = store.begin()
    try:
        body = Body(limit=MAX_UPLOAD, length=announced())
        upload = store.append(upload, hashed(body.to_the_end()))
        return upload, Digest("sha256", running.hexdigest())
    except BaseException:
        store.cancel(upload.id)
        raise


@blueprint.get("/api/v1/advisories")
def get_advisories() -> Response:
    """What is in use: names, dates, counts, digests."""
    require_role(Role.SCANNER, Role.OFFICER, Role.AUDITOR, Role.ADMIN)
    with context().catalogue.read() as conn:
        rows = conn.execute(select(advisories).where(advisories.c.current).order_by(advisories.c.name)).all()
        snapshot, ended = snapshot_in_use(conn), last_import(conn)
    sources: list[JsonValue] = [
        {
            "kind": row.kind,
            "name": row.name,
            "digest": str(row.digest),
            "date": format_time(row.date),
            "records": row.records,
            "received": format_time(row.imported),
            "by": row.imported_by,
        }
        for row in rows
    ]
    return json_response({"sources": sources, "snapshot": str(snapshot) if snapshot else None, "import": _told(ended)})


def _told(ended: LastImport | None) -> JsonValue:
    """How the newest import ended: data that could not be used are the business of whoever handed them in."""
    if ended is None:
        return None
    return {"state": ended.state, "at": format_time(ended.at), "detail": ended.detail}
