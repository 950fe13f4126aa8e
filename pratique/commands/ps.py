"""What runs on this host, and what stands against it.

pratique ps            containers that run
pratique ps --all      those that ended too, if they were kept
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pratique import arguments as shared
from pratique import hosting
from pratique.exits import Exit
from pratique.output import as_json, table

if TYPE_CHECKING:
    from ocispec.strictjson import JsonValue
    from runtime.record import Container


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare which containers."""
    parser.add_argument("-a", "--all", action="store_true", help="containers that ended, too")
    hosting.add_state(parser)
    shared.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """List them."""
    from runtime.container import list_containers

    found = [each for each in list_containers(arguments.state) if arguments.all or each.status != "exited"]
    if arguments.json:
        as_json([_json(container) for container in found])
    else:
        header = ("NAME", "STATUS", "STARTED", "LEVEL", "IMAGE", "NOTES")
        table(header, [_row(container) for container in found])
    return Exit.FINE


def _row(container: Container) -> tuple[str, ...]:
    shown = container.shown
    notes = list(shown.notes)
    if container.reason is not None:
        notes.append(f"{container.reason.code}: {container.reason.message}")
    return (str(container.name), status(container), container.started[:19], shown.level, shown.image, "; ".join(notes))


def status(container: Container) -> str:
    """The status in a word or two, with the exit code of one that ended."""
    return f"exited ({container.exit_code})" if container.status == "exited" else container.status


def _json(container: Container) -> JsonValue:
    reason = container.reason
    return {
        "name": str(container.name),
        "status": container.status,
        "exit_code": container.exit_code,
        "created": container.created,
        "started": container.started,
        "finished": container.finished,
        "pid": container.pid,
        "image": container.shown.image,
        "digest": container.shown.digest,
        "level": container.shown.level,
        "notes": list(container.shown.notes),
        "memory": container.memory,
        "network": container.network,
        "stopped_by": {"code": reason.code, "message": reason.message} if reason is not None else None,
    }
