"""What the caller of a request gets to see of a manifest or blob: the state rules of `states.py`, as answers.

A host learns why it does not get an image (403, with the first reason and the tree of the Decision); who may not know
of it is told that it does not exist (404), in the same words as for what does not exist.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from sqlalchemy import Connection, select

from ocispec.digest import Digest
from ocispec.strictjson import JsonValue
from policy.codec import decode_decision
from policy.explain import explain
from policy.model import State
from registry.access import Principal, Role
from registry.artifacts import ServedArtifacts
from registry.catalogue.blobs import Reached, best_state, blob_size
from registry.catalogue.manifests import Found, lone_types
from registry.catalogue.schema import decisions
from registry.errors import BlobUnknownError, DeniedError, ManifestUnknownError
from registry.states import Sight, may_read


class Seen(NamedTuple):
    """A blob that the principal may have: its size in bytes, and whether that rests on the catalogue alone, and not
    on a policy, which is believed for some time."""

    size: int
    settled: bool


def check_manifest(
    conn: Connection,
    artifacts: ServedArtifacts,
    principal: Principal,
    repository: str,
    found: Found | None,
    asked: str,
) -> Found:
    """Return `found` if the principal may have it; `asked` is the tag or digest that it asked for.

    Raises:
        ManifestUnknownError: it is not there, or the principal may not know of it.
        DeniedError: it may know of it, and not have it.
    """
    unknown = f"manifest {asked}: not known in {repository}"
    if found is None:
        raise ManifestUnknownError(unknown)
    match may_read(principal.role, found.state, in_scope=principal.in_scope(repository)):
        case Sight.READ:
            return found
        case Sight.HIDDEN:
            raise ManifestUnknownError(unknown)
        case Sight.DENIED:
            if found.alone and artifacts.serves(conn, found.artifact_type):
                return found
            raise manifest_denied(conn, f"{repository}@{found.digest}", found)


def check_blob(
    conn: Connection, artifacts: ServedArtifacts, principal: Principal, repository: str, digest: Digest
) -> Seen:
    """Return what is to be known of a blob if the principal may have it: a host, if something that it may have reaches
    it.

    Raises:
        BlobUnknownError: it is not there, or the principal may not know of it.
        DeniedError: it may know of it, and not have it.
    """
    size = blob_size(conn, repository, digest)
    unknown = f"blob {digest}: not known in {repository}"
    if size is None:
        raise BlobUnknownError(unknown)
    best = best_state(conn, repository, digest) if principal.role is Role.HOST else None
    state = best.state if best is not None else None
    match may_read(principal.role, state, in_scope=principal.in_scope(repository)):
        case Sight.READ:
            return Seen(size, settled=True)
        case Sight.HIDDEN:
            raise BlobUnknownError(unknown)
        case Sight.DENIED:
            if served_types(conn, artifacts, lone_types(conn, repository, digest)):
                return Seen(size, settled=False)
            raise _denied(conn, f"blob {digest} of {repository}", best)


def served_types(conn: Connection, artifacts: ServedArtifacts, types: Iterable[str]) -> tuple[str, ...]:
    """Those of `types` that hosts get without a subject."""
    return tuple(each for each in types if artifacts.serves(conn, each))


def manifest_denied(conn: Connection, what: str, found: Found) -> DeniedError:
    """The refusal of a manifest that is not cleared."""
    if found.state is None:
        return _denied(conn, what, None)
    reached = Reached(state=found.state, reason=found.reason, message=found.message, decision=found.decision)
    return _denied(conn, what, reached)


def _denied(conn: Connection, what: str, reached: Reached | None) -> DeniedError:
    if reached is None:
        return DeniedError(f"{what}: belongs to no cleared image", detail={"state": None, "reason": "no-state"})
    content = conn.scalar(select(decisions.c.content).where(decisions.c.digest == reached.decision))
    detail: dict[str, JsonValue] = {"state": str(reached.state), "reason": reached.reason, "message": reached.message}
    if content is not None:
        detail["decision"] = explain(decode_decision(content))
    return DeniedError(f"{what} is {reached.state}: {reached.reason}: {reached.message}", detail=detail)


def as_quarantined(found: Found) -> Found:
    """What hosts are told of an image that was cleared a moment ago, while its tag's statement is being signed."""
    if found.state is None or not found.state.may_start:
        return found
    return replace(found, state=State.QUARANTINED)
