"""Many small requests on kept connections: by wrk, and for HEAD, which wrk waits for the bodies of, by our own.

Run as a program, it is our own generator: one process, one loop (epoll), each connection with one request at a time,
so that it costs little beside the server. `python -m benchmarks.load.small PORT PATH CONNECTIONS SECONDS [LINE]...`
sends HEAD with these header lines, and prints what came of it as JSON.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1000.0}
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What came of one run: answered requests, of these not 2xx, seconds, and latencies in milliseconds."""

    requests: int
    failed: int
    seconds: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def with_wrk(port: int, path: str, lines: Sequence[str], *, connections: int, seconds: int) -> Sample:
    """GET by wrk, on one thread: the servers need the processors more."""
    command = [
        "wrk",
        "--timeout=30s",
        "--threads=1",
        f"--connections={connections}",
        f"--duration={seconds}s",
        "--latency",
    ]
    for line in lines:
        command += ["--header", line]
    ran = subprocess.run(
        [*command, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True, timeout=seconds + 60
    )
    text = ran.stdout
    counted = re.search(r"(\d+) requests in ([\d.]+)s", text)
    assert counted is not None, text
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    return Sample(
        requests=int(counted[1]),
        failed=int(failed[1] if failed else 0) + sum(map(int, errors.groups() if errors else ())),
        seconds=float(counted[2]),
        p50=_latency(text, 50),
        p99=_latency(text, 99),
    )


def _latency(text: str, percent: int) -> float:
    found = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)", text)
    assert found is not None, text
    return float(found[1]) * _UNITS[found[2]]


def heads(port: int, path: str, lines: Sequence[str], *, connections: int, seconds: int) -> Sample:
    """HEAD by our own generator, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.load.small", str(port), path, str(connections), str(seconds), *lines]
    ran = subprocess.run(command, capture_output=True, check=True, timeout=seconds + 60)
    return Sample(**json.loads(ran.stdout))


def generate(port: int, path: str, lines: Sequence[str], connections: int, seconds: float) -> Sample:
    """Send HEAD again and again; every connection waits for its answer before it asks anew.

    Raises:
        ConnectionError: the server closed a connection.
    """
    head = "\r\n".join([f"HEAD {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *lines])
    request = head.encode() + _END
    taken: list[float] = []
    failed = 0
    with selectors.EpollSelector() as selector:
        for _ in range(connections):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            connection.send(request)
            selector.register(connection, selectors.EVENT_READ, [time.perf_counter(), b""])
        clock = time.perf_counter
        begun = clock()
        ends = begun + seconds
        while (now := clock()) < ends:
            for key, _ in selector.select(1.0):
                answering, state = key.fileobj, key.data
                assert isinstance(answering, socket.socket)
                got = answering.recv(65536)
                if not got:
                    raise ConnectionError("the server closed a connection")
                answer = state[1] + got if state[1] else got
                if not answer.endswith(_END):
                    state[1] = answer
                    continue
                now = clock()
                taken.append(now - state[0])
                failed += not answer.startswith(b"HTTP/1.1 2")
                answering.send(request)
                state[0], state[1] = now, b""
        for key in list(selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
    taken.sort()
    return Sample(
        requests=len(taken),
        failed=failed,
        seconds=now - begun,
        p50=taken[len(taken) // 2] * 1000,
        p99=taken[len(taken) * 99 // 100] * 1000,
    )


if __name__ == "__main__":
    made = generate(int(sys.argv[1]), sys.argv[2], sys.argv[5:], int(sys.argv[3]), float(sys.argv[4]))
    print(json.dumps(asdict(made)))
