"""What the database does for one look-up or one page does not grow with what there is; counted, not timed.

Every statement that a request made is done again alone, on both databases, and its work is counted: on SQLite the
steps of its virtual machine (sqlite3_progress_handler), on PostgreSQL the rows that every node of its plan looked at,
and the blocks that were read for them (EXPLAIN ANALYZE, BUFFERS): an index that is read from end to end for one row
shows in the blocks alone. With eight times as many manifests, all that must stay as it is.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event, make_url, select
from werkzeug.test import Client

from ocispec.digest import Digest
from policy.model import State
from policy.statements import RevocationList
from registry.access import EVERYTHING, Role
from registry.app import open_app
from registry.authenticate import hash_secret, new_secret
from registry.catalogue import garbage, leftovers, schema
from registry.catalogue.accounts import Account, add_account
from registry.catalogue.database import Catalogue
from registry.context import context_of
from registry.judge import jobs
from registry.judge.jobs import JobKind
from registry.prepare import prepare
from registry.revoking import _named
from registry.settings import parse
from tests.support import crowd
from tests.support.crowd import Crowd

SMALL, LARGE = 400, 3200
SLACK = 1.25
"""How much more work there may be with LARGE than with SMALL: a page may end elsewhere, a plan be another good one."""

DEEPER = 1.5
"""As SLACK, of blocks: an index may be a level deeper, and with SMALL most have two."""

FOR_THE_VALUE, FOR_ANY_VALUE = "force_custom_plan", "force_generic_plan"
"""PostgreSQL's plan_cache_mode: as connections of the registry have it, and as a planner that knows nothing."""

NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass(slots=True)
class Said:
    """The statements that this thread sent to a database, with their values."""

    statements: list[tuple[str, Any]] = field(default_factory=list)
    thread: int = field(default_factory=threading.get_ident)

    def note(self, _conn: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        """Take one, as SQLAlchemy's event before_cursor_execute hands it over."""
        # What a look leaves to other threads comes at any time, also while the next one is listened to: a second
        # after a pull, the record of it reads the whole audit log of a few rows.
        if threading.get_ident() != self.thread:
            return
        # To insert a row again is refused; and there is nothing to be found for it.
        if statement.lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
            self.statements += [(statement, each) for each in (parameters if many else [parameters])]


@contextmanager
def listening() -> Iterator[Said]:
    """What this thread sends to databases while the block runs."""
    said = Said()
    event.listen(Engine, "before_cursor_execute", said.note)
    try:
        yield said
    finally:
        event.remove(Engine, "before_cursor_execute", said.note)


Work = dict[str, int]
"""How much a database has to do, by what is counted."""


def work(url: str, said: Said, plan: str) -> Work:
    """The work for these statements: done in one transaction, which is undone. `plan` is PostgreSQL's alone."""
    if url.startswith("sqlite"):
        return {"steps": _steps(make_url(url).database or "", said)}
    return _looks(url, said, plan)


def growth(few: Work, many: Work) -> dict[str, tuple[int, int]]:
    """What grew."""
    slack = {"steps": SLACK, "rows": SLACK, "blocks": DEEPER}
    return {name: (few[name], many[name]) for name in few if many[name] > slack[name] * few[name] + 8}


def _steps(path: str, said: Said) -> int:
    counted = 0

    def step() -> int:
        nonlocal counted
        counted += 1
        return 0

    conn = sqlite3.connect(path, isolation_level=None)
    try:
        conn.execute("PRAGMA foreign_keys = ON")
        conn.execute("PRAGMA busy_timeout = 20000")
        conn.execute("BEGIN IMMEDIATE")
        conn.set_progress_handler(step, 1)
        for statement, parameters in said.statements:
            conn.execute(statement, parameters).fetchall()
        conn.set_progress_handler(None, 0)
        conn.execute("ROLLBACK")
    finally:
        conn.close()
    return counted


def _looks(url: str, said: Said, plan: str) -> Work:
    where = make_url(url)
    total = {"rows": 0, "blocks": 0}
    with psycopg.connect(
        host=str(where.query["host"]), dbname=where.database, user=where.username, cursor_factory=psycopg.ClientCursor
    ) as conn:
        conn.execute(f"SET plan_cache_mode = {plan}".encode())
        for statement, parameters in said.statements:
            names = {name: f"${number}" for number, name in enumerate(parameters, 1)}
            conn.execute(f"PREPARE look AS {statement % names}".encode())
            values = f"({', '.join(['%s'] * len(names))})" if names else ""
            explain = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) EXECUTE look {values}"
            found = conn.execute(explain.encode(), [parameters[name] for name in names]).fetchone()
            assert found is not None
            made = found[0][0]["Plan"]
            total["rows"] += _looked_at(made)
            total["blocks"] += made["Shared Hit Blocks"] + made["Shared Read Blocks"]
            conn.execute("DEALLOCATE look")
        conn.rollback()
    return total


