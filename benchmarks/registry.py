"""Our registry beside Debian's docker-registry, in one run, by turns: small requests, downloads, uploads, memory.

    python -m benchmarks.registry [--rounds N] [--seconds N] [--only PART]... [--docs]

Ours runs whole (keeper, signer, judge, web) with the settings that it is shipped with, and with everything on: access
control, quarantine and served-tag check, audit, scanning of what arrives. It is asked by a host, whose tag is cleared,
and by a pusher, with Basic and with a bearer token. The peer that the targets are about asks nobody for anything; for
small requests, it stands there with htpasswd and with tokens too. In each round everybody has a turn, in changing
order, and a ratio is the median of the rounds' ratios, so that a busy machine is busy for all. Before each upload,
the machine is brought to rest.

Ours acknowledges what is on the disk. The peer syncs the bytes that it is sent and not the folders in which it names
them, so its upload is over once these have been synced too; how fast it acknowledges stands beside. Memory is measured
as the registries were started, and again after all that load. `--docs` writes what is printed into
docs/registry-speed.md.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sqlalchemy import func, select

from benchmarks.load import large, servers, small
from benchmarks.load.costs import memory, watched
from benchmarks.load.machine import at_rest
from benchmarks.load.rounds import Measured, Report, Way, by_turns, median, ratio
from benchmarks.load.servers import ACCEPT, REPOSITORY, TAG, Ours, Peer, Peers, Server
from benchmarks.load.written import where, write_between
from ocispec.digest import Digest
from registry.audit import Event
from registry.catalogue import schema

MIB = 1024 * 1024
LARGE = 100 * MIB
MEMORY_UPLOAD = 1024 * MIB
PARTS = ("memory", "manifests", "heads", "downloads", "uploads", "after")
DOCS = Path(__file__).parents[1] / "docs/registry-speed.md"

TRANSFERS = 3
"""Rounds of transfers for each one of small requests: a turn of those is thousands of requests, a transfer is one."""

SMALL_RATIO = 5.0
LARGE_RATIO = 1.2
TAIL_RATIO = 1 / 3
MEMORY_MOST = 200
"""MiB of all processes together."""

Send = Callable[[large.Client, str, str, memoryview], None]


@dataclass(slots=True)
class Run:
    """The arguments of this run, who takes part in it, and what it has found; `answered` counts ours' GETs."""

    rounds: int
    seconds: int
    peer: Way
    others: tuple[Way, ...]
    readers: tuple[Way, ...]
    writers: tuple[Way, ...]
    blob: Digest
    report: Report = field(default_factory=Report)
    answered: int = 0

    def manifests(self) -> None:
        """Manifests by tag, by wrk."""
        path = f"/v2/{REPOSITORY}/manifests/{TAG}"

        def ask(way: Way, connections: int) -> small.Sample:
            sample = small.with_wrk(
                way.server.port, path, [ACCEPT, *way.lines], connections=connections, seconds=self.seconds
            )
            self.answered += sample.requests if isinstance(way.server, Ours) else 0
            return sample

        self._small("Manifest by tag", ask, tail=TAIL_RATIO)

    def heads(self) -> None:
        """HEAD of a blob, by our own generator."""
        path = f"/v2/{REPOSITORY}/blobs/{self.blob}"

        def ask(way: Way, connections: int) -> small.Sample:
            return small.heads(way.server.port, path, way.lines, connections=connections, seconds=self.seconds)

        self._small("HEAD of a blob", ask, tail=None)

    def _small(self, title: str, ask: Callable[[Way, int], small.Sample], *, tail: float | None) -> None:
        """Small requests at 16 and 64 connections; `tail` is the target of the 99th percentile at 64."""
        for connections in (16, 64):

            def measure(way: Way, connections: int = connections) -> Measured:
                sample = ask(way, connections)
                if sample.failed:
                    raise AssertionError(f"{way.name}: {sample.failed} of {sample.requests} requests failed")
                return Measured(value=sample.rate, requests=sample.requests, p50=sample.p50, p99=sample.p99)

            ways = (self.peer, *self.others, *self.readers)
            found = by_turns(ways, self.rounds, measure)
            print(f"\n{title}, {connections} connections: medians of {self.rounds} rounds of {self.seconds} s")
            print(f"  {'':<25}{'req/s':>8}{'p50 ms':>8}{'p99 ms':>8}{'CPU us':>8}{'x peer':>10}{'p99 : peer':>18}")
            for way in ways:
                each, base = found[way.name], found[self.peer.name]
                line = f"  {way.name:<25}{median(each, lambda one: one.value):8.0f}"
                line += f"{median(each, lambda one: one.p50):8.2f}{median(each, lambda one: one.p99):8.2f}"
                line += f"{median(each, lambda one: one.cpu / one.requests * 1e6):8.0f}"
                if isinstance(way.server, Ours):
                    what = f"{title} at {connections}, {way.name}"
                    line += "  " + self.report.at_least(what, ratio(each, base, lambda one: one.value), SMALL_RATIO)
                    worst = ratio(each, base, lambda one: one.p99)
                    wanted = tail is not None and connections == 64
                    line += "  " + (
                        self.report.at_most(f"p99, {what}", worst, TAIL_RATIO) if wanted else f"{worst:8.2f}"
                    )
                elif way is not self.peer:
                    line += f"{ratio(each, base, lambda one: one.value):10.2f}"
                print(line, flush=True)

    def downloads(self) -> None:
        """A blob of 100 MiB, alone and by eight at once."""
        path = f"/v2/{REPOSITORY}/blobs/{self.blob}"
        for streams in (1, 8):

            def take(way: Way, streams: int = streams) -> Measured:
                took = large.download(way.server.port, path, way.lines, streams=streams)
                self.answered += streams if isinstance(way.server, Ours) else 0
                return Measured(value=streams * LARGE / MIB / took)

            self._large(f"Download of 100 MiB, {streams} at once", (self.peer, *self.readers), take)

    def uploads(self) -> None:
        """Random blobs of 100 MiB, by each of the three ways."""
        for title, send in (
            ("PUT", large.Client.by_put),
            ("chunked PUT", large.Client.by_chunked_put),
            ("PATCH and PUT", large.Client.by_patch),
        ):
            upload = Upload(send=send)
            self._large(f"Upload of 100 MiB by {title}, on the disk", (self.peer, *self.writers), upload.take)
            unsynced = statistics.median(upload.acknowledged)
            print(f"  {'as acknowledged':<20}{LARGE / MIB / unsynced:8.0f}   (docker-registry, folders unsynced)")
            behind = [seconds for seconds in upload.behind if seconds]
            print(f"  {'read by the judge':<20}{statistics.median(behind) * 1000:8.0f} ms later")

    def _large(self, title: str, ways: Sequence[Way], take: Callable[[Way], Measured]) -> None:
        rounds = self.rounds * TRANSFERS
        found = by_turns(ways, rounds, take)
        print(f"\n{title}: medians of {rounds} rounds")
        print(f"  {'':<20}{'MiB/s':>8}{'CPU s':>8}{'x peer':>10}")
        for way in ways:
            each = found[way.name]
            line = f"  {way.name:<20}{median(each, lambda one: one.value):8.0f}{median(each, lambda one: one.cpu):8.2f}"
            if way is not self.peer:
                times = ratio(each, found[self.peer.name], lambda one: one.value)
                line += "  " + self.report.at_least(f"{title}, {way.name}", times, LARGE_RATIO)
            print(line, flush=True)

    def memory(self) -> None:
        """What all processes hold while 1 GiB goes up, to registries that have just been started."""
        self._memory("Memory of all processes (PSS) while 1 GiB goes up by PATCH and PUT, in MiB", wanted=True)

    def after(self) -> None:
        """The same after all else that was asked of them."""
        self._memory("The same after all of this", wanted=False)

    def _memory(self, title: str, *, wanted: bool) -> None:
        content = memoryview(servers.large_layer(MEMORY_UPLOAD))
        digest = Digest("sha256", hashlib.sha256(content).hexdigest())
        print(f"\n{title}")
        print(f"  {'':<20}{'before':>8}{'at most':>8}")
        for way in (self.peer, self.writers[0]):
            before = memory(way.server.pid)
            client = large.Client(way.server.port, way.lines)
            with watched(way.server.pid) as peak:
                client.by_patch(REPOSITORY, str(digest), content)
                scanned(way.server, digest)
            client.close()
            drop(way.server, digest)
            line = f"  {way.name:<20}{before / MIB:8.0f}{peak.bytes / MIB:8.0f}"
            if wanted and way is not self.peer:
                line += "  " + self.report.at_most("MiB of memory", peak.bytes / MIB, MEMORY_MOST)
            print(line, flush=True)


