"""`pratique serve`: the first start, and the processes of a registry from then on.

The first start makes folders, tables, the registry's key (readable by the signer alone) and a one-time bootstrap
token, with which exactly one admin account can be made; trust.json and policy are taken from the settings, or
handed in later. Without them everything stays quarantined.

    keeper   forks confined children; root if we are, reads nothing hostile itself
    signer   own user; alone reads the private key
    judge    own user; as many as the settings say
    web      own user

They are watched, started again when they end by themselves, and stopped: the web first, then the others.
A process that cannot stay up stops the registry: half of one would be worse to find.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from policy.key_files import read_public
from registry import processes
from registry.errors import RegistryError
from registry.first import FirstStart, first_start, make_key
from registry.places import Places
from registry.settings import Settings, load
from registry.signer.identity import adopt

START_SECONDS: Final = 60.0
"""How long a process may take until it can be asked."""

STOP_SECONDS: Final = 30.0
MAX_RESTARTS: Final = 5
"""Restarts of one process within RESTART_SECONDS, after which the registry stops."""

RESTART_SECONDS: Final = 60.0
READY: Final = "pratique registry"
"""How the line on standard output begins that says that the registry can be used."""

_log = logging.getLogger("pratique.serve")


@dataclass(slots=True)
class _Process:
    """One process that is kept running; `ready` says when it can be asked."""

    name: str
    command: Sequence[str]
    ready: Callable[[], bool]
    popen: subprocess.Popen[bytes] | None = None
    started: list[float] = field(default_factory=list)

    def start(self) -> None:
        self.started.append(time.monotonic())
        self.popen = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, start_new_session=True)

    def failing(self) -> bool:
        """True if it was started too often of late."""
        now = time.monotonic()
        self.started[:] = [at for at in self.started if now - at < RESTART_SECONDS]
        return len(self.started) > MAX_RESTARTS

    def terminate(self) -> None:
        """Tell it to stop."""
        if self.popen is not None and self.popen.poll() is None:
            self.popen.terminate()

    def wait(self) -> None:
        """Return when it has ended, by force after STOP_SECONDS."""
        if self.popen is None:
            return
        try:
            self.popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _log.warning("process %s did not stop within %g s", self.name, STOP_SECONDS)
            os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()


def serve(settings_path: Path) -> int:
    """Run a registry until SIGTERM or SIGINT; returns the exit code of a stop that was asked for, 0.

    Raises:
        RegistryError: the settings are refused, or a process does not stay up; what was started is stopped.
        PolicyError: trust.json, the policy or the key is refused.
        OSError: a file or folder cannot be used.
    """
    processes.log_to_stderr("serve")
    stopped = processes.stop_flag()
    settings = load(settings_path)
    first = first_start(settings, now=processes.utc_now())
    _tell(first)
    running = _processes(settings, settings_path.absolute())
    try:
        for process in running:
            process.start()
        _wait_until_ready(running, stopped)
        if not stopped():
            _say_ready(settings)
        _watch(running, stopped)
    finally:
        _stop(running)
    return 0


def print_key(settings_path: Path) -> int:
    """Make the registry's key if there is none, and print its public half: officers put it into trust.json.

    Raises:
        RegistryError, TrustError, OSError: as `serve`.
    """
    processes.log_to_stderr("serve")
    key = make_key(load(settings_path))
    sys.stdout.write(key.pem.decode())
    return 0


def adopt_signer(settings_path: Path) -> int:
    """Have catalogue and signer's memory take this registry's key and memory, which were replaced on purpose.

    Raises:
        RegistryError, TrustError: as `registry.signer.identity.adopt`.
    """
    processes.log_to_stderr("serve")
    sys.stdout.write(f"catalogue and memory belong to the signer with key {adopt(load(settings_path))} now\n")
    return 0


def _tell(first: FirstStart) -> None:
    """What the operator must know of the first start, on standard output: it is shown this once."""
    if first.token:
        sys.stdout.write(f"bootstrap token (once, for the first admin account): {first.token}\n")
    for note in first.notes:
        sys.stdout.write(f"{note}\n")
    sys.stdout.flush()


def _say_ready(settings: Settings) -> None:
    scheme = "https" if settings.http.certificate is not None else "http"
    key = read_public(Places(settings).public_key)
    sys.stdout.write(f"{READY} {settings.name} ready at {scheme}://{settings.http.listen} with key {key.id}\n")
    sys.stdout.flush()


def _processes(settings: Settings, path: Path) -> list[_Process]:
    places = Places(settings)
    for socket_path in (places.keeper_socket, places.signer_socket, settings.judge_socket):
        socket_path.unlink(missing_ok=True)
    inner = [sys.executable, "-m", "registry.run"]
    judges = [
        _Process(f"judge-{number}", [*inner, "judge", str(path), str(number)], settings.judge_socket.exists)
        for number in range(settings.judge.workers)
    ]
    return [
        _Process("keeper", [*inner, "keeper", str(path)], places.keeper_socket.exists),
        _Process("signer", [*inner, "signer", str(path)], places.signer_socket.exists),
        *judges,
        _Process("web", [sys.executable, "-m", "registry.web", str(path)], lambda: _listens(settings)),
    ]


def _stop(running: Sequence[_Process]) -> None:
    """The web first, which finishes its requests; then the others at once: their work is in the queue."""
    *inner, web = running
    web.terminate()
    web.wait()
    for process in inner:
        process.terminate()
    for process in inner:
        process.wait()


def _wait_until_ready(running: Sequence[_Process], stopped: Callable[[], bool]) -> None:
    """Return when all can be asked, or the registry is to stop.

    Raises:
        RegistryError: one of them ended, whichever is waited for, or takes too long.
    """
    for process in running:
        deadline = time.monotonic() + START_SECONDS
        while not process.ready() and not stopped():
            for each in running:
                if each.popen is not None and each.popen.poll() is not None:
                    raise RegistryError(f"process {each.name}: ended with {each.popen.returncode} as it was started")
            if time.monotonic() > deadline:
                raise RegistryError(f"process {process.name}: not ready within {START_SECONDS:g} s")
            time.sleep(0.02)


def _listens(settings: Settings) -> bool:
    host, _, port = settings.http.listen.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1):
            return True
    except OSError:
        return False


def _watch(running: Sequence[_Process], stopped: Callable[[], bool]) -> None:
    """Start again what ends by itself.

    Raises:
        RegistryError: a process does not stay up.
    """
    while not stopped():
        time.sleep(0.1)
        for process in running:
            if process.popen is None or process.popen.poll() is None:
                continue
            _log.warning("process %s ended with %s: it is started again", process.name, process.popen.returncode)
            if process.failing():
                raise RegistryError(f"process {process.name}: ended {MAX_RESTARTS} times in {RESTART_SECONDS:g} s")
            process.start()
