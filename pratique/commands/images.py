"""The images of a registry, and their states.

pratique images registry.example:5000
pratique images registry.example:5000 --state denied
pratique images registry.example:5000 --repository 'shop/**'

States: quarantined (nobody decided yet), cleared, warning and grace (may start, until the date that is shown),
denied, revoked. Each account sees what it may know of.
"""

from __future__ import annotations

import argparse

from pratique import arguments as shared
from pratique.exits import Exit
from pratique.output import as_json, table

STATES = ("quarantined", "cleared", "warning", "grace", "denied", "revoked")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the registry and the filters."""
    parser.add_argument("registry", metavar="REGISTRY", help="host[:port]")
    parser.add_argument("--state", choices=STATES, default="", help="only images in this state")
    parser.add_argument("--repository", metavar="GLOB", default="", help="only these repositories")
    shared.add_account(parser)
    shared.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """List them."""
    from policy.globs import Glob
    from pratique.control import control, text_of

    glob = Glob.compile(arguments.repository) if arguments.repository else None
    # A name without a wildcard is what the registry itself filters by.
    exact = arguments.repository if "*" not in arguments.repository else ""
    listed = control(arguments.registry, arguments.account).images(state=arguments.state, repository=exact)
    found = [row for row in listed if glob is None or glob.matches(text_of(row, "repository"))]
    if arguments.json:
        as_json([dict(row) for row in found])
        return Exit.FINE
    rows = []
    for row in found:
        until = text_of(row, "until")
        why = text_of(row, "reason") + (f", until {until}" if until else "")
        image = f"{text_of(row, 'repository')}@{text_of(row, 'digest')}"
        rows.append((text_of(row, "state"), text_of(row, "level") or "-", text_of(row, "changed"), image, why))
    table(("STATE", "LEVEL", "SINCE", "IMAGE", "REASON"), rows)
    return Exit.FINE
