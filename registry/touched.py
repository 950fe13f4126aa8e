"""Which images a change touches: those that are judged again because of it."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select

from ocispec.digest import Digest
from policy import dsse, wire
from policy.errors import PolicyError
from policy.globs import Glob
from policy.statements import ImageApproval, LayerApproval, Statement, Waiver, Withdrawal
from registry.catalogue import schema
from registry.statements import keys_of_statement

_TABLE = schema.statements.c


def touched(conn: Connection, statement: Statement, *, registry: str) -> tuple[tuple[str, Digest], ...]:
    """The images (repository, digest) whose judgement a statement may change."""
    match statement:
        case ImageApproval() | LayerApproval():
            return _with_keys(conn, keys_of_statement(statement))
        case Withdrawal(statement=withdrawn):
            return _touched_by_withdrawal(conn, withdrawn)
        case Waiver(scope=scope):
            return _in_scope(conn, scope, registry)
        case _:
            return all_images(conn)


def touched_by(conn: Connection, digest: Digest, *, registry: str) -> tuple[tuple[str, Digest], ...]:
    """The images that the stored statement `digest` touches; all of them if it cannot be read."""
    envelope = conn.scalar(select(_TABLE.envelope).where(_TABLE.digest == digest))
    if envelope is None:
        return all_images(conn)
    statement = wire.decode(dsse.parse(envelope, what="statement").payload, what="statement")
    return touched(conn, statement, registry=registry)


def all_images(conn: Connection) -> tuple[tuple[str, Digest], ...]:
    """Every image and index."""
    table = schema.images
    rows = conn.execute(select(table.c.repository, table.c.digest).order_by(table.c.repository, table.c.digest))
    return tuple((row.repository, row.digest) for row in rows)


def _with_keys(conn: Connection, keys: Iterable[str]) -> tuple[tuple[str, Digest], ...]:
    table = schema.image_keys
    rows = conn.execute(select(table.c.repository, table.c.digest).where(table.c.key.in_(tuple(keys))).distinct())
    return tuple((row.repository, row.digest) for row in rows)


def _touched_by_withdrawal(conn: Connection, statement: Digest) -> tuple[tuple[str, Digest], ...]:
    row = conn.execute(select(_TABLE.type, _TABLE.envelope).where(_TABLE.digest == statement)).first()
    if row is None:
        return ()
    if row.type == Waiver.__name__:
        return all_images(conn)
    table = schema.statement_keys
    return _with_keys(conn, conn.scalars(select(table.c.key).where(table.c.statement == statement)).all())


def _in_scope(conn: Connection, scope: str, registry: str) -> tuple[tuple[str, Digest], ...]:
    try:
        glob = Glob.compile(scope)
    except PolicyError:
        return ()
    return tuple(image for image in all_images(conn) if glob.matches(f"{registry}/{image[0]}"))
