"""One slot: a process that parks a first process, has it carry out an order, and supervises that container to its end.

    (1) hold a name for its cgroups, make them, park a first process in them, and say that it is ready
    (2) an order comes: the first process begins with it at once
    (3) meanwhile the container's name is claimed, its record written and its limits set; then it gets its word
    (4) once its program runs, broker and caller are told
    (5) see it through; the caller is told how it ended
    (6) the broker says whether to begin again at (1), with another name and other cgroups

Until (2) a slot ends when the broker does. From then on it belongs to the container, and outlives the broker: nothing
of it depends on the broker any more but the watch. A slot that is killed is cleared up after by whoever finds it.

Of one container nothing is left for the next but the process: what it had open is closed, and it never left the host.
A process that has done it once has its own copy of the pages that it writes to, which is half of what a start costs.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from runtime.broker import wire
from runtime.broker.parked import Parked, park
from runtime.broker.replies import Caller
from runtime.errors import ContainerError, HostError, StepError
from runtime.guard import keep_only
from runtime.life import Attached, Life
from runtime.linux import syscalls
from runtime.linux.cgroups import Group, Limits
from runtime.linux.devices import DEFAULT_RULES
from runtime.linux.owned import Owned
from runtime.model import StartRequest, StopReason
from runtime.plan import HostFacts, namespaces, preparation
from runtime.spawn import Streams
from runtime.state import Claim, StateStore
from runtime.supervise import Forward

READY: Final = b"R"
STARTED: Final = b"S"
DONE: Final = b"D"
FAILED: Final = b"E"
AGAIN: Final = b"A"
ROUNDS: Final = 1000
"""Containers that one slot has at most, one after the other."""
WATCHED: Final = "watched"
"""The file in a container's folder that says what its watch has to know (runtime.watched)."""
CALLER: Final = ("connection", "stdin", "stdout", "stderr")
"""Descriptors of the caller's, after those for the first process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotFacts:
    """What every slot of a broker has to know."""

    host: HostFacts
    store: StateStore
    cgroup_parent: str
    rehearsal: bytes = b""
    """Pickled operations of some plan, to be gone through while there is time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a slot is to start. Descriptors come beside it: those named by `fds`, then CALLER's."""

    request: StartRequest
    operations: bytes
    """Pickled: the operations of the plan that the preparation leaves."""
    limits: Limits
    fds: tuple[str, ...]
    detached: bool
    watched: bytes
    """What is kept beside its record, for whoever watches it."""


def slot(control: socket.socket, facts: SlotFacts, *, own_network: bool) -> NoReturn:
    """Be a slot; `control` is the broker's other end. To be called in a fresh fork."""
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        keep_only(control.fileno())
        os.chdir("/")
        syscalls.prctl_name("pratique-slot")
        _Slot(control, facts, own_network=own_network).live()
    except BaseException as error:
        with contextlib.suppress(OSError):
            said = f"{type(error).__name__}: {error}"
            control.send(FAILED + said.encode("utf-8", "replace")[:4096])
    finally:
        os._exit(0)


