"""What the caller of a request gets to see of a manifest or blob: the state rules of `states.py`, as answers.

A host learns why it does not get an image (403, with the first reason); who may not know of it is told that it
does not exist (404), in the same words as for what does not exist.
"""

from __future__ import annotations

from sqlalchemy import Connection

from ocispec.digest import Digest
from ocispec.strictjson import JsonValue
from policy.model import State
from registry.access import Principal, Role
from registry.catalogue.blobs import best_state, blob_size
from registry.catalogue.manifests import Found
from registry.errors import BlobUnknownError, DeniedError, ManifestUnknownError
from registry.states import Sight, may_read


def check_manifest(principal: Principal, repository: str, found: Found | None, asked: str) -> Found:
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
            raise denied(f"{repository}@{found.digest}", found.state, found.reason, found.message)


def check_blob(conn: Connection, principal: Principal, repository: str, digest: Digest) -> int:
    """Return the size of a blob if the principal may have it: a host, if a manifest that may start reaches it.

    Raises:
        BlobUnknownError: it is not there, or the principal may not know of it.
        DeniedError: it may know of it, and not have it.
    """
    size = blob_size(conn, repository, digest)
    unknown = f"blob {digest}: not known in {repository}"
    if size is None:
        raise BlobUnknownError(unknown)
    state, reason, message = best_state(conn, repository, digest) if principal.role is Role.HOST else (None, "", "")
    match may_read(principal.role, state, in_scope=principal.in_scope(repository)):
        case Sight.READ:
            return size
        case Sight.HIDDEN:
            raise BlobUnknownError(unknown)
        case Sight.DENIED:
            raise denied(f"blob {digest} of {repository}", state, reason, message)


def denied(what: str, state: State | None, reason: str, message: str) -> DeniedError:
    """The refusal of something that is not cleared, with its first reason."""
    if state is None:
        return DeniedError(f"{what}: belongs to no cleared image", detail={"state": None, "reason": "no-state"})
    detail: JsonValue = {"state": str(state), "reason": reason, "message": message}
    return DeniedError(f"{what} is {state}: {reason}: {message}", detail=detail)
