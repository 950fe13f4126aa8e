"""R13: one request, one body: what is judged is what is executed, however it is framed, and also for /api/v1.

Requests are written byte by byte, because no client library sends them.
"""

from __future__ import annotations

import json
import re
import socket

import pytest
from sqlalchemy import func, select

from ocispec.descriptor import MediaType
from ocispec.digest import Digest
from ocispec.manifest import MAX_MANIFEST
from registry.api.control.shared import MAX_REQUEST
from registry.catalogue.schema import accounts, audit, statements
from tests.support.images import BuiltImage, image
from tests.support.registry import LiveRegistry

OCI = str(MediaType.OCI_MANIFEST)
CONTENT = b"hello"
CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"


def head(live: LiveRegistry, method: str, path: str, *lines: str, account: str = "pusher") -> bytes:
    """The head of a request."""
    named = (f"{method} {path} HTTP/1.1", "Host: registry", f"Authorization: {live.header(account)['Authorization']}")
    return "\r\n".join((*named, *lines, "", "")).encode("latin-1")


def sent(live: LiveRegistry, data: bytes, *, cut: bool = False) -> list[int]:
    """Send bytes on a connection of their own; the statuses of all answers. With `cut` our side ends after them."""
    with socket.create_connection(("127.0.0.1", live.port), timeout=20) as connection:
        connection.sendall(data)
        if cut:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def chunked(content: bytes, size: int = 60_000) -> bytes:
    """A body in chunks, whole."""
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def count(live: LiveRegistry) -> tuple[int, ...]:
    """How many accounts, statements and records of changes there are."""
    catalogue = live.catalogue()
    with catalogue.read() as conn:
        changes = select(func.count()).select_from(audit).where(audit.c.event.not_in(("read", "refused")))
        tables = [select(func.count()).select_from(table) for table in (accounts, statements)]
        found = tuple(conn.scalar(query) or 0 for query in (*tables, changes))
    catalogue.close()
    return found


@pytest.fixture
def pushed(live: LiveRegistry, repository: str) -> BuiltImage:
    """An image in the repository, tagged v1."""
    built = image()
    live.push(repository, built, "v1")
    return built


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        (("Content-Length: 5", "Content-Length: 6"), CONTENT),
        (("Content-Length: 5, 5",), CONTENT),
        (("Content-Length: +5",), CONTENT),
        (("Content-Length: 0x5",), CONTENT),
        (("Content-Length: -1",), CONTENT),
        (("Content-Length: 99999999999999999999999",), CONTENT),
        (("Content-Length : 5",), CONTENT),
        (("X: a", " b", "Content-Length: 5"), CONTENT),
        (("Transfer-Encoding: xchunked",), CHUNKED),
        (("Transfer-Encoding: chunked, identity",), CHUNKED),
        (("Transfer-Encoding: chunked", "Transfer-Encoding: identity"), CHUNKED),
        (("Transfer-Encoding: \x0bchunked",), CHUNKED),
        (("Transfer-Encoding: chunked",), b"ffffffffffffffff1\r\nhello\r\n0\r\n\r\n"),
        (("Transfer-Encoding: chunked",), b"-5\r\nhello\r\n0\r\n\r\n"),
        (("Transfer-Encoding: chunked",), b"5\nhello\n0\n\n"),
    ],
)
def test_r13_a_body_whose_end_two_readers_see_differently_is_refused(
    live: LiveRegistry, repository: str, lines: tuple[str, ...], body: bytes
) -> None:
    path = f"/v2/{repository}/blobs/uploads/?digest={Digest.of(CONTENT)}"
    behind = head(live, "GET", "/v2/", "Connection: close")
    # Whatever is behind such a body is not taken for a request: the connection ends.
    assert sent(live, head(live, "POST", path, *lines) + body + behind) == [400]
    assert live.request("HEAD", f"/v2/{repository}/blobs/{Digest.of(CONTENT)}").status == 404


def test_r13_chunks_count_where_a_length_is_announced_too(live: LiveRegistry, repository: str) -> None:
    # RFC 9112 section 6.1: the chunks count, and the connection ends, so that nothing is read behind them.
    path = f"/v2/{repository}/blobs/uploads/?digest={Digest.of(CONTENT)}"
    behind = head(live, "DELETE", f"/v2/{repository}/blobs/{Digest.of(CONTENT)}", "Connection: close")
    for length in (0, 5, len(CHUNKED), len(CHUNKED) + len(behind)):
        lines = (f"Content-Length: {length}", "Transfer-Encoding: chunked")
        assert sent(live, head(live, "POST", path, *lines) + CHUNKED + behind) == [201]
        assert live.request("GET", f"/v2/{repository}/blobs/{Digest.of(CONTENT)}").body == CONTENT


