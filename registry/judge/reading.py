"""From a stored image to what is in it: layers read, put together and matched, each once, in confined children.

Every step answers with its result, or with what it waits for (`Waiting`: a child is at work), or with what stands
in the way (`Obstacle`). Results are kept: by blob and diff_id, by chain ID, and reports for a while in memory. What
a child could not do is an obstacle of its own, never an empty result (L6).
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import BinaryIO, Final

from ocispec.config import ImageConfig, chain_ids
from ocispec.descriptor import COMPRESSION, FOREIGN_TYPES, Descriptor
from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.manifest import Manifest
from policy import canonical
from policy.model import State
from registry import assemble
from registry.catalogue.database import Catalogue
from registry.errors import BlobUnknownError, RegistryError
from registry.judge import layers as kept
from registry.judge.child import Answered, Failed, Outcome, Refused
from registry.judge.confine import Limits
from registry.judge.derived import assembly_key, root_index_key
from registry.judge.following import SHORT_SECONDS, Uploads
from registry.judge.importing import AdvisoryFolder
from registry.judge.layers import KnownLayer
from registry.judge.tasks import Stream, Tasks
from registry.judge.works import bundle, read_report
from registry.store.interface import BlobStore
from scanner import codec
from scanner.errors import ScanError
from scanner.model import Report

MAX_FAILURES: Final = 2
"""How often a child may fail at one thing before that is the answer, for FAILED_FOR."""

FAILED_FOR: Final = timedelta(minutes=5)

MAX_REPORTS: Final = 64
"""Reports kept in memory, for a judgement that is taken again at once."""

MAX_REMEMBERED: Final = 10_000
"""Refusals and failures kept in memory; beyond, all are forgotten, and met again."""

_log = logging.getLogger("pratique.judge")
_BYTES_A_SECOND: Final = 4 * 1024 * 1024
_BASE_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Waiting:
    """A child is at work; the step is to be tried again when one of these tasks has ended."""

    tasks: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Why an image cannot be judged: what its state is then, and the reason."""

    state: State
    reason: str
    message: str


