"""The command line in this process, and one whole registry for all tests of verbs that speak to one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pratique.calling import Office, call, office_at
from tests.support.live import whole_registry


@pytest.fixture(autouse=True)
def own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the accounts of whoever runs it."""
    monkeypatch.setenv("PRATIQUE_CONFIG", str(tmp_path / "config"))


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """A whole registry with trust, policy and list, keys in files, and every account remembered."""
    with whole_registry() as live:
        live.publish()
        yield office_at(live, tmp_path_factory.mktemp("office"))


@pytest.fixture
def office(whole: Office, monkeypatch: pytest.MonkeyPatch) -> Office:
    """The same, its accounts being those that are remembered."""
    monkeypatch.setenv("PRATIQUE_CONFIG", str(whole.folder / "config"))
    assert call("login", whole.address, "--account", "officer", "--plain-http", stdin=whole.secret("officer")).code == 0
    return whole
