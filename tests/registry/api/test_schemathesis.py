"""schemathesis over docs/openapi.yaml on a whole registry: no request of any role has an answer that is not described.

What it makes up hits nothing that is there, so in half of the cases names, digests and documents are replaced by some
that are. It is derandomized: a run asks the same every time, until the description changes. Of the roles that a case is
for, one asks it each day (`tests/support/turns.py`).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.pytest.lazy import get_all_tests
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ocispec.digest import Digest
from ocispec.strictjson import JsonValue
from policy import dsse
from registry.api.base import JSON
from tests.support import judging
from tests.support.images import image, index
from tests.support.live import WholeRegistry, now, whole_registry
from tests.support.turns import is_taken

ROLES: Final = ("pusher", "host", "scanner", "officer", "auditor", "admin")
REPOSITORY: Final = "team/app"
DOOMED: Final = "team/doomed"
"""Holds the same as REPOSITORY, for what is deleted."""
EXAMPLES: Final = 12
"""Cases that are made up for each operation, besides those at the edges of its parameters."""

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

pytestmark = pytest.mark.slow

schema = schemathesis.openapi.from_path(
    Path(__file__).parents[3] / "docs" / "openapi.yaml", config=schemathesis.Config(seed=1)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A running registry with something in it."""

    live: WholeRegistry
    session: requests.Session
    digests: dict[str, tuple[str, ...]]
    """What is there, by the word in the path that it stands behind."""
    documents: dict[str, tuple[str, JsonValue]]
    """By operation, a media type and a document of it that is taken."""
    seen: dict[str, set[int]] = field(default_factory=dict)
    """By operation, the statuses that it was answered with."""

    def succeeded(self, label: str) -> bool:
        """Whether an operation has done what it does."""
        return any(200 <= status < 300 for status in self.seen.get(label, ()))

    def upload(self) -> str:
        """The id of a new upload session with three bytes."""
        begun = self.live.request("POST", f"/v2/{REPOSITORY}/blobs/uploads/")
        self.live.request("PATCH", begun.headers["location"], body=b"abc")
        return begun.headers["location"].rpartition("/")[2]


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    """An application on an approved base, both cleared; an index, a tag that waits, an artifact."""
    with whole_registry(judge={"push_wait_ms": 0}) as live, requests.Session() as session:
        live.publish()
        base = image([{"bin/": b"", "bin/sh": b"#!"}])
        waiting = image([{"other": b"x"}], subject=base.descriptor)
        multi = index([base])
        for repository in (REPOSITORY, DOOMED):
            live.push(repository, base, "1")
            live.push(repository, waiting, "waiting")
            live.put_manifest(repository, "multi", multi.index.raw, multi.index.media_type)
            live.push_blob(repository, b"loose")
            live.approve(repository, base, "base", live.ring.alice, live.ring.bob)
        live.until(REPOSITORY, base.digest, "cleared")
        for name, kind in (("spare", "robot"), ("guest", "person")):
            account = json.dumps({"name": name, "role": "pusher", "kind": kind}).encode()
            live.api("POST", "/api/v1/accounts", account="admin", body=account)
        path = f"/api/v1/decisions/{base.digest}/{REPOSITORY}"
        decision = json.loads(live.request("GET", path, account="officer").body)
        digests = {
            "manifests": (str(base.digest), str(waiting.digest), str(multi.digest)),
            "blobs": (str(Digest.of(b"loose")), str(base.config.digest)),
            "evidence": (decision["evidence"],),
            "policy": (decision["policy"],),
        }
        approval = judging.approve(live.facts(REPOSITORY, base), "base", live.ring.alice, now=now())
        documents = {
            "PUT /v2/{name}/manifests/{reference}": (base.manifest.media_type, json.loads(base.manifest.raw)),
            "POST /api/v1/statements": (dsse.MEDIA_TYPE, json.loads(approval)),
            "POST /api/v1/trust": (dsse.MEDIA_TYPE, json.loads(live.ring.envelope)),
            "PUT /api/v1/rules": (JSON, {"pattern": "other/*", "kind": "immutable", "value": {"tags": ["v*"]}}),
            "PATCH /api/v1/accounts/{account}": (JSON, {"grants": ["team/*:pull"], "certificates": ["dns:spare.test"]}),
            "POST /api/v1/bootstrap": (JSON, {"token": live.token, "name": "second"}),
        }
        yield Target(live=live, session=session, digests=digests, documents=documents)
        answers = [live.request("GET", "/readyz", account=None).status for _ in range(3)]
        assert answers == [200, 200, 200]
        assert "Traceback" not in live.log()


