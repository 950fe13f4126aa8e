"""What is made before the forks: for these settings, open nowhere, and what the processes would make themselves."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from registry.app import connections_of, make_app, open_app
from registry.context import context_of
from registry.errors import CatalogueError
from registry.prepared import prepare
from registry.settings import load
from tests.support.registry import make_registry


def _open() -> list[str]:
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            found.append(str(each.readlink()))
    return found


def test_nothing_is_open_and_all_of_it_can_be_used(tmp_path: Path) -> None:
    settings = make_registry(tmp_path).settings
    made = prepare(settings)
    assert [path for path in _open() if path.startswith(str(settings.data))] == []
    assert [each.connections() for each in (made.web, made.judge)] == [(0, 0), (0, 0)]
    app = open_app(settings, made)
    assert app is made.app
    assert context_of(app).catalogue is made.web
    assert app.test_client().get("/v2/").status_code == 401
    assert set(map(str, app.url_map.iter_rules())) == set(map(str, make_app().url_map.iter_rules()))
    made.web.close()


def test_a_reload_takes_over_what_no_setting_is_in(tmp_path: Path) -> None:
    live = make_registry(tmp_path)
    before = prepare(live.settings)
    live.settings_file.write_text(live.settings_file.read_text().replace("threads: 16", "threads: 5"))
    settings = load(live.settings_file)
    after = prepare(settings, before)
    assert after.settings is settings
    assert after.app is before.app
    assert after.web is not before.web
    assert connections_of(settings) == 9


def test_a_database_that_cannot_be_used_is_said_before_anything_is_forked(tmp_path: Path) -> None:
    live = make_registry(tmp_path)
    (live.settings.data / "catalogue.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(CatalogueError):
        prepare(live.settings)
