"""What the signer and its client say to each other: one request and one answer a connection.

A message is a header and parts. The header is canonical JSON behind its length (4 bytes, big-endian); its
member `parts` lists the lengths of the raw byte strings that follow. So evidence and envelopes travel as the
bytes that they are, and everything is bounded before it is read.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ocispec import fields
from ocispec.errors import SpecError
from ocispec.fields import JsonObject
from ocispec.strictjson import parse_object
from policy import canonical
from registry.errors import RegistryError

MAX_HEADER: Final = 64 * 1024
MAX_PARTS: Final = 1024
MAX_BODY: Final = 64 * 1024 * 1024
"""All parts of a message together: evidence of the largest image that we judge."""

_LENGTH = struct.Struct(">I")


class SignerUnavailableError(RegistryError):
    """The signer does not answer, or not as it must."""


class SignerRefusedError(RegistryError):
    """The signer refuses; `code` is a stable word, `subject` the object it is about."""

    def __init__(self, code: str, subject: str, detail: str) -> None:
        """Say what is refused, by which code, and got/expected in `detail`."""
        super().__init__(f"signer: {subject}: {detail}")
        self.code = code
        self.subject = subject
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A request or an answer."""

    members: JsonObject
    parts: tuple[bytes, ...] = ()


def send(connection: socket.socket, members: Mapping[str, canonical.Canonical], parts: Sequence[bytes] = ()) -> None:
    """Send one message.

    Raises:
        OSError: the other side is gone, or does not read within the connection's timeout.
    """
    header = canonical.encode({**members, "parts": [len(part) for part in parts]})
    connection.sendall(_LENGTH.pack(len(header)) + header)
    for part in parts:
        connection.sendall(part)


def receive(connection: socket.socket, *, what: str, seconds: float) -> Message:
    """Read one message, all of it within `seconds`.

    Raises:
        SpecError: it is cut off, too long, or not as above.
        OSError: the other side failed or took too long.
    """
    deadline = time.monotonic() + seconds
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size, deadline, what))
    if length > MAX_HEADER:
        raise SpecError(f"{what}: header of {length} bytes, expected at most {MAX_HEADER}")
    members = parse_object(_exactly(connection, length, deadline, what), what=what, max_bytes=MAX_HEADER)
    lengths: list[int] = []
    for value in fields.items(members, "parts", what=what, limit=MAX_PARTS):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise SpecError(f"{what}: a length in parts is {value!r:.40}")
        lengths.append(value)
    if sum(lengths) > MAX_BODY:
        raise SpecError(f"{what}: parts of {sum(lengths)} bytes, expected at most {MAX_BODY}")
    parts = tuple(_exactly(connection, length, deadline, what) for length in lengths)
    return Message(members={name: value for name, value in members.items() if name != "parts"}, parts=parts)


def _exactly(connection: socket.socket, length: int, deadline: float, what: str) -> bytes:
    content = bytearray()
    while len(content) < length:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{what}: got {len(content)} of {length} bytes in time")
        connection.settimeout(left)
        chunk = connection.recv(min(length - len(content), 1024 * 1024))
        if not chunk:
            raise SpecError(f"{what}: cut off after {len(content)} of {length} bytes")
        content += chunk
    return bytes(content)