@pytest.mark.parametrize(
    "coding", ["Content-Encoding: gzip", "Content-Encoding: gzip, identity", "Content-Encoding: x"]
)
def test_r13_a_coded_body_is_refused(live: LiveRegistry, repository: str, coding: str) -> None:
    path = f"/v2/{repository}/blobs/uploads/?digest={Digest.of(CONTENT)}"
    ends = ("Content-Length: 5", "Connection: close")
    assert sent(live, head(live, "POST", path, coding, *ends) + CONTENT) == [415]
    assert sent(live, head(live, "POST", path, "Transfer-Encoding: gzip, chunked", ends[1]) + CHUNKED) == [415]
    assert live.request("HEAD", f"/v2/{repository}/blobs/{Digest.of(CONTENT)}").status == 404
    assert sent(live, head(live, "POST", path, "Content-Encoding: identity", *ends) + CONTENT) == [201]


def test_r13_a_request_in_a_body_is_not_executed(live: LiveRegistry, repository: str, pushed: BuiltImage) -> None:
    hidden = head(live, "DELETE", f"/v2/{repository}/manifests/{pushed.digest}", "Connection: close")
    last = head(live, "GET", "/v2/", "Connection: close")
    length = f"Content-Length: {len(hidden)}"
    for method, path in (
        ("GET", "/v2/"),
        ("HEAD", f"/v2/{repository}/manifests/v1"),
        ("DELETE", f"/v2/{repository}/manifests/absent"),
        ("POST", f"/v2/{repository}/blobs/uploads/"),
        ("GET", "/healthz"),
        ("PUT", f"/v2/{repository}/manifests/v2"),
        ("POST", "/api/v1/accounts"),
        ("OPTIONS", "/v2/"),
    ):
        statuses = sent(live, head(live, method, path, length) + hidden + last)
        # Its own answer and that of the last request, or a connection that ended before.
        assert len(statuses) <= 2
        assert statuses[1:] in ([200], [])
        in_chunks = head(live, method, path, "Transfer-Encoding: chunked") + chunked(hidden) + last
        assert sent(live, in_chunks)[1:] in ([200], [])
    assert live.request("GET", f"/v2/{repository}/manifests/{pushed.digest}").status == 200


@pytest.mark.parametrize(
    ("method", "path", "account"),
    [
        ("PUT", "/v2/{repository}/manifests/new", "pusher"),
        ("POST", "/api/v1/accounts", "admin"),
        ("POST", "/api/v1/bootstrap", "admin"),
        ("POST", "/api/v1/statements", "officer"),
        ("POST", "/api/v1/trust", "officer"),
    ],
)
@pytest.mark.parametrize("framing", ["Content-Length: 0", "Transfer-Encoding: chunked", "X: no body at all"])
def test_r13_an_empty_body_changes_nothing(
    live: LiveRegistry, repository: str, method: str, path: str, account: str, framing: str
) -> None:
    before = count(live)
    body = b"0\r\n\r\n" if "chunked" in framing else b""
    where = path.format(repository=repository)
    statuses = sent(live, head(live, method, where, framing, "Connection: close", account=account) + body)
    assert statuses in ([400], [401], [422])
    assert count(live) == before
    assert live.request("GET", f"/v2/{repository}/manifests/new").status == 404


@pytest.mark.parametrize("framing", ["announced", "chunked"])
@pytest.mark.parametrize(
    ("method", "path", "account", "limit"),
    [
        ("PUT", "/v2/{repository}/manifests/new", "pusher", MAX_MANIFEST),
        ("POST", "/api/v1/accounts", "admin", MAX_REQUEST),
        ("POST", "/api/v1/statements", "officer", MAX_MANIFEST),
        ("POST", "/api/v1/trust", "officer", MAX_MANIFEST),
    ],
)
def test_r13_an_oversized_body_is_refused_whole(
    live: LiveRegistry, repository: str, method: str, path: str, account: str, limit: int, framing: str
) -> None:
    before = count(live)
    # All of it that fits is a request that would be executed: nothing is decided on the first part of a body.
    members = {"name": "smuggled", "role": "admin"} if "accounts" in path else json.loads(image().manifest.raw)
    content = json.dumps(members).encode()
    content += b" " * (limit + 1 - len(content))
    line = f"Content-Length: {len(content)}" if framing == "announced" else "Transfer-Encoding: chunked"
    body = content if framing == "announced" else chunked(content)
    where = path.format(repository=repository)
    media_type = f"Content-Type: {OCI}"
    statuses = sent(live, head(live, method, where, line, media_type, "Connection: close", account=account) + body)
    assert statuses == [413]
    assert count(live) == before
    assert live.request("GET", f"/v2/{repository}/manifests/new").status == 404


