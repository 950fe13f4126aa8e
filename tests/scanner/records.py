"""Advisory records of a test, in memory: a twin of AdvisoryStore that implements `Advisories`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ocispec.strictjson import JsonValue
from scanner.advisories.osv import parse_advisory
from scanner.advisories.records import Advisory, BrokenRecord, Cycle
from scanner.model import DataSource

Record = Mapping[str, JsonValue]


class Records:
    """Advisory records given as OSV documents."""

    def __init__(
        self,
        *records: Record,
        exploited: Iterable[str] = (),
        broken: Mapping[tuple[str, str], BrokenRecord] | None = None,
        products: Mapping[str, Sequence[Cycle]] | None = None,
        purls: Mapping[str, str] | None = None,
    ) -> None:
        """Parse the records as an import does."""
        self._records = [parse_advisory(json.dumps(record).encode(), what="record") for record in records]
        self._exploited = frozenset(exploited)
        self._broken = broken or {}
        self._products = products or {}
        self._purls = purls or {}

    @property
    def sources(self) -> tuple[DataSource, ...]:
        """One source."""
        return (
            DataSource(name="osv test", digest="sha256:0", date="2026-11-24T00:00:00Z", records=len(self._records)),
        )

    def covers(self, ecosystem: str) -> bool:
        """True if a record is of this ecosystem."""
        return any(item.ecosystem == ecosystem for record in self._records for item in record.affected)

    def advisories(self, ecosystem: str, name: str) -> tuple[Advisory, ...]:
        """The records for one package."""
        found = []
        for record in sorted(self._records, key=lambda record: record.id):
            about = tuple(item for item in record.affected if (item.ecosystem, item.name) == (ecosystem, name))
            if about:
                found.append(replace(record, affected=about))
        return tuple(found)

    def broken(self, ecosystem: str, name: str) -> tuple[BrokenRecord, ...]:
        """The broken records for one package."""
        record = self._broken.get((ecosystem, name))
        return (record,) if record is not None else ()

    def exploited(self, ids: Iterable[str]) -> bool:
        """True if one of the ids was given as exploited."""
        return not self._exploited.isdisjoint(ids)

    def product_cycles(self, product: str) -> tuple[Cycle, ...]:
        """The cycles of a product."""
        return tuple(self._products.get(product, ()))

    def purl_cycles(self, purl: str) -> tuple[Cycle, ...]:
        """The cycles of the product that a purl names."""
        return self.product_cycles(self._purls[purl]) if purl in self._purls else ()


def record(identifier: str, package: str, *events: str, ecosystem: str = "Debian:13", **members: JsonValue) -> Record:
    """An OSV record of one package; each event is `introduced 0`, `fixed 1.2`, and so on."""
    ranges: list[JsonValue] = []
    if events:
        pairs = (event.split(" ", 1) for event in events)
        ranges = [{"type": "ECOSYSTEM", "events": [{kind: version} for kind, version in pairs]}]
    affected: dict[str, JsonValue] = {"package": {"ecosystem": ecosystem, "name": package}, "ranges": ranges}
    affected |= {name: members.pop(name) for name in ("versions", "ecosystem_specific") if name in members}
    return {"id": identifier, "modified": "2026-01-01T00:00:00Z", "affected": [affected], **members}
