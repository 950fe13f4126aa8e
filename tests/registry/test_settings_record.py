"""What the settings say is in the audit: each change at a start or reload, with before and after, and no secret."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from registry.audit import Record, read
from registry.catalogue.database import Catalogue
from registry.errors import SettingsError
from registry.settings import parse
from registry.settings_record import record_settings, values_of
from tests.support.live import WholeRegistry, prepared

NOW = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)
FILE = Path("/etc/pratique/registry.yaml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    catalogue = Catalogue(f"sqlite:///{tmp_path / 'catalogue.sqlite'}")
    catalogue.create()
    catalogue.close()
    return tmp_path


def record(folder: Path, **members: object) -> tuple[str, ...]:
    """Start with these settings, and say which keys were recorded."""
    document = {"name": "registry.test", "data": str(folder), **members}
    return record_settings(parse(json.dumps(document).encode()), FILE, lambda: NOW)


def records(folder: Path) -> list[tuple[str, str, str]]:
    """Subject, before and after of all records."""
    catalogue = Catalogue(f"sqlite:///{folder / 'catalogue.sqlite'}")
    with catalogue.read() as conn:
        found = read(conn, after=0, limit=1000)
    catalogue.close()
    assert {(each.event, each.principal) for each in found} == {("settings", "settings")}
    assert all(each.source.endswith(f":{FILE}") for each in found)
    return [(each.subject, each.before, each.after) for each in found]


def test_first_all_that_is_said_and_then_what_changes(folder: Path) -> None:
    record(folder, http={"threads": 8, "proxies": ["10.0.0.0/8", "192.0.2.1"]})
    assert record(folder, http={"threads": 8, "proxies": ["10.0.0.0/8", "192.0.2.1"]}) == ()
    assert record(folder, http={"threads": 9, "proxies": ["10.0.0.0/8"]}) == ("http.proxies", "http.threads")
    assert record(folder, limits={"page": 10}) == ("http.proxies", "http.threads", "limits.page")
    assert record(folder, limits={"page": 1000}) == ("limits.page",)  # the default, in words
    assert records(folder) == [
        ("data", "", str(folder)),
        ("http.proxies", "", "10.0.0.0/8, 192.0.2.1/32"),
        ("http.threads", "", "8"),
        ("name", "", "registry.test"),
        ("http.proxies", "10.0.0.0/8, 192.0.2.1/32", "10.0.0.0/8"),
        ("http.threads", "8", "9"),
        ("http.proxies", "10.0.0.0/8", ""),
        ("http.threads", "9", ""),
        ("limits.page", "", "10"),
        ("limits.page", "10", ""),
    ]


def test_lists_of_groups_are_told_one_by_one(folder: Path) -> None:
    first, second = ({"prefix": f"{name}/", "registry": f"{name}.example"} for name in ("a", "b"))
    record(folder, mirrors=[first])
    assert record(folder, mirrors=[first, second]) == ("mirrors[1].prefix", "mirrors[1].registry")
    assert record(folder) == tuple(f"mirrors[{number}].{name}" for number in (0, 1) for name in ("prefix", "registry"))


def test_of_secrets_it_is_told_that_they_changed_and_nothing_else(folder: Path) -> None:
    secrets = ("first-secret-of-the-test", "second-secret-of-the-test", "password-of-the-test")
    where = f"postgresql://registry:{secrets[2]}@db/registry"
    sqlite = f"sqlite:///{folder / 'catalogue.sqlite'}"
    record(folder, bootstrap_token=secrets[0])
    assert record(folder, bootstrap_token=secrets[0]) == ()
    assert record(folder, bootstrap_token=secrets[1]) == ("bootstrap_token",)
    assert record(folder) == ("bootstrap_token",)
    assert records(folder)[0] == ("bootstrap_token", "", "(secret)")
    assert records(folder)[-2:] == [
        ("bootstrap_token", "(secret)", "(another secret)"),
        ("bootstrap_token", "(secret)", ""),
    ]
    kept = (folder / "settings.recorded").read_text()
    record(folder, bootstrap_token=secrets[0], catalogue=sqlite)
    kept += (folder / "settings.recorded").read_text()
    told = kept + json.dumps(records(folder))
    assert not any(secret in told for secret in secrets)
    assert (folder / "settings.recorded").stat().st_mode & 0o777 == 0o600
    document = {"name": "registry.test", "data": str(folder), "catalogue": where}
    values = dict(values_of(parse(json.dumps(document).encode()), ""))
    assert values["catalogue (password)"] == (secrets[2], True)
    assert values["catalogue"] == ("postgresql://registry:***@db/registry", False)


def test_what_was_recorded_last_is_not_guessed(folder: Path) -> None:
    record(folder)
    (folder / "settings.recorded").write_text("{")
    with pytest.raises(SettingsError, match=r"settings\.recorded"):
        record(folder)


def test_a_start_that_is_killed_before_it_is_kept_records_again(folder: Path) -> None:
    record(folder)
    (folder / "settings.recorded").unlink()
    assert record(folder) == ("data", "name")


def _changed(live: WholeRegistry, **members: object) -> None:
    settings = yaml.safe_load(live.settings_file.read_text())
    live.settings_file.write_text(yaml.safe_dump({**settings, **members}))


def _records(live: WholeRegistry) -> list[Record]:
    catalogue = live.catalogue()
    with catalogue.read() as conn:
        found = [each for each in read(conn, after=0, limit=1000) if each.event == "settings"]
    catalogue.close()
    return found


def _until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_registry_records_them_at_start_reload_and_restart() -> None:
    with prepared() as live:
        live.start()
        try:
            first = _records(live)
            assert {"name", "data", "http.threads"} <= {each.subject for each in first}
            _changed(live, rates={"account_reads": 77})
            assert live.process is not None
            live.process.send_signal(signal.SIGHUP)
            _until(lambda: len(_records(live)) > len(first))
            (reloaded,) = _records(live)[len(first) :]
            assert (reloaded.subject, reloaded.before, reloaded.after) == ("rates.account_reads", "", "77")
            live.stop()
            live.start()
            assert len(_records(live)) == len(first) + 1
            live.stop()
            _changed(live, rates={"account_reads": 78})
            live.start()
            assert (_records(live)[-1].before, _records(live)[-1].after) == ("77", "78")
        finally:
            live.stop()
