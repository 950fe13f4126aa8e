"""Manifests: distribution specification 1.1 and dev, pulling (end-3), pushing (end-7a, end-7b) and deleting (end-9).

By tag, a host is given what the tag serves and everybody else what was pushed to it; a tag of artifacts
(`sha256-<hex>`…) has one value, and its subject's state.
"""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, request
from sqlalchemy import Connection

from ocispec.digest import Digest
from ocispec.errors import LimitError, SpecError, UnsupportedError
from ocispec.manifest import MAX_MANIFEST, Index, Manifest, parse_manifest
from ocispec.reference import check_tag
from policy.model import State
from registry.access import Right, Role, is_protected_tag, tag_subject
from registry.api.base import empty_response, offer, reference_of, repository_name, require_push, require_right
from registry.api.body import whole_body
from registry.api.conditions import entity_tag, is_unchanged, require_condition
from registry.catalogue.blobs import enter_repository, hold_repository, manifest_using
from registry.catalogue.manifests import (
    Found,
    is_own,
    manifest_by_digest,
    manifest_by_tag,
    manifest_size,
)
from registry.catalogue.tags import find_tag, tags_at
from registry.context import caller, context, source
from registry.errors import (
    AddressTooLongError,
    DeniedError,
    DigestInvalidError,
    InUseError,
    ManifestInvalidError,
    ManifestUnknownError,
    TooLargeError,
    UnsupportedRequestError,
)
from registry.push import Push, Pushed, check_changeable, push_manifest
from registry.removing import Remover
from registry.visibility import as_quarantined, check_manifest, manifest_denied

blueprint = Blueprint("manifests", __name__)

MAX_TAGS: Final = 64
"""Tags that one push by digest may set (the specification asks for 10 at least)."""

WARN_CODE: Final = 299
"""Miscellaneous persistent warning (RFC 7234 section 5.5), the code that the specification gives clients to print."""

_ROUTE: Final = "/v2/<path:name>/manifests/<reference>"


@blueprint.get(_ROUTE)
def get_manifest(name: str, reference: str) -> Response:
    """Send a manifest; HEAD sends the headers alone."""
    repository, wanted = repository_name(name), reference_of(reference, pushing=False)
    principal = caller()
    _see_upstream(repository, wanted)
    with context().catalogue.look() as conn:
        found = _find(conn, repository, wanted)
        found = check_manifest(conn, context().artifacts, principal, repository, found, reference)
    context().proven.check(repository, found)
    headers = {"Docker-Content-Digest": str(found.digest), "ETag": entity_tag(found.digest)}
    if is_unchanged(found.digest, f"{repository}:{reference}"):
        return empty_response(304, headers)
    headers["Content-Length"] = str(len(found.content))
    read = (f"{repository}:{reference}", str(found.digest))
    # What is somebody else's can change there; an artifact that stands alone is a host's while a policy is believed.
    lone = found.alone and principal.role is Role.HOST
    if not lone and context().asking.mirrors.find(repository) is None:
        offer(*(read if request.method == "GET" else (None,)))
    if request.method == "HEAD":
        return Response(None, headers=headers, content_type=found.media_type)
    context().reads.note(principal=principal.name, source=source(), subject=read[0], after=read[1])
    return Response(found.content, headers=headers, content_type=found.media_type)


def _see_upstream(repository: str, wanted: Digest | str) -> None:
    """In a repository that is a copy of another registry's: have what is asked for fetched, for whoever may read it."""
    asking = context().asking
    if asking.mirrors and caller().in_scope(repository):
        with context().catalogue.look() as conn:
            there = _current(conn, repository, wanted) is not None
        asking.see_to(repository, wanted, there=there)


def _find(conn: Connection, repository: str, wanted: Digest | str) -> Found | None:
    if isinstance(wanted, Digest):
        return manifest_by_digest(conn, repository, wanted)
    if caller().role is not Role.HOST or tag_subject(wanted) is not None:
        return manifest_by_tag(conn, repository, wanted, served=False)
    served = manifest_by_tag(conn, repository, wanted, served=True)
    if served is not None:
        return served
    pushed = manifest_by_tag(conn, repository, wanted, served=False)
    if pushed is None or pushed.kind == "artifact" or not caller().in_scope(repository):
        return pushed
    what = f"{repository}:{wanted} serves nothing yet: {pushed.digest}"
    raise manifest_denied(conn, what, as_quarantined(pushed))


@blueprint.put(_ROUTE)
def put_manifest(name: str, reference: str) -> Response:
    """Take a manifest, wait a moment for the Decision on it, and say what it is."""
    repository, wanted = repository_name(name), reference_of(reference, pushing=True)
    require_push(repository)
    tags = _tags(wanted)
    parsed = _parsed_body(wanted)
    push = Push(
        repository=repository,
        parsed=parsed,
        tags=tags,
        principal=caller(),
        source=source(),
        now=context().clock(),
    )
    judge, settings = context().judge, context().settings

    def store(conn: Connection) -> Pushed:
        enter_repository(conn, repository, by=push.principal.name, now=push.now)
        require_condition(_current(conn, repository, wanted), f"{repository}:{reference}")
        pushed = push_manifest(conn, context().audit, push, referrers=settings.limits.referrers)
        if pushed.kind != "artifact":
            judge.enqueue_judgement(conn, repository, parsed.digest)
        return pushed

    pushed = context().catalogue.change(store)
    response = empty_response(201)
    response.headers["Location"] = f"/v2/{repository}/manifests/{parsed.digest}"
    response.headers["Docker-Content-Digest"] = str(parsed.digest)
    if isinstance(wanted, Digest) and tags:
        response.headers["OCI-Tag"] = ", ".join(tags)
    if parsed.subject is not None:
        response.headers["OCI-Subject"] = str(parsed.subject.digest)
    if pushed.kind != "artifact":
        judge.wake()
        warning = _warning(push, settings.judge.push_wait_ms / 1000)
        if warning:
            response.headers["Warning"] = warning
    return response