class Reader:
    """Reads for the judge. One thread; `tasks` is stepped by whoever owns it."""

    def __init__(
        self,
        *,
        store: BlobStore,
        catalogue: Catalogue,
        tasks: Tasks,
        clock: Callable[[], datetime],
        advisories: AdvisoryFolder,
        short: float = SHORT_SECONDS,
    ) -> None:
        """`advisories` has the snapshot of advisory data; it may not be there yet. `short` as in `Uploads`."""
        self._store, self._catalogue, self._tasks, self._clock = store, catalogue, tasks, clock
        self._advisories = advisories
        self._failures: dict[str, tuple[int, str, datetime]] = {}
        self._refusals: dict[str, str] = {}
        self._reports: OrderedDict[str, Report] = OrderedDict()
        self.uploads = Uploads(
            store=store, catalogue=catalogue, tasks=tasks, keep=self._keep, guarded=self._guarded, short=short
        )

    # ---- layers -----------------------------------------------------------------------------------------------

    def _keep(self, digest: Digest, parts: tuple[bytes, ...]) -> bool:
        try:
            known = kept.keep_layer(self._store, parts)
        except (SpecError, ValueError) as error:
            # Only a child that was taken over answers so; the layer stays unread, and is read from the store.
            _log.warning("layer %s: its reader's answer is none: %s", digest, error)
            return False
        with self._catalogue.write() as conn:
            kept.record_layer(conn, digest, known, now=self._clock())
        return True

    def layers(self, manifest: Manifest, config: ImageConfig) -> Waiting | Obstacle | None:
        """Have all layers read; None when they are, and are what the config says."""
        waiting: set[str] = set()
        for descriptor, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
            with self._catalogue.read() as conn:
                known = kept.find_layer(conn, descriptor.digest)
            found = self._layer(descriptor, diff_id) if known is None else _check_layer(known, descriptor, diff_id)
            if isinstance(found, Obstacle):
                return found
            if isinstance(found, Waiting):
                waiting |= found.tasks
        return Waiting(frozenset(waiting)) if waiting else None

    def _layer(self, descriptor: Descriptor, diff_id: Digest) -> Waiting | Obstacle:
        if descriptor.media_type in FOREIGN_TYPES or descriptor.media_type not in COMPRESSION:
            message = f"layer {descriptor.digest}: media type {descriptor.media_type[:80]} is not read"
            return Obstacle(state=State.DENIED, reason="layer-refused", message=message)
        if (reading := self.uploads.reading(descriptor.digest)) is not None:
            return Waiting(frozenset({reading}))
        # The media type is part of the name: a manifest that gives a blob a wrong one must not spoil it for others.
        key = f"layer:{descriptor.digest}:{descriptor.media_type}"
        if self._tasks.running(key) or self._tasks.full:
            return Waiting(frozenset({key}))
        if key in self._refusals:
            return Obstacle(state=State.DENIED, reason="layer-refused", message=self._refusals[key])
        if (failure := self._given_up(key)) is not None:
            return Obstacle(state=State.QUARANTINED, reason="layer-unreadable", message=failure)
        try:
            stored = self._store.open(descriptor.digest)
        except BlobUnknownError:
            message = f"layer {descriptor.digest}: its blob is gone"
            return Obstacle(state=State.QUARANTINED, reason="layer-missing", message=message)
        self._start_layer(key, stored, descriptor, diff_id)
        return Waiting(frozenset({key}))

    def _start_layer(self, key: str, stored: BinaryIO, descriptor: Descriptor, diff_id: Digest) -> None:
        seconds = _BASE_SECONDS + descriptor.size // _BYTES_A_SECOND
        arguments: dict[str, str | int] = {
            "mediaType": str(descriptor.media_type),
            "digest": str(descriptor.digest),
            "size": descriptor.size,
        }
        limits = Limits(seconds=seconds, cpu_seconds=seconds)

        @self._guarded(key)
        def done(outcome: Outcome) -> None:
            if isinstance(outcome, Answered):
                if not self._keep(descriptor.digest, outcome.parts):
                    self._failed(key, f"layer {descriptor.digest}: its reader's answer is none")
            elif isinstance(outcome, Refused):
                self._refused(key, outcome.message)
            else:
                self._failed(key, f"layer {descriptor.digest}: its reader {outcome.code}: {outcome.message}")

        try:
            descriptor_of_file = stored.fileno()
        except (OSError, AttributeError):
            self._tasks.start(key, "layer", arguments, feed=Stream(source=stored), limits=limits, done=done)
            return
        with stored:
            self._tasks.start(key, "layer", arguments, sources=[descriptor_of_file], limits=limits, done=done)

    # ---- the image --------------------------------------------------------------------------------------------

    def assembly(self, config: ImageConfig) -> assemble.Assembly | Waiting | Obstacle:
        """What the image's layers, which have been read, come to."""
        count = len(config.diff_ids)
        chain = chain_ids(config.diff_ids)[-1]
        raw = self._store.get_derived(assembly_key(chain))
        if raw is not None:
            try:
                return assemble.load(raw, layers=count)
            except (SpecError, ScanError):
                self._store.delete_derived(assembly_key(chain))  # damaged: it is made again
        key = f"image:{chain}"
        if self._tasks.running(key) or self._tasks.full:
            return Waiting(frozenset({key}))
        if key in self._refusals:
            return Obstacle(state=State.DENIED, reason="layers-do-not-fit", message=self._refusals[key])
        if (failure := self._given_up(key)) is not None:
            return Obstacle(state=State.QUARANTINED, reason="image-unreadable", message=failure)
        parts: list[bytes] = []
        for diff_id in config.diff_ids:
            layer = kept.load_layer(self._store, diff_id)
            if layer is None:
                self._forget(diff_id)
                return Waiting(frozenset())
            parts += layer
        self._start_assembly(key, chain, parts, count)
        return Waiting(frozenset({key}))

    def _start_assembly(self, key: str, chain: Digest, parts: list[bytes], count: int) -> None:
        @self._guarded(key)
        def done(outcome: Outcome) -> None:
            if isinstance(outcome, Answered) and len(outcome.parts) == 2:
                made, index = outcome.parts
                self._store.put_derived(root_index_key(chain), index)
                self._store.put_derived(assembly_key(chain), made)
            elif isinstance(outcome, Refused):
                self._refused(key, outcome.message)
            else:
                said = f"{outcome.code}: {outcome.message}" if isinstance(outcome, Failed) else "answered too little"
                self._failed(key, f"image of chain {chain}: its reader {said}")

        source = bundle(parts)
        try:
            self._tasks.start(
                key,
                "image",
                {"layers": count},
                sources=[source],
                limits=Limits(seconds=300, cpu_seconds=300),
                done=done,
            )
        finally:
            os.close(source)

    def _forget(self, diff_id: Digest) -> None:
        """A layer's listing is gone: the layer is read again."""
        with self._catalogue.write() as conn:
            kept.forget_layer(conn, diff_id)

    # ---- the report -------------------------------------------------------------------------------------------

    def report(self, config: ImageConfig, assembly: assemble.Assembly, now: datetime) -> Report | Waiting | str:
        """The inventory judged by the newest advisory data; a text says why there is none."""
        chain = chain_ids(config.diff_ids)[-1]
        try:
            data = self._advisories.digest()
        except ScanError as error:
            return str(error)
        # End-of-life dates make a report of another day another one.
        key = f"match:{chain}:{data}:{now.date()}"
        known = self._reports.get(key)
        if known is not None:
            return known
        if self._tasks.running(key) or self._tasks.full:
            return Waiting(frozenset({key}))
        if (failure := self._given_up(key)) is not None:
            return failure
        self._start_match(key, assembly, now, with_data=data is not None)
        return Waiting(frozenset({key}))

    def _start_match(self, key: str, assembly: assemble.Assembly, now: datetime, *, with_data: bool) -> None:
        def done(outcome: Outcome) -> None:
            try:
                if isinstance(outcome, Answered) and outcome.parts:
                    self._reports[key] = read_report(outcome.parts[0])
                    while len(self._reports) > MAX_REPORTS:
                        self._reports.popitem(last=False)
                    return
                said = f"{outcome.code}: {outcome.message}" if isinstance(outcome, Failed) else str(outcome)
            except (SpecError, ScanError) as error:
                said = str(error)
            self._failed(key, f"scan: {said}")

        sources = [bundle([canonical.encode(assemble.clean(codec.to_json(assembly.inventory)))])]
        try:
            if with_data:
                sources.append(os.open(self._advisories.snapshot, os.O_RDONLY | os.O_CLOEXEC))
            self._tasks.start(
                key,
                "match",
                {"now": int(now.timestamp())},
                sources=sources,
                limits=Limits(seconds=120, cpu_seconds=120),
                done=done,
            )
        finally:
            for source in sources:
                os.close(source)

    def _guarded(self, key: str) -> Callable[[Callable[[Outcome], None]], Callable[[Outcome], None]]:
        """What is done with an outcome, with the store's and the catalogue's errors as failures of the task `key`."""

        def guard(function: Callable[[Outcome], None]) -> Callable[[Outcome], None]:
            def done(outcome: Outcome) -> None:
                try:
                    function(outcome)
                except (RegistryError, OSError) as error:
                    self._failed(key, f"{key}: {error}")

            return done

        return guard

    # ---- failures ---------------------------------------------------------------------------------------------

    def _refused(self, key: str, message: str) -> None:
        if len(self._refusals) >= MAX_REMEMBERED:
            self._refusals.clear()
        self._refusals[key] = message

    def _failed(self, key: str, message: str) -> None:
        _log.warning("%s", message)
        if len(self._failures) >= MAX_REMEMBERED:
            self._failures.clear()
        count, _, _ = self._failures.get(key, (0, "", self._clock()))
        self._failures[key] = (count + 1, message, self._clock())

    def _given_up(self, key: str) -> str | None:
        count, message, last = self._failures.get(key, (0, "", self._clock()))
        if count and self._clock() - last > FAILED_FOR:
            del self._failures[key]
            return None
        return message if count >= MAX_FAILURES else None


def _check_layer(known: KnownLayer, descriptor: Descriptor, diff_id: Digest) -> Obstacle | None:
    what = f"layer {descriptor.digest}"
    said = COMPRESSION.get(descriptor.media_type)
    if said != known.compression:
        message = f"{what}: compression mismatch: got {known.compression}, its media type is {descriptor.media_type}"
        return Obstacle(state=State.DENIED, reason="layer-refused", message=message)
    if known.diff_id != diff_id:
        message = f"{what}: diff_id mismatch: got {known.diff_id}, want {diff_id}"
        return Obstacle(state=State.DENIED, reason="diff-id-mismatch", message=message)
    return None
