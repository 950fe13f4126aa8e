"""The arguments that make a retention rule, for `rules set` and for the preview of `retention`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ocispec.strictjson import JsonValue

KEEPING = ("newest", "pushed", "pulled", "untagged")
"""The members of a rule of which it needs one at least."""


def add_retention(group: argparse._ArgumentGroup) -> None:
    """Declare what a rule keeps; the tags that it is about are `--tag` and `--except`."""
    group.add_argument("--newest", metavar="N", type=int, help="keep the newest N by push")
    for name in ("pushed", "pulled"):
        group.add_argument(f"--{name}", metavar="TIME", help=f"keep what was {name} within this time: 30d, 12h, …")
    group.add_argument("--served", action="store_true", help="keep what hosts are served")
    group.add_argument("--untagged", metavar="TIME", help="remove manifests that nothing has named for this time")
    group.add_argument("--even-immutable", action="store_true", help="remove immutable tags too")


def retention(arguments: argparse.Namespace) -> dict[str, JsonValue]:
    """The rule's value, as the registry takes it."""
    value: dict[str, JsonValue] = {"tags": list(arguments.tag) or ["*"], "except": list(arguments.but)}
    for name in KEEPING:
        if getattr(arguments, name) is not None:
            value[name] = getattr(arguments, name)
    return value | {"served": arguments.served, "immutable": arguments.even_immutable}
