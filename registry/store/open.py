"""The explicit list of store engines."""

from __future__ import annotations

from registry.settings import Settings
from registry.store.files import FilesStore
from registry.store.interface import BlobStore
from registry.store.s3 import S3Store


def open_store(settings: Settings) -> BlobStore:
    """The store that the settings name.

    Raises:
        StorageError: its folder cannot be made.
    """
    if settings.storage.s3 is not None:
        return S3Store(settings.storage.s3)
    return FilesStore(settings.store_folder)
