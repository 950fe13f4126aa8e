"""Fetching one manifest, and all that it reaches, into the repository that is a copy.

Everything below the first manifest is asked for by digest, and what is taken has that digest. Blobs come first, the
manifest that needs them last, so a copy is whole or absent. What is on its way is leased like any push.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Final

from ocispec.descriptor import FOREIGN_TYPES, Descriptor
from ocispec.digest import Digest
from ocispec.errors import MissingError
from ocispec.manifest import Index, Manifest
from ocispec.remote import Remote
from registry.access import Principal, Role
from registry.audit import Audit
from registry.catalogue.blobs import add_blob, enter_repository, touch_blob
from registry.catalogue.database import Catalogue
from registry.catalogue.leases import Lease
from registry.catalogue.manifests import manifest_size
from registry.collect.leases import Leases
from registry.errors import UpstreamError
from registry.judge.queue import JudgeQueue
from registry.mirror.mirrors import Copy
from registry.push import Push, push_manifest
from registry.quotas import room
from registry.settings import LimitSettings
from registry.store.hashing import CHUNK
from registry.store.interface import Blobs

MIRROR: Final = Principal(name="mirror", role=Role.PUSHER)
"""Who copies are pushed by."""

MAX_MANIFESTS: Final = 200
"""Manifests that are fetched for one that was asked for."""

BLOBS_AT_ONCE: Final = 3
_RENEW_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """Fetches into `store` and `catalogue`; for many threads."""

    store: Blobs
    catalogue: Catalogue
    leases: Leases
    audit: Audit
    judge: JudgeQueue
    limits: LimitSettings
    clock: Callable[[], datetime]

    def fetch(self, remote: Remote, copy: Copy, wanted: Digest | str) -> Digest:
        """Copy the manifest that `remote` has under a tag or digest; returns its digest.

        Raises:
            MissingError: the other registry has none.
            SourceError, RemoteError, SpecError: the other registry fails, refuses, or sends what is not believed.
            RegistryError: ours cannot take it.
        """
        document = remote.manifest(copy.upstream, wanted)
        with ThreadPoolExecutor(BLOBS_AT_ONCE, thread_name_prefix="mirror-blob") as pool:
            try:
                _Fetch(self, remote, copy, pool).take(document, (wanted,) if isinstance(wanted, str) else ())
            except MissingError as error:  # the manifest is there, and so it is not missing
                raise UpstreamError(f"{copy.origin}: {document.digest} is not whole: {error}") from error
        return document.digest


class _Fetch:
    """One manifest with all that it reaches."""

    def __init__(self, parts: Fetcher, remote: Remote, copy: Copy, pool: ThreadPoolExecutor) -> None:
        self._parts, self._remote, self._copy, self._pool = parts, remote, copy, pool
        self._left = MAX_MANIFESTS

    def take(self, document: Manifest | Index, tags: tuple[str, ...]) -> None:
        """Take what the document reaches, then the document."""
        self._left -= 1
        if self._left < 0:
            raise UpstreamError(f"{self._copy.origin}: leads to more than {MAX_MANIFESTS} manifests")
        if isinstance(document, Index):
            for child in document.manifests:
                if not self._has_manifest(child):
                    self.take(self._remote.repository(self._copy.upstream).read_manifest(child), ())
        else:
            self._take_blobs([document.config, *document.layers])
        self._push(document, tags)

    def _take_blobs(self, descriptors: Sequence[Descriptor]) -> None:
        wanted = {each.digest: each for each in descriptors if each.media_type not in FOREIGN_TYPES}
        # All are waited for, so that nothing is written any more when this ends, however it ends.
        running = [self._pool.submit(self._take_blob, each) for each in wanted.values()]
        errors = [error for each in running if (error := each.exception()) is not None]
        if errors:
            raise errors[0]

    def _take_blob(self, descriptor: Descriptor) -> None:
        parts, repository, digest = self._parts, self._copy.repository, descriptor.digest
        if descriptor.size > parts.limits.blob_bytes:
            raise UpstreamError(
                f"{self._copy.origin}: blob {digest} has {descriptor.size} bytes, at most {parts.limits.blob_bytes}"
                " are taken"
            )
        with parts.catalogue.write(durable=False) as conn:
            if touch_blob(conn, repository, digest, now=parts.clock()):
                return
        # Not taken from another repository, although the store may have it: that somebody upstream names a digest does
        # not say that they may read it here.
        with parts.catalogue.look() as conn:
            room(conn, repository, MIRROR.name).check(descriptor.size)
        with (
            parts.leases.held(digest, why="mirror", size=descriptor.size) as lease,
            self._remote.open_blob(self._copy.upstream, descriptor) as stream,
        ):
            size = parts.store.put(digest, self._chunks(stream, lease), size=descriptor.size)
            with parts.catalogue.write() as conn:
                add_blob(conn, repository, digest, size, by=MIRROR.name, now=parts.clock(), lease=lease)

    def _chunks(self, stream: BinaryIO, lease: Lease) -> Iterator[bytes]:
        renewed = time.monotonic()
        while chunk := stream.read(CHUNK):
            if time.monotonic() - renewed > _RENEW_SECONDS:
                self._parts.leases.renew(lease)
                renewed = time.monotonic()
            yield chunk

    def _has_manifest(self, descriptor: Descriptor) -> bool:
        with self._parts.catalogue.look() as conn:
            return manifest_size(conn, self._copy.repository, descriptor.digest) is not None

    def _push(self, document: Manifest | Index, tags: tuple[str, ...]) -> None:
        parts, repository = self._parts, self._copy.repository
        push = Push(
            repository=repository,
            parsed=document,
            tags=tags,
            principal=MIRROR,
            source=self._copy.mirror.registry,
            now=parts.clock(),
        )
        with parts.catalogue.write() as conn:
            enter_repository(conn, repository, by=MIRROR.name, now=push.now)
            pushed = push_manifest(conn, parts.audit, push, referrers=parts.limits.referrers)
            # A tag that was looked up again and is where it was says nothing new.
            judged = pushed.kind != "artifact" and (pushed.new or pushed.moved)
            if judged:
                parts.judge.enqueue_judgement(conn, repository, document.digest)
        if judged:
            parts.judge.wake()