def known(target: Target, case: Case[Any], name: str, chosen: int) -> object | None:
    """A value that is there, for what `name` names; None where nothing needs to be there."""
    match name:
        case "name" | "repository" | "from":
            return DOOMED if case.method == "DELETE" and "uploads" not in case.path else REPOSITORY
        case "digest" | "config" | "mount" | "diff_id":
            word = next((word for word in target.digests if f"/{word}/" in case.path), "manifests")
            return target.digests[word][chosen % len(target.digests[word])]
        case "tag" | "reference":
            tags = ("1", "waiting", "multi")
            every = tags if case.method == "PUT" else tags + target.digests["manifests"]
            return every[chosen % len(every)]
        case "upload_id":
            return target.upload()
        case "account" if case.method != "DELETE":
            return "guest" if "invitation" in case.path else "spare"
        case _:
            return None


def aim(target: Target, case: Case[Any], chosen: int) -> None:
    """Have a case hit something that is there."""
    for values in (case.path_parameters, case.query):
        for name in list(values or {}):
            value = known(target, case, name, chosen)
            if value is not None:
                values[name] = value
    label = case.operation.label
    if label == "DELETE /api/v1/rules":
        case.query |= {"pattern": "other/*", "kind": "immutable"}
    if "/manifests/" in label:
        case.query.clear()
        case.headers.clear()
    if label in target.documents:
        case.media_type, case.body = target.documents[label]
    elif "uploads" in label and case.method in {"PUT", "POST"}:
        case.media_type, case.body = "application/octet-stream", b""
        case.query["digest"] = str(Digest.of(b"abc" if case.method == "PUT" else b""))


OPERATIONS: Final = tuple(found.ok().label for found in schema.get_all_operations() if isinstance(found, Ok))
SETTINGS: Final = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_answer_is_described(label: str, target: Target) -> None:
    # Made here and not by `schema.parametrize`: at the edges of all operations there are seconds of work, which each
    # worker would do as it collects.
    (made,) = get_all_tests(
        schema=schema.include(name=label), test_func=answers_are_described, settings=SETTINGS, given_kwargs={}
    )
    assert isinstance(made, Ok), made.err()
    _, test = made.ok()
    test(target=target)


def answers_are_described(case: Case[Any], target: Target) -> None:
    """Have a case asked by whoever may do most, and one of all, so that each role asks each operation something."""
    chosen = zlib.crc32(repr((case.path_parameters, case.query, case.headers, case.body)).encode())
    if chosen % 2:
        aim(target, case, chosen // 2)
    label = case.operation.label
    roles = {"pusher" if case.path.startswith("/v2/") else "officer", "admin", ROLES[chosen % len(ROLES)]}
    for number, role in enumerate(sorted(roles)):
        # Until it has done what it does, everybody asks.
        if target.succeeded(label) and not is_taken(number + chosen):
            continue
        base_url, headers = f"http://{target.live.address}", target.live.header(role)
        answer = case.call(base_url=base_url, session=target.session, headers=headers)
        case.validate_response(answer, checks=CHECKS)
        target.seen.setdefault(label, set()).add(answer.status_code)


def test_each_operation_was_also_asked_what_it_does(target: Target) -> None:
    # A run in which everything was refused would find nothing: this one is behind the others, and looks at them.
    assert set(target.seen) == set(OPERATIONS)
    assert [label for label in OPERATIONS if not target.succeeded(label)] == []
