"""Keep a small process that starts containers at once: first processes wait parked, and proofs stay warm.

pratique broker
    serves `pratique run` of this host, by default at /run/pratique.sock, until SIGTERM
pratique broker --start-group containers --look-group monitoring
    members of these groups may start containers, or look at what runs (`ps`, `logs`), without being root

What runs goes on when the broker ends, is killed or replaced: the next one finds it, and watches it. Without a broker
`pratique run` does the same by itself, more slowly. deploy/systemd/pratique-broker.service runs it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pratique import clock, hosting
from pratique.exits import Exit, UsageError
from pratique.output import line

if TYPE_CHECKING:
    from policy.refusal import Refused
    from runtime.broker.roles import Roles
    from runtime.broker.server import Asked

LOOKS = ("ps", "logs")
"""Verbs that only look, and that the broker does for who may."""
_CACHED = 256


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare who may do what, and how many wait."""
    parser.add_argument("--socket", metavar="PATH", type=Path, help="default: the state folder's path and `.sock`")
    parser.add_argument("--start-group", metavar="GROUP", help="its members may start containers")
    parser.add_argument("--look-group", metavar="GROUP", help="its members may look at what runs")
    parser.add_argument("--parked", metavar="COUNT", type=int, default=4, help="first processes that wait (default 4)")
    hosting.add_store(parser)
    hosting.add_state(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM."""
    from runtime.broker.server import Broker, listen
    from runtime.state import StateStore

    if not 1 <= arguments.parked <= 64:
        raise UsageError(f"--parked: got {arguments.parked}, expected 1 to 64")
    host = hosting.open_host(arguments)
    roles = _roles(arguments)
    path = arguments.socket or Path(f"{arguments.state}.sock")
    listener = _inherited() or listen(path, roles)
    broker = Broker(
        host=host,
        store=StateStore.open(arguments.state),
        front=CommandLine(arguments.store, arguments.state),
        roles=roles,
        listener=listener,
        clock=clock.now,
        parked=arguments.parked,
        log=lambda text: line(text, to=sys.stderr),
        on_ready=_tell_ready,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: broker.stop())
    line(f"serves at {path}")
    broker.run()
    return Exit.FINE


def _roles(arguments: argparse.Namespace) -> Roles:
    import grp

    from runtime.broker.roles import Roles

    def gid(name: str | None) -> int | None:
        try:
            return None if name is None else grp.getgrnam(name).gr_gid
        except KeyError:
            raise UsageError(f"group {name}: this host has none of that name") from None

    return Roles(start_gid=gid(arguments.start_group), look_gid=gid(arguments.look_group))


def _inherited() -> socket.socket | None:
    """The socket that systemd hands over (sd_listen_fds(3)); None where it hands over none."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    return socket.socket(fileno=3)


def _tell_ready() -> None:
    """Tell systemd that starts can be asked for (sd_notify(3)), if it wants to know."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            notify.send(b"READY=1")


class _Shown(io.StringIO):
    """What a caller will see, perhaps on a terminal: verbs make escapes harmless where they print to one."""

    def isatty(self) -> bool:
        """It may be."""
        return True


class CommandLine:
    """What the words of `pratique run` and of verbs that look mean: the front of the broker."""

    def __init__(self, store: Path, state: Path) -> None:
        """For images in the folder `store` and containers in the folder `state`, and no others."""
        self._store, self._state = store, state
        self._known: dict[tuple[str, ...], argparse.Namespace] = {}

    def start(self, words: Sequence[str]) -> Asked:
        """What `run` with these words asks for."""
        from ocispec.errors import SpecError
        from ocispec.reference import Reference
        from pratique.commands import run as verb
        from runtime.broker.server import Asked, NotHereError, SaidError

        try:
            arguments = self._parsed(tuple(words))
            reference = Reference.parse(arguments.image)
            wish = verb.wish_of(arguments, reference)
        except UsageError as error:
            raise SaidError(f"pratique: {error}", Exit.USAGE) from None
        except SpecError as error:
            raise SaidError(f"pratique: {error}", Exit.NOT_STARTED) from None
        except SystemExit:  # it asked for help
            raise NotHereError from None
        if (arguments.store, arguments.state) != (self._store, self._state):
            raise NotHereError
        return Asked(reference=reference, wish=wish, detached=arguments.detach, pull=arguments.pull)

    def refused(self, refused: Refused) -> tuple[str, ...]:
        """As every verb says it."""
        return hosting.refusal_lines(refused)

    def look(self, verb: str, words: Sequence[str]) -> tuple[str, str, int]:
        """Do a verb that looks, and catch what it prints."""
        from pratique.dispatch import parser_for, run_verb, verb_of
        from runtime.broker.server import NotHereError, SaidError

        if verb not in LOOKS:
            raise SaidError(f"pratique: broker: {verb} is not done here", Exit.FAILED)
        words = ["--state", str(self._state), *words]
        out, err = _Shown(), _Shown()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                arguments = parser_for(verb, verb_of(verb)).parse_args(words)
            except UsageError as error:
                raise SaidError(f"pratique: {error}", Exit.USAGE) from None
            except SystemExit:  # it asked for help
                raise NotHereError from None
            if arguments.state != self._state:
                raise NotHereError
            if getattr(arguments, "follow", False):
                raise SaidError(f"pratique: broker: {verb} is not done here for as long as it takes", Exit.FAILED)
            code = run_verb(verb, words, debug=False)
        return out.getvalue(), err.getvalue(), code

    def _parsed(self, words: tuple[str, ...]) -> argparse.Namespace:
        """The words of `run`, parsed; the same words come again and again."""
        if words not in self._known:
            from pratique.commands import run as verb
            from pratique.dispatch import parser_for

            if len(self._known) >= _CACHED:
                self._known.clear()
            places = ("--store", str(self._store), "--state", str(self._state))
            with contextlib.redirect_stdout(io.StringIO()):
                self._known[words] = parser_for("run", verb).parse_args((*places, *words))
        return self._known[words]
