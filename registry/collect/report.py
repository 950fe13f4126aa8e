"""What a run of the collector found: counts and bytes by reason, with examples, and what it must not keep to itself."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from ocispec.strictjson import JsonValue
from policy.times import format_time
from registry.catalogue.collections import Collected

EXAMPLES: Final = 20
"""Things of each reason that are named."""

LISTED: Final = 100_000
"""Things of one run that are listed; all are counted."""

MISSING: Final = 1000
"""Missing blobs that are named."""


class Reason(StrEnum):
    """Why something goes. Only what is said to free bytes takes them out of the store."""

    TAG = "retention"
    """A retention rule does not keep the tag."""
    UNTAGGED = "untagged"
    """No tag, index or subject has named the manifest for as long as a retention rule says."""
    SUBJECT_GONE = "subject-gone"
    """The image that the artifact is about is gone."""
    NOT_NEEDED = "not-needed"
    """No manifest of the repository needs the blob: it leaves the repository."""
    IN_NO_REPOSITORY = "in-no-repository"
    """No repository has the blob: its bytes go."""
    INTERRUPTED = "interrupted"
    """An earlier run died while it deleted the bytes."""
    ORPHAN = "orphan"
    """The catalogue does not know the bytes: whoever stored them died before they were recorded."""
    DERIVED = "derived"
    """Made from a layer or image that is gone, or by an older version; can be made again."""
    EVIDENCE = "evidence"
    """No decision names the evidence any more."""
    DECISION = "decision"
    """Not among the newest decisions on its image, or on an image that has long been gone."""
    RECORD = "record"
    """Rows that speak of what is gone: manifests' bytes, readings of layers, keys of statements, times of pulls."""


FREEING: Final = frozenset(
    {Reason.IN_NO_REPOSITORY, Reason.INTERRUPTED, Reason.ORPHAN, Reason.DERIVED, Reason.EVIDENCE}
)
"""The reasons whose bytes leave the store."""


UNLISTED: Final = frozenset({Reason.RECORD})
"""The reasons of which only examples are named."""


@dataclass(slots=True)
class Sum:
    """How many things of one reason, their bytes, and some of their names."""

    count: int = 0
    bytes: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a run has found so far; `pending` is what is to be listed and is not yet, `listed` how much was before."""

    reasons: dict[Reason, Sum] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    missing_count: int = 0
    looked_at: int = 0
    pending: list[Collected] = field(default_factory=list)
    listed: int = 0

    def note(self, reason: Reason, what: object, size: int = 0, detail: str = "") -> None:
        """Count something that goes (or, in a dry run, would go)."""
        self._count(reason, str(what), size)
        if reason not in UNLISTED and self.listed + len(self.pending) < LISTED:
            self.pending.append(Collected(str(reason), str(what), size, detail))

    def resume(self, number: int, thing: Collected) -> None:
        """Count what an earlier attempt at this run took away, and listed under this number."""
        self._count(Reason(thing.reason), thing.subject, thing.bytes)
        self.listed = number

    def leave(self, why: str) -> None:
        """Count something that is left for now: `leased`, `busy`, `failed`."""
        self.left[why] = self.left.get(why, 0) + 1

    def miss(self, digest: object) -> None:
        """Count a blob that the catalogue knows, and the store has not."""
        self.missing_count += 1
        if len(self.missing) < MISSING:
            self.missing.append(str(digest))

    def count(self, reason: Reason) -> int:
        """How many things of one reason."""
        return self.reasons[reason].count if reason in self.reasons else 0

    @property
    def freed(self) -> int:
        """Bytes that left the store, or would."""
        return sum(found.bytes for reason, found in self.reasons.items() if reason in FREEING)

    def summary(self) -> str:
        """One line for the audit and the log."""
        parts = [f"{reason} {found.count}" for reason, found in _ordered(self.reasons.items())]
        left = [f"{why} {count} left" for why, count in sorted(self.left.items())]
        missing = [f"MISSING {self.missing_count}"] if self.missing_count else []
        return f"{self.freed} bytes freed: {', '.join((*parts, *left, *missing)) or 'nothing to do'}"

    def _count(self, reason: Reason, what: str, size: int) -> None:
        found = self.reasons.setdefault(reason, Sum())
        found.count += 1
        found.bytes += size
        if len(found.examples) < EXAMPLES:
            found.examples.append(what)


def report_text(
    tally: Tally, *, started: datetime, ended: datetime, dry_run: bool, sweep: bool, error: str = ""
) -> str:
    """The report of a run as JSON text; `sweep` says whether the whole store was looked through."""
    members: dict[str, JsonValue] = {
        "dryRun": dry_run,
        "started": format_time(started),
        "ended": format_time(ended),
        "freedBytes": tally.freed,
        "lookedAt": tally.looked_at,
        "sweptStore": sweep,
        "reasons": [
            {"reason": str(reason), "count": found.count, "bytes": found.bytes, "examples": list(found.examples)}
            for reason, found in _ordered(tally.reasons.items())
        ],
        "listed": tally.listed,
        "left": dict(sorted(tally.left.items())),
        "missing": {"count": tally.missing_count, "blobs": list(tally.missing)},
        "error": error,
    }
    return json.dumps(members, ensure_ascii=True)


def freed_by(report: str) -> int:
    """Bytes that left the store by a report that `report_text` wrote; 0 of a run without one."""
    members = json.loads(report) if report else {}
    return int(members.get("freedBytes", 0))


def _ordered(reasons: Iterable[tuple[Reason, Sum]]) -> list[tuple[Reason, Sum]]:
    order = list(Reason)
    return sorted(reasons, key=lambda item: order.index(item[0]))
