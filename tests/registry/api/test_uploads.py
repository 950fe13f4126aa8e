"""Pushing blobs over HTTP: whole, chunked, streamed, resumed, cancelled, mounted, and cut off."""

from __future__ import annotations

import json
import os
import socket
from http.client import HTTPConnection
from uuid import UUID

import pytest

from ocispec.digest import Digest
from registry.access import Role
from tests.support.registry import Answer, LiveRegistry


def begin(live: LiveRegistry, repository: str, account: str = "pusher") -> str:
    """Begin a session, and return its path."""
    answer = live.request("POST", f"/v2/{repository}/blobs/uploads/", account=account)
    assert (answer.status, answer.headers["range"]) == (202, "0-0")
    return answer.headers["location"]


def code(answer: Answer) -> str:
    """The code of the first error."""
    return str(json.loads(answer.body)["errors"][0]["code"])


def held(live: LiveRegistry, repository: str, content: bytes, algorithm: str = "sha256") -> bool:
    """True if the repository has the blob, whole."""
    digest = Digest.of(content, algorithm)
    got = live.request("GET", f"/v2/{repository}/blobs/{digest}")
    return got.status == 200 and got.body == content


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_post_then_put(live: LiveRegistry, repository: str, algorithm: str) -> None:
    content = os.urandom(3_000_000)
    path = begin(live, repository)
    answer = live.request("PUT", f"{path}?digest={Digest.of(content, algorithm)}", body=content)
    assert answer.status == 201
    assert answer.headers["location"] == f"/v2/{repository}/blobs/{Digest.of(content, algorithm)}"
    assert held(live, repository, content, algorithm)


def test_post_one_patch_put_as_docker_does(live: LiveRegistry, repository: str) -> None:
    content = os.urandom(3_000_000)
    path = begin(live, repository)
    patched = live.request("PATCH", path, body=content)
    assert (patched.status, patched.headers["range"]) == (202, f"0-{len(content) - 1}")
    assert live.request("PUT", f"{patched.headers['location']}?digest={Digest.of(content)}").status == 201
    assert held(live, repository, content)


def test_chunks_in_order(live: LiveRegistry, repository: str) -> None:
    content = os.urandom(1_000_000)
    path = begin(live, repository)
    for start in range(0, 900_000, 300_000):
        chunk = content[start : start + 300_000]
        answer = live.request("PATCH", path, body=chunk, Content_Range=f"{start}-{start + len(chunk) - 1}")
        assert (answer.status, answer.headers["range"]) == (202, f"0-{start + len(chunk) - 1}")
    last = live.request(
        "PUT", f"{path}?digest={Digest.of(content)}", body=content[900_000:], Content_Range="900000-999999"
    )
    assert last.status == 201
    assert held(live, repository, content)


@pytest.mark.parametrize("content_range", ["5-9", "11-15", "10-9", "ten-fifteen", "bytes=10-14", "-1-4"])
def test_a_chunk_out_of_order_is_416_and_changes_nothing(
    live: LiveRegistry, repository: str, content_range: str
) -> None:
    path = begin(live, repository)
    live.request("PATCH", path, body=b"0123456789")
    answer = live.request("PATCH", path, body=b"abcde", Content_Range=content_range)
    assert (answer.status, answer.headers["range"], code(answer)) == (416, "0-9", "BLOB_UPLOAD_INVALID")
    assert answer.headers["location"] == path
    status = live.request("GET", path)
    assert (status.status, status.headers["range"]) == (204, "0-9")
    assert live.request("PUT", f"{path}?digest={Digest.of(b'0123456789')}").status == 201


def test_a_chunk_of_another_length_than_its_range_is_refused(live: LiveRegistry, repository: str) -> None:
    path = begin(live, repository)
    answer = live.request("PATCH", path, body=b"abcde", Content_Range="0-9")
    assert (answer.status, code(answer)) == (400, "SIZE_INVALID")
    assert live.request("GET", path).headers["range"] == "0-0"


