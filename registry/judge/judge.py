"""One judgement, from a manifest to its state: the judge's main path.

 (1) the manifest and its config, as stored;
 (2) its layers read, put together and matched (`reading.py`), each once, in confined children;
 (3) the evidence, from one state of the catalogue, whose generation is remembered;
 (4) the signer, which verifies the evidence and takes the Decision;
 (5) one transaction: state, clearance, served tags, artifacts, audit and the job's end - if the generation is still
     the same and the job still this worker's. Else nothing is written, and the judgement is taken again.

Killed anywhere, nothing is half-written: the job is taken again, and what was kept on the way is used.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from ocispec.config import MAX_CONFIG, ImageConfig, parse_config
from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.image import check_image
from ocispec.manifest import Index, Manifest
from policy import codec
from policy.errors import TrustError
from policy.evidence import Scan, gather
from policy.load import load_verified
from policy.model import Evidence, State
from policy.trust import Trust
from registry import statements
from registry.assemble import Assembly, image_facts
from registry.catalogue.database import Catalogue
from registry.errors import BlobUnknownError
from registry.judge import jobs
from registry.judge.derived import evidence_key, report_key
from registry.judge.jobs import Job
from registry.judge.outcome import Outcomes, Result
from registry.judge.reading import Obstacle, Reader, Waiting
from registry.judge.subjects import Subject, cleared_children, find_subject, revoked_index
from registry.judge.works import write_report
from registry.signer.identity import check_signer
from registry.signer.interface import Signing
from registry.signer.protocol import SignerRefusedError
from registry.store.interface import BlobStore
from scanner.model import Report

FAULT_VARIABLE: Final = "PRATIQUE_FAULT"
"""For tests of crashes alone: STEP=FILE, and the worker kills itself after that step if the file is there."""


_NOTHING: Final = Obstacle(state=State.QUARANTINED, reason="not-judged", message="not judged yet")
_SEVERITY: Final = (State.CLEARED, State.WARNING, State.GRACE)


def fault(step: str) -> None:
    """Die here, once, if a test wants it so."""
    wanted, _, path = os.environ.get(FAULT_VARIABLE, "").partition("=")
    if wanted == step and Path(path).exists():
        Path(path).unlink()
        os.kill(os.getpid(), signal.SIGKILL)


class OutOfDateError(Exception):
    """What a judgement rests on changed while it was taken; it is taken again."""


@dataclass(slots=True, kw_only=True)
class Judge:
    """Judges images and indexes; one thread. `taught` is what the signer was told of."""

    registry: str
    store: BlobStore
    catalogue: Catalogue
    reader: Reader
    signer: Signing
    outcomes: Outcomes
    clock: Callable[[], datetime]
    taught: set[Digest] = field(default_factory=set)
    taught_generation: int = -1
    policy: Digest | None = None
    renew_after: timedelta | None = None
    """The policy that was last looked at, and what it says of renewals."""

    def judge(self, job: Job) -> Waiting | None:
        """Do a JUDGE job: what it waits for, or None when its result was written.

        Raises:
            OutOfDateError: what it rests on has changed meanwhile, or the job is another worker's.
            SignerUnavailableError, CatalogueError, StorageError: not now.
        """
        repository, _, text = job.subject.rpartition("@")
        digest = Digest.parse(text)
        with self.catalogue.read() as conn:
            subject = find_subject(conn, repository, digest)
        if subject is None:
            with self.catalogue.write() as conn:
                jobs.finish(conn, job, now=self.clock())
            return None
        if isinstance(subject.parsed, Index):
            self._index(job, subject, subject.parsed)
            return None
        return self._image(job, subject, subject.parsed)

    def give_up(self, job: Job, why: str) -> None:
        """Put a job aside that may be what kills the workers: its image is not judged, and says so."""
        repository, _, text = job.subject.rpartition("@")
        with self.catalogue.read() as conn:
            subject = find_subject(conn, repository, Digest.parse(text))
        if subject is not None:
            obstacle = Obstacle(state=State.QUARANTINED, reason="judge-failed", message=f"{job.subject}: {why}")
            self._stopped(job, subject, obstacle)

    # ---- an image ---------------------------------------------------------------------------------------------

    def _image(self, job: Job, subject: Subject, manifest: Manifest) -> Waiting | None:
        config = self._config(manifest)
        if isinstance(config, Obstacle):
            self._stopped(job, subject, config)
            return None
        found = self._read(subject, manifest, config)
        if isinstance(found, Waiting):
            return found
        if isinstance(found, Obstacle):
            self._stopped(job, subject, found, config)
        else:
            self._decide(job, subject, config, *found)
        return None

    def _read(
        self, subject: Subject, manifest: Manifest, config: ImageConfig
    ) -> tuple[Evidence, int] | Waiting | Obstacle:
        """Steps 2 and 3: the evidence and its generation."""
        waiting = self.reader.layers(manifest, config)
        fault("layers")
        if waiting is not None:
            return waiting
        assembly = self.reader.assembly(config)
        if isinstance(assembly, Waiting | Obstacle):
            return assembly
        fault("assembly")
        report = self.reader.report(config, assembly, self.clock())
        if isinstance(report, Waiting):
            return report
        if isinstance(report, Report):
            self.store.put_derived(report_key(manifest.digest), write_report(report))
        return self._evidence(subject, manifest, config, assembly, report)

    def _config(self, manifest: Manifest) -> ImageConfig | Obstacle:
        try:
            with self.store.open(manifest.config.digest) as stored:
                config = parse_config(stored.read(MAX_CONFIG + 1))
            check_image(manifest, config)
        except BlobUnknownError as error:
            return Obstacle(state=State.QUARANTINED, reason="config-missing", message=str(error))
        except SpecError as error:
            return Obstacle(state=State.DENIED, reason="config-refused", message=str(error))
        if not config.diff_ids:
            return Obstacle(state=State.DENIED, reason="no-layers", message=f"manifest {manifest.digest}: no layer")
        return config

    def _evidence(
        self, subject: Subject, manifest: Manifest, config: ImageConfig, assembly: Assembly, report: Report | str
    ) -> tuple[Evidence, int] | Obstacle:
        now = self.clock()
        facts, errors = image_facts(
            assembly,
            registry=self.registry,
            repository=subject.repository,
            manifest=manifest,
            config=config,
            first_seen=subject.first_seen,
        )
        scan = Scan(
            report=report if not isinstance(report, str) else None,
            changes=assembly.changes,
            changes_truncated=assembly.changes_truncated,
            errors=(*errors, *((report,) if isinstance(report, str) else ())),
        )
        with self.catalogue.read() as conn:
            generation = statements.generation(conn)
            trust = self._trust(conn, now)
            if isinstance(trust, Obstacle):
                return trust
            source = statements.CatalogueStatements(conn=conn, now=now)
            return gather(facts, statements=source, trust=trust, scan=scan, now=now), generation

    def _trust(self, conn: Connection, now: datetime) -> Trust | Obstacle:
        """What counts now; an obstacle before there is a trust.json and a policy."""
        try:
            trust = statements.trust_in_force(conn, now)
            if trust is None:
                message = "this registry has no trust.json yet"
                return Obstacle(state=State.QUARANTINED, reason="no-trust", message=message)
            trust.check_in_force(now)
            policy = statements.current_policy(conn, trust, now)
            if policy is None:
                return Obstacle(state=State.QUARANTINED, reason="no-policy", message="this registry has no policy yet")
            if self.policy != policy.digest:
                self.policy = policy.digest
                self.renew_after = load_verified(policy.statement.document).clearance.renew_after
        except TrustError as error:
            return Obstacle(state=State.QUARANTINED, reason=f"trust-{error.code}", message=str(error))
        return trust

    def _decide(self, job: Job, subject: Subject, config: ImageConfig, evidence: Evidence, generation: int) -> None:
        raw = codec.encode_evidence(evidence)
        self.store.put_derived(evidence_key(Digest.of(raw)), raw)
        fault("evidence")
        try:
            self.teach(generation)
            judged = self.signer.judge(raw)
        except SignerRefusedError as error:
            obstacle = Obstacle(state=State.QUARANTINED, reason=f"signer-{error.code}", message=str(error))
            self._stopped(job, subject, obstacle, config)
            return
        fault("decision")
        revocations = evidence.revocations.statement.number if evidence.revocations is not None else 0
        result = Result(
            repository=subject.repository,
            manifest=subject.parsed,
            decision=judged.decision,
            clearance=judged.clearance,
            obstacle=_obstacle(judged.obstacle),
            list_number=revocations,
            keys=statements.keys_of_image(config.digest, config.diff_ids),
            renew_after=self.renew_after,
        )
        self._write(job, result, generation)

    def teach(self, generation: int) -> None:
        """Tell the signer what was published since it was last told.

        Raises:
            SignerRefusedError, SignerUnavailableError: it does not take it.
            SettingsError: it is not the signer that this catalogue's statements come from.
        """
        if self.taught_generation == generation:
            return
        with self.catalogue.read() as conn:
            trust = statements.stored_trusts(conn)
            published = statements.published(conn)
        known = self.signer.status()
        with self.catalogue.write() as conn:
            check_signer(conn, known.memory)
        for version, envelope in trust:
            if version > known.trust:
                self.signer.take_trust(envelope)
        for digest, envelope in published:
            if digest not in self.taught:
                self._learn(envelope)
                self.taught.add(digest)
        self.taught_generation = generation

    def _learn(self, envelope: bytes) -> None:
        try:
            self.signer.learn(envelope)
        except SignerRefusedError as error:
            # An older number, or a statement whose keys have ended: the signer knows better already.
            if error.code not in {"number-went-back", "key-expired", "key-revoked", "unknown-key"}:
                raise

    # ---- an index ---------------------------------------------------------------------------------------------

    def _index(self, job: Job, subject: Subject, index: Index) -> None:
        with self.catalogue.read() as conn:
            generation = statements.generation(conn)
            listed, number = revoked_index(conn, index.digest)
            children = cleared_children(conn, subject.repository, index)
        stopped = listed or (children if isinstance(children, Obstacle) else None)
        if stopped is not None or isinstance(children, Obstacle):
            self._stopped(job, subject, stopped, list_number=number)
            return
        try:
            self.teach(generation)
            envelope = self.signer.clear_index(
                subject.repository, index.raw, index.media_type, [child.clearance for child in children]
            )
        except SignerRefusedError as error:
            state = State.DENIED if error.code.startswith(("index-", "platform-")) else State.QUARANTINED
            obstacle = Obstacle(state=state, reason=error.code, message=error.detail)
            self._stopped(job, subject, obstacle, list_number=number)
            return
        result = Result(
            repository=subject.repository,
            manifest=index,
            clearance=envelope,
            index_state=max((child.state for child in children), key=_SEVERITY.index),
            children=tuple(child.digest for child in children),
            list_number=number,
        )
        self._write(job, result, generation)

    # ---- writing ----------------------------------------------------------------------------------------------

    def _stopped(
        self,
        job: Job,
        subject: Subject,
        obstacle: Obstacle | None,
        config: ImageConfig | None = None,
        *,
        list_number: int = 0,
    ) -> None:
        keys = statements.keys_of_image(config.digest, config.diff_ids) if config is not None else ()
        with self.catalogue.read() as conn:
            generation = statements.generation(conn)
        result = Result(
            repository=subject.repository,
            manifest=subject.parsed,
            obstacle=obstacle or _NOTHING,
            keys=keys,
            list_number=list_number,
        )
        self._write(job, result, generation)

    def _write(self, job: Job, result: Result, generation: int) -> None:
        now = self.clock()

        def write(conn: Connection) -> None:
            statements.hold_statements(conn)
            if statements.generation(conn) != generation:
                raise OutOfDateError(f"job {job.subject}: generation {generation} has passed")
            again_at = self.outcomes.write(conn, result, now=now)
            jobs.finish(conn, job, now=now, again_at=again_at)
            fault("commit")

        self.catalogue.change(write)
        fault("committed")


def _obstacle(text: str) -> Obstacle | None:
    return Obstacle(state=State.DENIED, reason="not-clearable", message=text) if text else None
