"""Free what nothing needs, and show what was freed and why.

pratique collect REGISTRY [--dry-run] [--wait]
    asks for a run of the collector; it begins in a moment, and goes on beside pushes and pulls
pratique collect show REGISTRY [ID]
    the newest runs, or one of them with all that it took away and why (with --dry-run: would take away)

A dry run changes nothing, and names what a real one would free right now. Rules say what goes: see
`pratique rules set retention`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pratique import arguments as shared
from pratique.exits import CommandError, Exit, UsageError
from pratique.output import as_json, line, size, table

if TYPE_CHECKING:
    from ocispec.fields import JsonObject
    from ocispec.strictjson import JsonValue
    from pratique.control import Control

PAGE: Final = 1000
PAUSE: Final = 1.0
"""Seconds between two looks of `--wait`."""

_OVER: Final = frozenset({"done", "failed"})


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare a run, and `show`."""
    parser.add_argument("what", metavar="[show] REGISTRY [ID]", nargs="+", help="host[:port]; ID is a run's")
    parser.add_argument("--dry-run", action="store_true", help="change nothing: tell what a run would free")
    parser.add_argument("--wait", action="store_true", help="wait for the run's end, and show what it came to")
    shared.add_account(parser)
    shared.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask for a run, or show."""
    from pratique.control import control

    shows = arguments.what[0] == "show"
    registry, *rest = arguments.what[1:] if shows else arguments.what or [""]
    if len(rest) > (1 if shows else 0):
        raise UsageError("collect: expected REGISTRY, or show REGISTRY [ID]")
    if shows and (arguments.dry_run or arguments.wait):
        raise UsageError("collect show: takes neither --dry-run nor --wait")
    client = control(registry, arguments.account)
    if not shows:
        return _collect(client, arguments)
    return _show(client, rest[0], json=arguments.json) if rest else _list(client, json=arguments.json)


def _collect(client: Control, arguments: argparse.Namespace) -> int:
    found = client.send("POST", "/collections", {"dryRun": arguments.dry_run})
    run_id = str(found.get("id"))
    if not arguments.wait:
        if arguments.json:
            as_json(found)
        else:
            line(f"collection {run_id} asked for; `pratique collect show {client.remote.registry} {run_id}` tells more")
        return Exit.FINE
    line(f"collection {run_id}", to=sys.stderr)
    while found.get("state") not in _OVER:
        time.sleep(PAUSE)
        found = client.get(f"/collections/{run_id}", limit=1)
    return _show(client, run_id, json=arguments.json)


def _list(client: Control, *, json: bool) -> int:
    from pratique.control import rows_of, text_of

    found = rows_of(client.get("/collections"), "collections")
    if json:
        as_json([dict(row) for row in found])
        return Exit.FINE
    rows = [
        (
            text_of(row, "id"),
            text_of(row, "state"),
            "dry run" if row.get("dryRun") else "real",
            text_of(row, "requested"),
            text_of(row, "requestedBy"),
            _freed(row),
        )
        for row in found
    ]
    table(("ID", "STATE", "KIND", "ASKED FOR", "BY", "FREED"), rows)
    return Exit.FINE


def _show(client: Control, run_id: str, *, json: bool) -> int:
    """One run with all that it took away; 1 if it failed."""
    from pratique.control import rows_of, text_of

    found = client.get(f"/collections/{run_id}", limit=1)
    failed = found.get("state") == "failed"
    if json:
        as_json({**found, "things": [dict(thing) for thing in _things(client, run_id)], "next": None})
        return Exit.FAILED if failed else Exit.FINE
    report = found.get("report")
    members: JsonObject = report if isinstance(report, dict) else {}
    would = "would be freed" if found.get("dryRun") else "freed"
    line(f"collection {run_id}: {found.get('state')}, asked for by {text_of(found, 'requestedBy')}")
    if members:
        counted = rows_of(members, "reasons")
        rows = [(text_of(row, "reason"), text_of(row, "count"), size(_number(row, "bytes"))) for row in counted]
        table(("REASON", "COUNT", "BYTES"), rows)
        line(f"{size(_number(members, 'freedBytes'))} {would}")
    for thing in _things(client, run_id):
        detail = text_of(thing, "detail")
        line(f"  {text_of(thing, 'reason')} {text_of(thing, 'subject')}{f' ({detail})' if detail else ''}")
    for digest in _missing(members):
        line(f"MISSING: blob {digest} is known, and not in the store", to=sys.stderr)
    if error := text_of(members, "error"):
        raise CommandError(f"collection {run_id}: {error}")
    return Exit.FAILED if failed else Exit.FINE


def _things(client: Control, run_id: str) -> Iterator[JsonObject]:
    from pratique.control import rows_of

    after: JsonValue = 0
    while isinstance(after, int):
        members = client.get(f"/collections/{run_id}", after=after, limit=PAGE)
        yield from rows_of(members, "things")
        after = members.get("next")


def _missing(report: JsonObject) -> list[JsonValue]:
    missing = report.get("missing")
    blobs = missing.get("blobs") if isinstance(missing, dict) else None
    return blobs if isinstance(blobs, list) else []


def _freed(row: JsonObject) -> str:
    report = row.get("report")
    if not isinstance(report, dict):
        return ""
    freed = size(_number(report, "freedBytes"))
    return f"({freed})" if row.get("dryRun") else freed


def _number(members: JsonObject, name: str) -> int:
    value = members.get(name)
    return value if isinstance(value, int) else 0
