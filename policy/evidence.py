"""Gathering Evidence: what was signed about an image, and what was found in it, at one time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from policy.model import Evidence, FileChange, ImageFacts, Signed
from policy.statements import Statement
from scanner.model import Report

Verify = Callable[[bytes], Signed[Statement]]
"""Proves one DSSE envelope against trust.json as of a fixed time; raises TrustError."""


class StatementSource(Protocol):
    """Where signed statements are kept (the registry's store and catalogue, or a folder)."""

    def envelopes(self, image: ImageFacts) -> Iterable[bytes]:
        """The DSSE envelopes that may concern `image`: approvals of it, its layers and of images that its
        layers begin with, waivers, withdrawals, and the newest revocation list. More do no harm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What the scanner and the merged tree say of an image; `report` is None where the scan failed."""

    report: Report | None
    changes: Sequence[FileChange] = ()
    errors: Sequence[str] = ()


def gather(image: ImageFacts, *, statements: StatementSource, verify: Verify, scan: Scan, now: datetime) -> Evidence:
    """Return the evidence on `image`; a statement that `verify` refuses is listed as rejected.

    Raises:
        PolicyError: `now` is not an aware time in UTC.
    """
    raise NotImplementedError
