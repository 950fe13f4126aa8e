"""What one image, one pull, one host and one revocation cost; and what a million images and 100,000 hosts come to.

    python -m benchmarks.units [--database sqlite|postgresql]... [--docs]
    python -m benchmarks.units --scale [--images N] [--hosts N] [--docs]

A whole registry, with everything on, is given images as builds make them: a base of a hundred Debian packages, and on
it applications with a layer of their own, each approved, judged and cleared. Processor seconds are of all processes of
the registry. What depends on how many there are (a judgement after new advisories, rows, bytes) is the difference
between FEW and ALL images, divided by their number, so that what is there once is left out.

`--scale` carries the figures on, by the arithmetic that it prints. `--docs` writes the tables of docs/scale.md.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from http.client import HTTPConnection
from pathlib import Path

from sqlalchemy import Connection, func, or_, select, text

from benchmarks.carried import NAMES, Assumed, Units, carried
from benchmarks.load import servers, small
from benchmarks.load.costs import cpu_seconds
from benchmarks.load.servers import ACCEPT, Ours
from benchmarks.load.written import DOCS, table, where, write_between
from ocispec.digest import Digest
from policy import dsse, wire
from policy.statements import ListDate, RevocationList
from registry.catalogue import schema
from runtime.watch import Watcher
from tests.support.images import BuiltImage, image, tar
from tests.support.live import now
from tests.support.packages import Deb, dpkg_files, os_release
from tests.support.postgres import postgres

DATABASES = ("sqlite", "postgresql")
FEW, ALL = 6, 24
"""Applications that are pushed before and after the figures that others are taken off."""

REPOSITORY = "shop/web"
SYNCS, HEADS_SECONDS, REVOCATIONS = 200, 3, 5
ENTRIES = 1000
"""Entries of the list by which the bytes of one are measured."""

SYNC_PATHS = ("/api/v1/trust", "/api/v1/revocations", "/api/v1/floors")
"""What a host asks for (runtime/host.py, sync)."""

WAIT_SECONDS = 120.0


# ---- images ---------------------------------------------------------------------------------------------------------


def base_image() -> BuiltImage:
    """A base of a hundred packages with twenty files each."""
    debs = [
        Deb(
            name=f"package-{number}",
            version=f"1.{number}-1",
            files={f"usr/lib/package-{number}/{each}": _content(number, each) for each in range(20)},
        )
        for number in range(100)
    ]
    return image([tar({"bin/": b"", "bin/sh": b"#!", **os_release(), **dpkg_files(debs)})])


def application(base: BuiltImage, number: int) -> BuiltImage:
    """An application of two hundred files, 1 MB, on the base; no two are the same."""
    files = {f"srv/app/{each}": _content(number, each) for each in range(200)}
    return image([tar({"srv/": b"", "srv/app/": b"", **files, "srv/app/number": b"%d" % number})], parent=base)


def _content(number: int, each: int) -> bytes:
    """Five kilobytes that pack to about a third, as programs do."""
    seed = Digest.of(b"%d %d" % (number, each)).hex
    return (seed * 80).encode()[: 5000 - each] + bytes.fromhex(seed) * 40


# ---- a registry that is measured ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Site:
    """A registry with what was pushed to it."""

    ours: Ours
    base: BuiltImage
    pushed: int = 0

    @property
    def cpu(self) -> float:
        """Processor seconds so far."""
        return cpu_seconds(self.ours.pid)

    def push(self, until: int) -> None:
        """Push and approve applications, and wait until all are cleared."""
        live = self.ours.live
        made = [application(self.base, number) for number in range(self.pushed, until)]
        for number, built in enumerate(made, self.pushed):
            live.push(REPOSITORY, built, f"v{number}")
            live.approve(REPOSITORY, built, "application", live.ring.team)
        for built in made:
            live.until(REPOSITORY, built.digest, "cleared", seconds=WAIT_SECONDS)
        self.pushed = until
        self.settle()

    def settle(self) -> None:
        """Wait until the judge has nothing to do."""
        due = schema.jobs.c
        catalogue = self.ours.live.catalogue()
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            with catalogue.read() as conn:
                busy = or_(due.not_before <= now(), due.claimed_by != "")
                left = conn.scalar(select(func.count()).where(busy, due.kind.in_(["judge", "rejudge", "advisories"])))
            if not left:
                break
            assert time.monotonic() < deadline, f"{left} jobs are left"
            time.sleep(0.1)
        catalogue.close()

    def advise(self, name: str) -> float:
        """Import new advisories; processor seconds until everything is judged again."""
        before = self.cpu
        record = {
            "id": f"DEBIAN-CVE-2026-{name}",
            "modified": "2026-06-01T00:00:00Z",
            "published": "2026-06-01T00:00:00Z",
            "affected": [
                {
                    "package": {"ecosystem": "Debian:13", "name": f"elsewhere-{name}"},
                    "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9"}]}],
                }
            ],
        }
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(f"{record['id']}.json", json.dumps(record))
        query = "kind=osv&name=osv%20Debian:13"
        status, answer = self.ours.live.api(
            "POST", f"/api/v1/advisories?{query}", account="scanner", body=packed.getvalue()
        )
        assert status == 202, answer
        judged = schema.images.c.judged
        begun, catalogue = now(), self.ours.live.catalogue()
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            with catalogue.read() as conn:
                left = conn.scalar(select(func.count()).where(or_(judged.is_(None), judged < begun)))
            if not left:
                break
            assert time.monotonic() < deadline, f"{left} images were not judged again"
            time.sleep(0.1)
        catalogue.close()
        self.settle()
        return self.cpu - before

    def stored(self) -> tuple[int, int]:
        """Bytes of blobs, and of what is derived."""
        root = self.ours.live.settings.store_folder
        return _size(root / "blobs"), _size(root / "derived")

    def catalogued(self) -> tuple[int, int]:
        """Rows, and bytes of them with their indexes."""
        catalogue = self.ours.live.catalogue()
        with catalogue.read() as conn:
            rows = sum(
                conn.scalar(select(func.count()).select_from(each)) or 0 for each in schema.metadata.sorted_tables
            )
            size = _database_size(conn)
        catalogue.close()
        return rows, size


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _database_size(conn: Connection) -> int:
    if conn.dialect.name == "postgresql":
        sizes = "SELECT sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables"
        return int(conn.scalar(text(sizes)) or 0)
    pages, free, size = (conn.scalar(text(f"PRAGMA {name}")) for name in ("page_count", "freelist_count", "page_size"))
    assert pages is not None
    return int((pages - (free or 0)) * (size or 0))


@contextmanager
def site(database: str) -> Iterator[Site]:
    """A registry with a cleared base."""
    with ExitStack() as stack:
        url = stack.enter_context(postgres()).empty() if database == "postgresql" else ""
        ours = stack.enter_context(servers.ours(catalogue=url))
        live, it = ours.live, Site(ours, base_image())
        it.advise("0")
        base = it.base
        live.push("shop/base", base, "1")
        live.approve("shop/base", base, "base", live.ring.alice, live.ring.bob)
        live.until("shop/base", base.digest, "cleared", seconds=WAIT_SECONDS)
        yield it


# ---- the units ------------------------------------------------------------------------------------------------------


def measure(database: str) -> Units:
    """All units on one database."""
    with site(database) as it:
        it.push(FEW)
        first = it.advise("1")
        blobs, derived = it.stored()
        rows, size = it.catalogued()
        before = it.cpu
        it.push(ALL)
        pushed = it.cpu - before
        more = ALL - FEW
        blobs_now, derived_now = it.stored()
        rows_now, size_now = it.catalogued()
        second = it.advise("2")
        head = _head_cost(it)
        sync, sync_bytes = _sync_cost(it)
        read_bytes = _read_cost(it)
        told, number = _telling(it)
        many = tuple(Digest.of(b"entry %d" % each) for each in range(ENTRIES))
        it.ours.live.revoke(number + 1, digests=many)
        _until_served(it, number + 1)
        _, long_bytes = _sync_cost(it)
        revoke = _revoke_cost(it, number + 2)
    return Units(
        head=head,
        sync=sync,
        sync_bytes=sync_bytes,
        entry_bytes=(long_bytes - sync_bytes) / ENTRIES,
        push=pushed / more,
        blob_bytes=(blobs_now - blobs) / more,
        derived_bytes=(derived_now - derived) / more,
        rows=(rows_now - rows) / more,
        row_bytes=(size_now - size) / more,
        read_bytes=read_bytes,
        rejudge=(second - first) / more,
        revoke=revoke,
        told=told,
    )


def _head_cost(it: Site) -> float:
    lines = [ACCEPT, *it.ours.basic("host")]
    before = it.cpu
    sample = small.heads(it.ours.port, f"/v2/{REPOSITORY}/manifests/v1", lines, connections=16, seconds=HEADS_SECONDS)
    assert not sample.failed
    return (it.cpu - before) / sample.requests


def _sync_cost(it: Site) -> tuple[float, int]:
    """Processor seconds and bytes of one sync."""
    headers = it.ours.live.header("host")
    sizes = []
    before = it.cpu
    for _ in range(SYNCS):
        connection = HTTPConnection("127.0.0.1", it.ours.port, timeout=60)
        size = 0
        for path in SYNC_PATHS:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            assert answer.status == 200
            size += len(answer.read()) + sum(len(name) + len(value) + 4 for name, value in answer.getheaders())
        connection.close()
        sizes.append(size)
    return (it.cpu - before) / SYNCS, round(statistics.median(sizes))


def _read_cost(it: Site) -> float:
    """Bytes that the record of one pull takes."""
    times = 2000
    headers = it.ours.live.header("host") | {"Accept": "*/*"}
    _, before = it.catalogued()
    connection = HTTPConnection("127.0.0.1", it.ours.port, timeout=60)
    for number in range(times):
        connection.request("GET", f"/v2/{REPOSITORY}/manifests/v{number % ALL}", headers=headers)
        assert connection.getresponse().read()
    connection.close()
    time.sleep(3)  # records are written within a second
    _, after = it.catalogued()
    return (after - before) / times


def _telling(it: Site) -> tuple[float, int]:
    """Seconds from a list until it is served with its date; and the number of the last list."""
    taken = []
    for number in range(2, 2 + REVOCATIONS):
        begun = time.perf_counter()
        it.ours.live.revoke(number, digests=(Digest.of(b"revoked %d" % number),))
        _until_served(it, number)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken), 1 + REVOCATIONS


def _until_served(it: Site, number: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        status, answer = it.ours.live.api("GET", "/api/v1/revocations", account="host")
        assert status == 200
        assert isinstance(answer, dict)
        if answer["date"] is not None and _number(answer["list"]) == _number(answer["date"]) == number:
            return
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _number(envelope: object) -> int:
    said = wire.decode(dsse.parse(json.dumps(envelope).encode(), what="envelope").payload, what="statement")
    assert isinstance(said, RevocationList | ListDate)
    return said.number


def _revoke_cost(it: Site, number: int) -> float:
    """Seconds that each image takes that stands on a base, in the transaction that revokes it."""
    live = it.ours.live
    alone = statistics.median(_taking(it, number + each, Digest.of(b"%d" % each)) for each in range(REVOCATIONS))
    took = _taking(it, number + REVOCATIONS, it.base.digest)
    states = schema.images.c.state
    catalogue = live.catalogue()
    with catalogue.read() as conn:
        revoked = conn.scalar(select(func.count()).where(states == "revoked"))
    catalogue.close()
    assert revoked == ALL + 1, f"{revoked} images are revoked, expected {ALL + 1}"
    return max(took - alone, 0) / (ALL + 1)


def _taking(it: Site, number: int, digest: Digest) -> float:
    """Seconds in which a list of one entry is taken."""
    begun = time.perf_counter()
    it.ours.live.revoke(number, digests=(digest,))
    return time.perf_counter() - begun


# ---- what came of it ------------------------------------------------------------------------------------------------


def shown(found: dict[str, Units]) -> str:
    """The table of units."""
    rows = []
    for each in fields(Units):
        name, factor, unit = NAMES[each.name]
        values = [getattr(units, each.name) * factor for units in found.values()]
        rows.append([name, *(f"{value:,.0f}" if value >= 100 else f"{value:.2f}" for value in values), unit])
    return table(["", *found, ""], rows)


def main() -> int:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--database", action="append", choices=DATABASES, help="on this one; may be repeated")
    parser.add_argument("--scale", action="store_true", help="carry the figures on, PostgreSQL's if they are there")
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--hosts", type=int, default=100_000)
    parser.add_argument("--docs", action="store_true", help="write the tables of docs/scale.md")
    arguments = parser.parse_args()
    machine = where()
    print(machine, flush=True)
    found: dict[str, Units] = {}
    for database in arguments.database or DATABASES:
        found[database] = measure(database)
        print(f"{database}: done", flush=True)
    made = shown(found)
    print(f"\n{made}\n")
    far = ""
    if arguments.scale or arguments.docs:
        units = list(found.values())[-1]
        sync_every = next(each.default for each in fields(Watcher) if each.name == "sync_every")
        assert isinstance(sync_every, float)
        how = Assumed(images=arguments.images, hosts=arguments.hosts, sync_every=sync_every)
        far = carried(how, units)
        print(far)
    if arguments.docs:
        write_between(DOCS / "scale.md", "units", f"Taken with {machine}.\n\n{made}\n")
        write_between(DOCS / "scale.md", "scale", far)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
