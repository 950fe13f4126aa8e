"""Who may start, who may only look, and what a caller that means ill can say."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.broker import wire
from runtime.broker.roles import Peer, Role, Roles
from tests.runtime.boxes import REPOSITORY, Result
from tests.runtime.broker.desk import Desk, Stocked
from tests.support.tools import need

pytestmark = pytest.mark.root

START, LOOK = 61001, 61002


@pytest.mark.parametrize(
    ("uid", "gids", "role"),
    [
        (0, (), Role.START),
        (1000, (START,), Role.START),
        (1000, (START, LOOK), Role.START),
        (1000, (LOOK,), Role.LOOK),
        (1000, (5,), Role.NONE),
    ],
)
def test_roles_by_uid_and_groups(uid: int, gids: tuple[int, ...], role: Role) -> None:
    peer = Peer(pid=1, uid=uid, gids=frozenset(gids))
    assert Roles(start_gid=START, look_gid=LOOK).of(peer) is role
    assert Roles().of(peer) is (Role.START if uid == 0 else Role.NONE)


@pytest.fixture
def shared(stock: Stocked, tmp_path: Path) -> Iterator[Desk]:
    """A broker that two groups may use."""
    with Desk(tmp_path, stock, start_gid=START, look_gid=LOOK) as made:
        # Users have to reach the socket, and nothing else.
        for folder in (tmp_path, *tmp_path.parents):
            if folder.owner() == "root" and folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o011)
        made.start()
        yield made


def _as(desk: Desk, group: int, *words: str) -> Result:
    """The command as a user of its own; it needs nothing of Python's that only root can read."""
    ask = "code = quick.ask(sys.argv[1], sys.argv[2:]); sys.exit(99 if code is None else code)"
    source = f"import sys; sys.path.insert(0, sys.argv.pop(1)); from pratique import quick; {ask}"
    command = [need("setpriv"), "--reuid=61000", f"--regid={group}", "--clear-groups", "/usr/bin/python3", "-c", source]
    done = subprocess.run(
        [*command, str(desk.folder / "code"), *words],
        env={name: value for name, value in desk.environment.items() if name.startswith("PRATIQUE")},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def test_members_of_the_groups_may_do_what_their_group_may(shared: Desk) -> None:
    code = shared.folder / "code" / "pratique"
    code.mkdir(parents=True, mode=0o755)
    for name in ("__init__.py", "quick.py"):
        (code / name).write_bytes((REPOSITORY / "pratique" / name).read_bytes())
    for folder in (code, code.parent):
        folder.chmod(0o755)
    start = ("run", "--pull", "never", "--name", "theirs", str(shared.stock.app.reference), "id", "-u")
    assert _as(shared, START, *start) == Result(0, "1000\n", "")
    assert _as(shared, START, "ps").code == 0
    refused = _as(shared, LOOK, *start)
    assert (refused.code, refused.err) == (125, "pratique: broker: this user may not start containers here\n")
    looked = _as(shared, LOOK, "ps", "--json")
    assert (looked.code, looked.out.strip()) == (0, "[]")
    assert _as(shared, 5, "ps").err == "pratique: broker: this user may not look at containers here\n"
    follow = _as(shared, LOOK, "logs", "--follow", "x")
    assert follow.code == 1
    assert "is not done here" in follow.err
    assert _as(shared, LOOK, "logs", "--fol", "x").code == 1, "an option may be abbreviated"
    assert _as(shared, LOOK, "logs", "x").err == "pratique: container x: there is none of this name\n"
    assert _as(shared, START, "ps", "--st", "/etc").code == 99, "another state folder is asked of nobody"


def test_without_groups_nobody_else_reaches_the_socket(desk: Desk) -> None:
    assert Path(f"{desk.state}.sock").stat().st_mode & 0o777 == 0o600


# A caller that means ill


def _ask(desk: Desk, message: bytes, fds: tuple[int, ...] = (0, 1, 2), seconds: float = 5) -> bytes:
    """Send a message; what came first, or b"" at the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(seconds)
        connection.connect(f"{desk.state}.sock")
        wire.send(connection, message, fds)
        try:
            return connection.recv(65536)
        except TimeoutError:
            return b"late"


def _words(desk: Desk, *words: str, version: str = "1") -> bytes:
    fields = (version, *words[:1], str(desk.stock.host.store.path), str(desk.state), *words[1:])
    return b"".join(os.fsencode(field) + b"\0" for field in fields)


def test_words_that_mean_nothing_do_no_harm(desk: Desk, tmp_path: Path) -> None:
    reference = str(desk.stock.app.reference)
    start = _words(desk, "run", "--pull", "never", reference, "true")
    cases: list[tuple[bytes, tuple[int, ...], bytes]] = [
        (b"x", (0, 1, 2), b"2pratique: broker: internal error: ValueError"),
        (b"\0" * 50_000, (0, 1, 2), b"-"),
        (_words(desk, "run", version="2"), (0, 1, 2), b"-"),
        (_words(desk, "run"), (0, 1, 2), b"2pratique: run: the following arguments are required"),
        (_words(desk, "run", "--help"), (0, 1, 2), b"-"),
        (_words(desk, "run", "--pull", "always", reference), (0, 1, 2), b"-"),
        (_words(desk, "run", "\udcff\x1b[31m"), (0, 1, 2), b"2pratique: "),
        (_words(desk, "ps", "--sta", "/etc/of-the-callers"), (), b"-"),
        (_words(desk, "ps", "--help"), (), b"-"),
        (_words(desk, "ps", "--no-such"), (), b"2pratique: ps: unrecognized arguments: --no-such"),
        (_words(desk, "run", "--stat", "/etc/of-the-callers", reference), (0, 1, 2), b"-"),
        (_words(desk, "run", "--sto", "/etc/of-the-callers", reference), (0, 1, 2), b"-"),
        (_words(desk, "serve", "--config", "/etc/passwd"), (), b"2pratique: broker: serve is not done here\n"),
        (start, (), b"2pratique: broker: expected standard input, output and error\n"),
        (start, (0, 1), b"2pratique: broker: expected standard input, output and error\n"),
        (start, (0, 1, 2, 2), b"2pratique: broker: expected standard input, output and error\n"),
    ]
    for message, fds, said in cases:
        answer = _ask(desk, message, fds)
        assert answer.startswith(said), (message[:80], answer)
        assert b"\x1b" not in answer
    assert not Path("/etc/of-the-callers").exists()
    assert desk.sh("echo fine").out == "fine\n"


def test_what_a_container_wrote_is_shown_to_who_may_look(shared: Desk) -> None:
    assert shared.run("sh", "-c", "seq 20000", options=("--detach", "--name", "box")).code == 0
    shared.until(lambda: shared.containers()["box"].status == "exited")
    answer = _all(shared, _words(shared, "logs", "box"))
    assert answer == "".join(f"{number}\n" for number in range(1, 20001)).encode()


def _all(desk: Desk, message: bytes) -> bytes:
    """All lines for standard output."""
    said = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(10)
        connection.connect(f"{desk.state}.sock")
        wire.send(connection, message)
        while (answer := connection.recv(1 << 20))[:1] == b"1":
            said += answer[1:]
    assert answer == b"x0"
    return said


def test_nothing_is_written_where_writing_changes_the_host(desk: Desk) -> None:
    start = _words(desk, "run", "--pull", "never", str(desk.stock.app.reference), "echo", "1")
    for path in ("/proc/self/comm", "/proc/sys/kernel/hostname", "/sys/kernel/mm/transparent_hugepage/enabled"):
        if not Path(path).exists():
            continue
        fd = os.open(path, os.O_RDONLY)
        try:
            assert _ask(desk, start, (0, fd, 2)).startswith(b"2pratique: broker: a standard stream is no")
        finally:
            os.close(fd)
    folder = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert _ask(desk, start, (0, folder, 2)).startswith(b"2pratique: broker: a standard stream is no")
    finally:
        os.close(folder)


def test_who_says_nothing_or_too_much_is_let_go(desk: Desk) -> None:
    held = []
    for _ in range(300):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.setblocking(False)
        try:
            connection.connect(f"{desk.state}.sock")
        except BlockingIOError:
            connection.close()
            continue
        held.append(connection)
    begun = time.monotonic()
    try:
        desk.until(lambda: desk.sh("echo fine").out == "fine\n", 20)
        assert time.monotonic() - begun < 20
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as late:
            late.settimeout(20)
            late.connect(f"{desk.state}.sock")
            assert late.recv(10) == b"", "who does not ask is let go"
    finally:
        for connection in held:
            connection.close()


def test_more_descriptors_than_fit_are_closed_and_the_caller_let_go(desk: Desk) -> None:
    before = len(list(Path(f"/proc/{desk.broker.pid if desk.broker else 0}/fd").iterdir()))
    assert _ask(desk, _words(desk, "run", "x"), (0,) * 100) == b""
    desk.until(lambda: desk.broker is not None and len(list(Path(f"/proc/{desk.broker.pid}/fd").iterdir())) <= before)
    assert sys.platform == "linux"
