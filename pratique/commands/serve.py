"""Run a registry: the web API, the judge that scans and decides, and the signer that alone reads the private key.

pratique serve --config registry.yaml --print-key > registry.pub
    makes the registry's key if there is none, and prints its public half: it goes into trust.json
pratique serve --config registry.yaml
    runs until SIGTERM; the first start prints the one-time token for `pratique login --bootstrap`

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
    parser.add_argument("--print-key", action="store_true", help="print the registry's public key, and end")


def run(arguments: argparse.Namespace) -> int:
    """Run it, or print its key."""
    from registry.serve import print_key, serve

    return print_key(arguments.config) if arguments.print_key else serve(arguments.config)
