"""Every verdict on an image that matters: rule, reason, layer, package, fix, and who can waive it.

pratique explain registry.example:5000/shop/web:1
pratique explain registry.example:5000/shop/web@sha256:… --json

It shows the Decision that the registry's present state rests on. `pratique check SOURCE` takes one before a push.
"""

from __future__ import annotations

import argparse

from pratique import arguments as shared
from pratique.exits import Exit
from pratique.output import as_json, line


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the image."""
    parser.add_argument("image", metavar="IMAGE", help="registry/repository:tag or @digest")
    shared.add_account(parser)
    shared.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Explain it."""
    from ocispec import fields
    from ocispec.digest import Digest
    from ocispec.errors import MissingError
    from ocispec.reference import Reference
    from policy.codec import decode_decision
    from policy.explain import explain_lines
    from pratique.control import control, text_of

    reference = Reference.parse(arguments.image)
    registry = control(reference.registry, arguments.account)
    status = registry.status(reference)
    if arguments.json:
        as_json(status.get("explain"))
        return Exit.FINE
    digest = Digest.parse(fields.text(status, "digest", what="status"))
    state = text_of(status, "state")
    try:
        decision = decode_decision(registry.raw(f"/decisions/{digest}/{reference.repository}"))
    except MissingError:
        line(f"{state}: image {digest}: {text_of(status, 'reason')}")
        line(f"  {text_of(status, 'message')}")
        return Exit.FINE
    if state != str(decision.state):
        # Revoked or expired since: the state is newer than the Decision.
        line(f"{state}: image {digest}: {text_of(status, 'reason')}: {text_of(status, 'message')}")
        line("The Decision before that:")
    for text in explain_lines(decision):
        line(text)
    return Exit.FINE
