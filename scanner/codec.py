"""The scanner's values as JSON and back: one canonical form, the same on every side.

A value is an object of its members' names; a member that has its default is left out, so a new member
with a default changes no digest of an older value. There are no floating point numbers. Reading is
strict: an unknown member, a missing one or one of another type is an error. `to_json` and `from_json` hold
for the dataclasses of `scanner.model` (and any other of strings, whole numbers, booleans, enumerations,
tuples and such dataclasses).
"""

from __future__ import annotations

from dataclasses import MISSING, Field, fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

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
        members = ((field, getattr(value, field.name)) for field in fields(value))
        return {field.name: to_json(member) for field, member in members if member != field.default}
    raise TypeError(f"{type(value).__name__} has no canonical JSON form")


def from_json(kind: type[T], value: JsonValue, *, what: str) -> T:
    """The value of type `kind` that `to_json` made `value` from; `what` names it in errors.

    Raises:
        ScanError: a member is unknown, missing, or of another type.
    """
    return cast(T, _read(kind, value, what))


@cache
def _members(kind: type) -> tuple[tuple[Field[Any], object], ...]:
    hints = get_type_hints(kind)
    return tuple((field, hints[field.name]) for field in fields(kind))


def _read(kind: object, value: JsonValue, what: str) -> object:
    if isinstance(kind, type):
        if is_dataclass(kind):
            return _read_object(kind, value, what)
        if issubclass(kind, StrEnum):
            return _read_word(kind, value, what)
        if kind in (str, int, bool) and type(value) is kind:
            return value
    elif get_origin(kind) is tuple:
        item_kind = get_args(kind)[0]
        if isinstance(value, list):
            return tuple(_read(item_kind, item, f"{what}[{index}]") for index, item in enumerate(value))
    elif get_origin(kind) in (UnionType, Union):
        if value is None:
            return None
        return _read(next(option for option in get_args(kind) if option is not NoneType), value, what)
    raise ScanError(f"{what}: got {type_name(value)}, expected {getattr(kind, '__name__', kind)}")


def _read_word(kind: type[StrEnum], value: JsonValue, what: str) -> StrEnum:
    try:
        return kind(cast(str, value))
    except ValueError:
        raise ScanError(f"{what}: got {value!r:.80}, expected one of {', '.join(kind)}") from None


def _read_object(kind: type, value: JsonValue, what: str) -> object:
    if not isinstance(value, dict):
        raise ScanError(f"{what}: got {type_name(value)}, expected an object")
    known = _members(kind)
    if unknown := value.keys() - {field.name for field, _ in known}:
        raise ScanError(f"{what}: unknown member {min(unknown)[:80]!r} in {kind.__name__}")
    arguments: dict[str, object] = {}
    for field, hint in known:
        if field.name in value:
            arguments[field.name] = _read(hint, value[field.name], f"{what}.{field.name}")
        elif field.default is MISSING:
            raise ScanError(f"{what}: {field.name} is missing in {kind.__name__}")
    return kind(**arguments)
