"""Whether what a registry remembers goes together: catalogue, signer's key and memory, trust.json and policy.

Part of `check.py`. Statements are taken in as a start would, in a transaction that is undone, or, where there is no
catalogue yet, in one that is thrown away.
"""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, make_url, select

from policy.key_files import read_private
from policy.statements import Role
from policy.trust import Trust
from registry import statements
from registry.audit import Audit
from registry.catalogue.database import Catalogue
from registry.catalogue.schema import meta
from registry.catalogue.upgrade import found_revision, newest_revision
from registry.first import take_statements
from registry.places import Places
from registry.settings import Settings
from registry.signer.identity import memory_place
from registry.signer.memory import facts

_ADOPT: Final = "if that is on purpose: pratique serve --adopt-signer"


class _UndoneError(Exception):
    """Ends a transaction that must not count."""


def check(settings: Settings, now: datetime, problems: list[str], notes: list[str]) -> None:
    """Add what is found to `problems` and `notes`.

    Raises:
        RegistryError, PolicyError, OSError: one of them cannot be used.
    """
    key = _key(settings, notes)
    memory = facts(memory_place(settings))
    if key and memory.get("key", key) != key:
        problems.append(f"signer memory: belongs to key {memory['key']}, this signer has key {key}; {_ADOPT}")
    if not _there(settings):
        notes.append("no catalogue yet: the first start makes it")
        _check_new(settings, key, now, problems)
        return
    catalogue = Catalogue(settings.catalogue_url, connections=1)
    try:
        with catalogue.read() as conn:
            revision = found_revision(conn)
            known = {row.name: row.value for row in conn.execute(select(meta))} if revision is not None else {}
        if (name := known.get("registry", settings.name)) != settings.name:
            problems.append(f"setting name: got {settings.name!r}, this catalogue is of registry {name!r}")
        if "id" in memory and (named := known.get("signer", memory["id"])) != memory["id"]:
            problems.append(f"signer memory {memory['id']}: this catalogue's statements come from {named}; {_ADOPT}")
        if "id" not in memory and "signer" in known:
            problems.append(f"signer memory: there is none, this catalogue's statements come from {known['signer']}")
        if revision != newest_revision():
            notes.append(f"catalogue: revision {revision or 'none'}, the next start makes it {newest_revision()}")
            _check_new(settings, key, now, problems)
            return
        _check_statements(catalogue, settings, key, now, problems)
    finally:
        catalogue.close()


def _key(settings: Settings, notes: list[str]) -> str:
    path = Places(settings).signer_key
    if not path.exists():
        notes.append("no key yet: the first start, or pratique serve --print-key, makes it")
        return ""
    return read_private(path).public.id


def _there(settings: Settings) -> bool:
    """False for an SQLite catalogue that is not there: looking would make it."""
    url = make_url(settings.catalogue_url)
    return url.get_backend_name() != "sqlite" or Path(url.database or "").exists()


def _check_new(settings: Settings, key: str, now: datetime, problems: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="pratique-check-") as folder:
        catalogue = Catalogue(f"sqlite:///{folder}/catalogue.sqlite", connections=1)
        try:
            catalogue.create()
            _check_statements(catalogue, settings, key, now, problems)
        finally:
            catalogue.close()


def _check_statements(catalogue: Catalogue, settings: Settings, key: str, now: datetime, problems: list[str]) -> None:
    try:
        with catalogue.write() as conn:
            statements.lock_statements(conn)
            take_statements(conn, Audit(lambda: now), settings, now)
            _check_trusted(conn, settings, key, now, problems)
            raise _UndoneError  # noqa: TRY301 -- what ends the block undoes the transaction
    except _UndoneError:
        pass


def _check_trusted(conn: Connection, settings: Settings, key: str, now: datetime, problems: list[str]) -> None:
    stored = statements.stored_trust(conn)
    if stored is None or not key:
        return
    trusted = Trust.stored(stored, now).keys.get(key)
    if trusted is None or trusted.role is not Role.REGISTRY or trusted.owner != settings.name:
        problems.append(
            f"trust.json: names no key {key} of registry {settings.name}: hosts do not believe what it signs"
        )
