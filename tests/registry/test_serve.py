"""`pratique serve`: first start, separate users, restarts, stops - on real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from policy.keys import PublicKey
from registry import processes
from registry.first import first_start
from registry.forked import apart
from registry.places import Places
from registry.processes import READER_ID
from tests.support import judging
from tests.support.images import image
from tests.support.live import WholeRegistry, now, prepared, whole_registry
from tests.support.processes import wait_until_closed
from tests.support.tools import need_root


@pytest.fixture(scope="module")
def live() -> Iterator[WholeRegistry]:
    with whole_registry() as made:
        made.publish()
        yield made


def _children(live: WholeRegistry) -> dict[str, int]:
    """The processes of a registry by name: `keeper`, `signer`, `judge`, `web`."""
    assert live.process is not None
    found: dict[str, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == live.process.pid and len(arguments) > 3:
            name = arguments[3] if arguments[2] == b"registry.run" else arguments[2].rpartition(b".")[2]
            found[name.decode()] = int(folder.name)
    return found


def _eventually(what: Callable[[], bool], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    """True for a process that is there and not dead; a dead one stays listed until whoever adopted it looks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def _as_user(uid: int, action: Callable[[], object]) -> str:
    """The name of the error that `action` raises as `uid`, "" if it works."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(60100, 60100, 60100)
            os.setresuid(uid, uid, uid)
            action()
        except OSError as error:
            os.write(writer, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(writer)
    said = os.read(reader, 100).decode()
    os.close(reader)
    os.waitpid(pid, 0)
    return said


# ---- one running registry ------------------------------------------------------------------------------------------


@pytest.mark.root
def test_each_process_has_a_user_of_its_own(live: WholeRegistry) -> None:
    need_root()
    uids = {name: int(Path(f"/proc/{pid}").stat().st_uid) for name, pid in _children(live).items()}
    assert uids["judge"] == 60102
    assert uids["signer"] == 60103
    status = Path(f"/proc/{_children(live)['signer']}/status").read_text()
    assert "CapEff:\t0000000000000000" in status


@pytest.mark.root
def test_nobody_but_the_signer_reads_its_key_and_memory(live: WholeRegistry) -> None:
    need_root()
    places = Places(live.settings)
    for path in (places.signer_key, places.signer_memory):
        for uid in (60101, 60102, READER_ID):
            assert _as_user(uid, path.read_bytes) == "PermissionError", (path, uid)
        assert _as_user(60103, path.read_bytes) == ""


@pytest.mark.root
def test_nobody_but_the_judge_reaches_signer_and_keeper(live: WholeRegistry) -> None:
    need_root()
    places = Places(live.settings)

    def connect(path: Path, kind: socket.SocketKind) -> Callable[[], object]:
        return lambda: socket.socket(socket.AF_UNIX, kind).connect(str(path))

    for path, kind in (
        (places.signer_socket, socket.SOCK_STREAM),
        (places.keeper_socket, socket.SOCK_SEQPACKET),
    ):
        for uid in (60101, 60103, READER_ID):
            assert _as_user(uid, connect(path, kind)) == "PermissionError", (path, uid)


@pytest.mark.root
def test_signer_answers_no_other_user_even_if_it_reaches_the_socket(live: WholeRegistry) -> None:
    need_root()
    # Root may connect to any socket; SO_PEERCRED tells that it is not the judge.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(Places(live.settings).signer_socket))
        connection.settimeout(10)
        assert connection.recv(1) == b""


@pytest.mark.parametrize("name", ["keeper", "signer", "judge", "web"])
def test_killed_process_is_started_again_and_work_goes_on(live: WholeRegistry, name: str) -> None:
    killed = _children(live)[name]
    os.kill(killed, signal.SIGKILL)
    _eventually(lambda: _children(live).get(name, killed) != killed)
    _eventually(lambda: _answers(live))
    built = image([{"a": name.encode()}])
    live.push("team/again", built, name)
    live.until("team/again", name, "denied", seconds=90)


def _answers(live: WholeRegistry) -> bool:
    try:
        return live.request("GET", "/readyz", account=None).status == 200
    except OSError:
        return False


# ---- starts and stops ----------------------------------------------------------------------------------------------


def test_stop_leaves_nothing_and_the_next_start_goes_on_under_the_same_name() -> None:
    with prepared() as live:
        live.start()
        live.bootstrap()
        live.publish()
        built = image([{"bin/": b"", "bin/sh": b"#!"}])
        live.push("team/base", built, "1")
        live.approve("team/base", built, "base", live.ring.alice, live.ring.bob)
        live.until("team/base", "1", "cleared")
        pids = _children(live).values()
        live.stop()
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        wait_until_closed(live.port)
        live.token = ""
        live.start()
        assert live.token == ""  # there is an admin
        assert live.status("team/base", "1")["state"] == "cleared"
        pids = _children(live).values()
        assert live.process is not None
        live.process.kill()
        live.process.wait()
        assert live.process.stdout is not None
        live.process.stdout.close()
        live.process = None
        _eventually(lambda: not [pid for pid in pids if _runs(pid)])
        _change(live, name="other.example")
        assert "this catalogue is of registry" in _refused(live)


def test_worker_killed_in_the_middle_of_a_judgement_is_made_good() -> None:
    with prepared() as live:
        trigger = live.folder / "fault"
        live.environment["PRATIQUE_FAULT"] = f"commit={trigger}"
        live.start()
        try:
            live.bootstrap()
            live.publish()
            built = image([{"bin/": b"", "bin/sh": b"#!"}])
            live.push("team/base", built, "1")
            live.until("team/base", "1", "denied")
            trigger.touch()
            if os.geteuid() == 0:
                os.chown(live.folder, 60102, -1)  # the judge takes the trigger away
            live.approve("team/base", built, "base", live.ring.alice, live.ring.bob)
            live.until("team/base", "1", "cleared")
            assert not trigger.exists()
        finally:
            live.stop()


def test_trust_and_policy_of_the_settings_are_taken_once() -> None:
    with prepared() as live:
        members = yaml.safe_load(live.settings_file.read_text())
        (live.folder / "trust.json").write_bytes(live.ring.envelope)
        (live.folder / "policy.json").write_bytes(judging.published_policy(live.ring, now=now(), required=False))
        members |= {"trust": str(live.folder / "trust.json"), "policy": str(live.folder / "policy.json")}
        live.settings_file.write_text(yaml.safe_dump(members))
        live.start()
        live.stop()
        live.start()
        try:
            live.bootstrap()
            assert live.request("GET", "/api/v1/trust", account="host").body == live.ring.envelope
            assert live.request("GET", "/api/v1/policy", account="host").status == 200
        finally:
            live.stop()


def _refused(live: WholeRegistry) -> str:
    """Start a registry that must not start; the line that it says."""
    command = [sys.executable, "-m", "pratique", "serve", "--config", str(live.settings_file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def _change(live: WholeRegistry, **members: object) -> None:
    """Change the settings file."""
    known = yaml.safe_load(live.settings_file.read_text())
    live.settings_file.write_text(yaml.safe_dump({**known, **members}))


@pytest.mark.parametrize("secret", ["", "changeme", "Password", "Harbor12345"])
def test_r7_known_or_empty_secret_does_not_start(secret: str) -> None:
    with prepared() as live:
        _change(live, bootstrap_token=secret)
        assert "bootstrap_token" in _refused(live)


def test_broken_settings_trust_and_keys_say_one_line() -> None:
    with prepared() as live:
        _change(live, unknown_key=1)
        assert "unknown_key" in _refused(live)
        live.settings_file.write_text(yaml.safe_dump({**_known(live), "trust": str(live.folder / "missing.json")}))
        assert "missing.json" in _refused(live)
        (live.folder / "bad.json").write_text("{}")
        _change(live, trust=str(live.folder / "bad.json"))
        assert "trust.json" in _refused(live)
        key = Places(live.settings).signer_key
        key.chmod(0o644)
        live.settings_file.write_text(yaml.safe_dump(_known(live)))
        assert "mode is 0644" in _refused(live)


def _known(live: WholeRegistry) -> dict[str, object]:
    listen = {"listen": live.address}
    return {"name": live.address, "data": str(live.settings.data), "http": listen}


@pytest.mark.root
def test_data_folder_that_the_users_cannot_enter_is_refused() -> None:
    need_root()
    with prepared() as live:
        live.folder.chmod(0o700)
        assert f"folder {live.folder} has mode 0700" in _refused(live)


@pytest.mark.root
def test_what_root_makes_beside_the_database_is_the_groups_at_once() -> None:
    need_root()
    with prepared() as live:
        apart(lambda: first_start(live.settings, now=now()))
        made = live.settings.data / "catalogue.sqlite-shm"
        made.touch()
        assert made.stat().st_gid == processes.shared_gid(live.settings) != os.getegid()
        assert live.settings.data.stat().st_mode & 0o7777 == 0o2770


def test_key_is_printed_before_the_first_start_for_the_officers() -> None:
    with prepared() as live:
        places = Places(live.settings)
        places.signer_key.unlink()
        command = [sys.executable, "-m", "pratique", "serve", "--config", str(live.settings_file), "--print-key"]
        first = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout
        again = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout
        assert first == again == places.public_key.read_bytes()
        assert PublicKey.from_pem(first).algorithm == "ecdsa-p256-sha256"
        assert places.signer_key.stat().st_mode & 0o777 == 0o600