class _Slot:
    """All rounds of one slot."""

    def __init__(self, control: socket.socket, facts: SlotFacts, *, own_network: bool) -> None:
        self._control, self._facts = control, facts
        self._own_network = own_network
        self._steps = preparation(facts.host, own_network=own_network)

    def live(self) -> None:
        """Go round until the broker wants no more, or is gone."""
        for _ in range(ROUNDS):
            # No container's name begins like this.
            name = f"_{os.urandom(6).hex()}"
            group = Group(hierarchies=self._facts.host.hierarchies, parent=self._facts.cgroup_parent, name=name)
            held = self._facts.store.claim_slot(name, self._facts.cgroup_parent)
            try:
                with Owned() as owned:
                    used = self._serve(group, owned)
            finally:
                group.clear()
                self._facts.store.release_slot(name, held)
            if not used or wire.receive(self._control)[0] != AGAIN:  # (6)
                return

    def _serve(self, group: Group, owned: Owned) -> bool:
        """Steps (1) to (5); False if there was no order."""
        group.create(Limits(devices=DEFAULT_RULES))  # (1)
        flags = namespaces(own_network=self._own_network)
        parked = park(self._steps, flags, group, owned, self._facts.rehearsal)
        with parked.orders:
            try:
                if not parked.ready():
                    parked.begun.await_execve("")  # raises what its report says
                self._control.send(READY + group.name.encode())
                ordered = self._await_order(parked)
            except BaseException:
                parked.begun.end()
                raise
            if ordered is None:
                parked.begun.end()
                return False
            self._carry_out(*ordered, parked, group, owned)
        return True

    def _await_order(self, parked: Parked) -> tuple[bytes, list[int]] | None:
        """The order; None if the broker is gone, or the first process is."""
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(parked.begun.pidfd, select.POLLIN)
        if self._control.fileno() not in {fd for fd, _ in poller.poll()}:
            return None
        # An order for a first process that was killed just now is carried out as far as it goes: its caller hears.
        message, fds = wire.receive(self._control)
        return (message, fds) if message else None

    def _carry_out(self, message: bytes, fds: list[int], parked: Parked, group: Group, owned: Owned) -> None:
        order: Order = pickle.loads(message)  # noqa: S301  # from the broker
        given = {name: owned.add(fd) for name, fd in zip((*order.fds, *CALLER), fds, strict=True)}
        with socket.socket(fileno=os.dup(given["connection"])) as connection:
            start = _Start(
                order=order,
                parked=parked,
                given=given,
                caller=Caller(connection),
                group=group,
                store=self._facts.store,
                tell=self._tell,
                owned=owned,
            )
            try:
                start.run()
            except ContainerError as error:
                start.caller.failed(error)
        self._tell(DONE)

    def _tell(self, message: bytes) -> None:
        """Tell the broker, if it is still there."""
        with contextlib.suppress(OSError):
            self._control.send(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """Steps (2) to (5)."""

    order: Order
    parked: Parked
    given: dict[str, int]
    caller: Caller
    group: Group
    store: StateStore
    tell: Callable[[bytes], None]
    owned: Owned

    def run(self) -> None:
        request, begun = self.order.request, self.parked.begun
        claim: Claim | None = None
        try:
            streams = Streams.make(request, self.owned)
            self.parked.carry_out(  # (2)
                self.order.operations, {name: self.given[name] for name in self.order.fds} | streams.theirs
            )
            claim = self.store.claim(request.name)  # (3)
            life = Life(
                request=request,
                claim=claim,
                group=self.group,
                clear_group=False,  # takes the kernel milliseconds on v1, and nobody has to wait for it
                detached=self.order.detached,
            )
            container = life.container()
            claim.write(container)
            (claim.folder / WATCHED).write_bytes(self.order.watched)
            self._limit()
            begun.word(b"W")
            for fd in (*(self.given[name] for name in self.order.fds), *streams.theirs.values()):
                self.owned.close(fd)
            begun.await_execve(request.process.argv[0])
        except BrokenPipeError:
            begun.end()
            if claim is not None:
                claim.release(remove=True)
            raise StepError("the container's first process was killed before it could execute anything") from None
        except BaseException:
            begun.end()
            if claim is not None:
                claim.release(remove=True)
            raise
        running = streams.running(begun, self.owned)
        ended = life.see_through(container, running, self._started, self._attached())  # (4), (5)
        if not self.order.detached:
            self._say_end(ended.exit_code, ended.reason)

    def _limit(self) -> None:
        try:
            self.group.limit(self.order.limits)
        except OSError as error:
            raise HostError(f"cgroup {self.group.parent}/{self.group.name}: {error}") from error

    def _started(self) -> None:
        self.tell(STARTED + str(self.order.request.name).encode())
        if self.order.detached:
            self.caller.say(str(self.order.request.name))
            self.caller.end(0)
            for name in CALLER:
                self.owned.close(self.given[name])

    def _attached(self) -> Attached:
        if self.order.detached:
            return Attached()
        return Attached(
            signals=self.given["connection"],
            forward=Forward({"stdout": self.given["stdout"], "stderr": self.given["stderr"]}),
            stdin=self.given["stdin"] if self.order.request.stdin else None,
        )

    def _say_end(self, code: int, reason: StopReason | None) -> None:
        if reason is not None:
            self.caller.complain(f"stopped: {reason.code}: {reason.message}")
        self.caller.end(code)
