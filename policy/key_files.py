"""Keys on disk: PEM files, private ones for their owner only, never half-written and never written over.

The second place of this package with I/O, beside `load.py`.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from policy.errors import TrustError
from policy.keys import MAX_PEM, PublicKey
from policy.private_key import PrivateKey


def write_private(path: Path, key: PrivateKey, passphrase: bytes | None = None) -> None:
    """Write `key` to the new file `path`, mode 0600, encrypted if `passphrase` is given.

    Raises:
        TrustError: `key-exists`: something is there already; it stays as it was.
        OSError: the folder is missing, full or not writable.
    """
    _write_new(path, key.to_pem(passphrase), 0o600)


def write_public(path: Path, key: PublicKey) -> None:
    """Write `key` to the new file `path`, mode 0644.

    Raises:
        TrustError: `key-exists`: something is there already; it stays as it was.
        OSError: the folder is missing, full or not writable.
    """
    _write_new(path, key.pem, 0o644)


def read_private(path: Path, passphrase: bytes | None = None) -> PrivateKey:
    """Return the private key in the file `path`.

    Raises:
        TrustError: `key-readable`: group or others may read or write it; else as `PrivateKey.from_pem`.
        OSError: missing or not readable.
    """
    pem, mode = _read(path)
    if mode & 0o077:
        raise TrustError("key-readable", str(path), f"mode is {stat.S_IMODE(mode):04o}, expected 0600")
    try:
        return PrivateKey.from_pem(pem, passphrase)
    except TrustError as error:
        raise TrustError(error.code, str(path), error.detail) from None


def read_public(path: Path) -> PublicKey:
    """Return the public key in the file `path`.

    Raises:
        TrustError: as `PublicKey.from_pem`.
        OSError: missing or not readable.
    """
    try:
        return PublicKey.from_pem(_read(path)[0])
    except TrustError as error:
        raise TrustError(error.code, str(path), error.detail) from None


def _read(path: Path) -> tuple[bytes, int]:
    with path.open("rb") as file:
        return file.read(MAX_PEM + 1), os.fstat(file.fileno()).st_mode


def _write_new(path: Path, content: bytes, mode: int) -> None:
    # link(2), unlike rename(2), fails where the name is taken: an existing key is never lost.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise TrustError("key-exists", str(path), "exists already, and a key is never written over") from None
    finally:
        temporary.unlink()
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
