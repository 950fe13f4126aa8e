"""What every store promises of derived objects."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ocispec.digest import Digest
from registry.errors import StorageError
from registry.store.interface import BlobStore
from registry.store.keys import DerivedKey
from tests.registry.store.contract.blobs import BIG

KEY = DerivedKey(Digest.of(b"a layer"), "listing-v1")


class DerivedContract:
    """Run with a fixture `store`."""

    def test_an_object_comes_back_and_is_replaced_as_a_whole(self, store: BlobStore) -> None:
        assert store.get_derived(KEY) is None
        store.put_derived(KEY, b"first, longer")
        store.put_derived(KEY, b"second")
        assert store.get_derived(KEY) == b"second"
        assert list(store.derived()) == [KEY]
        (listed,) = store.derived_listing()
        assert (listed.key, listed.size) == (KEY, 6)
        assert abs(datetime.now(UTC) - listed.changed) < timedelta(seconds=60)

    def test_a_large_object_comes_back(self, store: BlobStore) -> None:
        store.put_derived(KEY, BIG)
        assert store.get_derived(KEY) == BIG

    def test_a_deleted_object_is_gone(self, store: BlobStore) -> None:
        store.put_derived(KEY, b"x")
        store.delete_derived(KEY)
        store.delete_derived(KEY)
        assert store.get_derived(KEY) is None
        assert list(store.derived()) == []

    def test_derived_objects_are_no_blobs(self, store: BlobStore) -> None:
        store.put_derived(KEY, b"x")
        assert list(store.digests()) == []
        assert store.size(KEY.subject) is None

    @pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b", "A", "x" * 65])
    def test_r3_a_name_that_is_a_path_is_refused(self, name: str) -> None:
        with pytest.raises(StorageError, match="derived object"):
            DerivedKey(Digest.of(b""), name)
