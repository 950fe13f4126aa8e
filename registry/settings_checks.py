"""How one value of the settings file is checked; each check returns the value or raises SettingsError."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final

from registry.errors import SettingsError

KNOWN_SECRETS: Final = frozenset(
    {"admin", "administrator", "changeme", "change-me", "default", "harbor12345", "minioadmin", "pass", "passw0rd"}
    | {"password", "pratique", "registry", "root", "secret", "test", "testing", "token", "123456", "12345678"}
)
"""Secrets that everybody knows, in lower case; the registry does not start with one of them (R7)."""

MAX_NETWORKS: Final = 256

MAX_HOSTS: Final = 16

MAX_PORT: Final = 65535

Check = Callable[[object, str], Any]
"""Takes the value and the key's name for messages; what it returns is of the key's declared type."""


@dataclass(frozen=True, slots=True)
class Key:
    """Stands in a setting's `Annotated` type: what the key means, and how its value is checked."""

    doc: str
    check: Check


@dataclass(frozen=True, slots=True)
class Section:
    """Stands in the `Annotated` type of a group of keys."""

    doc: str
    kind: type


@dataclass(frozen=True, slots=True)
class Sections:
    """Stands in the `Annotated` type of a list of groups of keys, of at most `limit`."""

    doc: str
    kind: type
    limit: int


def text(value: object, key: str) -> str:
    """Text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise SettingsError(f"setting {key}: got {_shown(value)}, expected text")
    return value


def path(value: object, key: str) -> Path:
    """An absolute path."""
    found = Path(text(value, key))
    if not found.is_absolute():
        raise SettingsError(f"setting {key}: got {_shown(value)}, expected an absolute path")
    return found


def secret(value: object, key: str) -> str:
    """A secret that is neither empty nor known to everybody; never shown in the message."""
    if not isinstance(value, str) or not value.strip():
        raise SettingsError(f"setting {key}: the secret is empty")
    if value.strip().lower() in KNOWN_SECRETS:
        raise SettingsError(f"setting {key}: the secret is one that everybody knows")
    return value


def number(minimum: int, maximum: int) -> Check:
    """A whole number between two bounds, both included."""

    def check(value: object, key: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise SettingsError(f"setting {key}: got {_shown(value)}, expected a number from {minimum} to {maximum}")
        return value

    return check


def choice(*choices: str) -> Check:
    """One of a few words."""

    def check(value: object, key: str) -> str:
        if value not in choices:
            raise SettingsError(f"setting {key}: got {_shown(value)}, expected one of {', '.join(choices)}")
        return str(value)

    return check


def switch(value: object, key: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise SettingsError(f"setting {key}: got {_shown(value)}, expected true or false")
    return value


def networks(value: object, key: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """A list of networks, or single addresses; at most MAX_NETWORKS."""
    if not isinstance(value, list) or len(value) > MAX_NETWORKS:
        raise SettingsError(f"setting {key}: got {_shown(value)}, expected a list of at most {MAX_NETWORKS} networks")
    found: list[IPv4Network | IPv6Network] = []
    for item in value:
        try:
            found.append(ip_network(text(item, key)))
        except ValueError as error:
            raise SettingsError(f"setting {key}: {str(error)[:120]}, expected e.g. 10.0.0.0/8 or 127.0.0.1") from None
    return tuple(found)


def hosts(value: object, key: str) -> tuple[str, ...]:
    """A list of at most 16 hosts, each perhaps with a port."""
    if not isinstance(value, list) or len(value) > MAX_HOSTS:
        raise SettingsError(f"setting {key}: got {_shown(value)}, expected a list of at most {MAX_HOSTS} hosts")
    return tuple(registry_name(item, key) for item in value)


def _matching(pattern: str, expected: str) -> Check:
    compiled = re.compile(pattern, re.ASCII)

    def check(value: object, key: str) -> str:
        if compiled.fullmatch(text(value, key)) is None:
            raise SettingsError(f"setting {key}: got {_shown(value)}, expected {expected}")
        return str(value)

    return check


_address = _matching(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:]{2,45}\]):[0-9]{1,5}", "address:port")
registry_name = _matching(
    r"(?:[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9a-fA-F:]{2,45}\])(?::[0-9]{1,5})?", "host or host:port"
)
url = _matching(r"https?://[^\s/@]+(?:/[^\s@]*)?", "an http or https address without credentials")
issuer_url = _matching(
    r"https://[^\s/@?#]+(?:/[^\s@?#]*)?|http://(?:127(?:\.[0-9]{1,3}){3}|localhost|\[::1\])(?::[0-9]{1,5})?(?:/[^\s@?#]*)?",
    "an https address, or an http address of this machine",
)
short_name = _matching(r"[a-z0-9][a-z0-9-]{0,30}", "lower-case letters, digits and dashes, 31 at most")
header_name = _matching(r"[A-Za-z][A-Za-z0-9-]{0,62}", "the name of a header")
prefix = _matching(r"(?:[a-z0-9][a-z0-9._-]*/)+", "lower-case path components, each with a slash after it")


def address(value: object, key: str) -> str:
    """An address with a port."""
    found: str = _address(value, key)
    if int(found.rpartition(":")[2]) > MAX_PORT:  # the C library would take the rest of a division for it
        raise SettingsError(f"setting {key}: got {_shown(value)}, expected a port up to {MAX_PORT}")
    return found


def _shown(value: object) -> str:
    return repr(value)[:120]