def test_a_streamed_body_without_a_length(live: LiveRegistry, repository: str) -> None:
    content = os.urandom(2_500_000)
    path = begin(live, repository)
    connection = HTTPConnection("127.0.0.1", live.port, timeout=30)
    pieces = (content[start : start + 100_000] for start in range(0, len(content), 100_000))
    connection.request("PATCH", path, body=pieces, headers=live.header("pusher"), encode_chunked=False)
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("Range")) == (202, f"0-{len(content) - 1}")
    connection.close()
    assert live.request("PUT", f"{path}?digest={Digest.of(content)}").status == 201
    assert held(live, repository, content)


def test_a_wrong_digest_stores_nothing(live: LiveRegistry, repository: str) -> None:
    wanted = Digest.of(b"wanted")
    path = begin(live, repository)
    answer = live.request("PUT", f"{path}?digest={wanted}", body=b"other")
    assert (answer.status, code(answer)) == (400, "DIGEST_INVALID")
    assert live.request("HEAD", f"/v2/{repository}/blobs/{wanted}").status == 404
    assert live.request("GET", path).status == 404
    whole = live.request("POST", f"/v2/{repository}/blobs/uploads/?digest={wanted}", body=b"other")
    assert (whole.status, code(whole)) == (400, "DIGEST_INVALID")
    assert live.request("HEAD", f"/v2/{repository}/blobs/{wanted}").status == 404


def test_a_session_is_named_by_a_uuid(live: LiveRegistry, repository: str) -> None:
    path = begin(live, repository)
    prefix, _, named = path.rpartition("/")
    assert str(UUID(named)) == named
    for other in (str(UUID(int=1)), named.replace("-", ""), named.upper(), "%00", "..%2F..", "{" + named + "}"):
        answer = live.request("GET", f"{prefix}/{other}")
        assert answer.status == 404, other
        assert code(answer) in {"BLOB_UPLOAD_UNKNOWN", "UNSUPPORTED"}


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_the_algorithm_of_the_digest_is_announced(live: LiveRegistry, repository: str, algorithm: str) -> None:
    content = os.urandom(100_000)
    begun = live.request("POST", f"/v2/{repository}/blobs/uploads/?digest-algorithm={algorithm}")
    assert begun.status == 202
    path = begun.headers["location"]
    assert live.request("PUT", f"{path}?digest={Digest.of(content, algorithm)}", body=content).status == 201
    assert held(live, repository, content, algorithm)


@pytest.mark.parametrize("algorithm", ["md5", "sha384", "", "SHA256", "sha256+b64"])
def test_an_algorithm_that_is_not_supported_is_refused(live: LiveRegistry, repository: str, algorithm: str) -> None:
    answer = live.request("POST", f"/v2/{repository}/blobs/uploads/?digest-algorithm={algorithm}")
    assert (answer.status, code(answer)) == (400, "DIGEST_INVALID")


def test_a_put_without_a_digest_is_refused(live: LiveRegistry, repository: str) -> None:
    answer = live.request("PUT", begin(live, repository), body=b"x")
    assert (answer.status, code(answer)) == (400, "DIGEST_INVALID")


def test_a_cancelled_session_is_gone(live: LiveRegistry, repository: str) -> None:
    path = begin(live, repository)
    live.request("PATCH", path, body=b"abc")
    assert live.request("DELETE", path).status == 204
    for method in ("GET", "PATCH", "DELETE"):
        answer = live.request(method, path)
        assert answer.status == 404
    assert live.request("PUT", f"{path}?digest={Digest.of(b'abc')}").status == 404


def test_a_session_is_its_accounts_and_its_repositorys(live: LiveRegistry, repository: str) -> None:
    path = begin(live, repository)
    if "colleague" not in live.secrets:
        live.account("colleague", Role.PUSHER)
    assert live.request("PATCH", path, account="colleague", body=b"foreign").status == 404
    elsewhere = path.replace(repository, f"{repository}/other")
    assert live.request("PATCH", elsewhere, body=b"moved").status == 404
    assert live.request("GET", path).headers["range"] == "0-0"


