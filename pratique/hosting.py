"""What the host's verbs share: where store and state lie, references, and how a refusal is printed."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pratique.exits import Exit
from pratique.output import as_json, line

if TYPE_CHECKING:
    from ocispec.digest import Digest
    from policy.refusal import Refused
    from runtime.fetch import Progress
    from runtime.host import Host, Synced


def add_store(parser: argparse.ArgumentParser) -> None:
    """Declare `--store`."""
    parser.add_argument(
        "--store",
        metavar="FOLDER",
        type=Path,
        default=Path(os.environ.get("PRATIQUE_STORE", "/var/lib/pratique")),
        help="where images and what this host believes are kept ($PRATIQUE_STORE; default /var/lib/pratique)",
    )


def add_state(parser: argparse.ArgumentParser) -> None:
    """Declare `--state`."""
    parser.add_argument(
        "--state",
        metavar="FOLDER",
        type=Path,
        default=Path(os.environ.get("PRATIQUE_STATE", "/run/pratique")),
        help="where running containers are kept track of ($PRATIQUE_STATE; default /run/pratique)",
    )


def open_host(arguments: argparse.Namespace) -> Host:
    """The host that was enrolled in `--store`.

    Raises:
        ContainerError: none was, or the folder is not ours alone.
    """
    from runtime.host import Host
    from runtime.store import Store

    return Host.open(Store.open(arguments.store))


def refused(refusal: Refused, *, json: bool, exit_code: Exit = Exit.DENIED) -> Exit:
    """Print why something is not believed or not started; the result is the exit code."""
    if json:
        as_json({"refused": {"code": refusal.code, "object": refusal.subject, "detail": refusal.detail}})
    else:
        for text in refusal_lines(refusal):
            line(text, to=sys.stderr)
    return exit_code


def refusal_lines(refusal: Refused) -> tuple[str, ...]:
    """Why something is not believed or not started, for people."""
    return (f"refused: {refusal.code}", f"  object: {refusal.subject}", f"  reason: {refusal.detail}")


def warn_of(synced: Synced) -> None:
    """Say on stderr what was offered and refused, and who did not answer, while the verb goes on."""
    for refusal in synced.refused:
        line(f"warning: refused {refusal}", to=sys.stderr)
    for text in synced.silent:
        line(f"warning: no answer: {text}", to=sys.stderr)


def in_use(state: Path) -> tuple[Digest, ...]:
    """The manifests that containers run from."""
    from ocispec.digest import Digest
    from runtime.container import list_containers

    return tuple(
        Digest.parse(container.shown.digest)
        for container in list_containers(state)
        if container.status != "exited" and container.shown.digest
    )


class ProgressLines:
    """Shows a pull on stderr: a line a layer on a terminal's last lines, one line when each ends elsewhere."""

    def __init__(self) -> None:
        """Show it the way standard error can."""
        self._terminal = sys.stderr.isatty()
        self._order: list[str] = []
        self._shown: dict[str, str] = {}

    def __call__(self, progress: Progress) -> None:
        """Show one step."""
        from pratique.output import size

        name = str(progress.layer)
        share = f"{size(progress.done)} of {size(progress.total)}"
        text = f"layer {name[:19]}  {progress.state:<8}  {share}"
        if not self._terminal:
            if progress.state != "fetching" and self._shown.get(name) != progress.state:
                print(text, file=sys.stderr)
            self._shown[name] = progress.state
            return
        if name not in self._shown:
            self._order.append(name)
            print(file=sys.stderr)
        self._shown[name] = text
        up = len(self._order) - self._order.index(name)
        print(f"\x1b[{up}A\r\x1b[K{text}\x1b[{up}B\r", end="", file=sys.stderr, flush=True)
