"""What a registry needs before its processes start: folders and rights, tables, key, bootstrap token, trust, policy.

Every start goes through here; what is there already is left as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, select

from policy.key_files import read_private, write_private, write_public
from policy.keys import Algorithm, PublicKey
from policy.private_key import PrivateKey
from registry import processes, statements
from registry.access import Role
from registry.audit import Audit, Event
from registry.authenticate import hash_secret, new_secret
from registry.catalogue import schema
from registry.catalogue.accounts import count_accounts
from registry.catalogue.database import Catalogue, insert_new, put_row
from registry.errors import SettingsError
from registry.judge.jobs import JobKind, enqueue
from registry.places import Places
from registry.prepare import prepare
from registry.settings import Settings

BOOTSTRAP: Final = "bootstrap"
"""In the catalogue's `meta`: the SHA-256 of the one-time token, until it is used."""

MAX_ENVELOPE_FILE: Final = 8 * 1024 * 1024
SYSTEM: Final = "settings"
"""Who statements are received from that stand in the settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstStart:
    """What is to be told: the bootstrap token, if one was made now, and notes for the operator."""

    token: str
    notes: tuple[str, ...]


def first_start(settings: Settings, *, now: datetime) -> FirstStart:
    """Have everything there that the processes need.

    Raises:
        RegistryError: it cannot be had, or a setting cannot be used.
        PolicyError: trust.json or the policy of the settings is not believed.
        OSError: a folder or file cannot be made.
    """
    os.umask(0o007)
    places = Places(settings)
    check_way(settings)
    prepare(settings, now=now)
    _check_name(settings)
    for folder in (places.cell, places.advisories, places.advisories / "incoming"):
        folder.mkdir(mode=0o770, parents=True, exist_ok=True)
    places.cell.chmod(0o755)
    key = make_key(settings)
    catalogue = Catalogue(settings.catalogue_url, connections=2)
    try:
        with catalogue.write() as conn:
            # Of several that start at once, the first takes trust and policy, and the others find them.
            statements.lock_statements(conn)
            audit = Audit(lambda: now)
            token = _bootstrap(conn, audit, settings)
            notes = take_statements(conn, audit, settings, now)
            audit.append(conn, Event.START, principal="registry", subject=settings.name, after=f"key {key.id}")
    finally:
        catalogue.close()
    _share(settings)
    return FirstStart(token=token, notes=notes)


def make_key(settings: Settings) -> PublicKey:
    """The registry's key: made if there is none, readable by the signer's user alone.

    Raises:
        TrustError: the key that is there cannot be used, or others may read it.
        OSError: the folder cannot be written.
    """
    places = Places(settings)
    places.signer.mkdir(mode=0o700, parents=True, exist_ok=True)
    places.signer.chmod(0o700)
    if not places.signer_key.exists():
        # P-256: the key type of cosign's own keys, so whatever verifies cosign's signatures verifies ours.
        write_private(places.signer_key, PrivateKey.generate(Algorithm.ECDSA_P256))
    public = read_private(places.signer_key).public
    if not places.public_key.exists() or places.public_key.read_bytes() != public.pem:
        places.public_key.unlink(missing_ok=True)
        write_public(places.public_key, public)
    if os.geteuid() == 0:
        uid = processes.user_id(settings.users.signer, "users.signer")
        for path in (places.signer, *places.signer.iterdir()):
            os.chown(path, uid, -1, follow_symlinks=False)
    return public


def check_way(settings: Settings) -> None:
    """The users that the processes become must be able to walk to the data folder.

    Raises:
        SettingsError: a folder is closed to them.
    """
    if os.geteuid() != 0:
        return
    for folder in settings.data.parents:
        if folder.is_dir() and not folder.stat().st_mode & 0o001:
            mode = folder.stat().st_mode & 0o7777
            problem = f"folder {folder} has mode {mode:04o}, expected one that the users of the processes may enter"
            raise SettingsError(f"setting data: {settings.data}: {problem}")


def _check_name(settings: Settings) -> None:
    """A catalogue belongs to one registry name: everything signed is bound to it."""
    catalogue = Catalogue(settings.catalogue_url, connections=2)
    try:
        with catalogue.write() as conn:
            insert_new(conn, schema.meta, name="registry", value=settings.name)
            found = conn.scalar(select(schema.meta.c.value).where(schema.meta.c.name == "registry"))
    finally:
        catalogue.close()
    if found != settings.name:
        raise SettingsError(f"setting name: got {settings.name!r}, this catalogue is of registry {found!r}")


def _bootstrap(conn: Connection, audit: Audit, settings: Settings) -> str:
    """Have a token for the first admin, if there is no admin; returns one that was made now."""
    if count_accounts(conn, Role.ADMIN):
        return ""
    # A token that was made before and never used is replaced: it can only be shown now.
    token = settings.bootstrap_token or new_secret()
    stored = conn.scalar(select(schema.meta.c.value).where(schema.meta.c.name == BOOTSTRAP))
    if stored != hash_secret(token):
        put_row(conn, schema.meta, name=BOOTSTRAP, value=hash_secret(token))
        before, after = "another" if stored else "", "of the settings" if settings.bootstrap_token else "made"
        audit.append(conn, Event.ACCOUNT, principal="registry", subject="bootstrap token", before=before, after=after)
    return "" if settings.bootstrap_token else token


def take_statements(conn: Connection, audit: Audit, settings: Settings, now: datetime) -> tuple[str, ...]:
    """Take trust.json and policy of the settings in, under `lock_statements`; returns notes for the operator.

    Raises:
        SettingsError: a file cannot be read.
        PolicyError: it is not believed.
    """
    return (*_take_trust(conn, audit, settings, now), *_take_policy(conn, audit, settings, now))


def _take_trust(conn: Connection, audit: Audit, settings: Settings, now: datetime) -> tuple[str, ...]:
    if settings.trust is None:
        if statements.stored_trust(conn) is None:
            return ("no trust.json yet: everything stays quarantined until one is handed in",)
        return ()
    before, told = statements.generation(conn), statements.told_trust(conn)
    trust = statements.accept_trust(conn, _read(settings.trust, "trust"), by=SYSTEM, now=now)
    if statements.generation(conn) == before:
        return ()
    after = statements.told_trust(conn)
    _changed(conn, audit, Event.TRUST, f"trust.json {trust.root.version}", told, after, now)
    return (f"trust.json of version {trust.root.version} taken, {trust.digest}",)


def _take_policy(conn: Connection, audit: Audit, settings: Settings, now: datetime) -> tuple[str, ...]:
    if settings.policy is None:
        return ()
    trust = statements.trust_in_force(conn, now)
    if trust is None:
        raise SettingsError("setting policy: expected together with a trust.json that says who may sign it")
    accepted = statements.accept(conn, trust, _read(settings.policy, "policy"), by=SYSTEM, now=now)
    if not accepted.new:
        return ()
    subject, told = f"statement {accepted.signed.digest}", statements.superseded(conn, accepted.signed)
    _changed(conn, audit, Event.POLICY, subject, told, "taken from the settings", now)
    return (f"policy {accepted.signed.digest} taken",)


def _changed(
    conn: Connection, audit: Audit, event: Event, subject: str, before: str, after: str, now: datetime
) -> None:
    audit.append(conn, event, principal=SYSTEM, subject=subject, before=before, after=after)
    enqueue(conn, JobKind.REJUDGE, "all", now=now)


def _read(path: Path, key: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_ENVELOPE_FILE + 1)
    except OSError as error:
        raise SettingsError(f"setting {key}: {path}: {error.strerror}") from error
    if len(content) > MAX_ENVELOPE_FILE:
        raise SettingsError(f"setting {key}: {path}: more than {MAX_ENVELOPE_FILE} bytes")
    return content


def _share(settings: Settings) -> None:
    """Give the group what the processes share; the signer's folder and the cell are not among it.

    The data folder too: SQLite makes its -wal and -shm files beside the database, with the first connection, and takes
    them away with the last. Where root makes them, SQLite gives them to the database's owner and group only afterwards;
    by the folder they are the group's at once, so that nobody finds one that it may not open.
    """
    if os.geteuid() != 0:
        return
    gid = processes.shared_gid(settings)
    places = Places(settings)

    def give(path: Path, mode: int) -> None:
        os.chown(path, -1, gid, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(mode)

    give(settings.data, 0o2770)
    _each_below(settings.run_folder, give, gid, skip=frozenset({places.cell}))
    for shared in (settings.store_folder, places.advisories):
        _each_below(shared, give, gid)
    for name in ("catalogue.sqlite", "catalogue.sqlite-wal", "catalogue.sqlite-shm"):
        if (settings.data / name).exists():
            give(settings.data / name, 0o660)


def _each_below(top: Path, give: Callable[[Path, int], None], gid: int, *, skip: frozenset[Path] = frozenset()) -> None:
    if not top.exists() or (top.stat().st_gid, top.stat().st_mode & 0o7777) == (gid, 0o2770):
        return  # below a shared folder, what is made is shared
    give(top, 0o2770)
    for folder, names, files in os.walk(top):
        names[:] = [name for name in names if Path(folder) / name not in skip]
        for name in names:
            give(Path(folder) / name, 0o2770)
        for name in files:
            give(Path(folder) / name, 0o660)
