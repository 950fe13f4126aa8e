"""OSV records: the Open Source Vulnerability schema 1.7, parsed strictly into values.

Unknown members are left alone, as the schema's rule for its minor versions asks. A record that breaks a rule
which matching rests on is refused as a whole; `named_packages` still tells which packages it was about, so
that nobody takes silence for "not affected".
"""

from __future__ import annotations

import re
from typing import Final

from ocispec import fields
from ocispec.errors import SpecError
from ocispec.fields import JsonObject
from ocispec.strictjson import JsonValue, parse_object
from scanner.advisories.records import Advisory, Affected, Event, EventKind, Range, RangeKind
from scanner.advisories.severity import from_score, from_word, worst
from scanner.errors import ScanError
from scanner.model import Severity

MAX_RECORD: Final = 8 * 1024 * 1024
"""Bytes of one record; the largest real ones, with every version of a kernel listed, have 3 MB."""

MAX_SUMMARY: Final = 300
"""Characters of a summary that are kept; the schema recommends 120."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", re.ASCII)
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:Z|[+-]\d{2}:\d{2})", re.ASCII)

_EVENTS: Final = frozenset(kind.value for kind in EventKind)

# Ubuntu and Debian say it in their own words (OSV schema, `ecosystem_specific`).
_WONT_FIX_URGENCY: Final = frozenset({"end-of-life"})


def parse_advisory(raw: bytes, *, what: str) -> Advisory:
    """The advisory in the OSV record `raw`; `what` names it in errors.

    Raises:
        ScanError: not JSON, or not what the schema says of the members that matching needs.
    """
    try:
        return _advisory(parse_object(raw, what=what, max_bytes=MAX_RECORD), what)
    except SpecError as error:
        raise ScanError(str(error)) from None


def named_packages(raw: bytes) -> tuple[str, frozenset[tuple[str, str]]]:
    """The id of a record that could not be parsed, and the (ecosystem, name) pairs that it is about, as far as told."""
    try:
        members = parse_object(raw, what="record", max_bytes=MAX_RECORD)
    except SpecError:
        return "", frozenset()
    affected = members.get("affected")
    found: set[tuple[str, str]] = set()
    for item in affected if isinstance(affected, list) else ():
        package = item.get("package") if isinstance(item, dict) else None
        if isinstance(package, dict):
            ecosystem, name = package.get("ecosystem"), package.get("name")
            if isinstance(ecosystem, str) and isinstance(name, str):
                found.add((ecosystem, normal_name(ecosystem, name)))
    identifier = members.get("id")
    return identifier[:128] if isinstance(identifier, str) else "", frozenset(found)


def normal_name(ecosystem: str, name: str) -> str:
    """A package's name as it is looked up: PyPI's in the normal form of PEP 503, others as they are."""
    return re.sub(r"[-_.]+", "-", name).lower() if ecosystem.partition(":")[0] == "PyPI" else name


def _advisory(members: JsonObject, what: str) -> Advisory:
    specific = fields.child(members, "database_specific", what=what) or {}
    affected = tuple(
        _affected(item, f"{what}: affected[{position}]")
        for position, item in enumerate(fields.items(members, "affected", what=what, limit=50_000))
    )
    return Advisory(
        id=_identifier(fields.text(members, "id", what=what), what),
        modified=_time(members, "modified", what),
        published=_date(members, "published", what),
        withdrawn=_date(members, "withdrawn", what),
        summary=fields.text(members, "summary", what=what, default="")[:MAX_SUMMARY],
        aliases=_identifiers(members, "aliases", what),
        upstream=_identifiers(members, "upstream", what),
        severity=_severity(members, specific, what),
        affected=affected,
    )


def _identifier(text: str, what: str) -> str:
    if _ID.fullmatch(text) is None:
        raise SpecError(f"{what}: got {text[:80]!r}, expected the id of a vulnerability")
    return text


def _identifiers(members: JsonObject, name: str, what: str) -> tuple[str, ...]:
    texts = fields.texts(members, name, what=what, limit=5_000)
    return tuple(sorted({_identifier(text, f"{what}: {name}") for text in texts}))


def _time(members: JsonObject, name: str, what: str) -> str:
    value = fields.text(members, name, what=what)
    if _TIME.fullmatch(value) is None:
        raise SpecError(f"{what}: {name} is {value[:40]!r}, expected an RFC 3339 time")
    return value


def _date(members: JsonObject, name: str, what: str) -> str:
    if members.get(name) is None:
        return ""
    day = _time(members, name, what)[:10]
    # Go's zero time stands for "not known" in golang/vulndb.
    return "" if day == "0001-01-01" else day


def _severity(members: JsonObject, specific: JsonObject, what: str) -> Severity:
    word = specific.get("severity")
    if isinstance(word, str) and from_word(word) is not Severity.NONE:
        return from_word(word)
    scores: list[Severity] = []
    for position, item in enumerate(fields.items(members, "severity", what=what, limit=100)):
        where = f"{what}: severity[{position}]"
        if not isinstance(item, dict):
            raise SpecError(f"{where}: expected an object")
        scores.append(from_score(fields.text(item, "type", what=where), fields.text(item, "score", what=where)))
    return worst(*scores)


def _affected(item: JsonValue, what: str) -> Affected:
    if not isinstance(item, dict):
        raise SpecError(f"{what}: expected an object")
    package = fields.child(item, "package", what=what)
    if package is None:
        # Records of source repositories alone: no package of an image can be meant.
        package = {"ecosystem": "", "name": ""}
    ecosystem = fields.text(package, "ecosystem", what=what)
    specific = fields.child(item, "ecosystem_specific", what=what) or {}
    urgency = specific.get("urgency")
    urgency = urgency if isinstance(urgency, str) else ""
    return Affected(
        ecosystem=ecosystem,
        name=normal_name(ecosystem, fields.text(package, "name", what=what)),
        ranges=tuple(
            _range(value, f"{what}: ranges[{position}]")
            for position, value in enumerate(fields.items(item, "ranges", what=what, limit=10_000))
        ),
        versions=fields.texts(item, "versions", what=what, limit=100_000),
        severity=worst(from_word(urgency), _severity(item, {}, what)),
        wont_fix=urgency in _WONT_FIX_URGENCY,
    )


def _range(value: JsonValue, what: str) -> Range:
    if not isinstance(value, dict):
        raise SpecError(f"{what}: expected an object")
    kind = fields.text(value, "type", what=what)
    if kind not in RangeKind.__members__:
        raise SpecError(f"{what}: type is {kind[:40]!r}, expected {', '.join(RangeKind)}")
    if kind == RangeKind.GIT:
        # Commits are no versions: kept as a kind, because a record of nothing else cannot be evaluated.
        return Range(kind=RangeKind.GIT, events=())
    events = tuple(
        _event(item, f"{what}: events[{position}]")
        for position, item in enumerate(fields.items(value, "events", what=what, limit=100_000))
    )
    if not any(event.kind is EventKind.INTRODUCED for event in events):
        raise SpecError(f"{what}: no introduced event, expected at least one")
    return Range(kind=RangeKind(kind), events=events)


def _event(value: JsonValue, what: str) -> Event:
    if not isinstance(value, dict) or len(value) != 1:
        raise SpecError(f"{what}: expected an object of one member")
    name, version = next(iter(value.items()))
    if name not in _EVENTS or not isinstance(version, str) or not version:
        raise SpecError(f"{what}: got {name[:40]!r}, expected one of {', '.join(EventKind)} with a version")
    return Event(kind=EventKind(name), version=version)
