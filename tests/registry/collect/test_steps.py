"""Each step of the collector on each database: what goes, what stays, and that a dry run says the same."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, func, insert, select, update

from ocispec.digest import Digest
from registry.access import REGISTRY
from registry.audit import Audit
from registry.catalogue import schema
from registry.catalogue.collections import Begun, begin_collection, list_collected, request_collection
from registry.catalogue.database import Catalogue
from registry.catalogue.holds import hold, let_go
from registry.catalogue.leases import add_lease
from registry.catalogue.rules import lock_rules, put_rule
from registry.catalogue.running import report_running
from registry.collect import tags
from registry.collect.collector import collect_now
from registry.collect.report import Reason
from registry.collect.retention import Retention
from registry.collect.run import SILENCE, Run
from registry.collect.tags import untag
from registry.rules import Immutable, Kind, Rule, Value
from registry.settings_collect import CollectSettings
from registry.store.files import FilesStore
from tests.registry.collect.filled import fill

NOW = datetime.now(UTC).replace(microsecond=0) + timedelta(days=10)
LONG_AGO = NOW - timedelta(days=400)
REPOSITORY = "team/0"


class Place:
    """A catalogue and a store, and a clock that is set."""

    def __init__(self, catalogue: Catalogue, folder: Path) -> None:
        """Both empty."""
        self.catalogue, self.store, self.now = catalogue, FilesStore(folder), NOW

    def fill(self, manifests: int) -> None:
        """So many manifests from long ago, with some garbage."""
        fill(self.catalogue, self.store, manifests, at=LONG_AGO)

    def put(self, table: Table, **values: Any) -> None:
        """A row."""
        with self.catalogue.write() as conn:
            conn.execute(insert(table).values(values))

    def rule(self, kind: Kind, value: Value, pattern: str = "team/*") -> None:
        """Set a rule."""
        with self.catalogue.write() as conn:
            lock_rules(conn)
            put_rule(conn, Rule(pattern=pattern, kind=kind, value=value, changed=NOW, changed_by="admin"))

    def collect(self, *, dry: bool = False, **settings: Any) -> Run:
        """A run."""
        return collect_now(self.catalogue, self.store, CollectSettings(**settings), clock=lambda: self.now, dry=dry)

    def things(self, run: Run) -> list[tuple[str, str, int, str]]:
        """What a run took away."""
        with self.catalogue.read() as conn:
            return sorted(tuple(thing) for _, thing in list_collected(conn, run.id, after=0, limit=10_000))  # type: ignore[misc]

    def count(self, table: Table) -> int:
        """Rows of a table."""
        with self.catalogue.read() as conn:
            return conn.scalar(select(func.count()).select_from(table)) or 0

    def tags(self) -> set[str]:
        """The tags that are there."""
        with self.catalogue.read() as conn:
            return set(conn.scalars(select(schema.tags.c.tag)))

    def manifest(self, name: str, *, tag: str = "", **values: Any) -> Digest:
        """A manifest without blobs, from long ago."""
        digest = Digest.of(name.encode())
        members: dict[str, Any] = {
            "repository": REPOSITORY,
            "digest": digest,
            "media_type": "application/vnd.oci.image.manifest.v1+json",
            "size": 2,
            "kind": "image",
            "artifact_type": "",
            "annotations": "{}",
            "pushed": LONG_AGO,
            "pushed_by": "pusher",
        }
        self.put(schema.contents, digest=digest, content=b"{}")
        self.put(schema.manifests, **members | values)
        if tag:
            at = {"repository": REPOSITORY, "tag": tag, "pushed": digest}
            self.put(schema.tags, **at, pushed_at=LONG_AGO, pushed_by="pusher", number=0)
        return digest

    def repository(self) -> None:
        """The repository."""
        self.put(schema.repositories, name=REPOSITORY, created=LONG_AGO, created_by="pusher")


@pytest.fixture
def place(catalogue: Catalogue, tmp_path: Path) -> Place:
    """An empty one, on each database."""
    return Place(catalogue, tmp_path)


def test_a_dry_run_comes_to_the_same_and_changes_nothing(place: Place) -> None:
    place.fill(120)
    before = {table: place.count(table) for table in schema.metadata.sorted_tables}
    dry = place.collect(dry=True)
    told = place.things(dry)
    ours = {schema.collections, schema.collected, schema.audit}
    assert {table: place.count(table) for table in before if table not in ours} == {
        table: rows for table, rows in before.items() if table not in ours
    }
    real = place.collect()
    assert place.things(real) == told
    named = set(Reason) - {Reason.RECORD}
    assert {reason: real.tally.count(reason) for reason in named} == {
        reason: dry.tally.count(reason) for reason in named
    }
    assert real.tally.freed == dry.tally.freed > 0


def test_run_after_run_all_garbage_goes_and_nothing_else(place: Place) -> None:
    place.fill(120)
    garbage = 12
    for _ in range(4):
        place.collect()
        place.now += timedelta(days=2)
    assert place.count(schema.tags) == place.count(schema.manifests) == 120 - garbage
    assert place.count(schema.blobs) == len(set(place.store.digests())) == 2 * (120 - garbage)
    assert place.count(schema.contents) == place.count(schema.layers) == 120 - garbage
    assert place.count(schema.pulls) == 120 - garbage
    assert place.count(schema.mirrored) == 0
    assert list(place.store.derived()) == []


def test_what_the_registry_itself_holds_stays(place: Place) -> None:
    content = b"advisory data"
    digest = Digest.of(content)
    place.store.put(digest, [content])
    with place.catalogue.write() as conn:
        hold(conn, "advisories", digest, len(content), now=LONG_AGO)
    place.collect()
    assert place.store.size(digest) == len(content)
    with place.catalogue.write() as conn:
        let_go(conn, "advisories")
    place.collect()
    assert place.store.size(digest) is None


def test_what_is_leased_stays_until_the_lease_is_over(place: Place) -> None:
    content = b"on its way"
    digest = Digest.of(content)
    place.store.put(digest, [content])
    with place.catalogue.write() as conn:
        add_lease(conn, digest, why="push", until=NOW + timedelta(minutes=1))
    run = place.collect(grace=0)
    assert run.tally.left == {"leased": 1}
    assert place.store.size(digest) == len(content)
    place.now += timedelta(minutes=2)
    place.collect(grace=0)
    assert place.store.size(digest) is None


def test_what_hosts_reported_stays_as_long_as_the_report_counts(place: Place) -> None:
    place.repository()
    image = place.manifest("image", tag="old")
    child = place.manifest("child")
    index = place.manifest("index", tag="older", kind="index")
    place.put(schema.references, repository=REPOSITORY, manifest=index, digest=child, kind="child")
    place.manifest("other", tag="oldest")
    place.rule(Kind.RETENTION, Retention(pushed=timedelta(days=1), untagged=timedelta(days=1)))
    with place.catalogue.write() as conn:
        report_running(conn, "host-1", [(REPOSITORY, image), (REPOSITORY, child)], now=NOW)
    place.collect()
    assert place.tags() == {"old", "older"}
    place.now += timedelta(days=2)
    place.collect(running=3 * 86_400)
    assert place.tags() == {"old", "older"}
    place.now += timedelta(days=2)
    place.collect(running=3 * 86_400)
    assert place.tags() == set()
    assert place.count(schema.running_reports) == place.count(schema.running) == 0


def test_an_immutable_tag_is_never_removed_by_a_rule_that_does_not_say_so(place: Place) -> None:
    place.repository()
    place.manifest("image", tag="v1")
    place.manifest("other", tag="dev")
    place.rule(Kind.IMMUTABLE, Immutable(tags=("v*",)))
    place.rule(Kind.RETENTION, Retention(pushed=timedelta(days=1)))
    place.collect()
    assert place.tags() == {"v1"}
    place.rule(Kind.RETENTION, Retention(pushed=timedelta(days=1), immutable=True))
    place.collect()
    assert place.tags() == set()


def test_untagged_manifests_stay_without_a_rule_that_says_otherwise(place: Place) -> None:
    place.repository()
    alone = place.manifest("alone")
    place.collect()
    assert place.count(schema.manifests) == 1
    place.rule(Kind.RETENTION, Retention(untagged=timedelta(days=500)))
    place.collect()
    assert place.count(schema.manifests) == 1
    place.rule(Kind.RETENTION, Retention(untagged=timedelta(days=300)))
    run = place.collect()
    assert place.count(schema.manifests) == 0
    assert [thing[:2] for thing in place.things(run)] == [("untagged", f"{REPOSITORY}@{alone}")]


def test_artifacts_go_when_their_image_is_gone(place: Place) -> None:
    place.repository()
    image = place.manifest("image", tag="v1")
    gone = Digest.of(b"gone")
    place.manifest("of the image", kind="artifact", subject=image, state_of=image)
    place.manifest("of what is gone", kind="artifact", subject=gone)
    place.manifest("the registry's own", kind="artifact", subject=gone, pushed_by=REGISTRY.name)
    tag = f"sha256-{gone.hex}.sig"
    place.manifest("by its tag", kind="artifact", state_of=gone, tag=tag)
    place.manifest("with a tag of its own", kind="artifact", subject=gone, tag="keep")
    run = place.collect(referrers=False)
    assert run.tally.count(Reason.SUBJECT_GONE) == 1
    run = place.collect()
    assert run.tally.count(Reason.SUBJECT_GONE) == 2
    assert place.tags() == {"v1", "keep"}


def test_decisions_beyond_the_newest_go_but_for_those_in_use(place: Place) -> None:
    place.repository()
    image = place.manifest("image", tag="v1")
    for number in range(6):
        place.put(
            schema.decisions,
            digest=Digest.of(b"%d" % number),
            repository=REPOSITORY,
            image=image,
            content=b"{}",
            evidence=Digest.of(b"evidence %d" % number),
            taken=LONG_AGO + timedelta(days=number),
        )
    oldest = Digest.of(b"0")
    place.put(
        schema.images,
        repository=REPOSITORY,
        digest=image,
        state="denied",
        decision=oldest,
        first_seen=LONG_AGO,
        changed=LONG_AGO,
    )
    run = place.collect(decisions=2)
    assert run.tally.count(Reason.DECISION) == 3
    with place.catalogue.read() as conn:
        left = set(conn.scalars(select(schema.decisions.c.digest)))
    assert left == {oldest, Digest.of(b"4"), Digest.of(b"5")}


def test_a_blob_that_is_missing_is_told_and_not_forgotten(place: Place) -> None:
    place.fill(10)
    missing = Digest.of(b"layer 3")
    place.store.delete(missing)
    run = place.collect()
    assert run.tally.missing == [str(missing)]
    assert place.collect().tally.missing == [str(missing)]


def test_what_was_needed_within_the_grace_stays(place: Place) -> None:
    place.fill(10)
    loose = Digest.of(b"loose 0")
    with place.catalogue.write() as conn:
        this = update(schema.repository_blobs).where(schema.repository_blobs.c.digest == loose)
        conn.execute(this.values(touched=NOW - timedelta(seconds=59)))
    place.collect(grace=60)
    assert place.store.size(loose) is not None
    place.now += timedelta(seconds=2)
    place.collect(grace=60)
    assert place.store.size(loose) is None


def test_rules_that_change_while_a_run_goes_on_bind_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.repository()
    place.manifest("image", tag="v1")
    place.rule(Kind.RETENTION, Retention(pushed=timedelta(days=1)))
    judged = tags.judged

    def meanwhile(*given: Any, **named: Any) -> Any:
        found = list(judged(*given, **named))
        place.rule(Kind.IMMUTABLE, Immutable(tags=("v*",)))
        return iter(found)

    monkeypatch.setattr(tags, "judged", meanwhile)
    run = place.collect()
    assert place.tags() == {"v1"}
    assert run.tally.left == {"rules changed": 1}


def test_a_report_that_is_being_made_is_waited_for(place: Place) -> None:
    place.repository()
    image = place.manifest("image", tag="old")
    place.rule(Kind.RETENTION, Retention(pushed=timedelta(days=1)))
    reporting, go = threading.Event(), threading.Event()

    def report() -> None:
        with place.catalogue.write() as conn:
            report_running(conn, "host-1", [(REPOSITORY, image)], now=NOW)
            reporting.set()
            assert go.wait(30)

    reporter = threading.Thread(target=report)
    with place.catalogue.write() as conn:
        wanted = request_collection(conn, by="test", dry_run=False, now=NOW)
        begun = begin_collection(conn, wanted, worker="x", now=NOW, until=NOW + SILENCE)
    assert isinstance(begun, Begun)
    run = Run(
        id=wanted,
        attempt=begun.attempt,
        started=NOW,
        catalogue=place.catalogue,
        store=place.store,
        audit=Audit(lambda: NOW),
        clock=lambda: NOW,
        settings=CollectSettings(),
    )
    collector = threading.Thread(target=untag, args=(run,))
    reporter.start()
    assert reporting.wait(30)
    collector.start()
    collector.join(0.5)
    go.set()
    reporter.join(30)
    collector.join(30)
    assert not collector.is_alive()
    assert place.tags() == {"old"}
