"""Import advisory, exploit and end-of-life records, and show how old they are.

pratique advisories import registry.example:5000 advisories/           a folder of the public exports:
    osv/ECOSYSTEM/all.zip (or *.json), kev/*.json, endoflife/*.json
pratique advisories import registry.example:5000 kev.json debian.zip   single ones; osv=, kev= or endoflife= in
    front of a path says what it is where that cannot be seen
pratique advisories import --out snapshot.sqlite advisories/           a snapshot for `scan` and `check`
pratique advisories status registry.example:5000                       or a snapshot FILE: names, ages, counts

Everything is read here first: a record that cannot be read is named, and a source without a single good one is an
error. An upload replaces the one of the same name; the registry then judges every image again. It imports no source
whose newest record is older than it was, unless an admin says --older.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import zipfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pratique import arguments as shared
from pratique import clock
from pratique.exits import CommandError, Exit, UsageError
from pratique.output import as_json, line, size, table

if TYPE_CHECKING:
    from ocispec.strictjson import JsonValue
    from pratique.advisory_sources import Found
    from pratique.control import Control
    from scanner.advisories.build import Snapshot

_SHOWN: Final = 10
_IMPORT_SECONDS: Final = 120


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare `import` and `status`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="import|status")
    load = verbs.add_parser("import", help="read records, and hand them to a registry or write a snapshot")
    load.add_argument("places", metavar="[REGISTRY] SOURCE", nargs="+")
    load.add_argument("--out", metavar="FILE", type=Path, help="write a snapshot there; then no REGISTRY is named")
    load.add_argument("--older", action="store_true", help="also data older than those before (an admin's account)")
    load.add_argument("--no-wait", action="store_true", help="do not wait until the registry has imported them")
    status = verbs.add_parser("status", help="names, ages and counts")
    status.add_argument("what", metavar="REGISTRY|FILE")
    for verb in (load, status):
        shared.add_account(verb)
        shared.add_json(verb)


def run(arguments: argparse.Namespace) -> int:
    """Import or show."""
    if arguments.verb == "status":
        return _status(arguments)
    return _write(arguments) if arguments.out is not None else _upload(arguments)


def _write(arguments: argparse.Namespace) -> int:
    from pratique.advisory_sources import recognise
    from scanner.advisories.build import import_sources

    found = recognise([Path(place) for place in arguments.places])
    if found.snapshots:
        raise UsageError(f"{found.snapshots[0]}: a snapshot already, expected records")
    snapshot = import_sources(found.sources, arguments.out, now=clock.now())
    _tell_problems(snapshot)
    return _show_snapshot(arguments.out, json=arguments.json)


def _upload(arguments: argparse.Namespace) -> int:
    from ocispec.reference import check_registry
    from pratique.advisory_sources import recognise
    from pratique.control import control

    place, *paths = arguments.places
    if not paths or Path(place).exists():
        raise UsageError("import: expected REGISTRY SOURCE…, or --out FILE SOURCE…")
    registry = control(check_registry(place), arguments.account)
    found = recognise([Path(path) for path in paths])
    _check(found)
    begun, before = time.monotonic(), registry.advisories().get("import")
    names = _send_all(registry, found, older=arguments.older)
    if not arguments.no_wait:
        _wait(registry, names, before, begun + _IMPORT_SECONDS)
    return _show_registry(registry, json=arguments.json)


def _check(found: Found) -> None:
    """Read everything here, so that what is wrong is said at once and by name."""
    from scanner.advisories.build import import_sources
    from scanner.advisories.store import AdvisoryStore

    for path in found.snapshots:
        AdvisoryStore.open(path).close()
    if found.sources:
        with tempfile.TemporaryDirectory() as folder:
            _tell_problems(import_sources(found.sources, Path(folder) / "check.sqlite", now=clock.now()))


def _tell_problems(snapshot: Snapshot) -> None:
    for problem in snapshot.problems[:_SHOWN]:
        line(f"not read: {problem.source} {problem.name}: {problem.detail}", to=sys.stderr)
    if len(snapshot.problems) > _SHOWN:
        line(f"not read: and {len(snapshot.problems) - _SHOWN} more records", to=sys.stderr)


def _send_all(registry: Control, found: Found, *, older: bool) -> dict[str, str]:
    """Upload everything; the digest of each upload by its name."""
    sent = {}
    for path in found.snapshots:
        sent["snapshot"] = _send(registry, path, "snapshot", "snapshot", older=older)
    for source in found.sources:
        if source.kind.value != "osv" or source.path.suffix == ".zip":
            sent[source.name] = _send(registry, source.path, source.kind.value, source.name, older=older)
            continue
        with tempfile.TemporaryDirectory() as folder:
            packed = Path(folder) / "records.zip"
            _pack(source.path, packed)
            sent[source.name] = _send(registry, packed, source.kind.value, source.name, older=older)
    return sent


def _pack(records: Path, target: Path) -> None:
    files = sorted(records.rglob("*.json")) if records.is_dir() else [records]
    root = records if records.is_dir() else records.parent
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in files:
            # A fixed time: the same records make the same zip.
            info = zipfile.ZipInfo(str(file.relative_to(root)), date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, file.read_bytes())


def _send(registry: Control, path: Path, kind: str, name: str, *, older: bool) -> str:
    from ocispec import fields

    count = path.stat().st_size
    line(f"{name}: handing in {size(count)}", to=sys.stderr)
    with path.open("rb") as file:
        answer = registry.upload_advisories(file, count, kind=kind, name=name, older=older)
    return fields.text(answer, "digest", what=f"{registry.remote.registry}: advisories")


def _wait(registry: Control, names: dict[str, str], before: JsonValue, until: float) -> None:
    """Until the registry has imported what was sent: it counts the records of a source when it has.

    `before` is how the import before this one ended.

    Raises:
        CommandError: it could not, or has not after a long time.
    """
    from pratique.control import rows_of, text_of

    while True:
        members = registry.advisories()
        ended = members.get("import")
        if isinstance(ended, dict) and ended != before and ended.get("state") == "failed":
            said = text_of(ended, "detail")
            raise CommandError(f"registry {registry.remote.registry}: import failed, the data before it stay: {said}")
        rows = [row for row in rows_of(members, "sources") if names.get(str(row.get("name"))) == row.get("digest")]
        done = {row.get("name") for row in rows if row.get("records") or row.get("kind") == "snapshot"}
        if done == set(names) and members.get("snapshot"):
            return
        if time.monotonic() > until:
            missing = ", ".join(sorted(set(names) - {str(name) for name in done}))
            raise CommandError(f"registry {registry.remote.registry}: has not imported {missing} yet; its log says why")
        time.sleep(0.1)


def _status(arguments: argparse.Namespace) -> int:
    from pratique.control import control

    if Path(arguments.what).is_file():
        return _show_snapshot(Path(arguments.what), json=arguments.json)
    return _show_registry(control(arguments.what, arguments.account), json=arguments.json)


def _show_snapshot(path: Path, *, json: bool) -> int:
    from scanner.advisories.store import AdvisoryStore, file_digest

    with AdvisoryStore.open(path) as store:
        sources: list[JsonValue] = [
            {"name": s.name, "digest": s.digest, "date": s.date, "records": s.records, "broken": s.broken}
            for s in store.sources
        ]
        _show(sources, f"snapshot {path}, {file_digest(path)}", json=json)
    return Exit.FINE


def _show_registry(registry: Control, *, json: bool) -> int:
    from pratique.control import rows_of

    sources: list[JsonValue] = [dict(row) for row in rows_of(registry.advisories(), "sources")]
    _show(sources, f"registry {registry.remote.registry}", json=json)
    return Exit.FINE


def _show(sources: list[JsonValue], what: str, *, json: bool) -> None:
    from pratique.control import text_of

    if json:
        as_json(sources)
        return
    line(what)
    now, rows = clock.now(), []
    for source in sources:
        if isinstance(source, dict):
            date = text_of(source, "date")
            counts = (text_of(source, "records"), text_of(source, "broken") or "-")
            rows.append((text_of(source, "name"), date, _age(date, now), *counts, text_of(source, "digest")))
    table(("NAME", "DATE", "AGE", "RECORDS", "BROKEN", "DIGEST"), rows)


def _age(date: str, now: datetime) -> str:
    from policy.errors import PolicyError
    from policy.times import parse_time

    try:
        age = now - parse_time(date, what="date")
    except PolicyError:
        return "?"
    hours = int(age.total_seconds()) // 3600
    return f"{hours // 24}d {hours % 24}h" if hours >= 24 else f"{hours}h"
