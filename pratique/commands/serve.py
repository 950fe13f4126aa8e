"""Run a registry: the web API, the judge that scans and decides, and the signer that alone reads the private key.

pratique serve --config registry.yaml --print-key > registry.pub
    makes the registry's key if there is none, and prints its public half: it goes into trust.json
pratique serve --config registry.yaml
    runs until SIGTERM, reloads settings and certificate on SIGHUP; the first start prints the one-time token for
    `pratique login --bootstrap`
pratique serve --config registry.yaml --check
    says what stands against a start, a line each: settings, files, users, ports, storage, database, signer
pratique serve --config registry.yaml --adopt-signer
    after its key or its signer's memory was replaced on purpose (else a start is refused): both belong to it now

registry.yaml, at least (docs/configuration.md has every key):

    name: registry.example:5000       # as references have it; clearances are bound to it
    data: /var/lib/pratique-registry
    trust: /etc/pratique/trust.json   # or hand it in later: pratique trust publish
    policy: /etc/pratique/policy.signed

Started as root, each process gives root up for its own user.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the settings file."""
    parser.add_argument("--config", metavar="FILE", type=Path, required=True, help="settings, YAML or JSON")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--print-key", action="store_true", help="print the registry's public key, and end")
    only.add_argument("--check", action="store_true", help="look for problems, print a line each, and end")
    only.add_argument("--adopt-signer", action="store_true", help="accept a replaced key or signer's memory, and end")


def run(arguments: argparse.Namespace) -> int:
    """Run it, or do the one thing that was asked for."""
    if arguments.check:
        from registry.check import check

        return check(arguments.config)
    from registry.serve import adopt_signer, print_key, serve

    if arguments.adopt_signer:
        return adopt_signer(arguments.config)
    return print_key(arguments.config) if arguments.print_key else serve(arguments.config)
