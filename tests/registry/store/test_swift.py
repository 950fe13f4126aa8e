"""The contract on OpenStack Swift's s3api: a real engine that differs from Amazon's where it may."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from registry.settings_storage import S3Settings
from registry.store.interface import BlobStore
from registry.store.s3 import S3Store
from tests.registry.store.contract.whole import StoreContract
from tests.support.s3 import bucket
from tests.support.swift import Swift


@pytest.fixture
def settings(swift: Swift) -> S3Settings:
    """A new bucket."""
    name = f"test-{uuid.uuid4().hex}"
    return bucket(swift.endpoint, name, access_key=swift.access_key, secret_key=swift.secret_key, max_parts=1000)


@pytest.fixture
def store(settings: S3Settings) -> S3Store:
    """A store in a new bucket."""
    return S3Store(settings)


class TestSwift(StoreContract):
    """The contract."""

    @pytest.fixture
    def another(self, settings: S3Settings) -> Callable[[], BlobStore]:
        """A store on the same bucket, as in another process."""
        return lambda: S3Store(settings)
