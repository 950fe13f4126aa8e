"""`pratique serve`: the first start, and the processes of a registry from then on.

The first start makes folders, tables, the registry's key (readable by the signer alone) and a one-time bootstrap
token, with which exactly one admin account can be made; trust.json and policy are taken from the settings, or
handed in later. Without them everything stays quarantined.

    keeper   forks confined children; root if we are, reads nothing hostile itself
    signer   own user; alone reads the private key
    judge    own user; as many as the settings say
    mirror   own user; fetches what is a copy of another registry's, if there are such
    metrics  the web's user; only if the settings say where
    certificates  the web's user; gives tokens for client certificates, if the settings say where
    web      own user

`supervise.py` keeps them running, reloads and stops them; all but the keeper are forked from here (`forked.py`), with
what was made for them beforehand (`prepared.py`). What reads the key as a registry starts does so in a process of its
own.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from policy.key_files import read_public
from registry import notify, processes
from registry.accepting import RETIRE
from registry.errors import SettingsError
from registry.forked import Forked, apart, preload, settle
from registry.listening import inherited_listener, open_listener
from registry.places import Places
from registry.settings import Settings, load
from registry.supervise import Appears, Child, Process, Ready, Says, Signals, Supervisor
from registry.telemetry.memory import make_folder, remove_folder

if TYPE_CHECKING:
    from registry.first import FirstStart
    from registry.prepared import Prepared

READY: Final = "pratique registry"
"""How the line on standard output begins that says that the registry can be used."""

_FORKED: Final = (
    *("registry.run", "registry.signer.process", "registry.judge.process", "registry.web", "registry.prepared"),
    "multiprocessing.popen_fork",  # by which the web's parent starts its workers
)
"""What is imported before anything is forked; what else some registries run has little beside."""

_ONCE: Final = (
    ("registry.processes", "look_up_codecs"),
    ("registry.signer.process", "warm_signing"),
    ("registry.judge.warm", "warm"),
)
"""What is used before anything is forked."""

_ALLOCATOR: Final = ("_RJEM_MALLOC_CONF", "narenas:1,dirty_decay_ms:500,muzzy_decay_ms:0")
"""For jemalloc, in the web server's library (jemalloc(3), TUNING): what its few threads have freed is soon given back.

It would keep it for ten seconds, in heaps of which each thread takes another.
"""

_log = logging.getLogger("pratique.serve")


def serve(settings_path: Path) -> int:
    """Run a registry until SIGTERM or SIGINT; returns the exit code of a stop that was asked for, 0.

    Raises:
        RegistryError: the settings are refused, or a process does not stay up; what was started is stopped.
        PolicyError: trust.json, the policy or the key is refused.
        OSError: a file or folder cannot be used.
    """
    processes.log_to_stderr("serve")
    signals = Signals()
    settings = load(settings_path)
    processes.log_to_stderr("serve", settings.log)
    with ExitStack() as stack:
        listener = stack.enter_context(inherited_listener() or open_listener(settings.http.listen))
        second: socket.socket | None = None
        if at := _value(settings, "certificates.listen"):
            second = stack.enter_context(open_listener(str(at), "certificates.listen"))
        os.umask(0o007)
        apart(lambda: _first_start(settings, settings_path.absolute()))
        run = _Run(path=settings_path.absolute(), settings=settings, listener=listener, second=second)
        run.prepare()
        supervisor, ready = run.supervisor(signals), _ready_line(settings)
        try:
            supervisor.start()
            if not signals.stop:
                _say(ready)
            supervisor.watch()
        finally:
            supervisor.stop()
            remove_folder(Places(settings).metrics)
    return 0


def print_key(settings_path: Path) -> int:
    """Make the registry's key if there is none, and print its public half: officers put it into trust.json.

    Raises:
        RegistryError, TrustError, OSError: as `serve`.
    """
    processes.log_to_stderr("serve")
    from registry.first import make_key  # noqa: PLC0415 -- as in `_first_start`

    key = make_key(load(settings_path))
    sys.stdout.write(key.pem.decode())
    return 0


def adopt_signer(settings_path: Path) -> int:
    """Have catalogue and signer's memory take this registry's key and memory, which were replaced on purpose.

    Raises:
        RegistryError, TrustError: as `registry.signer.identity.adopt`.
    """
    processes.log_to_stderr("serve")
    from registry.signer.identity import adopt  # noqa: PLC0415 -- as in `_first_start`

    sys.stdout.write(f"catalogue and memory belong to the signer with key {adopt(load(settings_path))} now\n")
    return 0


def _first_start(settings: Settings, path: Path) -> None:
    """What a start does before its processes; nothing of it stays in the supervisor's memory."""
    # Not before the settings are known: metrics are kept where they say as soon as their module is imported.
    from registry.first import first_start  # noqa: PLC0415
    from registry.settings_record import record_settings  # noqa: PLC0415

    first = first_start(settings, now=processes.utc_now())
    record_settings(settings, path, processes.utc_now)
    _tell(first)


def _tell(first: FirstStart) -> None:
    """What the operator must know of the first start, on standard output: it is shown this once."""
    if first.token:
        sys.stdout.write(f"bootstrap token (once, for the first admin account): {first.token}\n")
    for note in first.notes:
        sys.stdout.write(f"{note}\n")
    sys.stdout.flush()


def _ready_line(settings: Settings) -> str:
    scheme = "https" if settings.http.certificate is not None else "http"
    key = read_public(Places(settings).public_key)
    return f"{READY} {settings.name} ready at {scheme}://{settings.http.listen} with key {key.id}\n"


