"""Served tags and cleared children of an index, on the host."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policy.hoststate import HostState
from policy.refusal import Refused
from policy.seal import seal
from policy.served import verify_index, verify_tag
from policy.statements import IndexClearance, TagStatement
from tests.support.trust import DAY, NOW, REGISTRY, REPOSITORY, digest, keyring

RING = keyring()
FRESH = HostState()
TAG = TagStatement(registry=REGISTRY, repository=REPOSITORY, tag="1", digest=digest("m"), number=5, issued=NOW)
INDEX = IndexClearance(
    registry=REGISTRY,
    repository=REPOSITORY,
    index=digest("index"),
    children=(digest("amd64"), digest("arm64")),
    issued=NOW,
    expires=NOW + DAY,
)


def tag(statement: TagStatement, state: HostState = FRESH) -> HostState | Refused:
    answer = verify_tag(
        seal(statement, RING.registry),
        registry=REGISTRY,
        repository=REPOSITORY,
        tag="1",
        trust=RING.trust,
        state=state,
        now=NOW,
    )
    return answer if isinstance(answer, Refused) else answer[1]


def child(statement: IndexClearance, name: str = "amd64") -> HostState | Refused:
    answer = verify_index(
        seal(statement, RING.registry),
        registry=REGISTRY,
        repository=REPOSITORY,
        index=digest("index"),
        child=digest(name),
        trust=RING.trust,
        state=FRESH,
        now=NOW,
    )
    return answer if isinstance(answer, Refused) else answer[1]


def test_a_tag_is_served_and_remembered() -> None:
    state = tag(TAG)
    assert isinstance(state, HostState)
    assert state.tags[0].number == 5
    assert state.highest_time == NOW


def test_an_older_served_tag_is_refused_s6_s12() -> None:
    state = tag(TAG)
    assert isinstance(state, HostState)
    older = tag(replace(TAG, number=4, digest=digest("old and full of holes")), state)
    assert isinstance(older, Refused)
    assert older.code == "number-went-back"
    assert older.subject == f"tag {REGISTRY}/{REPOSITORY}:1"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tag": "2"}, "other-tag"),
        ({"repository": "team/other"}, "other-repository"),
        ({"registry": "other.example"}, "wrong-registry"),
        ({"issued": NOW + DAY}, "issued-in-future"),
    ],
)
def test_a_statement_of_another_tag_is_refused_s1(changes: dict[str, str], code: str) -> None:
    answer = tag(replace(TAG, **changes))  # type: ignore[arg-type]  # the values are of the fields' type
    assert isinstance(answer, Refused)
    assert answer.code == code


def test_a_tag_statement_by_a_person_is_refused() -> None:
    answer = verify_tag(
        seal(TAG, RING.alice),
        registry=REGISTRY,
        repository=REPOSITORY,
        tag="1",
        trust=RING.trust,
        state=FRESH,
        now=NOW,
    )
    assert isinstance(answer, Refused)
    assert answer.code == "wrong-role"


def test_a_cleared_child_of_an_index_is_taken() -> None:
    assert isinstance(child(INDEX), HostState)


def test_a_child_that_is_not_cleared_is_refused_s7() -> None:
    answer = child(INDEX, "riscv64")
    assert isinstance(answer, Refused)
    assert answer.code == "child-not-cleared"
    assert str(digest("riscv64")) in answer.detail


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"index": digest("another index")}, "other-digest"),
        ({"repository": "team/other"}, "other-repository"),
        ({"issued": NOW - DAY, "expires": NOW}, "expired"),
    ],
)
def test_a_clearance_of_another_index_is_refused_s7(changes: dict[str, str], code: str) -> None:
    answer = child(replace(INDEX, **changes))  # type: ignore[arg-type]  # the values are of the fields' type
    assert isinstance(answer, Refused)
    assert answer.code == code
