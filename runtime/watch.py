"""Whether what runs may go on: the admission's proof again, whenever something changed or something ends.

    watch = Watcher(host=host, watched=cleared.proven.watched(), clock=clock)
    launch.run(request, watch=watch)          # asks it every second

Asking costs a few stat calls while nothing has changed. Registries are asked at most every `sync_every` seconds,
by one process of the host at a time and with little patience: a registry that hangs must not hold up the watch. With
`sync_every` None nobody is asked, and somebody else does that.
What happens then is the policy's (`running`): freezing is not there yet, and stops.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from ocispec.access import Access
from ocispec.errors import SpecError
from ocispec.platform import Platform
from policy.clearance import Verified, verify_clearance
from policy.errors import TrustError
from policy.refusal import Refused
from policy.settings import RunAction, RunningTerms, RunTerms
from policy.start import evaluate_start, running_terms, start_evidence
from runtime.admission import policy_of
from runtime.errors import StoreError
from runtime.host import Host
from runtime.model import StopReason
from runtime.pull import renew
from runtime.refused import RefusalError
from runtime.watched import Watched

QUICK: Final = Access(timeout=2.0, attempts=1)
"""How long a registry may keep the watch waiting."""

RENEW_EVERY: Final = timedelta(minutes=10)
"""How often a newer clearance is asked for from half of its life on."""

_STOPS: Final = frozenset({RunAction.FREEZE, RunAction.STOP, RunAction.KILL})
_RAN_OUT: Final = frozenset({"expired", "revocation-list-expired", "no-revocation-list", "trust-expired"})
_REVOKED: Final = frozenset({"key-revoked", "approval-key-revoked", "waiver-key-revoked", "policy-key-revoked"})


@dataclass(slots=True, kw_only=True)
class Watcher:
    """Watches one container. Holds no descriptor, so it survives a change of process."""

    host: Host
    watched: Watched
    clock: Callable[[], datetime]
    sync_every: float | None = 10.0
    _seen: object = None
    _renew_at: datetime | None = None
    _until: datetime | None = None
    _since: datetime | None = None
    _refused: Refused | None = None
    _terms: RunTerms | None = None

    def __call__(self) -> StopReason | None:
        """Why the container has to stop now, or None."""
        now = self.clock()
        if self.sync_every is not None:
            with contextlib.suppress(SpecError, StoreError, TrustError):
                # What is refused there stays refused, and what is stored stays: the proof below decides.
                self.host.sync_if_due(now, self.sync_every, access=QUICK)
        store = self.host.store
        stamp = (self.host.stamp(), store.clearance_stamp(self.watched.record), store.changed_stamp())
        if stamp != self._seen or self._until is None or now >= self._until:
            self._look(now)
            self._seen = stamp
        return self._reason(now)

    def _look(self, now: datetime) -> None:
        answer = stop_terms(self.watched, host=self.host, now=now)
        if isinstance(answer, Verified):
            self._refused = self._terms = self._since = None
            self._until = min(answer.until, now + timedelta(minutes=1))
            if self.sync_every is not None:
                self._renew(answer, now)
            return
        self._refused, self._terms = answer
        self._since = self._since or now
        self._until = now + timedelta(seconds=5)

    def _reason(self, now: datetime) -> StopReason | None:
        if self._refused is None or self._terms is None or self._since is None:
            return None
        if self._terms.action not in _STOPS or now < self._since + self._terms.after:
            return None
        return StopReason(
            code=self._refused.code,
            message=f"{self._refused.subject}: {self._refused.detail}",
            at_once=self._terms.action is RunAction.KILL,
        )

    def _renew(self, verified: Verified, now: datetime) -> None:
        clearance = verified.clearance.statement
        if self._renew_at is not None and now < self._renew_at:
            return
        if now >= clearance.issued + (clearance.expires - clearance.issued) / 2:
            self._renew_at = now + RENEW_EVERY
            with contextlib.suppress(SpecError, StoreError):
                renew(self.watched.record, host=self.host, now=now, access=QUICK)


def stop_terms(watched: Watched, *, host: Host, now: datetime) -> Verified | tuple[Refused, RunTerms]:
    """Prove what runs once more: the proof, or why it fails and what the policy does about that.

    Its bytes were proven when it started and are mounted; that they changed since is what a rehash finds, and counts as
    if its image were revoked.
    The policy is the one in the clearance that the store holds now, which was renewed under it; where that cannot be
    proven, the one that it started under still says what happens.
    """
    record = watched.record
    try:
        changed = sorted(str(digest) for digest, _ in watched.files & host.store.changed())
        if changed:
            refused = Refused(code="files-changed", subject=record.name, detail=f"on the disk: {', '.join(changed)}")
            return refused, watched.running.revoked
        view = host.view(now)
        verified = verify_clearance(
            host.store.clearance(record), subject=record.subject(record.root_index), host=view, now=now
        )
        if isinstance(verified, Refused):
            return verified, _terms_for(verified, watched.running)
        policy = policy_of(verified)
    except (RefusalError, TrustError, StoreError) as error:
        refused = _refused(error, record.name)
        return refused, _terms_for(refused, watched.running)
    level = policy.level(verified.clearance.statement.level)
    evidence = start_evidence(
        verified,
        host=view,
        platform=str(Platform.of_this_host()),
        root_index=record.root_index,
        request=watched.wish.judged(level),
        now=now,
    )
    decision = evaluate_start(policy, evidence)
    terms = running_terms(policy, decision)
    if terms is None:
        return verified
    first = decision.refusals[0]
    return Refused(code=first.reason, subject=first.subject, detail=first.message), terms


def _refused(error: RefusalError | TrustError | StoreError, subject: str) -> Refused:
    match error:
        case RefusalError():
            return error.refused
        case TrustError():
            return Refused.of(error)
        case StoreError():
            return Refused(code="no-clearance", subject=subject, detail=str(error))


def _terms_for(refused: Refused, running: RunningTerms) -> RunTerms:
    code = refused.code
    if code.startswith("revoked-") or code in _REVOKED:
        return running.revoked
    return running.expired if code in _RAN_OUT or code.endswith("-expired") else running.denied
