"""What the signer was shown and believes: trust.json, policies and floors, the revocation list, withdrawals.

Each of the highest number that it ever saw, in its own memory; who asks for a signature does not bring them along.
"""

from __future__ import annotations

from datetime import datetime

from ocispec.digest import Digest
from policy.errors import TrustError
from policy.load import load_verified
from policy.model import Signed
from policy.settings import Policy
from policy.statements import PolicyFloor, PolicyStatement, RevocationList, Statement, Withdrawal
from policy.trust import Trust, check_number
from registry.signer.memory import Current, Memory


class Knowledge:
    """The numbered statements in a signer's memory; `now` is an argument everywhere."""

    def __init__(self, memory: Memory) -> None:
        """Over the memory of a signer."""
        self._memory = memory
        self._trust: tuple[Digest, Trust] | None = None
        self._policy: tuple[Digest, Signed[PolicyStatement], Policy] | None = None

    def take_trust(self, envelope: bytes, now: datetime) -> Trust:
        """Take a trust.json: the first one as it is, a newer one by the rules of `Trust.update`.

        Raises:
            TrustError: as those say.
        """
        with self._memory.change():
            stored = self.newest("trust")
            before = Trust.stored(stored.envelope, now) if stored is not None else None
            trust = Trust.parse(envelope, now) if before is None else before.update(envelope, now)
            if before is None or trust.digest != before.digest:
                self.put("trust", trust.root.version, trust.digest, trust.root.issued, envelope)
        return trust

    def learn(self, envelope: bytes, now: datetime) -> Signed[Statement]:
        """Remember what officers published: a policy, a floor, a revocation list, a withdrawal.

        Raises:
            TrustError: not believed; `number-went-back` and its like; `wrong-type`: nothing to remember.
            PolicyError: a policy that cannot be used.
        """
        kinds = (PolicyStatement, PolicyFloor, RevocationList, Withdrawal)
        signed = self.trust(now).verify_any(envelope, kinds, now)
        match signed.statement:
            case PolicyStatement(name=name, version=number, issued=issued):
                load_verified(signed.statement.document)
                self.follow(f"policy:{name}", number, issued, signed)
            case PolicyFloor(name=name, version=number, issued=issued):
                self.follow(f"floor:{name}", number, issued, signed)
            case RevocationList(number=number, issued=issued):
                self.follow("list", number, issued, signed)
            case Withdrawal(statement=statement):
                self._memory.withdraw(statement)
            case _:
                raise TrustError("wrong-type", f"statement {signed.digest}", "nothing that the signer remembers")
        return signed

    def trust(self, now: datetime) -> Trust:
        """Its trust.json, without the keys that its revocation list names.

        Raises:
            TrustError: `no-trust`; the list is not believed any more.
        """
        root, listed = self._root(now), self.revocations(now)
        return root if listed is None else root.revoking(listed.keys)

    def revocations(self, now: datetime) -> RevocationList | None:
        """Its revocation list, or None.

        Raises:
            TrustError: `no-trust`; the list is not believed any more.
        """
        stored = self.newest("list")
        return None if stored is None else self._root(now).verify(stored.envelope, RevocationList, now).statement

    def newest_policy(self) -> Current | None:
        """Of the newest version of each policy, the one published last: that is what the registry applies."""
        return max(self._memory.currents("policy:"), key=lambda found: (found.issued, found.name), default=None)

    def policy(self, now: datetime) -> tuple[Signed[PolicyStatement], Policy]:
        """The policy in force, as signed and as values.

        Raises:
            TrustError: `no-policy`, `policy-below-floor`, or it is not believed any more.
        """
        stored = self.newest_policy()
        if stored is None:
            raise TrustError("no-policy", "policy", "none was published yet")
        signed = self.trust(now).verify(stored.envelope, PolicyStatement, now)
        floor = self.newest(f"floor:{signed.statement.name}")
        if floor is not None and signed.statement.version < floor.number:
            detail = f"version {signed.statement.version}, the floor is {floor.number}"
            raise TrustError("policy-below-floor", f"policy {signed.statement.name}", detail)
        if self._policy is None or self._policy[0] != signed.digest:
            self._policy = (signed.digest, signed, load_verified(signed.statement.document))
        return self._policy[1], self._policy[2]

    def newest(self, name: str) -> Current | None:
        """The newest `trust`, `list`, `audit`, `policy:NAME` or `floor:NAME`."""
        return self._memory.current(name)

    def follow(self, name: str, number: int, issued: datetime, signed: Signed[Statement]) -> None:
        """Remember a statement whose number must follow the one before it.

        Raises:
            TrustError: it does not.
        """
        with self._memory.change():  # reading too: another signer may be shown the same
            before = self.newest(name)
            if before is not None:
                check_number(name, (before.number, before.digest), (number, signed.digest))
                if number == before.number:
                    return
            self.put(name, number, signed.digest, issued, signed.envelope)

    def put(
        self, name: str, number: int, digest: Digest, issued: datetime, envelope: bytes, *, counts: bool = True
    ) -> None:
        """Remember the newest of something; the caller has compared the numbers in the same change."""
        current = Current(name=name, number=number, digest=digest, issued=issued, envelope=envelope)
        self._memory.put_current(current, counts=counts)

    def _root(self, now: datetime) -> Trust:
        stored = self.newest("trust")
        if stored is None:
            raise TrustError("no-trust", "trust.json", "none was given yet")
        if self._trust is None or self._trust[0] != stored.digest:
            self._trust = (stored.digest, Trust.stored(stored.envelope, now))
        return self._trust[1]
