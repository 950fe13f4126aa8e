"""Room under quotas for bytes that are still coming: what a push is told before it sends, and while it does.

What counts is counted when it is written (`catalogue/usage.py`). Before that, what an account has sent to its upload
sessions is taken off the room that it has, so nobody can fill the store with blobs that are never finished: an
account can go over by what its bodies under way bring, of which it may send `http.bodies_per_account` at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection

from registry.catalogue.rules import rules_now
from registry.catalogue.uploads import bytes_under_way
from registry.catalogue.usage import exceeded, quotas, used
from registry.errors import TooLargeError
from registry.rules import Quota, Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How many bytes an account may still bring to a repository; without a `rule`, any number.

    `taken` are those that the rule's limit leaves no room for any more.
    """

    rule: Rule | None = None
    limit: int = 0
    taken: int = 0

    def check(self, more: int) -> None:
        """Check that so many bytes more can come.

        Raises:
            QuotaError: they cannot.
        """
        if self.rule is not None and self.taken + more > self.limit:
            raise exceeded(self.rule, "bytes", self.limit, self.taken + more)

    def least(self, limit: int) -> int:
        """The room, or `limit` where that is less."""
        return limit if self.rule is None else min(limit, max(self.limit - self.taken, 0))

    @contextmanager
    def kept(self, limit: int) -> Iterator[None]:
        """Say of a body that had at most `least(limit)` bytes that the quota was what it went over.

        Raises:
            QuotaError: it did.
        """
        try:
            yield
        except TooLargeError:
            if self.least(limit) == limit or self.rule is None:
                raise
            raise exceeded(self.rule, "bytes", self.limit, self.limit + 1) from None


def room(conn: Connection, repository: str, account: str) -> Room:
    """The least room under the quotas that bind this account in this repository."""
    found = Room()
    for rule in quotas(rules_now(conn), repository, account):
        if not isinstance(rule.value, Quota) or rule.value.bytes is None:
            continue
        taken = used(conn, rule).bytes + bytes_under_way(conn, account)
        if found.rule is None or rule.value.bytes - taken < found.limit - found.taken:
            found = Room(rule=rule, limit=rule.value.bytes, taken=taken)
    return found
