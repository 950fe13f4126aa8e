"""Where an image stands, as its registry says: asked for, waited for, printed, and turned into an exit code."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ocispec.fields import JsonObject, boolean
from pratique.control import rows_of, text_of
from pratique.exits import Exit
from pratique.output import line

if TYPE_CHECKING:
    from ocispec.reference import Reference
    from pratique.control import Control

LONGEST_POLL: Final = 30
"""Seconds that a registry lets one question wait."""

_MAY_START: Final = ("cleared", "warning", "grace")
_POLL_SECONDS: Final = 0.1


def wait(
    registry: Control, reference: Reference, *, seconds: int, until: Callable[[JsonObject], bool] = lambda _: True
) -> JsonObject:
    """The status of an image once no judgement of it is due and `until` says so, after `seconds` at the latest."""
    ends = time.monotonic() + seconds
    while True:
        left = max(0, round(ends - time.monotonic()))
        status = registry.status(reference, wait=min(left, LONGEST_POLL))
        settled = not pending(status) and until(status)
        if settled or time.monotonic() >= ends:
            return status
        time.sleep(_POLL_SECONDS)


def pending(status: JsonObject) -> bool:
    """True while a judgement is due."""
    return boolean(status, "pending", what="status")


def refusals(status: JsonObject) -> list[JsonObject]:
    """The verdicts against the image."""
    tree = status.get("explain")
    return list(rows_of(tree, "refusals")) if isinstance(tree, dict) else []


def exit_code(status: JsonObject) -> Exit:
    """0 if it may start; 1 while nobody has decided; 3 if it may not."""
    if text_of(status, "state") in _MAY_START:
        return Exit.FINE
    if pending(status) or text_of(status, "reason") == "not-judged":
        return Exit.FAILED
    return Exit.DENIED


def show(status: JsonObject, name: str) -> None:
    """Print state, first reason and how many more there are."""
    line(f"{text_of(status, 'state')}: {name}")
    line(f"  digest   {text_of(status, 'digest')}")
    for label, member in (("level", "level"), ("parent", "parent"), ("until", "until"), ("judged", "judged")):
        if value := text_of(status, member):
            line(f"  {label:<8} {value}")
    line(f"  reason   {text_of(status, 'reason')}: {text_of(status, 'message')}")
    found = refusals(status)
    for verdict in found[:5]:
        line(f"  refused  {text_of(verdict, 'rule')}: {text_of(verdict, 'reason')}: {text_of(verdict, 'message')}")
    if len(found) > 5:
        line(f"  refused  and {len(found) - 5} more")
    if pending(status):
        line("still being judged; `pratique status --wait` waits for it", to=sys.stderr)
    elif found:
        line(f"`pratique explain {name}` tells layer, package, fix, and who can waive", to=sys.stderr)
