"""Upload sessions that nobody goes on with are dropped, with their bytes, while the registry runs."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

from registry.access import Role
from registry.app import open_app
from registry.context import context_of
from registry.housekeeping import tidy
from tests.support.registry import make_registry


def test_sessions_past_their_end_are_dropped(tmp_path: Path) -> None:
    live = make_registry(tmp_path / "registry")
    app = open_app(live.settings)
    client = app.test_client()
    live.account("builder", Role.PUSHER)
    path = client.post("/v2/a/blobs/uploads/", headers=live.header("builder")).headers["Location"]
    assert client.patch(path, data=b"half", headers=live.header("builder")).status_code == 202
    parts = context_of(app)
    assert tidy(parts) == ()
    later = datetime.now(UTC) + timedelta(seconds=live.settings.limits.upload_expiry + 60)
    assert tidy(dataclasses.replace(parts, clock=lambda: later)) == (path.rpartition("/")[2].replace("-", ""),)
    assert client.get(path, headers=live.header("builder")).status_code == 404
    assert list((live.settings.store_folder / "uploads").iterdir()) == []
    parts.catalogue.close()


def test_a_failure_waits_for_the_next_time(tmp_path: Path) -> None:
    live = make_registry(tmp_path / "registry")
    parts = context_of(open_app(live.settings))
    (live.settings.store_folder / "uploads").rmdir()
    assert tidy(parts) == ()
    (live.settings.store_folder / "uploads").mkdir()
    assert tidy(parts) == ()
    parts.catalogue.close()
