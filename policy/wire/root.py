"""trust.json on the wire: the keys of everybody, signed by the root keys among them."""

from __future__ import annotations

from typing import Final

from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue
from policy.keys import Algorithm, PublicKey
from policy.statements import PolicyName, Role, TrustedKey, TrustRoot
from policy.times import format_time
from policy.wire.body import Body
from policy.wire.members import Members, base64_of, texts_of

TRUST: Final = "urn:pratique:trust:v1"

MAX_KEYS: Final = 1000
"""Keys in trust.json."""

_MAX_LEVELS: Final = 64
_MAX_POLICIES: Final = 64
_MAX_REGISTRIES: Final = 16


def write_root(root: TrustRoot) -> Body:
    """trust.json is its own subject."""
    predicate: dict[str, JsonValue] = {
        "expires": format_time(root.expires),
        "issued": format_time(root.issued),
        "keys": [_write_key(key) for key in root.keys],
        "listThreshold": root.list_threshold,
        "policies": [{"name": policy.name, "threshold": policy.threshold} for policy in root.policies],
        "registries": texts_of(root.registries),
        "rootThreshold": root.root_threshold,
        "version": root.version,
    }
    return Body(name="trust.json", digest=None, predicate=predicate)


def read_root(_name: str, _digest: Digest, members: Members) -> TrustRoot:
    """The trust.json that `write_root` wrote.

    Raises:
        SpecError: two entries for one key, policy or registry; a registry key that no registry owns; a threshold
            that the listed owners cannot reach.
    """
    root = TrustRoot(
        version=members.number("version", 1),
        root_threshold=members.number("rootThreshold", 1),
        list_threshold=members.number("listThreshold", 1),
        keys=tuple(_read_key(key) for key in members.children("keys", MAX_KEYS)),
        policies=tuple(_read_policy(policy) for policy in members.children("policies", _MAX_POLICIES)),
        registries=members.texts("registries", _MAX_REGISTRIES, 300),
        issued=members.time("issued"),
        expires=members.time("expires"),
    )
    _refuse_twice(members.what, "key", [key.key.id for key in root.keys])
    _refuse_twice(members.what, "policy", [policy.name for policy in root.policies])
    _refuse_twice(members.what, "registry", list(root.registries))
    for key in root.keys:
        if key.role is Role.REGISTRY and key.owner not in root.registries:
            raise SpecError(f"{members.what}: key {key.key.id}: owner {key.owner!r} is not one of registries")
    _check_reach(members.what, root)
    return root


def _write_key(key: TrustedKey) -> dict[str, JsonValue]:
    return {
        "algorithm": str(key.key.algorithm),
        "id": key.key.id,
        "levels": texts_of(key.levels),
        "notAfter": format_time(key.not_after),
        "notBefore": format_time(key.not_before),
        "owner": key.owner,
        "role": str(key.role),
        "spki": base64_of(key.key.spki),
    }


def _read_key(members: Members) -> TrustedKey:
    algorithm = members.text("algorithm", 64)
    role = members.text("role", 64)
    if algorithm not in {str(known) for known in Algorithm}:
        raise SpecError(f"{members.what}: algorithm {algorithm!r} is not known")
    if role not in {str(known) for known in Role}:
        raise SpecError(f"{members.what}: role {role!r} is not known")
    public = PublicKey(members.blob("spki", 256), Algorithm(algorithm))
    members.fixed("id", public.id)
    key = TrustedKey(
        key=public,
        role=Role(role),
        owner=members.line("owner", 300),
        levels=members.texts("levels", _MAX_LEVELS, 64),
        not_before=members.time("notBefore"),
        not_after=members.time("notAfter"),
    )
    members.end()
    if not key.owner.strip() or key.owner != key.owner.strip():
        raise SpecError(f"{members.what}: owner {key.owner!r} is empty or padded")
    if key.levels and key.role in {Role.ROOT, Role.REGISTRY}:
        raise SpecError(f"{members.what}: a {role} key approves nothing, so it has no levels")
    if key.not_before >= key.not_after:
        raise SpecError(f"{members.what}: notAfter is not later than notBefore")
    return key


def _read_policy(members: Members) -> PolicyName:
    policy = PolicyName(name=members.word("name"), threshold=members.number("threshold", 1))
    members.end()
    return policy


def _refuse_twice(what: str, kind: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise SpecError(f"{what}: {kind} {name} is listed twice")
        seen.add(name)


def _check_reach(what: str, root: TrustRoot) -> None:
    owners = {role: len({key.owner for key in root.keys if key.role is role}) for role in Role}
    if root.root_threshold > owners[Role.ROOT]:
        raise SpecError(f"{what}: rootThreshold is {root.root_threshold}, got {owners[Role.ROOT]} owners of root keys")
    needed = max([root.list_threshold, *(policy.threshold for policy in root.policies)])
    if needed > owners[Role.OFFICER]:
        raise SpecError(f"{what}: a threshold is {needed}, got {owners[Role.OFFICER]} owners of officer keys")
