"""Referrers: distribution specification 1.1, "Listing Referrers" (end-12a, end-12b)."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, request
from sqlalchemy import Connection

from ocispec.descriptor import MediaType, check_media_type
from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue
from registry.access import Role
from registry.api.base import digest_of, json_response, link_next, page_size, repository_name, require_sight
from registry.catalogue.manifests import manifest_by_digest
from registry.catalogue.referrers import Referrer, list_referrers
from registry.context import caller, context
from registry.errors import UnsupportedRequestError
from registry.visibility import check_manifest

blueprint = Blueprint("referrers", __name__)

PAGE: Final = 50
"""Referrers in one answer: each has at most MAX_ANNOTATIONS bytes of annotations, so it stays under 4 MiB."""


@blueprint.get("/v2/<path:name>/referrers/<digest>")
def get_referrers(name: str, digest: str) -> Response:
    """What is about a manifest; for a subject that is not there, nothing is. Hosts need a subject that may start."""
    repository, subject = repository_name(name), digest_of(digest)
    require_sight(repository)
    limit = min(max(page_size(), 1), PAGE)
    artifact_type = _artifact_type()
    last = request.args.get("last")
    with context().catalogue.read() as conn:
        rows: tuple[Referrer, ...] = ()
        if _may_ask(conn, repository, subject):
            after = digest_of(last) if last is not None else None
            rows = list_referrers(conn, repository, subject, artifact_type=artifact_type, after=after, limit=limit + 1)
    page = rows[:limit]
    response = json_response(
        {
            "schemaVersion": 2,
            "mediaType": str(MediaType.OCI_INDEX),
            "manifests": [_descriptor(referrer) for referrer in page],
        },
        media_type=MediaType.OCI_INDEX,
    )
    if artifact_type:
        response.headers["OCI-Filters-Applied"] = "artifactType"
    if len(rows) > limit:
        query: dict[str, str | int] = {"n": limit, "last": str(page[-1].digest)}
        if artifact_type:
            query["artifactType"] = artifact_type
        response.headers["Link"] = link_next(f"/v2/{repository}/referrers/{subject}", **query)
    return response


def _artifact_type() -> str:
    """The type to filter by, "" for all.

    Raises:
        UnsupportedRequestError: it is no media type, so nothing can have it.
    """
    text = request.args.get("artifactType", "")
    try:
        return check_media_type(text, what="artifactType") if text else ""
    except SpecError as error:
        raise UnsupportedRequestError(f"{error} (is a + in it not written as %2B?)") from None


def _may_ask(conn: Connection, repository: str, subject: Digest) -> bool:
    """True if the caller may see what is about a manifest; a host, only if it may have the manifest itself.

    Raises:
        DeniedError: a host, and the manifest is not cleared.
    """
    if caller().role is not Role.HOST:
        return True
    found = manifest_by_digest(conn, repository, subject)
    if found is None:
        return False
    check_manifest(conn, context().artifacts, caller(), repository, found, str(subject))
    return True


def _descriptor(referrer: Referrer) -> JsonValue:
    members: dict[str, JsonValue] = {
        "mediaType": referrer.media_type,
        "digest": str(referrer.digest),
        "size": referrer.size,
    }
    if referrer.artifact_type:
        members["artifactType"] = referrer.artifact_type
    if referrer.annotations:
        members["annotations"] = dict(referrer.annotations)
    return members
