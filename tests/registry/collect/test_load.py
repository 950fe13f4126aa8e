"""R12 under real load: the collector runs again and again beside clients, and takes nothing that was acknowledged.

On a registry with SQLite and files, and on two that share a PostgreSQL and a bucket. No request is refused for the
collector's sake, no read-only mode, no 5xx; and when all is quiet, nothing is left that nothing needs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from ocispec.digest import Digest
from registry.catalogue import schema
from registry.store.open import open_store
from tests.registry.collect.load import Client, run_clients
from tests.support.fleet import fleet
from tests.support.live import WholeRegistry, whole_registry
from tests.support.postgres import Postgres

CLIENTS = 4
SECONDS = 6.0
"""At least; until something was freed beside the clients."""
GRACE = 2
"""Seconds: far less than anybody should set. Pushers that are slower send blobs again."""

SETTINGS: dict[str, Any] = {
    "collect": {"interval": 0, "grace": GRACE, "orphans": 0},
    "limits": {"uploads_per_account": 100_000},
}


def test_on_sqlite_and_files() -> None:
    with whole_registry(**SETTINGS) as live:
        under_load([live])


def test_two_registries_on_postgresql_and_a_bucket(server: Postgres, moto: str) -> None:
    with fleet(server, moto, count=2, **SETTINGS) as lives:
        under_load(lives)


def under_load(lives: Sequence[WholeRegistry]) -> None:
    """Clients and runs beside each other, then what must hold."""
    ports = [live.port for live in lives]
    clients = [
        Client(name=f"team{number}", ports=ports, secret=lives[0].secrets["pusher"], seed=number)
        for number in range(CLIENTS)
    ]
    runs: list[dict[str, Any]] = []

    def enough() -> bool:
        freed = sum(run["report"]["freedBytes"] for run in runs)
        return len(runs) >= 3 and freed > 0 and all(client.done > 5 or client.faults for client in clients)

    run_clients(
        clients,
        seconds=SECONDS,
        meanwhile=lambda: runs.append(collect(lives[len(runs) % len(lives)])),
        enough=enough,
    )
    faults = [fault for client in clients for fault in client.faults]
    assert faults == [], faults[:10]
    assert all(run["state"] == "done" for run in runs), runs

    # A part of it is wanted no more; then it is quiet.
    for client in clients:
        repository = f"{client.name}/0"
        for tag in [tag for name, tag in client.promised if name == repository]:
            digest = Digest.of(client.promised.pop((repository, tag))[0])
            assert lives[0].request("DELETE", f"/v2/{repository}/manifests/{digest}").status in {202, 404}
    time.sleep(GRACE + 1.1)
    for _ in range(2):
        assert collect(lives[0])["state"] == "done"
    for client in clients:
        client.run(lambda: True)
        assert client.faults == []
    check_quiet(lives[0])


def collect(live: WholeRegistry) -> dict[str, Any]:
    """One run, to its end."""
    status, found = live.api("POST", "/api/v1/collections", account="admin", body=json.dumps({}).encode())
    assert status == 202, found
    assert isinstance(found, dict)
    deadline = time.monotonic() + 120
    while found["state"] not in {"done", "failed"}:
        assert time.monotonic() < deadline, live.log()
        time.sleep(0.05)
        status, answer = live.api("GET", f"/api/v1/collections/{found['id']}?limit=0", account="admin")
        assert isinstance(answer, dict)
        found = answer
    return found


def check_quiet(live: WholeRegistry) -> None:
    """The store has what manifests need, and nothing else; so has the catalogue."""
    catalogue, store = live.catalogue(), open_store(live.settings)
    at, blobs = schema.references.c, schema.blobs.c
    with catalogue.read() as conn:
        needed = set(conn.scalars(select(at.digest).where(at.kind != "child")))
        held = set(conn.scalars(select(schema.repository_blobs.c.digest)))
        known = dict(conn.execute(select(blobs.digest, blobs.deleting)).all())
        leases = conn.scalars(select(schema.leases.c.digest)).all()
    catalogue.close()
    assert held == needed
    assert set(known) == needed
    assert set(known.values()) <= {None}
    assert set(store.digests()) == needed
    assert leases == []
    for digest in needed:
        with store.open(digest) as stream:
            assert Digest.of(stream.read()) == digest