def _say(ready: str) -> None:
    sys.stdout.write(ready)
    sys.stdout.flush()
    notify.tell(notify.READY)


@dataclass(slots=True, kw_only=True)
class _Run:
    """How the processes of one run of the registry are started.

    `listener` is shared by all web processes, `second` by those that give tokens for certificates; `prepared` is for
    all that are forked from now on.
    """

    path: Path
    settings: Settings
    listener: socket.socket
    second: socket.socket | None = None
    prepared: Prepared | None = None

    def prepare(self) -> None:
        """Take away what an earlier run left in the run folder, say how much is logged, and get ready to fork."""
        places = Places(self.settings)
        for stale in (
            places.keeper_socket,
            places.signer_socket,
            self.settings.judge_socket,
            places.draining,
            places.mirror_sign,
        ):
            stale.unlink(missing_ok=True)
        if self.settings.metrics.listen:
            make_folder(places.metrics, processes.shared_gid(self.settings))
        self._tell_level(self.settings)
        if self.settings.metrics.listen:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(places.metrics)
        os.environ.setdefault(*_ALLOCATOR)
        preload(_FORKED, once=_ONCE)
        self.prepared = self._prepared_for(self.settings)
        settle()

    def _prepared_for(self, settings: Settings) -> Prepared:
        from registry.prepared import prepare  # noqa: PLC0415 -- as in `_first_start`

        return prepare(settings, self.prepared)

    def supervisor(self, signals: Signals) -> Supervisor:
        """Who keeps them running; nothing is started yet."""
        http = self.settings.http
        return Supervisor(
            inner=self._inner(),
            fronts=self._fronts(self.settings),
            signals=signals,
            reload=self._reload,
            drain=Places(self.settings).draining.touch,
            refuse=self._refuse,
            drain_seconds=http.drain,
            stop_seconds=http.stop,
            retire_seconds=http.body_deadline,
        )

    def _inner(self) -> list[Process]:
        settings, places = self.settings, Places(self.settings)
        made = [
            Process(name="keeper", launch=lambda: (self._start_keeper(), Appears(places.keeper_socket))),
            self._process("signer", ["signer"], Appears(places.signer_socket)),
            *(
                self._process(f"judge-{number}", ["judge", str(number)], Appears(settings.judge_socket))
                for number in range(settings.judge.workers)
            ),
        ]
        if settings.mirrors:
            made.append(self._process("mirror", ["mirror"], Appears(places.mirror_sign)))
        if settings.metrics.listen:
            made.append(self._process("metrics", ["metrics"], Appears(places.metrics), renewed=True))
        return made

    def _process(self, name: str, arguments: Sequence[str], ready: Ready, *, renewed: bool = False) -> Process:
        kind, *rest = arguments
        words = [kind, str(self.path), *rest]
        return Process(name=name, launch=lambda: (self._fork_inner(words), ready), renewed=renewed)

    def _fronts(self, settings: Settings) -> list[Process]:
        """Those whom clients reach: replaced at a reload, each at the same socket."""
        made = [self._front("web", "registry.web", self.listener, settings.http.workers, retire=RETIRE)]
        if self.second is not None:
            made.append(self._front("certificates", "registry.certificate_listener", self.second, 1))
        return made

    def _front(
        self, name: str, module: str, listener: socket.socket, count: int, *, retire: signal.Signals = signal.SIGTERM
    ) -> Process:
        prepared = self.prepared

        def launch() -> tuple[Child, Ready]:
            reader, writer = os.pipe()
            os.set_blocking(reader, False)
            words = [str(self.path), str(listener.fileno()), str(writer)]
            others = [each for each in (self.listener, self.second) if each is not None and each is not listener]
            try:
                return Forked(module, words, prepared, closed=others), Says(reader, count)
            finally:
                os.close(writer)

        return Process(name=name, launch=launch, retire=retire)

    def _refuse(self) -> None:
        self.listener.close()
        if self.second is not None:
            self.second.close()

    def _fork_inner(self, words: Sequence[str]) -> Child:
        sockets = [each for each in (self.listener, self.second) if each is not None]
        return Forked("registry.run", words, self.prepared, closed=sockets)

    def _start_keeper(self) -> Child:
        """By itself: what it forks reads hostile input, and is forked again and again, so it is small."""
        places, judge = Places(self.settings), processes.judge_uid(self.settings)
        words = [str(each) for each in (places.keeper_socket, places.cell, places.log_level, judge)]
        command = [sys.executable, "-m", "registry.keeper", *words, self.settings.log.format]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def _reload(self) -> list[Process]:
        """Those in front by the settings as they are now; the others are told what is logged.

        Raises:
            SettingsError: the settings cannot be used, or say something that only a restart can change.
            CatalogueError: what changed cannot be recorded.
        """
        settings = load(self.path)
        for key in ("name", "data", "catalogue", "http.listen", "metrics.listen", "certificates.listen"):
            before, now = _value(self.settings, key), _value(settings, key)
            if before != now:
                raise SettingsError(f"setting {key}: got {now}, was {before}: this needs a restart")
        from registry.settings_record import record_settings  # noqa: PLC0415 -- as in `_first_start`

        prepared = self._prepared_for(settings)
        record_settings(settings, self.path, processes.utc_now)
        self.prepared = prepared
        processes.log_to_stderr("serve", settings.log)
        self._tell_level(settings)
        return self._fronts(settings)

    def _tell_level(self, settings: Settings) -> None:
        """Write down what is logged, for processes that may not read the settings any more."""
        Places(self.settings).log_level.write_text(settings.log.level)


def _value(settings: object, key: str) -> object:
    for name in key.split("."):
        settings = getattr(settings, name, None)
    return settings
