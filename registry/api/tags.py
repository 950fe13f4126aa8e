"""Tags of a repository: distribution specification 1.1, "Listing Tags" (end-8a, end-8b)."""

from __future__ import annotations

from flask import Blueprint, Response

from ocispec.reference import check_tag
from ocispec.strictjson import JsonValue
from registry.access import Role
from registry.api.base import json_response, link_next, page_size, page_start, repository_name, require_sight
from registry.catalogue.manifests import lone_types
from registry.catalogue.tags import list_tags
from registry.context import caller, context
from registry.errors import NameUnknownError
from registry.visibility import served_types

blueprint = Blueprint("tags", __name__)


@blueprint.get("/v2/<path:name>/tags/list")
def get_tags(name: str) -> Response:
    """The tags in byte order, a page at a time; a host sees those that serve something."""
    repository = repository_name(name)
    require_sight(repository)
    limit, after = page_size(), page_start(check_tag)
    with context().catalogue.read() as conn:
        served = None
        if caller().role is Role.HOST:
            served = served_types(conn, context().artifacts, lone_types(conn, repository))
        found = list_tags(conn, repository, after=after, limit=limit + 1, served=served)
    if found is None:
        raise NameUnknownError(f"repository {repository}: not known")
    page: list[JsonValue] = [*found[:limit]]
    response = json_response({"name": repository, "tags": page})
    if len(found) > limit and limit:
        response.headers["Link"] = link_next(f"/v2/{repository}/tags/list", n=limit, last=found[limit - 1])
    return response
