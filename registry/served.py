"""The two values of a tag: what was pushed to it, and what hosts are served.

- Served moves to the pushed digest when that may start; its value is then in a tag statement, whose number the
  signer counts up. A denial of what was pushed leaves served where it is.
- What is served can lose its clearance itself (revoked, expired, denied by newer advisories). The tag then serves
  nothing: a host that asks for it is refused with that image's reason. It does not fall back to an older image by
  itself: nobody has said that the older one is wanted, and hosts would refuse the lower number. It serves again when
  the image is cleared again, or when another one is pushed and cleared.
- A tag that is deleted and made anew goes on counting: the number is the signer's, not the catalogue's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection, func, or_, select, update

from ocispec.digest import Digest
from policy import dsse, wire
from policy.model import State
from policy.statements import TagStatement
from registry.access import REGISTRY, is_protected_tag
from registry.audit import Audit, Event
from registry.catalogue.manifests import touch_manifest
from registry.catalogue.schema import images, tags
from registry.publish import Publisher, children_of
from registry.signer.protocol import SignerRefusedError, SignerUnavailableError
from registry.signer.signer import SignedTag


class TagSigner(Protocol):
    """Signs tag statements."""

    def sign_tag(self, repository: str, tag: str, clearance: bytes) -> SignedTag:
        """See `Signer.sign_tag`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """What is served from now on: a manifest with its clearance, and for an index its cleared children."""

    repository: str
    digest: Digest
    clearance: bytes
    children: tuple[Digest, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """A tag as it is told to people; `served` is None where hosts get nothing, `reason` says why.

    `waiting` says why what was pushed is not what is served, "" where it is, or nothing is.
    """

    pushed: Digest
    served: Digest | None
    statement: bytes | None
    reason: str
    waiting: str = ""


def serve(
    conn: Connection, audit: Audit, signer: TagSigner, publisher: Publisher, cleared: Cleared, *, now: datetime
) -> tuple[str, ...]:
    """Move every tag that was pushed with `cleared` to it, and have all that serve it signed; the moved tags.

    In the transaction that clears it. A tag that the signer refuses to move stays, and that is recorded.

    Raises:
        SignerUnavailableError: the signer does not answer; nothing must be committed.
    """
    repository, digest = cleared.repository, cleared.digest
    pointing = or_(tags.c.pushed == digest, tags.c.served == digest)
    mine = select(tags).where(tags.c.repository == repository, pointing).order_by(tags.c.tag)
    # Locked until the statements count: what is signed with a higher number is also written later.
    rows = conn.execute(mine.with_for_update()).all()
    fresh: dict[Digest, dict[str, tuple[bytes, bytes]]] = {}
    moved: list[str] = []
    for row in rows:
        stays = row.served == digest and row.statement is not None
        if is_protected_tag(row.tag) or (stays and _all_signed(conn, publisher, cleared, row.tag)):
            continue
        subject = f"{repository}:{row.tag}"
        try:
            signed = signer.sign_tag(repository, row.tag, cleared.clearance)
        except SignerRefusedError as error:
            audit.append(conn, Event.REFUSED, principal=REGISTRY.name, subject=subject, after=str(error))
            continue
        for simple in signed.simple:
            fresh.setdefault(simple.digest, {})[row.tag] = (simple.payload, simple.signature)
        _store(conn, repository, row.tag, digest, signed.statement, now)
        if row.served != digest:
            moved.append(row.tag)
            if row.served is not None:
                touch_manifest(conn, repository, row.served, now=now)
                for each in (row.served, *children_of(conn, repository, row.served)):
                    fresh.setdefault(each, {})
            before = str(row.served or "")
            audit.append(conn, Event.SERVED, principal=REGISTRY.name, subject=subject, before=before, after=str(digest))
    for each, pairs in fresh.items():
        publisher.publish_signatures(conn, repository, each, pairs, now=now)
    return tuple(moved)


def values(conn: Connection, repository: str, tag: str) -> Values | None:
    """What a tag says, or None if there is none of that name."""
    shown = func.coalesce(tags.c.served, tags.c.pushed)
    row = conn.execute(
        select(tags.c.pushed, tags.c.served, tags.c.statement, images.c.state, images.c.reason, images.c.message)
        .select_from(tags)
        .outerjoin(images, (images.c.repository == tags.c.repository) & (images.c.digest == shown))
        .where(tags.c.repository == repository, tags.c.tag == tag)
    ).first()
    if row is None:
        return None
    if row.state is None:
        return Values(pushed=row.pushed, served=None, statement=None, reason="nothing was cleared yet")
    if row.served is None:
        reason = f"what was pushed is {row.state}: {row.reason}: {row.message}"
        return Values(pushed=row.pushed, served=None, statement=None, reason=reason)
    if not State(row.state).may_start:
        reason = f"{row.served} is {row.state}: {row.reason}: {row.message}"
        return Values(pushed=row.pushed, served=None, statement=row.statement, reason=reason)
    waiting = "" if row.served == row.pushed else _waiting(conn, repository, row.pushed)
    return Values(pushed=row.pushed, served=row.served, statement=row.statement, reason="", waiting=waiting)


def _waiting(conn: Connection, repository: str, pushed: Digest) -> str:
    """Why what was pushed to a tag is not served under it."""
    columns = select(images.c.state, images.c.reason, images.c.message)
    row = conn.execute(columns.where(images.c.repository == repository, images.c.digest == pushed)).first()
    if row is None:
        return f"{pushed} is no image that hosts are served"
    return f"what was pushed is {row.state}: {row.reason}: {row.message}; hosts are served what was cleared before"


def _all_signed(conn: Connection, publisher: Publisher, cleared: Cleared, tag: str) -> bool:
    digests: Sequence[Digest] = (cleared.digest, *cleared.children)
    return all(publisher.has_signature(conn, cleared.repository, digest, tag) for digest in digests)


def _store(conn: Connection, repository: str, tag: str, digest: Digest, statement: bytes, now: datetime) -> None:
    said = wire.decode(dsse.parse(statement, what="tag statement").payload, what="tag statement")
    if not isinstance(said, TagStatement) or said.digest != digest:
        raise SignerUnavailableError(f"tag {repository}:{tag}: the signer's answer is about something else")
    conn.execute(
        update(tags)
        .where(tags.c.repository == repository, tags.c.tag == tag)
        .values(served=digest, served_at=now, number=said.number, statement=statement)
    )
