"""Confined children: what they can do, how they may end, and the keeper that forks them."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ocispec.errors import SpecError
from ocispec.fields import JsonObject
from registry.judge.child import Answered, Failed, Outcome, Refused, Spawner
from registry.judge.confine import Cell, Limits
from registry.judge.keeper import Keeper, Local, Remote, Works
from registry.sockets import bind


def _look_around(arguments: JsonObject, sources: Sequence[int]) -> tuple[bytes, ...]:
    """What the child finds: its source, its user, its root, its descriptors, network, processes."""
    try:
        os.fork()
        forked = b"forked"
    except OSError:
        forked = b"no fork"
    try:
        with socket.socket() as connection:
            connection.connect(("127.0.0.1", int(str(arguments["port"]))))
        network = b"connected"
    except OSError:
        network = b"no network"
    try:
        os.kill(os.getppid() or 2, signal.SIGTERM)
        killed = b"signalled"
    except OSError:
        killed = b"no signal"
    listed = ",".join(os.listdir("/")).encode()  # noqa: PTH208 - no pathlib: the child has no files left
    thread = threading.Thread(target=lambda: None)  # the layer reader hashes in one
    thread.start()
    thread.join()
    return os.read(sources[0], 100), b"%d" % os.getuid(), listed, network, forked, killed


def _refuse(arguments: JsonObject, sources: Sequence[int]) -> tuple[bytes, ...]:
    raise SpecError("layer sha256:00: no")


def _crash(arguments: JsonObject, sources: Sequence[int]) -> tuple[bytes, ...]:
    raise ZeroDivisionError("gone")


def _vanish(arguments: JsonObject, sources: Sequence[int]) -> tuple[bytes, ...]:
    os._exit(7)


def _grow(arguments: JsonObject, sources: Sequence[int]) -> tuple[bytes, ...]:
    return (bytes(512 * 1024**2)[:1],)


def _sleep(arguments: JsonObject, sources: Sequence[int]) -> tuple[bytes, ...]:
    time.sleep(60)
    return ()


def _spin(arguments: JsonObject, sources: Sequence[int]) -> tuple[bytes, ...]:
    while True:
        pass


def _say_much(arguments: JsonObject, sources: Sequence[int]) -> tuple[bytes, ...]:
    return (bytes(4096), bytes(4096))


def _cut_off(arguments: JsonObject, sources: Sequence[int]) -> tuple[bytes, ...]:
    os.write(3, b"A" + (100).to_bytes(8, "big") + b"short")
    os._exit(0)


WORKS: Works = {
    "look": _look_around,
    "refuse": _refuse,
    "crash": _crash,
    "vanish": _vanish,
    "grow": _grow,
    "sleep": _sleep,
    "spin": _spin,
    "much": _say_much,
    "cut": _cut_off,
}


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    root = tmp_path / "empty"
    root.mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    return Cell(root=root, require=True)


@pytest.fixture
def keeper(tmp_path: Path, cell: Cell) -> Iterator[Remote]:
    path = tmp_path / "keeper.sock"
    listener = bind(path, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            Keeper(listener=listener, cell=cell, works=WORKS, allowed={os.getuid()}).run(lambda: os.getppid() == 1)
        finally:
            os._exit(0)
    listener.close()
    yield Remote(path=path)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.fixture(params=["local", "keeper"])
def spawner(request: pytest.FixtureRequest, cell: Cell) -> Spawner:
    if request.param == "local":
        return Local(cell=cell, works=WORKS)
    remote: Remote = request.getfixturevalue("keeper")
    return remote


def _do(
    spawner: Spawner,
    work: str,
    *,
    arguments: dict[str, str | int] | None = None,
    sources: Sequence[int] = (),
    limits: Limits | None = None,
) -> Outcome:
    return spawner.spawn(work, arguments or {}, sources=sources, limits=limits or Limits()).wait()


def test_child_has_no_files_no_network_no_processes(spawner: Spawner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        reader, writer = os.pipe()
        os.write(writer, b"the layer")
        outcome = _do(spawner, "look", arguments={"port": server.getsockname()[1]}, sources=[reader])
        os.close(reader)
        os.close(writer)
    assert isinstance(outcome, Answered)
    content, uid, listed, *rest = outcome.parts
    assert content == b"the layer"
    assert int(uid) == (65534 if os.geteuid() == 0 else os.geteuid())
    assert (listed, rest) == (b"", [b"no network", b"no fork", b"no signal"])


def test_refusal_is_told_apart_from_a_crash(spawner: Spawner) -> None:
    assert _do(spawner, "refuse") == Refused(message="layer sha256:00: no")
    assert _do(spawner, "crash") == Failed(code="crashed", message="ZeroDivisionError: gone")


@pytest.mark.parametrize(
    ("work", "limits", "code"),
    [
        ("vanish", Limits(), "crashed"),
        ("grow", Limits(memory=128 * 1024**2), "crashed"),
        ("sleep", Limits(seconds=0.2), "timeout"),
        ("spin", Limits(cpu_seconds=1), "crashed"),
        ("much", Limits(answer=5000), "too-large"),
        ("cut", Limits(), "crashed"),
    ],
)
def test_l6_a_child_that_does_not_answer_has_failed(spawner: Spawner, work: str, limits: Limits, code: str) -> None:
    outcome = _do(spawner, work, limits=limits)
    assert isinstance(outcome, Failed)
    assert outcome.code == code


def test_keeper_ends_the_child_of_an_owner_that_hangs_up(keeper: Remote, tmp_path: Path) -> None:
    child = keeper.spawn("sleep", {}, sources=(), limits=Limits())
    child.kill()
    # The keeper's next child comes at once, and the killed one's answer pipe has no writer left.
    assert isinstance(_do(keeper, "much"), Answered)


def test_keeper_gives_strangers_and_unknown_works_no_child(keeper: Remote, cell: Cell, tmp_path: Path) -> None:
    assert isinstance(_do(keeper, "format-the-disk"), Failed)
    path = tmp_path / "other.sock"
    listener = bind(path, socket.SOCK_SEQPACKET)
    stop = threading.Event()
    server = Keeper(listener=listener, cell=cell, works=WORKS, allowed=set())
    thread = threading.Thread(target=server.run, args=(stop.is_set,))
    thread.start()
    try:
        answered = isinstance(_do(Remote(path=path), "much"), Answered)
    except OSError:  # the keeper hung up before the request was sent
        answered = False
    stop.set()
    thread.join()
    listener.close()
    assert not answered
