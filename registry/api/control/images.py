"""Images: their states, decisions, evidence, reports, and tags.

| endpoint | who |
| --- | --- |
| GET /api/v1/images | each sees what it may know of (`states.may_read`); an admin all, without content |
| GET /api/v1/images/<digest>/<repository> | as above |
| GET /api/v1/decisions/<digest>/<repository> | as above |
| GET /api/v1/status/<repository>?reference=&wait= | as above |
| GET /api/v1/tags/<tag>/<repository> | as above; hosts are told what is served |
| GET /api/v1/reports/<manifest> | scanner, officer, auditor; a pusher for its own repositories |
| GET /api/v1/evidence/<digest> | scanner, officer, auditor; of images that they may read |
"""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, request
from sqlalchemy import Connection, Row, select, tuple_

from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.reference import check_tag
from ocispec.strictjson import JsonValue, parse_object
from policy import codec
from policy.explain import explain
from policy.model import State
from policy.times import format_time
from registry.access import Role
from registry.api.base import digest_of, json_response, page_size, repository_name
from registry.api.control.shared import as_json, digest_text, number_argument, require_role
from registry.assemble import MAX_JSON
from registry.catalogue import schema
from registry.catalogue.scope import in_scope
from registry.catalogue.tags import find_tag, tags_at
from registry.context import caller, context
from registry.errors import ManifestUnknownError, NameUnknownError, UnsupportedRequestError
from registry.judge.derived import evidence_key, report_key
from registry.judge.jobs import JobKind, is_due, subject_of
from registry.served import values
from registry.states import Sight, may_read

blueprint = Blueprint("images", __name__)

MAX_WAIT: Final = 30
_READERS: Final = (Role.SCANNER, Role.OFFICER, Role.AUDITOR)
_IMAGES = schema.images.c


@blueprint.get("/api/v1/images")
def list_images() -> Response:
    """Images and indexes by repository and digest, a page at a time; `page` is the `next` of the page before."""
    state, repository, after = (request.args.get(name, "") for name in ("state", "repository", "page"))
    limit = page_size()
    query = select(schema.images).order_by(_IMAGES.repository, _IMAGES.digest)
    if state:
        query = query.where(_IMAGES.state == str(_state(state)))
    if repository:
        query = query.where(_IMAGES.repository == repository_name(repository))
    if after:
        name, _, digest = after.rpartition("@")
        query = query.where(tuple_(_IMAGES.repository, _IMAGES.digest) > (repository_name(name), digest_of(digest)))
    if caller().role is not Role.ADMIN:
        query = query.where(in_scope(caller(), _IMAGES.repository))
    with context().catalogue.read() as conn:
        # Not all that there is: some drivers hand over at once whatever is found.
        rows = conn.execute(query.limit(limit + 1)).all()
    page = rows[:limit]
    found: list[JsonValue] = [_short(row) for row in page if _may_know(row)]
    following = f"{page[-1].repository}@{page[-1].digest}" if page and len(rows) > limit else None
    return json_response({"images": found, "next": following})


@blueprint.get("/api/v1/images/<digest>/<path:repository>")
def get_image(digest: str, repository: str) -> Response:
    """All that is known of one image."""
    name, wanted = repository_name(repository), digest_of(digest)
    with context().catalogue.read() as conn:
        row = _known(conn, name, wanted)
        clearance = conn.execute(
            select(schema.clearances).where(
                schema.clearances.c.repository == name, schema.clearances.c.digest == wanted
            )
        ).first()
        tags = tags_at(conn, name, wanted)
        tree = explanation(conn, row)
        pending = is_due(conn, JobKind.JUDGE, subject_of(name, wanted), now=context().clock())
    named: list[JsonValue] = [
        {"tag": tag.name, "pushed": tag.pushed == wanted, "served": tag.served == wanted} for tag in tags
    ]
    members = _short(row) | {
        "pending": pending,
        "explain": tree,
        "tags": named,
        "clearance": {
            "issued": format_time(clearance.issued),
            "expires": format_time(clearance.expires),
            "envelope": as_json(clearance.envelope),
        }
        if clearance is not None
        else None,
        "summary": _summary(wanted),
    }
    return json_response(members)


@blueprint.get("/api/v1/decisions/<digest>/<path:repository>")
def get_decision(digest: str, repository: str) -> Response:
    """The Decision that an image's state rests on, whole."""
    name, wanted = repository_name(repository), digest_of(digest)
    with context().catalogue.read() as conn:
        row = _known(conn, name, wanted)
        content = conn.scalar(select(schema.decisions.c.content).where(schema.decisions.c.digest == row.decision))
    if content is None:
        raise ManifestUnknownError(f"{name}@{wanted}: no Decision was taken ({row.reason}: {row.message})")
    return Response(content, content_type="application/json")


@blueprint.get("/api/v1/evidence/<digest>")
def get_evidence(digest: str) -> Response:
    """The evidence that a Decision or clearance names, for `pratique audit recompute`."""
    require_role(*_READERS)
    wanted = digest_of(digest)
    with context().catalogue.read() as conn:
        of = conn.scalars(select(schema.decisions.c.repository).where(schema.decisions.c.evidence == wanted)).all()
    # Whose Decision was removed since belongs to no repository that could be told: for those who read all of them.
    known = any(map(caller().in_scope, of)) if of else caller().reads_everywhere
    content = context().store.get_derived(evidence_key(wanted)) if known else None
    if content is None or Digest.of(content) != wanted:
        raise NameUnknownError(f"evidence {wanted}: not known")
    return Response(content, content_type="application/json")


