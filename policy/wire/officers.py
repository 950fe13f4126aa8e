"""Revocation lists, policies and floors on the wire: what officers publish for hosts."""

from __future__ import annotations

from typing import Final

from ocispec.digest import Digest
from ocispec.errors import DigestMismatchError
from ocispec.strictjson import JsonValue
from policy.globs import Glob
from policy.statements import PolicyFloor, PolicyStatement, RevocationList
from policy.times import format_time
from policy.wire.body import Body
from policy.wire.members import Members, base64_of, texts_of

REVOCATION_LIST: Final = "urn:pratique:revocation-list:v1"
POLICY: Final = "urn:pratique:policy:v1"
POLICY_FLOOR: Final = "urn:pratique:policy-floor:v1"

MAX_DOCUMENT: Final = 1024 * 1024
"""Bytes of a policy document."""

_MAX_ENTRIES: Final = 20_000


def write_list(revocations: RevocationList) -> Body:
    """A list is about many things, so it is its own subject."""
    predicate: dict[str, JsonValue] = {
        "components": texts_of(revocations.components),
        "digests": texts_of(revocations.digests),
        "issued": format_time(revocations.issued),
        "keys": texts_of(revocations.keys),
        "layers": texts_of(revocations.layers),
        "number": revocations.number,
        "reason": revocations.reason,
    }
    return Body(name="revocation-list", digest=None, predicate=predicate)


def read_list(_name: str, _digest: Digest, members: Members) -> RevocationList:
    """The list that `write_list` wrote.

    Raises:
        PolicyError: an entry of components is not a glob: it would match nothing, and nobody would notice.
    """
    revocations = RevocationList(
        number=members.number("number", 1),
        digests=members.digests("digests", _MAX_ENTRIES),
        layers=members.digests("layers", _MAX_ENTRIES),
        components=members.texts("components", _MAX_ENTRIES, 1024),
        keys=tuple(str(key) for key in members.digests("keys", _MAX_ENTRIES)),
        reason=members.line("reason", 4096),
        issued=members.time("issued"),
    )
    for component in revocations.components:
        Glob.compile(component)
    return revocations


def write_policy(policy: PolicyStatement) -> Body:
    """The subject is the policy document, which is in the predicate whole."""
    predicate: dict[str, JsonValue] = {
        "document": base64_of(policy.document),
        "issued": format_time(policy.issued),
        "name": policy.name,
        "version": policy.version,
    }
    return Body(name="policy", digest=Digest.of(policy.document), predicate=predicate)


def read_policy(_name: str, digest: Digest, members: Members) -> PolicyStatement:
    """The policy that `write_policy` wrote.

    Raises:
        DigestMismatchError: the document is not the subject.
    """
    policy = PolicyStatement(
        name=members.word("name"),
        version=members.number("version", 1),
        document=members.blob("document", MAX_DOCUMENT),
        issued=members.time("issued"),
    )
    if Digest.of(policy.document) != digest:
        raise DigestMismatchError(f"{members.what}: document mismatch: got {Digest.of(policy.document)}, want {digest}")
    return policy


def write_floor(floor: PolicyFloor) -> Body:
    """A floor is its own subject."""
    predicate: dict[str, JsonValue] = {
        "issued": format_time(floor.issued),
        "name": floor.name,
        "version": floor.version,
    }
    return Body(name="policy-floor", digest=None, predicate=predicate)


def read_floor(_name: str, _digest: Digest, members: Members) -> PolicyFloor:
    """The floor that `write_floor` wrote."""
    return PolicyFloor(name=members.word("name"), version=members.number("version", 1), issued=members.time("issued"))
