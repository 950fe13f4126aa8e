"""The fields of a tar header: numbers and names, each bounded (POSIX.1-2017, pax, "ustar Interchange Format").

Where readers differ (leading blanks and zeros, base-256 numbers, bytes behind a NUL), only what all of
them read alike is accepted.
"""

from __future__ import annotations

from typing import Final

MAX_NAME: Final = 255
"""Bytes of one path component (linux/limits.h, NAME_MAX)."""

MAX_PATH: Final = 4095
"""Bytes of a path or of a symlink's target (linux/limits.h, PATH_MAX, with its NUL)."""

MAX_ID: Final = 2**32 - 2
"""The largest uid and gid: 2^32-1 means "none" to the kernel (X7: ids that overflow become root)."""

MAX_MODE: Final = 0o177777
"""Mode fields may carry the type bits too, as writers in Go before 1.9 did; they are not used."""

MIN_TIME: Final = -(2**33)
"""Seconds before the epoch: the year 1697. With MAX_TIME, the range tried on the kernel."""

MAX_TIME: Final = 2**34
"""Seconds after the epoch: the year 2514."""

MAX_MAJOR: Final = 4095
"""linux/kdev_t.h: 12 bits of major, 20 of minor."""

MAX_MINOR: Final = 2**20 - 1

WHITEOUT: Final = b".wh."
OPAQUE: Final = b".wh..wh..opq"
"""Image specification 1.1, layer.md, "Whiteouts" and "Opaque Whiteout"."""


class FieldError(Exception):
    """A field is refused. The reader of the tar adds layer, offset and member."""

    def __init__(self, problem: str, repair: str = "") -> None:
        super().__init__(problem)
        self.repair = repair


class FieldLimitError(FieldError):
    """A field, or the sum of fields, is beyond a limit."""


def number(field: bytes, name: str, low: int, high: int) -> int:
    """The number in a header field: octal digits, or base-256 as GNU tar writes what octal cannot hold.

    Raises:
        FieldError: neither, or not within `low` and `high`.
    """
    if field[0] in (0x80, 0xFF):
        value = int.from_bytes(field[1:], "big")
        if field[0] == 0xFF:
            value -= 1 << (8 * (len(field) - 1))
    else:
        digits = field.lstrip(b" ").rstrip(b" \0")
        # int() would also take a sign, underscores and a 0o prefix, which other readers do not.
        if not digits:
            return max(0, low)
        if not digits.isdigit() or b"8" in digits or b"9" in digits:
            raise FieldError(f"{name} field is {field!r}, expected octal digits")
        value = int(digits, 8)
    return bounded(value, name, low, high)


def decimal(text: bytes, name: str, low: int, high: int) -> int:
    """The whole number in a pax record.

    Raises:
        FieldError: not decimal digits, or not within `low` and `high`.
    """
    if not text.isdigit() or len(text) > 20:
        raise FieldError(f"pax {name} is {text[:40]!r}, expected decimal digits")
    return bounded(int(text), name, low, high)


def bounded(value: int, name: str, low: int, high: int) -> int:
    """`value`, if it is within the bounds.

    Raises:
        FieldError: it is not.
    """
    if not low <= value <= high:
        raise FieldError(f"{name} is {value}, expected {low} to {high}")
    return value


def time(text: bytes) -> tuple[int, int]:
    """Seconds and nanoseconds of a pax time (decimal, may be negative); further digits are cut off.

    Raises:
        FieldError: not a decimal number, or beyond MIN_TIME and MAX_TIME.
    """
    negative = text[:1] == b"-"
    whole, dot, fraction = text[negative:].partition(b".")
    if not whole.isdigit() or (dot and fraction and not fraction.isdigit()) or len(text) > 64:
        raise FieldError(f"pax mtime is {text[:40]!r}, expected a decimal number")
    seconds = int(whole)
    nanoseconds = int(fraction[:9].ljust(9, b"0"))
    if negative:
        seconds, nanoseconds = (-seconds, 0) if nanoseconds == 0 else (-seconds - 1, 10**9 - nanoseconds)
    return bounded(seconds, "mtime", MIN_TIME, MAX_TIME), nanoseconds


def text(field: bytes, name: str) -> bytes:
    """A name in a fixed field: up to the first NUL, behind which only NULs may follow.

    Raises:
        FieldError: something follows.
    """
    value = field.rstrip(b"\0")
    if b"\0" in value:
        raise FieldError(f"{name} field {value!r} goes on behind its NUL")
    return value


def path(raw: bytes, name: str = "path") -> bytes:
    """The canonical form of a member's path: relative, single slashes, no `.` part; `b""` is the root.

    Leading slashes, `./` and doubled slashes are dropped, as every extractor does.

    Raises:
        FieldError: a `..` part, a NUL, or longer than MAX_PATH or a part than MAX_NAME.
    """
    if b"\0" in raw:
        raise FieldError(f"{name} {raw[:80]!r} holds a NUL")
    if len(raw) > MAX_PATH:
        raise FieldError(f"{name} has {len(raw)} bytes, expected at most {MAX_PATH}")
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    for part in parts:
        if part == b"..":
            raise FieldError(f"{name} {raw!r} holds a '..' part", "name every member by its path from the root")
        if len(part) > MAX_NAME:
            raise FieldError(f"{name} {raw[:80]!r} has a part of {len(part)} bytes, expected at most {MAX_NAME}")
    return b"/".join(parts)
