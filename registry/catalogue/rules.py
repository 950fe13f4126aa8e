"""Rules as the catalogue keeps them, and as whoever writes reads them: in the very transaction that keeps to them.

Reading for a write takes one short query: each change gives `meta.rules` another text, and what was parsed under a
text is kept. On PostgreSQL whoever writes shares a lock that a change of rules must have alone; so no transaction
that began under older rules is committed after a newer rule was set, on whatever instance. Requests that only read
content ask for no rule at all.
"""

from __future__ import annotations

import secrets
import threading
from typing import Final

from sqlalchemy import Connection, delete, select

from registry.catalogue import schema
from registry.catalogue.database import put_row
from registry.catalogue.locks import Lock, hold
from registry.errors import CatalogueError, RuleError
from registry.rules import NO_RULES, Kind, Rule, RuleSet, parse_value, value_text

MAX_RULES: Final = 1000

_GENERATION: Final = select(schema.meta.c.value).where(schema.meta.c.name == "rules")
_OPTION: Final = "pratique_rules"
_KEPT: Final = 16

_lock = threading.Lock()
_parsed: dict[str, RuleSet] = {"": NO_RULES}


def rules_to_keep(conn: Connection) -> RuleSet:
    """The rules that bind this writing transaction; none is set before it is over."""
    found = conn.get_execution_options().get(_OPTION)
    if isinstance(found, RuleSet):
        return found
    hold(conn, Lock.RULES, shared=True)
    rules = rules_now(conn)
    conn.execution_options(**{_OPTION: rules})
    return rules


def rules_now(conn: Connection) -> RuleSet:
    """The rules as they are, for whoever only looks."""
    generation = conn.scalar(_GENERATION) or ""
    found = _parsed.get(generation)
    if found is None:
        found = _read(conn)
        with _lock:
            while len(_parsed) >= _KEPT:
                del _parsed[next(name for name in _parsed if name)]
            _parsed[generation] = found
    return found


def lock_rules(conn: Connection) -> None:
    """Have rules to oneself until the transaction ends: nobody is in the middle of keeping to the old ones."""
    hold(conn, Lock.RULES)


def find_rule(conn: Connection, pattern: str, kind: Kind) -> Rule | None:
    """The rule of this pattern and kind."""
    return next((rule for rule in rules_now(conn).rules if (rule.pattern, rule.kind) == (pattern, kind)), None)


def put_rule(conn: Connection, rule: Rule) -> None:
    """Set a rule, in place of the one of its pattern and kind; under `lock_rules`.

    Raises:
        RuleError: there are as many as there may be.
    """
    kept = [other for other in rules_now(conn).rules if (other.pattern, other.kind) != (rule.pattern, rule.kind)]
    if len(kept) >= MAX_RULES:
        raise RuleError(f"rule {rule}: there are {len(kept)}, expected at most {MAX_RULES}")
    put_row(
        conn,
        schema.rules,
        pattern=rule.pattern,
        kind=str(rule.kind),
        value=value_text(rule.value),
        changed=rule.changed,
        changed_by=rule.changed_by,
    )
    _turn(conn)


def remove_rule(conn: Connection, rule: Rule) -> None:
    """Remove a rule; under `lock_rules`."""
    table = schema.rules.c
    conn.execute(delete(schema.rules).where(table.pattern == rule.pattern, table.kind == str(rule.kind)))
    _turn(conn)


def _turn(conn: Connection) -> None:
    put_row(conn, schema.meta, name="rules", value=secrets.token_hex(16))
    conn.execution_options(**{_OPTION: None})


def _read(conn: Connection) -> RuleSet:
    """All rules.

    Raises:
        CatalogueError: one cannot be read. Nothing is written under rules that nobody knows.
    """
    found: list[Rule] = []
    for row in conn.execute(select(schema.rules)):
        what = f"rule {row.kind} {row.pattern}"
        try:
            kind = Kind(row.kind)
            value = parse_value(kind, row.value, what=what)
        except (ValueError, RuleError) as error:
            raise CatalogueError(f"catalogue: {what} cannot be read: {error}") from error
        found.append(Rule(pattern=row.pattern, kind=kind, value=value, changed=row.changed, changed_by=row.changed_by))
    return RuleSet(found)
