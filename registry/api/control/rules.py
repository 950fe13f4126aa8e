"""Rules for repositories: which tags never change, how much there may be (registry/rules.py).

| endpoint | who |
| --- | --- |
| GET /api/v1/rules | admin, officer, auditor |
| PUT /api/v1/rules, DELETE /api/v1/rules?pattern=&kind= | admin |

Nothing else of the API changes what a repository is under: who may push or delete there cannot switch it off (R6).
"""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, request
from sqlalchemy import Connection

from ocispec import fields
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue
from policy.times import format_time
from registry.access import Role
from registry.api.base import json_response
from registry.api.control.shared import json_body, require_role
from registry.audit import Event
from registry.catalogue.rules import find_rule, lock_rules, put_rule, remove_rule, rules_now
from registry.catalogue.usage import begin_counting, stop_counting, used
from registry.context import caller, context, source
from registry.errors import NameUnknownError, RuleError
from registry.rules import COUNTED, Amount, Kind, Rule, check_pattern, read_value, value_text

blueprint = Blueprint("rules", __name__)

_MEMBERS: Final = frozenset({"pattern", "kind", "value"})


@blueprint.get("/api/v1/rules")
def get_rules() -> Response:
    """All rules, by pattern and kind; with what is used of each quota."""
    require_role(Role.ADMIN, Role.OFFICER, Role.AUDITOR)
    with context().catalogue.read() as conn:
        found: list[JsonValue] = [_shown(conn, rule) for rule in rules_now(conn).rules]
    return json_response({"rules": found})


@blueprint.put("/api/v1/rules")
def put_one() -> Response:
    """Set a rule, in place of the one of its kind for the same pattern; binding for whoever writes from now on."""
    require_role(Role.ADMIN)
    wanted = _wanted(json_body())

    def change(conn: Connection) -> tuple[bool, JsonValue]:
        lock_rules(conn)
        before = find_rule(conn, wanted.pattern, wanted.kind)
        put_rule(conn, wanted)
        if wanted.kind is Kind.QUOTA:
            begin_counting(conn, wanted)
        _record(conn, wanted, before=_told(before), after=_told(wanted))
        return before is None, _shown(conn, wanted)

    new, shown = context().catalogue.change(change)
    response = json_response(shown)
    response.status_code = 201 if new else 200
    return response


@blueprint.delete("/api/v1/rules")
def delete_one() -> Response:
    """Remove a rule."""
    require_role(Role.ADMIN)
    kind, pattern = _kind(request.args.get("kind", "")), request.args.get("pattern", "")

    def change(conn: Connection) -> None:
        lock_rules(conn)
        found = find_rule(conn, pattern, kind)
        if found is None:
            raise NameUnknownError(f"rule {kind} {pattern[:80]!r}: not known")
        remove_rule(conn, found)
        if kind is Kind.QUOTA:
            stop_counting(conn, found)
        _record(conn, found, before=_told(found), after="")

    context().catalogue.change(change)
    return Response(status=204)


def _wanted(members: dict[str, JsonValue]) -> Rule:
    try:
        unknown = [name for name in members if name not in _MEMBERS]
        if unknown:
            raise RuleError(f"rule: unknown member {unknown[0][:80]!r}, expected {', '.join(sorted(_MEMBERS))}")
        kind = _kind(fields.text(members, "kind", what="rule"))
        pattern = check_pattern(kind, fields.text(members, "pattern", what="rule"))
        value = fields.child(members, "value", what="rule")
    except SpecError as error:
        raise RuleError(str(error)) from None
    return Rule(
        pattern=pattern,
        kind=kind,
        value=read_value(kind, value or {}, what=f"rule {kind} {pattern}"),
        changed=context().clock(),
        changed_by=caller().name,
    )


def _kind(text: str) -> Kind:
    try:
        return Kind(text)
    except ValueError:
        raise RuleError(f"rule: kind: got {text[:40]!r}, expected one of {', '.join(Kind)}") from None


def _shown(conn: Connection, rule: Rule) -> JsonValue:
    members: dict[str, JsonValue] = {
        "pattern": rule.pattern,
        "kind": str(rule.kind),
        "value": rule.value.to_json(),
        "changed": format_time(rule.changed),
        "changedBy": rule.changed_by,
    }
    if rule.kind is Kind.QUOTA:
        members["used"] = _amount(used(conn, rule))
    return members


def _amount(amount: Amount) -> JsonValue:
    return {name: getattr(amount, name) for name in COUNTED}


def _told(rule: Rule | None) -> str:
    return value_text(rule.value) if rule is not None else ""


def _record(conn: Connection, rule: Rule, *, before: str, after: str) -> None:
    context().audit.append(
        conn,
        Event.RULE,
        principal=caller().name,
        source=source(),
        subject=str(rule),
        before=before,
        after=after or "removed",
    )
