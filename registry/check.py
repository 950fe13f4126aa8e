"""`pratique serve --check`: would this registry start, and could it work?

All that a start and the first requests would come upon is looked at, and each problem is one line; nothing is made or
changed (but for a trial object in the store). What it takes to ask the outside is given DEADLINE_SECONDS, all at once.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

from cryptography import x509

from ocispec.errors import SpecError
from policy.errors import PolicyError
from registry import check_state, processes
from registry.catalogue.database import Catalogue
from registry.errors import RegistryError, SettingsError, StorageError
from registry.first import check_way
from registry.identity.open import open_identity
from registry.listening import open_listener, read_certificate
from registry.mirror.process import read_secret
from registry.places import Places
from registry.settings import Settings, load
from registry.store.open import open_store

DEADLINE_SECONDS: Final = 10.0
"""How long storage, database and signer's memory may take to answer."""

SOON: Final = timedelta(days=14)
"""A certificate that ends within this time is told of."""

Look = Callable[["Found"], None]


@dataclass(slots=True)
class Found:
    """What is wrong, and what is only told; a line each."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check(path: Path, *, deadline: float = DEADLINE_SECONDS) -> int:
    """Print what is found, on standard output; returns the exit code: 0, or 1 if there is a problem."""
    found = Found()
    try:
        settings = load(path)
    except SettingsError as error:
        found.problems += error.problems
    else:
        _check_all(settings, found, deadline)
    for line in found.problems:
        sys.stdout.write(f"{line}\n")
    for line in found.notes:
        sys.stdout.write(f"note: {line}\n")
    count = len(found.problems)
    said = "no problem" if not count else "1 problem" if count == 1 else f"{count} problems"
    sys.stdout.write(f"{path}: {said}\n")
    return 1 if found.problems else 0


def _check_all(settings: Settings, found: Found, deadline: float) -> None:
    now = processes.utc_now()
    slow = [
        ("storage", lambda into: _storage(settings, into)),
        ("catalogue and signer", lambda into: check_state.check(settings, now, into.problems, into.notes)),
    ]
    waiting = [_Asked(name, look) for name, look in slow]
    quick: tuple[Look, ...] = (
        lambda into: _users(settings, into),
        lambda into: _folder(settings, into),
        lambda into: _certificate(settings, now, into),
        lambda into: _authorities(settings, into),
        lambda into: _identity(settings, into),
        lambda into: _extras(settings, into),
        lambda into: _ports(settings, into),
    )
    for look in quick:
        _run(look, found)
    ends = time.monotonic() + deadline
    for asked in waiting:
        asked.report(ends, f"no answer within {deadline:g} s", found)


class _Asked:
    """Something that is looked at by a thread of its own, which nobody waits for too long."""

    def __init__(self, name: str, look: Look) -> None:
        self._name, self._found = name, Found()
        self._thread = threading.Thread(target=_run, args=(look, self._found), daemon=True)
        self._thread.start()

    def report(self, ends: float, silent: str, found: Found) -> None:
        self._thread.join(max(0.0, ends - time.monotonic()))
        if self._thread.is_alive():
            found.problems.append(f"{self._name}: {silent}")
            return
        found.problems += self._found.problems
        found.notes += self._found.notes


def _run(look: Look, found: Found) -> None:
    """Look at one thing: what it raises is a problem."""
    try:
        look(found)
    except SettingsError as error:
        found.problems += error.problems
    except (RegistryError, PolicyError, SpecError, OSError) as error:
        found.problems.append(" ".join(str(error).split()))


def _users(settings: Settings, found: Found) -> None:
    if os.geteuid() != 0:
        found.notes.append("not root: all processes run as one user, and the key is kept from none of them")
        return
    known: dict[int, str] = {processes.READER_ID: "the keeper's children"}
    for name in ("web", "judge", "signer", "mirror"):
        key = f"users.{name}"
        try:
            uid = processes.user_id(getattr(settings.users, name), key)
        except SettingsError as error:
            found.problems += error.problems
            continue
        if uid == 0 or uid in known:
            whose = "root" if uid == 0 else known[uid]
            found.problems.append(f"setting {key}: uid {uid} is of {whose} too, expected a user of its own")
        known[uid] = key
    processes.group_id(settings.users.group, "users.group")


def _folder(settings: Settings, found: Found) -> None:
    check_way(settings)
    there = next(each for each in (settings.data, *settings.data.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        found.problems.append(f"setting data: {settings.data}: {there} is no folder that can be written to")
        return
    free = shutil.disk_usage(there).free
    if free < settings.limits.free_bytes:
        wanted = settings.limits.free_bytes
        found.problems.append(f"setting data: {settings.data}: {free} bytes free, expected at least {wanted}")


def _certificate(settings: Settings, now: datetime, found: Found) -> None:
    if (certificate := read_certificate(settings.http)) is None:
        return
    try:
        with Path(certificate.paths[0]).open("rb") as file:
            leaf = x509.load_pem_x509_certificates(file.read())[0]
    finally:
        certificate.close()
    what = f"setting http.certificate: {settings.http.certificate}"
    if not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
        times = f"{leaf.not_valid_before_utc:%Y-%m-%d} to {leaf.not_valid_after_utc:%Y-%m-%d}"
        found.problems.append(f"{what}: good from {times} only")
    elif leaf.not_valid_after_utc - now < SOON:
        found.notes.append(f"{what}: ends at {leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}")
    host = settings.url.partition("://")[2].partition("/")[0]
    host = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if not _is_for(leaf, host.strip("[]")):
        found.problems.append(f"{what}: is not for {host}, which clients ask for")


def _is_for(leaf: x509.Certificate, host: str) -> bool:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    known = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
    known |= {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    return bool({host.lower(), f"*.{host.lower().partition('.')[2]}"} & known)


def _authorities(settings: Settings, found: Found) -> None:
    """Certificates that others are checked by, and secrets for them."""
    for key, path in _authority_files(settings):
        try:
            ssl.create_default_context(cafile=str(path))
        except OSError as error:
            said = getattr(error, "reason", None) or error.strerror
            found.problems.append(f"setting {key}: {path}: {said}, expected certificates (PEM)")
    for mirror in settings.mirrors:
        if mirror.secret_file is not None:
            _run(partial(_secret, mirror.secret_file), found)


def _secret(path: Path, _found: Found) -> None:
    read_secret(path)


def _authority_files(settings: Settings) -> Iterator[tuple[str, Path]]:
    s3 = settings.storage.s3
    named = [
        ("storage.s3.ca_file", s3.ca_file if s3 is not None else None),
        ("traces.ca_file", settings.traces.ca_file),
        *((f"mirrors[{number}].ca_file", each.ca_file) for number, each in enumerate(settings.mirrors)),
        *((f"oidc[{number}].ca_file", each.ca_file) for number, each in enumerate(settings.oidc)),
    ]
    yield from ((key, path) for key, path in named if path is not None)


def _identity(settings: Settings, _found: Found) -> None:
    """Files of client certificates and issuers; nothing is asked."""
    catalogue = Catalogue(settings.catalogue_url, connections=1)
    try:
        open_identity(settings, catalogue, processes.utc_now)
    finally:
        catalogue.close()


def _extras(settings: Settings, found: Found) -> None:
    if settings.traces.endpoint and importlib.util.find_spec("opentelemetry") is None:
        found.problems.append("setting traces.endpoint: needs pratique[otel], which is not installed")


def _ports(settings: Settings, found: Found) -> None:
    if _runs(settings):
        found.notes.append("this registry runs: whether its ports are free was not looked at")
        return
    certificates = settings.certificates.listen if settings.certificates is not None else ""
    listens = {"http.listen": settings.http.listen, "metrics.listen": settings.metrics.listen}
    for key, listen in {**listens, "certificates.listen": certificates}.items():
        if listen:
            try:
                open_listener(listen, key).close()
            except SettingsError as error:
                found.problems += error.problems


def _runs(settings: Settings) -> bool:
    """True if the signer of this data folder listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(str(Places(settings).signer_socket)) == 0


def _storage(settings: Settings, found: Found) -> None:
    if settings.storage.s3 is None and not settings.store_folder.exists():
        return  # the first start makes it
    try:
        open_store(settings).check()
    except StorageError as error:
        found.problems.append(f"storage: {' '.join(str(error).split())}")
