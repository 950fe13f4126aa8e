"""Writing what a judgement came to: state, clearance, tags, artifacts and audit, in the caller's one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Row, delete, insert, select, update

from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.manifest import Index, Manifest
from policy import codec, dsse, wire
from policy.model import Decision, State
from policy.statements import Clearance, IndexClearance
from registry import statements, states
from registry.access import REGISTRY
from registry.audit import Audit, Event
from registry.catalogue import schema
from registry.catalogue.database import insert_new, put_row
from registry.catalogue.locks import hold_alone
from registry.judge.jobs import JobKind, Priority, enqueue, subject_of
from registry.judge.reading import Obstacle
from registry.publish import Publisher, judgements_of
from registry.served import Cleared, TagSigner, serve
from registry.signer.protocol import SignerUnavailableError
from registry.states import Standing, Transition
from registry.telemetry import metrics

LOOK_AGAIN: Final = timedelta(hours=24)
"""How often what is not cleared is judged again by itself: an age limit may have passed."""

TRY_AGAIN: Final = timedelta(minutes=10)
"""How soon what could not be judged is tried again."""

SOONEST: Final = timedelta(minutes=1)
MAX_MESSAGE: Final = 4000

_IMAGES = schema.images.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a judgement came to. An image has a decision or an obstacle, an index `index_state` or an obstacle.

    `clearance` is there if it may start; `list_number` is of the revocation list that was looked at.
    """

    repository: str
    manifest: Manifest | Index
    decision: Decision | None = None
    clearance: bytes | None = None
    obstacle: Obstacle | None = None
    list_number: int = 0
    keys: tuple[str, ...] = ()
    index_state: State | None = None
    children: tuple[Digest, ...] = ()
    renew_after: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """Writes results. `signer` signs the tags that move with them."""

    audit: Audit
    publisher: Publisher
    signer: TagSigner

    def write(self, conn: Connection, result: Result, *, now: datetime) -> datetime:
        """Write a result, and return when the image is to be judged again by itself."""
        repository, digest = result.repository, result.manifest.digest
        hold_alone(conn, judgements_of(repository))
        row = conn.execute(
            select(schema.images).where(_IMAGES.repository == repository, _IMAGES.digest == digest).with_for_update()
        ).first()
        if row is None:
            return now + LOOK_AGAIN
        transition = _transition(row, result)
        if transition is None:
            return now + SOONEST
        if isinstance(transition, states.Refused):
            # A Decision that does not count any more: the state stays, and is looked at again soon.
            self._record(conn, result, row, Event.REFUSED, f"{transition.reason}: {transition.message}")
            return now + SOONEST
        self._write_state(conn, row, result, transition, now)
        _write_keys(conn, repository, digest, result.keys)
        if transition.after.may_start and result.clearance is not None:
            again_at = self._clear(conn, result, result.clearance, now)
        else:
            self._withhold(conn, repository, digest)
            waits = result.obstacle is not None and result.obstacle.state is State.QUARANTINED
            again_at = now + (TRY_AGAIN if waits else LOOK_AGAIN)
        if transition.moved or result.clearance is not None:
            _judge_parents(conn, repository, digest, now)
        return again_at

    def _write_state(
        self, conn: Connection, row: Row[tuple[object, ...]], result: Result, transition: Transition, now: datetime
    ) -> None:
        decision = result.decision
        stored: Digest | None = None
        if decision is not None:
            content = codec.encode_decision(decision)
            stored = Digest.of(content)
            insert_new(
                conn,
                schema.decisions,
                digest=stored,
                repository=result.repository,
                image=result.manifest.digest,
                content=content,
                evidence=decision.evidence,
                taken=decision.taken,
            )
        limited = transition.after in {State.WARNING, State.GRACE}
        conn.execute(
            update(schema.images)
            .where(_IMAGES.repository == result.repository, _IMAGES.digest == result.manifest.digest)
            .values(
                state=transition.after,
                level=decision.level if decision is not None else "",
                parent=decision.parent if decision is not None else None,
                reason=transition.reason,
                message=transition.message[:MAX_MESSAGE],
                until=decision.valid_until if decision is not None and limited else None,
                decision=stored,
                revoked_by=_revoked_by(row, result, transition),
                changed=now if transition.moved else row.changed,
                judged=decision.taken if decision is not None else now,
            )
        )
        metrics.DECISIONS.labels(transition.after, metrics.REASONS.bounded(transition.reason)).inc()
        if transition.moved or row.reason != transition.reason:
            self._record(conn, result, row, Event.STATE, _after(transition, result))

    def _record(self, conn: Connection, result: Result, row: Row[tuple[object, ...]], event: Event, after: str) -> None:
        subject = f"{result.repository}@{result.manifest.digest}"
        self.audit.append(
            conn, event, principal=REGISTRY.name, subject=subject, before=f"{row.state}: {row.reason}", after=after
        )

    def _clear(self, conn: Connection, result: Result, envelope: bytes, now: datetime) -> datetime:
        repository, digest = result.repository, result.manifest.digest
        said = wire.decode(dsse.parse(envelope, what="clearance").payload, what="clearance")
        if not isinstance(said, Clearance | IndexClearance):
            raise SignerUnavailableError(f"{repository}@{digest}: the signer's answer is no clearance")
        subject = Descriptor(media_type=result.manifest.media_type, digest=digest, size=len(result.manifest.raw))
        referrer = self.publisher.publish_clearance(conn, repository, subject, envelope, now=now)
        put_row(
            conn,
            schema.clearances,
            repository=repository,
            digest=digest,
            envelope=envelope,
            referrer=referrer,
            issued=said.issued,
            expires=said.expires,
        )
        cleared = Cleared(repository=repository, digest=digest, clearance=envelope, children=result.children)
        serve(conn, self.audit, self.signer, self.publisher, cleared, now=now)
        return renew_at(said.issued, said.expires, now, result.renew_after)

    def _withhold(self, conn: Connection, repository: str, digest: Digest) -> None:
        table = schema.clearances
        conn.execute(delete(table).where(table.c.repository == repository, table.c.digest == digest))
        self.publisher.retract(conn, repository, digest)

    def expire(self, conn: Connection, repository: str, digest: Digest, *, now: datetime) -> bool:
        """Take back what a clearance gave, if it has ended and could not be renewed; True if it had."""
        table = schema.clearances
        statements.hold_statements(conn)
        hold_alone(conn, judgements_of(repository))
        row = conn.execute(
            select(schema.images, table.c.expires)
            .join(table, (table.c.repository == _IMAGES.repository) & (table.c.digest == _IMAGES.digest))
            .where(_IMAGES.repository == repository, _IMAGES.digest == digest)
        ).first()
        if row is None or row.expires > now:
            return False
        change = states.expired(Standing(state=State(row.state)), expires=row.expires)
        conn.execute(
            update(schema.images)
            .where(_IMAGES.repository == repository, _IMAGES.digest == digest)
            .values(state=change.after, reason=change.reason, message=change.message, changed=now)
        )
        self.audit.append(
            conn,
            Event.STATE,
            principal=REGISTRY.name,
            subject=f"{repository}@{digest}",
            before=f"{row.state}: {row.reason}",
            after=f"{change.after}: {change.reason}",
        )
        self._withhold(conn, repository, digest)
        _judge_parents(conn, repository, digest, now)
        return True


