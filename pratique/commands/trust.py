"""Make, sign, show, publish and export trust.json, the list of everybody's keys.

pratique trust new spec.yaml --key rita.key --key ron.key --out trust.json
pratique trust sign trust.json --key rose.key         adds a signature, after showing what is signed
pratique trust show trust.json                        or a REGISTRY: its keys, thresholds and digest
pratique trust publish registry.example:5000 trust.json
pratique trust export --podman --trust trust.json --registry registry.example:5000 --out /etc/containers

The digest that `show` prints is what a host operator compares when a host is enrolled. A newer trust.json needs
enough signatures of the old root keys and of its own; `new --after OLD.json` keeps what it says of known keys.

spec.yaml looks like this; a name that is not in it is refused:

"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pratique import arguments as shared
from pratique import clock
from pratique.exits import Exit, UsageError
from pratique.output import as_json, line, table
from pratique.trustspec import EXAMPLE, read_spec

if TYPE_CHECKING:
    from policy.statements import TrustRoot

__doc__ = (__doc__ or "") + "".join(f"    {row}\n" for row in EXAMPLE.splitlines())

_MAX: Final = 4 * 1024 * 1024


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare `new`, `sign`, `show`, `publish` and `export`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="new|sign|show|publish|export")
    new = verbs.add_parser("new", help="make a trust.json from a specification, and sign it")
    new.add_argument("spec", metavar="SPEC.yaml", type=Path)
    shared.add_keys(new)
    new.add_argument("--out", metavar="FILE", type=Path, required=True, help="where trust.json is written")
    new.add_argument("--after", metavar="FILE", type=Path, help="the trust.json that it follows")
    new.add_argument("--replace", action="store_true", help="write over a file that is there")
    sign = verbs.add_parser("sign", help="add signatures to a trust.json")
    sign.add_argument("file", metavar="FILE", type=Path)
    shared.add_keys(sign)
    show = verbs.add_parser("show", help="keys, thresholds and digest")
    show.add_argument("what", metavar="FILE|REGISTRY")
    shared.add_account(show)
    publish = verbs.add_parser("publish", help="give a registry its first or a newer trust.json")
    publish.add_argument("registry", metavar="REGISTRY")
    publish.add_argument("file", metavar="FILE", type=Path)
    shared.add_account(publish)
    export = verbs.add_parser("export", help="the files by which other engines believe a registry")
    export.add_argument("--podman", action="store_true", required=True, help="policy.json and registries.d")
    export.add_argument("--trust", metavar="FILE", type=Path, required=True)
    export.add_argument("--registry", metavar="NAME", required=True, help="host[:port], as trust.json lists it")
    export.add_argument("--out", metavar="DIR", type=Path, required=True, help="e.g. /etc/containers")
    export.add_argument("--replace", action="store_true", help="write over files that are there")
    for verb in (new, sign, show, publish, export):
        shared.add_json(verb)


def run(arguments: argparse.Namespace) -> int:
    """Do one of them."""
    match arguments.verb:
        case "new":
            return _new(arguments)
        case "sign":
            return _sign(arguments)
        case "show":
            return _show(arguments)
        case "publish":
            return _publish(arguments)
        case _:
            return _export(arguments)


def _new(arguments: argparse.Namespace) -> int:
    from policy import dsse, wire
    from policy.seal import seal
    from policy.trust import Trust
    from pratique.files import read_bounded, write_new

    now = clock.now()
    after = Trust.stored(read_bounded(arguments.after, _MAX), now) if arguments.after is not None else None
    root = read_spec(arguments.spec, now, after=after)
    if after is not None and root.version <= after.root.version:
        raise UsageError(f"{arguments.spec}: version is {root.version}, expected more than {after.root.version}")
    envelope = seal(root, *shared.read_keys(arguments))
    wire.decode(dsse.parse(envelope, what=str(arguments.spec)).payload, what=str(arguments.spec))
    write_new(arguments.out, envelope, replace=arguments.replace)
    return _tell(envelope, str(arguments.out), now, json=arguments.json)


def _sign(arguments: argparse.Namespace) -> int:
    from policy.seal import countersign
    from pratique.files import read_bounded, write_new

    now = clock.now()
    raw = read_bounded(arguments.file, _MAX)
    _root(raw, str(arguments.file))
    signed = countersign(raw, *shared.read_keys(arguments))
    write_new(arguments.file, signed, replace=True)
    return _tell(signed, str(arguments.file), now, json=arguments.json)


def _show(arguments: argparse.Namespace) -> int:
    from pratique.control import control
    from pratique.exits import CommandError
    from pratique.files import read_bounded

    path = Path(arguments.what)
    if path.is_file():
        return _tell(read_bounded(path, _MAX), str(path), clock.now(), json=arguments.json)
    envelope = control(arguments.what, arguments.account).trust()
    if envelope is None:
        raise CommandError(f"registry {arguments.what}: has no trust.json yet")
    return _tell(envelope, f"trust.json of {arguments.what}", clock.now(), json=arguments.json)


def _publish(arguments: argparse.Namespace) -> int:
    from policy.trust import Trust
    from pratique.control import control
    from pratique.files import read_bounded

    envelope = read_bounded(arguments.file, _MAX)
    trust = Trust.parse(envelope, clock.now())
    answer = control(arguments.registry, arguments.account).send_bytes("POST", "/trust", envelope)
    if arguments.json:
        as_json(answer)
    else:
        line(f"registry {arguments.registry} has taken trust.json version {trust.root.version}, digest {trust.digest}")
    return Exit.FINE


def _export(arguments: argparse.Namespace) -> int:
    from policy.export import podman
    from policy.trust import Trust
    from pratique.files import read_bounded, write_new

    now = clock.now()
    written = podman(Trust.parse(read_bounded(arguments.trust, _MAX), now), arguments.registry, now)
    for file in written:
        path = arguments.out / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new(path, file.text.encode(), replace=arguments.replace)
        if not arguments.json:
            line(f"wrote {path}")
    if arguments.json:
        as_json([str(arguments.out / file.name) for file in written])
    return Exit.FINE


def _root(envelope: bytes, what: str) -> TrustRoot:
    from policy.statements import TrustRoot
    from pratique.envelopes import open_envelope

    root = open_envelope(envelope, what).statement
    if not isinstance(root, TrustRoot):
        raise UsageError(f"{what}: a {type(root).__name__}, expected a trust.json")
    return root


def _tell(envelope: bytes, what: str, now: datetime, *, json: bool) -> int:
    """Print a trust.json, and whether it is in force; 0 also where signatures are still missing."""
    from policy.errors import TrustError
    from policy.times import format_time
    from policy.trust import Trust
    from pratique.envelopes import open_envelope

    root = _root(envelope, what)
    digest = str(open_envelope(envelope, what).digest)
    try:
        Trust.parse(envelope, now)
        problem = ""
    except TrustError as error:
        problem = error.detail
    if json:
        as_json(
            {
                "version": root.version,
                "digest": digest,
                "issued": format_time(root.issued),
                "expires": format_time(root.expires),
                "root_threshold": root.root_threshold,
                "list_threshold": root.list_threshold,
                "registries": list(root.registries),
                "policies": [{"name": policy.name, "threshold": policy.threshold} for policy in root.policies],
                "keys": [
                    {
                        "id": key.key.id,
                        "owner": key.owner,
                        "role": str(key.role),
                        "levels": list(key.levels),
                        "not_before": format_time(key.not_before),
                        "not_after": format_time(key.not_after),
                    }
                    for key in root.keys
                ],
                "in_force": not problem,
                "problem": problem,
            }
        )
        return Exit.FINE
    line(f"{what}: version {root.version}, until {format_time(root.expires)}")
    line(f"digest      {digest}")
    line(f"registries  {', '.join(root.registries)}")
    line(f"policies    {', '.join(f'{policy.name} ({policy.threshold} officers)' for policy in root.policies)}")
    line(
        f"thresholds  {root.root_threshold} roots for trust.json, {root.list_threshold} officers for a revocation list"
    )
    line()
    rows = [
        (key.owner, str(key.role), ", ".join(key.levels), format_time(key.not_before)[:10],
         format_time(key.not_after)[:10], key.key.id)
        for key in root.keys
    ]  # fmt: skip
    table(("OWNER", "ROLE", "LEVELS", "FROM", "UNTIL", "KEY"), rows)
    if problem:
        line()
        line(f"not in force yet: {problem}; `pratique trust sign` adds signatures", to=sys.stderr)
    return Exit.FINE
