"""The last gate: at every start, also offline, the image is proven again before anything of it is mounted.

 (1) Which image is meant: a digest names it; a tag by the signed statement that was kept when it was pulled,
     whose number may not be below one that this host has seen (S6, S10).
 (2) What this host believes: its memory, which the clock may not stand below, trust.json, and the revocation
     list with its date.
 (3) The root index is opened once, belongs to us alone, and is hashed, or known by its seal (runtime.opened).
 (4) The clearance is proven, with all that it embeds, for this very image and index, now (policy.clearance).
 (5) The start policy that it embeds decides about this request on this host (policy.start).
 (6) Each layer is opened once, belongs to us alone, and its hash, or that of its seal, is the clearance's.
 (7) The time of the clearance is remembered, so that the clock cannot go back behind it.
 (8) The request to the sandbox is made of the clearance and the wish, with those descriptors as its root.

Nothing of the image is parsed, no socket is opened, and a refusal is a value with a code and its object.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final, Self

from ocispec.errors import LimitError
from ocispec.platform import Platform
from ocispec.reference import Reference
from policy.clearance import HostView, Verified, verify_clearance
from policy.errors import PolicyError, TrustError
from policy.hoststate import see_time
from policy.load import load_verified
from policy.model import Decision, Note
from policy.model import StartRequest as Asked
from policy.refusal import Refused
from policy.served import verify_tag
from policy.settings import Policy
from policy.start import evaluate_start, start_evidence
from policy.times import format_time
from runtime.changed import FileName
from runtime.errors import StoreError
from runtime.host import Host
from runtime.images import ImageRecord
from runtime.linux.owned import Owned
from runtime.model import ContainerId, Root, Shown, StartRequest
from runtime.opened import OpenedFiles
from runtime.refused import RefusalError, refuse, unless_refused
from runtime.settings import Depth
from runtime.watched import Watched
from runtime.wish import Wish

PROOF_AGE: Final = timedelta(minutes=1)
"""How long a proof is remembered at most."""
MAX_DECISIONS: Final = 64
"""Requests for one image whose decisions are remembered."""
MAX_PROOFS: Final = 1000
"""Images whose proofs are remembered."""
_NOBODY: Final = Wish(name=ContainerId("verify"))
"""What `verify` asks for: the image as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """An image that was proven now: what it is, its files, what proves it, and what the start policy says."""

    record: ImageRecord
    files: frozenset[FileName]
    verified: Verified
    policy: Policy
    decision: Decision
    wish: Wish
    notes: tuple[str, ...]

    def watched(self) -> Watched:
        """What is needed to judge it while it runs."""
        return Watched(record=self.record, files=self.files, wish=self.wish, running=self.policy.running)


