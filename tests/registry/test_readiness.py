"""Readiness: which part cannot be used and why, without a part that hangs holding up the answer."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry import readiness
from registry.access import Role
from registry.catalogue.database import Catalogue
from registry.errors import StorageError
from registry.places import Places
from registry.readiness import Check, Readiness, checks_of, judge_check
from registry.store.open import open_store
from tests.support.registry import LiveRegistry, make_registry, web_registry


def fails() -> None:
    raise StorageError("the bucket is gone")


def fine() -> None:
    pass


def test_each_part_that_fails_is_told_with_its_reason(tmp_path: Path) -> None:
    draining = tmp_path / "draining"
    ready = Readiness((Check(part="storage", look=fails), Check(part="database", look=fine)), draining)
    assert ready.look() == {"storage": "the bucket is gone"}
    draining.touch()
    assert ready.look() == {"storage": "the bucket is gone", "draining": "the registry stops"}


def test_a_defect_in_a_look_is_not_called_ready() -> None:
    def broken() -> None:
        raise KeyError("x")

    assert Readiness((Check(part="storage", look=broken),)).look() == {"storage": "KeyError"}


def test_a_part_that_hangs_fails_and_is_asked_by_one_thread_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "DEADLINE_SECONDS", 0.2)
    go, asked = threading.Event(), []

    def hangs() -> None:
        asked.append(1)
        assert go.wait(30)

    ready = Readiness((Check(part="storage", look=hangs), Check(part="database", look=fine)))
    for _ in range(3):
        assert ready.look() == {"storage": "no answer within 0.2 s"}
    assert len(asked) == 1
    go.set()
    deadline = time.monotonic() + 30
    while ready.look():
        assert time.monotonic() < deadline


def test_many_who_ask_make_one_look() -> None:
    asked: list[int] = []
    ready = Readiness((Check(part="storage", look=lambda: asked.append(1)),))
    threads = [threading.Thread(target=ready.look) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) <= 2


@pytest.fixture
def live(tmp_path: Path) -> LiveRegistry:
    return make_registry(tmp_path)


@pytest.fixture
def catalogue(live: LiveRegistry) -> Iterator[Catalogue]:
    made = live.catalogue()
    yield made
    made.close()


def test_the_parts_of_a_registry_that_is_well(live: LiveRegistry, catalogue: Catalogue) -> None:
    ready = Readiness(checks_of(live.settings, open_store(live.settings), catalogue))
    assert ready.look() == {}
    assert [check.part for check in ready.checks] == ["storage", "database", "migrations", "disk"]


def test_tables_of_another_release(live: LiveRegistry, catalogue: Catalogue) -> None:
    with catalogue.write() as conn:
        conn.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    found = Readiness(checks_of(live.settings, open_store(live.settings), catalogue)).look()
    assert found.keys() == {"migrations"}
    assert found["migrations"].startswith("tables are of revision 9999, expected")


def test_judge_and_signer_that_are_silent(live: LiveRegistry) -> None:
    ready = Readiness((judge_check(live.settings),))
    alive = Places(live.settings).judge_alive
    assert ready.look() == {"judge": "no sign of life from judge and signer yet"}
    alive.touch()
    os.utime(alive, (time.time() - 100, time.time() - 100))
    (reason,) = Readiness((judge_check(live.settings),)).look().values()
    assert reason == "no sign of life from judge and signer for 100 s"
    alive.touch()
    assert Readiness((judge_check(live.settings),)).look() == {}


def test_who_asks_is_told_a_word_and_an_admin_the_reasons(tmp_path: Path) -> None:
    with web_registry(tmp_path, limits={"free_bytes": 2**50}) as live:
        live.account("root", Role.ADMIN)
        for account in (None, "pusher"):
            answer = live.request("GET", "/readyz", account=account)
            assert (answer.status, answer.body) == (503, b"not ready\n")
        told = json.loads(live.request("GET", "/readyz", account="root").body)
        assert told["ready"] is False
        assert told["failed"].keys() == {"disk"}
        assert "bytes free, expected at least" in told["failed"]["disk"]
        assert live.request("GET", "/healthz", account=None).status == 200
        # It says so, and serves all the same: whoever sends requests decides.
        assert live.request("GET", "/v2/").status == 200
