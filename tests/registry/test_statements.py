"""Statements as the registry keeps them: what is taken, merged, found again, and what a new one touches."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Connection

from policy import dsse
from policy.errors import PolicyError, TrustError
from policy.model import Signed
from policy.private_key import PrivateKey
from policy.seal import seal
from policy.statements import PolicyFloor, PolicyStatement, Statement, TagStatement, Withdrawal
from registry import statements
from registry.catalogue.database import Catalogue
from registry.statements import CatalogueStatements
from registry.touched import all_images, touched, touched_by
from tests.support import judging
from tests.support.trust import NOW, REGISTRY, Keyring, digest, image_facts, keyring

IMAGE = image_facts()


@pytest.fixture
def ring() -> Keyring:
    return keyring()


@pytest.fixture
def conn(catalogue: Catalogue) -> Iterator[Connection]:
    with catalogue.write() as opened:
        yield opened


def _accept(conn: Connection, ring: Keyring, envelope: bytes) -> statements.Accepted:
    return statements.accept(conn, ring.trust, envelope, by="test", now=NOW)


def _found(conn: Connection) -> set[bytes]:
    return set(CatalogueStatements(conn=conn, now=NOW).envelopes(IMAGE))


def test_statements_are_found_by_what_they_concern(conn: Connection, ring: Keyring) -> None:
    base = image_facts(layers=("base layer",), name="base")
    other = image_facts(layers=("other layer",), name="other")
    mine = {
        judging.approve(IMAGE, "application", ring.team, now=NOW),
        judging.approve(base, "base", ring.alice, now=NOW),
        judging.approve_layer(IMAGE, 1, "application", ring.team, now=NOW),
        judging.waive("components", f"{REGISTRY}/**", ring.alice, now=NOW),
    }
    for envelope in (*mine, judging.approve(other, "base", ring.alice, now=NOW)):
        assert _accept(conn, ring, envelope).new
    assert _found(conn) == mine
    expired = CatalogueStatements(conn=conn, now=NOW + timedelta(days=365))
    assert list(expired.envelopes(IMAGE)) == []


def test_withdrawals_come_with_what_they_withdraw(conn: Connection, ring: Keyring) -> None:
    approval = judging.approve(IMAGE, "application", ring.team, now=NOW)
    accepted = _accept(conn, ring, approval)
    withdrawal = seal(Withdrawal(statement=accepted.signed.digest, reason="no", issued=NOW), ring.alice)
    elsewhere = seal(Withdrawal(statement=digest("another"), reason="no", issued=NOW), ring.alice)
    for envelope in (withdrawal, elsewhere):
        _accept(conn, ring, envelope)
    assert _found(conn) == {approval, withdrawal}


def test_signatures_of_several_people_are_one_statement(conn: Connection, ring: Keyring) -> None:
    one = judging.approve(IMAGE, "base", ring.alice, now=NOW)
    two = judging.approve(IMAGE, "base", ring.bob, now=NOW)
    assert _accept(conn, ring, one).new
    generation = statements.generation(conn)
    both = _accept(conn, ring, two)
    assert both.new
    assert {signer.owner for signer in both.signed.signers} == {"alice", "bob"}
    assert statements.generation(conn) == generation + 1
    assert not _accept(conn, ring, one).new
    assert len(_found(conn)) == 1


def test_forged_signatures_do_not_fill_a_statement_up(conn: Connection, ring: Keyring) -> None:
    good = judging.approve(IMAGE, "base", ring.alice, now=NOW)
    _accept(conn, ring, good)
    parsed = dsse.parse(good, what="good")
    forged = dsse.assemble(
        parsed.payload,
        [
            *parsed.signatures,
            *(dsse.Signature(key_id=PrivateKey.generate().public.id, signature=b"x") for _ in range(20)),
        ],
    )
    assert not _accept(conn, ring, forged).new
    (kept,) = _found(conn)
    assert kept == good


def test_what_is_not_handed_in_is_refused(conn: Connection, ring: Keyring) -> None:
    tag = TagStatement(registry=REGISTRY, repository="a/b", tag="1", digest=digest("x"), number=1, issued=NOW)
    with pytest.raises(TrustError) as error:
        _accept(conn, ring, seal(tag, ring.registry))
    assert error.value.code == "wrong-type"


def test_policy_must_be_what_its_statement_says(conn: Connection, ring: Keyring) -> None:
    lying = PolicyStatement(name="default", version=2, document=judging.policy_document(1), issued=NOW)
    with pytest.raises(PolicyError, match="the statement says default 2"):
        _accept(conn, ring, seal(lying, ring.alice, ring.bob))
    broken = PolicyStatement(name="default", version=2, document=b"levels: 7", issued=NOW)
    with pytest.raises(PolicyError):
        _accept(conn, ring, seal(broken, ring.alice, ring.bob))


def test_floor_follows_the_floor_before(conn: Connection, ring: Keyring) -> None:
    for version in (3, 4):
        floor = PolicyFloor(name="default", version=version, issued=NOW)
        _accept(conn, ring, seal(floor, ring.alice, ring.bob))
    with pytest.raises(TrustError) as error:
        _accept(conn, ring, seal(PolicyFloor(name="default", version=2, issued=NOW), ring.alice, ring.bob))
    assert error.value.code == "number-went-back"


def test_keys_on_the_revocation_list_count_no_more(conn: Connection, ring: Keyring) -> None:
    statements.accept_trust(conn, ring.envelope, by="test", now=NOW)
    _accept(conn, ring, judging.published_list(ring, 1, now=NOW, keys=(ring.team.public.id,)))
    trust = statements.trust_in_force(conn, NOW)
    assert trust is not None
    with pytest.raises(TrustError) as error:
        statements.accept(conn, trust, judging.approve(IMAGE, "application", ring.team, now=NOW), by="test", now=NOW)
    assert error.value.code == "key-revoked"


def test_newest_policy_of_the_newest_date_is_in_force(conn: Connection, ring: Keyring) -> None:
    assert statements.current_policy(conn, ring.trust, NOW) is None
    for version in (1, 2):
        _accept(conn, ring, judging.published_policy(ring, version, now=NOW - timedelta(days=5 - version)))
    found = statements.current_policy(conn, ring.trust, NOW)
    assert isinstance(found, Signed)
    assert found.statement.version == 2


def test_first_trust_is_taken_and_the_same_again_changes_nothing(conn: Connection, ring: Keyring) -> None:
    statements.accept_trust(conn, ring.envelope, by="test", now=NOW)
    generation = statements.generation(conn)
    statements.accept_trust(conn, ring.envelope, by="test", now=NOW)
    assert statements.generation(conn) == generation
    with pytest.raises(TrustError):
        statements.accept_trust(conn, keyring().envelope, by="test", now=NOW)


def test_a_statement_that_cannot_be_read_touches_everything(conn: Connection) -> None:
    assert touched_by(conn, digest("nothing"), registry=REGISTRY) == all_images(conn)
    missing: Statement = Withdrawal(statement=digest("nothing"), reason="no", issued=NOW)
    assert touched(conn, missing, registry=REGISTRY) == ()
