"""Typed look-ups in a parsed JSON object: the one place where `dict` turns into values.

Each function says what was wrong with which member, got and expected, so a parser is a list of fields.
"""

from __future__ import annotations

from collections.abc import Mapping

from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue, type_name

JsonObject = Mapping[str, JsonValue]


def fold(*names: str) -> dict[str, str]:
    """The table that `refuse_variants` takes, from the member names that a document has."""
    return {name.casefold(): name for name in names}


def refuse_variants(members: JsonObject, names: Mapping[str, str], *, what: str) -> None:
    """Refuse a member that is one of `names` in another case.

    Go's encoding/json, which most clients of a registry use, matches names without regard to case: `Layers`
    beside or instead of `layers` would be one image to them and another one to us.

    Raises:
        SpecError: there is such a member.
    """
    for name in members:
        if names.get(name.casefold(), name) != name:
            raise SpecError(f"{what}: {name[:80]!r} is {names[name.casefold()]!r} in another case")


def text(members: JsonObject, name: str, *, what: str, default: str | None = None) -> str:
    """The string member `name`; absent (or null, if there is a default) gives `default`.

    Raises:
        SpecError: it is missing without a default, or is not a string.
    """
    value = members.get(name)
    if value is None:
        if default is None:
            raise SpecError(f"{what}: {name} is missing, expected a string")
        return default
    if not isinstance(value, str):
        raise SpecError(f"{what}: {name} is {type_name(value)}, expected a string")
    return value


def integer(members: JsonObject, name: str, *, what: str, minimum: int = 0, default: int | None = None) -> int:
    """The whole number member `name`, at least `minimum`.

    Raises:
        SpecError: missing without a default, not a whole number, or too small.
    """
    value = members.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool):
        raise SpecError(f"{what}: {name} is {type_name(value)}, expected a whole number")
    if value < minimum:
        raise SpecError(f"{what}: {name} is {value}, expected at least {minimum}")
    return value


def child(members: JsonObject, name: str, *, what: str) -> dict[str, JsonValue] | None:
    """The object member `name`, or None where it is absent or null.

    Raises:
        SpecError: it is something else.
    """
    value = members.get(name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise SpecError(f"{what}: {name} is {type_name(value)}, expected an object")
    return value


def items(members: JsonObject, name: str, *, what: str, limit: int) -> list[JsonValue]:
    """The array member `name`; absent or null is the empty array.

    Raises:
        SpecError: it is something else, or longer than `limit`.
    """
    value = members.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise SpecError(f"{what}: {name} is {type_name(value)}, expected an array")
    if len(value) > limit:
        raise SpecError(f"{what}: {name} has {len(value)} items, expected at most {limit}")
    return value


def texts(members: JsonObject, name: str, *, what: str, limit: int = 10_000) -> tuple[str, ...]:
    """The array of strings `name`; absent or null is empty.

    Raises:
        SpecError: it is not an array of strings, or longer than `limit`.
    """
    found: list[str] = []
    for position, value in enumerate(items(members, name, what=what, limit=limit)):
        if not isinstance(value, str):
            raise SpecError(f"{what}: {name}[{position}] is {type_name(value)}, expected a string")
        found.append(value)
    return tuple(found)


def text_map(members: JsonObject, name: str, *, what: str, limit: int = 10_000) -> dict[str, str]:
    """The object of strings `name` (labels, annotations); absent or null is empty.

    Raises:
        SpecError: it is not an object of strings, or has more than `limit` members.
    """
    value = child(members, name, what=what) or {}
    if len(value) > limit:
        raise SpecError(f"{what}: {name} has {len(value)} members, expected at most {limit}")
    found: dict[str, str] = {}
    for key, member in value.items():
        if not isinstance(member, str):
            raise SpecError(f"{what}: {name}.{key[:80]!r} is {type_name(member)}, expected a string")
        found[key] = member
    return found


def boolean(members: JsonObject, name: str, *, what: str, default: bool = False) -> bool:
    """The boolean member `name`, or `default` where it is absent or null.

    Raises:
        SpecError: it is something else.
    """
    value = members.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise SpecError(f"{what}: {name} is {type_name(value)}, expected true or false")
    return value
