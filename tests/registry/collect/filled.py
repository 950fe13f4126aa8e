"""A catalogue and a store with many manifests, as rows: what a registry would have after so many pushes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import Table, insert

from ocispec.digest import Digest
from registry.catalogue import schema
from registry.catalogue.database import Catalogue
from registry.catalogue.rules import lock_rules, put_rule
from registry.collect.retention import Retention
from registry.judge.layers import layer_keys
from registry.rules import Kind, Rule
from registry.store.interface import BlobStore

REPOSITORY_SIZE = 100
"""Manifests in one repository."""

GARBAGE_EVERY = 10
"""Of so many, one blob and one tag are wanted no more."""

_CHUNK = 500


def fill(catalogue: Catalogue, store: BlobStore, manifests: int, *, at: datetime) -> None:
    """Put so many manifests, with a config and a layer each, judged once and tagged, pushed at a time long ago.

    One in GARBAGE_EVERY has a tag that retention lets go, and there are as many blobs that nothing needs, as many
    derived objects of layers that are gone, and as many rows of what is gone.
    """
    tables: dict[Table, list[dict[str, Any]]] = {}

    def put(table: Table, **values: Any) -> None:
        tables.setdefault(table, []).append(values)

    for number in range(manifests):
        repository = f"team/{number // REPOSITORY_SIZE}"
        if number % REPOSITORY_SIZE == 0:
            put(schema.repositories, name=repository, created=at, created_by="pusher")
        garbage = number % GARBAGE_EVERY == 0
        _manifest(put, repository, number, at, tag=f"{'old' if garbage else 'v'}{number}")
        if garbage:
            _garbage(put, store, repository, number, at)
        for blob in _blobs(number):
            store.put(Digest.of(blob), [blob])
    rule = Rule(
        pattern="team/*",
        kind=Kind.RETENTION,
        value=Retention(tags=("old*",), pushed=timedelta(days=1), untagged=timedelta(days=1)),
        changed=at,
        changed_by="admin",
    )
    with catalogue.write() as conn:
        lock_rules(conn)
        put_rule(conn, rule)
    for table in schema.metadata.sorted_tables:
        for rows in _chunks(tables.get(table, [])):
            with catalogue.write(durable=False) as conn:
                conn.execute(insert(table), rows)


def _blobs(number: int) -> tuple[bytes, bytes]:
    return b"config %d" % number, b"layer %d" % number


def _manifest(put: Any, repository: str, number: int, at: datetime, *, tag: str) -> None:
    config, layer = map(Digest.of, _blobs(number))
    digest = Digest.of(b"manifest %d" % number)
    place = {"repository": repository, "digest": digest}
    put(schema.contents, digest=digest, content=b"{}")
    put(
        schema.manifests,
        **place,
        media_type="application/vnd.oci.image.manifest.v1+json",
        size=2,
        kind="image",
        artifact_type="",
        annotations="{}",
        pushed=at,
        pushed_by="pusher",
    )
    for kind, blob in (("config", config), ("layer", layer)):
        put(schema.references, repository=repository, manifest=digest, digest=blob, kind=kind)
        put(schema.blobs, digest=blob, size=20, created=at)
        put(schema.repository_blobs, repository=repository, digest=blob, added=at, added_by="pusher")
    put(schema.tags, repository=repository, tag=tag, pushed=digest, pushed_at=at, pushed_by="pusher", number=0)
    put(schema.images, **place, state="quarantined", first_seen=at, changed=at)
    put(schema.pulls, **place, pulled=at)
    put(
        schema.decisions,
        digest=Digest.of(b"decision %d" % number),
        repository=repository,
        image=digest,
        content=b"{}",
        evidence=Digest.of(b"evidence %d" % number),
        taken=at,
    )
    put(schema.layers, digest=layer, reader=1, diff_id=Digest.of(b"tar %d" % number), size=1, compression="", read=at)


def _garbage(put: Any, store: BlobStore, repository: str, number: int, at: datetime) -> None:
    content = b"loose %d" % number
    loose, gone = Digest.of(content), Digest.of(b"gone %d" % number)
    store.put(loose, [content])
    put(schema.blobs, digest=loose, size=len(content), created=at)
    put(schema.repository_blobs, repository=repository, digest=loose, added=at, added_by="pusher")
    put(schema.contents, digest=gone, content=b"{}")
    put(schema.pulls, repository=repository, digest=gone, pulled=at)
    put(schema.layers, digest=gone, reader=1, diff_id=gone, size=1, compression="", read=at)
    put(schema.mirrored, repository=repository, reference=f"v{number}", said="found", checked=at, detail="")
    store.put_derived(layer_keys(Digest.of(b"lost %d" % number))[0], b"{}")


def _chunks(rows: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    left = iter(rows)
    while chunk := list(islice(left, _CHUNK)):
        yield chunk
