"""A policy document's bytes as one JSON value: strict YAML or strict JSON, which mean the same or are refused.

YAML is read from its event stream, not by a loader, so that nothing of it but mappings, sequences and
scalars exists here: tags, anchors, aliases (the "billion laughs"), merge keys, directives, several documents
and duplicate keys are errors. A plain scalar is a word, true, false, null or a decimal whole number; what
YAML 1.1 and 1.2 read differently (`yes`, `010`, `1.5`, `12:30`) must be quoted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from ocispec.errors import SpecError
from ocispec.strictjson import MAX_SAFE_INTEGER, JsonValue, parse_object
from policy.errors import PolicyError

if TYPE_CHECKING:
    from yaml.events import Event, ScalarEvent

MAX_DOCUMENT: Final = 512 * 1024
"""Bytes of a policy; the default one has about 12,000."""
MAX_NODES: Final = 50_000
"""Mappings, sequences and scalars of a policy."""
MAX_NESTING: Final = 32

_AMBIGUOUS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "~", "<<", "="})
"""Lower-case words that YAML 1.1 gives a meaning and YAML 1.2 does not, or only one of them."""


def read_document(document: bytes, *, what: str = "policy") -> dict[str, JsonValue]:
    """Return the object in `document`: JSON if it begins with `{`, else YAML.

    Raises:
        PolicyError: too large, too deep, not UTF-8, or anything that the module's text says is refused.
    """
    if len(document) > MAX_DOCUMENT:
        raise PolicyError(f"{what}: got {len(document)} bytes, expected at most {MAX_DOCUMENT}")
    if document.lstrip(b" \t\r\n").startswith(b"{"):
        try:
            return parse_object(document, what=what, max_bytes=MAX_DOCUMENT)
        except SpecError as error:
            raise PolicyError(str(error)) from error
    try:
        text = document.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PolicyError(f"{what}: not UTF-8 at byte {error.start}") from None
    value = _read_yaml(text, what)
    if not isinstance(value, dict):
        raise PolicyError(f"{what}: expected a mapping at the top")
    return value


def _read_yaml(text: str, what: str) -> JsonValue:
    import yaml  # noqa: PLC0415  # ten milliseconds that a JSON document must not cost

    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    try:
        reader = _Reader(yaml.parse(text, Loader=loader), what)
        return reader.document()
    except yaml.MarkedYAMLError as error:
        place = _place(error.problem_mark or error.context_mark)
        raise PolicyError(f"{what}: {place}: not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise PolicyError(f"{what}: not YAML: {str(error).splitlines()[0]}") from None


def _place(mark: object) -> str:
    line, column = getattr(mark, "line", None), getattr(mark, "column", None)
    return f"line {line + 1}, column {column + 1}" if line is not None and column is not None else "somewhere"


class _Reader:
    """Builds the value from events, and refuses what the module's text says."""

    def __init__(self, events: Iterator[Event], what: str) -> None:
        self._events = events
        self._what = what
        self._nodes = 0

    def document(self) -> JsonValue:
        self._expect("StreamStartEvent")
        start = next(self._events)
        if _name(start) == "StreamEndEvent":
            raise PolicyError(f"{self._what}: empty, expected a mapping")
        if getattr(start, "version", None) or getattr(start, "tags", None):
            raise self._refused(start, "a directive")
        value = self._node(next(self._events), 0)
        self._expect("DocumentEndEvent")
        end = next(self._events)
        if _name(end) != "StreamEndEvent":
            raise self._refused(end, "a second document")
        return value

    def _expect(self, name: str) -> None:
        event = next(self._events)
        if _name(event) != name:
            raise self._refused(event, f"{_name(event)} where {name} was expected")

    def _node(self, event: Event, depth: int) -> JsonValue:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise PolicyError(f"{self._what}: more than {MAX_NODES} values")
        if depth > MAX_NESTING:
            raise self._refused(event, f"more than {MAX_NESTING} levels")
        name = _name(event)
        if name == "AliasEvent":
            raise self._refused(event, "an alias")
        if getattr(event, "anchor", None) is not None:
            raise self._refused(event, "an anchor")
        if getattr(event, "tag", None) is not None:
            raise self._refused(event, f"the tag {str(getattr(event, 'tag', ''))[:40]!r}")
        if name == "MappingStartEvent":
            return self._mapping(depth)
        if name == "SequenceStartEvent":
            return self._sequence(depth)
        return self._scalar(event)  # type: ignore[arg-type]  # only scalars are left in the event grammar

    def _mapping(self, depth: int) -> dict[str, JsonValue]:
        members: dict[str, JsonValue] = {}
        while _name(event := next(self._events)) != "MappingEndEvent":
            key = self._node(event, depth + 1)
            if not isinstance(key, str):
                raise self._refused(event, "a key that is not a word")
            if key in members:
                raise self._refused(event, f"the key {key[:80]!r} a second time")
            members[key] = self._node(next(self._events), depth + 1)
        return members

    def _sequence(self, depth: int) -> list[JsonValue]:
        items: list[JsonValue] = []
        while _name(event := next(self._events)) != "SequenceEndEvent":
            items.append(self._node(event, depth + 1))
        return items

    def _scalar(self, event: ScalarEvent) -> JsonValue:
        text = event.value
        if event.style:  # quoted, or a block of text: the C reader says "" of a plain one, the Python reader None
            return text
        if text in {"", "null"}:
            return None
        if text in {"true", "false"}:
            return text == "true"
        lowered = text.lower()
        if lowered in _AMBIGUOUS or lowered in {"true", "false", "null"}:
            raise self._refused(
                event, f"{text!r}, which YAML versions read differently: quote it, or write true or false"
            )
        return self._number_or_word(event, text)

    def _number_or_word(self, event: ScalarEvent, text: str) -> JsonValue:
        digits = text.removeprefix("-")
        if digits.isascii() and digits.isdigit():
            if len(digits) > 1 and digits.startswith("0"):
                raise self._refused(event, f"the number {text[:24]!r}, which may be octal: quote it")
            if len(digits) > 16 or int(digits) > MAX_SAFE_INTEGER:
                raise self._refused(event, f"the number {text[:24]!r}, which is beyond 2^53-1")
            return int(text)
        if _looks_like_number(text):
            raise self._refused(event, f"{text[:40]!r}, which may be a number or a date: quote it")
        return text

    def _refused(self, event: Event, found: str) -> PolicyError:
        return PolicyError(f"{self._what}: {_place(event.start_mark)}: got {found}")


def _name(event: Event) -> str:
    return type(event).__name__


def _looks_like_number(text: str) -> bool:
    """True for what YAML 1.1 or 1.2 may read as a float, a date, or a number in another base."""
    body = text.lstrip("+-")
    if body.lower() in {".inf", ".nan"} or body.lower().startswith(("0x", "0o", "0b")):
        return True
    return body[:1].isdigit() and not body.strip("0123456789._:,eE+-TtZz ")
