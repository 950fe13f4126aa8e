"""What is done once before the processes start: folders, tables, and what dead requests left behind."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select

from registry.catalogue.database import Catalogue
from registry.catalogue.schema import meta
from registry.catalogue.uploads import forget_upload, free_uploads, old_uploads
from registry.errors import CatalogueError, StorageError
from registry.settings import Settings
from registry.store.interface import BlobStore
from registry.store.open import open_store

RESTORING: Final = "restoring"
"""In the catalogue's `meta` from the first row of a backup that is restored until its end."""


def prepare(settings: Settings, *, now: datetime, store: BlobStore | None = None) -> None:
    """Make folders and tables where there are none, check the store, and drop sessions past their end.

    `store` takes the place of the one that the settings name.

    Raises:
        CatalogueError, StorageError: one of them cannot be used.
    """
    try:
        for folder in (settings.data, settings.run_folder):
            folder.mkdir(mode=0o770, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"folder {settings.data}: {error.strerror}") from error
    catalogue = Catalogue(settings.catalogue_url)
    try:
        catalogue.create()
        _check_restored(catalogue)
        store = store if store is not None else open_store(settings)
        store.check()
        if settings.catalogue_url.startswith("sqlite"):
            # Nobody else can be on this catalogue: who held a session is dead.
            with catalogue.write() as conn:
                free_uploads(conn)
        expire_uploads(catalogue, store, before=now - timedelta(seconds=settings.limits.upload_expiry))
    finally:
        catalogue.close()


def _check_restored(catalogue: Catalogue) -> None:
    with catalogue.look() as conn:
        made = conn.scalar(select(meta.c.value).where(meta.c.name == RESTORING))
    if made is not None:
        raise CatalogueError(
            f"catalogue: restoring the backup of {made} did not come to its end: to be restored into a new database"
        )


def expire_uploads(catalogue: Catalogue, store: BlobStore, *, before: datetime) -> tuple[str, ...]:
    """Drop the upload sessions that were last written to before then; returns their ids."""
    with catalogue.write() as conn:
        old = old_uploads(conn, before)
        for upload_id in old:
            forget_upload(conn, upload_id)
    for upload_id in old:
        store.cancel(upload_id)
    return (*old, *store.expire(before))
