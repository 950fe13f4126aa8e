"""Accounts of registries that `pratique login` remembers, in a file that only its owner can read.

The file is `$PRATIQUE_CONFIG/accounts.json`, by default `~/.config/pratique/accounts.json`. For a registry that is not
in it, the logins of docker, podman, skopeo and the like count (`logins.py`).
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ocispec import fields
from ocispec.strictjson import parse_object
from pratique import logins
from pratique.exits import CommandError


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A name and its secret at one registry, and how that registry is reached.

    `certificate` and `certificate_key` are files of a client certificate, which may speak in place of a secret ("").
    """

    registry: str
    name: str
    secret: str = field(repr=False)
    plain_http: bool = False
    ca: str = ""
    certificate: str = ""
    certificate_key: str = ""


def folder() -> Path:
    """Where this user's configuration lies."""
    override = os.environ.get("PRATIQUE_CONFIG")
    return Path(override) if override else Path.home() / ".config" / "pratique"


def find(registry: str, name: str | None = None) -> Account | None:
    """The remembered account of `registry` (the last one used, or `name`), or other clients' login; None without any.

    Raises:
        CommandError: a file with logins cannot be used.
    """
    known = [account for account in load() if account.registry == registry and name in {None, account.name}]
    if known:
        return known[-1]
    login = logins.find(registry)
    if login is None or name not in {None, login.name}:
        return None
    return Account(registry=registry, name=login.name, secret=login.secret)


def load() -> tuple[Account, ...]:
    """All remembered accounts, oldest first.

    Raises:
        CommandError: the file is readable by others, or is not ours.
    """
    path = folder() / "accounts.json"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return ()
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if mode & 0o077:
            raise CommandError(f"{path}: got mode {mode & 0o777:04o}, expected 0600: it holds secrets")
        document = parse_object(file.read(1 << 20), what=str(path))
    found = []
    for position, item in enumerate(fields.items(document, "accounts", what=str(path), limit=1000)):
        what = f"{path}: accounts[{position}]"
        if not isinstance(item, dict):
            raise CommandError(f"{what}: expected an object")
        found.append(
            Account(
                registry=fields.text(item, "registry", what=what),
                name=fields.text(item, "name", what=what),
                secret=fields.text(item, "secret", what=what),
                plain_http=fields.boolean(item, "plain_http", what=what),
                ca=fields.text(item, "ca", what=what, default=""),
                certificate=fields.text(item, "certificate", what=what, default=""),
                certificate_key=fields.text(item, "certificate_key", what=what, default=""),
            )
        )
    return tuple(found)


def remember(account: Account) -> None:
    """Add `account`, as the last one used; an older entry of the same name and registry is replaced."""
    kept = [other for other in load() if (other.registry, other.name) != (account.registry, account.name)]
    _write((*kept, account))


def forget(registry: str, name: str | None = None) -> int:
    """Remove every account of `registry`, or the one of that name; the result is how many there were."""
    known = load()
    kept = tuple(a for a in known if a.registry != registry or name not in {None, a.name})
    _write(kept)
    return len(known) - len(kept)


def _write(accounts: tuple[Account, ...]) -> None:
    path = folder() / "accounts.json"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    entries = [asdict(account) for account in accounts]
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        json.dump({"accounts": entries}, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
