"""A registry of a few lines on a live loopback port, whose every answer a test can change.

    with FakeRegistry() as registry:
        registry.add(built, "team/app", "1.0")
        registry.hook(lambda request: Answer(503) if request.path.endswith("/tags/list") else None)

It speaks the distribution API as far as pulls, referrers, tags and one-piece uploads need, serves
`documents` under any path (our /api/v1), asks for Basic credentials if it has `account`, and records each
request. It checks nothing: what is refused must be refused by the client.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit

from ocispec.descriptor import Descriptor, MediaType
from ocispec.digest import Digest
from tests.support.images import BuiltImage, BuiltIndex


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back. With `cut` the connection is closed after that many bytes of the body."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None


Hook = Callable[[Request], Answer | None]


class FakeRegistry:
    """See the module. `manifests` and `blobs` are by (repository, tag or digest)."""

    def __init__(self, *, account: tuple[str, str] | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.documents: dict[str, bytes] = {}
        self.referrers_api = True
        self.requests: list[Request] = []
        self.account = account
        self._hooks: list[Hook] = []
        self._server = _Server(self, tls)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def host(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def hook(self, hook: Hook) -> None:
        """Ask `hook` before everything else; None means "as usual"."""
        self._hooks.insert(0, hook)

    def unhook(self) -> None:
        """Forget all hooks."""
        self._hooks.clear()

    def add(self, built: BuiltImage | BuiltIndex, repository: str, tag: str | None = None) -> None:
        """Store an image or index with all that belongs to it."""
        images = built.images if isinstance(built, BuiltIndex) else (built,)
        for image in images:
            self.put_manifest(repository, image.manifest.raw, image.manifest.media_type)
            for digest, content in image.blobs.items():
                self.blobs[repository, str(digest)] = content
        document = built.index if isinstance(built, BuiltIndex) else built.manifest
        self.put_manifest(repository, document.raw, document.media_type, tag)

    def put_manifest(self, repository: str, raw: bytes, media_type: str, tag: str | None = None) -> Digest:
        """Store a manifest's bytes under their digest and `tag`."""
        digest = Digest.of(raw)
        for name in (str(digest), tag):
            if name is not None:
                self.manifests[repository, name] = (str(media_type), raw)
        return digest

    def attach(self, repository: str, subject: Descriptor, artifact_type: str, blob: bytes, blob_type: str) -> Digest:
        """Store an artifact with `blob` as its one layer and `subject` as its subject; returns its digest."""
        config = b"{}"
        described = Descriptor(media_type=blob_type, digest=Digest.of(blob), size=len(blob))
        empty = Descriptor(media_type=MediaType.OCI_EMPTY, digest=Digest.of(config), size=len(config))
        self.blobs[repository, str(described.digest)] = blob
        self.blobs[repository, str(empty.digest)] = config
        members = {
            "schemaVersion": 2,
            "mediaType": str(MediaType.OCI_MANIFEST),
            "artifactType": artifact_type,
            "config": empty.to_json(),
            "layers": [described.to_json()],
            "subject": subject.to_json(),
        }
        return self.put_manifest(repository, json.dumps(members).encode(), MediaType.OCI_MANIFEST)

    def answer(self, request: Request) -> Answer:
        """The usual answer."""
        for hook in self._hooks:
            if (answer := hook(request)) is not None:
                return answer
        if self.account is not None and request.headers.get("authorization") != _basic(self.account):
            return Answer(401, _errors("UNAUTHORIZED"), {"WWW-Authenticate": 'Basic realm="fake"'})
        if request.path in self.documents and request.method == "GET":
            return Answer(200, self.documents[request.path], {"Content-Type": "application/json"})
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs|referrers|tags)/([^/]+|uploads/.*)", request.path)
        if match is None:
            return Answer(200 if request.path == "/v2/" else 404)
        repository, kind, name = match[1], match[2], match[3]
        handlers = {"manifests": self._manifest, "blobs": self._blob, "referrers": self._referrers, "tags": self._tags}
        return handlers[kind](request, repository, name)

    def _manifest(self, request: Request, repository: str, name: str) -> Answer:
        if request.method == "PUT":
            tag = None if ":" in name else name
            digest = self.put_manifest(repository, request.body, request.headers["content-type"], tag)
            return Answer(201, headers={"Docker-Content-Digest": str(digest), "Location": request.path})
        found = self.manifests.get((repository, name))
        if found is None:
            return Answer(404, _errors("MANIFEST_UNKNOWN"))
        return Answer(200, found[1], {"Content-Type": found[0], "Docker-Content-Digest": str(Digest.of(found[1]))})

    def _blob(self, request: Request, repository: str, name: str) -> Answer:
        if request.method == "POST":
            return Answer(202, headers={"Location": f"/v2/{repository}/blobs/uploads/1?state=x"})
        if request.method == "PUT":
            self.blobs[repository, request.query["digest"][0]] = request.body
            return Answer(201)
        blob = self.blobs.get((repository, name))
        if blob is None:
            return Answer(404, _errors("BLOB_UNKNOWN"))
        start = request.headers.get("range", "").removeprefix("bytes=").removesuffix("-")
        if start:
            content_range = {"Content-Range": f"bytes {start}-{len(blob) - 1}/{len(blob)}"}
            return Answer(206, blob[int(start) :], content_range)
        return Answer(200, blob, {"Content-Type": "application/octet-stream"})

    def _referrers(self, request: Request, repository: str, name: str) -> Answer:
        if not self.referrers_api:
            return Answer(404)
        wanted = request.query.get("artifactType", [None])[0]
        listed = []
        for (where, target), (media_type, raw) in sorted(self.manifests.items()):
            members = json.loads(raw)
            if where != repository or ":" not in target or members.get("subject", {}).get("digest") != name:
                continue
            kind = members.get("artifactType") or members["config"]["mediaType"]
            if wanted in (None, kind):
                entry = {"mediaType": media_type, "digest": target, "size": len(raw), "artifactType": kind}
                listed.append({**entry, "annotations": members.get("annotations", {})})
        body = {"schemaVersion": 2, "mediaType": str(MediaType.OCI_INDEX), "manifests": listed}
        return Answer(200, json.dumps(body).encode(), {"Content-Type": str(MediaType.OCI_INDEX)})

    def _tags(self, request: Request, repository: str, name: str) -> Answer:
        assert name == "list"
        tags = sorted(tag for where, tag in self.manifests if where == repository and ":" not in tag)
        count = int(request.query.get("n", ["1000"])[0])
        rest = [tag for tag in tags if tag > request.query.get("last", [""])[0]]
        page = rest[:count]
        more = {"Link": f'<{request.path}?n={count}&last={page[-1]}>; rel="next"'} if len(rest) > count else {}
        return Answer(200, json.dumps({"name": repository, "tags": page}).encode(), more)


def _basic(account: tuple[str, str]) -> str:
    return "Basic " + base64.b64encode(":".join(account).encode()).decode()


def _errors(code: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": "no", "detail": None}]}).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, registry: FakeRegistry, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.registry = registry
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _any(self) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length", "0"))
        request = Request(
            method=self.command,
            path=url.path,
            query=parse_qs(url.query),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(length),
        )
        self.server.registry.requests.append(request)
        answer = self.server.registry.answer(request)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in answer.headers and "Transfer-Encoding" not in answer.headers:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body if answer.cut is None else answer.body[: answer.cut])
        if answer.cut is not None:
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _any  # noqa: N815 - the names that http.server looks up

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's own word
        """Quiet: the requests are recorded."""
