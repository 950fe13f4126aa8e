"""trust.json: whose signature counts for what. The one place where an envelope becomes a `Signed` statement.

| statement | role | how many |
| --- | --- | --- |
| TrustRoot | root | `root_threshold` of the old and of the new |
| PolicyStatement, PolicyFloor | officer | the threshold of the policy's name |
| RevocationList | officer | `list_threshold` |
| ImageApproval, LayerApproval | officer or team, for the statement's level | 1; quorums are the policy's |
| Waiver | officer | 1; quorums are the policy's |
| Withdrawal | officer | 1: it only takes away |
| ListDate, TagStatement, IndexClearance, AuditCheckpoint, Clearance | registry, for its own name | 1 |

A number is a number of distinct owners: one person with three keys is one. A key counts while it is valid,
both at the time that the statement says it was issued and now. No clock is read: `now` is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar

from ocispec.digest import Digest
from policy import dsse, wire
from policy.errors import TrustError
from policy.model import Signed, Signer
from policy.statements import (
    AuditCheckpoint,
    Clearance,
    ImageApproval,
    IndexClearance,
    LayerApproval,
    ListDate,
    PolicyFloor,
    PolicyStatement,
    RevocationList,
    Role,
    Statement,
    TagStatement,
    TrustedKey,
    TrustRoot,
    Waiver,
    Withdrawal,
)
from policy.times import SKEW, format_time

S = TypeVar("S", bound=Statement)

MAX_RISE: Final = 1000
"""How far a number may rise at once, so that nobody bricks a fleet with 2^63 (trust.md, Keys)."""

_ROLES: Final[Mapping[type[Statement], frozenset[Role]]] = {
    TrustRoot: frozenset({Role.ROOT}),
    PolicyStatement: frozenset({Role.OFFICER}),
    PolicyFloor: frozenset({Role.OFFICER}),
    RevocationList: frozenset({Role.OFFICER}),
    ImageApproval: frozenset({Role.OFFICER, Role.TEAM}),
    LayerApproval: frozenset({Role.OFFICER, Role.TEAM}),
    Waiver: frozenset({Role.OFFICER}),
    Withdrawal: frozenset({Role.OFFICER}),
    ListDate: frozenset({Role.REGISTRY}),
    TagStatement: frozenset({Role.REGISTRY}),
    IndexClearance: frozenset({Role.REGISTRY}),
    AuditCheckpoint: frozenset({Role.REGISTRY}),
    Clearance: frozenset({Role.REGISTRY}),
}

STATEMENTS: Final[tuple[type[Statement], ...]] = tuple(kind for kind in _ROLES if kind is not TrustRoot)
"""Every kind of statement but trust.json itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """A trust.json whose own signatures were verified; made by `parse`, `stored` and `update` alone.

    `digest` is of the payload, `envelope` the bytes as received. `revoked` are the ids of keys that no longer
    count, root keys aside: those are replaced by a newer trust.json only.
    """

    root: TrustRoot
    digest: Digest
    envelope: bytes = field(repr=False)
    revoked: frozenset[str] = frozenset()
    keys: Mapping[str, TrustedKey] = field(repr=False, compare=False)

    @classmethod
    def parse(cls, envelope: bytes, now: datetime) -> Trust:
        """Return the trust.json in `envelope`, signed by enough of its own roots and in force at `now`.

        That proves who made it only to somebody who has these root keys from elsewhere: at enrolment that is
        the operator, who compares the digest.

        Raises:
            TrustError: malformed, too few roots, `trust-expired`, `issued-in-future`.
        """
        trust = cls.stored(envelope, now)
        trust.check_in_force(now)
        return trust

    @classmethod
    def stored(cls, envelope: bytes, now: datetime) -> Trust:
        """Like `parse`, but one that has expired is read too, so that a newer one can follow it.

        Nothing but `update` works on it then: `verify` refuses.

        Raises:
            TrustError: malformed, too few roots, `issued-in-future`.
        """
        parsed = dsse.parse(envelope, what="trust.json")
        root = wire.decode(parsed.payload, what="trust.json")
        if not isinstance(root, TrustRoot):
            raise TrustError("wrong-type", "trust.json", f"a {type(root).__name__}, expected a TrustRoot")
        if root.issued > now + SKEW:
            raise TrustError("issued-in-future", "trust.json", f"issued {root.issued}, now {now}")
        trust = cls(
            root=root,
            digest=Digest.of(parsed.payload),
            envelope=envelope,
            keys={key.key.id: key for key in root.keys},
        )
        _check_roots(parsed, root, trust, now, "trust.json")
        return trust

    def update(self, envelope: bytes, now: datetime) -> Trust:
        """Return the trust.json in `envelope`, which follows this one.

        It must be signed by enough of this one's roots and of its own, and its version be higher, by MAX_RISE at
        most. The same one again is returned as it is. Revoked keys stay revoked.

        Raises:
            TrustError: as `parse`; `number-went-back`, `number-jump`, `same-number-other-content`; too few of the
                old roots.
        """
        newer = Trust.parse(envelope, now)
        if newer.root.version == self.root.version and newer.digest == self.digest:
            return self
        check_number("trust.json", (self.root.version, self.digest), (newer.root.version, newer.digest))
        parsed = dsse.parse(envelope, what="trust.json")
        _check_roots(parsed, newer.root, self, now, f"trust.json of version {self.root.version}")
        return replace(newer, revoked=self.revoked)

    def revoking(self, keys: Iterable[str]) -> Trust:
        """This trust without the keys of which `keys` are the ids; what they signed no longer counts."""
        return replace(self, revoked=self.revoked | frozenset(keys))

    def check_in_force(self, now: datetime) -> None:
        """Refuse a trust.json past its end.

        Raises:
            TrustError: `trust-expired`.
        """
        if now >= self.root.expires:
            raise TrustError("trust-expired", "trust.json", f"expired {format_time(self.root.expires)}, now {now}")

    def verify(
        self, envelope: bytes, expected: type[S], now: datetime, *, grace: timedelta = timedelta(0)
    ) -> Signed[S]:
        """Return the statement of class `expected` in `envelope`.

        Raises:
            TrustError: as `verify_any`.
        """
        return narrowed(self.verify_any(envelope, (expected,), now, grace=grace), expected)

    def verify_any(
        self,
        envelope: bytes,
        expected: tuple[type[object], ...],
        now: datetime,
        *,
        grace: timedelta = timedelta(0),
    ) -> Signed[Statement]:
        """Return the statement in `envelope`, of one of the classes `expected`, signed by who may.

        1. This trust.json is in force. 2. The envelope is well-formed. 3. A known key that is not revoked made a
        signature on it. 4. The payload is a statement of an expected class. 5. It was not issued in the future,
        and has not expired (`grace` past its end is allowed). 6. Enough distinct owners signed whose keys have
        the role, the level, the registry and the validity that the statement needs.

        Raises:
            TrustError: `trust-expired`, `malformed`, `wrong-payload-type`, `no-signature`, `unknown-key`,
                `key-revoked`, `bad-signature`, `unknown-type`, `not-canonical`, `wrong-type`, `issued-in-future`,
                `expired`, `wrong-role`, `wrong-level`, `wrong-registry`, `key-not-yet-valid`, `key-expired`,
                `unknown-policy`, `too-few-signers`. The subject is the digest of the payload, or of the envelope
                where that cannot be read.
        """
        self.check_in_force(now)  # (1)
        what = f"statement {Digest.of(envelope)}"
        parsed = dsse.parse(envelope, what=what)  # (2)
        digest = Digest.of(parsed.payload)
        what = f"statement {digest}"
        signing = self._signing(parsed, what)  # (3)
        statement = wire.decode(parsed.payload, what=what)  # (4)
        if not isinstance(statement, expected):
            names = " or ".join(kind.__name__ for kind in expected)
            raise TrustError("wrong-type", what, f"a {type(statement).__name__}, expected {names}")
        _check_times(statement, now, grace, what)  # (5)
        signers = self._entitled(statement, signing, now, what)  # (6)
        return Signed(statement=statement, signers=signers, digest=digest, envelope=envelope)

    def verifier(self, now: datetime) -> Callable[[bytes], Signed[Statement]]:
        """A function that verifies any statement but trust.json as of `now`."""
        return lambda envelope: self.verify_any(envelope, STATEMENTS, now)

    def policy_threshold(self, name: str) -> int | None:
        """How many officers must sign a version of the policy `name`; None if trust.json does not know it."""
        return next((policy.threshold for policy in self.root.policies if policy.name == name), None)

    def _signing(self, envelope: dsse.Envelope, what: str) -> list[TrustedKey]:
        """The known, unrevoked keys that made a signature on `envelope`; the first fault if there are none."""
        found: dict[str, TrustedKey] = {}
        fault = TrustError("no-signature", what, "carries no signature")
        message = envelope.message
        for signature in envelope.signatures:
            key = self.keys.get(signature.key_id)
            shown = signature.key_id[:80] or "(none named)"
            if key is None:
                refused = TrustError("unknown-key", what, f"signed by key {shown}, which trust.json does not list")
            elif signature.key_id in self.revoked and key.role is not Role.ROOT:
                refused = TrustError("key-revoked", what, f"signed by key {shown} of {key.owner}, which is revoked")
            elif not key.key.verifies(message, signature.signature):
                refused = TrustError(
                    "bad-signature", what, f"the signature by key {shown} of {key.owner} is not its own"
                )
            else:
                found[signature.key_id] = key
                continue
            fault = fault if fault.code != "no-signature" else refused
        if not found:
            raise fault
        return list(found.values())

    def _entitled(
        self, statement: Statement, signing: Iterable[TrustedKey], now: datetime, what: str
    ) -> tuple[Signer, ...]:
        """Those of `signing` who may sign `statement`, if they are enough."""
        entitled: list[TrustedKey] = []
        fault: TrustError | None = None
        for key in signing:
            refused = _objection(key, statement, now, what)
            if refused is None:
                entitled.append(key)
            fault = fault or refused
        owners = {key.owner for key in entitled}
        needed = self._needed(statement, what)
        if fault is not None and not owners:
            raise fault
        if len(owners) < needed:
            shown = ", ".join(sorted(owners))
            raise TrustError("too-few-signers", what, f"signed by {shown}; got {len(owners)}, expected {needed} owners")
        return tuple(
            Signer(key=key.key.id, role=key.role, owner=key.owner, levels=key.levels)
            for key in sorted(entitled, key=lambda key: key.key.id)
        )

    def _needed(self, statement: Statement, what: str) -> int:
        match statement:
            case PolicyStatement() | PolicyFloor():
                threshold = self.policy_threshold(statement.name)
                if threshold is None:
                    raise TrustError("unknown-policy", what, f"trust.json lists no policy {statement.name!r}")
                return threshold
            case RevocationList():
                return self.root.list_threshold
            case TrustRoot():
                return self.root.root_threshold
            case _:
                return 1


