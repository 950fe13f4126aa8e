"""What is used of quotas: counters that change at the end of the transaction that changes what they count.

Whoever writes repositories, blobs, manifests or tags does so by the functions of this package, and those count; so a
push costs one update for each quota that it is under, whatever is in the repository. What the registry writes itself
(clearances, signatures) is not counted, and no quota keeps it from being written.

A repository counts for the account that made it, a blob for the one that brought it there, a manifest for the one
that pushed it, a tag for the one that moved it last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import ColumnElement, Connection, FromClause, bindparam, delete, func, select, true, update

from ocispec.strictjson import JsonValue
from registry.access import REGISTRY, matching
from registry.catalogue import schema
from registry.catalogue.database import put_row, run_last
from registry.catalogue.locks import Lock, hold
from registry.catalogue.rules import rules_to_keep
from registry.errors import CatalogueError, QuotaError
from registry.rules import COUNTED, OF_ACCOUNT, Amount, Kind, Quota, Rule, RuleSet

_TABLE: Final = schema.quota_usage
_COLUMNS: Final = tuple(_TABLE.c[name] for name in COUNTED)
_ADD: Final = (
    update(_TABLE)
    .where(_TABLE.c.pattern == bindparam("quota"))
    .values({column: column + bindparam(f"more_{column.name}") for column in _COLUMNS})
    .returning(*_COLUMNS)
)
_CHUNK: Final = 500
"""Names of repositories in one query."""


def quotas(rules: RuleSet, repository: str, account: str) -> tuple[Rule, ...]:
    """The quotas that what `account` brings to `repository` counts for, always in one order."""
    if account == REGISTRY.name:
        return ()
    return (*rules.of(Kind.QUOTA, repository), *rules.of_account(Kind.QUOTA, account))


def count(conn: Connection, repository: str, account: str, more: Amount) -> None:
    """Count what `account` just brought to a repository, or has less there, at the end of this transaction.

    Raises:
        QuotaError: then, if it is more than a quota allows.
    """
    if account != REGISTRY.name:
        _count(conn, quotas(rules_to_keep(conn), repository, account), more)


def count_moved(conn: Connection, repository: str, before: str, after: str, amount: Amount) -> None:
    """Count that what was one account's in a repository is now another's.

    Raises:
        QuotaError: at the end, if it is more than the second account's quota allows.
    """
    if before != after:
        rules = rules_to_keep(conn)
        left, come = quotas(rules, repository, before), quotas(rules, repository, after)
        _count(conn, [rule for rule in left if rule not in come], -amount)
        _count(conn, [rule for rule in come if rule not in left], amount)


def used(conn: Connection, rule: Rule) -> Amount:
    """How much of a quota is used.

    Raises:
        CatalogueError: nothing says so, which must not be taken for nothing.
    """
    row = conn.execute(select(*_COLUMNS).where(_TABLE.c.pattern == rule.pattern)).first()
    if row is None:
        raise CatalogueError(f"catalogue: rule {rule}: its use was not counted; setting it again counts it")
    return Amount(**row._mapping)


def begin_counting(conn: Connection, rule: Rule) -> Amount:
    """Count all that there is under a quota, and go on from there; under `lock_rules`."""
    found = recount(conn, rule)
    put_row(conn, _TABLE, pattern=rule.pattern, **{name: getattr(found, name) for name in COUNTED})
    return found


def stop_counting(conn: Connection, rule: Rule) -> None:
    """Forget what is used of a quota that is no more."""
    conn.execute(delete(_TABLE).where(_TABLE.c.pattern == rule.pattern))


def recount(conn: Connection, rule: Rule) -> Amount:
    """What there is under a quota, counted row by row."""
    if rule.pattern.startswith(OF_ACCOUNT):
        return _counted(conn, account=rule.pattern.removeprefix(OF_ACCOUNT))
    names = conn.scalars(select(schema.repositories.c.name)).all()
    if rule.pattern == "*":
        return _counted(conn)
    match = matching((rule.pattern,))
    mine = [name for name in names if match(name) is not None]
    parts = (_counted(conn, repositories=mine[at : at + _CHUNK]) for at in range(0, len(mine), _CHUNK))
    return sum(parts, Amount())


def exceeded(rule: Rule, limited: str, limit: int, got: int) -> QuotaError:
    """The refusal of what would be too much."""
    detail: dict[str, JsonValue] = {"rule": str(rule), "of": limited, "limit": limit, "got": got}
    return QuotaError(f"quota {rule.pattern}: {limited}: got {got}, expected at most {limit}", detail=detail)


def _count(conn: Connection, rules: Sequence[Rule], more: Amount) -> None:
    if rules:
        run_last(conn, _add, [(rule, more) for rule in rules])


def _add(conn: Connection, items: Sequence[tuple[Rule, Amount]]) -> None:
    """Change the counters by all that one transaction changed, each once.

    All of them under one lock, the one that the record of the same transaction needs anyway: two transactions that
    count several quotas in different orders would wait for each other.
    """
    hold(conn, Lock.CHAIN)
    changes: dict[str, tuple[Rule, Amount]] = {}
    for rule, more in items:
        before = changes[rule.pattern][1] if rule.pattern in changes else Amount()
        changes[rule.pattern] = (rule, before + more)
    for rule, more in changes.values():
        values = {f"more_{name}": getattr(more, name) for name in COUNTED}
        row = conn.execute(_ADD, {"quota": rule.pattern, **values}).first()
        if row is None:
            raise CatalogueError(f"catalogue: rule {rule}: its use was not counted; setting it again counts it")
        now, quota = Amount(**row._mapping), rule.value
        if isinstance(quota, Quota) and (limited := quota.exceeded(now, more)) is not None:
            raise exceeded(rule, limited, getattr(quota, limited), getattr(now, limited))


def _counted(conn: Connection, *, account: str | None = None, repositories: Sequence[str] | None = None) -> Amount:
    held, blobs, pushed, made, tags = (
        schema.repository_blobs.c,
        schema.blobs.c,
        schema.manifests.c,
        schema.repositories.c,
        schema.tags.c,
    )

    def some(repository: ColumnElement[str], by: ColumnElement[str]) -> ColumnElement[bool]:
        found = by == account if account is not None else by != REGISTRY.name
        return found & (repository.in_(repositories) if repositories is not None else true())

    def total(what: ColumnElement[int], where: ColumnElement[bool], source: FromClause) -> int:
        return conn.scalar(select(func.coalesce(what, 0)).select_from(source).where(where)) or 0

    joined = schema.repository_blobs.join(schema.blobs, blobs.digest == held.digest)
    content = total(func.sum(blobs.size), some(held.repository, held.added_by), joined)
    ours = some(pushed.repository, pushed.pushed_by)
    return Amount(
        bytes=int(content) + int(total(func.sum(pushed.size), ours, schema.manifests)),
        repositories=total(func.count(), some(made.name, made.created_by), schema.repositories),
        manifests=total(func.count(), ours, schema.manifests),
        tags=total(func.count(), some(tags.repository, tags.pushed_by), schema.tags),
    )
