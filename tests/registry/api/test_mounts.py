"""R4: a mount needs the right to pull at its source; a refused one tells nothing (CVE-2024-39897, CVE-2026-117685)."""

from __future__ import annotations

import itertools
import json
import statistics
import time

import pytest

from ocispec.digest import Digest
from policy.model import State
from registry.access import Role
from registry.app import utc_now
from registry.catalogue.blobs import add_blob
from tests.support.images import image
from tests.support.registry import Answer, LiveRegistry

SECRET = b"what only the secret repository has"


def mount(live: LiveRegistry, target: str, digest: object, source: str | None, account: str) -> Answer:
    """Ask for a mount."""
    query = f"?mount={digest}" + (f"&from={source}" if source is not None else "")
    return live.request("POST", f"/v2/{target}/blobs/uploads/{query}", account=account)


def shape(answer: Answer) -> tuple[int, tuple[str, ...], int]:
    """What an answer looks like, but for the session's id and the time."""
    return answer.status, tuple(sorted(answer.headers)), len(answer.body)


@pytest.fixture
def stranger(live: LiveRegistry, repository: str) -> str:
    """An account with a repository of its own, beside one with a secret that it may push to but not read."""
    name = f"stranger-{repository}".replace("/", "-")
    live.push_blob(f"{repository}/secret", SECRET)
    live.push_blob(f"{repository}/blind", SECRET)
    live.account(name, Role.PUSHER, f"{repository}/own", f"{repository}/blind:create")
    return name


def test_r4_a_refused_mount_is_202_whatever_is_there(live: LiveRegistry, repository: str, stranger: str) -> None:
    digests = (Digest.of(SECRET), Digest.of(b"nowhere"), Digest.of(SECRET, "sha512"))
    sources = (f"{repository}/secret", f"{repository}/blind", f"{repository}/nowhere", "UPPER", "", "..", None)
    shapes = {
        shape(mount(live, f"{repository}/own", digest, source, stranger))
        for digest, source in itertools.product(digests, sources)
    }
    assert len(shapes) == 1
    assert next(iter(shapes))[0] == 202
    assert live.request("HEAD", f"/v2/{repository}/own/blobs/{Digest.of(SECRET)}", account=stranger).status == 404


def test_r4_a_refused_mount_is_the_same_under_quotas_and_rules(
    live: LiveRegistry, repository: str, stranger: str
) -> None:
    """Nearly full, and full: what does not fit is told apart from what does not exist by nobody who may not read it."""
    live.push_blob(f"{repository}/own", b"x" * 100)
    for limit in (100 + len(SECRET) + 1, 100 + len(SECRET) - 1, 100):
        value = {"kind": "quota", "pattern": f"{repository}/*", "value": {"bytes": 2 * len(SECRET) + limit}}
        body = json.dumps(value).encode()
        assert live.request("PUT", "/api/v1/rules", account="admin", body=body).status in {200, 201}
        answers = {
            shape(mount(live, f"{repository}/own", digest, source, stranger))
            for digest in (Digest.of(SECRET), Digest.of(b"nowhere"))
            for source in (f"{repository}/secret", f"{repository}/nowhere", None)
        }
        assert len(answers) == 1
        assert next(iter(answers))[0] == (403 if limit == 100 else 202)
    path = f"/api/v1/rules?kind=quota&pattern={repository}/*"
    assert live.request("DELETE", path, account="admin").status == 204


def test_r4_who_may_read_the_source_mounts(live: LiveRegistry, repository: str) -> None:
    digest = live.push_blob(f"{repository}/base", SECRET)
    reader = f"reader-{repository}".replace("/", "-")
    live.account(reader, Role.PUSHER, f"{repository}/base:pull", f"{repository}/own*")
    assert mount(live, f"{repository}/own", digest, f"{repository}/base", reader).status == 201
    assert mount(live, f"{repository}/own2", digest, None, reader).status == 201
    assert mount(live, f"{repository}/base", digest, f"{repository}/own", reader).status == 403  # to create is apart
    assert live.request("GET", f"/v2/{repository}/own2/blobs/{digest}", account=reader).body == SECRET


