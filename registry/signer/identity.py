"""Which signer a registry has: its key, its memory, and the catalogue's record of them.

Numbers and denials live in the memory. One that was begun anew would sign numbers that hosts refuse, and two
registries on one catalogue with a memory each would contradict each other; so a catalogue remembers the memory that
its statements come from, a memory the key, and what does not fit is refused at start. Whoever replaces one on purpose
says so: `pratique serve --adopt-signer`.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, select

from policy.key_files import read_private
from registry.audit import Audit, Event
from registry.catalogue.database import Catalogue, insert_new, put_row
from registry.catalogue.schema import meta
from registry.errors import SettingsError
from registry.places import Places
from registry.processes import utc_now
from registry.settings import Settings
from registry.signer.memory import Memory

MAX_URL: Final = 4096
_FACT: Final = "signer"
_ADOPT: Final = "if that is on purpose: pratique serve --adopt-signer"


def open_memory(settings: Settings, *, made: bool = False) -> Memory:
    """The signer's memory: the one that `signer.memory` names, or the file beside the key; `made` as `Memory` says.

    Raises:
        SettingsError: the file with the URL cannot be used.
        SignerMemoryError: the memory cannot be opened.
    """
    return Memory(memory_place(settings), made=made)


def memory_place(settings: Settings) -> Path | str:
    """Where the memory is: a file, or the URL of a database.

    Raises:
        SettingsError: the file with the URL cannot be used.
    """
    named = settings.signer.memory
    return _url(named) if named is not None else Places(settings).signer_memory


def check_signer(conn: Connection, memory: str) -> None:
    """Have the catalogue belong to the memory of that id, in a writing transaction; the first one is taken.

    Raises:
        SettingsError: it belongs to another.
    """
    insert_new(conn, meta, name=_FACT, value=memory)
    found = conn.scalar(select(meta.c.value).where(meta.c.name == _FACT))
    if found != memory:
        raise SettingsError(f"signer memory {memory}: this catalogue's statements come from memory {found}; {_ADOPT}")


def adopt(settings: Settings) -> str:
    """Have memory and catalogue take this registry's key and memory from now on; returns the key's id.

    Raises:
        RegistryError, TrustError: one of them cannot be used.
    """
    memory = open_memory(settings)
    try:
        key = read_private(Places(settings).signer_key).public.id
        memory.bind_key(key, replace=True)
        catalogue = Catalogue(settings.catalogue_url, connections=1)
        try:
            with catalogue.write() as conn:
                before = conn.scalar(select(meta.c.value).where(meta.c.name == _FACT))
                put_row(conn, meta, name=_FACT, value=memory.id())
                Audit(utc_now).append(
                    conn,
                    Event.SETTINGS,
                    principal="operator",
                    source=socket.gethostname(),
                    subject="signer",
                    before=f"memory {before}" if before else "",
                    after=f"memory {memory.id()}, key {key}",
                )
        finally:
            catalogue.close()
    finally:
        memory.close()
    return key


def _url(path: Path) -> str:
    try:
        mode, content = path.stat().st_mode & 0o7777, path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"setting signer.memory: {path}: {error}") from error
    if mode & 0o077:
        raise SettingsError(f"setting signer.memory: {path} has mode {mode:04o}, expected one for its owner alone")
    url = content.strip()
    if len(url) > MAX_URL or not url.startswith("postgresql") or any(letter.isspace() for letter in url):
        raise SettingsError(f"setting signer.memory: {path}: expected one line, a postgresql URL")
    return url
