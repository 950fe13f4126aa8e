"""Manifests: distribution specification 1.1, pulling (end-3), pushing (end-7) and deleting (end-9).

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
from policy.model import State
from registry.access import Right, Role, is_protected_tag, tag_subject
from registry.api.base import empty_response, reference_of, repository_name, require_right
from registry.api.body import whole_body
from registry.audit import Event
from registry.catalogue.blobs import manifest_using
from registry.catalogue.manifests import (
    Found,
    is_own,
    manifest_by_digest,
    manifest_by_tag,
    own_artifacts,
    remove_manifest,
)
from registry.catalogue.tags import remove_tag, stop_serving, tags_of
from registry.context import caller, context, source
from registry.errors import (
    DeniedError,
    DigestInvalidError,
    InUseError,
    ManifestInvalidError,
    ManifestUnknownError,
    TooLargeError,
)
from registry.push import Push, push_manifest
from registry.visibility import as_quarantined, check_manifest, manifest_denied

blueprint = Blueprint("manifests", __name__)

WARN_CODE: Final = 299
"""Miscellaneous persistent warning (RFC 7234 section 5.5), the code that the specification gives clients to print."""

_ROUTE: Final = "/v2/<path:name>/manifests/<reference>"


@blueprint.get(_ROUTE)
def get_manifest(name: str, reference: str) -> Response:
    """Send a manifest; HEAD sends the headers alone."""
    repository, wanted = repository_name(name), reference_of(reference, pushing=False)
    principal = caller()
    with context().catalogue.look() as conn:
        found = _find(conn, repository, wanted)
        found = check_manifest(conn, context().artifacts, principal, repository, found, reference)
    context().proven.check(repository, found)
    headers = {
        "Content-Length": str(len(found.content)),
        "Docker-Content-Digest": str(found.digest),
        "ETag": f'"{found.digest}"',
    }
    if request.method == "HEAD":
        return Response(None, headers=headers, content_type=found.media_type)
    context().reads.note(
        principal=principal.name, source=source(), subject=f"{repository}:{reference}", after=str(found.digest)
    )
    return Response(found.content, headers=headers, content_type=found.media_type)


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
    require_right(Right.CREATE, repository)
    parsed = _parsed_body(wanted)
    push = Push(
        repository=repository,
        parsed=parsed,
        tag=wanted if isinstance(wanted, str) else None,
        principal=caller(),
        source=source(),
        now=context().clock(),
    )
    judge, settings = context().judge, context().settings
    with context().catalogue.write() as conn:
        pushed = push_manifest(conn, context().audit, push, referrers=settings.limits.referrers)
        if pushed.kind != "artifact":
            judge.enqueue_judgement(conn, repository, parsed.digest)
    response = empty_response(201)
    response.headers["Location"] = f"/v2/{repository}/manifests/{reference}"
    response.headers["Docker-Content-Digest"] = str(parsed.digest)
    if parsed.subject is not None:
        response.headers["OCI-Subject"] = str(parsed.subject.digest)
    if pushed.kind != "artifact":
        judge.wake()
        warning = _warning(push, settings.judge.push_wait_ms / 1000)
        if warning:
            response.headers["Warning"] = warning
    return response


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
    image += f":{push.tag}" if push.tag is not None else f"@{digest}"
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
    with context().catalogue.write() as conn:
        if isinstance(wanted, Digest):
            _delete_manifest(conn, repository, wanted)
        elif is_protected_tag(wanted):
            raise DeniedError(f"tag {wanted}: only this registry's signer removes tags sha256-<hex>.<suffix>")
        else:
            _delete_tag(conn, repository, wanted)
    return empty_response(202)


def _delete_manifest(conn: Connection, repository: str, digest: Digest) -> None:
    """Delete a manifest with its tags, and with what the registry itself says of it."""
    if is_own(conn, repository, digest):
        raise DeniedError(f"manifest {digest}: only this registry's signer removes what it made")
    user = manifest_using(conn, repository, digest)
    if user is not None:
        raise InUseError(f"manifest {digest}: index {user} of {repository} needs it")
    for doomed in (*own_artifacts(conn, repository, digest), digest):
        for tag in tags_of(conn, repository, doomed):
            _delete_tag(conn, repository, tag)
        for tag in stop_serving(conn, repository, doomed):
            _record(conn, Event.SERVED, f"{repository}:{tag}", before=str(doomed))
        if not remove_manifest(conn, repository, doomed):
            raise ManifestUnknownError(f"manifest {digest}: not known in {repository}")
    _record(conn, Event.DELETE, f"{repository}@{digest}", before="manifest")


def _delete_tag(conn: Connection, repository: str, tag: str) -> None:
    found = remove_tag(conn, repository, tag)
    if found is None:
        raise ManifestUnknownError(f"tag {tag}: not known in {repository}")
    _record(conn, Event.TAG, f"{repository}:{tag}", before=str(found.pushed))


def _record(conn: Connection, event: Event, subject: str, *, before: str) -> None:
    context().audit.append(
        conn, event, principal=caller().name, source=source(), subject=subject, before=before, after=""
    )
