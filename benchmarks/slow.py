"""How long a healthy client waits beside very many slow ones, of our registry and of Debian's docker-registry.

    python -m benchmarks.slow [--counts 200,2000] [--docs]

The slow ones are idle, stop in the middle of a header or of a body, or ask for a large blob and do not read. All of
them stay while the healthy client opens a connection for each thing that it does: it asks for a manifest by its tag,
and pushes a small blob. Ours is asked by a host and a pusher; those who send half bodies, and those who do not read,
have accounts of their own, by tens, as no account may hold everything. The peer knows no accounts.

`--docs` writes the table of docs/growth.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.load import servers
from benchmarks.load.servers import ACCEPT, REPOSITORY, TAG, Ours, Server
from benchmarks.load.written import DOCS, table, where, write_between
from ocispec.digest import Digest

COUNTS = (200, 2000)
MOST = 0.1
"""Seconds that a healthy client waits at the median, at most."""

GETS, PUSHES = 100, 30
LARGE = 32 * 1024 * 1024
SPARE = 200
"""Descriptors that a process needs beside those of slow clients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A registry, and who asks it: the header lines of the healthy client, and those of slow ones in turn."""

    name: str
    server: Server
    reader: Sequence[str]
    pusher: Sequence[str]
    slow_readers: Sequence[Sequence[str]]
    slow_pushers: Sequence[Sequence[str]]
    blob: Digest


def _head(method: str, path: str, lines: Sequence[str]) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]).encode()


def _idle(site: Site, number: int) -> bytes:
    return b""


def _half_header(site: Site, number: int) -> bytes:
    return b"GET /v2/ HTTP/1.1\r\nHost: 127.0.0.1\r\nAccep"


def _half_body(site: Site, number: int) -> bytes:
    lines = [*site.slow_pushers[number % len(site.slow_pushers)], "Content-Length: 10000"]
    return _head("PUT", f"/v2/{REPOSITORY}/manifests/half-{number}", lines) + bytes(100)


def _no_reader(site: Site, number: int) -> bytes:
    return _head("GET", f"/v2/{REPOSITORY}/blobs/{site.blob}", site.slow_readers[number % len(site.slow_readers)])


KINDS: dict[str, Callable[[Site, int], bytes]] = {
    "idle": _idle,
    "half headers": _half_header,
    "half bodies": _half_body,
    "readers that do not read": _no_reader,
}


@contextmanager
def held(site: Site, kind: str, count: int) -> Iterator[None]:
    """So many slow clients, while the block runs."""
    with ExitStack() as stack:
        for number in range(count):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(30)
            connection.connect(("127.0.0.1", site.server.port))
            connection.sendall(KINDS[kind](site, number))
        time.sleep(0.5)  # until all of it has arrived
        yield
    time.sleep(0.5)


def _get(site: Site) -> None:
    headers = dict(line.split(": ", 1) for line in (ACCEPT, *site.reader))
    status, _, body = site.server.ask("GET", f"/v2/{REPOSITORY}/manifests/{TAG}", headers=headers)
    assert status == 200, body


def _push(site: Site) -> None:
    content = os.urandom(1000)
    headers = dict(line.split(": ", 1) for line in site.pusher)
    status, answered, body = site.server.ask("POST", f"/v2/{REPOSITORY}/blobs/uploads/", headers=headers, body=b"")
    assert status == 202, body
    place = urlsplit(answered["location"])
    path = f"{place.path}?{place.query}{'&' if place.query else ''}digest={Digest.of(content)}"
    headers["Content-Type"] = "application/octet-stream"
    status, _, body = site.server.ask("PUT", path, headers=headers, body=content)
    assert status == 201, body


def waits(site: Site) -> tuple[float, float]:
    """Medians of the seconds that a manifest by tag and the push of a small blob take."""
    return _median(site, _get, GETS), _median(site, _push, PUSHES)


def _median(site: Site, action: Callable[[Site], None], times: int) -> float:
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        action(site)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


# ---- the registries -------------------------------------------------------------------------------------------------


@contextmanager
def sites() -> Iterator[list[Site]]:
    """Both registries, with the same image and blob."""
    with servers.peer() as peer, servers.ours() as ours:
        layer = bytes(servers.large_layer(LARGE))
        built = servers.sample_image(layer)
        blob = built.layers[-1].descriptor.digest
        peer.push(built, ())
        ours.push(built, ours.basic("pusher"))
        servers.clear(ours.live, built)
        nobody: list[list[str]] = [[]]
        yield [
            Site(
                name="docker-registry",
                server=peer,
                reader=(),
                pusher=(),
                slow_readers=nobody,
                slow_pushers=nobody,
                blob=blob,
            ),
            Site(
                name="ours",
                server=ours,
                reader=ours.basic("host"),
                pusher=ours.basic("pusher"),
                slow_readers=_accounts(ours, "host"),
                slow_pushers=_accounts(ours, "pusher"),
                blob=blob,
            ),
        ]


def _accounts(ours: Ours, role: str) -> list[list[str]]:
    """The header lines of twenty more accounts."""
    found = []
    for number in range(20):
        wanted = json.dumps({"name": f"slow-{role}-{number}", "role": role}).encode()
        status, made = ours.live.api("POST", "/api/v1/accounts", account="admin", body=wanted)
        assert status == 201, made
        assert isinstance(made, dict)
        ours.live.secrets[made["name"]] = made["secret"]
        found.append(ours.basic(made["name"]))
    return found


def main() -> int:
    """Measure, print, and exit 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)), help="slow clients at once")
    parser.add_argument("--docs", action="store_true", help="write the table of docs/growth.md")
    arguments = parser.parse_args()
    machine = where()
    print(machine)
    rows: list[list[str]] = []
    missed: list[str] = []
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    with sites() as both:
        for count in (0, *map(int, arguments.counts.split(","))):
            if count + SPARE > descriptors:
                print(f"{count} slow clients: left out, a process may have {descriptors} descriptors here")
                continue
            for kind in KINDS if count else ("none",):
                row = [kind, f"{count:,}"]
                for site in both:
                    try:
                        with held(site, kind, count):
                            found = waits(site)
                    except (AssertionError, OSError) as error:
                        row += ["fails", "fails"]
                        print(f"{site.name}, {count} {kind}: {error}")
                        found = (MOST * 10, MOST * 10)
                    else:
                        row += [f"{seconds * 1000:.1f}" for seconds in found]
                    if site.name == "ours" and max(found) > MOST:
                        missed.append(f"{count} {kind}: got {max(found) * 1000:.0f} ms, want at most {MOST * 1000:.0f}")
                rows.append(row)
                print("  ".join(row), flush=True)
    names = [f"{name}: {what}, ms" for name in ("docker-registry", "ours") for what in ("manifest", "push")]
    made = table(["slow clients", "at once", *names], rows)
    print(f"\n{made}\n")
    for line in missed:
        print(f"MISSED  {line}")
    if arguments.docs:
        write_between(DOCS / "growth.md", "slow", f"Medians, taken with {machine}.\n\n{made}\n")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
