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

    at_start = {"stdout": True, "stderr": True}
    for entry in logs(ContainerId(arguments.name), follow=arguments.follow, state_dir=arguments.state):
        text = entry.text.removesuffix("\n")
        # A long line comes in parts, of which the last alone has its newline.
        newline = entry.text[len(text) :]
        stamp = f"{entry.time} " if arguments.timestamps and at_start[entry.stream] else ""
        at_start[entry.stream] = bool(newline)
        to = sys.stderr if entry.stream == "stderr" else sys.stdout
        # A terminal obeys escapes, a file or a pipe does not: only there are they made harmless.
        shown = clean(text) if to.isatty() else text
        print(f"{stamp}{shown}", end=newline, file=to, flush=arguments.follow)
    return Exit.FINE