def narrowed(signed: Signed[Statement], expected: type[S]) -> Signed[S]:
    """`signed` as a statement of class `expected`.

    Raises:
        TrustError: `wrong-type`: it is of another class.
    """
    statement = signed.statement
    if not isinstance(statement, expected):
        found = type(statement).__name__
        raise TrustError("wrong-type", f"statement {signed.digest}", f"a {found}, expected {expected.__name__}")
    return Signed(statement=statement, signers=signed.signers, digest=signed.digest, envelope=signed.envelope)


def only(signed: Iterable[Signed[Statement]], kind: type[S]) -> tuple[Signed[S], ...]:
    """Those of `signed` whose statement is of class `kind`, in their order."""
    return tuple(narrowed(each, kind) for each in signed if isinstance(each.statement, kind))


def check_number(what: str, seen: tuple[int, Digest], offered: tuple[int, Digest]) -> None:
    """Refuse a number that does not follow the one that was seen; a number stands for one content.

    Raises:
        TrustError: `number-went-back`, `number-jump`, `same-number-other-content`.
    """
    before, content = seen
    number, digest = offered
    if number < before:
        raise TrustError("number-went-back", what, f"got number {number}, {before} was seen")
    if number > before + MAX_RISE:
        raise TrustError("number-jump", what, f"got number {number}, expected at most {MAX_RISE} above {before}")
    if number == before and digest != content:
        raise TrustError("same-number-other-content", what, f"number {number}: got {digest}, {content} was seen")


