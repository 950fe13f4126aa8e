"""How the cost of lists, garbage collection and single look-ups grows with what a registry holds, on both databases.

    python -m benchmarks.growth [--sizes 1000,10000,100000] [--database sqlite|postgresql]... [--docs]

Three registries are filled (tests/support/crowd.py) with 1,000, 10,000 and 100,000 manifests: half are images in one
repository, each with a tag; a quarter are artifacts about one image; a quarter are in as many repositories. What is an
endpoint is asked over HTTP of the web process; the collector runs as its process runs it, with a twentieth that is
litter: as many untagged images, and blobs that nothing needs. Lists are read whole, page by page, until their end.

What filling leaves to be done later (statistics, a checkpoint, pages for the disk) is done before anything is measured,
and all looks are asked some times before any is measured. The registries are then asked in turn: what else the machine
does meets all sizes alike. PostgreSQL has 512 MB of buffers, as a server for so much would.

The exponent is the slope of cost over size, both as logarithms: 0 does not grow, 1 is linear. For what is whole it is
that of the last step, where fixed costs hide the least. `--docs` writes docs/growth.md's table and docs/growth.svg.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from itertools import count
from pathlib import Path

from benchmarks.load.written import DOCS, table, where, write_between
from ocispec.descriptor import MediaType
from registry.catalogue.database import Catalogue
from registry.catalogue.locks import Lock, hold
from registry.catalogue.rules import put_rule
from registry.collect.collector import collect_now
from registry.collect.report import Reason
from registry.collect.retention import Retention
from registry.rules import Kind, Rule
from registry.settings_collect import CollectSettings
from registry.store.files import FilesStore
from tests.support import crowd
from tests.support.crowd import Crowd
from tests.support.postgres import Postgres, postgres
from tests.support.registry import LiveRegistry, make_registry

SIZES = (1000, 10_000, 100_000)
DATABASES = ("sqlite", "postgresql")
TIMES = 100
"""Requests of each look-up; the figure is their median."""

WARM = 25
"""Rounds of all look-ups before the first is measured: connections, prepared statements, caches."""

LIST_TIMES = 5
"""How often each list is read; the figure is the median. The collector runs once: then there is no litter left."""

LINEAR = 1.15
FLAT = 0.1
WRITTEN = 0.2
"""The largest exponents that are called linear and constant: the rest is noise, and the depth of a tree (n log n has
1.1 from 10,000 to 100,000); more of it where rows are written to many trees, and synced."""

WRITES = frozenset({"mount of a blob", "push of a manifest"})

AGE = timedelta(days=30)
NOW = datetime.now(UTC).replace(microsecond=0)


class Client:
    """One kept connection, as one account."""

    def __init__(self, live: LiveRegistry, account: str) -> None:
        """Connect."""
        self._connection = HTTPConnection("127.0.0.1", live.port, timeout=120)
        self._headers = live.header(account)

    def ask(self, method: str, path: str, status: int, body: bytes | None = None, kind: str = "") -> str:
        """One request, which must be answered so; returns the path of the next page, if one is named."""
        headers = self._headers | ({"Content-Type": kind} if kind else {})
        self._connection.request(method, path, body=body, headers=headers)
        answer = self._connection.getresponse()
        content = answer.read()
        assert answer.status == status, f"{method} {path}: {answer.status} {content[:500]!r}"
        return (answer.getheader("Link") or "").partition(">")[0].lstrip("<")

    def whole(self, path: str) -> int:
        """Read a list to its end; returns how many pages it had."""
        pages = 1
        while path := self.ask("GET", path, 200):
            pages += 1
        return pages

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@dataclass(slots=True)
class Registry:
    """A registry that runs, over a crowd."""

    live: LiveRegistry
    catalogue: Catalogue
    filled: Crowd
    pusher: Client
    host: Client
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def some(self) -> int:
        """The number of one image or another."""
        return next(self.numbers) * 7919 % crowd.tagged(self.filled.size)

    def tagged(self, rest: str) -> str:
        """A path in the repository of all images."""
        return f"/v2/{crowd.TAGGED}/{rest}"

    def referrers(self, rest: str = "") -> str:
        """The path of a list of referrers."""
        return f"/v2/{crowd.SUBJECT}/referrers/{crowd.SUBJECT_IMAGE.digest}{rest}"


# ---- what is measured -----------------------------------------------------------------------------------------------

MIDDLE = "sha256:8" + "0" * 63


def _blob(registry: Registry, place: int) -> str:
    return crowd.digest(crowd.image(f"image {registry.some}").reached[place][2])


def _push(registry: Registry) -> None:
    number = next(registry.numbers)
    members = json.loads(crowd.image(f"image {registry.some}").raw)
    raw = json.dumps({**members, "annotations": {"number": str(number)}}).encode()
    registry.pusher.ask("PUT", registry.tagged(f"manifests/new-{number}"), 201, raw, MediaType.OCI_MANIFEST)


def _mount(registry: Registry) -> None:
    target = f"/v2/crowd/mounted-{next(registry.numbers) % 50}/blobs/uploads/"
    registry.pusher.ask("POST", f"{target}?mount={_blob(registry, 0)}&from={crowd.TAGGED}", 201)


Look = Callable[[Registry], object]

LOOKS: dict[str, Look] = {
    "manifest by tag, host": lambda it: it.host.ask("GET", it.tagged(f"manifests/{crowd.tag(it.some)}"), 200),
    "manifest by digest, host": lambda it: it.host.ask(
        "GET", it.tagged(f"manifests/{crowd.image(f'image {it.some}').digest}"), 200
    ),
    "HEAD of a blob, host": lambda it: it.host.ask("HEAD", it.tagged(f"blobs/{_blob(it, 2)}"), 200),
    "HEAD of the layer that all images share, host": lambda it: it.host.ask(
        "HEAD", it.tagged(f"blobs/{_blob(it, 1)}"), 200
    ),
    "mount of a blob": _mount,
    "push of a manifest": _push,
    "page of 100 tags": lambda it: it.pusher.ask("GET", it.tagged(f"tags/list?n=100&last={crowd.tag(it.some)}"), 200),
    "page of 100 tags, host": lambda it: it.host.ask(
        "GET", it.tagged(f"tags/list?n=100&last={crowd.tag(it.some)}"), 200
    ),
    "page of 50 referrers": lambda it: it.pusher.ask("GET", it.referrers(f"?n=50&last={MIDDLE}"), 200),
    "page of 2 referrers of a rare type": lambda it: it.pusher.ask(
        "GET", it.referrers(f"?n=2&artifactType={crowd.RARE_TYPE}"), 200
    ),
    "page of 100 repositories": lambda it: it.pusher.ask("GET", "/v2/_catalog?n=100", 200),
}
"""Single look-ups and pages: milliseconds, each of which must stay as it is."""

LISTS: dict[str, Look] = {
    "all tags": lambda it: it.pusher.whole(it.tagged("tags/list")),
    "all tags, host": lambda it: it.host.whole(it.tagged("tags/list")),
    "all referrers": lambda it: it.pusher.whole(it.referrers()),
    "all repositories": lambda it: it.pusher.whole("/v2/_catalog"),
    "garbage collection, dry": lambda it: _collect(it, dry=True),
    "garbage collection": lambda it: _collect(it, dry=False),
}
"""What goes through everything: seconds, which may grow as what there is, and no faster."""


def _collect(registry: Registry, *, dry: bool) -> None:
    store = FilesStore(registry.live.settings.store_folder)
    run = collect_now(registry.catalogue, store, CollectSettings(), clock=_later, dry=dry)
    litter = registry.filled.littered
    assert run.tally.count(Reason.UNTAGGED) == litter, run.tally.summary()
    assert run.tally.count(Reason.NOT_NEEDED) >= litter, run.tally.summary()  # and what was mounted above
    assert not run.tally.left, run.tally.summary()
    if not dry:
        registry.filled.littered = 0
        registry.filled.collected += litter


def _later() -> datetime:
    """When the files that were just made are old, too."""
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)


@dataclass(slots=True)
class Figures:
    """What was measured on one database: for each look or list, one figure a size."""

    looks: dict[str, list[float]] = field(default_factory=dict)
    lists: dict[str, list[float]] = field(default_factory=dict)

    def take(self, registries: Sequence[Registry]) -> None:
        """Measure all, of each size in turn."""
        for registry in registries:
            for client in (registry.pusher, registry.host):
                client.close()  # the registry closed it while the others were filled; the next request opens one
        for look in list(LOOKS.values()) * WARM:
            for registry in registries:
                look(registry)
        for name, look in LOOKS.items():
            self.looks[name] = _medians(registries, look, TIMES)
            print(f"  {name}: {', '.join(f'{cost * 1000:.2f}' for cost in self.looks[name])} ms", flush=True)
        for name, each in LISTS.items():
            self.lists[name] = _medians(registries, each, 1 if name.startswith("garbage") else LIST_TIMES)
            print(f"  {name}: {', '.join(f'{cost:.3f}' for cost in self.lists[name])} s", flush=True)


def _medians(registries: Sequence[Registry], look: Look, times: int) -> list[float]:
    """The median of each, in seconds."""
    rounds = [[_seconds(registry, look) for registry in registries] for _ in range(times)]
    return [statistics.median(costs) for costs in zip(*rounds, strict=True)]


def _seconds(registry: Registry, look: Look) -> float:
    begun = time.perf_counter()
    look(registry)
    return time.perf_counter() - begun


# ---- the registry ---------------------------------------------------------------------------------------------------


@contextmanager
def running(server: Postgres | None) -> Iterator[Registry]:
    """A registry on an empty catalogue: of that server, or SQLite."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="pratique-growth-", dir="/var/tmp"))
        stack.callback(shutil.rmtree, folder)
        live = make_registry(folder, http=None, **({"catalogue": server.empty()} if server is not None else {}))
        live.start()
        stack.callback(live.stop)
        catalogue = live.catalogue()
        stack.callback(catalogue.close)
        with catalogue.write() as conn:
            hold(conn, Lock.RULES)
            kept = Retention.from_json({"untagged": "7d"}, what="rule")
            put_rule(
                conn,
                Rule(pattern=crowd.LITTER, kind=Kind.RETENTION, value=kept, changed=NOW, changed_by="benchmark"),
            )
        made = Crowd(catalogue, NOW - AGE, live.settings.store_folder)
        pusher, host = (stack.enter_context(closing(Client(live, account))) for account in ("pusher", "host"))
        yield Registry(live, catalogue, made, pusher, host)