@dataclass(slots=True)
class Upload:
    """Uploads of layers that no registry has seen; `acknowledged` are the seconds until the peer said so,
    `behind` those after which ours had read what was sent."""

    send: Send
    block: bytearray = field(default_factory=lambda: servers.large_layer(LARGE))
    acknowledged: list[float] = field(default_factory=list)
    behind: list[float] = field(default_factory=list)

    def take(self, way: Way) -> Measured:
        """Upload one, until it is on the disk; and remove it again, or a run would leave gigabytes."""
        self.block[servers.LARGE_OFFSET : servers.LARGE_OFFSET + 32] = os.urandom(32)
        digest = Digest("sha256", hashlib.sha256(self.block).hexdigest())
        content = memoryview(self.block)
        body = large.chunked(content) if self.send is large.Client.by_chunked_put else content
        client = large.Client(way.server.port, way.lines)
        at_rest(2 * LARGE)
        begun = time.perf_counter()
        self.send(client, REPOSITORY, str(digest), body)
        if isinstance(way.server, Peer):
            self.acknowledged.append(time.perf_counter() - begun)
            way.server.sync(REPOSITORY, digest)
        took = time.perf_counter() - begun
        client.close()
        self.behind.append(scanned(way.server, digest))
        drop(way.server, digest)
        return Measured(value=LARGE / MIB / took)


