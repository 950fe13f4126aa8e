"""Records of sessions: one holder at a time, and an end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ocispec.digest import Digest
from registry.catalogue.database import Catalogue
from registry.catalogue.uploads import (
    HOLD,
    add_upload,
    find_upload,
    free_uploads,
    hold_upload,
    old_uploads,
    release_upload,
    renew_upload,
)
from registry.errors import UploadBusyError, UploadUnknownError
from registry.prepare import expire_uploads, prepare
from registry.settings import parse
from registry.store.files import FilesStore
from registry.store.interface import Upload

NOW = datetime(2020, 1, 1, 12, tzinfo=UTC)
OWNER = {"repository": "team/app", "account": "ci"}


@pytest.fixture
def upload(catalogue: Catalogue) -> Upload:
    """A session that was just begun."""
    begun = Upload(id="a" * 32, digest=Digest.of(b""))
    with catalogue.write() as conn:
        add_upload(conn, begun, now=NOW, **OWNER)
    return begun


def test_a_session_is_held_by_one_request_and_released_with_what_came(catalogue: Catalogue, upload: Upload) -> None:
    with catalogue.write() as conn:
        found, holder = hold_upload(conn, upload.id, now=NOW, **OWNER)
        assert found == upload
        with pytest.raises(UploadBusyError, match="another request is sending"):
            hold_upload(conn, upload.id, now=NOW, **OWNER)
        grown = Upload(id=upload.id, size=5, digest=Digest.of(b"hello"), parts="x")
        release_upload(conn, grown, holder, now=NOW)
        assert find_upload(conn, upload.id, **OWNER) == grown
        assert hold_upload(conn, upload.id, now=NOW, **OWNER)[0] == grown


def test_a_dead_holder_is_followed_after_its_time(catalogue: Catalogue, upload: Upload) -> None:
    with catalogue.write() as conn:
        _, dead = hold_upload(conn, upload.id, now=NOW, **OWNER)
        renew_upload(conn, upload.id, dead, now=NOW + timedelta(seconds=30))
        with pytest.raises(UploadBusyError):
            hold_upload(conn, upload.id, now=NOW + HOLD + timedelta(seconds=20), **OWNER)
        later = NOW + HOLD + timedelta(seconds=31)
        hold_upload(conn, upload.id, now=later, **OWNER)
        # It was not dead, only slow: what it wrote no longer counts.
        with pytest.raises(UploadBusyError, match="took it over"):
            renew_upload(conn, upload.id, dead, now=later)
        with pytest.raises(UploadBusyError, match="took it over"):
            release_upload(conn, upload, dead, now=later)


def test_at_the_start_nobody_holds_a_session(catalogue: Catalogue, upload: Upload) -> None:
    with catalogue.write() as conn:
        hold_upload(conn, upload.id, now=NOW, **OWNER)
        free_uploads(conn)
        hold_upload(conn, upload.id, now=NOW, **OWNER)


@pytest.mark.parametrize("other", [{"repository": "team/other"}, {"account": "somebody"}])
def test_r6_a_session_of_others_is_not_known(catalogue: Catalogue, upload: Upload, other: dict[str, str]) -> None:
    with catalogue.write() as conn, pytest.raises(UploadUnknownError):
        hold_upload(conn, upload.id, now=NOW, **(OWNER | other))


def test_old_sessions_are_dropped_with_their_bytes(catalogue: Catalogue, tmp_path: Path) -> None:
    store = FilesStore(tmp_path / "store")
    old, held = store.begin(), store.begin()
    with catalogue.write() as conn:
        for begun in (old, held):
            add_upload(conn, begun, now=NOW, **OWNER)
        hold_upload(conn, held.id, now=NOW + timedelta(days=1), **OWNER)
        assert old_uploads(conn, NOW) == ()
    dropped = expire_uploads(catalogue, store, before=NOW + timedelta(seconds=1))
    assert dropped == (old.id,)
    with pytest.raises(UploadUnknownError):
        store.append(old, [b"x"])
    assert store.append(held, [b"x"]).size == 1


def test_prepare_makes_everything_that_a_start_needs(tmp_path: Path) -> None:
    settings = parse(f"name: registry.test\ndata: {tmp_path}/data".encode())
    prepare(settings, now=NOW)
    prepare(settings, now=NOW)
    assert (tmp_path / "data/catalogue.sqlite").exists()
    assert settings.run_folder.is_dir()
    assert list((settings.store_folder / "tmp").iterdir()) == []
