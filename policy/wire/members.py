"""Reading a JSON object member by member: each is required, typed and bounded, and none may be left over."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from ocispec import fields
from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.fields import JsonObject
from ocispec.platform import Platform
from ocispec.reference import Reference, check_repository
from ocispec.strictjson import JsonValue, type_name
from policy.times import parse_time

MAX_NAME: Final = 64
"""Characters of the name of a level or policy."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Members:
    """The members of one object; `what` names it in errors. Call `end()` when all are read."""

    __slots__ = ("_left", "_members", "what")

    def __init__(self, members: JsonValue, what: str) -> None:
        """Begin to read `members`.

        Raises:
            SpecError: not an object.
        """
        if not isinstance(members, dict):
            raise SpecError(f"{what}: got {type_name(members)}, expected an object")
        self.what = what
        self._members: JsonObject = members
        self._left = set(members)

    def end(self) -> None:
        """Refuse members that nobody asked for: a reader that skips them sees another statement.

        Raises:
            SpecError: there is one.
        """
        if self._left:
            raise SpecError(f"{self.what}: unknown member {min(self._left)[:80]!r}")

    def has(self, name: str) -> bool:
        """True if the optional member `name` is there."""
        return name in self._members

    def text(self, name: str, limit: int = 4096) -> str:
        """A string of at most `limit` characters, without a NUL."""
        value = fields.text(self._members, self._take(name), what=self.what)
        return self._bounded(name, value, limit)

    def line(self, name: str, limit: int = 512) -> str:
        """A string for people: no control characters, and none that turn the direction of text (terminals, logs)."""
        value = self.text(name, limit)
        if _CONTROL.search(value):
            raise SpecError(f"{self.what}: {name} holds a control character")
        return value

    def word(self, name: str) -> str:
        """The name of a level or policy."""
        value = self.text(name, MAX_NAME)
        if _NAME.fullmatch(value) is None:
            raise SpecError(f"{self.what}: {name} is {value!r}, expected letters, digits and . _ -")
        return value

    def fixed(self, name: str, expected: str) -> None:
        """The string `expected`, and no other."""
        value = self.text(name)
        if value != expected:
            raise SpecError(f"{self.what}: {name} is {value[:80]!r}, expected {expected!r}")

    def derived(self, name: str) -> None:
        """A member that follows from others: it must be there, and writing the statement again compares it.

        Raises:
            SpecError: it is missing.
        """
        self._take(name)

    def number(self, name: str, minimum: int = 0) -> int:
        """A whole number from `minimum` on; the parser bounds it at 2^53-1."""
        return fields.integer(self._members, self._take(name), what=self.what, minimum=minimum)

    def identities(self, name: str, limit: int) -> tuple[int, ...]:
        """An array of at most `limit` user or group ids."""
        items = fields.items(self._members, self._take(name), what=self.what, limit=limit)
        return tuple(self._identity(name, item) for item in items)

    def identity(self, name: str) -> int:
        """A user or group id: below 2^32-1, which stands for "no id" in the kernel's calls (X7)."""
        return self._identity(name, self._members[self._take(name)])

    def time(self, name: str) -> datetime:
        """A time in the one spelling of `times.py`."""
        return parse_time(self.text(name, 20), what=f"{self.what}: {name}")

    def digest(self, name: str) -> Digest:
        """A digest."""
        return Digest.parse(self.text(name, 135))

    def digests(self, name: str, limit: int) -> tuple[Digest, ...]:
        """An array of digests."""
        return tuple(Digest.parse(text) for text in self.texts(name, limit, 135))

    def texts(self, name: str, limit: int, characters: int = 4096) -> tuple[str, ...]:
        """An array of at most `limit` strings of at most `characters` each, without a NUL."""
        values = fields.texts(self._members, self._take(name), what=self.what, limit=limit)
        return tuple(self._bounded(name, value, characters) for value in values)

    def blob(self, name: str, limit: int) -> bytes:
        """Bytes in base64 (RFC 4648 section 4), at most `limit`."""
        return self._decoded(name, self.text(name, limit * 4 // 3 + 4))

    def blobs(self, name: str, count: int, limit: int) -> tuple[bytes, ...]:
        """An array of at most `count` byte strings in base64."""
        return tuple(self._decoded(name, text) for text in self.texts(name, count, limit * 4 // 3 + 4))

    def child(self, name: str) -> Members:
        """An object."""
        return Members(self._members[self._take(name)], f"{self.what}: {name}")

    def children(self, name: str, limit: int) -> Iterator[Members]:
        """An array of at most `limit` objects."""
        items = fields.items(self._members, self._take(name), what=self.what, limit=limit)
        for position, item in enumerate(items):
            yield Members(item, f"{self.what}: {name}[{position}]")

    def registry(self, name: str) -> str:
        """A registry's host and port, as references have it."""
        value = self.text(name, 300)
        if Reference.parse(f"{value}/x").registry != value:
            raise SpecError(f"{self.what}: {name} is {value[:80]!r}, expected a host and port")
        return value

    def repository(self, name: str) -> str:
        """A repository's name."""
        return check_repository(self.text(name, 300))

    def platform(self, name: str) -> str:
        """A platform as `os/architecture[/variant]`."""
        return str(Platform.parse(self.text(name, 128)))

    def _identity(self, name: str, value: JsonValue) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32 - 1:
            raise SpecError(f"{self.what}: {name} is {str(value)[:40]}, expected an id from 0 to 2^32-2")
        return value

    def _take(self, name: str) -> str:
        if name not in self._members:
            raise SpecError(f"{self.what}: {name} is missing")
        self._left.discard(name)
        return name

    def _bounded(self, name: str, value: str, limit: int) -> str:
        if len(value) > limit:
            raise SpecError(f"{self.what}: {name} has {len(value)} characters, expected at most {limit}")
        if "\0" in value:
            raise SpecError(f"{self.what}: {name} holds a NUL")
        return value

    def _decoded(self, name: str, text: str) -> bytes:
        try:
            return base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error):
            raise SpecError(f"{self.what}: {name} is not base64") from None


def texts_of(values: Sequence[object]) -> list[JsonValue]:
    """An array of strings to write, from digests, enums or strings."""
    return [str(value) for value in values]


def base64_of(content: bytes) -> str:
    """`content` in base64, to write."""
    return base64.b64encode(content).decode()
