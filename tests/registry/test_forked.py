"""Processes that are forked: what they are given, what they are not, and what stays out of everybody's memory."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.errors import RegistryError, SettingsError
from registry.forked import Forked, apart
from registry.places import Places
from tests.support.images import image
from tests.support.live import WholeRegistry, whole_registry
from tests.support.packages import os_release

CHILD = "tests.support.forked_child"

WATCH = """
import os, sys

_log = os.open(os.environ["IMPORTS"], os.O_WRONLY | os.O_APPEND)

def _look(event, arguments):
    if event == "open" and str(arguments[0]).endswith((".py", ".pyc")):
        path = arguments[0]
    elif event == "import" and arguments[1]:
        path = arguments[1]
    else:
        return
    try:
        os.write(_log, f"{os.getpid()} {path}\\n".encode())
    except OSError:
        pass  # a confined child, which imports nothing

sys.addaudithook(_look)
"""
"""A sitecustomize.py: has every interpreter write down, with its process, which files of modules it reads."""


class OddError(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def _told(path: Path) -> dict[str, object]:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, "it said nothing"
        time.sleep(0.01)
    found: dict[str, object] = json.loads(path.read_text())
    return found


def test_it_is_a_process_of_its_own(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, lambda _number, _frame: None)
    try:
        with socket.socket() as kept, socket.socket() as closed:
            os.set_inheritable(kept.fileno(), True)
            words = [str(tmp_path / "told"), "7", str(kept.fileno()), str(closed.fileno())]
            child = Forked(CHILD, words, words, closed=[closed])
            assert child.wait(30) == 7
            assert child.poll() == child.returncode == 7
            assert closed.fileno() >= 0
            told = _told(tmp_path / "told")
            assert told["open"] == [kept.fileno()]
    finally:
        signal.signal(signal.SIGHUP, before)
    assert told["arguments"] == [CHILD, *words]
    assert told["given"] == id(words)
    assert told["session"] == child.pid
    assert told["input"] == os.devnull
    assert told["ignored"] == []
    command = told["command"]
    assert isinstance(command, list)
    # There is room for as much as this process's own command line has.
    assert [sys.executable, "-m", CHILD, *words][: len(command) - 1] == command[:-1]


def test_it_is_waited_for_and_ended(tmp_path: Path) -> None:
    child = Forked(CHILD, [str(tmp_path / "told"), "wait"])
    assert child.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.05)
    _told(tmp_path / "told")
    child.send_signal(signal.SIGTERM)
    assert child.wait() == -signal.SIGTERM
    child.send_signal(signal.SIGTERM)  # to nobody


@pytest.mark.parametrize(("word", "code"), [("fail", 1), ("exit", 4), ("linger", 3)])
def test_its_end_is_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str], word: str, code: int) -> None:
    sys.stdout.write("said before")
    child = Forked(CHILD, [str(tmp_path / "told"), word])
    assert child.wait(30) == code
    assert (tmp_path / "told").exists()  # what its last thread did, too
    sys.stdout.flush()
    out, err = capfd.readouterr()
    assert out.count("said before") == 1
    assert ("RuntimeError: as it was asked to" in err) == (word == "fail")


def test_what_is_done_apart_leaves_nothing_here(tmp_path: Path) -> None:
    seen: list[int] = []

    def work() -> None:
        seen.append(os.getpid())
        (tmp_path / "done").write_text(str(os.getpid()))

    apart(work)
    assert not seen
    assert (tmp_path / "done").read_text() != str(os.getpid())


def test_what_fails_apart_fails_here() -> None:
    def refused() -> None:
        raise SettingsError("setting name: got nothing")

    def odd() -> None:
        raise OddError("one", "two")

    with pytest.raises(SettingsError, match="setting name: got nothing"):
        apart(refused)
    with pytest.raises(RegistryError, match="one two"):
        apart(odd)
    with pytest.raises(RegistryError, match="without a word"):
        apart(lambda: os.kill(os.getpid(), signal.SIGKILL))


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that says which process of `live` has read which file of a module; beside it, what writes that."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "sitecustomize.py").write_text(WATCH)
    (folder / "imports").touch()
    return folder / "imports"


@pytest.fixture(scope="module")
def live(imports: Path) -> Iterator[WholeRegistry]:
    """A registry at its first start, which makes key and token."""
    path = os.pathsep.join(filter(None, (str(imports.parent), os.environ.get("PYTHONPATH"))))
    with whole_registry(environment={"PYTHONPATH": path, "IMPORTS": str(imports)}) as made:
        yield made


def _memory(pid: int) -> Iterator[bytes]:
    """What a process can write to."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            where, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            start, end = (int(part, 16) for part in where.split("-"))
            try:
                memory.seek(start)
                yield memory.read(end - start)
            except (OSError, OverflowError, ValueError):
                continue