def test_r4_a_host_mounts_nothing_and_a_scanner_neither(live: LiveRegistry, repository: str) -> None:
    built = image()
    live.push(repository, built, "1")
    live.judge(repository, built.digest, State.CLEARED, serve="1")
    for account in ("host", "scanner", "officer", "auditor", "admin"):
        assert mount(live, f"{repository}/own", built.config.digest, repository, account).status == 403


def test_r4_how_long_a_refused_mount_takes_says_nothing(live: LiveRegistry, repository: str, stranger: str) -> None:
    """A blob that many repositories have, none of which the caller may read, is refused as fast as none at all."""
    _hold_everywhere(live, repository, SECRET, 2000)
    times: dict[str, list[float]] = {"there": [], "nowhere": []}
    for number in range(60):
        for what, digest in (("there", Digest.of(SECRET)), ("nowhere", Digest.of(b"%d" % number))):
            began = time.perf_counter()
            answer = mount(live, f"{repository}/own", digest, None, stranger)
            times[what].append(time.perf_counter() - began)
            assert answer.status == 202
            live.request("DELETE", answer.headers["location"], account=stranger)
    there, nowhere = (statistics.median(times[what]) for what in ("there", "nowhere"))
    assert abs(there - nowhere) < 0.5 * nowhere + 0.001, (there, nowhere)


def _hold_everywhere(live: LiveRegistry, repository: str, content: bytes, count: int) -> None:
    catalogue = live.catalogue()
    with catalogue.write() as conn:
        for number in range(count):
            name = f"{repository}/hidden/{number}"
            add_blob(conn, name, Digest.of(content), len(content), by="test", now=utc_now())
    catalogue.close()


# ---- with tokens ----------------------------------------------------------------------------------------------------


def token(live: LiveRegistry, account: str, *scopes: str) -> str:
    """A token of the account for `scopes`."""
    query = "&".join(f"scope={scope}" for scope in scopes)
    answer = live.request("GET", f"/token?service={live.settings.name}&{query}", account=account)
    assert answer.status == 200
    return str(json.loads(answer.body)["token"])


def mount_by_token(live: LiveRegistry, target: str, digest: object, source: str | None, bearer: str) -> Answer:
    """Ask for a mount with a token."""
    query = f"?mount={digest}" + (f"&from={source}" if source is not None else "")
    return live.request("POST", f"/v2/{target}/blobs/uploads/{query}", account=None, Authorization=f"Bearer {bearer}")


def test_a_token_without_the_source_is_told_what_to_ask_for(live: LiveRegistry, repository: str) -> None:
    """Not 202: clients keep a token of the repository that they push to, and would send what they could mount."""
    own, base = f"{repository}/own", f"{repository}/base"
    digest = live.push_blob(base, SECRET)
    narrow = f"repository:{own}:pull,push"
    for source, scope in ((base, f"repository:{base}:pull"), (None, "repository:*:pull")):
        told = mount_by_token(live, own, digest, source, token(live, "pusher", narrow))
        assert told.status == 401
        challenge = told.headers["www-authenticate"]
        assert f'scope="{narrow} {scope}"' in challenge
        assert 'error="insufficient_scope"' in challenge
        assert mount_by_token(live, own, digest, source, token(live, "pusher", narrow, scope)).status == 201
        assert live.request("DELETE", f"/v2/{own}/blobs/{digest}").status == 202


def test_r4_a_token_for_all_repositories_is_for_those_of_its_account(
    live: LiveRegistry, repository: str, stranger: str
) -> None:
    own = f"{repository}/own"
    scopes = (f"repository:{own}:pull,push", "repository:*:pull", f"repository:{repository}/*:pull")
    bearer = token(live, stranger, *scopes)
    for source in (f"{repository}/secret", f"{repository}/blind", f"{repository}/nowhere", None):
        assert mount_by_token(live, own, Digest.of(SECRET), source, bearer).status == 202
    for path in (f"{repository}/secret", f"{repository}/blind"):
        digest, header = Digest.of(SECRET), f"Bearer {bearer}"
        assert live.request("HEAD", f"/v2/{path}/blobs/{digest}", account=None, Authorization=header).status == 404
