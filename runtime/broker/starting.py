"""From what a caller asks for to an order for a slot: admission, by remembered proofs, then plan and descriptors."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from ocispec.reference import Reference
from policy.refusal import Refused
from runtime import watched
from runtime.admission import Cleared, Proofs, Proven, admit
from runtime.broker.slot import Order
from runtime.facts import facts_for
from runtime.filters import filter_for
from runtime.host import Host
from runtime.linux.owned import Owned
from runtime.model import ContainerId, Process, Root, StartRequest
from runtime.plan import HostFacts, plan
from runtime.reaper import open_reaper
from runtime.spawn import provide
from runtime.state import StateStore
from runtime.wish import Wish


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """An order with the descriptors that go beside it, open for as long as their owner has them."""

    order: Order
    fds: tuple[int, ...]
    proven: Proven


def rehearsal(facts: HostFacts) -> bytes:
    """Operations as an order has them, of a container like any other."""
    process = Process(argv=("/bin/true",), env=("PATH=/bin",), uid=1, gid=1, groups=(1,))
    request = StartRequest(name=ContainerId("rehearsal"), root=Root(index_fd=-1), process=process)
    made = plan(request, facts, b"")
    return pickle.dumps(made.operations[made.prepared :])


@dataclass(slots=True, kw_only=True)
class Starter:
    """Makes orders on one host."""

    host: Host
    facts: HostFacts
    store: StateStore
    clock: Callable[[], datetime]
    _proofs: Proofs = field(default_factory=Proofs)
    _filters: dict[tuple[str, ...], bytes] = field(default_factory=dict)

    def order(self, reference: Reference, wish: Wish, *, detached: bool, owned: Owned) -> Ordered | Refused:
        """Admit the image, and make the order to start it.

        Raises:
            ContainerError: what is asked for is nothing that can be started, or this host lacks what it needs.
        """
        cleared = admit(reference, wish, host=self.host, now=self.clock(), proofs=self._proofs)
        if isinstance(cleared, Refused):
            return cleared
        with cleared:
            return self._ordered(cleared, detached=detached, owned=owned)

    def _ordered(self, cleared: Cleared, *, detached: bool, owned: Owned) -> Ordered:
        request, proven = cleared.request, cleared.proven
        reaper, reaper_fd = open_reaper() if request.init else ("", None)
        if reaper_fd is not None:
            owned.add(reaper_fd)
        made = plan(request, facts_for(request, self.facts, reaper), self._filter(request))
        fds = provide(request, reaper_fd, owned)
        order = Order(
            request=request,
            operations=pickle.dumps(made.operations[made.prepared :]),
            limits=made.limits,
            fds=tuple(fds),
            detached=detached,
            watched=watched.encode(proven.watched()),
        )
        return Ordered(order=order, fds=tuple(fds.values()), proven=proven)

    def _filter(self, request: StartRequest) -> bytes:
        capabilities = request.process.capabilities
        if capabilities not in self._filters:
            self._filters[capabilities] = filter_for(None, capabilities=capabilities, cache=self.store.path / "cache")
        return self._filters[capabilities]
