"""Stops of a whole registry under use: nothing that was acknowledged or is under way is lost (reloads: test_reload)."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from sqlalchemy import select

from registry.access import Role
from registry.catalogue import schema
from tests.support.live import WholeRegistry, prepared

CHUNK = 64 * 1024
CHUNKS = 40


@contextmanager
def running(**http_settings: object) -> Iterator[WholeRegistry]:
    """A registry that runs, with an account that pushes."""
    with prepared(http=http_settings) as live:
        live.start()
        try:
            live.account("pusher", Role.PUSHER)
            live.account("admin", Role.ADMIN)
            yield live
        finally:
            if live.process is not None and live.process.poll() is None:
                live.stop()
            elif live.process is not None and live.process.stdout is not None:
                live.process.stdout.close()


@dataclass
class Upload:
    """One chunked upload in a thread; `begin` returns when its first bytes are on their way."""

    live: WholeRegistry
    pause: float = 0.05
    tls: ssl.SSLContext | None = None
    status: int = 0
    error: str = ""
    begun: threading.Event = field(default_factory=threading.Event)
    content: bytes = field(default_factory=lambda: os.urandom(CHUNK * CHUNKS))

    def __post_init__(self) -> None:
        self.digest = "sha256:" + hashlib.sha256(self.content).hexdigest()
        self.thread = threading.Thread(target=self._run)

    def begin(self) -> Upload:
        self.thread.start()
        assert self.begun.wait(30)
        return self

    def end(self) -> int:
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.status

    def _pieces(self) -> Iterator[bytes]:
        for position in range(0, len(self.content), CHUNK):
            yield self.content[position : position + CHUNK]
            if position > 4 * CHUNK:
                self.begun.set()
            time.sleep(self.pause)

    def _run(self) -> None:
        path = f"/v2/team/app/blobs/uploads/?digest={self.digest}"
        headers = {**self.live.header("pusher"), "Content-Length": str(len(self.content))}
        connection = connect(self.live, self.tls)
        try:
            connection.request("POST", path, body=self._pieces(), headers=headers)
            self.status = connection.getresponse().status
        except OSError as error:
            self.error = repr(error)
        finally:
            self.begun.set()
            connection.close()


def connect(live: WholeRegistry, tls: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
    if tls is None:
        return http.client.HTTPConnection("127.0.0.1", live.port, timeout=60)
    return http.client.HTTPSConnection("127.0.0.1", live.port, timeout=60, context=tls)


def process(live: WholeRegistry) -> subprocess.Popen[bytes]:
    assert live.process is not None
    return live.process


def until(what: Callable[[], bool], *, seconds: float = 30, pause: float = 0.05) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(pause)


def has_blob(live: WholeRegistry, digest: str) -> bool:
    return live.request("HEAD", f"/v2/team/app/blobs/{digest}").status == 200


@dataclass
class Load:
    """Clients that push and pull small blobs, each on new connections, until nobody answers any more."""

    live: WholeRegistry
    acknowledged: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def begin(self) -> Load:
        self.threads = [threading.Thread(target=self._run) for _ in range(3)]
        for thread in self.threads:
            thread.start()
        return self

    def end(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()

    def _run(self) -> None:
        while not self.over.is_set():
            content = os.urandom(1000)
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            try:
                pushed = self._ask("POST", f"/v2/team/load/blobs/uploads/?digest={digest}", content)
                if pushed != 201:
                    self.failures.append(f"push: {pushed}")
                    continue
                self.acknowledged.append(digest)
                if (status := self._ask("GET", f"/v2/team/load/blobs/{digest}")) == 200:
                    self.read.append(digest)
                else:
                    self.failures.append(f"pull: {status}")
            except ConnectionRefusedError:
                return  # it stops, and says so to whoever connects
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))

    def _ask(self, method: str, path: str, body: bytes | None = None) -> int:
        return self.live.request(method, path, body=body).status


def start_again(live: WholeRegistry) -> None:
    """Once it has stopped by itself."""
    assert process(live).wait(60) == 0
    stdout = process(live).stdout
    assert stdout is not None
    stdout.close()
    live.start()


def test_stop_under_load_loses_nothing() -> None:
    with running(drain=1) as live:
        load = Load(live).begin()
        upload = Upload(live, pause=0.15).begin()
        until(lambda: len(load.read) > 20)
        process(live).terminate()
        # (1) Readiness turns, so that a load balancer sends nobody any more; whoever comes meanwhile is answered.
        until(lambda: live.request("GET", "/readyz", account=None).status == 503, seconds=1)
        late = Upload(live, pause=0).begin()
        assert late.end() == 201, late.error
        assert live.request("GET", "/v2/").status == 200
        # (2) After the drain nobody can connect, and what is under way goes on to its end.
        until(lambda: _refused(live))
        load.end()
        assert process(live).poll() is None
        assert upload.end() == 201, upload.error
        # (3) Nothing that was acknowledged is lost, and what was read is in the audit.
        start_again(live)
        assert load.failures == []
        assert [each for each in (upload.digest, late.digest) if not has_blob(live, each)] == []
        catalogue = live.catalogue()
        with catalogue.read() as conn:
            known = set(map(str, conn.scalars(select(schema.repository_blobs.c.digest))))
            said = "\n".join(conn.scalars(select(schema.audit.c.subject).where(schema.audit.c.event == "read")))
        catalogue.close()
        assert set(load.acknowledged) <= known
        assert [digest for digest in load.read if digest not in said] == []


def _refused(live: WholeRegistry) -> bool:
    try:
        connection = connect(live)
        connection.connect()
    except ConnectionRefusedError:
        return True
    connection.close()
    return False


def test_what_takes_too_long_is_cut_off_and_a_second_sigterm_hastens() -> None:
    with running(stop=1) as live:
        location = live.request("POST", "/v2/team/app/blobs/uploads/").headers["location"]
        with socket.create_connection(("127.0.0.1", live.port), timeout=30) as sender:
            head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
            authorization = live.header("pusher")["Authorization"]
            sender.sendall(f"{head}Authorization: {authorization}\r\n\r\n".encode() + b"x" * 300_000)
            until(lambda: bool(list((live.settings.store_folder / "uploads").glob("*/data"))))
            process(live).terminate()  # and http.stop is over long before that body
            assert process(live).wait(30) == 0
        change(live, drain=600, stop=600)
        start_again(live)
        # The session can be gone on with, from where it says that it stands.
        status = live.request("GET", location)
        assert status.status == 204, status
        stands = int(status.headers["range"].partition("-")[2])
        first = stands + 1 if stands else 0
        chunk = {"Content_Range": f"{first}-{first + 999}"}
        assert live.request("PATCH", location, body=b"x" * 1000, **chunk).status == 202
        upload = Upload(live, pause=5)
        upload.thread.daemon = True
        upload.thread.start()
        process(live).terminate()
        until(lambda: live.request("GET", "/readyz", account=None).status == 503)
        assert process(live).poll() is None
        process(live).terminate()
        assert process(live).wait(30) == 0


def change(live: WholeRegistry, **http_settings: object) -> None:
    known = yaml.safe_load(live.settings_file.read_text())
    known["http"] |= http_settings
    live.settings_file.write_text(yaml.safe_dump(known))


def test_a_worker_that_is_to_stop_while_it_starts_does_so() -> None:
    """It is stopped (SIGSTOP) as soon as it was forked, and goes on once SIGTERM waits for it."""
    with running() as live:
        (first,) = children(web(live))
        os.kill(first, signal.SIGKILL)
        until(lambda: bool(children(web(live)) - {first}), pause=0.001)
        (second,) = children(web(live)) - {first}
        os.kill(second, signal.SIGSTOP)
        process(live).terminate()
        until(lambda: bool(int(fields(second)["ShdPnd"], 16) >> (signal.SIGTERM - 1) & 1))
        os.kill(second, signal.SIGCONT)
        assert process(live).wait(60) == 0
        assert "did not stop in time" not in live.log()


def web(live: WholeRegistry) -> int:
    """The parent of the web's workers."""
    (found,) = [
        child for child in children(process(live).pid) if b"registry.web" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    return found


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def fields(pid: int) -> dict[str, str]:
    """See proc_pid_status(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
