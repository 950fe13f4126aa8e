"""Rules for the repositories of a registry: tags that never change, how much there may be, what goes. For admins.

pratique rules set registry.example:5000 immutable 'shop/*' --tag 'v*' --except 'v*-rc*'
pratique rules set registry.example:5000 quota 'shop/*' --bytes 200GiB --repositories 50
pratique rules set registry.example:5000 quota account:ci-web --bytes 20GiB --tags 1000
pratique rules set registry.example:5000 retention 'shop/*' --newest 20 --pulled 30d --except latest --untagged 7d
pratique rules list registry.example:5000
pratique rules remove registry.example:5000 immutable 'shop/*'

A repository is under every rule whose pattern matches it, from the next request on, on every instance. Whoever may
create an immutable tag can neither move nor delete it, nor the manifest that it points to; only an admin lifts that,
by changing the rule. A quota counts blobs and manifests once for each repository that holds them; setting one counts
what is there. Quotas keep nothing from being deleted, and none of the rules binds the registry's own signatures.

A retention rule keeps of its tags the --newest by push, those --pushed or --pulled within a time, with --served those
that hosts are served; the collector removes the others, but never what a host reported to run. `pratique retention`
shows beforehand what stays and why. With --untagged, manifests that nothing names go after that time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pratique import arguments as shared
from pratique import retaining
from pratique.exits import Exit, UsageError
from pratique.output import as_json, line, size, table

if TYPE_CHECKING:
    from ocispec.fields import JsonObject
    from ocispec.strictjson import JsonValue

COUNTED = ("bytes", "repositories", "manifests", "tags")


def _immutable(arguments: argparse.Namespace) -> dict[str, JsonValue]:
    if not arguments.tag:
        raise UsageError("an immutable rule needs --tag GLOB, at least once")
    return {"tags": list(arguments.tag), "except": list(arguments.but)}


def _quota(arguments: argparse.Namespace) -> dict[str, JsonValue]:
    limits: dict[str, JsonValue] = {
        name: getattr(arguments, name) for name in COUNTED if getattr(arguments, name) is not None
    }
    if not limits:
        raise UsageError(f"a quota needs at least one of {', '.join(f'--{name}' for name in COUNTED)}")
    return limits


def _retention(arguments: argparse.Namespace) -> dict[str, JsonValue]:
    value = retaining.retention(arguments)
    if not value.keys() & set(retaining.KEEPING):
        raise UsageError(
            f"a retention rule needs at least one of {', '.join(f'--{name}' for name in retaining.KEEPING)}"
        )
    return value


KINDS: Mapping[str, Callable[[argparse.Namespace], dict[str, JsonValue]]] = {
    "immutable": _immutable,
    "quota": _quota,
    "retention": _retention,
}
"""What the arguments of `set` say, for each kind."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare `set`, `list` and `remove`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="set|list|remove")
    put = verbs.add_parser("set", help="set a rule, in place of the one of its kind for the same pattern")
    listed = verbs.add_parser("list", help="all rules, with what is used of quotas")
    remove = verbs.add_parser("remove", help="remove a rule")
    for verb in (put, listed, remove):
        verb.add_argument("registry", metavar="REGISTRY", help="host[:port]")
    for verb in (put, remove):
        verb.add_argument("kind", choices=tuple(KINDS))
        verb.add_argument("pattern", metavar="PATTERN", help="a glob over repositories; for a quota also account:NAME")
    tags = put.add_argument_group("immutable, retention")
    tags.add_argument("--tag", metavar="GLOB", action="append", default=[], help="tags that it is about")
    tags.add_argument("--except", metavar="GLOB", action="append", default=[], help="but for these", dest="but")
    retaining.add_retention(put.add_argument_group("retention"))
    quota = put.add_argument_group("quota")
    quota.add_argument("--bytes", metavar="SIZE", type=shared.size, help="of blobs and manifests: 500MB, 20GiB, …")
    for name in COUNTED[1:]:
        quota.add_argument(f"--{name}", metavar="N", type=int, help=f"how many {name}")
    for verb in (put, listed, remove):
        shared.add_account(verb)
        shared.add_json(verb)


def run(arguments: argparse.Namespace) -> int:
    """Do one of them."""
    match arguments.verb:
        case "set":
            return _set(arguments)
        case "list":
            return _list(arguments)
        case _:
            return _remove(arguments)


def _set(arguments: argparse.Namespace) -> int:
    from pratique.control import control

    wanted: dict[str, JsonValue] = {
        "kind": arguments.kind,
        "pattern": arguments.pattern,
        "value": KINDS[arguments.kind](arguments),
    }
    found = control(arguments.registry, arguments.account).send("PUT", "/rules", wanted)
    if arguments.json:
        as_json(found)
    else:
        line(f"rule {arguments.kind} {arguments.pattern} set: {_said(found)}")
    return Exit.FINE


def _list(arguments: argparse.Namespace) -> int:
    from pratique.control import control, rows_of, text_of

    members = control(arguments.registry, arguments.account).get("/rules")
    if arguments.json:
        as_json(members.get("rules"))
        return Exit.FINE
    rows = [
        (text_of(row, "kind"), text_of(row, "pattern"), _said(row), text_of(row, "changed"), text_of(row, "changedBy"))
        for row in rows_of(members, "rules")
    ]
    table(("KIND", "PATTERN", "RULE", "CHANGED", "BY"), rows)
    return Exit.FINE


def _remove(arguments: argparse.Namespace) -> int:
    from urllib.parse import urlencode

    from pratique.control import control

    query = urlencode({"kind": arguments.kind, "pattern": arguments.pattern})
    control(arguments.registry, arguments.account).send_bytes("DELETE", f"/rules?{query}", b"")
    if arguments.json:
        as_json({"removed": {"kind": arguments.kind, "pattern": arguments.pattern}})
    else:
        line(f"rule {arguments.kind} {arguments.pattern} removed")
    return Exit.FINE


def _said(row: JsonObject) -> str:
    """A rule's value in one line: `tags v*, release-*; except v0`, or `bytes 1.0 GiB of 20.0 GiB`."""
    value, used = row.get("value"), row.get("used")
    members = value if isinstance(value, dict) else {}
    counted = used if isinstance(used, dict) else {}
    parts = []
    for name, said in members.items():
        if isinstance(said, list):
            parts += [f"{name} {', '.join(map(str, said))}"] if said else []
        elif name in counted:
            parts.append(f"{name} {_amount(name, counted[name])} of {_amount(name, said)}")
        else:
            parts.append(f"{name} {said}")
    return "; ".join(parts)


def _amount(name: str, value: object) -> str:
    return size(value) if name == "bytes" and isinstance(value, int) else str(value)
