"""The revocation list: officers say what may no longer start, the registry says that this is still the newest.

Two statements, because officers are not there every day: the list (content and number, signed by officers)
and its date (signed by the registry, for a day). A stolen registry key can keep a list alive, and no
longer than MAX_LIST_LIFETIME and the grace; it can change nothing in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from ocispec.digest import Digest
from policy.errors import TrustError
from policy.globs import Glob, any_of
from policy.model import Signed
from policy.refusal import Refused
from policy.statements import ListDate, RevocationList
from policy.times import format_time
from policy.trust import Trust

LIST_LIFETIME: Final = timedelta(hours=24)
"""How long a date holds, unless a policy says otherwise (trust.md)."""

MAX_LIST_LIFETIME: Final = timedelta(days=7)
"""The longest that a host lets a registry's date hold."""

OFFLINE_GRACE: Final = timedelta(days=7)
"""How long a host goes on without a newer list (trust.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentList:
    """A verified list with its verified date. `ends` is when it stops to count, grace included."""

    list: Signed[RevocationList]
    date: Signed[ListDate]
    ends: datetime

    def stale(self, now: datetime) -> bool:
        """True in the grace: the list still counts, and somebody should know that no newer one came."""
        return now >= self.date.statement.expires


def verify_list(
    revocations: bytes, date: bytes, trust: Trust, now: datetime, *, grace: timedelta = OFFLINE_GRACE
) -> CurrentList:
    """Return the list in the envelope `revocations`, dated by the one in `date`.

    1. Enough officers signed the list. 2. A registry's key, which the list itself does not revoke, signed the
    date. 3. The date is of this list. 4. It does not claim to hold longer than MAX_LIST_LIFETIME, and has not
    ended longer ago than `grace`. Whether the number may follow the last one is `hoststate.see_list`.

    Raises:
        TrustError: as `Trust.verify`; `list-date-mismatch`, `lifetime-too-long`, `revocation-list-expired`.
    """
    signed = trust.verify(revocations, RevocationList, now)  # (1)
    listed = trust.revoking(signed.statement.keys)
    try:
        dated = listed.verify(date, ListDate, now, grace=grace)  # (2)
    except TrustError as error:
        code = "revocation-list-expired" if error.code == "expired" else error.code
        raise TrustError(code, error.subject, error.detail) from None
    said = dated.statement
    if said.list != signed.digest or said.number != signed.statement.number:  # (3)
        got = f"dates list {said.list} of number {said.number}"
        want = f"expected {signed.digest} of number {signed.statement.number}"
        raise TrustError("list-date-mismatch", f"statement {dated.digest}", f"{got}, {want}")
    if said.expires - said.issued > MAX_LIST_LIFETIME:  # (4)
        lifetime = said.expires - said.issued
        raise TrustError(
            "lifetime-too-long", f"statement {dated.digest}", f"holds {lifetime}, expected at most {MAX_LIST_LIFETIME}"
        )
    return CurrentList(list=signed, date=dated, ends=said.expires + grace)


def check_fresh(current: CurrentList | None, now: datetime) -> CurrentList:
    """Return `current` if it counts at `now`: a fresh host starts nothing before its first list.

    Raises:
        TrustError: `no-revocation-list`, `revocation-list-expired`.
    """
    if current is None:
        raise TrustError("no-revocation-list", "revocation list", "none was received yet")
    if now >= current.ends:
        detail = f"number {current.list.statement.number} ended {format_time(current.ends)}, grace included"
        raise TrustError("revocation-list-expired", "revocation list", detail)
    return current


def matches(
    revocations: RevocationList,
    *,
    digests: Iterable[Digest] = (),
    layers: Iterable[Digest] = (),
    components: Iterable[str] = (),
    keys: Iterable[str] = (),
) -> Refused | None:
    """Return the first of these that the list revokes, or None.

    `digests` are of manifests, configs, indexes and statements, `components` purls. A component glob is tried
    on the whole purl and on it without qualifiers: who revokes `pkg:deb/debian/xz-utils@5.6.0-1` means that of
    every architecture.
    """
    number = revocations.number
    for code, listed, offered in (
        ("revoked-digest", frozenset(revocations.digests), digests),
        ("revoked-layer", frozenset(revocations.layers), layers),
        ("revoked-key", frozenset(revocations.keys), keys),
    ):
        found = next((each for each in offered if each in listed), None)
        if found is not None:
            return Refused(code=code, subject=str(found), detail=f"on revocation list {number}: {revocations.reason}")
    if revocations.components:
        revoked = any_of(tuple(Glob.compile(pattern) for pattern in revocations.components))
        for purl in components:
            if revoked(purl) or revoked(purl.partition("?")[0].partition("#")[0]):
                detail = f"on revocation list {number}: {revocations.reason}"
                return Refused(code="revoked-component", subject=purl, detail=detail)
    return None
