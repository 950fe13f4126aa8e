"""What hosts run, by their own word: retention never takes it away, and officers ask what runs where.

| endpoint | who |
| --- | --- |
| PUT /api/v1/running | host, for itself |
| GET /api/v1/running?digest=&host=&repository=&limit= | admin, officer, auditor |

A report takes the place of the host's last one, and counts for `collect.running`. It is not in the audit: it changes
nothing but what stays.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from flask import Blueprint, Response, request

from ocispec import fields
from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.fields import JsonObject
from ocispec.reference import check_repository
from ocispec.strictjson import JsonValue
from policy.times import format_time
from registry.access import Role
from registry.api.base import digest_of, json_response
from registry.api.control.shared import json_body, number_argument, require_role
from registry.catalogue.running import Image, hosts_running, report_running
from registry.context import caller, context
from registry.errors import DeniedError, UnsupportedRequestError

blueprint = Blueprint("running", __name__)

MAX_RUNNING: Final = 5000
"""Images that one host may run."""

MAX_BODY: Final = 2 * 1024 * 1024
MAX_SEEN: Final = 1000


@blueprint.put("/api/v1/running")
def put_running() -> Response:
    """Take what the calling host runs right now, in place of what it said before."""
    require_role(Role.HOST)
    images = _images(json_body(MAX_BODY))
    for repository, _ in images:
        if not caller().in_scope(repository):
            raise DeniedError(f"{caller().name} may not read in {repository}, and does not say what stays there")
    context().catalogue.change(lambda conn: report_running(conn, caller().name, images, now=context().clock()))
    return Response(status=204)


@blueprint.get("/api/v1/running")
def get_running() -> Response:
    """The hosts that run a digest by a report that counts; a page is after the last one's host and repository."""
    require_role(Role.ADMIN, Role.OFFICER, Role.AUDITOR)
    wanted = digest_of(request.args.get("digest", ""))
    since = context().clock() - timedelta(seconds=context().settings.collect.running)
    after = (request.args.get("host", "")[:255], request.args.get("repository", "")[:255])
    limit = number_argument("limit", 100, MAX_SEEN)
    with context().catalogue.read() as conn:
        seen = hosts_running(conn, digest=wanted, since=since, after=after, limit=limit)
    found: list[JsonValue] = [
        {
            "host": each.host,
            "repository": each.repository,
            "digest": str(each.digest),
            "reported": format_time(each.reported),
        }
        for each in seen
    ]
    return json_response({"running": found})


def _images(members: dict[str, JsonValue]) -> list[Image]:
    what = "running"
    try:
        if members.keys() != {"images"}:
            raise UnsupportedRequestError(f"{what}: expected images alone")
        given = fields.items(members, "images", what=what, limit=MAX_RUNNING)
        return list(dict.fromkeys(_image(each) for each in given))
    except SpecError as error:
        raise UnsupportedRequestError(str(error)) from None


def _image(given: JsonValue) -> Image:
    if not isinstance(given, dict) or given.keys() != {"repository", "digest"}:
        raise SpecError("running: images: expected objects of repository and digest")
    members: JsonObject = given
    repository = check_repository(fields.text(members, "repository", what="running"))
    return repository, Digest.parse(fields.text(members, "digest", what="running"))
