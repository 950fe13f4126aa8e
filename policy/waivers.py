"""Waivers: signed exceptions, applied after the rules have spoken.

A waiver turns a refusal into an Allow that says so. It fits by rule, advisory (or one of its other names), component
and scope, and counts only while it lasts, if the policy says that this rule may be waived at this level, by these
people, for so long. There is one function for it, and so one expiry for every path (S9): the registry, a rescan, the
command line and the host call it with their own `now`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ocispec.digest import Digest
from policy.approvals import Counting, Tally, count_waiver
from policy.errors import PolicyError
from policy.globs import Glob
from policy.model import Note, Outcome, Signed, Verdict
from policy.rules.interface import split_purl
from policy.settings import Policy, WaiverTerms, spell_duration
from policy.statements import Waiver


@dataclass(frozen=True, slots=True, kw_only=True)
class Waived:
    """The verdicts after waivers, the waivers that were needed, and when the first of those ends."""

    verdicts: tuple[Verdict, ...]
    rests_on: tuple[Digest, ...]
    ends: datetime | None


@dataclass(frozen=True, slots=True)
class _Exception:
    """A waiver made ready: its globs compiled, or why they cannot be."""

    signed: Signed[Waiver]
    component: Glob | None
    problem: str

    def fits(self, verdict: Verdict) -> bool:
        """True if the waiver is about this refusal, whether it counts or not."""
        waiver = self.signed.statement
        if waiver.rule not in {"*", verdict.rule} or (waiver.advisory and waiver.advisory not in verdict.ids):
            return False
        if not waiver.component:
            return True
        if self.component is None:
            return waiver.component == verdict.subject
        forms = split_purl(verdict.subject) if verdict.subject.startswith("pkg:") else ()
        return any(self.component.matches(form) for form in (verdict.subject, *forms))


def apply_waivers(
    policy: Policy,
    verdicts: Sequence[Verdict],
    waivers: Iterable[Signed[Waiver]],
    level: str,
    counting: Counting,
) -> Waived:
    """Return `verdicts` with those refusals turned to Allow that a waiver covers, at `level`.

    A waiver that would fit but does not count is noted, with its reason, beside the refusal that stays.
    """
    exceptions = _exceptions(waivers, counting.repository)
    kept: list[Verdict] = []
    notes: dict[tuple[Digest, str], Verdict] = {}
    used: dict[Digest, datetime] = {}
    for verdict in verdicts:
        terms = None if verdict.reason == "rule-failed" else policy.waiver_terms(verdict.rule, level)
        if verdict.outcome is Outcome.ALLOW:
            kept.append(verdict)
            continue
        refusal = replace(verdict, waivable_by=str(terms) if terms is not None else "")
        best: tuple[Tally, Signed[Waiver]] | None = None
        for exception in exceptions:
            if not exception.fits(verdict):
                continue
            judged = _judge(exception, terms, level, counting)
            if isinstance(judged, Verdict):
                notes[_note_key(judged, exception)] = judged
            elif best is None or exception.signed.statement.expires > best[1].statement.expires:
                best = judged, exception.signed
        if best is None:
            kept.append(refusal)
        else:
            waiver = best[1]
            used[waiver.digest] = waiver.statement.expires
            kept.append(_waived(refusal, waiver))
    return Waived(
        verdicts=(*kept, *(notes[key] for key in sorted(notes, key=lambda key: (str(key[0]), key[1])))),
        rests_on=tuple(sorted(used)),
        ends=min(used.values(), default=None),
    )


def waiver_objection(policy: Policy, signed: Signed[Waiver], level: str, counting: Counting) -> tuple[str, str] | None:
    """Why `signed` counts for no rule at `level`, as a code and words; None if it counts for one."""
    exceptions = _exceptions([signed], counting.repository)
    if not exceptions:
        return "waiver-out-of-scope", f"its scope is {signed.statement.scope}, not {counting.repository}"
    named = [signed.statement.rule] if signed.statement.rule != "*" else [*_waivable_rules(policy)]
    notes = [_judge(exceptions[0], policy.waiver_terms(rule, level), level, counting) for rule in named]
    if any(isinstance(note, Tally) for note in notes):
        return None
    refused = [note for note in notes if isinstance(note, Verdict)]
    if not refused:
        return "waiver-not-possible", "the policy lets nobody waive anything"
    return refused[0].reason, refused[0].message


def _waivable_rules(policy: Policy) -> Iterable[str]:
    return sorted({rule for terms in policy.waivers for rule in terms.rules})


def _note_key(note: Verdict, exception: _Exception) -> tuple[Digest, str]:
    """One note for each waiver and reason, however many refusals it would fit."""
    return exception.signed.digest, note.reason


def _exceptions(waivers: Iterable[Signed[Waiver]], repository: str) -> list[_Exception]:
    """The waivers in whose scope `repository` is; one that several people signed apart is one, with all signers."""
    joined: dict[Digest, Signed[Waiver]] = {}
    for signed in waivers:
        known = joined.get(signed.digest)
        if known is not None:
            signers = {signer.key: signer for signer in (*known.signers, *signed.signers)}
            joined[signed.digest] = replace(known, signers=tuple(signers[key] for key in sorted(signers)))
        else:
            joined[signed.digest] = signed
    ready: list[_Exception] = []
    for digest in sorted(joined):
        waiver = joined[digest].statement
        try:
            scope = Glob.compile(waiver.scope)
            component = Glob.compile(waiver.component) if waiver.component else None
        except PolicyError as error:
            ready.append(_Exception(joined[digest], None, str(error)))
            continue
        if scope.matches(repository):
            ready.append(_Exception(joined[digest], component, ""))
    return ready


def _judge(exception: _Exception, terms: WaiverTerms | None, level: str, counting: Counting) -> Tally | Verdict:
    """The count of the waiver's signers if it counts, else the note that says why not."""
    signed = exception.signed
    waiver = signed.statement
    if exception.problem:
        return _note(signed, "waiver-unreadable", exception.problem)
    if waiver.rule == "*" and not waiver.advisory and not waiver.component:
        return _note(signed, "waiver-too-wide", "names neither a rule nor an advisory nor a component")
    if terms is None:
        return _note(signed, "waiver-not-possible", f"the policy lets nobody waive this at level {level or '(none)'}")
    if waiver.expires - waiver.issued > terms.max_duration:
        lasts = spell_duration(waiver.expires - waiver.issued)
        return _note(signed, "waiver-too-long", f"lasts {lasts}, at most {spell_duration(terms.max_duration)} count")
    tally = count_waiver(signed, level, terms.by, counting)
    if not tally.met:
        code = "waiver-quorum-not-met" if tally.owners else tally.code or "waiver-unsigned"
        return _note(signed, code, tally.explain())
    return tally


def _note(signed: Signed[Waiver], reason: str, detail: str) -> Verdict:
    waiver = signed.statement
    return Verdict(
        rule="waivers",
        outcome=Outcome.ALLOW,
        reason=reason,
        subject=str(signed.digest),
        message=f"the waiver of {waiver.owner} ({waiver.ticket or 'no ticket'}) does not count: {detail}",
    )


def _waived(refusal: Verdict, signed: Signed[Waiver]) -> Verdict:
    waiver = signed.statement
    ticket = f", {waiver.ticket}" if waiver.ticket else ""
    return replace(
        refusal,
        outcome=Outcome.ALLOW,
        note=Note.WAIVED,
        waived_by=str(signed.digest),
        until=waiver.expires,
        message=f"{refusal.message}; waived by {waiver.owner} until {waiver.expires:%Y-%m-%d}: {waiver.reason}{ticket}",
    )
