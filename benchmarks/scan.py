"""Scanning: one pass over a Debian layer beside syft, and how the time grows with the number of components.

`python -m benchmarks.scan [LAYER.tar]`. Each tool is a whole process, runs alternate, and the median counts. syft runs
twice: as it comes, and with the two catalogers alone whose work ours does. Ours also matches advisories,
checks the package database against the files, and keeps the facts; syft does none of that.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from scanner.advisories.build import import_sources
from scanner.advisories.sources import sources_in
from scanner.inventory import inventory
from scanner.scan import scan
from tests.scanner.scanning import NOW, RECORDS, demo_store, scanned
from tests.support.debian import debian_layer
from tests.support.images import image, write_layout
from tests.support.packages import Deb, dpkg_files, os_release

ROUNDS = 5
SIZES = (100, 400, 1600, 6400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds of one run: on the clock, and of processor time, children included."""

    wall: float
    cpu: float


def measured(work: Callable[[], object]) -> Cost:
    """What `work` costs."""
    before, begun = _cpu(), time.perf_counter()
    work()
    return Cost(wall=time.perf_counter() - begun, cpu=_cpu() - before)


def _cpu() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def layouts(tar: Path, folder: Path) -> dict[str, Path]:
    """OCI layouts of an image with `tar` as its only layer, uncompressed and in gzip."""
    content = tar.read_bytes()
    return {
        name: write_layout(folder / name, [image([content], compression=name)], tag="bench")
        for name in ("none", "gzip")
    }


def ours(layout: Path, store: Path) -> Callable[[], object]:
    """One run of our scanner as a process."""
    return lambda: subprocess.run(
        [sys.executable, "-m", "benchmarks.scan_once", str(layout), str(store)], check=True, capture_output=True
    )


def syft(layout: Path, *arguments: str) -> Callable[[], object]:
    """One run of syft as a process."""
    path = Path(sys.executable).with_name("syft")
    environment = {**os.environ, "SYFT_CHECK_FOR_APP_UPDATE": "false"}
    command = [str(path), "scan", f"oci-dir:{layout}", "-q", "-o", "syft-json", *arguments]
    return lambda: subprocess.run(command, check=True, capture_output=True, env=environment)


def side_by_side(tools: dict[str, Callable[[], object]]) -> dict[str, Cost]:
    """The median cost of each tool, in alternating runs after one that warms the page cache."""
    runs: dict[str, list[Cost]] = {name: [] for name in tools}
    for round_number in range(ROUNDS + 1):
        for name, work in tools.items():
            cost = measured(work)
            if round_number:
                runs[name].append(cost)
    return {
        name: Cost(
            wall=statistics.median(cost.wall for cost in costs), cpu=statistics.median(cost.cpu for cost in costs)
        )
        for name, costs in runs.items()
    }


def report_side_by_side(title: str, costs: dict[str, Cost]) -> None:
    """Print each tool's median, and its ratio to the first."""
    print(f"\n{title}")
    first = next(iter(costs.values()))
    for name, cost in costs.items():
        print(
            f"  {name:<34} {cost.wall:7.3f} s  cpu {cost.cpu:7.3f} s"
            f"   x{cost.wall / first.wall:5.1f}  cpu x{cost.cpu / first.cpu:5.1f}"
        )


def growth(folder: Path) -> None:
    """The cost of an inventory and of judging it, by the number of packages."""
    print("\ngrowth: packages, then milliseconds for the inventory, for judging it, and both by package")
    with closing(demo_store(folder)) as store:
        for size in SIZES:
            debs = [
                Deb(name=f"package{n}", version=f"1.{n}-1", files={f"usr/lib/p{n}/{i}": b"%d" % n for i in range(9)})
                for n in range(size)
            ]
            made = scanned({**os_release(), **dpkg_files(debs)})
            taken = min(measured(lambda made=made: inventory(made.tree, made.facts)).wall for _ in range(3))  # type: ignore[misc]  # bound at once
            judged = min(measured(lambda made=made: scan(made.inventory, store, now=NOW)).wall for _ in range(3))  # type: ignore[misc]  # bound at once
            each = (taken + judged) / size * 1e6
            print(f"  {size:6d} {taken * 1e3:8.1f} {judged * 1e3:8.1f} {each:8.1f} µs")


def main(arguments: list[str]) -> None:
    """Run the benchmark."""
    with tempfile.TemporaryDirectory(prefix="pratique-bench-") as name:
        folder = Path(name)
        tar = Path(arguments[0]) if arguments else debian_layer()
        snapshot = import_sources(sources_in(RECORDS), folder / "store.db", now=NOW)
        for form, layout in layouts(tar, folder).items():
            tools = {"pratique": ours(layout, snapshot.path)}
            if shutil.which(str(Path(sys.executable).with_name("syft"))):
                tools["syft, all its catalogers"] = syft(layout)
                catalogers = "dpkg-db-cataloger,python-installed-package-cataloger"
                tools["syft, dpkg and Python alone"] = syft(layout, "--override-default-catalogers", catalogers)
            title = f"{tar.name}, {tar.stat().st_size / 1e6:.0f} MB, compression: {form}"
            report_side_by_side(title, side_by_side(tools))
        growth(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
