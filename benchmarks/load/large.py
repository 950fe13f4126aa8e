"""Blobs of many megabytes, down and up, by clients that cost as little as they can: plain sockets, no copies.

Downloads are thrown away in the kernel (MSG_TRUNC, tcp(7)); uploads are sent from one piece of memory.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

MIB = 1024 * 1024
CHUNK = 32 * 1024
"""Bytes of a chunk of a chunked body: what Go's HTTP client writes, which docker and podman use."""

_END = b"\r\n\r\n"


@dataclass(slots=True)
class _Stream:
    """A download: `left` is None until its head was read."""

    head: bytes = b""
    left: int | None = None


def download(port: int, path: str, lines: Sequence[str], *, streams: int) -> float:
    """Seconds until so many connections, all at once, have received all of a blob.

    Raises:
        ConnectionError: an answer is not 200, or ends early.
    """
    request = _head("GET", port, path, lines)
    buffer = bytearray(4 * MIB)
    with selectors.EpollSelector() as selector:
        for _ in range(streams):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ, _Stream())
        begun = time.perf_counter()
        for key in selector.get_map().values():
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.send(request)
        left = streams
        while left:
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                if _received(key.fileobj, key.data, buffer):
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
                    left -= 1
    return time.perf_counter() - begun


def _received(connection: socket.socket, stream: _Stream, buffer: bytearray) -> bool:
    """Take what is there; true at the end of the body."""
    if stream.left is None:
        stream.head += connection.recv(4096)
        head, end, begun = stream.head.partition(_END)
        if not end:
            return False
        stream.left = _length(head) - len(begun)
    else:
        count = connection.recv_into(buffer, min(stream.left, len(buffer)), socket.MSG_TRUNC)
        if not count:
            raise ConnectionError(f"a download ended {stream.left} bytes early")
        stream.left -= count
    return stream.left == 0


def _length(head: bytes) -> int:
    status, *lines = head.split(b"\r\n")
    if not status.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"a download was answered {status.decode()}")
    fields = dict(line.lower().split(b": ", 1) for line in lines)
    return int(fields[b"content-length"])


class Client:
    """One kept connection, on which blobs are pushed."""

    def __init__(self, port: int, lines: Sequence[str]) -> None:
        """Connect; every request has these header lines."""
        self._port, self._lines = port, lines
        self._connection = socket.create_connection(("127.0.0.1", port))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def by_put(self, repository: str, digest: str, content: memoryview) -> None:
        """POST for a session, and PUT with all of it."""
        where = self._begin(repository)
        self._ask("PUT", _with(where, digest), 201, content)

    def by_chunked_put(self, repository: str, digest: str, content: memoryview) -> None:
        """POST, and PUT without a length; `content` is in chunks already (`chunked`)."""
        where = self._begin(repository)
        self._ask("PUT", _with(where, digest), 201, content, framing="Transfer-Encoding: chunked")

    def by_patch(self, repository: str, digest: str, content: memoryview) -> None:
        """POST, PATCH with all of it, and an empty PUT: what docker does."""
        where = self._begin(repository)
        where = self._ask("PATCH", where, 202, content)
        self._ask("PUT", _with(where, digest), 201, memoryview(b""))

    def _begin(self, repository: str) -> str:
        return self._ask("POST", f"/v2/{repository}/blobs/uploads/", 202, memoryview(b""))

    def _ask(self, method: str, path: str, status: int, body: memoryview, *, framing: str = "") -> str:
        lines = [*self._lines, "Content-Type: application/octet-stream", framing or f"Content-Length: {len(body)}"]
        self._connection.sendall(_head(method, self._port, path, lines))
        self._connection.sendall(body)
        answer = b""
        while _END not in answer:
            got = self._connection.recv(65536)
            if not got:
                raise ConnectionError(f"{method} {path} was not answered")
            answer += got
        first, *rest = answer.partition(_END)[0].decode().split("\r\n")
        if int(first.split()[1]) != status:
            raise ConnectionError(f"{method} {path} was answered {answer.decode()}")
        fields = dict(line.split(": ", 1) for line in rest)
        location = urlsplit(next((value for name, value in fields.items() if name.lower() == "location"), ""))
        return location.path + (f"?{location.query}" if location.query else "")


def chunked(content: memoryview) -> memoryview:
    """A body as it is sent without a length (RFC 9112 section 7.1)."""
    made = bytearray()
    for start in range(0, len(content), CHUNK):
        chunk = content[start : start + CHUNK]
        made += b"%x\r\n" % len(chunk)
        made += chunk
        made += b"\r\n"
    made += b"0\r\n\r\n"
    return memoryview(made)


def _with(path: str, digest: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}digest={digest}"


def _head(method: str, port: int, path: str, lines: Sequence[str]) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *lines]).encode() + _END