@blueprint.get("/api/v1/reports/<digest>")
def get_report(digest: str) -> Response:
    """The newest scan report on a manifest: inventory, findings, what could not be told."""
    require_role(*_READERS, Role.PUSHER)
    wanted = digest_of(digest)
    with context().catalogue.read() as conn:
        rows = conn.execute(select(schema.images).where(_IMAGES.digest == wanted)).all()
    content = context().store.get_derived(report_key(wanted)) if any(map(_may_know, rows)) else None
    if content is None:
        raise NameUnknownError(f"report on {wanted}: not known")
    return Response(content, content_type="application/json")


@blueprint.get("/api/v1/status/<path:repository>")
def get_status(repository: str) -> Response:
    """The state of a tag's or digest's image, waiting for a judgement that is due for at most `wait` seconds."""
    name = repository_name(repository)
    wait = number_argument("wait", 0, MAX_WAIT)
    digest = _referenced(name, request.args.get("reference", "latest"))
    with context().catalogue.read() as conn:
        _known(conn, name, digest)
    standing = context().judge.wait_for_decision(name, digest, wait)
    with context().catalogue.read() as conn:
        row = _known(conn, name, digest)
        tree = explanation(conn, row)
    pending = standing.pending if standing is not None else False
    return json_response(_short(row) | {"pending": pending, "explain": tree})


@blueprint.get("/api/v1/tags/<tag>/<path:repository>")
def get_tag(tag: str, repository: str) -> Response:
    """What a tag says: pushed, served, and the signed statement of it; a host is not told what was pushed."""
    name = repository_name(repository)
    principal = caller()
    sight = may_read(principal.role, State.CLEARED, in_scope=principal.in_scope(name))
    with context().catalogue.read() as conn:
        found = values(conn, name, _tag(tag)) if sight is Sight.READ else None
    if found is None:
        raise ManifestUnknownError(f"tag {tag[:128]}: not known in {name}")
    host = principal.role is Role.HOST
    return json_response(
        {
            "pushed": None if host else digest_text(found.pushed),
            "served": digest_text(found.served),
            "statement": as_json(found.statement),
            "reason": found.reason or ("" if host else found.waiting),
        }
    )


def explanation(conn: Connection, row: Row[tuple[object, ...]]) -> JsonValue:
    """Why an image is in its state, as a tree: its Decision's, or the one obstacle that kept one from being taken."""
    content = conn.scalar(select(schema.decisions.c.content).where(schema.decisions.c.digest == row.decision))
    if content is None:
        return {"image": str(row.digest), "state": row.state, "reason": row.reason, "message": row.message}
    return explain(codec.decode_decision(content))


def _known(conn: Connection, repository: str, digest: Digest) -> Row[tuple[object, ...]]:
    row = conn.execute(select(schema.images).where(_IMAGES.repository == repository, _IMAGES.digest == digest)).first()
    if row is None or not _may_know(row):
        raise ManifestUnknownError(f"image {repository}@{digest}: not known")
    return row


def _may_know(row: Row[tuple[object, ...]]) -> bool:
    """A host is told why it does not get an image, so it may know of it; an admin may know of all."""
    principal = caller()
    if principal.role is Role.ADMIN:
        return True
    sight = may_read(principal.role, State(row.state), in_scope=principal.in_scope(row.repository))
    return sight is not Sight.HIDDEN


def _referenced(repository: str, reference: str) -> Digest:
    if ":" in reference:
        return digest_of(reference)
    with context().catalogue.read() as conn:
        tag = find_tag(conn, repository, _tag(reference))
    wanted = (tag.served if caller().role is Role.HOST else tag.pushed) if tag is not None else None
    if wanted is None:
        raise ManifestUnknownError(f"tag {reference[:128]}: not known in {repository}")
    return wanted


def _tag(text: str) -> str:
    try:
        return check_tag(text)
    except SpecError as error:
        raise ManifestUnknownError(str(error)) from None


def _state(text: str) -> State:
    try:
        return State(text)
    except ValueError:
        raise UnsupportedRequestError(f"state: got {text[:40]!r}, expected one of {', '.join(State)}") from None


def _short(row: Row[tuple[object, ...]]) -> dict[str, JsonValue]:
    return {
        "repository": row.repository,
        "digest": str(row.digest),
        "state": row.state,
        "level": row.level,
        "parent": digest_text(row.parent),
        "reason": row.reason,
        "message": row.message,
        "until": format_time(row.until) if row.until is not None else None,
        "decision": digest_text(row.decision),
        "firstSeen": format_time(row.first_seen),
        "changed": format_time(row.changed),
        "judged": format_time(row.judged) if row.judged is not None else None,
    }


def _summary(manifest: Digest) -> JsonValue:
    """Counts of the newest report, None where there is none."""
    content = context().store.get_derived(report_key(manifest))
    if content is None:
        return None
    report = parse_object(content, what="report", max_bytes=MAX_JSON)
    inventory = report.get("inventory")
    components = inventory.get("components") if isinstance(inventory, dict) else None
    by_type: dict[str, int] = {}
    for component in components if isinstance(components, list) else ():
        kind = component.get("type") if isinstance(component, dict) else None
        by_type[str(kind)] = by_type.get(str(kind), 0) + 1
    counts: dict[str, JsonValue] = {}
    for name in ("findings", "unknowns"):
        items = report.get(name)
        counts[name] = len(items) if isinstance(items, list) else 0
    return {"components": dict(by_type), **counts}
