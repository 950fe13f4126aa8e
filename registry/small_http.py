"""One HTTP/1.1 request, read strictly (RFC 9112): what could be framed in two ways is refused, and nothing is endless.

For a listener that answers one short request a connection. There is no chunked coding, no continuation line, no
second request.
"""

from __future__ import annotations

import io
import re
import sys
from asyncio import IncompleteReadError, LimitOverrunError, StreamReader
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

MAX_HEAD: Final = 64 * 1024
"""Bytes of the request line and all header fields; a bearer token of an issuer may stand in one."""

MAX_BODY: Final = 64 * 1024
MAX_FIELDS: Final = 100

_END: Final = b"\r\n\r\n"
_LINE: Final = re.compile(rb"([A-Z]{1,16}) (/[\x21-\x7e]{0,8191}) HTTP/1\.[01]")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}):[ \t]*([\x20-\x7e\t]*?)[ \t]*")
_LENGTH: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


class BadRequestError(Exception):
    """A request is not read, and answered with this status."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        """Keep the status."""
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request; names of `fields` in lower case, each there once."""

    method: str
    path: str
    query: str
    fields: Mapping[str, str]
    body: bytes


async def read_request(reader: StreamReader) -> Request | None:
    """The request that comes, None if nothing comes; the reader's limit is MAX_HEAD.

    Raises:
        BadRequestError: it is malformed, or larger than it may be.
        OSError: the connection broke.
    """
    try:
        head = await reader.readuntil(_END)
    except IncompleteReadError as error:
        if not error.partial:
            return None
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "the request's head ended early") from None
    except LimitOverrunError:
        message = f"expected a head of at most {MAX_HEAD} bytes"
        raise BadRequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message) from None
    line, *lines = head[: -len(_END)].split(b"\r\n")
    found = _LINE.fullmatch(line)
    if found is None:
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "the request line is not one of HTTP/1.1")
    fields = _fields(lines)
    path, _, query = found[2].decode().partition("?")
    return Request(method=found[1].decode(), path=path, query=query, fields=fields, body=await _body(reader, fields))


def _fields(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > MAX_FIELDS:
        message = f"got {len(lines)} header fields, expected at most {MAX_FIELDS}"
        raise BadRequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)
    fields: dict[str, str] = {}
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise BadRequestError(HTTPStatus.BAD_REQUEST, "a header field is malformed")
        name = found[1].decode().lower()
        if name in fields:
            # Of two, somebody in front may have read the other one.
            raise BadRequestError(HTTPStatus.BAD_REQUEST, f"header field {name} is there twice")
        fields[name] = found[2].decode()
    return fields


async def _body(reader: StreamReader, fields: Mapping[str, str]) -> bytes:
    if "transfer-encoding" in fields:
        raise BadRequestError(HTTPStatus.NOT_IMPLEMENTED, "transfer codings are not read, expected Content-Length")
    length = fields.get("content-length", "0")
    if _LENGTH.fullmatch(length) is None:
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "content-length is no number")
    if int(length) > MAX_BODY:
        message = f"got {length} bytes, expected at most {MAX_BODY}"
        raise BadRequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
    try:
        return await reader.readexactly(int(length))
    except IncompleteReadError:
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "the body ended early") from None


def write_answer(status: int, fields: list[tuple[str, str]], body: bytes, *, head_only: bool = False) -> bytes:
    """An answer as it is sent; the connection is closed after it."""
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = ""
    kept = [(name, value) for name, value in fields if name.lower() not in {"content-length", "connection"}]
    told = [*kept, ("Content-Length", str(len(body))), ("Connection", "close")]
    lines = "".join(f"{name}: {value}\r\n" for name, value in told)
    return f"HTTP/1.1 {status} {reason}\r\n{lines}\r\n".encode("latin-1", "replace") + (b"" if head_only else body)


# ---- to an application (PEP 3333) ----------------------------------------------------------------------------------

_PASSED_ON: Final = {"authorization": "HTTP_AUTHORIZATION", "content-type": "CONTENT_TYPE", "accept": "HTTP_ACCEPT"}
"""Header fields that the application sees. No others: none of them could speak for a proxy here."""


def environ_of(request: Request, address: str) -> WSGIEnvironment:
    """What the application is told of a request (PEP 3333)."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.path,
        "QUERY_STRING": request.query,
        "SERVER_NAME": "registry",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": address,
        "CONTENT_LENGTH": str(len(request.body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    environ |= {key: request.fields[name] for name, key in _PASSED_ON.items() if name in request.fields}
    return environ


def ask(application: WSGIApplication, environ: WSGIEnvironment) -> bytes:
    """The application's answer, as it is sent."""
    told: list[tuple[int, list[tuple[str, str]]]] = []

    def start(
        status: str, headers: list[tuple[str, str]], _exc_info: OptExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        told.append((int(status[:3]), headers))
        return lambda _: None

    said: StartResponse = start
    answer: Iterable[bytes] = application(environ, said)
    try:
        body = b"".join(answer)
    finally:
        if (close := getattr(answer, "close", None)) is not None:
            close()
    status, headers = told[-1]
    return write_answer(status, headers, body, head_only=environ["REQUEST_METHOD"] == "HEAD")