def _looked_at(node: dict[str, Any]) -> int:
    kinds = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Join Filter", "Rows Removed by Index Recheck")
    here = sum(node.get(kind, 0) for kind in kinds) * node["Actual Loops"]
    return int(here) + sum(map(_looked_at, node.get("Plans", ())))


@dataclass(slots=True)
class Site:
    """A registry's application over a crowd of SMALL, and another one over LARGE."""

    url: str
    client: Client
    catalogue: Catalogue
    size: int
    secrets: dict[str, str]
    asked: Catalogue
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    plan: str = FOR_THE_VALUE

    def header(self, account: str) -> dict[str, str]:
        """Basic credentials."""
        encoded = base64.b64encode(f"{account}:{self.secrets[account]}".encode()).decode()
        return {"Authorization": f"Basic {encoded}"}

    def ask(self, method: str, path: str, account: str, status: int, body: bytes = b"", kind: str = "") -> Work:
        """One request, which must be answered so; returns the database's work for it."""
        headers = self.header(account) | ({"Content-Type": kind} if kind else {})
        with listening() as said:
            answer = self.client.open(path, method=method, headers=headers, data=body)
        assert answer.status_code == status, answer.text
        assert said.statements
        return work(self.url, said, self.plan)

    def call(self, look: Callable[[Any], object]) -> Work:
        """The work for a function on the catalogue."""
        with listening() as said, self.catalogue.read() as conn:
            look(conn)
        assert said.statements
        return work(self.url, said, self.plan)

    @property
    def middle(self) -> int:
        """The number of an image in the middle."""
        return crowd.tagged(self.size) // 2


def site(folder: Path, url: str, size: int) -> Site:
    """A registry over a crowd."""
    members = {"name": "localhost:5000", "data": f"{folder}/data", "catalogue": url, "judge": {"push_wait_ms": 0}}
    settings = parse(json.dumps(members).encode())
    prepare(settings, now=NOW)
    catalogue = Catalogue(url)
    secrets = {}
    with catalogue.write() as conn:
        for role in (Role.PUSHER, Role.HOST, Role.OFFICER, Role.ADMIN):
            secrets[role.value] = new_secret()
            account = Account(
                name=str(role),
                role=role,
                grants=EVERYTHING,
                secret=hash_secret(secrets[role.value]),
                created=NOW,
                created_by="test",
            )
            add_account(conn, account)
    filled = Crowd(catalogue, NOW - timedelta(days=30), settings.store_folder)
    filled.grow(size)
    filled.litter(size // 10)
    filled.settle()
    app = open_app(settings)
    return Site(url, app.test_client(), catalogue, size, secrets, context_of(app).catalogue)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def sites(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Site]]:
    """The small one and the large one."""
    made = []
    for size in (SMALL, LARGE):
        folder = tmp_path_factory.mktemp(f"{request.param}-{size}")
        if request.param == "sqlite":
            url = f"sqlite:///{folder}/catalogue.sqlite"
        else:
            url = request.getfixturevalue("server").empty()
        made.append(site(folder, url, size))
    yield made[0], made[1]
    for each in made:
        each.catalogue.close()
        each.asked.close()


def _blob(site: Site, place: int) -> str:
    return crowd.digest(crowd.image(f"image {site.middle}").reached[place][2])


def _new_manifest(site: Site) -> tuple[str, bytes]:
    """A manifest that is not there yet, of blobs that are, and a tag for it."""
    number = next(site.numbers)
    members = json.loads(crowd.image(f"image {site.middle}").raw)
    return f"new-{number}", json.dumps({**members, "annotations": {"number": str(number)}}).encode()


def push(site: Site) -> Work:
    """A manifest is pushed."""
    tag, raw = _new_manifest(site)
    path = f"/v2/{crowd.TAGGED}/manifests/{tag}"
    return site.ask("PUT", path, "pusher", 201, raw, "application/vnd.oci.image.manifest.v1+json")


def mount(site: Site) -> Work:
    """A blob is mounted."""
    other = crowd.repository(next(site.numbers))
    return site.ask("POST", f"/v2/{other}/blobs/uploads/?mount={_blob(site, 0)}&from={crowd.TAGGED}", "pusher", 201)


def delete(site: Site) -> Work:
    """A manifest is deleted, with its tag."""
    found = crowd.image(f"image {site.middle + next(site.numbers)}").digest
    return site.ask("DELETE", f"/v2/{crowd.TAGGED}/manifests/{found}", "pusher", 202)


