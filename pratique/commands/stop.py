"""Stop a container: its stop signal, a time to end by itself, then SIGKILL.

pratique stop web
pratique stop --time 2 web db
"""

from __future__ import annotations

import argparse

from pratique import hosting
from pratique.exits import Exit
from pratique.output import line


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the containers and the patience."""
    parser.add_argument("names", metavar="NAME", nargs="+")
    parser.add_argument("-t", "--time", metavar="SECONDS", type=float, help="time to end by itself (default: 10)")
    hosting.add_state(parser)


def run(arguments: argparse.Namespace) -> int:
    """Stop each in turn."""
    from runtime.container import stop
    from runtime.model import ContainerId

    for name in arguments.names:
        stop(ContainerId(name), arguments.time, state_dir=arguments.state)
        line(name)
    return Exit.FINE
