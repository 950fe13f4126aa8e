"""The explicit list of store engines."""

from __future__ import annotations

from registry.settings import Settings
from registry.store.files import FilesStore
from registry.store.interface import BlobStore
from registry.store.measured import MeasuredStore


def open_store(settings: Settings) -> BlobStore:
    """The store that the settings name; its calls are measured.

    Raises:
        StorageError: its folder cannot be made.
    """
    s3 = settings.storage.s3
    if s3 is None:
        return MeasuredStore(FilesStore(settings.store_folder))
    from registry.store.s3 import S3Store  # noqa: PLC0415 -- its client takes megabytes, in each process

    return MeasuredStore(S3Store(s3))