def _check_roots(envelope: dsse.Envelope, root: TrustRoot, by: Trust, now: datetime, what: str) -> None:
    """Check that enough root keys of `by` signed `envelope`, which holds `root`."""
    keys = {key_id: key for key_id, key in by.keys.items() if key.role is Role.ROOT}
    message = envelope.message
    owners = {
        key.owner
        for signature in envelope.signatures
        if (key := keys.get(signature.key_id)) is not None
        and _objection(key, root, now, what) is None
        and key.key.verifies(message, signature.signature)
    }
    if len(owners) < by.root.root_threshold:
        shown = ", ".join(sorted(owners)) or "none"
        raise TrustError("too-few-roots", what, f"signed by {shown}; expected {by.root.root_threshold} owners of roots")


def _objection(key: TrustedKey, statement: Statement, now: datetime, what: str) -> TrustError | None:
    """Why `key` may not sign `statement`, or None."""
    name = f"key {key.key.id} of {key.owner}"
    kind = type(statement).__name__
    if key.role not in _ROLES[type(statement)]:
        return TrustError("wrong-role", what, f"{name} has the role {key.role}, which signs no {kind}")
    match statement:
        case ImageApproval() | LayerApproval():
            if statement.level not in key.levels:
                return TrustError("wrong-level", what, f"{name} may not approve for level {statement.level}")
        case TagStatement() | IndexClearance() | AuditCheckpoint() | Clearance():
            if statement.registry != key.owner:
                return TrustError("wrong-registry", what, f"{name} signed for registry {statement.registry}")
        case _:
            pass
    if statement.issued < key.not_before or now < key.not_before:
        return TrustError("key-not-yet-valid", what, f"{name} is valid from {format_time(key.not_before)} on")
    if statement.issued >= key.not_after or now >= key.not_after:
        return TrustError("key-expired", what, f"{name} was valid until {format_time(key.not_after)}")
    return None


def _check_times(statement: Statement, now: datetime, grace: timedelta, what: str) -> None:
    if statement.issued > now + SKEW:
        raise TrustError("issued-in-future", what, f"issued {format_time(statement.issued)}, now {now}")
    end = expiry(statement)
    if end is None:
        return
    if end <= statement.issued:
        raise TrustError("malformed", what, f"expires {format_time(end)}, issued {format_time(statement.issued)}")
    if now >= end + grace:
        raise TrustError("expired", what, f"expired {format_time(end)}, now {now}")


def expiry(statement: Statement) -> datetime | None:
    """When `statement` ends by itself; None if it does not."""
    match statement:
        case PolicyStatement() | PolicyFloor() | RevocationList() | Withdrawal() | TagStatement() | AuditCheckpoint():
            return None
        case _:
            return statement.expires
