"""Make, list and remove accounts of a registry. For admins.

pratique accounts add registry.example:5000 ci-web --role pusher --repository 'shop/*'
pratique accounts add registry.example:5000 ci-new --role pusher --grant 'shop/*:pull,create' --until 90d
pratique accounts list registry.example:5000
pratique accounts remove registry.example:5000 ci-web

The secret is printed once, and is kept nowhere. Roles:

    pusher    push to its repositories, and pull from them whatever was pushed; hand in its team's approvals
    host      pull what is cleared
    scanner   read everything, and hand in advisory data
    officer   read everything, and hand in approvals, waivers, policies and revocation lists
    auditor   read everything, and the audit trail
    admin     accounts and settings; no images

A grant gives some of what the role has, in some repositories: pull, create (what was not there), update (point a tag
that is there elsewhere), delete. `--repository GLOB` is `--grant GLOB` with every right that the role has.
"""

from __future__ import annotations

import argparse
import sys

from pratique import arguments as shared
from pratique import clock
from pratique.exits import Exit
from pratique.output import as_json, line, table

ROLES = ("pusher", "host", "scanner", "officer", "auditor", "admin")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare `add`, `list` and `remove`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="add|list|remove")
    add = verbs.add_parser("add", help="make an account, and print its secret once")
    listed = verbs.add_parser("list", help="all accounts")
    remove = verbs.add_parser("remove", help="remove an account")
    for verb in (add, listed, remove):
        verb.add_argument("registry", metavar="REGISTRY", help="host[:port]")
    for verb in (add, remove):
        verb.add_argument("name", metavar="NAME")
    add.add_argument("--role", choices=ROLES, required=True)
    add.add_argument(
        "--repository",
        metavar="GLOB",
        action="append",
        default=[],
        help="only these repositories, e.g. 'shop/*'; may be given more than once (default: all)",
    )
    add.add_argument(
        "--grant",
        metavar="GLOB[:RIGHT,...]",
        action="append",
        default=[],
        help="only these rights there, e.g. 'shop/*:pull,create'; may be given more than once",
    )
    add.add_argument("--until", metavar="TIME", help="when it ends: 90d, 12h, or a date")
    for verb in (add, listed, remove):
        shared.add_account(verb)
        shared.add_json(verb)


def run(arguments: argparse.Namespace) -> int:
    """Do one of them."""
    match arguments.verb:
        case "add":
            return _add(arguments)
        case "list":
            return _list(arguments)
        case _:
            return _remove(arguments)


def _add(arguments: argparse.Namespace) -> int:
    from ocispec import fields
    from ocispec.strictjson import JsonValue
    from policy.times import format_time
    from pratique.control import control

    wanted: dict[str, JsonValue] = {
        "name": arguments.name,
        "role": arguments.role,
        "grants": [*arguments.grant, *arguments.repository],
    }
    if arguments.until is not None:
        wanted["expires"] = format_time(shared.until(arguments.until, clock.now()))
    made = control(arguments.registry, arguments.account).send("POST", "/accounts", wanted)
    secret = fields.text(made, "secret", what=f"{arguments.registry}: accounts")
    if arguments.json:
        as_json({**wanted, "secret": secret})
    elif sys.stdout.isatty():
        line(f"account {arguments.name} ({arguments.role}) made; its secret, shown this once:")
        line(secret)
    else:
        # Into a file or a pipe goes the secret alone: `pratique accounts add … > secret`.
        line(f"account {arguments.name} ({arguments.role}) made; its secret is on standard output", to=sys.stderr)
        line(secret)
    return Exit.FINE


def _list(arguments: argparse.Namespace) -> int:
    from pratique.control import control, rows_of, text_of

    members = control(arguments.registry, arguments.account).get("/accounts")
    if arguments.json:
        as_json(members.get("accounts"))
        return Exit.FINE
    rows = []
    for row in rows_of(members, "accounts"):
        given = row.get("grants")
        grants = " ".join(map(str, given)) if isinstance(given, list) else ""
        fields = (text_of(row, name) for name in ("name", "role", "created", "createdBy"))
        rows.append((*fields, text_of(row, "expires") or "never", grants))
    table(("NAME", "ROLE", "CREATED", "BY", "ENDS", "GRANTS"), rows)
    return Exit.FINE


def _remove(arguments: argparse.Namespace) -> int:
    from urllib.parse import quote

    from pratique.control import control

    registry = control(arguments.registry, arguments.account)
    registry.send_bytes("DELETE", f"/accounts/{quote(arguments.name, safe='')}", b"")
    if arguments.json:
        as_json({"removed": arguments.name})
    else:
        line(f"account {arguments.name} removed")
    return Exit.FINE
