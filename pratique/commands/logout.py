"""Forget the accounts of a registry that `pratique login` remembers.

pratique logout registry.example:5000
pratique logout registry.example:5000 --account alice       this one alone

What the registry knows stays: an admin removes an account, or gives it another secret (`pratique accounts`).
"""

from __future__ import annotations

import argparse

from pratique import accounts
from pratique import arguments as shared
from pratique.exits import Exit
from pratique.output import as_json, line


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the registry and the account."""
    parser.add_argument("registry", metavar="REGISTRY", help="host[:port]")
    parser.add_argument("--account", metavar="NAME", help="forget this account alone")
    shared.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Forget."""
    count = accounts.forget(arguments.registry, arguments.account)
    if arguments.json:
        as_json({"registry": arguments.registry, "forgot": count})
    else:
        line(f"forgot {count} account{'s' if count != 1 else ''} of {arguments.registry}")
    return Exit.FINE
