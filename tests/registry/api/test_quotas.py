"""Quotas bind a push before it sends, while it sends, and at last when it is counted; on both databases."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocispec.digest import Digest
from registry.access import Role
from tests.support.images import image
from tests.support.registry import Answer, LiveRegistry, web_registry

ROOM = 10_000


@pytest.fixture
def running(database: str, tmp_path: Path) -> Iterator[LiveRegistry]:
    """A running registry, on each kind of database."""
    with web_registry(tmp_path / "registry", catalogue=database, limits={"uploads_per_account": 5}) as made:
        yield made


def set_quota(live: LiveRegistry, pattern: str, **limits: int) -> dict[str, int]:
    """Set a quota; what is used of it."""
    body = json.dumps({"kind": "quota", "pattern": pattern, "value": limits}).encode()
    answer = live.request("PUT", "/api/v1/rules", account="admin", body=body)
    assert answer.status in {200, 201}, answer
    used: dict[str, int] = json.loads(answer.body)["used"]
    return used


def used(live: LiveRegistry, pattern: str) -> dict[str, int]:
    """What is used of a quota, as officers see it."""
    rules = json.loads(live.request("GET", "/api/v1/rules", account="officer").body)["rules"]
    found: dict[str, int] = next(rule["used"] for rule in rules if rule["pattern"] == pattern)
    return found


def refusal(answer: Answer) -> dict[str, object]:
    """The detail of a 403 by a quota."""
    error = json.loads(answer.body)["errors"][0]
    assert (answer.status, error["code"]) == (403, "DENIED"), answer
    assert error["message"].startswith("quota "), error
    detail: dict[str, object] = error["detail"]
    return detail


def begin(live: LiveRegistry, repository: str, *, account: str = "pusher") -> str:
    """Begin a session; its path."""
    answer = live.request("POST", f"/v2/{repository}/blobs/uploads/", account=account)
    assert answer.status == 202, answer
    return answer.headers["location"]


def test_an_announced_length_is_refused_before_a_byte_is_read(running: LiveRegistry) -> None:
    set_quota(running, "shop/*", bytes=ROOM)
    digest = Digest.of(b"never sent")
    for method, path in (
        ("POST", f"/v2/shop/web/blobs/uploads/?digest={digest}"),
        ("PATCH", begin(running, "shop/web")),
        ("PUT", f"{begin(running, 'shop/web')}?digest={digest}"),
    ):
        with socket.create_connection(("127.0.0.1", running.port), timeout=20) as client:
            head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {ROOM + 1}\r\n"
            credentials = running.header("pusher")["Authorization"]
            client.sendall(f"{head}Authorization: {credentials}\r\n\r\n".encode())
            client.shutdown(socket.SHUT_WR)
            said = client.recv(65536)
        assert said.startswith(b"HTTP/1.1 403"), said
        assert f"got {ROOM + 1}, expected at most {ROOM}".encode() in said
    assert used(running, "shop/*")["bytes"] == 0


def test_a_stream_is_cut_where_the_room_ends(running: LiveRegistry) -> None:
    set_quota(running, "shop/*", bytes=ROOM)
    path = begin(running, "shop/web")
    body = b"x" * 4096
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body), body) for _ in range(3)) + b"0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as client:
        credentials = running.header("pusher")["Authorization"]
        head = f"PATCH {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nAuthorization: {credentials}\r\n\r\n"
        client.sendall(head.encode() + chunks)
        said = client.recv(65536)
    assert said.startswith(b"HTTP/1.1 403"), said
    assert b"quota shop/*: bytes" in said


def test_what_was_sent_to_open_sessions_takes_room(running: LiveRegistry) -> None:
    set_quota(running, "shop/*", bytes=ROOM)
    first, second = begin(running, "shop/web"), begin(running, "shop/api")
    assert running.request("PATCH", first, body=b"x" * 6000).status == 202
    assert refusal(running.request("PATCH", second, body=b"y" * 6000))["limit"] == ROOM
    assert running.request("DELETE", first).status == 204
    assert running.request("PATCH", second, body=b"y" * 6000).status == 202
    done = f"{second}?digest={Digest.of(b'y' * 6000)}"
    assert running.request("PUT", done).status == 201
    assert used(running, "shop/*") == {"bytes": 6000, "repositories": 1, "manifests": 0, "tags": 0}
    assert refusal(running.request("POST", f"/v2/shop/web/blobs/uploads/?digest={Digest.of(b'z')}", body=b"z" * 4001))
    assert begin(running, "team/app")  # another's quota is none of its


def test_a_full_quota_begins_no_session_and_a_freed_one_does(running: LiveRegistry) -> None:
    digest = running.push_blob("shop/web", b"x" * 100)
    assert set_quota(running, "shop/*", bytes=100)["bytes"] == 100
    assert refusal(running.request("POST", "/v2/shop/web/blobs/uploads/"))["got"] == 101
    assert running.request("DELETE", f"/v2/shop/web/blobs/{digest}").status == 202
    assert begin(running, "shop/web")


def test_mounts_manifests_tags_and_repositories_count(running: LiveRegistry) -> None:
    made = image()
    running.push("base/app", made)
    layer = made.layers[0].descriptor
    mount = f"/v2/shop/web/blobs/uploads/?mount={layer.digest}&from=base/app"
    set_quota(running, "shop/*", bytes=layer.size - 1)
    assert refusal(running.request("POST", mount))["of"] == "bytes"
    set_quota(running, "shop/*", bytes=layer.size)
    assert running.request("POST", mount).status == 201
    assert running.request("POST", mount).status == 201  # is there already
    assert used(running, "shop/*")["bytes"] == layer.size
    again = running.request("POST", mount.replace("shop/web", "shop/api"))
    assert refusal(again) == {"rule": "quota shop/*", "of": "bytes", "limit": layer.size, "got": 2 * layer.size}
    set_quota(running, "shop/*", repositories=1)
    assert refusal(running.request("POST", mount.replace("shop/web", "shop/api")))["of"] == "repositories"
    running.push_blob("shop/web", made.config.raw)
    set_quota(running, "shop/*", manifests=0)
    raw, kind = made.manifest.raw, made.manifest.media_type
    assert refusal(running.put_manifest("shop/web", "1", raw, kind))["of"] == "manifests"
    set_quota(running, "shop/*", manifests=1, tags=1)
    assert running.put_manifest("shop/web", "1", raw, kind).status == 201
    assert refusal(running.put_manifest("shop/web", "2", raw, kind))["of"] == "tags"
    assert running.request("DELETE", "/v2/shop/web/manifests/1").status == 202
    assert running.put_manifest("shop/web", "2", raw, kind).status == 201
    total = layer.size + len(made.config.raw) + len(raw)
    assert used(running, "shop/*") == {"bytes": total, "repositories": 1, "manifests": 1, "tags": 1}


def test_an_account_has_a_quota_of_its_own(running: LiveRegistry) -> None:
    running.account("ci", Role.PUSHER)
    set_quota(running, "account:ci", bytes=ROOM, repositories=1)
    running.push_blob("shop/web", b"x" * ROOM)
    running.push_blob("shop/web", b"c" * 100, account="ci")
    assert used(running, "account:ci") == {"bytes": 100, "repositories": 0, "manifests": 0, "tags": 0}
    running.push_blob("ci/one", b"c" * 100, account="ci")
    third = f"/v2/ci/two/blobs/uploads/?digest={Digest.of(b'c' * 100)}"
    assert refusal(running.request("POST", third, account="ci", body=b"c" * 100))["rule"] == "quota account:ci"
    assert running.request("DELETE", f"/v2/shop/web/blobs/{Digest.of(b'c' * 100)}").status == 202
    assert used(running, "account:ci")["bytes"] == 100


def test_many_pushers_at_once_never_go_over(running: LiveRegistry) -> None:
    """Each was told that there is room; what counts is counted when it is written."""
    set_quota(running, "shop/*", bytes=ROOM)
    answers: list[int] = []

    def push(number: int) -> None:
        content = b"%02d" % number * 1000
        path = f"/v2/shop/app-{number % 3}/blobs/uploads/?digest={Digest.of(content)}"
        answers.append(running.request("POST", path, body=content).status)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert Counter(answers) == {201: 5, 403: 7}
    assert used(running, "shop/*")["bytes"] == ROOM


def test_open_sessions_are_counted(running: LiveRegistry) -> None:
    opened = [begin(running, f"shop/app-{number}") for number in range(5)]
    answer = running.request("POST", "/v2/shop/web/blobs/uploads/")
    assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (429, "TOOMANYREQUESTS")
    assert running.request("DELETE", opened[0]).status == 204
    assert begin(running, "shop/web")


def test_a_refused_commit_leaves_no_session(running: LiveRegistry) -> None:
    path = begin(running, "shop/web")
    assert running.request("PATCH", path, body=b"x" * 100).status == 202
    set_quota(running, "shop/*", bytes=99)
    answer = running.request("PUT", f"{path}?digest={Digest.of(b'x' * 100)}")
    assert refusal(answer)["got"] == 100
    assert running.request("GET", path).status == 404
    assert running.request("HEAD", f"/v2/shop/web/blobs/{Digest.of(b'x' * 100)}").status == 404
