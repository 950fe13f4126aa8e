"""A process is killed (SIGKILL) before each system call of the files engine that changes something; others go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ocispec.digest import Digest
from registry.store.files import FilesStore
from registry.store.keys import DerivedKey

CONTENT = b"content" * 1000
DIGEST = Digest.of(CONTENT)
OTHER = b"was there before"
KEY = DerivedKey(Digest.of(b"layer"), "listing")

CALLS = ("open", "fsync", "rename", "unlink", "mkdir", "rmdir")
"""Functions of `os` by which the engine, and pathlib for it, changes what is on the disk; writes go between them."""


def put(store: FilesStore) -> None:
    """A whole blob."""
    store.put(DIGEST, [CONTENT[:100], CONTENT[100:]])


def session(store: FilesStore) -> None:
    """A blob by a session of two requests."""
    half = store.append(store.begin(), [CONTENT[:100]])
    store.commit(store.append(half, [CONTENT[100:]]), DIGEST)


def wrong_session(store: FilesStore) -> None:
    """A session that is refused."""
    with pytest.raises(Exception, match="digest mismatch"):
        store.commit(store.append(store.begin(), [b"wrong"]), DIGEST)


def cancelled(store: FilesStore) -> None:
    """A session that is given up."""
    store.cancel(store.append(store.begin(), [CONTENT]).id)


def derive(store: FilesStore) -> None:
    """A derived object, in place of one."""
    store.put_derived(KEY, b"new")


def deletion(store: FilesStore) -> None:
    """A blob that was there."""
    store.delete(Digest.of(OTHER))


@pytest.mark.parametrize("work", [put, session, wrong_session, cancelled, derive, deletion])
def test_nothing_is_half_there_wherever_a_process_ends(
    tmp_path: Path, work: Callable[[FilesStore], None], record_property: Callable[[str, object], None]
) -> None:
    for at in count(1):
        folder = tmp_path / str(at)
        store = FilesStore(folder)
        store.put(Digest.of(OTHER), [OTHER])
        store.put_derived(KEY, b"old")
        killed = _killed_at(at, lambda store=store: work(store))  # type: ignore[misc]  # bound now
        _check(FilesStore(folder), work)
        if not killed:
            break
    assert at > 1
    record_property("faults", f"files, killed in {work.__name__}: {at - 1} points")


def _killed_at(at: int, work: Callable[[], None]) -> bool:
    """Do something in a process that is killed before its `at`-th call; False if it came to its end."""
    pid = os.fork()
    if pid == 0:
        calls = count(1)

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def made(*args: Any, **named: Any) -> Any:
                if next(calls) == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **named)

            return made

        try:
            for name in CALLS:
                setattr(os, name, counted(getattr(os, name)))
            work()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert status in {0, int(signal.SIGKILL)}
    return status != 0


def _check(store: FilesStore, work: Callable[[FilesStore], None]) -> None:
    """What is visible is whole; what is left of the dead process goes; and the same work is done now."""
    known = {DIGEST: CONTENT, Digest.of(OTHER): OTHER}
    for digest in store.digests():
        with store.open(digest) as stream:
            assert stream.read() == known[digest]
    if work is not deletion:
        assert store.size(Digest.of(OTHER)) == len(OTHER)
    assert store.get_derived(KEY) in {b"old", b"new"}
    work(store)
    assert store.size(DIGEST) == (len(CONTENT) if work in {put, session} else None)
    store.expire(datetime.now(UTC) + timedelta(hours=1))
    left = [path for name in ("uploads", "tmp") for path in (store._root / name).iterdir()]
    assert left == []
