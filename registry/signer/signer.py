"""What the signer signs, and what it refuses, whoever asks.

Whoever asks is taken to be hostile: the judge may have been taken over by an image, the catalogue by the web. So
what is asked never carries a verdict, a number, or a statement of who signed what. The signer

 (1) keeps its own trust.json, revocation list and policy, of the highest number that it was ever shown;
 (2) verifies every envelope in the evidence again, and takes the Decision itself;
 (3) counts tags by itself, and moves a tag only to what its own last, still valid clearance clears there;
 (4) signs for its own registry name only, and never the content or number of a revocation list;
 (5) verifies what it has signed as a host would, before it hands it out.

What it must believe are the facts of the scan: that these bytes have these files and components.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from ocispec.digest import Digest
from ocispec.manifest import Index, parse_manifest
from ocispec.reference import Reference, check_repository, check_tag
from policy import codec, dsse
from policy.clearance import MAX_CLEARANCE_LIFETIME, make_clearance
from policy.cosign import simple_signing
from policy.errors import PolicyError, TrustError
from policy.evaluate import evaluate
from policy.keys import SigningKey
from policy.model import Decision, Evidence, Signed
from policy.revocation import LIST_LIFETIME, MAX_LIST_LIFETIME, matches
from policy.seal import seal
from policy.settings import Policy
from policy.statements import (
    AuditCheckpoint,
    Clearance,
    IndexClearance,
    ListDate,
    PolicyStatement,
    Statement,
    TagStatement,
)
from policy.times import SKEW, whole_seconds
from policy.trust import STATEMENTS, Trust, narrowed
from registry.indexes import check_index
from registry.signer.knowledge import Knowledge
from registry.signer.memory import Memory, TagMemory

MAX_MOVES_A_DAY: Final = 200
"""Statements on one tag a day. Hosts take a number that rose by 1,000 at most: a worker that was taken over must
not burn a tag for them by moving it to and fro."""

S = TypeVar("S", bound=Statement)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the signer knows of itself; numbers are 0 where there is nothing yet."""

    registry: str
    key: str
    memory: str
    pem: bytes
    trust: int
    revocations: int
    policy: str
    policy_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A Decision, and the clearance if it allows; `obstacle` says why an allowed image could not be cleared."""

    decision: Decision
    clearance: bytes | None
    obstacle: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimpleSignature:
    """A simple-signing payload about `digest`, and the signature over it (cosign, podman)."""

    digest: Digest
    payload: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedTag:
    """A tag statement, and the same fact in simple signing: of the digest, and for an index of its cleared
    children too, because podman looks for a signature on the child that it chose."""

    statement: bytes
    simple: tuple[SimpleSignature, ...]


class Signer:
    """Holds the key. `clock` gives aware UTC times; one thread."""

    def __init__(self, *, key: SigningKey, registry: str, memory: Memory, clock: Callable[[], datetime]) -> None:
        """`registry` is the name that everything is signed for."""
        self._key, self._registry, self._memory, self._clock = key, registry, memory, clock
        self._knows = Knowledge(memory)

    # ---- what it is shown ---------------------------------------------------------------------------------

    def status(self) -> Status:
        """What it is and knows."""
        trust, revocations, policy = (
            self._knows.newest("trust"),
            self._knows.newest("list"),
            self._knows.newest_policy(),
        )
        return Status(
            registry=self._registry,
            key=self._key.public.id,
            memory=self._memory.id(),
            pem=self._key.public.pem,
            trust=trust.number if trust else 0,
            revocations=revocations.number if revocations else 0,
            policy=policy.name.removeprefix("policy:") if policy else "",
            policy_version=policy.number if policy else 0,
        )

    def take_trust(self, envelope: bytes) -> Trust:
        """See `Knowledge.take_trust`."""
        return self._knows.take_trust(envelope, self._now())

    def learn(self, envelope: bytes) -> Signed[Statement]:
        """See `Knowledge.learn`."""
        return self._knows.learn(envelope, self._now())

    # ---- what it signs -------------------------------------------------------------------------------------

    def judge(self, raw: bytes) -> Judged:
        """Take the Decision on the canonical evidence `raw`, and sign the clearance if it allows.

        Raises:
            TrustError: `foreign-registry`, `evidence-out-of-date`, `revocations-withheld`, `withdrawn`,
                `no-policy`, `policy-below-floor`, or an envelope in it is not believed.
            PolicyError: it is malformed.
        """
        now, what = self._now(), f"evidence {Digest.of(raw)}"
        evidence, generation = self._believed(raw, now, what)
        statement, policy = self._knows.policy(now)
        decision = evaluate(policy, evidence)
        image = evidence.image
        clearance, obstacle = None, ""
        if decision.allowed:
            try:
                made = self._clear(evidence, decision, statement, policy, now)
                clearance = self._seal(made, Clearance)
            except PolicyError as error:
                if isinstance(error, TrustError):
                    raise
                obstacle = str(error)
        with self._memory.change():
            if self._memory.generation() != generation:
                raise TrustError("evidence-out-of-date", what, "what the signer knows has changed meanwhile")
            digest = _payload_digest(clearance) if clearance is not None else None
            self._memory.say(image.repository, image.manifest, digest, now + MAX_CLEARANCE_LIFETIME, now)
        return Judged(decision=decision, clearance=clearance, obstacle=obstacle)

    def clear_index(self, repository: str, raw: bytes, media_type: str, children: Sequence[bytes]) -> bytes:
        """The clearance of the index `raw`; `children` are the clearances of its platform children, in any order.

        Raises:
            TrustError: `index-ambiguous`, `index-not-startable`, `child-not-cleared`, or a clearance is not good.
            SpecError: it is no index.
        """
        repository = check_repository(repository)
        index = parse_manifest(raw, media_type)
        if not isinstance(index, Index):
            raise TrustError("wrong-type", f"manifest {index.digest}", "an image, expected an index")
        wanted = check_index(index)
        cleared: dict[Digest, Clearance] = {}
        for envelope in children:
            statement = self._cleared(repository, envelope)
            if isinstance(statement, Clearance):
                cleared[statement.manifest] = statement
        for child in wanted:
            found = cleared.get(child.digest)
            if found is None:
                raise TrustError("child-not-cleared", f"index {index.digest}", f"child {child.digest} has no clearance")
            if child.platform is not None and found.platform != str(child.platform):
                detail = f"child {child.digest} is for {found.platform}, the index says {child.platform}"
                raise TrustError("platform-mismatch", f"index {index.digest}", detail)
        now = self._now()
        digests = tuple(child.digest for child in wanted)
        made = IndexClearance(
            registry=self._registry,
            repository=repository,
            index=index.digest,
            children=digests,
            issued=now,
            expires=min(cleared[digest].expires for digest in digests),
        )
        envelope = self._seal(made, IndexClearance)
        with self._memory.change():
            for child_clearance in children:
                self._cleared(repository, child_clearance)  # still: another signer may have said otherwise meanwhile
            self._memory.say(repository, index.digest, _payload_digest(envelope), made.expires, now)
        return envelope

    def sign_tag(self, repository: str, tag: str, clearance: bytes) -> SignedTag:
        """A statement that `tag` serves what `clearance` clears; its number rises with each move, and only then.

        Raises:
            TrustError: the clearance is not good here and now; `too-many-moves`.
        """
        repository, tag = check_repository(repository), check_tag(tag)
        now = self._now()
        with self._memory.change():
            cleared = self._cleared(repository, clearance)
            digest = cleared.manifest if isinstance(cleared, Clearance) else cleared.index
            memory = self._moved(repository, tag, digest, now)
            self._memory.put_tag(repository, tag, memory)
        made = TagStatement(
            registry=self._registry, repository=repository, tag=tag, digest=digest, number=memory.number, issued=now
        )
        children = cleared.children if isinstance(cleared, IndexClearance) else ()
        reference = Reference(registry=self._registry, repository=repository, tag=tag)
        return SignedTag(
            statement=self._seal(made, TagStatement),
            simple=tuple(self._simple(reference, each) for each in (digest, *children)),
        )

    def date_list(self) -> bytes:
        """A new date for the newest revocation list that it was shown; never another list.

        Raises:
            TrustError: `no-revocation-list`.
        """
        stored = self._knows.newest("list")
        if stored is None:
            raise TrustError("no-revocation-list", "revocation list", "none was published yet")
        now = self._now()
        lifetime = LIST_LIFETIME
        if self._knows.newest_policy() is not None:
            lifetime = min(self._knows.policy(self._now())[1].revocation.lifetime, MAX_LIST_LIFETIME)
        made = ListDate(list=stored.digest, number=stored.number, issued=now, expires=now + lifetime)
        return self._seal(made, ListDate)

    def sign_checkpoint(self, records: int, head: Digest) -> bytes:
        """The chain has `records` records, and `head` is the hash of the last.

        Raises:
            TrustError: `number-went-back`, `same-number-other-content`: the chain was longer, or another.
        """
        now = self._now()
        made = AuditCheckpoint(registry=self._registry, records=records, head=head, issued=now)
        envelope = self._seal(made, AuditCheckpoint)
        with self._memory.change():
            stored = self._knows.newest("audit")
            if stored is not None and (records < stored.number or (records == stored.number and head != stored.digest)):
                code = "number-went-back" if records < stored.number else "same-number-other-content"
                raise TrustError(code, "audit chain", f"got {records} records, {stored.number} were signed")
            self._knows.put("audit", records, head, now, envelope, counts=False)
        return envelope

    def _simple(self, reference: Reference, digest: Digest) -> SimpleSignature:
        payload = simple_signing(reference, digest)
        return SimpleSignature(digest=digest, payload=payload, signature=self._key.sign(payload))

    # ---- checks ---------------------------------------------------------------------------------------------

    def _believed(self, raw: bytes, now: datetime, what: str) -> tuple[Evidence, int]:
        """The evidence, verified under all that the signer knows, and the generation of that knowledge.

        Evidence can bring a newer revocation list along; what was verified before it is verified again under it.
        """
        while True:
            generation = self._memory.generation()
            evidence = codec.decode_evidence(raw, self._trust().verifier(now))
            self._check_evidence(evidence, now, what)
            if self._memory.generation() == generation:
                return evidence, generation

    def _check_evidence(self, evidence: Evidence, now: datetime, what: str) -> None:
        if evidence.image.registry != self._registry:
            detail = f"for registry {evidence.image.registry!r}, expected {self._registry!r}"
            raise TrustError("foreign-registry", what, detail)
        check_repository(evidence.image.repository)
        if abs(now - evidence.now) > SKEW:
            raise TrustError("evidence-out-of-date", what, f"of {evidence.now}, now {now}")
        listed, stored = evidence.revocations, self._knows.newest("list")
        if listed is None and stored is not None:
            raise TrustError("revocations-withheld", what, f"without a list, number {stored.number} was published")
        if listed is not None:
            self._knows.follow("list", listed.statement.number, listed.statement.issued, listed)
        for signed in (*evidence.image_approvals, *evidence.layer_approvals, *evidence.waivers):
            if self._memory.is_withdrawn(signed.digest):
                raise TrustError("withdrawn", what, f"statement {signed.digest} was withdrawn")

    def _clear(
        self,
        evidence: Evidence,
        decision: Decision,
        statement: Signed[PolicyStatement],
        policy: Policy,
        now: datetime,
    ) -> Clearance:
        return make_clearance(
            image=evidence.image,
            decision=decision,
            policy=statement,
            statements=(*evidence.image_approvals, *evidence.layer_approvals, *evidence.waivers),
            components=tuple(sorted({component.purl for component in evidence.components})),
            data=evidence.data,
            issued=now,
            lifetime=min(policy.clearance.lifetime, MAX_CLEARANCE_LIFETIME),
        )

    def _cleared(self, repository: str, envelope: bytes) -> Clearance | IndexClearance:
        """What `envelope` clears in `repository`, if it is this signer's last word on it, valid and not revoked."""
        now = self._now()
        signed = self._trust().verify_any(envelope, (Clearance, IndexClearance), now)
        statement = signed.statement
        what = f"clearance {signed.digest}"
        if not isinstance(statement, Clearance | IndexClearance):
            raise TrustError("wrong-type", what, "expected a clearance")
        if self._key.public.id not in {signer.key for signer in signed.signers}:
            raise TrustError("foreign-key", what, "not signed by this signer's key")
        if (statement.registry, statement.repository) != (self._registry, repository):
            detail = f"for {statement.registry}/{statement.repository}, expected {self._registry}/{repository}"
            raise TrustError("wrong-repository", what, detail)
        digest = statement.manifest if isinstance(statement, Clearance) else statement.index
        if self._memory.said(repository, digest) != signed.digest:
            raise TrustError("superseded", what, f"not the last word on {digest}")
        self._check_revoked(statement, digest)
        return statement

    def _check_revoked(self, statement: Clearance | IndexClearance, digest: Digest) -> None:
        revocations = self._knows.revocations(self._now())
        if revocations is None:
            return
        if isinstance(statement, Clearance):
            refused = matches(
                revocations,
                digests=(digest, statement.config),
                layers=statement.diff_ids,
                components=statement.components,
            )
        else:
            refused = matches(revocations, digests=(digest, *statement.children))
        if refused is not None:
            raise TrustError(refused.code, refused.subject, refused.detail)

    def _moved(self, repository: str, tag: str, digest: Digest, now: datetime) -> TagMemory:
        before = self._memory.tag(repository, tag)
        day = int(now.timestamp()) // 86_400
        if before is None:
            return TagMemory(number=1, digest=digest, day=day, moves=1)
        if before.digest == digest:
            return before
        moves = before.moves + 1 if before.day == day else 1
        if moves > MAX_MOVES_A_DAY:
            detail = f"moved {before.moves} times today, expected at most {MAX_MOVES_A_DAY}"
            raise TrustError("too-many-moves", f"tag {repository}:{tag}", detail)
        return TagMemory(number=before.number + 1, digest=digest, day=day, moves=moves)

    # ---- what it holds ----------------------------------------------------------------------------------------

    def _now(self) -> datetime:
        return whole_seconds(self._clock())

    def _trust(self) -> Trust:
        return self._knows.trust(self._now())

    def _seal(self, statement: S, kind: type[S]) -> bytes:
        """Sign, and verify as a host would: a key that trust.json does not list signs nothing."""
        envelope = seal(statement, self._key)
        narrowed(self._trust().verify_any(envelope, STATEMENTS, self._now()), kind)
        return envelope


def _payload_digest(envelope: bytes) -> Digest:
    return Digest.of(dsse.parse(envelope, what="clearance").payload)
