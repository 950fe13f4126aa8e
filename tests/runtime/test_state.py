"""The state folder: names, claims, damaged records."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.errors import NameTakenError, NoSuchContainerError, StateError
from runtime.launch import parent_of
from runtime.model import ContainerId, Shown, StopReason
from runtime.record import Container, from_json, reason_from_json, reason_to_json, to_json
from runtime.state import DEFAULT_STATE, StateStore, process_start

NAME = ContainerId("box")
RECORD = Container(
    name=NAME,
    status="exited",
    created="2026-01-01T00:00:00.000000Z",
    pid=7,
    pid_start=123_456,
    exit_code=137,
    reason=StopReason(code="revoked", message="the base"),
    argv=("sh", "-c", "echo ü"),
    shown=Shown(image="r.test/a:1", digest="sha256:" + "0" * 64, level="app", notes=("override",)),
    memory=1 << 40,
    stop_grace=2.5,
    cgroup_parent="pratique",
    detached=True,
    keep=True,
)


def test_records_survive_the_disk() -> None:
    assert from_json(NAME, to_json(RECORD)) == RECORD
    bare = Container(name=NAME, status="starting", created="", cgroup_parent="p")
    assert from_json(NAME, to_json(bare)) == bare
    reason = StopReason(code="a", message="b\n")
    assert reason_from_json(reason_to_json(reason)) == reason


@pytest.mark.parametrize(
    "change",
    [
        (b'"exited"', b'"dancing"'),
        (b'"exited"', b"1"),
        (b'"pratique"', b'"../../system.slice"'),
        (b'"pratique"', b'""'),
        (b"137", b'"137"'),
        (b"123456", b"-1"),
        (b'"status"', b'"sttus"'),
        (b"}", b"]"),
        (b'"pid"', b'"status"'),
    ],
)
def test_a_damaged_record_is_an_error_and_names_the_container(change: tuple[bytes, bytes]) -> None:
    damaged = to_json(RECORD).replace(*change)
    assert damaged != to_json(RECORD)
    with pytest.raises(StateError, match=r"box|container name"):
        from_json(NAME, damaged)


def test_a_claim_holds_a_name_until_it_is_released(tmp_path: Path) -> None:
    store = StateStore.open(tmp_path / "state")
    claim = store.claim(NAME)
    assert store.held(NAME)
    with pytest.raises(NameTakenError, match="container box: the name is taken"):
        store.claim(NAME)
    claim.write(RECORD)
    claim.release(remove=False)
    assert not store.held(NAME)
    assert store.read(NAME) == RECORD
    with pytest.raises(NameTakenError):
        store.claim(NAME)
    store.discard(NAME)
    with pytest.raises(NoSuchContainerError):
        store.read(NAME)
    store.claim(NAME).release(remove=True)
    assert store.names() == ()


def test_a_folder_that_its_maker_left_empty_is_taken_over(tmp_path: Path) -> None:
    store = StateStore.open(tmp_path / "state")
    os.close(store.claim(NAME).lock_fd)
    assert store.reconcile() == (NAME,)
    assert store.names() == ()


def _claim(path: Path, won: multiprocessing.SimpleQueue[bool], gate: multiprocessing.synchronize.Barrier) -> None:
    store = StateStore.open(path)
    gate.wait()
    try:
        store.claim(NAME)
    except NameTakenError:
        won.put(False)
    else:
        won.put(True)
    gate.wait()


def test_of_many_claims_one_wins(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    won, gate = context.SimpleQueue(), context.Barrier(5)
    processes = [context.Process(target=_claim, args=(tmp_path / "state", won, gate)) for _ in range(5)]
    for process in processes:
        process.start()
    results = sorted(won.get() for _ in processes)
    for process in processes:
        process.join(20)
    assert results == [False, False, False, False, True]


def test_names_that_are_no_containers_are_passed_over(tmp_path: Path) -> None:
    store = StateStore.open(tmp_path / "state")
    (store.path / "containers/.hidden").mkdir()
    (store.path / "containers/a b").mkdir()
    assert store.names() == ()
    assert store.reconcile() == ()


def test_the_first_reason_to_stop_counts(tmp_path: Path) -> None:
    store = StateStore.open(tmp_path / "state")
    claim = store.claim(NAME)
    assert store.asked_stop(NAME) is None
    for code in ("first", "second"):
        store.ask_stop(NAME, StopReason(code=code, message=""))
    found = store.asked_stop(NAME)
    assert found is not None
    assert found.code == "first"
    claim.release(remove=True)
    store.ask_stop(NAME, StopReason(code="late", message=""))


def test_a_state_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="Not a directory"):
        StateStore.open(tmp_path / "file/state")
    with pytest.raises(StateError, match="state folder"):
        StateStore.open(tmp_path / "file")


def test_the_start_time_of_a_process() -> None:
    assert process_start(os.getpid()) > 0
    assert process_start(2**22 + 5) == 0


def test_a_record_is_replaced_whole(tmp_path: Path) -> None:
    store = StateStore.open(tmp_path / "state")
    claim = store.claim(NAME)
    claim.write(RECORD)
    claim.write(replace(RECORD, status="running"))
    assert sorted(path.name for path in claim.folder.iterdir()) == ["lock", "state"]
    assert (claim.folder / "state").stat().st_mode & 0o077 == 0 or claim.folder.stat().st_mode & 0o077 == 0
    claim.release(remove=True)


def test_state_folders_do_not_share_cgroups(tmp_path: Path) -> None:
    """Two containers of one name in two state folders must not meet in one cgroup."""
    assert parent_of(DEFAULT_STATE) == "pratique"
    assert parent_of(tmp_path / "a") != parent_of(tmp_path / "b")
    assert parent_of(tmp_path / "a").startswith("pratique-")