def scanned(server: Server, digest: Digest) -> float:
    """Seconds until a layer that was sent has been read too: that goes on while it is sent, and for a while after."""
    begun = time.perf_counter()
    while isinstance(server, Ours) and not server.scanned(digest):
        assert time.perf_counter() - begun < 120, f"{digest} was not read"
        time.sleep(0.01)
    return time.perf_counter() - begun if isinstance(server, Ours) else 0.0


def drop(server: Server, digest: Digest) -> None:
    """Remove a blob's file."""
    if isinstance(server, Ours):
        server.drop(digest)
    elif isinstance(server, Peer):
        server.data_file(digest).unlink()


def recorded_reads(ours: Ours) -> int:
    """How many reads the audit has."""
    catalogue = ours.live.catalogue()
    with catalogue.read() as conn:
        found = conn.scalar(select(func.count()).where(schema.audit.c.event == str(Event.READ)))
    catalogue.close()
    return int(found or 0)


def prepare(peers: Peers, ours: Ours, rounds: int, seconds: int) -> Run:
    """Push the same content to both, have ours judge and clear it, and let everybody log in."""
    built = servers.sample_image(bytes(servers.large_layer(LARGE)))
    pusher, host = ours.basic("pusher"), ours.basic("host")
    peers.open.push(built, ())
    ours.push(built, pusher)
    servers.clear(ours.live, built)
    readers = [Way(name="host, Basic", server=ours, lines=host), Way(name="pusher, Basic", server=ours, lines=pusher)]
    writers = [Way(name="pusher, Basic", server=ours, lines=pusher)]
    for account, actions, ways in (("host", "pull", readers), ("pusher", "pull,push", writers)):
        ways.append(Way(name=f"{account}, Bearer", server=ours, log_in=partial(ours.bearer, account, actions)))
    return Run(
        rounds=rounds,
        seconds=seconds,
        peer=Way(name="docker-registry", server=peers.open),
        others=(
            Way(name="docker-registry, Basic", server=peers.htpasswd, lines=peers.htpasswd.lines),
            Way(name="docker-registry, Bearer", server=peers.token, lines=peers.token.lines),
        ),
        readers=tuple(readers),
        writers=tuple(writers),
        blob=built.layers[-1].descriptor.digest,
    )


def main() -> int:
    """Measure, print, and exit 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds, thrice for transfers (default 5)")
    parser.add_argument("--seconds", type=int, default=2, help="seconds of a turn of small requests (default 2)")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part; may be repeated")
    parser.add_argument("--docs", action="store_true", help="write docs/registry-speed.md")
    arguments = parser.parse_args()
    if not arguments.docs:
        return measure(arguments)
    said = Said()
    with redirect_stdout(said):
        code = measure(arguments)
    write_between(DOCS, "speed", f"```text\n{said.text.strip()}\n```")
    return code


class Said(io.TextIOBase):
    """What is printed, shown and kept."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.text = ""

    def write(self, text: str) -> int:
        """See `io.TextIOBase`."""
        self.text += text
        return sys.__stdout__.write(text) if sys.__stdout__ is not None else len(text)


def measure(arguments: argparse.Namespace) -> int:
    """Measure and print; the exit code."""
    with servers.peers() as peers, servers.ours() as ours:
        print(f"docker-registry {peers.open.version}; {where()}")
        run = prepare(peers, ours, arguments.rounds, arguments.seconds)
        for part in arguments.only or PARTS:
            getattr(run, part)()
        _check_audit(run, ours)
    for missed in run.report.missed:
        print(f"MISSED  {missed}")
    print(f"\n{run.report.met} targets met, {len(run.report.missed)} missed")
    return 1 if run.report.missed else 0


def _check_audit(run: Run, ours: Ours) -> None:
    """Every read that was answered must be in the audit."""
    deadline = time.monotonic() + 30
    while (recorded := recorded_reads(ours)) < run.answered and time.monotonic() < deadline:
        time.sleep(0.2)
    print(f"\nAudit: {run.answered} reads were answered, {recorded} are recorded")
    if recorded < run.answered:
        run.report.missed.append(f"audit: {run.answered - recorded} reads are not recorded")


if __name__ == "__main__":
    raise SystemExit(main())
