"""Layers read once, for all images: what a confined child said of a layer, kept by diff_id and versions.

The catalogue's `layers` row leads from a stored blob to its diff_id; the listing, facts and account files are derived
objects of the diff_id. All of it can be made again from the blob.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, delete, select

from ocispec import fields
from ocispec.digest import Digest
from ocispec.layer import READER_VERSION
from ocispec.strictjson import parse_object
from registry.catalogue import schema
from registry.catalogue.database import put_row
from registry.store.interface import BlobStore
from registry.store.keys import DerivedKey
from scanner.facts import FACTS_VERSION

VERSION: Final = READER_VERSION * 1000 + FACTS_VERSION
"""Of all that is kept of a layer: another one, and the layer is read again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownLayer:
    """A layer that was read: its diff_id, its uncompressed size, and how the blob is compressed."""

    diff_id: Digest
    size: int
    compression: str


def find_layer(conn: Connection, digest: Digest) -> KnownLayer | None:
    """What is known of the layer blob `digest`, None if nothing of this version."""
    table = schema.layers
    row = conn.execute(select(table).where(table.c.digest == digest, table.c.reader == VERSION)).first()
    return None if row is None else KnownLayer(diff_id=row.diff_id, size=row.size, compression=row.compression)


def keep_layer(store: BlobStore, parts: tuple[bytes, ...]) -> KnownLayer:
    """Store what the works `layer` and `follow` answered about one layer; returns what names it.

    Raises:
        SpecError: it is not such an answer.
        StorageError: the store failed.
    """
    head, *objects = parts
    members = parse_object(head, what="layer's answer")
    diff_id = Digest.parse(fields.text(members, "diffId", what="layer's answer"))
    size = fields.integer(members, "size", what="layer's answer")
    for key, content in zip(layer_keys(diff_id), objects, strict=True):
        store.put_derived(key, content)
    compression = fields.text(members, "compression", what="layer's answer")
    return KnownLayer(diff_id=diff_id, size=size, compression=compression[:8])


def record_layer(conn: Connection, digest: Digest, known: KnownLayer, *, now: datetime) -> None:
    """Remember what was found of the blob `digest`, after `keep_layer`."""
    put_row(
        conn,
        schema.layers,
        digest=digest,
        reader=VERSION,
        diff_id=known.diff_id,
        size=known.size,
        compression=known.compression,
        read=now,
    )


def forget_layer(conn: Connection, diff_id: Digest) -> None:
    """Have every blob of this layer read again."""
    conn.execute(delete(schema.layers).where(schema.layers.c.diff_id == diff_id))


def layer_keys(diff_id: Digest) -> tuple[DerivedKey, DerivedKey, DerivedKey]:
    """Where listing, facts and account files of a layer are kept."""
    return (
        DerivedKey(diff_id, f"listing-v{READER_VERSION}"),
        DerivedKey(diff_id, f"facts-v{FACTS_VERSION}"),
        DerivedKey(diff_id, f"accounts-v{READER_VERSION}"),
    )


def load_layer(store: BlobStore, diff_id: Digest) -> tuple[bytes, bytes, bytes] | None:
    """Listing, facts and account files of a layer, or None if one of them is gone."""
    listing, facts, accounts = (store.get_derived(key) for key in layer_keys(diff_id))
    if listing is None or facts is None or accounts is None:
        return None
    return listing, facts, accounts