def cut_off(live: LiveRegistry, method: str, path: str, head: str, body: bytes) -> bytes:
    """Send a request whose body ends before it should; returns what is answered."""
    authorization = live.header("pusher")["Authorization"]
    request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n{head}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", live.port), timeout=20) as connection:
        connection.sendall(request.encode() + body)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def test_r13_a_cut_off_body_is_never_a_whole_one(live: LiveRegistry, repository: str) -> None:
    content = b"x" * 500_000
    half = content[:200_000]
    # The digest is the half's own: only the count against Content-Length tells that something is missing.
    path = f"/v2/{repository}/blobs/uploads/?digest={Digest.of(half)}"
    cut_off(live, "POST", path, f"Content-Length: {len(content)}", half)
    assert live.request("HEAD", f"/v2/{repository}/blobs/{Digest.of(half)}").status == 404
    session = begin(live, repository)
    cut_off(live, "PUT", f"{session}?digest={Digest.of(half)}", f"Content-Length: {len(content)}", half)
    assert live.request("HEAD", f"/v2/{repository}/blobs/{Digest.of(half)}").status == 404


def test_a_cut_off_chunk_is_kept_and_resumed(live: LiveRegistry, repository: str) -> None:
    content = os.urandom(500_000)
    path = begin(live, repository)
    cut_off(live, "PATCH", path, f"Content-Length: {len(content)}", content[:300_000])
    status = live.request("GET", path)
    received = int(status.headers["range"].partition("-")[2]) + 1
    assert 0 < received <= 300_000
    rest = content[received:]
    answer = live.request("PATCH", path, body=rest, Content_Range=f"{received}-{len(content) - 1}")
    assert answer.status == 202
    assert live.request("PUT", f"{path}?digest={Digest.of(content)}").status == 201
    assert held(live, repository, content)


def test_a_cut_off_stream_is_found_by_its_digest(live: LiveRegistry, repository: str) -> None:
    content = b"a stream without a length, cut off in the middle of a chunk"
    path = f"/v2/{repository}/blobs/uploads/?digest={Digest.of(content)}"
    cut_off(live, "POST", path, "Transfer-Encoding: chunked", b"40\r\n" + content[:30])
    assert live.request("HEAD", f"/v2/{repository}/blobs/{Digest.of(content)}").status == 404


def test_a_blob_is_mounted_from_a_repository_that_the_caller_reads(live: LiveRegistry, repository: str) -> None:
    digest = live.push_blob(repository, b"mounted")
    target = f"{repository}/mounted"
    for query in (f"mount={digest}&from={repository}", f"mount={digest}"):
        answer = live.request("POST", f"/v2/{target}/blobs/uploads/?{query}")
        assert (answer.status, answer.headers["location"]) == (201, f"/v2/{target}/blobs/{digest}")
        assert held(live, target, b"mounted")


def test_r4_a_mount_tells_nothing_of_what_the_caller_may_not_read(live: LiveRegistry, repository: str) -> None:
    secret = live.push_blob(repository, b"of another team")
    if "other-team" not in live.secrets:
        live.account("other-team", Role.PUSHER, "other-team/*")
    absent = Digest.of(b"never pushed")
    answers = []
    for digest, origin in (
        (secret, f"&from={repository}"),
        (absent, f"&from={repository}"),
        (secret, "&from=no/such/repository"),
        (secret, ""),
        (absent, ""),
        (secret, "&from=../../etc"),
    ):
        path = f"/v2/other-team/app/blobs/uploads/?mount={digest}{origin}"
        answer = live.request("POST", path, account="other-team")
        assert live.request("HEAD", f"/v2/other-team/app/blobs/{digest}", account="other-team").status == 404
        shown = {name: value for name, value in answer.headers.items() if name not in {"date", "x-request-id"}}
        session = shown.pop("docker-upload-uuid")
        assert shown["location"].endswith(session)
        shown["location"] = shown["location"].removesuffix(session)
        answers.append((answer.status, shown, answer.body))
    assert answers[0][0] == 202
    assert all(answer == answers[0] for answer in answers)
