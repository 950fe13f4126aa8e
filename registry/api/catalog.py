"""The repositories that the caller may know of: `_catalog` of Docker's registry API, which clients still use."""

from __future__ import annotations

from flask import Blueprint, Response

from ocispec.reference import check_repository
from ocispec.strictjson import JsonValue
from registry.access import Principal
from registry.api.base import json_response, link_next, page_size, page_start
from registry.catalogue.tags import list_repositories
from registry.context import caller, context
from registry.states import Sight, may_read

blueprint = Blueprint("catalog", __name__)


@blueprint.get("/v2/_catalog")
def get_catalog() -> Response:
    """Names in byte order, a page at a time."""
    limit, after = page_size(), page_start(check_repository)
    found = _visible(caller(), after, limit + 1)
    page: list[JsonValue] = [*found[:limit]]
    response = json_response({"repositories": page})
    if len(found) > limit and limit:
        response.headers["Link"] = link_next("/v2/_catalog", n=limit, last=found[limit - 1])
    return response


def _visible(principal: Principal, after: str, wanted: int) -> list[str]:
    """At most `wanted` names in the principal's sight; reads on until it has them."""
    found: list[str] = []
    with context().catalogue.read() as conn:
        while len(found) < wanted:
            names = list_repositories(conn, after=after, limit=1000)
            found += [
                name
                for name in names
                if may_read(principal.role, None, in_scope=principal.in_scope(name)) is not Sight.HIDDEN
            ]
            if len(names) < 1000:
                break
            after = names[-1]
    return found[:wanted]
