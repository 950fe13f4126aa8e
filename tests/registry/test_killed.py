"""The registry is killed (SIGKILL) while images are pushed: what was acknowledged is there, nothing is half there."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from pathlib import Path

import pytest
from sqlalchemy import text

from ocispec.digest import Digest
from registry import audit
from registry.prepare import prepare
from registry.store.open import open_store
from tests.support.images import BuiltImage, image
from tests.support.registry import LiveRegistry, make_registry

ROUNDS = 6
REPOSITORY = "team/app"


@dataclass(slots=True)
class Pusher:
    """Pushes images to one tag until it fails, and remembers what was acknowledged and what was begun."""

    live: LiveRegistry
    seed: int
    blobs: set[Digest] = field(default_factory=set)
    images: list[BuiltImage] = field(default_factory=list)
    begun: list[BuiltImage] = field(default_factory=list)

    def run(self) -> None:
        """Push until the connection breaks."""
        chance = random.Random(self.seed)
        try:
            while True:
                built = image([chance.randbytes(chance.choice([1_000, 200_000, 3_000_000]))], compression="none")
                self.begun.append(built)
                self._push(built, chance)
        except (OSError, HTTPException):
            return

    def _push(self, built: BuiltImage, chance: random.Random) -> None:
        for digest, content in built.blobs.items():
            self._push_blob(digest, content, chance)
        raw, media_type = built.manifest.raw, built.manifest.media_type
        answer = self.live.put_manifest(REPOSITORY, f"tag-{self.seed}", raw, media_type)
        assert answer.status == 201, answer
        self.images.append(built)

    def _push_blob(self, digest: Digest, content: bytes, chance: random.Random) -> None:
        location = self.live.request("POST", f"/v2/{REPOSITORY}/blobs/uploads/").headers["location"]
        middle = chance.randrange(len(content))
        for chunk in (content[:middle], content[middle:]):
            answer = self.live.request("PATCH", location, body=chunk)
            assert answer.status == 202, answer
        answer = self.live.request("PUT", f"{location}?digest={digest}")
        assert answer.status == 201, answer
        self.blobs.add(digest)


def check(live: LiveRegistry, pusher: Pusher) -> None:
    """What was acknowledged is there; the rest is whole or absent."""
    base = f"/v2/{REPOSITORY}"
    for built in pusher.begun:
        for digest, content in built.blobs.items():
            answer = live.request("GET", f"{base}/blobs/{digest}")
            assert answer.status == (200 if digest in pusher.blobs else answer.status)
            assert answer.status == 404 or answer.body == content
        answer = live.request("GET", f"{base}/manifests/{built.digest}")
        assert answer.status == (200 if built in pusher.images else answer.status)
        if answer.status == 200:
            assert answer.body == built.manifest.raw
            assert all(live.request("HEAD", f"{base}/blobs/{digest}").status == 200 for digest in built.blobs)
    tag = live.request("GET", f"{base}/manifests/tag-{pusher.seed}")
    if pusher.images:
        # The last acknowledged one, or one whose answer was lost on the way.
        possible = [pusher.images[-1].digest, *(built.digest for built in pusher.begun[-1:])]
        assert Digest.of(tag.body) in possible


def test_nothing_acknowledged_is_lost_and_nothing_is_half_there(tmp_path: Path) -> None:
    seed = int(os.environ.get("PRATIQUE_SEED", "0")) or random.randrange(1, 2**31)
    (tmp_path / f"PRATIQUE_SEED={seed}").touch()  # the failure's report shows this folder's path
    chance = random.Random(seed)
    live = make_registry(tmp_path / "registry")
    with contextlib.closing(live):
        pushers = push_and_kill(live, chance)
        prepare(live.settings, now=datetime.now(UTC) + timedelta(days=2))
        live.start()
        for pusher in pushers:
            check(live, pusher)
    check_bytes(live)


def push_and_kill(live: LiveRegistry, chance: random.Random) -> list[Pusher]:
    """Several times: start, check what the killed one acknowledged, push from two sides, and kill."""
    pushers: list[Pusher] = []
    for round_number in range(ROUNDS):
        live.start()
        for pusher in pushers[-2:]:
            check(live, pusher)
        running = [Pusher(live, seed=round_number * 2 + number) for number in range(2)]
        threads = [threading.Thread(target=pusher.run) for pusher in running]
        for thread in threads:
            thread.start()
        time.sleep(chance.uniform(0.02, 0.5))
        deadline = time.monotonic() + 30
        while round_number == ROUNDS - 1 and not all(pusher.images for pusher in running):
            # At least once, something was acknowledged, however slow this machine is.
            assert time.monotonic() < deadline
            time.sleep(0.01)
        live.kill()
        for thread in threads:
            thread.join(60)
        pushers += running
    return pushers


def check_bytes(live: LiveRegistry) -> None:
    """Every blob in the store is what its name says, no session is left, the database and the audit chain are sound."""
    store = open_store(live.settings)
    for digest in store.digests():
        with store.open(digest) as stream:
            assert Digest.of(stream.read(), digest.algorithm) == digest
    for name in ("uploads", "tmp"):
        assert list((live.settings.store_folder / name).iterdir()) == []
    catalogue = live.catalogue()
    with catalogue.read() as conn:
        assert conn.scalar(text("PRAGMA integrity_check")) == "ok"
        assert conn.execute(text("PRAGMA foreign_key_check")).all() == []
        assert conn.scalar(text("SELECT count(*) FROM uploads")) == 0
        records = audit.read(conn, after=0, limit=1_000_000)
    catalogue.close()
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    assert all(later.previous == earlier.hash for earlier, later in itertools.pairwise(records))


def test_reads_are_recorded_also_when_the_registry_is_stopped_at_once(tmp_path: Path) -> None:
    built = image()
    live = make_registry(tmp_path / "registry")
    with contextlib.closing(live):
        live.start()
        live.push(REPOSITORY, built, "v1")
        assert live.request("GET", f"/v2/{REPOSITORY}/manifests/v1").status == 200
    catalogue = live.catalogue()
    with catalogue.read() as conn:
        reads = [record for record in audit.read(conn, after=0, limit=1000) if record.event == audit.Event.READ]
    catalogue.close()
    assert [(record.principal, record.subject, record.after) for record in reads] == [
        ("pusher", f"{REPOSITORY}:v1", str(built.digest))
    ]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_session_of_a_killed_registry_goes_on(tmp_path: Path, moment: str) -> None:
    content = os.urandom(500_000)
    live = make_registry(tmp_path / "registry")
    with contextlib.closing(live):
        live.start()
        path = live.request("POST", f"/v2/{REPOSITORY}/blobs/uploads/").headers["location"]
        start = 0
        if moment == "after":
            live.request("PATCH", path, body=content[:200_000])
            start = 200_000
        live.kill()
        prepare(live.settings, now=datetime.now(UTC))
        live.start()
        answer = live.request("PATCH", path, body=content[start:], Content_Range=f"{start}-{len(content) - 1}")
        assert answer.status == 202
        assert live.request("PUT", f"{path}?digest={Digest.of(content)}").status == 201
        assert live.request("GET", f"/v2/{REPOSITORY}/blobs/{Digest.of(content)}").body == content
