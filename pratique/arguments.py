"""Arguments that several verbs share: how they are declared, and how their text becomes values."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pratique.exits import UsageError

if TYPE_CHECKING:
    from ocispec.access import ClientCertificate
    from policy.private_key import PrivateKey

_DURATION = re.compile(r"([1-9]\d{0,5})([mhdw])", re.ASCII)
_SIZE = re.compile(r"(\d{1,15})(kB|[MGT]B|[KMGT]iB|)", re.ASCII)
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def add_account(parser: argparse.ArgumentParser) -> None:
    """Declare `--account`: which of the remembered accounts speaks."""
    parser.add_argument(
        "--account", metavar="NAME", help="which account of `pratique login` speaks (default: the last)"
    )


def add_certificate(parser: argparse.ArgumentParser) -> None:
    """Declare `--certificate` and `--certificate-key`: what TLS shows the registry of us."""
    parser.add_argument("--certificate", metavar="FILE", type=Path, help="client certificate chain (PEM)")
    parser.add_argument("--certificate-key", metavar="FILE", type=Path, help="its private key, without a passphrase")


def certificate(arguments: argparse.Namespace) -> ClientCertificate | None:
    """The files that `--certificate` and `--certificate-key` name.

    Raises:
        UsageError: one without the other.
    """
    from ocispec.access import ClientCertificate

    if (arguments.certificate is None) != (arguments.certificate_key is None):
        raise UsageError("--certificate: expected together with --certificate-key")
    if arguments.certificate is None:
        return None
    return ClientCertificate(chain=arguments.certificate.absolute(), key=arguments.certificate_key.absolute())


def add_keys(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Declare `--key` (repeatable) and `--passphrase-file`."""
    parser.add_argument(
        "--key",
        metavar="FILE",
        type=Path,
        action="append",
        required=required,
        default=None if required else [],
        help="private key to sign with; may be given more than once",
    )
    parser.add_argument(
        "--passphrase-file",
        metavar="FILE",
        type=Path,
        help="file with the passphrase of the keys; else $PRATIQUE_PASSPHRASE, else asked for where a key is encrypted",
    )


def read_keys(arguments: argparse.Namespace) -> tuple[PrivateKey, ...]:
    """The private keys that `--key` names, decrypted.

    Raises:
        TrustError: a key cannot be used. OSError: a file cannot be read.
    """
    from policy.errors import TrustError
    from policy.key_files import read_private

    given = passphrase(arguments.passphrase_file)
    keys = []
    for path in arguments.key:
        try:
            keys.append(read_private(path))
        except TrustError as error:
            if error.code != "passphrase":
                raise
            keys.append(read_private(path, given if given is not None else _ask(f"passphrase of {path}: ")))
    return tuple(keys)


def passphrase(file: Path | None) -> bytes | None:
    """The passphrase in `file`, or in $PRATIQUE_PASSPHRASE; None if neither says one."""
    if file is not None:
        return file.read_bytes().rstrip(b"\r\n")
    given = os.environ.get("PRATIQUE_PASSPHRASE")
    return given.encode() if given else None


def secret_from_stdin(prompt: str) -> str:
    """A secret: asked for at a terminal, else the first line of standard input."""
    if sys.stdin.isatty():
        return _ask(prompt).decode()
    return sys.stdin.readline().rstrip("\r\n")


def _ask(prompt: str) -> bytes:
    import getpass

    return getpass.getpass(prompt).encode()


def until(text: str, now: datetime) -> datetime:
    """The time that `text` means: `90d`, `12h`, `30m`, `2w` from `now`, or a date `2027-01-31` (its end, UTC).

    Raises:
        UsageError: neither, or not after `now`.
    """
    match = _DURATION.fullmatch(text)
    if match is not None:
        return now + int(match[1]) * _UNITS[match[2]]
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise UsageError(f"time {text!r}: expected a number with m, h, d or w (90d), or a date (2027-01-31)") from None
    end = day + timedelta(days=1)
    if end <= now:
        raise UsageError(f"time {text!r}: expected a day that is not over")
    return end


def size(text: str) -> int:
    """The bytes that `text` means: `500`, `500MB` (powers of 1000), `20GiB` (powers of 1024); for argparse.

    Raises:
        ArgumentTypeError: none.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"size {text[:40]!r}: expected bytes, or a number with kB, MB, GB, TB, KiB, …")
    step = 1024 if match[2].endswith("iB") else 1000
    return int(match[1]) * int(step ** (" KMGT".index(match[2][0].upper()) if match[2] else 0))


def one_of(given: Sequence[str], names: Sequence[str], what: str) -> None:
    """Check that all of `given` are among `names`.

    Raises:
        UsageError: one is not.
    """
    for item in given:
        if item not in names:
            raise UsageError(f"{what} {item!r}: expected one of {', '.join(names)}")
