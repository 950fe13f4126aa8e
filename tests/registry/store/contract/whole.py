"""The whole contract in one class, for each engine to inherit."""

from __future__ import annotations

from tests.registry.store.contract.blobs import BlobContract
from tests.registry.store.contract.derived import DerivedContract
from tests.registry.store.contract.uploads import UploadContract


class StoreContract(BlobContract, UploadContract, DerivedContract):
    """Run with fixtures `store` and `another`."""
