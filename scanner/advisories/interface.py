"""What matching asks of the advisory data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from scanner.advisories.records import Advisory, BrokenRecord, Cycle
from scanner.model import DataSource


class Advisories(Protocol):
    """A set of advisory, exploit and end-of-life records."""

    @property
    def sources(self) -> tuple[DataSource, ...]:
        """What the records came from."""

    def covers(self, ecosystem: str) -> bool:
        """True if there is any record for `ecosystem` (`Debian:13`); else silence means nothing."""

    def advisories(self, ecosystem: str, name: str) -> tuple[Advisory, ...]:
        """The records for one package, each with what it says of this package only, withdrawn ones included."""

    def broken(self, ecosystem: str, name: str) -> tuple[BrokenRecord, ...]:
        """The records for one package that could not be read."""

    def exploited(self, ids: Iterable[str]) -> bool:
        """True if one of these CVE ids is known to be exploited."""

    def product_cycles(self, product: str) -> tuple[Cycle, ...]:
        """The release cycles of a product, by its name in the end-of-life data, newest first."""

    def purl_cycles(self, purl: str) -> tuple[Cycle, ...]:
        """The release cycles of the products that a purl without version identifies, newest first."""