@dataclass(slots=True, kw_only=True)
class Cleared:
    """A start that is allowed. It owns the descriptors in `request.root`: close it when the start has returned."""

    proven: Proven
    request: StartRequest
    _fds: Sequence[int] = field(repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the root's descriptors."""
        fds, self._fds = self._fds, ()
        for fd in fds:
            os.close(fd)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trusted:
    """What steps (1), (2) and (4) prove, whatever is asked for."""

    view: HostView
    record: ImageRecord
    verified: Verified
    policy: Policy
    decisions: dict[Asked, Decision] = field(default_factory=dict)
    """What the start policy said of what was asked for, by this very evidence."""

    def decide(self, asked: Asked, platform: Platform, now: datetime) -> Decision:
        """Step (5). The same evidence and the same question have the same answer, until one of them ends."""
        known = self.decisions.get(asked)
        if known is not None and (known.valid_until is None or now < known.valid_until):
            return known
        # The root index here was found to have the clearance's digest: (3) and (4).
        evidence = start_evidence(
            self.verified,
            host=self.view,
            platform=str(platform),
            root_index=self.verified.clearance.statement.root_index,
            request=asked,
            now=now,
        )
        decision = evaluate_start(self.policy, evidence)
        if len(self.decisions) >= MAX_DECISIONS:
            self.decisions.clear()
        self.decisions[asked] = decision
        return decision


class Proofs:
    """Remembers what was proven of images, until anything changes that it was proven from: for who starts many.

    Remembered are the signatures and what they say (steps 1, 2 and 4), and what the start policy says of the same
    request (5). The files of the image and the clock are looked at at every start.
    """

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._known: dict[tuple[str, str], tuple[object, datetime, datetime, _Trusted]] = {}

    def get(self, reference: Reference, platform: Platform, host: Host, now: datetime) -> _Trusted | None:
        """What was proven of the image and holds now."""
        found = self._known.get((str(reference), str(platform)))
        if found is None:
            return None
        stamps, since, until, trusted = found
        return trusted if since <= now < until and stamps == _stamps(host, reference, trusted.record) else None

    def put(
        self, reference: Reference, platform: Platform, now: datetime, stamps: tuple[object, object], trusted: _Trusted
    ) -> None:
        """Remember a proof of `now`, made from what these stamps were of."""
        if len(self._known) >= MAX_PROOFS:
            self._known.clear()
        until = min(trusted.verified.until, now + PROOF_AGE)
        self._known[str(reference), str(platform)] = (stamps, now, until, trusted)


def _stamps(host: Host, reference: Reference, record: ImageRecord) -> tuple[object, object]:
    """Changes whenever anything does that a proof is made from."""
    return (host.stamp(), host.store.image_stamps(reference, record))


def admit(
    reference: Reference,
    wish: Wish,
    *,
    host: Host,
    now: datetime,
    platform: Platform | None = None,
    proofs: Proofs | None = None,
) -> Cleared | Refused:
    """Prove the image that `reference` names in the store, and make the request to start it; see the module.

    `proofs` remembers between calls what need not be proven again.

    Raises:
        RequestError: the wish is nothing that can be started (no program, a bad working directory).
    """
    with host.store.shared(), Owned() as owned:
        try:
            here = platform or Platform.of_this_host()
            proven, index, layers = _prove(reference, wish, host, now, here, owned, proofs=proofs)
            clearance = proven.verified.clearance.statement
            shown = Shown(
                image=str(reference), digest=str(clearance.manifest), level=clearance.level, notes=proven.notes
            )
            root = Root(index_fd=index, layer_fds=layers)
            request = proven.wish.request(clearance, root, shown)  # (8)
        except (RefusalError, TrustError, StoreError, LimitError) as error:
            return _refused(error, reference)
        return Cleared(proven=proven, request=request, _fds=tuple(owned.release(fd) for fd in (index, *layers)))


def verify(reference: Reference, *, host: Host, now: datetime, platform: Platform | None = None) -> Proven | Refused:
    """Prove the image in the store as for a start, with every byte hashed in any case, and start nothing."""
    with host.store.shared(), Owned() as owned:
        try:
            here = platform or Platform.of_this_host()
            return _prove(reference, _NOBODY, host, now, here, owned, depth=Depth.ALWAYS)[0]
        except (RefusalError, TrustError, StoreError, LimitError) as error:
            return _refused(error, reference)


def find(reference: Reference, *, host: Host, view: HostView, now: datetime) -> ImageRecord | Refused:
    """The image in the store that `reference` names: step (1)."""
    digest = reference.digest
    if digest is None:
        statement = host.store.tag(reference)
        if statement is None:
            return Refused(code="not-pulled", subject=str(reference), detail="no image of this tag is in the store")
        listed = view.revocations
        proven = verify_tag(
            statement,
            registry=reference.registry,
            repository=reference.repository,
            tag=reference.tag or "latest",
            trust=view.trust if listed is None else view.trust.revoking(listed.list.statement.keys),
            state=view.state,
            now=now,
        )
        if isinstance(proven, Refused):
            return proven
        digest = proven[0].statement.digest
    record = host.store.find(reference.registry, reference.repository, digest)
    if record is None:
        return Refused(code="not-pulled", subject=str(reference), detail=f"no image {digest} is in the store")
    return record


def policy_of(verified: Verified) -> Policy:
    """The policy that the clearance embeds.

    Raises:
        RefusalError: this version of pratique cannot read it.
    """
    said = verified.policy.statement
    try:
        return load_verified(said.document)
    except PolicyError as error:
        raise refuse("policy-unreadable", f"policy {said.name} version {said.version}", str(error)) from None


def _refused(error: RefusalError | TrustError | StoreError | LimitError, reference: Reference) -> Refused:
    match error:
        case RefusalError():
            return error.refused
        case TrustError():
            return Refused.of(error)
        case _:
            return Refused(code="store-unusable", subject=str(reference), detail=str(error))


def _prove(
    reference: Reference,
    wish: Wish,
    host: Host,
    now: datetime,
    platform: Platform,
    owned: Owned,
    *,
    depth: Depth | None = None,
    proofs: Proofs | None = None,
) -> tuple[Proven, int, tuple[int, ...]]:
    """Steps 1 to 7: what was proven, and the root index and the layers (lowest first), open and `owned`."""
    files = OpenedFiles(store=host.store, depth=depth or host.settings().depth, owned=owned)
    known = proofs.get(reference, platform, host, now) if proofs is not None else None
    if known is not None:
        index, root_index = files.index(known.record.root_index)  # (3)
    if known is None or root_index != known.record.root_index:
        seen = host.stamp()
        view = host.view(now)  # (2), of which (1) needs the memory
        record = unless_refused(find(reference, host=host, view=view, now=now))  # (1)
        stamps = _stamps(host, reference, record)
        index, root_index = files.index(record.root_index)  # (3)
        subject, envelope = record.subject(root_index), _clearance(host, record)
        verified = unless_refused(verify_clearance(envelope, subject=subject, host=view, now=now))  # (4)
        known = _Trusted(view=view, record=record, verified=verified, policy=policy_of(verified))
        # Everything was read after the stamps were taken, or still is what it was before.
        if proofs is not None and stamps[0] == seen and find(reference, host=host, view=view, now=now) == record:
            proofs.put(reference, platform, now, stamps, known)
    view, record, verified, policy = known.view, known.record, known.verified, known.policy
    wish = wish.limited(policy.start)
    asked = wish.judged(policy.level(verified.clearance.statement.level))
    decision = known.decide(asked, platform, now)  # (5)
    if not decision.allowed:
        raise RefusalError(_refusal_of(decision))
    layers = files.layers(verified.clearance.statement.diff_ids)  # (6)
    issued = verified.clearance.statement.issued
    if see_time(view.state, issued, now) != view.state:
        host.remember(lambda state: (None, see_time(state, issued, now)))  # (7)
    proven = Proven(
        record=record,
        files=frozenset(files.names),
        verified=verified,
        policy=policy,
        decision=decision,
        wish=wish,
        notes=notes_of(verified, decision),
    )
    return proven, index, layers


def _clearance(host: Host, record: ImageRecord) -> bytes:
    try:
        return host.store.clearance(record)
    except StoreError as error:
        raise refuse("no-clearance", record.name, str(error)) from None


def _refusal_of(decision: Decision) -> Refused:
    first, *others = decision.refusals
    more = f"; and {len(others)} more: {', '.join(verdict.reason for verdict in others[:8])}" if others else ""
    return Refused(code=first.reason, subject=first.subject, detail=first.message + more)


def notes_of(verified: Verified, decision: Decision) -> tuple[str, ...]:
    """What `ps` shows beside an image that may run: what ends soon, and what was let through with a warning."""
    notes = [f"{verdict.reason}: {verdict.message}" for verdict in decision.verdicts if verdict.note is Note.WARNING]
    if verified.clearance.statement.state != "cleared":
        notes.append(f"state {verified.clearance.statement.state}")
    if verified.list_stale:
        notes.append(f"the revocation list is past its end; all stops {format_time(verified.until)}")
    return tuple(notes)
