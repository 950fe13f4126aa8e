"""Bring a cleared image into the store: proven first, fetched afterwards, and proven again.

 (1) Ask the registries for newer trust, revocation list and floors.
 (2) A tag is resolved once, by a signed statement whose number may not go back; from there on only digests are
     asked for (S4, S6). A reference by digest needs no statement.
 (3) The manifest, by digest. From an index the one child for this host's platform is taken, if a signed
     statement lists it as cleared (S7).
 (4) The config, by digest.
 (5) The clearance, proven with all that it embeds, before a byte of a layer is fetched.
 (6) The layers, several at once: each flows through a confined reader that checks both digests while it inflates.
 (7) The root index, written by the confined reader; hashed here.
 (8) The clearance again, now with the digest of that index.
 (9) Everything gets its name, the record last.

A layer that is whole is kept whatever happens to the others, so a pull that broke goes on where it was. What is
in the store already is hashed before it counts: to pull again is how a damaged store is mended.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeVar

from ocispec.access import Access
from ocispec.blobs import StoredImage, load_image
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import RemoteError, RemoteMissingError, SpecError
from ocispec.manifest import Index, Manifest
from ocispec.platform import Platform, choose
from ocispec.reference import Reference
from ocispec.remote import Remote
from policy.clearance import HostView, Subject, Verified, verify_clearance
from policy.errors import TrustError
from policy.hoststate import HostState, see_time
from policy.model import Signed
from policy.refusal import Refused
from policy.served import verify_index, verify_tag
from policy.statements import Clearance, IndexClearance, TagStatement
from policy.times import whole_seconds
from policy.trust import Trust
from policy.wire import predicate_type
from runtime.api import Statements
from runtime.fetch import Fetcher, Progress
from runtime.host import Host, Synced
from runtime.images import ImageRecord
from runtime.readers import Readers
from runtime.refused import RefusalError, refuse, unless_refused
from runtime.store import Documents

T = TypeVar("T")

_UNTELLING: Final = frozenset(
    {"malformed", "wrong-type", "unknown-type", "unknown-key", "bad-signature", "no-signature"}
)
"""Refusals that say nothing about the image: of several, another one is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """An image that is in the store and was proven.

    `fetched` are the bytes of layers that came over the network for it, `synced` what came of asking first.
    """

    record: ImageRecord
    verified: Verified
    fetched: int
    synced: Synced


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What a reference led to, proven so far: the image, and what is kept of it."""

    image: StoredImage
    subject: Subject
    clearance: bytes
    documents: Documents


def pull(
    reference: Reference,
    *,
    host: Host,
    clock: Callable[[], datetime],
    platform: Platform | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    access: Access | None = None,
) -> Pulled | Refused:
    """Pull `reference`; a refusal by the registry or by what this host believes is a value.

    `progress` is called from several threads, one at a time. `clock` is read at each proof.

    Raises:
        SourceError: the registry does not answer.
        SpecError: what it answers is malformed, or a layer is unreadable.
        StoreError: e.g. the disk is full.
        HostError: no confined reader can be had.
    """
    with host.remote(reference.registry, access=access) as remote, host.store.shared():
        puller = _Puller(
            host=host,
            remote=remote,
            reference=reference,
            clock=clock,
            platform=platform or Platform.of_this_host(),
            progress=progress,
        )
        try:
            synced = host.sync(clock(), access=access)  # (1)
            return puller.pull(synced)
        except RefusalError as error:
            return error.refused
        except TrustError as error:
            return Refused.of(error)
        except RemoteError as error:
            if error.status in {401, 403}:
                detail = error.message or f"answered {error.status}"
                return Refused(code=error.code or "DENIED", subject=str(reference), detail=detail)
            raise


def renew(record: ImageRecord, *, host: Host, now: datetime, access: Access | None = None) -> bool | Refused:
    """Fetch a newer clearance for an image in the store; False if there is none that holds longer.

    Raises:
        SourceError: the registry does not answer.
        SpecError: what it answers is malformed.
        StoreError: e.g. the disk is full; the older clearance is still there.
    """
    try:
        view = host.view(now)
        subject = record.subject(record.root_index)
        with host.store.shared(), host.remote(record.registry, access=access) as remote:
            found = _best_clearance(Statements(remote), subject, view, now)
        if isinstance(found, Refused):
            return found
        envelope, verified = found
        held = verify_clearance(host.store.clearance(record), subject=subject, host=view, now=now)
    except TrustError as error:
        return Refused.of(error)
    if isinstance(held, Verified) and held.until >= verified.until:
        return False
    host.store.write_clearance(record, envelope)
    return True


@dataclass(slots=True, kw_only=True)
class _Puller:
    host: Host
    remote: Remote
    reference: Reference
    clock: Callable[[], datetime]
    platform: Platform
    progress: Callable[[Progress], None]

    def pull(self, synced: Synced) -> Pulled:
        digest, statement = self._resolve()  # (2)
        found = self._find(digest)
        subject = found.subject
        with self.host.store.workspace() as work, contextlib.ExitStack() as held:
            fetcher = Fetcher(
                store=self.host.store,
                repository=self.remote.repository(self.reference.repository),
                work=work,
                readers=_once(lambda: held.enter_context(Readers.start(self.host.store.empty))),
                progress=self.progress,
            )
            fetcher.layers(found.image)  # (6)
            with fetcher.index(subject.diff_ids, subject.config_facts.user) as made:  # (7)
                complete = replace(subject, root_index=made.digest, user=made.user)
                verified = self._prove(found.clearance, complete)  # (8)
                self.host.store.add_index(made.file.fd, made.file.path, made.digest)  # (9)
        record = ImageRecord(
            registry=subject.registry,
            repository=subject.repository,
            manifest=subject.manifest,
            config=subject.config,
            platform=subject.platform,
            diff_ids=subject.diff_ids,
            root_index=made.digest,
            index=subject.index,
            user=made.user,
            config_facts=subject.config_facts,
            pulled=whole_seconds(self.clock()),
        )
        self.host.store.protect(record)
        self.host.store.write_image(record, found.documents)
        if statement is not None:
            self.host.store.write_tag(self.reference, statement)
        return Pulled(record=record, verified=verified, fetched=fetcher.fetched, synced=synced)

    # (2) to (5)

    def _resolve(self) -> tuple[Digest, bytes | None]:
        if self.reference.digest is not None:
            return self.reference.digest, None
        tagged = self.reference.tag or "latest"
        try:
            answer = Statements(self.remote).tag(self.reference)
        except RemoteMissingError:
            detail = "the registry has no such tag, or none that this host may know of"
            raise refuse("not-there", self.reference, detail) from None
        envelope = answer.statement
        if envelope is None:
            reason = answer.reason or "no image is cleared"
            raise refuse("not-served", self.reference, f"the registry serves nothing under it: {reason}")
        now, trust = self.clock(), self._trust()

        def see(state: HostState) -> tuple[Signed[TagStatement], HostState] | Refused:
            return verify_tag(
                envelope,
                registry=self.reference.registry,
                repository=self.reference.repository,
                tag=tagged,
                trust=trust,
                state=state,
                now=now,
            )

        proven = unless_refused(self.host.remember(see))
        return proven.statement.digest, envelope

    def _find(self, digest: Digest) -> _Found:
        document = self.remote.manifest(self.reference.repository, digest)  # (3)
        index: Index | None = None
        index_clearance: bytes | None = None
        if isinstance(document, Index):
            index = document
            child = self._child(index)
            index_clearance = self._index_clearance(index, child.digest)
            chosen = self.remote.repository(self.reference.repository).read_manifest(child)
            if not isinstance(chosen, Manifest):
                raise SpecError(f"index {digest}: child {child.digest} is an index, expected a manifest")
            document = chosen
        image = load_image(self.remote.repository(self.reference.repository), document)  # (4)
        if not self.platform.runs(image.config.platform):
            detail = f"its config is for {image.config.platform}, this host is {self.platform}"
            raise refuse("other-platform", document.digest, detail)
        subject = Subject.of(
            registry=self.reference.registry,
            repository=self.reference.repository,
            manifest=document.digest,
            config=image.config,
            root_index=None,
            index=index.digest if index is not None else None,
        )
        now = self.clock()
        best = _best_clearance(Statements(self.remote), subject, self.host.view(now), now)  # (5)
        clearance, _ = unless_refused(best)
        documents = Documents(
            manifest=document.raw,
            config=image.config.raw,
            clearance=clearance,
            index=index.raw if index is not None else None,
            index_clearance=index_clearance,
        )
        return _Found(image=image, subject=subject, clearance=clearance, documents=documents)

    def _child(self, index: Index) -> Descriptor:
        try:
            return choose(index.manifests, self.platform)
        except SpecError as error:
            raise refuse("index-child", f"{self.reference.name}@{index.digest}", str(error)) from None

    def _index_clearance(self, index: Index, child: Digest) -> bytes:
        now, trust = self.clock(), self._trust()
        refusals: list[Refused] = []
        candidates = Statements(self.remote).about(
            self.reference.repository, index.digest, predicate_type(IndexClearance)
        )
        for envelope in candidates:

            def see(state: HostState, envelope: bytes = envelope) -> tuple[Signed[IndexClearance], HostState] | Refused:
                return verify_index(
                    envelope,
                    registry=self.reference.registry,
                    repository=self.reference.repository,
                    index=index.digest,
                    child=child,
                    trust=trust,
                    state=state,
                    now=now,
                )

            proven = self.host.remember(see)
            if not isinstance(proven, Refused):
                return envelope
            refusals.append(proven)
        subject = f"{self.reference.name}@{index.digest}"
        raise RefusalError(_most_telling(refusals, subject, "no-index-clearance", "the registry offers none"))

    def _trust(self) -> Trust:
        view = self.host.view(self.clock())
        listed = view.revocations
        return view.trust if listed is None else view.trust.revoking(listed.list.statement.keys)

    def _prove(self, clearance: bytes, subject: Subject) -> Verified:
        now = self.clock()
        verified = unless_refused(verify_clearance(clearance, subject=subject, host=self.host.view(now), now=now))
        issued = verified.clearance.statement.issued
        self.host.remember(lambda state: (None, see_time(state, issued, now)))
        return verified


def _best_clearance(
    statements: Statements, subject: Subject, view: HostView, now: datetime
) -> tuple[bytes, Verified] | Refused:
    """Of the clearances that a registry offers the one that holds longest, with its proof."""
    refusals: list[Refused] = []
    best: tuple[bytes, Verified] | None = None
    for envelope in statements.about(subject.repository, subject.manifest, predicate_type(Clearance)):
        verified = verify_clearance(envelope, subject=subject, host=view, now=now)
        if isinstance(verified, Refused):
            refusals.append(verified)
        elif best is None or verified.until > best[1].until:
            best = (envelope, verified)
    if best is not None:
        return best
    name = f"{subject.registry}/{subject.repository}@{subject.manifest}"
    return _most_telling(refusals, name, "no-clearance", "the registry offers none")


def _most_telling(refusals: list[Refused], subject: str, code: str, detail: str) -> Refused:
    refusals.sort(key=lambda refused: refused.code in _UNTELLING)
    return refusals[0] if refusals else Refused(code=code, subject=subject, detail=detail)


def _once(make: Callable[[], T]) -> Callable[[], T]:
    """`make`, called when it is first needed; what it made is given ever after."""
    made: list[T] = []

    def get() -> T:
        if not made:
            made.append(make())
        return made[0]

    return get
