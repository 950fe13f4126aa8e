"""The explicit list of store engines."""

from __future__ import annotations

from registry.settings import Settings
from registry.store.files import FilesStore
from registry.store.interface import BlobStore
from registry.store.measured import MeasuredStore
from registry.store.s3 import S3Store


def open_store(settings: Settings) -> BlobStore:
    """The store that the settings name; its calls are measured.

    Raises:
        StorageError: its folder cannot be made.
    """
    s3 = settings.storage.s3
    return MeasuredStore(S3Store(s3) if s3 is not None else FilesStore(settings.store_folder))
