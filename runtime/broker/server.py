"""The broker itself: callers at a socket, each start given to a slot, everything that runs watched.

    Broker(host=host, store=states, front=front, roles=roles, listener=listener, parked=4).run()

A caller sends one message, with its standard input, output and error: the version of this protocol, a verb, its store
and state folder, and the words after the verb, each ended by a NUL. It is answered as `replies.py` says. For a start
the connection goes to the slot: the caller then sends bytes that are numbers of signals, and is told how it ended.

The front knows what the words mean: it is the command line's own, so a start by the broker is what one without it is.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from ocispec.reference import Reference
from policy.refusal import Refused
from runtime.broker import wire
from runtime.broker.loop import Loop
from runtime.broker.pool import Pool, Slot
from runtime.broker.replies import Caller
from runtime.broker.roles import Role, Roles, peer_of
from runtime.broker.slot import DONE, STARTED, SlotFacts
from runtime.broker.starting import Starter, rehearsal
from runtime.broker.watching import Watching
from runtime.errors import ContainerError, HostError, RequestError
from runtime.facts import host_facts
from runtime.host import Host
from runtime.launch import parent_of
from runtime.linux import constants as c
from runtime.linux import syscalls
from runtime.linux.owned import Owned
from runtime.model import ContainerId
from runtime.state import StateStore
from runtime.watched import Watched
from runtime.wish import Wish

VERSION: Final = "1"
MAX_CALLERS: Final = 128
"""Connections that have not asked yet, or wait for a slot; with their streams half of what may be open."""
MAX_PRINTED: Final = 1024 * 1024
"""Characters that a verb which looks may print."""
PATIENCE: Final = 10.0
"""Seconds that a caller may take until it asks, and that a start may wait for a slot."""
CLERK_COMES: Final = 5.0
CLERK_STAYS: Final = 60.0
"""Seconds that something has to run until registries are asked, and that nothing has to until they are not."""
_STREAMS: Final = 3
_BACKLOG: Final = 128
_ROOT: Final = Path(__file__).parents[2]
_CLERK: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from runtime.broker.clerk import main; "
    "main(Path(sys.argv[2]), Path(sys.argv[3]))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A start, as the caller's words ask for it. One that is to `pull` first is not for the broker."""

    reference: Reference
    wish: Wish
    detached: bool
    pull: str


class SaidError(Exception):
    """The words ask for nothing that can be done; `text` says why, `code` is what the caller ends with."""

    def __init__(self, text: str, code: int) -> None:
        """Say `text`, and end with `code`."""
        super().__init__(text)
        self.text, self.code = text, code


class NotHereError(Exception):
    """The caller has to do by itself what it asks for."""


class Front(Protocol):
    """What the caller's words mean."""

    def start(self, words: Sequence[str]) -> Asked:
        """What `run` with these words asks for.

        Raises:
            SaidError: nothing that can be started.
            NotHereError: something else than a start (its help).
        """

    def refused(self, refused: Refused) -> tuple[str, ...]:
        """The lines that say why something may not start."""

    def look(self, verb: str, words: Sequence[str]) -> tuple[str, str, int]:
        """What a verb that only looks prints on both streams, and ends with.

        Raises:
            SaidError: it is not one of those.
        """


@dataclass(eq=False, slots=True)
class _Waiting:
    """A caller that has connected, and perhaps asked for a start that waits for a slot."""

    connection: socket.socket
    role: Role
    since: float
    asked: Asked | None = None
    fds: list[int] = field(default_factory=list)

    @property
    def caller(self) -> Caller:
        return Caller(self.connection)

    def close(self) -> None:
        wire.close_all(self.fds)
        self.connection.close()


