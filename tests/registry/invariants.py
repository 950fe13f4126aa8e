"""What must hold of states, tags, clearances and the audit at any time, whoever was killed or raced."""

from __future__ import annotations

from sqlalchemy import select

from policy import dsse
from policy.cosign import attestation_tag, signature_tag
from policy.model import State
from policy.statements import Clearance, IndexClearance, TagStatement
from registry.access import is_protected_tag, tag_subject
from registry.audit import read, verify
from registry.catalogue import schema
from registry.catalogue.manifests import manifest_by_tag
from tests.registry.desk import Desk
from tests.support.trust import REGISTRY


def check(desk: Desk) -> None:
    """Check all of them; a host's view is asked for over HTTP."""
    check_images(desk)
    check_tags(desk)
    check_audit(desk)


def check_images(desk: Desk) -> None:
    """What may start has one current clearance, and artifacts that say so; nothing else has any."""
    bench = desk.bench
    with bench.catalogue.read() as conn:
        images = conn.execute(select(schema.images)).all()
        clearances = {(row.repository, row.digest): row.envelope for row in conn.execute(select(schema.clearances))}
        for row in images:
            what = f"{row.repository}@{row.digest} is {row.state}: {row.reason}"
            envelope = clearances.pop((row.repository, row.digest), None)
            attached = manifest_by_tag(conn, row.repository, attestation_tag(row.digest), served=False)
            signed = manifest_by_tag(conn, row.repository, signature_tag(row.digest), served=False)
            if State(row.state).may_start:
                assert envelope is not None, what
                said = bench.ring.trust.verify_any(envelope, (Clearance, IndexClearance), bench.now).statement
                assert isinstance(said, Clearance | IndexClearance)
                assert attached is not None, what
            elif State(row.state) is not State.REVOKED:  # a judgement takes its artifacts away; the state came at once
                assert (envelope, attached, signed) == (None, None, None), what
            else:
                assert envelope is None, what
        assert clearances == {}
    for row in images:
        status = desk.get("host", row.repository, row.digest).status_code
        assert status == (200 if State(row.state).may_start else 403), f"{row.repository}@{row.digest}: {row.state}"


def check_tags(desk: Desk) -> None:
    """A tag serves hosts what a statement says that was signed for it, of an image that may start, or nothing."""
    bench = desk.bench
    with bench.catalogue.read() as conn:
        rows = conn.execute(select(schema.tags)).all()
        states = {(row.repository, row.digest): State(row.state) for row in conn.execute(select(schema.images))}
    for row in rows:
        if is_protected_tag(row.tag) or tag_subject(row.tag) is not None:
            continue
        answer = desk.get("host", row.repository, row.tag)
        state = states.get((row.repository, row.served)) if row.served is not None else None
        what = f"{row.repository}:{row.tag} serves {row.served} ({state})"
        if state is not None and state.may_start:
            assert answer.status_code == 200, what
            assert answer.headers["Docker-Content-Digest"] == str(row.served), what
            said = bench.ring.trust.verify(row.statement, TagStatement, bench.now).statement
            assert (said.registry, said.repository, said.tag) == (REGISTRY, row.repository, row.tag)
            assert (said.digest, said.number) == (row.served, row.number), what
            remembered = bench.memory.tag(row.repository, row.tag)
            assert remembered is not None
            assert remembered.number >= row.number, what
            assert dsse.parse(row.statement, what="tag").payload
        else:
            assert answer.status_code == 403, what


def check_audit(desk: Desk) -> None:
    """The chain is whole, and tells each image's and each tag's way without a gap."""
    bench = desk.bench
    desk.close()
    with bench.catalogue.read() as conn:
        records = read(conn, after=0, limit=1_000_000)
        states = {f"{row.repository}@{row.digest}": row.state for row in conn.execute(select(schema.images))}
        served = {f"{row.repository}:{row.tag}": row.served for row in conn.execute(select(schema.tags))}
    report = verify(records, [], verify_envelope=bench.ring.trust.verifier(bench.now), registry=REGISTRY)
    assert report.sound, report.problems
    last: dict[str, str] = {}
    serving: dict[str, str] = {}
    for record in records:
        if record.event == "state":
            before, after = record.before.partition(":")[0], record.after.partition(":")[0]
            assert before == last.get(record.subject, "quarantined"), record
            last[record.subject] = after
        elif record.event == "delete":
            last.pop(record.subject, None)
        elif record.event == "served":
            assert record.before == serving.get(record.subject, ""), record
            serving[record.subject] = record.after
        elif record.event == "tag" and not record.after:
            serving.pop(record.subject, None)
    for subject, state in states.items():
        assert last.get(subject, "quarantined") == state, subject
    for subject, digest in served.items():
        if digest is not None:
            assert serving.get(subject) == str(digest), subject