def renew_at(issued: datetime, expires: datetime, now: datetime, after: timedelta | None = None) -> datetime:
    """When a clearance is renewed: `after` its beginning, as a policy may say, at half of its life at the latest.

    At its end, where half of its life is nearer than SOONEST.
    """
    half = issued + (expires - issued) / 2
    when = half if after is None else min(half, issued + after)
    return when if when - now >= SOONEST else max(expires, now + SOONEST)


def _transition(row: Row[tuple[object, ...]], result: Result) -> Transition | states.Refused | None:
    standing = Standing(state=State(row.state), taken=row.judged, revoked_by=row.revoked_by)
    if result.decision is not None and result.obstacle is None:
        return states.decided(standing, result.decision, list_number=result.list_number)
    if result.obstacle is not None:
        return states.obstructed(
            standing,
            result.obstacle.state,
            reason=result.obstacle.reason,
            message=result.obstacle.message,
            list_number=result.list_number,
        )
    after = result.index_state or State.QUARANTINED
    message = f"all of its {len(result.children)} platform children are cleared"
    return Transition(before=standing.state, after=after, reason="children-cleared", message=message)


def _after(transition: Transition, result: Result) -> str:
    decision = f" (decision {result.decision.evidence})" if result.decision is not None else ""
    return f"{transition.after}: {transition.reason}: {transition.message}{decision}"


def _revoked_by(row: Row[tuple[object, ...]], result: Result, transition: Transition) -> int:
    if transition.after is not State.REVOKED:
        return 0
    return max(int(row.revoked_by), result.list_number)


def _write_keys(conn: Connection, repository: str, digest: Digest, keys: tuple[str, ...]) -> None:
    table = schema.image_keys
    stored = set(
        conn.scalars(select(table.c.key).where(table.c.repository == repository, table.c.digest == digest)).all()
    )
    new = [key for key in keys if key not in stored]
    if new:
        conn.execute(insert(table), [{"repository": repository, "digest": digest, "key": key} for key in new])


def _judge_parents(conn: Connection, repository: str, digest: Digest, now: datetime) -> None:
    """Have the indexes that list this image judged again: theirs rests on its clearance."""
    table = schema.references
    indexes = conn.scalars(
        select(table.c.manifest)
        .join(schema.images, (_IMAGES.repository == table.c.repository) & (_IMAGES.digest == table.c.manifest))
        .where(table.c.repository == repository, table.c.digest == digest, table.c.kind == "child")
        .order_by(table.c.manifest)
    ).all()
    for index in indexes:
        enqueue(conn, JobKind.JUDGE, subject_of(repository, index), now=now, priority=Priority.PUSH)