def _tree(pid: int) -> list[int]:
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in below for each in _tree(int(child)))]


def test_the_key_is_in_the_signers_memory_alone(live: WholeRegistry) -> None:
    assert live.process is not None
    key = Places(live.settings).signer_key.read_bytes().splitlines()[1]
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in _tree(live.process.pid)}
    assert sum(b"signer" in words for words in commands.values()) == 1
    assert len(commands) >= 6
    for pid, words in commands.items():
        if b"signer" not in words:
            parts = list(_memory(pid))
            # What they know is found. Of the settings, the keeper knows only what it is told.
            keeper = b"registry.keeper" in words
            assert any(os.fsencode(Places(live.settings).cell) in part for part in parts) or not keeper
            assert any(live.settings.name.encode() in part for part in parts) != keeper
            assert not any(key in part for part in parts), words


def _forked(live: WholeRegistry) -> dict[int, list[bytes]]:
    """The command lines of what was forked from the supervisor: of all its processes but itself and the keeper's."""
    assert live.process is not None
    supervisor, *below = _tree(live.process.pid)
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in below}
    alone = {each for pid, words in commands.items() if b"registry.keeper" in words for each in _tree(pid)}
    return {pid: words for pid, words in commands.items() if pid not in alone and pid != supervisor}


def test_what_is_forked_imports_nothing(live: WholeRegistry, imports: Path) -> None:
    assert live.process is not None
    live.publish()
    base = image([{"etc/": b"", "bin/": b"", "bin/sh": b"#!", **os_release()}])
    live.push("team/base", base, "1")
    live.approve("team/base", base, "base", live.ring.alice, live.ring.bob)
    live.until("team/base", "1", "cleared")
    assert live.request("GET", "/v2/team/base/manifests/1", account="host").status == 200
    forked = _forked(live)
    assert {b"signer", b"judge"} <= {word for words in forked.values() for word in words}
    assert sum(b"registry.web" in words for words in forked.values()) == 2
    read = [line.split(" ", 1) for line in imports.read_text().splitlines()]
    assert any(int(pid) == live.process.pid for pid, _ in read)
    assert [(forked[int(pid)], path) for pid, path in read if int(pid) in forked] == []


def test_the_supervisor_keeps_nothing_open_of_what_it_forks_for(live: WholeRegistry) -> None:
    assert live.process is not None
    links = [str(each.readlink()) for each in Path(f"/proc/{live.process.pid}/fd").iterdir()]
    assert links
    assert [link for link in links if link.startswith(str(live.settings.data))] == []
    assert len(list(Path(f"/proc/{live.process.pid}/task").iterdir())) == 1


def test_the_keeper_does_not_know_how_to_read_settings(live: WholeRegistry, imports: Path) -> None:
    assert live.process is not None
    below = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in _tree(live.process.pid)}
    [keeper] = [pid for pid, words in below.items() if b"registry.keeper" in words]
    lines = [line.split(" ", 1) for line in imports.read_text().splitlines()]
    # Of a module, its source or what was compiled of it; which one depends on who ran before.
    read = [path.replace("/__pycache__/", "/") for pid, path in lines if int(pid) == keeper]
    assert any("/registry/judge/works." in path for path in read)
    assert [path for path in read if "/yaml/" in path or "/registry/settings." in path or "sqlalchemy" in path] == []