def _tags(wanted: Digest | str) -> tuple[str, ...]:
    """The tags that this push sets: the one in the path, or those of the query of a push by digest (end-7b).

    Raises:
        ManifestInvalidError: one can be no tag.
        AddressTooLongError: there are more than MAX_TAGS.
    """
    named = tuple(dict.fromkeys(request.args.getlist("tag")))
    if isinstance(wanted, str):
        if named:
            raise UnsupportedRequestError(f"tag {named[0][:128]!r}: expected in the query of a push by digest only")
        return (wanted,)
    if len(named) > MAX_TAGS:
        raise AddressTooLongError(f"tag: got {len(named)} tags, expected at most {MAX_TAGS}")
    try:
        return tuple(check_tag(tag) for tag in named)
    except SpecError as error:
        raise ManifestInvalidError(str(error)) from None


def _current(conn: Connection, repository: str, wanted: Digest | str) -> Digest | None:
    """What a push or deletion would change: the digest that the tag was pushed with, or the manifest's own."""
    if isinstance(wanted, str):
        tag = find_tag(conn, repository, wanted)
        return tag.pushed if tag is not None else None
    return wanted if manifest_size(conn, repository, wanted) is not None else None


def _parsed_body(wanted: Digest | str) -> Manifest | Index:
    """The request's body, parsed strictly from the bytes that are hashed and stored (R1, R11)."""
    algorithm = wanted.algorithm if isinstance(wanted, Digest) else "sha256"
    raw = whole_body(limit=MAX_MANIFEST)
    media_type = request.content_type.partition(";")[0].strip() if request.content_type else None
    try:
        parsed = parse_manifest(raw, media_type, algorithm=algorithm)
    except LimitError as error:
        raise TooLargeError(str(error)) from None
    except (UnsupportedError, SpecError) as error:
        raise ManifestInvalidError(str(error)) from None
    if isinstance(wanted, Digest) and wanted != parsed.digest:
        raise DigestInvalidError(f"manifest {wanted}: digest mismatch: got {parsed.digest}, want {wanted}")
    return parsed


def _warning(push: Push, seconds: float) -> str:
    """The Warning header of a push: state, first reason, and the command that explains it; "" for a cleared image."""
    digest = push.parsed.digest
    standing = context().judge.wait_for_decision(push.repository, digest, seconds)
    if standing is None or (standing.state is State.CLEARED and not standing.pending):
        return ""
    image = f"{context().settings.name}/{push.repository}"
    image += f":{push.tags[0]}" if push.tags else f"@{digest}"
    waiting = " (judgement is still going on)" if standing.pending else ""
    text = f"{standing.state}: {standing.reason}: {standing.message}{waiting} - pratique explain {image}"
    # A quoted-string (RFC 9110 section 5.6.4), in ASCII, since what stands in it can come from an image.
    plain = text.encode("ascii", "replace").decode().replace("\\", "/").replace('"', "'")
    return f'{WARN_CODE} - "{"".join(char if char.isprintable() else " " for char in plain)[:900]}"'


@blueprint.delete(_ROUTE)
def delete_manifest(name: str, reference: str) -> Response:
    """Delete a tag, or a manifest by digest with all tags that point to it."""
    repository, wanted = repository_name(name), reference_of(reference, pushing=False)
    require_right(Right.DELETE, repository)

    def delete(conn: Connection) -> None:
        hold_repository(conn, repository)
        require_condition(_current(conn, repository, wanted), f"{repository}:{reference}")
        if isinstance(wanted, Digest):
            _delete_manifest(conn, repository, wanted)
        elif is_protected_tag(wanted):
            raise DeniedError(f"tag {wanted}: only this registry's signer removes tags sha256-<hex>.<suffix>")
        else:
            there = find_tag(conn, repository, wanted)
            check_changeable(conn, repository, [there] if there is not None else [])
            _delete_tag(conn, repository, wanted)

    context().catalogue.change(delete)
    return empty_response(202)


def _delete_manifest(conn: Connection, repository: str, digest: Digest) -> None:
    """Delete a manifest with its tags, and with what the registry itself says of it."""
    if is_own(conn, repository, digest):
        raise DeniedError(f"manifest {digest}: only this registry's signer removes what it made")
    user = manifest_using(conn, repository, digest)
    if user is not None:
        raise InUseError(f"manifest {digest}: index {user} of {repository} needs it")
    check_changeable(conn, repository, tags_at(conn, repository, digest))
    if not _remover().manifest(conn, repository, digest):
        raise ManifestUnknownError(f"manifest {digest}: not known in {repository}")


def _delete_tag(conn: Connection, repository: str, tag: str) -> None:
    if _remover().tag(conn, repository, tag) is None:
        raise ManifestUnknownError(f"tag {tag}: not known in {repository}")


def _remover() -> Remover:
    return Remover(audit=context().audit, principal=caller().name, source=source(), now=context().clock())
