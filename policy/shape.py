"""Shapes: what a setting looks like, said once, and used three times.

A `Shape` parses a JSON value to a typed one, writes its JSON Schema (draft 2020-12), and names itself for
the reference in docs/policy.md. So the schema that is shipped, the parser that is trusted and the page that
is read cannot drift apart. Parsing is as strict as the schema: what the schema refuses, `parse` refuses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, Generic, NoReturn, Protocol, TypeVar

from ocispec.strictjson import JsonValue, type_name
from policy.errors import PolicyError
from policy.globs import MAX_PATTERN, Glob

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
E = TypeVar("E", bound=StrEnum)
Schema = dict[str, JsonValue]

MAX_ITEMS: Final = 1000
"""Items of any list in a policy."""

_DURATION: Final = r"^(0|[1-9][0-9]{0,4})(s|m|h|d)$"
_SIZE: Final = r"^[1-9][0-9]{0,6}(KiB|MiB|GiB)$"
_NAME: Final = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
_GLOB: Final = r"^(?!.*\*\*\*)"
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES: Final = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class Shape(Protocol[T_co]):
    """One kind of value in a policy."""

    def parse(self, value: JsonValue, where: str) -> T_co:
        """The typed value; `where` is the path of the setting, for errors.

        Raises:
            PolicyError: it is not of this shape; says where, got and expected.
        """

    def schema(self) -> Schema:
        """Its JSON Schema."""

    def name(self) -> str:
        """A word or two for people: `duration`, `list of globs`."""


def refuse(where: str, value: JsonValue, expected: str) -> NoReturn:
    """Raise the one error that a shape raises."""
    raise PolicyError(f"policy: {where}: got {shown(value)}, expected {expected}")


def shown(value: JsonValue) -> str:
    """A value as messages show it: short scalars themselves, others by their type."""
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else f"{value[:60]!r}…"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value) if isinstance(value, int | float) else type_name(value)


@dataclass(frozen=True, slots=True)
class Text:
    """A string of 1 to `most` characters; `pattern` and its meaning in words narrow it."""

    most: int = 200
    pattern: str = ""
    words: str = "text"
    least: int = 1
    short: str = "text"

    def parse(self, value: JsonValue, where: str) -> str:
        """See Shape."""
        if not isinstance(value, str) or not self.least <= len(value) <= self.most:
            refuse(where, value, f"{self.words} of {self.least} to {self.most} characters")
        if self.pattern and not _fits(self.pattern, value):
            refuse(where, value, self.words)
        return value

    def schema(self) -> Schema:
        """See Shape."""
        members: Schema = {"type": "string", "minLength": self.least, "maxLength": self.most}
        return members | ({"pattern": self.pattern, "title": self.words} if self.pattern else {})

    def name(self) -> str:
        """See Shape."""
        return self.short


NAME: Final = Text(60, _NAME, "a name of lower-case letters, digits and single hyphens", short="name")


@dataclass(frozen=True, slots=True)
class Word(Generic[E]):
    """One of an enumeration's words."""

    kind: type[E]

    def parse(self, value: JsonValue, where: str) -> E:
        """See Shape."""
        if not isinstance(value, str) or value not in {str(word) for word in self.kind}:
            refuse(where, value, f"one of {', '.join(self.kind)}")
        return self.kind(value)

    def schema(self) -> Schema:
        """See Shape."""
        return {"enum": [str(word) for word in self.kind]}

    def name(self) -> str:
        """See Shape."""
        return " or ".join(f"`{word}`" for word in self.kind)


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of some words that no enumeration holds."""

    words: tuple[str, ...]

    def parse(self, value: JsonValue, where: str) -> str:
        """See Shape."""
        if not isinstance(value, str) or value not in self.words:
            refuse(where, value, f"one of {', '.join(self.words)}")
        return value

    def schema(self) -> Schema:
        """See Shape."""
        return {"enum": list(self.words)}

    def name(self) -> str:
        """See Shape."""
        return " or ".join(f"`{word}`" for word in self.words)


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number from `least` to `most`."""

    least: int
    most: int

    def parse(self, value: JsonValue, where: str) -> int:
        """See Shape."""
        if not isinstance(value, int) or isinstance(value, bool) or not self.least <= value <= self.most:
            refuse(where, value, f"a whole number from {self.least} to {self.most}")
        return value

    def schema(self) -> Schema:
        """See Shape."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}

    def name(self) -> str:
        """See Shape."""
        return f"whole number from {self.least} to {self.most}"


@dataclass(frozen=True, slots=True)
class Boolean:
    """True or false."""

    def parse(self, value: JsonValue, where: str) -> bool:
        """See Shape."""
        if not isinstance(value, bool):
            refuse(where, value, "true or false")
        return value

    def schema(self) -> Schema:
        """See Shape."""
        return {"type": "boolean"}

    def name(self) -> str:
        """See Shape."""
        return "true or false"


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time: a number and s, m, h or d."""

    def parse(self, value: JsonValue, where: str) -> timedelta:
        """See Shape."""
        if not isinstance(value, str) or not _fits(_DURATION, value):
            refuse(where, value, "a duration as 90s, 30m, 24h or 7d")
        return timedelta(seconds=int(value[:-1]) * _SECONDS[value[-1]])

    def schema(self) -> Schema:
        """See Shape."""
        return {"type": "string", "pattern": _DURATION, "title": "a duration as 90s, 30m, 24h or 7d"}

    def name(self) -> str:
        """See Shape."""
        return "duration"


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes: a number and KiB, MiB or GiB."""

    def parse(self, value: JsonValue, where: str) -> int:
        """See Shape."""
        if not isinstance(value, str) or not _fits(_SIZE, value):
            refuse(where, value, "a size as 64KiB, 512MiB or 4GiB")
        return int(value[:-3]) * _BYTES[value[-3:]]

    def schema(self) -> Schema:
        """See Shape."""
        return {"type": "string", "pattern": _SIZE, "title": "a size as 64KiB, 512MiB or 4GiB"}

    def name(self) -> str:
        """See Shape."""
        return "size"


@dataclass(frozen=True, slots=True)
class Spelled(Generic[T]):
    """A string of 1 to `most` characters that `reader` turns into a value or refuses with a PolicyError."""

    reader: Callable[[str], T]
    words: str
    pattern: str
    most: int = 200
    short: str = "text"

    def parse(self, value: JsonValue, where: str) -> T:
        """See Shape."""
        if not isinstance(value, str) or not 0 < len(value) <= self.most or not _fits(self.pattern, value):
            refuse(where, value, self.words)
        try:
            return self.reader(value)
        except PolicyError as error:
            raise PolicyError(f"policy: {where}: {error}") from None

    def schema(self) -> Schema:
        """See Shape."""
        return {
            "type": "string",
            "minLength": 1,
            "maxLength": self.most,
            "pattern": self.pattern,
            "title": self.words,
        }

    def name(self) -> str:
        """See Shape."""
        return self.short


@dataclass(frozen=True, slots=True)
class ListOf(Generic[T]):
    """A list of values of one shape, `least` to `most` of them."""

    item: Shape[T]
    least: int = 0
    most: int = MAX_ITEMS

    def parse(self, value: JsonValue, where: str) -> tuple[T, ...]:
        """See Shape."""
        if not isinstance(value, list):
            refuse(where, value, "a list")
        if not self.least <= len(value) <= self.most:
            refuse(where, value, f"{self.least} to {self.most} items, not {len(value)}")
        return tuple(self.item.parse(item, f"{where}[{position}]") for position, item in enumerate(value))

    def schema(self) -> Schema:
        """See Shape."""
        return {"type": "array", "items": self.item.schema(), "minItems": self.least, "maxItems": self.most}

    def name(self) -> str:
        """See Shape."""
        return f"list of {self.item.name()}"


@dataclass(frozen=True, slots=True)
class MapOf(Generic[T]):
    """A mapping whose keys are among `keys`; each value is of one shape."""

    keys: tuple[str, ...]
    item: Shape[T]
    least: int = 0

    def parse(self, value: JsonValue, where: str) -> tuple[tuple[str, T], ...]:
        """See Shape. The pairs are in the order of `keys`."""
        if not isinstance(value, dict) or len(value) < self.least:
            refuse(where, value, f"a mapping with at least {self.least} of {', '.join(self.keys)}")
        for key in value:
            if key not in self.keys:
                refuse(f"{where}.{key[:80]}", value[key], f"no such key; known are {', '.join(self.keys)}")
        return tuple((key, self.item.parse(value[key], f"{where}.{key}")) for key in self.keys if key in value)

    def schema(self) -> Schema:
        """See Shape."""
        properties: Schema = {key: self.item.schema() for key in self.keys}
        schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return schema | ({"minProperties": self.least} if self.least else {})

    def name(self) -> str:
        """See Shape."""
        return f"mapping of {', '.join(f'`{key}`' for key in self.keys)} to {self.item.name()}"


GLOB: Final = Spelled(Glob.compile, "a glob with `*` (no slash) and `**` (anything)", _GLOB, MAX_PATTERN, "glob")

REQUIRED: Final = object()
"""The default of a member that has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One setting of a Record: its shape, what it means, and its default as the document would spell it."""

    shape: Shape[object]
    about: str
    default: object = REQUIRED

    @property
    def required(self) -> bool:
        """True if the document must say it."""
        return self.default is REQUIRED


@dataclass(frozen=True, slots=True)
class Record(Generic[T]):
    """An object of named settings, made into a value of `kind`; an unknown key is an error.

    `kind` takes each setting as a keyword; a default is parsed like a written value, so that it is checked too.
    """

    kind: Callable[..., T]
    members: Mapping[str, Member]
    words: str = "settings"

    def parse(self, value: JsonValue, where: str) -> T:
        """See Shape."""
        if not isinstance(value, dict):
            refuse(where or "the document", value, "a mapping")
        for key in value:
            if key not in self.members:
                known = ", ".join(self.members)
                raise PolicyError(f"policy: {_join(where, key[:80])}: unknown key, expected one of {known}")
        return self.kind(**{key: self._member(key, member, value, where) for key, member in self.members.items()})

    def _member(self, key: str, member: Member, value: dict[str, JsonValue], where: str) -> object:
        path = _join(where, key)
        if key in value:
            return member.shape.parse(value[key], path)
        if member.required:
            raise PolicyError(f"policy: {path}: missing, expected {member.shape.name()}")
        return None if member.default is None else member.shape.parse(_json(member.default), path)

    def schema(self) -> Schema:
        """See Shape."""
        properties: Schema = {}
        for key, member in self.members.items():
            about: Schema = {"description": member.about}
            if not member.required and member.default is not None:
                about["default"] = _json(member.default)
            properties[key] = member.shape.schema() | about
        schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
        required: list[JsonValue] = [key for key, member in self.members.items() if member.required]
        return schema | ({"required": required} if required else {})

    def name(self) -> str:
        """See Shape."""
        return self.words


def _json(default: Any) -> JsonValue:
    """A default as a JSON value: written in Python with tuples, so that nobody can change it."""
    if isinstance(default, tuple):
        return [_json(item) for item in default]
    if isinstance(default, Mapping):
        return {key: _json(item) for key, item in default.items()}
    value: JsonValue = default
    return value


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _fits(pattern: str, text: str) -> bool:
    # `$` in Python also matches before a final newline; JSON Schema's does not.
    return not text.endswith("\n") and re.search(pattern, text) is not None
