"""Which approvals count, and whether they are enough: different owners, of the right role, for this level, now.

An approval that does not count is never silently dropped: it becomes a `Discount` with its own code, so that a
refusal can say "expired yesterday" where a peer says "not signed".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from ocispec.digest import Digest
from policy.model import Signed, Signer
from policy.settings import ApprovalTerms, Level, Quorum, spell_duration, spell_quorums
from policy.statements import ImageApproval, LayerApproval, RevocationList, Role, Waiver, Withdrawal
from policy.times import SKEW


@dataclass(frozen=True, slots=True, kw_only=True)
class Discount:
    """A statement that does not count: `code` is the reason that a refusal carries."""

    code: str
    statement: Digest
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One thing that keeps an image from its place; `layer` is an index or None."""

    reason: str
    subject: str
    message: str
    layer: int | None = None
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The outcome of one count.

    `rests_on` are the statements that were needed, `ends` when the quorum falls apart without newer ones;
    `owners` everybody whose signature counts.
    """

    met: bool
    wanted: tuple[Quorum, ...]
    owners: tuple[tuple[Role, str], ...] = ()
    rests_on: tuple[Digest, ...] = ()
    ends: datetime | None = None
    discounts: tuple[Discount, ...] = ()

    @property
    def code(self) -> str:
        """The reason for which the quorum was not met: the first discount's if nobody counts; "" if nobody signed."""
        if self.owners:
            return "quorum-not-met"
        return self.discounts[0].code if self.discounts else ""

    def explain(self) -> str:
        """For people: who is wanted, who counts, and what did not count."""
        counted = ", ".join(f"{owner} ({role})" for role, owner in self.owners) or "none"
        text = f"wants {spell_quorums(self.wanted)}; counted: {counted}"
        if self.discounts:
            text += "; not counted: " + "; ".join(discount.detail for discount in self.discounts[:4])
            if len(self.discounts) > 4:
                text += f"; and {len(self.discounts) - 4} more"
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """What every count needs: the time, where the image is, and what no longer holds."""

    now: datetime
    repository: str
    withdrawals: Mapping[Digest, tuple[Signed[Withdrawal], ...]]
    revoked_keys: frozenset[str]
    revoked_statements: frozenset[Digest]

    @classmethod
    def of(
        cls,
        *,
        now: datetime,
        repository: str,
        withdrawals: Iterable[Signed[Withdrawal]],
        revocations: Signed[RevocationList] | None,
    ) -> Counting:
        """Index the withdrawals by what they withdraw; `repository` is `registry/repository`."""
        listed = revocations.statement if revocations is not None else None
        found: dict[Digest, tuple[Signed[Withdrawal], ...]] = {}
        for withdrawal in withdrawals:
            key = withdrawal.statement.statement
            found[key] = (*found.get(key, ()), withdrawal)
        return cls(
            now=now,
            repository=repository,
            withdrawals=found,
            revoked_keys=frozenset(listed.keys if listed is not None else ()),
            revoked_statements=frozenset(listed.digests if listed is not None else ()),
        )

    def withdrawn(self, signed: Signed[ImageApproval] | Signed[LayerApproval] | Signed[Waiver]) -> bool:
        """True if an officer, or an owner who signed it, took it back. A withdrawal has no date that it waits for."""
        own = {signer.owner for signer in signed.signers}
        return any(
            signer.role is Role.OFFICER or signer.owner in own
            for withdrawal in self.withdrawals.get(signed.digest, ())
            for signer in withdrawal.signers
        )

    def out_of_time(
        self, signed: Signed[ImageApproval] | Signed[LayerApproval] | Signed[Waiver], prefix: str
    ) -> Discount | None:
        """Why a statement does not count at this time, whoever signed it; codes begin with `prefix`."""
        statement = signed.statement
        who = ", ".join(signer.owner for signer in signed.signers)
        if signed.digest in self.revoked_statements:
            return Discount(code=f"{prefix}-revoked", statement=signed.digest, detail=f"{who}: revoked")
        if self.withdrawn(signed):
            return Discount(code=f"{prefix}-withdrawn", statement=signed.digest, detail=f"{who}: withdrawn")
        if statement.issued > self.now + SKEW:
            detail = f"{who}: issued {_day(statement.issued)}, which is in the future"
            return Discount(code=f"{prefix}-not-yet-valid", statement=signed.digest, detail=detail)
        if self.now >= statement.expires:
            detail = f"{who}: expired {_day(statement.expires)}"
            return Discount(code=f"{prefix}-expired", statement=signed.digest, detail=detail)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One counted signature, and when it stops counting."""

    ends: datetime
    statement: Digest
    role: Role
    owner: str


def count_approvals(
    approvals: Iterable[Signed[ImageApproval] | Signed[LayerApproval]],
    level: Level,
    wanted: tuple[Quorum, ...],
    counting: Counting,
    discounts: Iterable[Discount] = (),
) -> Tally:
    """Count `approvals`, which all say the same of the same object, for `level`.

    `discounts` are those which the caller already put aside, because they are of another object.
    """
    votes: list[Vote] = []
    aside = list(discounts)
    roles = {role for quorum in wanted for role, _ in quorum.counts}
    for signed in approvals:
        found = _votes(signed, level, roles, counting)
        if isinstance(found, Discount):
            aside.append(found)
        else:
            votes += found
    return tally(votes, wanted, aside)


def count_waiver(waiver: Signed[Waiver], level: str, by: tuple[Quorum, ...], counting: Counting) -> Tally:
    """Count the signatures of one waiver against those who may waive."""
    late = counting.out_of_time(waiver, "waiver")
    if late is not None:
        return tally((), by, (late,))
    roles = {role for quorum in by for role, _ in quorum.counts}
    votes: list[Vote] = []
    aside: list[Discount] = []
    for signer in waiver.signers:
        refusal = _signer_refusal(signer, level, roles, counting, "waiver")
        if refusal is None:
            ends = waiver.statement.expires
            votes.append(Vote(ends=ends, statement=waiver.digest, role=signer.role, owner=signer.owner))
        else:
            aside.append(Discount(code=refusal[0], statement=waiver.digest, detail=refusal[1]))
    return tally(votes, by, aside)


def tally(votes: Iterable[Vote], wanted: tuple[Quorum, ...], discounts: Iterable[Discount]) -> Tally:
    """The count: for each alternative the votes that last longest, and of those alternatives the longest."""
    ordered = sorted(votes, key=lambda vote: (-vote.ends.timestamp(), str(vote.statement), vote.role, vote.owner))
    owners = tuple(sorted({(vote.role, vote.owner) for vote in ordered}))
    aside = tuple(sorted(discounts, key=lambda discount: (discount.code, str(discount.statement), discount.detail)))
    best: list[Vote] | None = None
    for quorum in wanted:
        needed = _needed(ordered, quorum)
        if needed and (best is None or needed[-1].ends > best[-1].ends):
            best = needed
    if best is None:
        return Tally(met=False, wanted=wanted, owners=owners, discounts=aside)
    digests = tuple(sorted({vote.statement for vote in best}))
    return Tally(met=True, wanted=wanted, owners=owners, rests_on=digests, ends=best[-1].ends, discounts=aside)


def _needed(ordered: list[Vote], quorum: Quorum) -> list[Vote] | None:
    """The shortest run of votes, longest-lasting first, that meets `quorum`; None if all of them do not."""
    roles = {role for role, _ in quorum.counts}
    fitting = [vote for vote in ordered if vote.role in roles]
    for length in range(1, len(fitting) + 1):
        if quorum.met_by((vote.role, vote.owner) for vote in fitting[:length]):
            return fitting[:length]
    return None


def _votes(
    signed: Signed[ImageApproval] | Signed[LayerApproval], level: Level, roles: set[Role], counting: Counting
) -> list[Vote] | Discount:
    late = counting.out_of_time(signed, "approval")
    if late is not None:
        return late
    ends = signed.statement.expires
    if level.approval.max_age is not None:
        ends = min(ends, signed.statement.issued + level.approval.max_age)
        if counting.now >= ends:
            detail = f"older than the {spell_duration(level.approval.max_age)} that level {level.name} allows"
            return Discount(code="approval-too-old", statement=signed.digest, detail=detail)
    votes: list[Vote] = []
    refusals: list[tuple[str, str]] = []
    for signer in signed.signers:
        refusal = _signer_refusal(signer, level.name, roles, counting, "approval")
        refusal = refusal or _team_refusal(signer, level.approval, counting.repository)
        if refusal is None:
            votes.append(Vote(ends=ends, statement=signed.digest, role=signer.role, owner=signer.owner))
        else:
            refusals.append(refusal)
    if votes:
        return votes
    code, detail = min(refusals, default=("approval-unsigned", "nobody signed it"))
    return Discount(code=code, statement=signed.digest, detail=detail)


def _signer_refusal(
    signer: Signer, level: str, roles: set[Role], counting: Counting, prefix: str
) -> tuple[str, str] | None:
    who = f"{signer.owner} ({signer.role})"
    if signer.key in counting.revoked_keys:
        return f"{prefix}-revoked-key", f"{who}: the key is revoked"
    if signer.role not in roles:
        return f"{prefix}-wrong-role", f"{who}: this role does not count here"
    if level not in signer.levels:
        return f"{prefix}-wrong-level", f"{who}: the key is for {', '.join(signer.levels) or 'no level'}, not {level}"
    return None


def _team_refusal(signer: Signer, terms: ApprovalTerms, repository: str) -> tuple[str, str] | None:
    if signer.role is not Role.TEAM:
        return None
    for team in terms.teams:
        if team.owner.matches(signer.owner) and any(glob.matches(repository) for glob in team.repositories):
            return None
    return "approval-wrong-team", f"{signer.owner} (team): may not approve for {repository}"


def _day(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"


def soonest(times: Iterable[datetime | None]) -> datetime | None:
    """The earliest of `times`, None for none."""
    return min((time for time in times if time is not None), default=None)


def union(*groups: tuple[Digest, ...]) -> tuple[Digest, ...]:
    """All digests of all groups, once each, in order."""
    return tuple(sorted({digest for group in groups for digest in group}))
