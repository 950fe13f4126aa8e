"""What a new revocation list stops at once: in the transaction that takes it, before anybody judges again.

Named digests (manifests, indexes, configs) and layers, and images whose approved parent is named, are revoked here;
what only a judgement can find (components, keys) follows with the queue, before all else in it.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, or_, select, update

from ocispec.digest import Digest
from policy.model import State
from policy.statements import RevocationList
from registry import states
from registry.audit import Audit, Event
from registry.catalogue import schema
from registry.judge.jobs import JobKind, Priority, enqueue, subject_of
from registry.states import Standing


def revoke_now(
    conn: Connection, audit: Audit, listed: RevocationList, *, by: str, source: str, now: datetime
) -> tuple[tuple[str, Digest], ...]:
    """Move what the list names to REVOKED, and return it."""
    images = schema.images.c
    named = tuple(listed.digests)
    keys = [f"config:{digest}" for digest in named] + [f"layer:{digest}" for digest in listed.layers]
    keyed = select(schema.image_keys.c.digest).where(
        schema.image_keys.c.repository == images.repository, schema.image_keys.c.key.in_(keys)
    )
    hit = or_(images.digest.in_(named), images.parent.in_(named), images.digest.in_(keyed))
    rows = conn.execute(select(schema.images).where(hit, images.state != str(State.REVOKED))).all()
    revoked: list[tuple[str, Digest]] = []
    for row in rows:
        change = states.revoked(Standing(state=State(row.state)), list_number=listed.number, reason=listed.reason)
        where = (images.repository == row.repository, images.digest == row.digest)
        conn.execute(
            update(schema.images)
            .where(*where)
            .values(
                state=change.after,
                reason=change.reason,
                message=change.message,
                revoked_by=listed.number,
                changed=now,
            )
        )
        table = schema.clearances.c
        conn.execute(delete(schema.clearances).where(table.repository == row.repository, table.digest == row.digest))
        audit.append(
            conn,
            Event.STATE,
            principal=by,
            source=source,
            subject=f"{row.repository}@{row.digest}",
            before=f"{row.state}: {row.reason}",
            after=f"{change.after}: {change.message}",
        )
        subject = subject_of(row.repository, row.digest)
        enqueue(conn, JobKind.JUDGE, subject, now=now, priority=Priority.URGENT)
        revoked.append((row.repository, row.digest))
    return tuple(revoked)
