"""The scanner's values as JSON and back: one canonical form, the same on every side.

A value is an object of its members' names; a member that has its default is left out, so a new member
with a default changes no digest of an older value. There are no floating point numbers. Reading is
strict: an unknown member, a missing one or one of another type is an error. `to_json` and `from_json` hold
for the dataclasses of `scanner.model` (and any other of strings, whole numbers, booleans, enumerations,
tuples and such dataclasses).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import TypeVar, Union, cast, get_args, get_origin, get_type_hints

from ocispec.strictjson import JsonValue, type_name
from scanner.errors import ScanError

T = TypeVar("T")


def to_json(value: object) -> JsonValue:
    """The JSON form of a value of `scanner.model`.

    Raises:
        TypeError: a member is of a kind that has no canonical form (a float, a list).
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        members = ((name, default, getattr(value, name)) for name, default in _defaults(type(value)))
        return {name: to_json(member) for name, default, member in members if member != default}
    raise TypeError(f"{type(value).__name__} has no canonical JSON form")


@cache
def _defaults(kind: type) -> tuple[tuple[str, object], ...]:
    return tuple((field.name, field.default) for field in fields(kind))


def from_json(kind: type[T], value: JsonValue, *, what: str) -> T:
    """The value of type `kind` that `to_json` made `value` from; `what` names it in errors.

    Raises:
        ScanError: a member is unknown, missing, or of another type.
    """
    try:
        return cast(T, _reader(cast(Hashable, kind))(value))
    except _Mismatch as error:
        raise ScanError(f"{what}{error.place}: {error.detail}") from None


class _Mismatch(Exception):  # noqa: N818  # caught above, never seen outside
    """A value is not what its type says; `place` is told from the inside out, so that reading builds no paths."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.place = ""
        self.detail = detail


_Reader = Callable[[JsonValue], object]


@cache
def _reader(kind: Hashable) -> _Reader:
    """What reads a value of `kind`; made once, for types are looked at slowly and records are many."""
    if isinstance(kind, type):
        if is_dataclass(kind):
            return _object_reader(kind)
        return _word_reader(kind) if issubclass(kind, StrEnum) else _plain_reader(kind)
    if get_origin(kind) is tuple:
        return _tuple_reader(get_args(kind)[0])
    if get_origin(kind) in (UnionType, Union):
        read = _reader(next(option for option in get_args(kind) if option is not NoneType))
        return lambda value: None if value is None else read(value)
    raise TypeError(f"{kind} has no canonical JSON form")


def _plain_reader(kind: type) -> _Reader:
    def read(value: JsonValue) -> object:
        if type(value) is not kind:
            raise _Mismatch(f"got {type_name(value)}, expected {kind.__name__}")
        return value

    if kind not in (str, int, bool):
        raise TypeError(f"{kind.__name__} has no canonical JSON form")
    return read


def _word_reader(kind: type[StrEnum]) -> _Reader:
    words: dict[object, StrEnum] = {word.value: word for word in kind}

    def read(value: JsonValue) -> object:
        word = words.get(value) if isinstance(value, str) else None
        if word is None:
            raise _Mismatch(f"got {value!r:.80}, expected one of {', '.join(kind)}")
        return word

    return read


def _tuple_reader(item_kind: Hashable) -> _Reader:
    item_reader = _reader(item_kind)

    def read(value: JsonValue) -> object:
        if not isinstance(value, list):
            raise _Mismatch(f"got {type_name(value)}, expected an array")
        index = 0
        try:
            items = []
            for index, item in enumerate(value):  # noqa: B007  # the handler tells where it stopped
                items.append(item_reader(item))
        except _Mismatch as error:
            error.place = f"[{index}]{error.place}"
            raise
        return tuple(items)

    return read


def _object_reader(kind: type) -> _Reader:
    hints = get_type_hints(kind)
    readers = {field.name: _reader(hints[field.name]) for field in fields(kind)}
    required = [field.name for field in fields(kind) if field.default is MISSING]

    def read(value: JsonValue) -> object:
        if not isinstance(value, dict):
            raise _Mismatch(f"got {type_name(value)}, expected an object")
        arguments: dict[str, object] = {}
        name = ""
        try:
            for name, member in value.items():
                arguments[name] = readers[name](member)
        except KeyError:
            raise _Mismatch(f"unknown member {name[:80]!r} in {kind.__name__}") from None
        except _Mismatch as error:
            error.place = f".{name}{error.place}"
            raise
        for name in required:
            if name not in arguments:
                raise _Mismatch(f"{name} is missing in {kind.__name__}")
        return kind(**arguments)

    return read