def _get(account: str, path: Callable[[Site], str], status: int = 200, method: str = "GET") -> Callable[[Site], Work]:
    return lambda site: site.ask(method, path(site), account, status)


def _tagged(site: Site, rest: str) -> str:
    return f"/v2/{crowd.TAGGED}/{rest}"


def _referrers(site: Site, query: str) -> str:
    return f"/v2/{crowd.SUBJECT}/referrers/{crowd.SUBJECT_IMAGE.digest}?n=20{query}"


def _image(site: Site) -> str:
    return crowd.image(f"image {site.middle}").digest


def _listed(site: Site) -> RevocationList:
    """A list that names an image, a layer of another one, and something that is not here."""
    made = crowd.image(f"image {site.middle}")
    digests = (Digest.parse(made.digest), Digest.of(b"unknown"))
    layers = (Digest.parse(_blob(site, 2)),)
    return RevocationList(
        number=2, digests=digests, layers=layers, components=(), keys=(), reason="hostile", issued=NOW
    )


MIDDLE = "sha256:8" + "0" * 63
KEY = (crowd.TAGGED, Digest.parse(MIDDLE))

LOOKS: dict[str, Callable[[Site], Work]] = {
    "manifest by tag, host": _get("host", lambda site: _tagged(site, f"manifests/{crowd.tag(site.middle)}")),
    "manifest by tag, pusher": _get("pusher", lambda site: _tagged(site, f"manifests/{crowd.tag(site.middle)}")),
    "manifest by digest": _get("host", lambda site: _tagged(site, f"manifests/{_image(site)}")),
    "no such tag": _get("host", lambda site: _tagged(site, "manifests/none"), 404),
    "blob of one image": _get("host", lambda site: _tagged(site, f"blobs/{_blob(site, 2)}"), method="HEAD"),
    "blob of all images": _get("host", lambda site: _tagged(site, f"blobs/{_blob(site, 1)}"), method="HEAD"),
    "blob of all images, pusher": _get("pusher", lambda site: _tagged(site, f"blobs/{_blob(site, 1)}"), method="HEAD"),
    "blob of all referrers": _get(
        "host", lambda site: f"/v2/{crowd.SUBJECT}/blobs/{crowd.digest(crowd.EMPTY)}", method="HEAD"
    ),
    "tags page": _get("pusher", lambda site: _tagged(site, f"tags/list?n=20&last={crowd.tag(site.middle)}")),
    "tags page, host": _get("host", lambda site: _tagged(site, f"tags/list?n=20&last={crowd.tag(site.middle)}")),
    "referrers page": _get("host", lambda site: _referrers(site, "")),
    "referrers page, middle": _get("pusher", lambda site: _referrers(site, f"&last={MIDDLE}")),
    "referrers of a rare type": _get("pusher", lambda site: _referrers(site, f"&artifactType={crowd.RARE_TYPE}")),
    "referrers of no type": _get("pusher", lambda site: _referrers(site, "&artifactType=application/none")),
    "catalogue page": _get("pusher", lambda site: f"/v2/_catalog?n=20&last={crowd.repository(site.size // 8)}"),
    "images page": _get("officer", lambda site: f"/api/v1/images?n=20&page={crowd.TAGGED}@{MIDDLE}"),
    "images page, one state": _get("officer", lambda site: f"/api/v1/images?n=20&state={State.DENIED}"),
    "one image": _get("officer", lambda site: f"/api/v1/images/{_image(site)}/{crowd.TAGGED}"),
    "status": _get("host", lambda site: f"/api/v1/status/{crowd.TAGGED}?reference={crowd.tag(site.middle)}"),
    "tag statement": _get("host", lambda site: f"/api/v1/tags/{crowd.tag(site.middle)}/{crowd.TAGGED}"),
    "revocations": _get("host", lambda site: "/api/v1/revocations"),
    "push": push,
    "mount": mount,
    "delete": delete,
    "collector: manifests": lambda site: site.call(
        lambda conn: garbage.known_manifests(conn, KEY, 20, running_since=NOW)
    ),
    "collector: blobs in repositories": lambda site: site.call(
        lambda conn: garbage.held_blobs(conn, KEY, 20, before=NOW)
    ),
    "collector: blobs": lambda site: site.call(lambda conn: garbage.stored_blobs(conn, KEY[1], 20, now=NOW)),
    "collector: blobs, dry": lambda site: site.call(
        lambda conn: garbage.stored_blobs(conn, KEY[1], 20, now=NOW, loose_before=NOW)
    ),
    "collector: contents": lambda site: site.call(lambda conn: leftovers.lost_contents(conn, KEY[1], 20)),
    "collector: layers": lambda site: site.call(lambda conn: leftovers.lost_layers(conn, KEY[1], 20)),
    "collector: decisions": lambda site: site.call(lambda conn: leftovers.decided_images(conn, KEY, 20)),
    "collector: repositories": lambda site: site.call(
        lambda conn: garbage.repository_names(conn, crowd.repository(site.size // 8), 20)
    ),
    "what a list names": lambda site: site.call(lambda conn: _named(conn, _listed(site))),
    "judge: is there a job": lambda site: site.call(
        lambda conn: jobs.any_free(conn, now=NOW, kinds=[JobKind.JUDGE, JobKind.REJUDGE])
    ),
    "judge: when is the next job": lambda site: site.call(jobs.next_due),
}


@pytest.mark.parametrize("sites", ["postgresql"], indirect=True)
@pytest.mark.parametrize("name", ["manifest by tag, host", "manifest by tag, pusher", "no such tag", "tags page, host"])
def test_a_tag_is_where_one_index_begins_whatever_is_known_of_the_tables(sites: tuple[Site, Site], name: str) -> None:
    small, large = (replace(site, plan=FOR_ANY_VALUE) for site in sites)
    look = LOOKS[name]
    look(small), look(large)
    grown = growth(look(small), look(large))
    assert not grown, f"{name}: with {SMALL} and {LARGE} manifests {grown}"


@pytest.mark.parametrize("name", LOOKS)
def test_one_look_costs_the_same_in_a_large_catalogue(sites: tuple[Site, Site], name: str) -> None:
    small, large = sites
    look = LOOKS[name]
    look(small), look(large)  # what is asked for the first time is remembered, as the policy in force
    grown = growth(look(small), look(large))
    assert not grown, f"{name}: with {SMALL} and {LARGE} manifests {grown}"


def _left(site: Site, repository: str, found: str) -> dict[str, list[tuple[object, ...]]]:
    """The rows of a manifest in a repository, without times and names."""
    wanted = {
        schema.manifests: (
            "digest",
            "media_type",
            "size",
            "kind",
            "artifact_type",
            "subject",
            "state_of",
            "annotations",
        ),
        schema.references: ("digest", "kind"),
        schema.images: ("digest",),
        schema.tags: ("pushed",),
    }
    keys = {schema.references: "manifest", schema.tags: "pushed"}
    rows: dict[str, list[tuple[object, ...]]] = {}
    with site.catalogue.read() as conn:
        for table, names in wanted.items():
            mine = (table.c.repository == repository, table.c[keys.get(table, "digest")] == Digest.parse(found))
            query = select(*(table.c[name] for name in names)).where(*mine)
            rows[table.name] = sorted(map(tuple, conn.execute(query)), key=str)
        blobs = select(schema.blobs.c.digest, schema.blobs.c.size).where(
            schema.blobs.c.digest.in_([row[0] for row in rows[schema.references.name]])
        )
        held = select(schema.repository_blobs.c.digest).where(
            schema.repository_blobs.c.repository == repository,
            schema.repository_blobs.c.digest.in_([row[0] for row in rows[schema.references.name]]),
        )
        rows |= {"blobs": sorted(map(tuple, conn.execute(blobs)), key=str)}
        rows |= {"held": sorted(map(tuple, conn.execute(held)), key=str)}
        stored = select(schema.contents.c.content).where(schema.contents.c.digest == Digest.parse(found))
        rows |= {"contents": [tuple(row) for row in conn.execute(stored)]}
    return rows


@pytest.mark.parametrize(
    ("where", "made", "tag"),
    [
        (crowd.TAGGED, crowd.image("image 7"), "v7"),
        (crowd.SUBJECT, crowd.referrer(7, crowd.SUBJECT_IMAGE), ""),
        (crowd.LITTER, crowd.image("litter 7"), ""),
    ],
)
def test_a_crowd_is_what_pushes_leave(sites: tuple[Site, Site], where: str, made: crowd.Made, tag: str) -> None:
    site, repository = sites[0], "pushed/by-hand"
    header = site.header("pusher")
    for _, _, content in made.reached:
        path = f"/v2/{repository}/blobs/uploads/?digest={crowd.digest(content)}"
        assert site.client.post(path, headers=header, data=content).status_code == 201
    header["Content-Type"] = "application/vnd.oci.image.manifest.v1+json"
    path = f"/v2/{repository}/manifests/{tag or made.digest}"
    assert site.client.put(path, headers=header, data=made.raw).status_code == 201
    pushed = _left(site, repository, made.digest)
    assert all(pushed[name] for name in ("manifests", "manifest_references", "blobs", "held", "contents"))
    assert _left(site, where, made.digest) == pushed
