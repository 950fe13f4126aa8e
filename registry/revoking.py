"""What a new revocation list stops at once: in the transaction that takes it, before anybody judges again.

Named digests (manifests, indexes, configs) and layers, and images whose approved parent is named, are revoked here;
what only a judgement can find (components, keys) follows with the queue, before all else in it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Row, bindparam, delete, select, update

from ocispec.digest import Digest
from policy.model import State
from policy.statements import RevocationList
from registry import states
from registry.audit import Audit, Event
from registry.catalogue import schema
from registry.judge.jobs import JobKind, Priority, enqueue_all, subject_of
from registry.states import Standing

_PART: Final = 1000
"""Entries of a list in one query: databases take some ten thousand values at most."""

_REVOKE: Final = (
    update(schema.images)
    .where(schema.images.c.repository == bindparam("in_repository"), schema.images.c.digest == bindparam("with_digest"))
    .values({name: bindparam(name) for name in ("state", "reason", "message", "revoked_by", "changed")})
)
_WITHDRAW: Final = delete(schema.clearances).where(
    schema.clearances.c.repository == bindparam("in_repository"),
    schema.clearances.c.digest == bindparam("with_digest"),
)


def revoke_now(
    conn: Connection, audit: Audit, listed: RevocationList, *, by: str, source: str, now: datetime
) -> tuple[tuple[str, Digest], ...]:
    """Move what the list names to REVOKED, and return it. Under `statements.lock_statements`: no judgement is written
    meanwhile that does not know the list."""
    rows = _named(conn, listed)
    if not rows:
        return ()
    changes = {
        state: states.revoked(Standing(state=State(state)), list_number=listed.number, reason=listed.reason)
        for state in {row.state for row in rows}
    }
    # One statement for all of them: a base can have very many images on it, and everybody waits for this transaction.
    conn.execute(
        _REVOKE,
        [
            {
                "in_repository": row.repository,
                "with_digest": row.digest,
                "state": changes[row.state].after,
                "reason": changes[row.state].reason,
                "message": changes[row.state].message,
                "revoked_by": listed.number,
                "changed": now,
            }
            for row in rows
        ],
    )
    conn.execute(_WITHDRAW, [{"in_repository": row.repository, "with_digest": row.digest} for row in rows])
    for row in rows:
        change = changes[row.state]
        audit.append(
            conn,
            Event.STATE,
            principal=by,
            source=source,
            subject=f"{row.repository}@{row.digest}",
            before=f"{row.state}: {row.reason}",
            after=f"{change.after}: {change.message}",
        )
    subjects = [subject_of(row.repository, row.digest) for row in rows]
    enqueue_all(conn, JobKind.JUDGE, subjects, now=now, priority=Priority.URGENT)
    return tuple((row.repository, row.digest) for row in rows)


def _named(conn: Connection, listed: RevocationList) -> list[Row[tuple[object, ...]]]:
    """The images that a list names and that are not revoked yet, in one order, so that no two wait for each other."""
    images, keyed = schema.images.c, schema.image_keys.c
    digests, layers = tuple(listed.digests), tuple(listed.layers)
    found: dict[tuple[str, Digest], Row[tuple[object, ...]]] = {}
    for start in range(0, max(len(digests), len(layers)), _PART):
        named, stacked = digests[start : start + _PART], layers[start : start + _PART]
        keys = [f"config:{digest}" for digest in named] + [f"layer:{digest}" for digest in stacked]
        having = (keyed.repository == images.repository) & (keyed.digest == images.digest)
        alive = select(schema.images).where(images.state != str(State.REVOKED))
        # Each by an index of its own: with OR, databases look at all images.
        queries = (
            alive.where(images.digest.in_(named)),
            alive.where(images.parent.in_(named)),
            alive.join(schema.image_keys, having).where(keyed.key.in_(keys)),
        )
        for row in (row for query in queries for row in conn.execute(query)):
            found[row.repository, row.digest] = row
    return [row for _, row in sorted(found.items(), key=lambda item: (item[0][0], str(item[0][1])))]
