"""The process that fetches copies: it alone of a registry speaks to others, with a user and secrets of its own."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from ocispec.access import Access, Credentials
from ocispec.digest import Digest
from ocispec.errors import MissingError, SpecError
from ocispec.remote import Remote
from registry import processes
from registry.audit import Audit
from registry.catalogue.database import Catalogue
from registry.catalogue.mirrored import Lookup, Said, note_lookup
from registry.collect.leases import Leases
from registry.errors import RegistryError, SettingsError, StorageError
from registry.judge import jobs
from registry.judge.jobs import ClaimLostError, Job, JobKind
from registry.judge.queue import JudgeQueue
from registry.mirror.fetch import Fetcher
from registry.mirror.mirrors import Mirrors
from registry.places import Places
from registry.settings import Settings
from registry.settings_mirror import MirrorSettings
from registry.store.open import open_store

FETCHES: Final = 4
"""Manifests that are fetched at a time."""

MAX_SECRET: Final = 16 * 1024
_POLL_SECONDS: Final = 0.1
_RENEW_SECONDS: Final = jobs.CLAIM_SECONDS / 3

_log = logging.getLogger("pratique.mirror")


def run(settings: Settings, number: int) -> None:
    """Work until SIGTERM."""
    store, catalogue = open_store(settings), Catalogue(settings.catalogue_url, connections=FETCHES * 4)
    with catalogue.read():
        pass  # the driver is imported with the first connection
    catalogue.close()
    with suppress(StorageError):
        store.check()  # and so is what the store's client imports
    with ExitStack() as stack:
        # Before root is given up: secrets and certificates are read here.
        remotes = {each.prefix: stack.enter_context(_remote(each)) for each in settings.mirrors}
        processes.become(settings.users.mirror, "users.mirror", settings)
        fetcher = Fetcher(
            store=store,
            catalogue=catalogue,
            leases=Leases(catalogue, processes.utc_now),
            audit=Audit(processes.utc_now),
            judge=JudgeQueue(catalogue, settings.judge_socket, processes.utc_now),
            limits=settings.limits,
            clock=processes.utc_now,
        )
        Places(settings).mirror_sign.touch()
        name = f"{processes.instance(settings)}/mirror-{number}"
        Fetching(
            name=name,
            fetcher=fetcher,
            mirrors=Mirrors(settings.mirrors),
            remotes=remotes,
            catalogue=catalogue,
            clock=processes.utc_now,
        ).run(processes.stop_flag())
    catalogue.close()


def _remote(mirror: MirrorSettings) -> Remote:
    credentials = None
    if mirror.secret_file is not None:
        credentials = Credentials(name=mirror.account, secret=read_secret(mirror.secret_file))
    access = Access(
        credentials=credentials,
        ca_file=mirror.ca_file,
        plain_http=mirror.scheme == "http",
        token_hosts=mirror.token_hosts,
        attempts=3,
    )
    return Remote(mirror.registry, access)


def read_secret(path: Path) -> str:
    """The secret in a file that its owner alone may read.

    Raises:
        SettingsError: others may, or it holds none.
    """
    try:
        mode = path.stat().st_mode & 0o7777
        with path.open("rb") as file:
            secret = file.read(MAX_SECRET + 1).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"setting mirrors: secret_file {path}: {error}") from error
    if mode & 0o077:
        raise SettingsError(f"setting mirrors: secret_file {path} has mode {mode:04o}, expected its owner alone")
    if not secret or len(secret) > MAX_SECRET:
        raise SettingsError(f"setting mirrors: secret_file {path}: expected one secret")
    return secret


@dataclass(slots=True)
class _Work:
    job: Job
    renewed: float


@dataclass(slots=True, kw_only=True)
class Fetching:
    """Takes MIRROR jobs and fetches; each ends in a recorded look-up, however it ends."""

    name: str
    fetcher: Fetcher
    mirrors: Mirrors
    remotes: Mapping[str, Remote]
    catalogue: Catalogue
    clock: Callable[[], datetime]
    _running: dict[Future[None], _Work] = field(default_factory=dict)

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Work until `should_stop` says so; what is being fetched then is given back."""
        with self.catalogue.write() as conn:
            jobs.free_claims_of(conn, self.name)
        pool = ThreadPoolExecutor(FETCHES, thread_name_prefix="mirror")
        while not should_stop():
            try:
                self.step(pool)
            except RegistryError as error:  # the catalogue is away, and may come back
                _log.error("%s", error)
            time.sleep(_POLL_SECONDS)
        pool.shutdown(wait=False, cancel_futures=True)
        with suppress(RegistryError), self.catalogue.write() as conn:
            jobs.free_claims_of(conn, self.name)

    def step(self, pool: ThreadPoolExecutor) -> None:
        """Look after what runs, and take up more."""
        for future in [each for each in self._running if each.done()]:
            del self._running[future]
            error = future.exception()
            if error is not None:
                _log.error("mirror: %s", error)
        self._renew()
        while len(self._running) < FETCHES and (job := self._claim()) is not None:
            self._running[pool.submit(self.work, job)] = _Work(job, time.monotonic())

    def work(self, job: Job) -> None:
        """Fetch what one job is about, and record how that went."""
        repository, _, reference = job.subject.partition(" ")
        lookup = self._look_up(repository, reference)
        try:
            with self.catalogue.write() as conn:
                note_lookup(conn, repository, reference, lookup)
                jobs.finish(conn, job, now=self.clock())
        except ClaimLostError as error:
            _log.info("%s", error)

    def _look_up(self, repository: str, reference: str) -> Lookup:
        copy = self.mirrors.find(repository)
        said, detail = Said.FAILED, ""
        try:
            if copy is None:
                detail = f"{repository}: no copy of anything any more"
            else:
                wanted = Digest.parse(reference) if ":" in reference else reference
                digest = self.fetcher.fetch(self.remotes[copy.mirror.prefix], copy, wanted)
                _log.info("%s:%s is %s of %s", repository, reference, digest, copy.origin)
                said = Said.FOUND
        except MissingError:
            said = Said.MISSING
        except (SpecError, RegistryError, OSError) as error:
            detail = " ".join(str(error).split())
        except Exception as error:  # what we did not foresee is a failure of this look-up, not of the process
            _log.exception("mirror: %s %s", repository, reference)
            detail = f"{type(error).__name__}: {error}"
        if detail:
            _log.warning("%s %s: %s", repository, reference, detail)
        return Lookup(said=said, checked=self.clock(), detail=detail)

    def _claim(self) -> Job | None:
        now = self.clock()
        with self.catalogue.read() as conn:
            if not jobs.any_free(conn, now=now, kinds=(JobKind.MIRROR,)):
                return None
        with self.catalogue.write() as conn:
            token = f"{self.name}:{secrets.token_hex(12)}"
            return jobs.claim(conn, token=token, now=now, kinds=(JobKind.MIRROR,))

    def _renew(self) -> None:
        now = time.monotonic()
        for work in self._running.values():
            if now - work.renewed > _RENEW_SECONDS:
                work.renewed = now
                with suppress(ClaimLostError), self.catalogue.write() as conn:
                    jobs.renew(conn, work.job, now=self.clock())
