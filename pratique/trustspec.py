"""The specification that `pratique trust new` makes a trust.json from: a short YAML file for people to write."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ocispec import fields
from ocispec.fields import JsonObject
from pratique import arguments as shared
from pratique.exits import UsageError

if TYPE_CHECKING:
    from policy.statements import TrustedKey, TrustRoot
    from policy.trust import Trust

EXAMPLE: Final = """\
version: 1                   # rises with every new trust.json
expires: 365d                # or a date in quotes: "2027-12-31"
root_threshold: 2            # owners of root keys that must sign trust.json
list_threshold: 2            # officers that must sign a revocation list
registries: ["registry.example:5000"]
policies:
  - {name: default, threshold: 2}
keys:                        # files are looked for beside this one
  - {file: rita.pub, role: root, owner: rita}
  - {file: ron.pub, role: root, owner: ron}
  - {file: alice.pub, role: officer, owner: alice, levels: [base, middleware, application]}
  - {file: bob.pub, role: officer, owner: bob, levels: [base, middleware, application]}
  - {file: web.pub, role: team, owner: team-web, levels: [application], expires: 90d}
  - {file: registry.pub, role: registry, owner: "registry.example:5000"}
"""

_TOP: Final = ("version", "expires", "root_threshold", "list_threshold", "registries", "policies", "keys")
_KEY: Final = ("file", "role", "owner", "levels", "begins", "expires")
_POLICY: Final = ("name", "threshold")


def read_spec(path: Path, now: datetime, *, after: Trust | None = None) -> TrustRoot:
    """The trust root that the file `path` describes, to be signed.

    A key is valid from `begins` (a date in quotes) on; without it from when `after` says that it began, or from now:
    what somebody signed under the old trust.json shall still count under the new one.

    Raises:
        PolicyError, SpecError, UsageError: malformed, an unknown name, a time that means nothing, a role that is
            none, a key file that is no key.
    """
    from policy.document import read_document
    from policy.statements import PolicyName, TrustRoot
    from policy.times import whole_seconds
    from pratique.files import read_bounded

    what = str(path)
    members = read_document(read_bounded(path, 1 << 20), what=what)
    _known(members, _TOP, what)
    expires = shared.until(fields.text(members, "expires", what=what), now)
    policies = []
    for position, item in enumerate(fields.items(members, "policies", what=what, limit=64)):
        inner = f"{what}: policies[{position}]"
        policy = _object(item, _POLICY, inner)
        threshold = fields.integer(policy, "threshold", what=inner, minimum=1)
        policies.append(PolicyName(name=fields.text(policy, "name", what=inner), threshold=threshold))
    keys = [
        _key(_object(item, _KEY, f"{what}: keys[{position}]"), f"{what}: keys[{position}]", path, now, expires, after)
        for position, item in enumerate(fields.items(members, "keys", what=what, limit=1000))
    ]
    return TrustRoot(
        version=fields.integer(members, "version", what=what, minimum=1),
        root_threshold=fields.integer(members, "root_threshold", what=what, minimum=1),
        list_threshold=fields.integer(members, "list_threshold", what=what, minimum=1),
        keys=tuple(keys),
        policies=tuple(policies),
        registries=fields.texts(members, "registries", what=what, limit=16),
        issued=whole_seconds(now),
        expires=expires,
    )


def _key(
    members: JsonObject, what: str, spec: Path, now: datetime, expires: datetime, after: Trust | None
) -> TrustedKey:
    from policy.key_files import read_public
    from policy.statements import Role, TrustedKey
    from policy.times import SKEW

    public = read_public(spec.parent / fields.text(members, "file", what=what))
    role = fields.text(members, "role", what=what)
    shared.one_of([role], [str(known) for known in Role], f"{what}: role")
    before = after.keys.get(public.id) if after is not None else None
    begins = fields.text(members, "begins", what=what, default="")
    ends = fields.text(members, "expires", what=what, default="")
    return TrustedKey(
        key=public,
        role=Role(role),
        owner=fields.text(members, "owner", what=what),
        levels=tuple(sorted(fields.texts(members, "levels", what=what, limit=64))),
        not_before=_day(begins, what) if begins else (before.not_before if before is not None else now - SKEW),
        not_after=shared.until(ends, now) if ends else expires,
    )


def _day(text: str, what: str) -> datetime:
    from datetime import UTC

    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise UsageError(f"{what}: begins {text[:40]!r}, expected a date (2026-12-31)") from None


def _object(item: object, names: tuple[str, ...], what: str) -> JsonObject:
    if not isinstance(item, dict):
        raise UsageError(f"{what}: expected a mapping")
    _known(item, names, what)
    return item


def _known(members: Mapping[str, object], names: tuple[str, ...], what: str) -> None:
    shared.one_of([str(name) for name in members], names, f"{what}: name")