@pytest.mark.parametrize("framing", ["announced", "chunked"])
def test_r13_an_oversized_blob_is_refused_whole(small: LiveRegistry, framing: str) -> None:
    limit = small.settings.limits.blob_bytes
    content = b"x" * (limit + 1)
    fits = Digest.of(content[:limit])
    for digest in (Digest.of(content), fits):
        line = f"Content-Length: {len(content)}" if framing == "announced" else "Transfer-Encoding: chunked"
        body = content if framing == "announced" else chunked(content)
        path = f"/v2/team/app/blobs/uploads/?digest={digest}"
        assert sent(small, head(small, "POST", path, line, "Connection: close") + body) == [413]
        begun = small.request("POST", "/v2/team/app/blobs/uploads/").headers["location"]
        assert sent(small, head(small, "PUT", f"{begun}?digest={digest}", line, "Connection: close") + body) == [413]
        # In pieces that fit, one by one, it is as large.
        assert small.request("PATCH", begun, body=content[:limit]).status == 202
        assert small.request("PATCH", begun, body=content[limit:]).status == 413
        assert small.request("GET", begun).headers["range"] == f"0-{limit - 1}"
        assert small.request("HEAD", f"/v2/team/app/blobs/{digest}").status == 404


@pytest.mark.parametrize("framing", ["announced", "chunked"])
def test_r13_a_document_that_is_cut_off_is_none(live: LiveRegistry, repository: str, framing: str) -> None:
    built = image()
    for content in built.blobs.values():
        live.push_blob(repository, content)
    before = count(live)
    account = json.dumps({"name": "cut-off", "role": "host"}).encode()
    raw = built.manifest.raw
    for method, path, content, who in (
        ("PUT", f"/v2/{repository}/manifests/new", raw, "pusher"),
        ("POST", "/api/v1/accounts", account, "admin"),
    ):
        for kept in (1, len(content) // 2, len(content) - 1):
            line = f"Content-Length: {len(content)}" if framing == "announced" else "Transfer-Encoding: chunked"
            part = content[:kept] if framing == "announced" else b"%x\r\n%s" % (len(content), content[:kept])
            lines = (line, f"Content-Type: {OCI}", "Connection: close")
            assert sent(live, head(live, method, path, *lines, account=who) + part, cut=True) in ([400], [])
    assert count(live) == before
    assert live.request("GET", f"/v2/{repository}/manifests/new").status == 404
    assert live.put_manifest(repository, "new", raw, OCI).status == 201


@pytest.mark.parametrize(
    "content",
    [
        b'{"name": "two-roles", "role": "host", "role": "admin"}',
        b'{"name": "two-roles", "role": "host"}{"name": "two-roles", "role": "admin"}',
        b'{"name": "two-roles", "role": "host", "x": NaN}',
        b'{"name": "two-roles", "role": "host", "x": 9007199254740993}',
        b'{"name": "two-roles", "role": "host", "x": "\xff"}',
        b'{"name": "two-roles", "role": "host", "x": "\\ud800"}',
        b'{"name": "two-roles", "role": "host", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b"\xef\xbb\xbf" + b'{"name": "two-roles", "role": "host"}',
        '{"name": "two-roles", "role": "host"}'.encode("utf-16"),
        b"name=two-roles&role=host",
    ],
)
def test_r11_json_that_two_parsers_read_differently_makes_no_account(live: LiveRegistry, content: bytes) -> None:
    before = count(live)
    for path in ("/api/v1/accounts", "/api/v1/statements", "/api/v1/trust"):
        account = "officer" if "accounts" not in path else "admin"
        answer = live.request("POST", path, account=account, body=content)
        assert answer.status in {400, 413, 422}, answer
    assert count(live) == before
