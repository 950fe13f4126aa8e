"""A judge as a process; the first of them (number 0) hears notices, the others look for jobs by themselves."""

from __future__ import annotations

import logging
import os
import socket
from typing import Final

from registry import processes
from registry.audit import Audit
from registry.catalogue.database import Catalogue
from registry.errors import StorageError
from registry.judge.advising import Advising
from registry.judge.collecting import Collecting
from registry.judge.importing import AdvisoryFolder
from registry.judge.judge import Judge
from registry.judge.keeper import Remote
from registry.judge.outcome import Outcomes
from registry.judge.pulse import Pulse
from registry.judge.reading import Reader
from registry.judge.tasks import Tasks
from registry.judge.warm import warm
from registry.judge.worker import Worker
from registry.places import Places
from registry.publish import Publisher
from registry.settings import Settings
from registry.signer.client import SignerClient
from registry.signer.process import warm_signing
from registry.sockets import bind
from registry.store.interface import BlobStore
from registry.store.open import open_store
from registry.telemetry import traces

_log = logging.getLogger("pratique.judge")
CONNECTIONS: Final = 4
"""Connections to the catalogue at most."""

_CHILDREN_A_PROCESSOR: Final = 2


def run(settings: Settings, number: int, catalogue: Catalogue | None = None) -> None:
    """Work until SIGTERM, with the `catalogue` if it was made beforehand."""
    processes.stand_back()
    store, collected = open_store(settings), open_store(settings)
    catalogue = catalogue or Catalogue(settings.catalogue_url, connections=CONNECTIONS)
    with catalogue.read():
        pass  # the driver is imported with the first connection
    catalogue.close()
    try:
        store.check()  # and with it, what the store's client imports when it is first used
    except StorageError as error:
        _log.warning("%s", error)  # it may come back; jobs wait for it
    warm_signing()
    warm()
    traces.configure(settings.traces, process=f"judge-{number}", registry=settings.name)
    processes.become(settings.users.judge, "users.judge", settings)
    worker, should_stop = make_worker(settings, store, catalogue), processes.stop_flag(Places(settings).log_level)
    if number == 0:
        should_stop = Pulse(path=Places(settings).judge_alive, signer=worker.signer, stopped=should_stop).should_stop
    worker.collecting = Collecting(settings=settings, store=collected, catalogue=catalogue, clock=processes.utc_now)
    worker.name = f"{processes.instance(settings)}/judge-{number}"
    worker.begin(should_stop)
    if number == 0:
        worker.wake = bind(settings.judge_socket, socket.SOCK_DGRAM)
    worker.run(should_stop)
    catalogue.close()
    traces.close()


def make_worker(settings: Settings, store: BlobStore, catalogue: Catalogue) -> Worker:
    """A worker over these; its signer and keeper are looked for where the settings say."""
    places, audit = Places(settings), Audit(processes.utc_now)
    signer = SignerClient(path=places.signer_socket)
    tasks = Tasks(Remote(path=places.keeper_socket), limit=_CHILDREN_A_PROCESSOR * len(os.sched_getaffinity(0)))
    folder = AdvisoryFolder(places.advisories)
    reader = Reader(
        store=store,
        catalogue=catalogue,
        tasks=tasks,
        clock=processes.utc_now,
        advisories=folder,
    )
    publisher = Publisher(store=store, audit=audit, registry=settings.name)
    judge = Judge(
        registry=settings.name,
        store=store,
        catalogue=catalogue,
        reader=reader,
        signer=signer,
        outcomes=Outcomes(audit=audit, publisher=publisher, signer=signer),
        clock=processes.utc_now,
    )
    return Worker(
        catalogue=catalogue,
        judge=judge,
        reader=reader,
        tasks=tasks,
        signer=signer,
        audit=audit,
        advising=Advising(folder=folder, store=store, catalogue=catalogue, clock=processes.utc_now),
        clock=processes.utc_now,
    )
