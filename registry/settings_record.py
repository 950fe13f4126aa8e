"""The settings as the audit has them: each key that is another one than at the last start or reload, before and after.

What stood there last is in a file beside the store, `settings.recorded`, of the user that starts the registry alone. Of
secrets, and of passwords in addresses, it holds a salted slow hash, and the audit that they are there or changed:
neither ever has the secret.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, get_type_hints

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from registry.audit import Audit, Entry, Event
from registry.catalogue.database import Catalogue
from registry.errors import SettingsError
from registry.settings import Settings
from registry.settings_checks import Section, Sections, secret

SETTINGS: Final = "settings"
"""Who changes settings, as the audit calls it: whoever may write the file, which the registry cannot know."""

HIDDEN: Final = "(secret)"
_CHANGED: Final = "(another secret)"
_MARK: Final = "scrypt:"


def record_settings(settings: Settings, path: Path, clock: Callable[[], datetime]) -> tuple[str, ...]:
    """Record what differs from the settings that were recorded last; returns those keys.

    `path` is the settings' file. Killed between the two, it records the same again at the next start.

    Raises:
        CatalogueError: it cannot be recorded.
        SettingsError: what was recorded last can be neither read nor written.
    """
    kept = settings.data / "settings.recorded"
    values = dict(values_of(settings, ""))
    before = _read(kept)
    changes = _changes(before if before is not None else {}, values)
    if not changes and before is not None:
        return ()
    source = f"{socket.gethostname()}:{path}"
    entries = [
        Entry(event=Event.SETTINGS, principal=SETTINGS, source=source, subject=key, before=old, after=new)
        for key, old, new in changes
    ]
    catalogue = Catalogue(settings.catalogue_url, connections=1)
    try:
        with catalogue.write() as conn:
            Audit(clock).append_all(conn, entries)
    finally:
        catalogue.close()
    marks = {key: _hash(value) if hidden else value for key, (value, hidden) in values.items()}
    _write(kept, marks)
    return tuple(key for key, _, _ in changes)


def values_of(group: object, prefix: str) -> Iterator[tuple[str, tuple[str, bool]]]:
    """Each key that says something else than its default: its value as text, and whether that is a secret."""
    hints = get_type_hints(type(group), include_extras=True)
    for item in dataclasses.fields(group):  # type: ignore[arg-type]  # every group of settings is a dataclass
        key, mark, value = prefix + item.name, hints[item.name].__metadata__[0], getattr(group, item.name)
        if isinstance(mark, Section):
            if value is not None:
                yield from values_of(value, f"{key}.")
        elif isinstance(mark, Sections):
            for position, each in enumerate(value):
                yield from values_of(each, f"{key}[{position}].")
        elif value != item.default:
            yield from _value(key, value, is_secret=mark.check is secret)


def _value(key: str, value: object, *, is_secret: bool) -> Iterator[tuple[str, tuple[str, bool]]]:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    if not is_secret and "://" in text:
        text, password = _without_password(text)
        if password:
            yield f"{key} (password)", (password, True)
    yield key, (text, is_secret)


def _without_password(url: str) -> tuple[str, str]:
    try:
        parsed = make_url(url)
    except ArgumentError:
        return url, ""
    return (parsed.render_as_string(hide_password=True), parsed.password) if parsed.password else (url, "")


def _changes(before: Mapping[str, str], values: Mapping[str, tuple[str, bool]]) -> list[tuple[str, str, str]]:
    """Key, before and after of each that differs; "" is the default."""
    found: list[tuple[str, str, str]] = []
    for key in sorted({*before, *values}):
        old = before.get(key, "")
        new, hidden = values.get(key, ("", False))
        if hidden and old.startswith(_MARK):
            if not _is(new, old):
                found.append((key, HIDDEN, _CHANGED))
        elif old != new:
            found.append((key, HIDDEN if old.startswith(_MARK) else old, HIDDEN if hidden else new))
    return found


def _hash(text: str, salt: bytes | None = None) -> str:
    salt = salt if salt is not None else secrets.token_bytes(16)
    return f"{_MARK}{salt.hex()}:{hashlib.scrypt(text.encode(), salt=salt, n=2**14, r=8, p=1).hex()}"


def _is(text: str, mark: str) -> bool:
    _, salt, _ = mark.split(":")
    return hmac.compare_digest(_hash(text, bytes.fromhex(salt)), mark)


def _read(path: Path) -> dict[str, str] | None:
    """What was recorded last, or None if nothing ever was."""
    try:
        found: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SettingsError(f"file {path}: {error}; once it is removed, all settings are recorded anew") from error
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _write(path: Path, marks: Mapping[str, str]) -> None:
    """Replace the file whole, for the eyes of this user alone."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(marks, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise SettingsError(f"file {path}: {error.strerror}") from error
