"""The state of an image, and what stands against it.

pratique status registry.example:5000/shop/web:1
pratique status registry.example:5000/shop/web:1 --wait          at most 120 seconds, for a decision that is due
pratique status registry.example:5000/shop/web@sha256:… --wait 30

Exit code 0: it may start. 3: it may not (`pratique explain IMAGE` says everything that stands against it).
1: nobody has decided yet, also at the end of --wait.
"""

from __future__ import annotations

import argparse

from pratique import arguments as shared
from pratique.exits import UsageError
from pratique.output import as_json


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the image and the wait."""
    parser.add_argument("image", metavar="IMAGE", help="registry/repository:tag or @digest")
    parser.add_argument(
        "--wait", metavar="SECONDS", type=int, nargs="?", const=120, default=0, help="wait for the decision"
    )
    shared.add_account(parser)
    shared.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask, and say it."""
    from ocispec.reference import Reference
    from pratique import standing
    from pratique.control import control

    if not 0 <= arguments.wait <= 86_400:
        raise UsageError(f"--wait: got {arguments.wait}, expected 0 to 86400 seconds")
    reference = Reference.parse(arguments.image)
    found = standing.wait(control(reference.registry, arguments.account), reference, seconds=arguments.wait)
    if arguments.json:
        as_json(dict(found))
    else:
        standing.show(found, str(reference))
    return standing.exit_code(found)
