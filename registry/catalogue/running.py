"""What hosts said that they run, and when manifests were last sent: what retention never, or not yet, takes away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, delete, insert, literal, select, tuple_

from ocispec.digest import Digest
from registry.catalogue.database import put_row
from registry.catalogue.locks import hold_alone, hold_name
from registry.catalogue.lookups import there_is
from registry.catalogue.schema import manifests, pulls, running, running_reports

Image = tuple[str, Digest]
"""A repository, and a digest in it."""


_REPORTS: Final = "reports of hosts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One host that runs an image, by its newest report."""

    host: str
    repository: str
    digest: Digest
    reported: datetime


def hold_reports(conn: Connection) -> None:
    """Have no host report anything before this transaction ends: what runs is what it sees."""
    hold_alone(conn, _REPORTS)


def report_running(conn: Connection, host: str, images: Sequence[Image], *, now: datetime) -> None:
    """Replace what `host` runs by `images`, each once."""
    hold_name(conn, _REPORTS)
    put_row(conn, running_reports, account=host, reported=now, images=len(images))
    conn.execute(delete(running).where(running.c.account == host))
    if images:
        rows = [{"account": host, "repository": repository, "digest": digest} for repository, digest in images]
        conn.execute(insert(running), rows)


def hosts_running(
    conn: Connection, *, digest: Digest, since: datetime, after: tuple[str, str], limit: int
) -> tuple[Seen, ...]:
    """The hosts that run `digest` by a report that is not older than `since`, by host and repository after `after`."""
    host, repository = after
    beyond = (running.c.account > host) | ((running.c.account == host) & (running.c.repository > repository))
    rows = conn.execute(
        select(running.c.account, running.c.repository, running.c.digest, running_reports.c.reported)
        .join(running_reports, running_reports.c.account == running.c.account)
        .where(running.c.digest == digest, running_reports.c.reported >= since, beyond)
        .order_by(running.c.account, running.c.repository)
        .limit(limit)
    )
    return tuple(
        Seen(host=row.account, repository=row.repository, digest=row.digest, reported=row.reported) for row in rows
    )


def forget_reports(conn: Connection, before: datetime) -> int:
    """Remove the reports from before then; returns how many."""
    return int(conn.execute(delete(running_reports).where(running_reports.c.reported < before)).rowcount)


def note_pulls(conn: Connection, seen: Mapping[Image, datetime]) -> None:
    """Record when manifests were last sent."""
    for (repository, digest), time in sorted(seen.items()):  # in one order: two instances must not wait for each other
        put_row(conn, pulls, repository=repository, digest=digest, pulled=time)


def forget_pulls(conn: Connection, after: Image | None, limit: int) -> Image | None:
    """Remove what is noted of manifests that are gone, among the next `limit` notes; the last one looked at, if any."""
    at = (pulls.c.repository, pulls.c.digest)
    there = there_is(manifests.c.repository == pulls.c.repository, manifests.c.digest == pulls.c.digest)
    query = select(*at, there.label("there")).order_by(*at).limit(limit)
    if after is not None:
        key = tuple_(literal(after[0], pulls.c.repository.type), literal(after[1], pulls.c.digest.type))
        query = query.where(tuple_(pulls.c.repository, pulls.c.digest) > key)
    rows = conn.execute(query).all()
    for row in rows:
        if not row.there:
            this = (pulls.c.repository == row.repository, pulls.c.digest == row.digest)
            conn.execute(delete(pulls).where(*this, ~there))
    return (rows[-1].repository, rows[-1].digest) if rows else None