@dataclass(slots=True, kw_only=True)
class Broker:
    """See the module. `parked` is how many first processes wait."""

    host: Host
    store: StateStore
    front: Front
    roles: Roles
    listener: socket.socket
    clock: Callable[[], datetime]
    parked: int = 4
    watch_interval: float = 1.0
    patience: float = PATIENCE
    cgroup_parent: str = ""
    log: Callable[[str], None] = lambda _: None
    """Told what went wrong, a line each time."""
    on_ready: Callable[[], None] = lambda: None
    """Called once the first slots are parked."""
    _loop: Loop = field(init=False)
    _callers: set[_Waiting] = field(default_factory=set)
    _queue: deque[_Waiting] = field(default_factory=deque)
    _clerk: subprocess.Popen[bytes] | None = None
    _ran: float = field(default_factory=time.monotonic)
    _idle: float = field(default_factory=time.monotonic)
    """When something ran, and when nothing did, as was last seen."""
    _told: bool = False
    _untidy: bool = False
    _pool: Pool = field(init=False)
    _starter: Starter = field(init=False)
    _watching: Watching = field(init=False)

    def __post_init__(self) -> None:
        """Look at the host."""
        facts = host_facts(self.store)
        parent = self.cgroup_parent or parent_of(self.store.path)
        self._loop = Loop(failed=lambda error: self.log(f"broker: {type(error).__name__}: {error}"))
        slots = SlotFacts(host=facts, store=self.store, cgroup_parent=parent, rehearsal=rehearsal(facts))
        self._pool = Pool(
            facts=slots, size=self.parked, loop=self._loop, ready=self._serve_queue, killed=self._tidy_up, log=self.log
        )
        self._starter = Starter(host=self.host, facts=facts, store=self.store, clock=self.clock)
        self._watching = Watching(host=self.host, store=self.store, clock=self.clock)

    def run(self) -> None:
        """Serve until `stop`. Containers live on; the slots that wait end."""
        self.store.reconcile()
        self._watching.find()
        self.listener.setblocking(False)
        self._loop.watch(self.listener.fileno(), self._accept)
        self._loop.every(self.watch_interval, self._look)
        try:
            self._pool.start()
            self._loop.run()
        finally:
            self._pool.close()
            for waiting in list(self._callers):
                self._drop(waiting)
            self._end_clerk()

    def stop(self) -> None:
        """Leave `run`."""
        self._loop.stop()

    # Callers

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            try:
                role = self.roles.of(peer_of(connection))
            except OSError:
                connection.close()
                continue
            if len(self._callers) >= MAX_CALLERS:
                Caller(connection).leave()
                connection.close()
                continue
            connection.setblocking(False)
            waiting = _Waiting(connection, role, time.monotonic())
            self._callers.add(waiting)
            self._loop.watch(connection.fileno(), lambda waiting=waiting: self._heard(waiting))  # type: ignore[misc]  # mypy cannot infer the default's type

    def _heard(self, waiting: _Waiting) -> None:
        """A caller has said what it wants, or is gone."""
        try:
            message, fds = wire.receive(waiting.connection)
        except BlockingIOError:
            return
        except OSError:
            message, fds = b"", []
        if not message or waiting.asked is not None:
            wire.close_all(fds)
            self._drop(waiting)  # gone, or it says more than one thing before it was answered
            return
        waiting.fds = fds
        try:
            self._do(waiting, message)
        except NotHereError:
            waiting.caller.leave()
        except SaidError as error:
            waiting.caller.complain(error.text)
            waiting.caller.end(error.code)
        except ContainerError as error:
            waiting.caller.failed(error)
        except Exception as error:
            what = f"broker: internal error: {type(error).__name__}: {error}"
            self.log(what)
            waiting.caller.complain(f"pratique: {what}")
            waiting.caller.end(HostError.exit_code)
        if waiting.asked is None:
            self._drop(waiting)

    def _do(self, waiting: _Waiting, message: bytes) -> None:
        version, verb, store, state, *words = map(os.fsdecode, message.removesuffix(b"\0").split(b"\0"))
        if (version, store, state) != (VERSION, str(self.host.store.path), str(self.store.path)):
            raise NotHereError
        if verb == "run":
            _need(waiting.role, Role.START, "start containers")
            _check_streams(waiting.fds)
            asked = self.front.start(words)
            if asked.pull == "always":
                raise NotHereError
            waiting.asked, waiting.since = asked, time.monotonic()
            self._queue.append(waiting)
            self._serve_queue()
            return
        _need(waiting.role, Role.LOOK, "look at containers")
        out, err, code = self.front.look(verb, words)
        if len(out) > MAX_PRINTED:
            raise SaidError(f"pratique: broker: {verb}: more than {MAX_PRINTED} characters; ask root", 1)
        wire.widen(waiting.connection)  # nobody waits until it is read
        waiting.caller.give(out)
        waiting.caller.give(err, stderr=True)
        waiting.caller.end(code)

    def _drop(self, waiting: _Waiting) -> None:
        self._callers.discard(waiting)
        with contextlib.suppress(ValueError):
            self._queue.remove(waiting)
        self._loop.forget(waiting.connection.fileno())
        waiting.close()

    # Starts

    def _serve_queue(self) -> None:
        """Give slots to who waits for one, in their order."""
        if not self._told:
            self._told = True
            self.on_ready()
        wait: list[_Waiting] = []
        while self._queue:
            waiting = self._queue.popleft()
            slot = self._pool.take(own_network=_own_network(waiting))
            if slot is None:
                wait.append(waiting)
                continue
            try:
                if not self._start(waiting, slot):
                    self._queue.appendleft(waiting)
                    continue
            except ContainerError as error:
                waiting.caller.failed(error)
                self._pool.give_back(slot)
            except OSError as error:
                waiting.caller.failed(HostError(f"broker: {error}"))
                self._pool.give_back(slot)
            self._drop(waiting)
        self._queue.extend(wait)
        self._pool.fill(host_network=sum(not _own_network(waiting) for waiting in wait))

    def _start(self, waiting: _Waiting, slot: Slot) -> bool:
        """Admit it and give the slot its order, or say why not; False if the slot was killed meanwhile."""
        asked = waiting.asked
        if asked is None:
            raise RequestError("broker: a start that nobody asked for")
        with Owned() as owned:
            ordered = self._starter.order(asked.reference, asked.wish, detached=asked.detached, owned=owned)
            if isinstance(ordered, Refused):
                self._pool.give_back(slot)
                self._refuse(waiting, asked, ordered)
                return True
            for note in ordered.proven.notes:
                waiting.caller.complain(f"note: {note}")
            name, what = asked.wish.name, ordered.proven.watched()
            slot.said = lambda _, message: self._said(name, what, message)
            slot.ended = lambda _: self._watching.end(name)
            waiting.connection.setblocking(True)
            return self._pool.send(slot, ordered.order, [*ordered.fds, waiting.connection.fileno(), *waiting.fds])

    def _refuse(self, waiting: _Waiting, asked: Asked, refused: Refused) -> None:
        if refused.code == "not-pulled" and asked.pull == "missing":
            waiting.caller.leave()
            return
        for text in self.front.refused(refused):
            waiting.caller.complain(text)
        waiting.caller.end(HostError.exit_code)

    def _said(self, name: ContainerId, what: Watched, message: bytes) -> None:
        if message[:1] == STARTED:
            self._watching.begin(name, what)
        elif message[:1] == DONE:
            self._watching.end(name)

    def _tidy_up(self) -> None:
        """Clear up after a slot that was killed: now, and once more when the kernel has let go of all that it held."""
        self._untidy = True
        self.store.reconcile()

    # Every second

    def _look(self) -> None:
        if self._untidy:
            self._untidy = False
            self.store.reconcile()
        self._pool.look()
        self._watching.look()
        late = time.monotonic() - self.patience
        for waiting in [waiting for waiting in self._callers if waiting.since < late]:
            if waiting.asked is not None:
                why = f": {self._pool.failed}" if self._pool.failed else ""
                waiting.caller.failed(HostError(f"broker: no first process was ready in {self.patience:.0f} s{why}"))
            self._drop(waiting)
        self._see_to_clerk()

    def _see_to_clerk(self) -> None:
        """Have a clerk while something runs that is not over at once, and until nothing has run for a while."""
        now = time.monotonic()
        if self._watching.any:
            self._ran = now
        else:
            self._idle = now
        if self._clerk is not None:
            if now - self._ran > CLERK_STAYS:
                self._end_clerk()
            elif self._clerk.poll() is not None:
                self._clerk = None
        if self._clerk is not None or now - self._idle < CLERK_COMES:
            return
        arguments = [sys.executable, "-I", "-c", _CLERK, str(_ROOT), str(self.host.store.path), str(self.store.path)]
        self._clerk = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd="/")

    def _end_clerk(self) -> None:
        if self._clerk is not None:
            self._clerk.communicate()
            self._clerk = None


