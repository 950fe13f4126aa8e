"""Unit costs, and what they come to with very many images and hosts: plain arithmetic, each line of it printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from benchmarks.load.written import table


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """The unit costs on one database: seconds are of processors if nothing else is said, sizes are bytes."""

    head: float
    """HEAD of a tag, by a host."""
    sync: float
    """One sync of a host, on a connection of its own."""
    sync_bytes: int
    """What it is sent, with an empty revocation list."""
    entry_bytes: float
    """What one entry of the list adds to it."""
    push: float
    """Push, approval, judging and clearing of an application."""
    blob_bytes: float
    """What it brought to the store."""
    derived_bytes: float
    """What was derived from it: listing, facts, tree, root index, report, evidence."""
    rows: float
    """Its rows in the catalogue."""
    row_bytes: float
    """Their bytes, with indexes."""
    read_bytes: float
    """The record of one pull."""
    rejudge: float
    """To judge it again after new advisories."""
    revoke: float
    """To stop an image with the base that it stands on: seconds on the clock, in the transaction of the list."""
    told: float
    """From handing in a list until the registry serves it with its date: seconds on the clock."""


NAMES: Final = {
    "head": ("pull of an unchanged tag (HEAD)", 1e6, "µs of CPU"),
    "sync": ("sync of a host (trust, revocations, floors)", 1e6, "µs of CPU"),
    "sync_bytes": ("bytes of a sync, with an empty list", 1, "bytes"),
    "entry_bytes": ("… more for each entry of the list", 1, "bytes"),
    "push": ("push, approval, judging and clearing of an application", 1, "s of CPU"),
    "blob_bytes": ("its config and own layer in the store", 1, "bytes"),
    "derived_bytes": ("what is derived from it in the store", 1, "bytes"),
    "rows": ("its rows in the catalogue", 1, "rows"),
    "row_bytes": ("… with indexes", 1, "bytes"),
    "read_bytes": ("record of one pull (GET), with indexes", 1, "bytes"),
    "rejudge": ("judging it again after an import of advisories", 1, "s of CPU"),
    "revoke": ("stopping it with its base, in one transaction", 1e3, "ms"),
    "told": ("from a revocation until it is served, dated", 1e3, "ms"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumed:
    """What there is, and what is done with it; a machine is what one registry of several runs on."""

    images: int
    hosts: int
    sync_every: float
    """Seconds between two syncs of a host on which something runs (runtime/watch.py); here, on all."""
    tags: int = 20
    """Tags that each host asks for once an hour: an orchestrator does, pratique itself does not."""
    pulls: int = 5
    """Images that each host pulls a day, because they changed."""
    new: float = 0.01
    """The part of the images that is pushed anew each day."""
    renew: float = 84 * 3600.0
    """Seconds after which a clearance is renewed, by a judgement (policies/default.yaml)."""
    imports: int = 1
    """Imports of advisories a day, after each of which all images are judged again."""
    entries: int = 10_000
    """Entries of the revocation list."""
    on_one_base: float = 0.1
    """The part of the images that stands on the most common base."""
    processors: int = 16
    gigabits: float = 10.0


DAY: Final = 86_400.0
STATEMENT: Final = 60.0
"""Seconds that one transaction may well take: what others wait for it (registry/catalogue/engines.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Something that is needed, as a share of what a machine has, and what takes its place where it is too little."""

    name: str
    sum: str
    share: float
    instead: str


def carried(how: Assumed, units: Units) -> str:
    """Two tables and the verdict, in Markdown."""
    parts = sorted(_parts(how, units), key=lambda part: -part.share)
    assumed = (
        f"{how.images:,} images and {how.hosts:,} hosts. On every host something runs, so it syncs every "
        f"{how.sync_every:.0f} s; it asks for {how.tags} tags an hour, and pulls {how.pulls} images a day. A day "
        f"brings {how.new * how.images:,.0f} images and {how.imports} import of advisories; a clearance is renewed "
        f"after {how.renew / 3600:.0f} h. The revocation list has {how.entries:,} entries. A machine has "
        f"{how.processors} processors and {how.gigabits:.0f} Gbit/s."
    )
    found = [
        assumed,
        table(["", "arithmetic", "comes to"], [list(row) for row in _sums(how, units)]),
        "As a share of one machine, the largest first:",
        table(["part", "arithmetic", "machines"], [[each.name, each.sum, f"{each.share:.3g}"] for each in parts]),
        f"**First to give way: {parts[0].name}.** {parts[0].instead}",
        *(f"Then {part.name}: {part.instead}" for part in parts[1:3]),
    ]
    return "\n\n".join(found) + "\n"


def _sums(how: Assumed, units: Units) -> list[tuple[str, str, str]]:
    syncs = how.hosts / how.sync_every
    size = units.sync_bytes + how.entries * units.entry_bytes
    records = how.hosts * how.pulls
    return [
        ("syncs", f"{how.hosts:,} / {how.sync_every:.0f} s", f"{syncs:,.0f}/s, {3 * syncs:,.0f} requests/s"),
        (
            "bytes of one sync",
            f"{units.sync_bytes:,} + {how.entries:,} x {units.entry_bytes:.1f}",
            f"{size / 1e6:,.2f} MB",
        ),
        ("unchanged tags", f"{how.hosts:,} x {how.tags} / 3600 s", f"{how.hosts * how.tags / 3600:,.0f} requests/s"),
        ("pulls", f"{how.hosts:,} x {how.pulls} / day", f"{records / DAY:,.1f}/s"),
        ("renewals", f"{how.images:,} / {how.renew:,.0f} s", f"{how.images / how.renew:,.1f} judgements/s"),
        ("rows of images", f"{how.images:,} x {units.rows:.1f}", f"{how.images * units.rows / 1e6:,.0f} million rows"),
        (
            "their bytes in the catalogue",
            f"{how.images:,} x {units.row_bytes:,.0f}",
            f"{how.images * units.row_bytes / 1e9:,.0f} GB",
        ),
        (
            "records of pulls, a year",
            f"{records:,} x 365 x {units.read_bytes:.0f}",
            f"{records * 365 * units.read_bytes / 1e9:,.0f} GB",
        ),
        (
            "derived objects in the store",
            f"{how.images:,} x {units.derived_bytes:,.0f}",
            f"{how.images * units.derived_bytes / 1e12:,.2f} TB",
        ),
        (
            "all judged again, after an import",
            f"{how.images:,} x {units.rejudge:.3f} s",
            f"{how.images * units.rejudge / 3600:,.0f} hours of one processor",
        ),
        (
            "a revocation is known to every host",
            f"{units.told:.2f} s + at most {how.sync_every:.0f} s",
            f"{units.told + how.sync_every:.1f} s, half of them within {units.told + how.sync_every / 2:.1f} s",
        ),
        (
            "… and stopped here, with a common base",
            f"{how.on_one_base * how.images:,.0f} x {units.revoke * 1e3:.2f} ms",
            f"{how.on_one_base * how.images * units.revoke:,.0f} s, in one transaction",
        ),
    ]


def _parts(how: Assumed, units: Units) -> list[Part]:
    syncs = how.hosts / how.sync_every
    size = units.sync_bytes + how.entries * units.entry_bytes
    heads = how.hosts * how.tags / 3600
    judged = how.images / how.renew + how.images * (how.imports + how.new) / DAY
    stopped = how.on_one_base * how.images * units.revoke
    return [
        Part(
            name="sending the revocation list to hosts that have it",
            sum=f"{syncs:,.0f}/s x {size * 8 / 1e6:,.2f} Mbit / {how.gigabits:.0f} Gbit/s",
            share=syncs * size * 8 / (how.gigabits * 1e9),
            instead="The list is the same for all hosts, signed, numbered and dated, and no host believes an older "
            "one. So any cache may hold it: one for each site, which asks the registry once in `sync_every`, and is "
            "asked by its hosts. A host that named the number that it has would be sent the date alone.",
        ),
        Part(
            name="answering hosts' syncs",
            sum=f"{syncs:,.0f}/s x {units.sync * 1e6:,.0f} us / {how.processors} processors",
            share=syncs * units.sync / how.processors,
            instead="Web processes keep no state: more registries behind a load balancer, on one PostgreSQL and one "
            "bucket; or the cache of each site, as for the list.",
        ),
        Part(
            name="answering for unchanged tags",
            sum=f"{heads:,.0f}/s x {units.head * 1e6:,.0f} us / {how.processors} processors",
            share=heads * units.head / how.processors,
            instead="More registries behind a load balancer.",
        ),
        Part(
            name="judging again: renewals, imports, pushes",
            sum=f"{judged:,.1f}/s x {units.rejudge:.3f} s / {how.processors} processors",
            share=judged * units.rejudge / how.processors,
            instead="Judges share one queue and one advisory snapshot: `judge.workers`, and more registries. An import "
            "that touches few packages should judge only the images that have them; today it judges all.",
        ),
        Part(
            name="one transaction that stops all images on a common base",
            sum=f"{how.on_one_base * how.images:,.0f} x {units.revoke * 1e3:.2f} ms / {STATEMENT:.0f} s",
            share=stopped / STATEMENT,
            instead="Hosts learn of the list as soon as it is taken; what stands on the base would be moved to "
            "`revoked` by the queue, a thousand a transaction, and until then be refused by a look at the list.",
        ),
    ]
