"""Stops, reloads and restarts of a whole registry under use: nothing that was acknowledged or is under way is lost."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from registry.access import Role
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


def until(what: Callable[[], bool], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def has_blob(live: WholeRegistry, digest: str) -> bool:
    return live.request("HEAD", f"/v2/team/app/blobs/{digest}").status == 200


# ---- stops ---------------------------------------------------------------------------------------------------------


def test_on_sigterm_readiness_turns_first_and_an_upload_under_way_ends_well() -> None:
    with running(drain=2) as live:
        upload = Upload(live).begin()
        told = time.monotonic()
        process(live).terminate()
        until(lambda: live.request("GET", "/readyz", account=None).status == 503, seconds=2)
        # Draining: a load balancer has seen that, and requests that it sent before are still answered.
        other = Upload(live, pause=0).begin()
        assert other.end() == 201, other.error
        assert live.request("GET", "/v2/").status == 200
        assert upload.end() == 201, upload.error
        assert process(live).wait(60) == 0
        assert time.monotonic() - told > 2
        assert live.process is not None
        assert live.process.stdout is not None
        live.process.stdout.close()
        live.start()
        assert live.request("GET", "/readyz", account=None).status == 200
        assert has_blob(live, upload.digest)
        assert has_blob(live, other.digest)


def test_upload_begun_just_before_the_end_of_the_drain_ends_well_and_new_ones_are_refused() -> None:
    with running() as live:
        upload = Upload(live).begin()
        process(live).terminate()
        time.sleep(0.5)
        late = connect(live)
        with pytest.raises(OSError, match="refused"):
            late.connect()
        assert upload.end() == 201, upload.error
        assert process(live).wait(60) == 0


def test_what_takes_longer_than_http_stop_is_cut_off_and_can_be_gone_on_with() -> None:
    with running(stop=2) as live:
        answer = live.request("POST", "/v2/team/app/blobs/uploads/")
        location = answer.headers["location"]
        with socket.create_connection(("127.0.0.1", live.port), timeout=30) as sender:
            head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
            authorization = live.header("pusher")["Authorization"]
            sender.sendall(f"{head}Authorization: {authorization}\r\n\r\n".encode() + b"x" * 300_000)
            time.sleep(0.5)
            told = time.monotonic()
            process(live).terminate()
            assert process(live).wait(30) == 0
            assert 1.5 < time.monotonic() - told < 20
        assert process(live).stdout is not None
        live.process.stdout.close()  # type: ignore[union-attr]  # as above
        live.start()
        status = live.request("GET", location)
        assert status.status == 204, status
        size = int(status.headers["range"].partition("-")[2])
        rest = b"x" * 1000
        chunk = {"Content_Range": f"{size + 1 if size else 0}-{size + 1000 if size else 999}"}
        if size:
            chunk = {"Content_Range": f"{size + 1}-{size + 1000}"}
        assert live.request("PATCH", location, body=rest, **chunk).status == 202


def test_second_sigterm_hastens() -> None:
    with running(drain=600, stop=600) as live:
        upload = Upload(live, pause=5).begin
        threading.Thread(target=upload, daemon=True).start()
        time.sleep(1)
        process(live).terminate()
        time.sleep(1)
        assert process(live).poll() is None
        told = time.monotonic()
        process(live).terminate()
        assert process(live).wait(30) == 0
        assert time.monotonic() - told < 15


def test_reads_that_were_answered_before_the_stop_are_in_the_audit() -> None:
    with running() as live:
        digest = live.push_blob("team/app", b"content")
        live.account("auditor", Role.AUDITOR)
        assert live.request("GET", f"/v2/team/app/blobs/{digest}", account="auditor").status == 200
        process(live).terminate()
        assert process(live).wait(60) == 0
        assert process(live).stdout is not None
        live.process.stdout.close()  # type: ignore[union-attr]  # as above
        live.start()
        body = live.request("GET", "/api/v1/audit?after=0&limit=1000", account="auditor").body
        records = json.loads(body)["records"]
        reads = [each for each in records if each["event"] == "read" and each["principal"] == "auditor"]
        assert [each for each in reads if str(digest) in each["subject"]]
