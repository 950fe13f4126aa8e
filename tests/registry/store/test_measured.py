"""A measured store does what the store behind it does; calls and failures of the engine are counted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ocispec.digest import Digest
from registry.errors import BlobMismatchError, StorageError
from registry.store.files import FilesStore
from registry.store.interface import BlobStore
from registry.store.keys import DerivedKey
from registry.store.measured import OPERATIONS, MeasuredStore
from registry.telemetry import metrics

CONTENT = b"content"
DIGEST = Digest.of(CONTENT)


def calls(operation: str) -> float:
    """How often an operation was observed."""
    return sum(
        sample.value
        for family in metrics.STORE_SECONDS.collect()
        for sample in family.samples
        if sample.name.endswith("_count") and sample.labels["operation"] == operation
    )


def errors() -> float:
    return sum(
        sample.value
        for family in metrics.STORE_ERRORS.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    )


def test_each_call_reaches_the_store_and_is_counted(tmp_path: Path) -> None:
    store: BlobStore = MeasuredStore(FilesStore(tmp_path / "store"))
    before = {name: calls(name) for name in OPERATIONS}
    store.check()
    assert store.put(DIGEST, [CONTENT], size=len(CONTENT)) == len(CONTENT)
    assert store.size(DIGEST) == len(CONTENT)
    with store.open(DIGEST, start=3, length=2) as stream:
        assert stream.read() == CONTENT[3:5]
    assert store.redirect(DIGEST) is None
    assert list(store.digests()) == [DIGEST]
    assert [each.digest for each in store.listing()] == [DIGEST]
    upload = store.append(store.begin(), [b"of a session"])
    assert store.growing_file(upload.id) is not None
    assert store.commit(upload, Digest.of(b"of a session")) == upload.size
    store.cancel(store.begin().id)
    key = DerivedKey(DIGEST, "name")
    store.put_derived(key, b"derived")
    assert store.get_derived(key) == b"derived"
    assert list(store.derived()) == [each.key for each in store.derived_listing()] == [key]
    store.delete_derived(key)
    assert store.delete(DIGEST)
    assert {name for name in OPERATIONS if calls(name) == before[name]} == set()


def test_failures_of_the_engine_are_counted_and_those_of_clients_are_not(tmp_path: Path) -> None:
    store = MeasuredStore(FilesStore(tmp_path / "store"))
    before = errors()
    with pytest.raises(BlobMismatchError):
        store.put(DIGEST, [b"other"])
    assert errors() == before
    shutil.rmtree(tmp_path / "store")
    (tmp_path / "store").write_text("")
    with pytest.raises(StorageError):
        store.check()
    assert errors() == before + 1