def _own_network(waiting: _Waiting) -> bool:
    return waiting.asked is None or waiting.asked.wish.network == "none"


def _need(role: Role, needed: Role, what: str) -> None:
    if role < needed:
        raise SaidError(f"pratique: broker: this user may not {what} here", HostError.exit_code)


def _check_streams(fds: Sequence[int]) -> None:
    """Refuse what is no standard stream: we write there, with our rights and not the caller's.

    Raises:
        SaidError: not three, or one in a file system of the kernel, where writing changes the host.
    """
    if len(fds) != _STREAMS:
        raise SaidError("pratique: broker: expected standard input, output and error", HostError.exit_code)
    kernel = {c.PROC_SUPER_MAGIC, c.SYSFS_MAGIC, c.CGROUP_SUPER_MAGIC, c.CGROUP2_SUPER_MAGIC}
    for fd in fds:
        mode = os.fstat(fd).st_mode
        plain = any(kind(mode) for kind in (stat.S_ISREG, stat.S_ISCHR, stat.S_ISFIFO, stat.S_ISSOCK))
        if not plain or syscalls.fstatfs_type(fd) in kernel:
            raise SaidError("pratique: broker: a standard stream is no file, pipe or terminal", HostError.exit_code)


def listen(path: Path, roles: Roles) -> socket.socket:
    """The socket that callers connect to: anybody may where there are groups, and is judged by who it is.

    A socket that a dead broker left is replaced; one that a broker listens on is not.

    Raises:
        HostError: a broker listens there, or the place cannot be used.
    """
    if _answers(path):
        raise HostError(f"socket {path}: a broker listens there already")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        if roles != Roles():
            path.chmod(0o666)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise HostError(f"socket {path}: {error.strerror}") from error
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        try:
            other.connect(str(path))
        except OSError:
            return False
    return True
