"""Prove that an image in this host's store may start, without starting it. Opens no network connection.

pratique verify registry.example/shop/web:1

Checks what every start checks: clearance with all that it embeds, start policy, revocation list, root index and
every layer. Exit code 3 and the reason if it may not start.
"""

from __future__ import annotations

import argparse

from pratique import arguments as shared
from pratique import clock, hosting
from pratique.exits import Exit
from pratique.output import as_json, line


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the image."""
    parser.add_argument("image", metavar="IMAGE", help="registry/repository:tag or @digest, pulled before")
    hosting.add_store(parser)
    shared.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prove it."""
    from ocispec.reference import Reference
    from policy.refusal import Refused
    from policy.times import format_time
    from runtime.admission import verify

    proven = verify(Reference.parse(arguments.image), host=hosting.open_host(arguments), now=clock.now())
    if isinstance(proven, Refused):
        return hosting.refused(proven, json=arguments.json)
    clearance = proven.verified.clearance.statement
    if arguments.json:
        as_json(
            {
                "image": proven.record.name,
                "level": clearance.level,
                "state": str(proven.decision.state),
                "until": format_time(proven.verified.until),
                "notes": list(proven.notes),
            }
        )
    else:
        line(f"{proven.record.name}: may start")
        line(f"  {proven.decision.state} for level {clearance.level}, until {format_time(proven.verified.until)}")
        for note in proven.notes:
            line(f"  note: {note}")
    return Exit.FINE
