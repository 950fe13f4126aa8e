"""The socket that the API is served at, and what systemd is told: sd_listen_fds(3), sd_notify(3)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from registry import notify
from registry.errors import SettingsError
from registry.listening import open_listener
from registry.settings import parse
from tests.support.processes import free_port

HANDED_OVER = """
import json, os, sys
os.environ["LISTEN_PID"] = sys.argv[1].replace("own", str(os.getpid()))
from registry.errors import SettingsError
from registry.listening import inherited_listener
try:
    found = inherited_listener()
    print(json.dumps([found and found.getsockname()[1], sorted(n for n in os.environ if n.startswith("LISTEN"))]))
except SettingsError as error:
    print(json.dumps([str(error), []]))
"""


def handed_over(descriptor: int, *, pid: str = "own", count: str = "1") -> list[object]:
    """What a process makes of a descriptor that it has as its third one."""
    environment = {**os.environ, "LISTEN_FDS": count, "LISTEN_FDNAMES": "http"}
    # The shell gives the descriptor the number that the protocol wants.
    shell = f'exec 3<&{descriptor} && exec {sys.executable} -c "$SCRIPT" {pid}'
    done = subprocess.run(
        ["bash", "-c", shell],
        pass_fds=[descriptor],
        env={**environment, "SCRIPT": HANDED_OVER},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found: list[object] = json.loads(done.stdout)
    return found


def test_a_socket_that_systemd_hands_over_is_taken() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert handed_over(listener.fileno()) == [port, []]
        assert handed_over(listener.fileno(), pid="1")[0] is None
        assert "got '2' sockets, expected 1" in str(handed_over(listener.fileno(), count="2")[0])


def test_what_does_not_listen_is_refused() -> None:
    with socket.socket() as idle, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        idle.bind(("127.0.0.1", 0))
        for given in (idle, datagrams):
            assert "expected a stream socket that listens" in str(handed_over(given.fileno())[0])


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:0"])
def test_an_address_is_listened_at(listen: str) -> None:
    with open_listener(listen) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_an_address_that_cannot_be_had_is_named() -> None:
    with pytest.raises(SettingsError, match=r"setting http\.listen: 192\.0\.2\.1:80: Cannot assign requested address"):
        open_listener("192.0.2.1:80")


def test_a_port_that_there_is_not_is_refused_and_not_wrapped_around() -> None:
    with pytest.raises(SettingsError, match=r"setting http\.listen: got '127\.0\.0\.1:70000', expected a port up to"):
        parse(b'{"name": "r.test", "data": "/x", "http": {"listen": "127.0.0.1:70000"}}')


def test_a_port_that_somebody_has_is_named() -> None:
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(SettingsError, match=f"setting metrics.listen: 127.0.0.1:{port}: Address already in use"):
            open_listener(f"127.0.0.1:{port}", "metrics.listen")


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    address = f"\0pratique-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
        notify.tell(notify.READY, "STATUS=x")
        assert receiver.recv(100) == b"READY=1\nSTATUS=x"
        notify.tell(notify.reloading())
        assert receiver.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")


def test_that_nobody_hears_it_is_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify.tell(notify.READY)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify.tell(notify.READY)


@pytest.mark.parametrize(
    ("microseconds", "pid", "seconds"),
    [("60000000", "", 30.0), ("60000000", "own", 30.0), ("60000000", "1", None), ("", "", None), ("x", "", None)],
)
def test_the_watchdog_is_fed_twice_in_its_time(
    monkeypatch: pytest.MonkeyPatch, microseconds: str, pid: str, seconds: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.setenv("WATCHDOG_PID", pid.replace("own", str(os.getpid())))
    assert notify.watchdog_seconds() == seconds