def measure(database: str, sizes: Sequence[int]) -> Figures:
    """All figures of one database."""
    figures = Figures()
    with ExitStack() as stack:
        begun = time.monotonic()
        server = stack.enter_context(postgres(shared_buffers="512MB")) if database == "postgresql" else None
        registries = [stack.enter_context(running(server)) for _ in sizes]
        for registry, size in zip(registries, sizes, strict=True):
            registry.filled.grow(size)
            registry.filled.litter(size // 20)
            registry.filled.settle()
        if server is not None:
            server.admin("CHECKPOINT")
        os.sync()
        filled = time.monotonic()
        figures.take(registries)
        took = time.monotonic() - filled
        print(f"{database}: filled in {filled - begun:.0f} s, measured in {took:.0f} s", flush=True)
    return figures


# ---- what came of it ------------------------------------------------------------------------------------------------


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """The slope of cost over size, both as logarithms: by least squares."""
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    return statistics.linear_regression(x, y).slope


def rows(sizes: Sequence[int], found: dict[str, Figures]) -> tuple[list[list[str]], list[str]]:
    """The rows of the table, and what grows faster than it may."""
    made: list[list[str]] = []
    grown: list[str] = []
    for whole in (False, True):
        for name in LISTS if whole else LOOKS:
            for database, figures in found.items():
                costs = (figures.lists if whole else figures.looks)[name]
                last = 2 if whole else len(sizes)
                slope = exponent(sizes[-last:], costs[-last:])
                limit = LINEAR if whole else WRITTEN if name in WRITES else FLAT
                unit, factor = ("s", 1.0) if whole else ("ms", 1000.0)
                shown = [f"{cost * factor:.3g} {unit}" for cost in costs]
                made.append([name, database, *shown, f"{slope:.2f}"])
                if slope > limit:
                    grown.append(f"{name} on {database}: exponent {slope:.2f}, want at most {limit}")
    return made, grown


def plot(path: Path, sizes: Sequence[int], found: dict[str, Figures]) -> None:
    """Both kinds as logarithms, with a line that is linear."""
    import matplotlib as mpl  # noqa: PLC0415 -- a second of imports, for --docs alone

    mpl.use("svg")
    from matplotlib import pyplot  # noqa: PLC0415

    mpl.rcParams["svg.hashsalt"] = "growth"
    figure, panels = pyplot.subplots(1, 2, figsize=(12, 7), layout="constrained")
    for panel, title, unit in ((panels[0], "one look-up or page", "ms"), (panels[1], "all of it", "s")):
        whole = unit == "s"
        for number, name in enumerate(LISTS if whole else LOOKS):
            for database, figures in found.items():
                costs = (figures.lists if whole else figures.looks)[name]
                values = [cost * (1 if whole else 1000) for cost in costs]
                style = "-o" if database == "sqlite" else "--s"
                panel.loglog(
                    sizes,
                    values,
                    style,
                    color=mpl.colormaps["tab20"](number),
                    markersize=4,
                    label=name if style == "-o" else None,
                )
        low = panel.get_ylim()[0]
        panel.loglog(sizes, [low * size / sizes[0] for size in sizes], ":", color="grey", label="linear")
        panel.set(title=title, xlabel="manifests", ylabel=unit)
        panel.grid(visible=True, alpha=0.3)
        panel.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    figure.suptitle("SQLite: lines; PostgreSQL: dashes")
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    """Measure, print, and exit 1 if something grows faster than it may."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="manifests, at least two numbers")
    parser.add_argument("--database", action="append", choices=DATABASES, help="on this one; may be repeated")
    parser.add_argument("--docs", action="store_true", help="write docs/growth.md and docs/growth.svg")
    arguments = parser.parse_args()
    sizes = [int(text) for text in arguments.sizes.split(",")]
    machine = where()
    print(machine, flush=True)
    found = {database: measure(database, sizes) for database in arguments.database or DATABASES}
    lines, grown = rows(sizes, found)
    made = table(["", "database", *(f"{size:,}" for size in sizes), "exponent"], lines)
    print(f"\n{made}\n")
    for line in grown:
        print(f"MISSED  {line}")
    print(f"{len(lines) - len(grown)} targets met, {len(grown)} missed")
    if arguments.docs:
        write_between(DOCS / "growth.md", "growth", f"Taken with {machine}.\n\n{made}\n")
        plot(DOCS / "growth.svg", sizes, found)
    return 1 if grown else 0


if __name__ == "__main__":
    raise SystemExit(main())
