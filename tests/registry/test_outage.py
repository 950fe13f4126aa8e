"""The database goes away under a running registry, and comes back: 503, `/readyz` says so, and nothing is lost."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.images import BuiltImage, image
from tests.support.postgres import postgres
from tests.support.registry import LiveRegistry, web_registry

REPOSITORY = "team/app"
BUILT = image([{"x": b"before"}])


@dataclass(slots=True)
class Pusher:
    """Pushes one image after the other, and again what was refused; `statuses` are all that it was answered."""

    live: LiveRegistry
    number: int
    pushed: list[BuiltImage] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Until it is stopped."""
        while not self.stop.is_set():
            built = image([{"x": b"%d %d" % (self.number, len(self.pushed))}])
            for digest, content in built.blobs.items():
                self._until(201, "POST", f"/v2/{REPOSITORY}/blobs/uploads/?digest={digest}", content)
            path = f"/v2/{REPOSITORY}/manifests/tag-{self.number}"
            if self._until(201, "PUT", path, built.manifest.raw, Content_Type=built.manifest.media_type):
                self.pushed.append(built)

    def _until(self, wanted: int, method: str, path: str, body: bytes, **headers: str) -> bool:
        while not self.stop.is_set():
            answer = self.live.request(method, path, body=body, **headers)
            self.statuses.add(answer.status)
            if answer.status == wanted:
                return True
            assert answer.headers["retry-after"]
            time.sleep(0.05)
        return False


def _until_ready(live: LiveRegistry, *, ready: bool) -> None:
    deadline = time.monotonic() + 30
    while live.request("GET", "/readyz", account=None).status != (200 if ready else 503):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_database_that_goes_and_comes(tmp_path: Path) -> None:
    with postgres() as server, web_registry(tmp_path / "registry", catalogue=server.database()) as live:
        live.push(REPOSITORY, BUILT, "1")
        pushers = [Pusher(live, number) for number in range(3)]
        threads = [threading.Thread(target=pusher.run) for pusher in pushers]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2):
                _wait_for_pushes(pushers)
                server.kill()  # as by a crash: connections break in the middle of what they do
                _until_ready(live, ready=False)
                assert live.request("GET", "/healthz", account=None).status == 200
                answer = live.request("GET", f"/v2/{REPOSITORY}/manifests/1")
                assert (answer.status, answer.headers["retry-after"]) == (503, "2")
                assert json.loads(answer.body)["errors"][0]["code"] == "CATALOGUE_UNAVAILABLE"
                server.start()
                _until_ready(live, ready=True)
            _wait_for_pushes(pushers)
        finally:
            for pusher in pushers:
                pusher.stop.set()
            for thread in threads:
                thread.join(60)
        for pusher in pushers:
            assert pusher.statuses == {201, 503}
            _check(live, pusher)
        log = (live.folder / "web.log").read_text()
        assert "not ready: database: catalogue: " in log, log[-4000:]
        assert "Traceback" not in log, log[-4000:]


def _wait_for_pushes(pushers: list[Pusher]) -> None:
    """Everybody gets on."""
    before = [len(pusher.pushed) for pusher in pushers]
    deadline = time.monotonic() + 60
    while any(len(pusher.pushed) <= count + 1 for pusher, count in zip(pushers, before, strict=True)):
        assert time.monotonic() < deadline, before
        time.sleep(0.05)


def _check(live: LiveRegistry, pusher: Pusher) -> None:
    """All that was acknowledged is there."""
    for built in pusher.pushed:
        answer = live.request("GET", f"/v2/{REPOSITORY}/manifests/{built.digest}")
        assert answer.body == built.manifest.raw
    for digest, content in pusher.pushed[-1].blobs.items():
        assert live.request("GET", f"/v2/{REPOSITORY}/blobs/{digest}").body == content
