"""Every call of store and catalogue fails once, or is the last of a judge, while it judges; another one finishes.

What was never cleared is served at no time, what was revoked is not served again, and in the end all is as it would
have been. Layers are read by real confined children, and the signer with its memory is the real one. Every point has
one kind of fault; with `PRATIQUE_FAULTS=all` it has all of them. A seventh of the points is tried each day
(`tests/support/turns.py`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import select

from policy.model import State
from policy.statements import Clearance
from registry.audit import read, verify
from registry.catalogue import schema
from registry.errors import RegistryError
from registry.judge.jobs import CLAIM_SECONDS
from tests.support.bench import Bench
from tests.support.faults import FaultyCatalogue, FaultyStore, Killed, Plan, in_turns, plans
from tests.support.images import image
from tests.support.trust import NOW, REGISTRY, Keyring, keyring
from tests.support.turns import taken

EVERY = os.environ.get("PRATIQUE_FAULTS") == "all"
REPOSITORY = "team/app"
BUILT = image([{"bin/": b"", "bin/sh": b"#!"}, {"etc/": b"", "etc/x": b"second"}])

_numbers = count(1)


@pytest.fixture(scope="module")
def ring() -> Keyring:
    """Everybody's keys."""
    return keyring()


@pytest.fixture(scope="module")
def pushed(memory: Path, ring: Keyring) -> Path:
    """A registry in which an image was pushed and approved, and not judged yet."""
    folder = memory / "pushed"
    folder.mkdir()
    bench = Bench(folder, ring=ring)
    bench.publish()
    bench.settle()
    bench.approve(REPOSITORY, BUILT, "base", ring.alice, ring.bob)
    bench.push(REPOSITORY, BUILT, "1")
    bench.close()
    return folder


@pytest.fixture(scope="module")
def revoked(memory: Path, pushed: Path, ring: Keyring) -> Path:
    """The same once it was cleared, and a list was published that names one of its layers."""
    folder = memory / "revoked"
    shutil.copytree(pushed, folder)
    bench = Bench(folder, ring=ring)
    bench.settle()
    assert bench.state(REPOSITORY, BUILT.digest) is State.CLEARED
    bench.revoke(2, layers=(BUILT.layers[0].diff_id,))
    bench.close()
    return folder


def test_a_judge_that_fails_anywhere_clears_in_the_end(
    pushed: Path, ring: Keyring, record_property: Callable[[str, object], None]
) -> None:
    record_property("faults", f"judge, clearing: {_try_all(pushed, ring, State.CLEARED)}")


def test_a_judge_that_fails_anywhere_revokes_in_the_end(
    revoked: Path, ring: Keyring, record_property: Callable[[str, object], None]
) -> None:
    record_property("faults", f"judge, revoking: {_try_all(revoked, ring, State.REVOKED)}")


def _try_all(origin: Path, ring: Keyring, wanted: State) -> str:
    def smoothly(plan: Plan) -> None:
        _one(origin, ring, wanted, plan)

    wanted_plans = plans(smoothly) if EVERY else in_turns(plans(smoothly))
    tried = [plan for plan in taken(wanted_plans) if _one(origin, ring, wanted, plan)]
    assert tried
    return f"{len({plan.at for plan in tried})} points, {len(tried)} faults"


def _one(origin: Path, ring: Keyring, wanted: State, plan: Plan) -> bool:
    folder = origin.parent / f"judge-{next(_numbers)}"
    shutil.copytree(origin, folder)
    try:
        _judge(folder, ring, plan)
        bench = Bench(folder, ring=ring, now=NOW + timedelta(seconds=CLAIM_SECONDS + 600))
        try:
            _check_served(bench)
            bench.settle()
            _check_served(bench)
            assert bench.state(REPOSITORY, BUILT.digest) is wanted
            _check(bench, wanted)
        finally:
            bench.close()
    except Exception as error:
        error.add_note(repr(plan))
        raise
    finally:
        shutil.rmtree(folder)
    return plan.happened


def _judge(folder: Path, ring: Keyring, plan: Plan) -> None:
    """One judge until it rests, or its end. An error that it does not get over ends a process."""
    armed, plan.armed = plan.armed, False
    bench = Bench(
        folder,
        ring=ring,
        open_catalogue=lambda url: FaultyCatalogue(url, plan, connections=4),
        wrap=lambda store: FaultyStore(store, plan),
    )
    plan.names.clear()
    plan.changing.clear()
    plan.armed = armed
    try:
        with suppress(Killed, RegistryError):
            bench.settle()
        if plan.happened and not plan.dead:
            plan.disarm()
            bench.pass_time(timedelta(minutes=3))
            bench.settle()
    finally:
        plan.dead = False  # its children are ended, which is the system's work
        plan.disarm()
        bench.close()


def _check_served(bench: Bench) -> None:
    """A tag serves what may start, and has a clearance of the signer's, or nothing."""
    served = bench.tag(REPOSITORY, "1").served
    envelope = bench.clearance(REPOSITORY, BUILT.digest)
    state = bench.state(REPOSITORY, BUILT.digest)
    assert (envelope is not None) == state.may_start
    if state.may_start:
        assert served == BUILT.digest
        assert envelope is not None
        statement = bench.ring.trust.verify(envelope, Clearance, bench.now).statement
        assert statement.manifest == BUILT.digest


def _check(bench: Bench, wanted: State) -> None:
    with bench.catalogue.read() as conn:
        records = read(conn, after=0, limit=10_000)
        checkpoints = conn.scalars(select(schema.checkpoints.c.envelope)).all()
        errors = conn.scalars(select(schema.jobs.c.error).where(schema.jobs.c.error != "")).all()
        wanted_blobs = conn.execute(
            select(schema.blobs.c.digest, schema.blobs.c.size).join(
                schema.references, schema.references.c.digest == schema.blobs.c.digest
            )
        ).all()
    report = verify(records, checkpoints, verify_envelope=bench.ring.trust.verifier(bench.now), registry=REGISTRY)
    assert report.sound, report
    assert errors == []
    for digest, size in wanted_blobs:
        assert bench.store.size(digest) == size
    events = [record.after.partition(":")[0] for record in records if record.event == "state"]
    assert events[-1] == str(wanted)
