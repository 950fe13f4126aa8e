"""Make, change and remove accounts of a registry; renew secrets, invite people, end tokens. For admins.

pratique accounts add registry.example:5000 ci-web --role pusher --repository 'shop/*'
pratique accounts add registry.example:5000 ci-new --role pusher --grant 'shop/*:pull,create' --until 90d
pratique accounts add registry.example:5000 alice --role officer --person
    prints an invitation, with which alice sets her own password: `pratique login --invitation`
pratique accounts add registry.example:5000 host-7 --role host --certificate dns:host-7.example
pratique accounts list registry.example:5000
pratique accounts change registry.example:5000 ci-web --until 30d --grant 'shop/*:pull'
pratique accounts renew registry.example:5000 ci-web --overlap 1h
    prints another secret of a robot, which may do that for itself too; the old one counts for an hour more
pratique accounts invite registry.example:5000 alice
    prints another invitation of a person, whose password ends
pratique accounts remove registry.example:5000 ci-web
pratique accounts end-tokens registry.example:5000
    every token that was given ends within a second; whoever may have one gets another

A secret or invitation is printed once, and is kept nowhere. Roles:

    pusher    push to its repositories, and pull from them whatever was pushed; hand in its team's approvals
    host      pull what is cleared
    scanner   read everything, and hand in advisory data
    officer   read everything, and hand in approvals, waivers, policies and revocation lists
    auditor   read everything, and the audit trail
    admin     accounts and settings; no images

A grant gives some of what the role has, in some repositories: pull, create (what was not there), update (point a tag
that is there elsewhere), delete. `--repository GLOB` is `--grant GLOB` with every right that the role has. A client
certificate speaks for an account by one of its names (dns:, uri:, email:, cn:) or by its fingerprint (sha256:).
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from pratique import arguments as shared
from pratique import clock
from pratique.exits import Exit, UsageError
from pratique.output import as_json, line, table

if TYPE_CHECKING:
    from ocispec.fields import JsonObject
    from ocispec.strictjson import JsonValue

ROLES = ("pusher", "host", "scanner", "officer", "auditor", "admin")

_HELP: Final = {
    "add": "make an account, and print its secret or invitation once",
    "list": "all accounts",
    "change": "change what an account may, when it ends, or which certificates speak for it",
    "renew": "give a robot another secret, and print it once",
    "invite": "invite a person to set a password, and print the invitation once",
    "remove": "remove an account",
    "end-tokens": "end every token that the registry gave",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare what can be done."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="|".join(_HELP))
    made = {name: verbs.add_parser(name, help=text) for name, text in _HELP.items()}
    for name, verb in made.items():
        verb.add_argument("registry", metavar="REGISTRY", help="host[:port]")
        if name not in {"list", "end-tokens"}:
            verb.add_argument("name", metavar="NAME")
        shared.add_account(verb)
        shared.add_json(verb)
    add, change = made["add"], made["change"]
    add.add_argument("--role", choices=ROLES, required=True)
    add.add_argument("--person", action="store_true", help="somebody who sets a password, not a robot with a secret")
    for verb in (add, change):
        _add_what(verb)
    change.add_argument("--never-ends", action="store_true", help="take its end away")
    change.add_argument("--no-certificate", action="store_true", help="no certificate speaks for it any more")
    made["renew"].add_argument("--overlap", metavar="TIME", help="how long the old secret counts: 30m, 1h, at most 7d")


def _add_what(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--repository",
        metavar="GLOB",
        action="append",
        default=[],
        help="only these repositories, e.g. 'shop/*'; may be given more than once (default: all)",
    )
    parser.add_argument(
        "--grant",
        metavar="GLOB[:RIGHT,...]",
        action="append",
        default=[],
        help="only these rights there, e.g. 'shop/*:pull,create'; may be given more than once",
    )
    parser.add_argument("--until", metavar="TIME", help="when it ends: 90d, 12h, or a date")
    parser.add_argument(
        "--certificate",
        metavar="NAME",
        action="append",
        default=[],
        help="a client certificate speaks for it, e.g. dns:host-7.example; may be given more than once",
    )


def run(arguments: argparse.Namespace) -> int:
    """Do one of them."""
    match arguments.verb:
        case "add":
            return _add(arguments)
        case "list":
            return _list(arguments)
        case "change":
            return _change(arguments)
        case "renew":
            return _renew(arguments)
        case "invite":
            made = _send(arguments, "POST", f"{_path(arguments)}/invitation")
            return _once(arguments, made, f"account {arguments.name} is invited", "invitation")
        case "remove":
            _send(arguments, "DELETE", _path(arguments))
            return _done(arguments, {"removed": arguments.name}, f"account {arguments.name} removed")
        case _:
            _send(arguments, "DELETE", "/token-keys")
            return _done(arguments, {"ended": "tokens"}, "every token ends within a second")


def _add(arguments: argparse.Namespace) -> int:
    wanted: dict[str, JsonValue] = {"name": arguments.name, "role": arguments.role, **_what(arguments)}
    if arguments.person:
        wanted["kind"] = "person"
    made = _send(arguments, "POST", "/accounts", wanted)
    kind = "invitation" if arguments.person else "secret"
    return _once(arguments, {**wanted, **made}, f"account {arguments.name} ({arguments.role}) made", kind)


def _change(arguments: argparse.Namespace) -> int:
    wanted = _what(arguments)
    if not (arguments.grant or arguments.repository):
        wanted.pop("grants", None)
    if arguments.never_ends:
        wanted["expires"] = None
    if arguments.no_certificate:
        wanted["certificates"] = []
    if not wanted:
        raise UsageError("accounts change: expected something to change")
    changed = _send(arguments, "PATCH", _path(arguments), wanted)
    return _done(arguments, changed, f"account {arguments.name} changed")


def _renew(arguments: argparse.Namespace) -> int:
    from pratique.control import control

    now = clock.now()
    overlap = int((shared.until(arguments.overlap, now) - now).total_seconds()) if arguments.overlap else 0
    registry = control(arguments.registry, arguments.account)
    made = registry.send_by_secret(f"{_path(arguments)}/secret", {"overlap": overlap})
    left = f"the old one counts until {made.get('oldSecretUntil')}" if overlap else "the old one has ended"
    return _once(arguments, made, f"account {arguments.name} has a new secret, {left}", "secret")


def _what(arguments: argparse.Namespace) -> dict[str, JsonValue]:
    from policy.times import format_time

    wanted: dict[str, JsonValue] = {"grants": [*arguments.grant, *arguments.repository]}
    if arguments.until is not None:
        wanted["expires"] = format_time(shared.until(arguments.until, clock.now()))
    if arguments.certificate:
        wanted["certificates"] = list(arguments.certificate)
    return wanted


def _list(arguments: argparse.Namespace) -> int:
    from pratique.control import control, rows_of, text_of

    members = control(arguments.registry, arguments.account).get("/accounts")
    if arguments.json:
        as_json(members.get("accounts"))
        return Exit.FINE
    rows = []
    for row in rows_of(members, "accounts"):
        fields = (text_of(row, name) for name in ("name", "kind", "role", "created", "createdBy"))
        rows.append((*fields, text_of(row, "expires") or "never", _words(row, "grants"), _words(row, "certificates")))
    table(("NAME", "KIND", "ROLE", "CREATED", "BY", "ENDS", "GRANTS", "CERTIFICATES"), rows)
    return Exit.FINE


def _words(row: JsonObject, name: str) -> str:
    given = row.get(name)
    return " ".join(map(str, given)) if isinstance(given, list) else ""


def _path(arguments: argparse.Namespace) -> str:
    return f"/accounts/{quote(arguments.name, safe='')}"


def _send(
    arguments: argparse.Namespace, method: str, path: str, members: dict[str, JsonValue] | None = None
) -> dict[str, JsonValue]:
    from pratique.control import control

    registry = control(arguments.registry, arguments.account)
    return registry.send_bytes(method, path, b"") if members is None else registry.send(method, path, members)


def _once(arguments: argparse.Namespace, made: dict[str, JsonValue], text: str, kind: str) -> int:
    """Print what is shown this once: alone into a file or pipe, so that `pratique accounts add … > secret` works."""
    from ocispec import fields

    once = fields.text(made, kind, what=f"{arguments.registry}: accounts")
    if arguments.json:
        as_json(made)
    elif sys.stdout.isatty():
        line(f"{text}; its {kind}, shown this once:")
        line(once)
    else:
        line(f"{text}; its {kind} is on standard output", to=sys.stderr)
        line(once)
    return Exit.FINE


def _done(arguments: argparse.Namespace, members: dict[str, JsonValue], text: str) -> int:
    if arguments.json:
        as_json(members)
    else:
        line(text)
    return Exit.FINE
