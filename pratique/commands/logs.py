"""What a container wrote to its standard output and standard error, oldest first.

pratique logs web
pratique logs --follow --timestamps web
"""

from __future__ import annotations

import argparse
import sys

from pratique import hosting
from pratique.exits import Exit


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the container."""
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until it ends")
    parser.add_argument("-t", "--timestamps", action="store_true", help="put the time in front of each line")
    hosting.add_state(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print them, each stream to its own."""
    from pratique.output import clean
    from runtime.container import logs
    from runtime.model import ContainerId

    for entry in logs(ContainerId(arguments.name), follow=arguments.follow, state_dir=arguments.state):
        text = f"{entry.time} {entry.text}" if arguments.timestamps else entry.text
        to = sys.stderr if entry.stream == "stderr" else sys.stdout
        # A terminal obeys escapes, a file or a pipe does not: only there are they made harmless.
        print(clean(text) if to.isatty() else text, file=to, flush=arguments.follow)
    return Exit.FINE
