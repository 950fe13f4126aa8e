"""Make and show keys. A private key never leaves the file it is made in; trust.json names the public one.

pratique keys new alice                 writes alice.key (private, mode 0600) and alice.pub
pratique keys new alice --passphrase    the same, the private key encrypted
pratique keys show alice.pub            its id and algorithm
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pratique import arguments as shared
from pratique.exits import Exit, UsageError
from pratique.output import as_json, table

if TYPE_CHECKING:
    from policy.keys import PublicKey


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare `new` and `show`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="new|show")
    new = verbs.add_parser("new", help="make a key pair: NAME.key and NAME.pub")
    new.add_argument("name", metavar="NAME", type=Path, help="path of the files, without their endings")
    new.add_argument("--algorithm", choices=("ed25519", "p256"), default="ed25519")
    new.add_argument("--passphrase", action="store_true", help="encrypt the private key")
    new.add_argument("--passphrase-file", metavar="FILE", type=Path, help="file with that passphrase")
    shared.add_json(new)
    show = verbs.add_parser("show", help="the id and algorithm of keys")
    show.add_argument("files", metavar="FILE", nargs="+", type=Path, help="public key files (.pub)")
    shared.add_json(show)


def run(arguments: argparse.Namespace) -> int:
    """Make a key pair, or show public keys."""
    return _new(arguments) if arguments.verb == "new" else _show(arguments)


def _new(arguments: argparse.Namespace) -> int:
    from policy.key_files import write_private, write_public
    from policy.keys import Algorithm
    from policy.private_key import PrivateKey

    algorithm = Algorithm.ED25519 if arguments.algorithm == "ed25519" else Algorithm.ECDSA_P256
    private = arguments.name.with_name(arguments.name.name + ".key")
    public = arguments.name.with_name(arguments.name.name + ".pub")
    key = PrivateKey.generate(algorithm)
    write_private(private, key, _new_passphrase(arguments))
    write_public(public, key.public)
    _print([(private, key.public)] if arguments.json else [(public, key.public)], json=arguments.json)
    return Exit.FINE


def _new_passphrase(arguments: argparse.Namespace) -> bytes | None:
    if not (arguments.passphrase or arguments.passphrase_file):
        return None
    given = shared.passphrase(arguments.passphrase_file)
    if given is None:
        given = shared.secret_from_stdin("new passphrase: ").encode()
    if not given:
        raise UsageError("passphrase: got an empty one")
    return given


def _show(arguments: argparse.Namespace) -> int:
    from policy.key_files import read_public

    _print([(path, read_public(path)) for path in arguments.files], json=arguments.json)
    return Exit.FINE


def _print(keys: list[tuple[Path, PublicKey]], *, json: bool) -> None:
    if json:
        as_json([{"file": str(path), "id": key.id, "algorithm": str(key.algorithm)} for path, key in keys])
    else:
        table(("KEY", "ALGORITHM", "FILE"), [(key.id, str(key.algorithm), str(path)) for path, key in keys])
