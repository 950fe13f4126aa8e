"""Runs of the collector: asked for, and what each took away and why.

| endpoint | who |
| --- | --- |
| POST /api/v1/collections | admin |
| GET /api/v1/collections | admin, officer, auditor |
| GET /api/v1/collections/<id>?after=&limit= | as above |
"""

from __future__ import annotations

import json
from typing import Final

from flask import Blueprint, Response

from ocispec import fields
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue
from policy.times import format_time
from registry.access import Role
from registry.api.base import json_response
from registry.api.control.shared import json_body, number_argument, require_role
from registry.audit import Event
from registry.catalogue.collections import (
    WAITING_MOST,
    Collected,
    Collection,
    find_collection,
    list_collected,
    list_collections,
    waiting_collections,
)
from registry.context import caller, context, source
from registry.errors import NameUnknownError, TooManyRequestsError, UnsupportedRequestError
from registry.judge.collecting import enqueue_collection

blueprint = Blueprint("collections", __name__)

MAX_LISTED: Final = 1000
"""Things in one page."""

MAX_RUNS: Final = 100

_READERS: Final = (Role.ADMIN, Role.OFFICER, Role.AUDITOR)


@blueprint.post("/api/v1/collections")
def post_collection() -> Response:
    """Ask for a run that looks through everything, real or (`dryRun`) only told; it begins in a moment."""
    require_role(Role.ADMIN)
    dry_run = _dry_run(json_body())
    now, who = context().clock(), caller().name
    with context().catalogue.write() as conn:
        if waiting_collections(conn) >= WAITING_MOST:
            raise TooManyRequestsError(f"collections: {WAITING_MOST} wait already; to be asked for again later")
        run = enqueue_collection(conn, by=who, dry_run=dry_run, now=now)
        asked = "dry run asked for" if dry_run else "asked for"
        context().audit.append(
            conn, Event.COLLECT, principal=who, source=source(), subject=f"collection {run}", after=asked
        )
        found = find_collection(conn, run)
    context().judge.wake()
    response = json_response(_shown(found) if found is not None else {})
    response.status_code = 202
    response.headers["Location"] = f"/api/v1/collections/{run}"
    return response


@blueprint.get("/api/v1/collections")
def get_collections() -> Response:
    """The newest runs first, each with its report but without what it took away one by one."""
    require_role(*_READERS)
    limit = number_argument("limit", MAX_RUNS, MAX_RUNS)
    with context().catalogue.read() as conn:
        found: list[JsonValue] = [_shown(each) for each in list_collections(conn, limit)]
    return json_response({"collections": found})


@blueprint.get("/api/v1/collections/<run>")
def get_collection(run: str) -> Response:
    """One run, and a page of what it took away; `after` is the `next` of the page before, null on the last one."""
    require_role(*_READERS)
    after = number_argument("after", 0, 2**53 - 1)
    limit = number_argument("limit", 100, MAX_LISTED)
    with context().catalogue.read() as conn:
        found = find_collection(conn, run[:64])
        if found is None:
            raise NameUnknownError(f"collection {run[:32]!r}: not known")
        page = list_collected(conn, found.id, after=after, limit=limit + 1)
    things: list[JsonValue] = [_thing(number, thing) for number, thing in page[:limit]]
    following = page[limit - 1][0] if limit and len(page) > limit else None
    return json_response(_shown(found) | {"things": things, "next": following})


def _dry_run(members: dict[str, JsonValue]) -> bool:
    try:
        if unknown := members.keys() - {"dryRun"}:
            raise UnsupportedRequestError(f"collection: unknown member {min(unknown)[:80]!r}, expected dryRun")
        return fields.boolean(members, "dryRun", what="collection")
    except SpecError as error:
        raise UnsupportedRequestError(str(error)) from None


def _thing(number: int, thing: Collected) -> JsonValue:
    members: dict[str, JsonValue] = {
        "number": number,
        "reason": thing.reason,
        "subject": thing.subject,
        "bytes": thing.bytes,
    }
    return members | {"detail": thing.detail} if thing.detail else members


def _shown(found: Collection) -> dict[str, JsonValue]:
    return {
        "id": found.id,
        "state": str(found.state),
        "dryRun": found.dry_run,
        "requested": format_time(found.requested),
        "requestedBy": found.requested_by,
        "started": format_time(found.started) if found.started is not None else None,
        "ended": format_time(found.ended) if found.ended is not None else None,
        "attempts": found.attempts,
        "report": json.loads(found.report) if found.report else None,  # our own text
    }
