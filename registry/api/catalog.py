"""The repositories that the caller may know of: `_catalog` of Docker's registry API, which clients still use."""

from __future__ import annotations

from flask import Blueprint, Response

from ocispec.reference import check_repository
from ocispec.strictjson import JsonValue
from registry.api.base import json_response, link_next, page_size, page_start
from registry.catalogue.schema import repositories
from registry.catalogue.scope import in_scope
from registry.catalogue.tags import list_repositories
from registry.context import caller, context

blueprint = Blueprint("catalog", __name__)


@blueprint.get("/v2/_catalog")
def get_catalog() -> Response:
    """Names in byte order, a page at a time."""
    limit, after = page_size(), page_start(check_repository)
    with context().catalogue.read() as conn:
        within = in_scope(caller(), repositories.c.name)
        found = list_repositories(conn, within=within, after=after, limit=limit + 1)
    page: list[JsonValue] = [*found[:limit]]
    response = json_response({"repositories": page})
    if len(found) > limit and limit:
        response.headers["Link"] = link_next("/v2/_catalog", n=limit, last=found[limit - 1])
    return response
