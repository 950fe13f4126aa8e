"""What a new revocation list stops at once: in the transaction that takes it, before anybody judges again.

Named digests (manifests, indexes, configs) and layers, and images whose approved parent is named, are revoked here;
what only a judgement can find (components, keys) follows with the queue, before all else in it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Row, delete, or_, select, update

from ocispec.digest import Digest
from policy.model import State
from policy.statements import RevocationList
from registry import states
from registry.audit import Audit, Event
from registry.catalogue import schema
from registry.judge.jobs import JobKind, Priority, enqueue, subject_of
from registry.states import Standing

_PART: Final = 1000
"""Entries of a list in one query: databases take some ten thousand values at most."""


def revoke_now(
    conn: Connection, audit: Audit, listed: RevocationList, *, by: str, source: str, now: datetime
) -> tuple[tuple[str, Digest], ...]:
    """Move what the list names to REVOKED, and return it. Under `statements.lock_statements`: no judgement is written
    meanwhile that does not know the list."""
    images = schema.images.c
    revoked: list[tuple[str, Digest]] = []
    for row in _named(conn, listed):
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


def _named(conn: Connection, listed: RevocationList) -> list[Row[tuple[object, ...]]]:
    """The images that a list names and that are not revoked yet, in one order, so that no two wait for each other."""
    images, keyed = schema.images.c, schema.image_keys.c
    digests, layers = tuple(listed.digests), tuple(listed.layers)
    found: dict[tuple[str, Digest], Row[tuple[object, ...]]] = {}
    for start in range(0, max(len(digests), len(layers)), _PART):
        named, stacked = digests[start : start + _PART], layers[start : start + _PART]
        keys = [f"config:{digest}" for digest in named] + [f"layer:{digest}" for digest in stacked]
        having = select(keyed.digest).where(keyed.repository == images.repository, keyed.key.in_(keys))
        hit = or_(images.digest.in_(named), images.parent.in_(named), images.digest.in_(having))
        for row in conn.execute(select(schema.images).where(hit, images.state != str(State.REVOKED))):
            found[row.repository, row.digest] = row
    return [row for _, row in sorted(found.items(), key=lambda item: (item[0][0], str(item[0][1])))]
