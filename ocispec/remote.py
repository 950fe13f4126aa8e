"""A registry, as a client sees it: distribution specification 1.1.

    remote = Remote("registry.example:5000", Access(credentials=..., ca_file=...))
    document = remote.manifest("team/app", "1.0")        # Manifest or Index, from the bytes that were hashed
    image = choose_image(remote.repository("team/app"), document, platform)

What is asked for by digest is hashed here, whatever headers say (R2). A blob's stream resumes by Range when
the connection breaks. All answers are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, Final
from urllib.parse import quote, urljoin, urlsplit

from ocispec import fields
from ocispec.access import Access, Origin
from ocispec.blobs import parse_as
from ocispec.descriptor import INDEX_TYPES, MANIFEST_TYPES, Descriptor, MediaType
from ocispec.digest import Digest
from ocispec.errors import (
    DigestMismatchError,
    LimitError,
    MissingError,
    RemoteError,
    RemoteMissingError,
    SourceError,
    SpecError,
)
from ocispec.manifest import MAX_MANIFEST, Index, Manifest, parse_index, parse_manifest
from ocispec.reference import check_repository, check_tag
from ocispec.refusal import Refusal, parse_refusal
from ocispec.stream import ChunkStream
from ocispec.strictjson import parse_object
from ocispec.transport import Response, Transport
from ocispec.verify import CHUNK, VerifyingReader

MAX_REFERRERS: Final = 64
"""Referrers of one manifest that are read, of one artifact type (trust.md, "Clearance")."""

MAX_REFERRER_BYTES: Final = 4 * 1024 * 1024
"""Bytes of one list of referrers."""

MAX_TAGS: Final = 10_000
MAX_PAGES: Final = 64
MAX_ERROR: Final = 256 * 1024
"""Bytes of an error's body: a denial carries its explanation."""

MAX_BREAKS: Final = 8
"""Times that one blob's stream is taken up again."""

_ACCEPT: Final = ", ".join(sorted(MANIFEST_TYPES | INDEX_TYPES))
_NEXT = re.compile(r'<([^<>]*)>\s*;\s*rel="?next"?', re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """A manifest that was taken; `warnings` are the texts of its Warning headers (RFC 7234 section 5.5)."""

    digest: Digest
    warnings: tuple[str, ...]


class Remote:
    """One registry, `host[:port]`. Safe for several threads."""

    def __init__(self, registry: str, access: Access | None = None) -> None:
        """Nothing is sent yet.

        Raises:
            SpecError: see Transport.
        """
        self.registry = registry
        self.transport = Transport(registry, access or Access())

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections."""
        self.transport.close()

    def repository(self, name: str) -> Repository:
        """One of its repositories as a place of blobs.

        Raises:
            SpecError: not a repository's name.
        """
        return Repository(remote=self, name=check_repository(name))

    def get(self, target: str, *, limit: int, scope: str = "", accept: str = "application/json") -> Response:
        """GET any path of the registry (e.g. of its /api/v1) and require 200; the caller closes the answer.

        Raises:
            RemoteError: another status.
            LimitError: it announces more than `limit` bytes.
        """
        response = self.transport.request("GET", target, scope=scope, headers={"Accept": accept})
        if response.status != 200:
            raise _error(response, f"{self.registry}: GET {target[:200]}")
        if response.length is not None and response.length > limit:
            response.close()
            raise LimitError(f"{self.registry}: {target[:200]}: {response.length} bytes, expected at most {limit}")
        return response

    def get_document(self, target: str, *, limit: int, scope: str = "", accept: str = "application/json") -> bytes:
        """The whole body of `get`.

        Raises:
            RemoteError, LimitError, SourceError: see `get` and Response.read.
        """
        what = f"{self.registry}: {target[:200]}"
        return self.get(target, limit=limit, scope=scope, accept=accept).read_all(limit=limit, what=what)

    def send_document(self, method: str, target: str, body: bytes, *, content_type: str, limit: int) -> bytes:
        """POST, PUT or DELETE a small document, require a 2xx, and return the answer's body.

        Raises:
            RemoteError: another status.
        """
        headers = {"Content-Type": content_type, "Content-Length": str(len(body)), "Accept": "application/json"}
        response = self.transport.request(method, target, scope="", headers=headers, body=body)
        what = f"{self.registry}: {method} {target[:200]}"
        if not 200 <= response.status < 300:
            raise _error(response, what)
        return response.read_all(limit=limit, what=what)

    def manifest(self, repository: str, target: str | Digest) -> Manifest | Index:
        """The manifest or index of a tag or digest.

        Raises:
            DigestMismatchError: the body is another one than the digest's, or than its own header's.
            RemoteMissingError: there is none, or we may not know of it.
            RemoteError: refused, e.g. code DENIED for a host while an image is not cleared.
        """
        name = str(target) if isinstance(target, Digest) else check_tag(target)
        path = f"/v2/{check_repository(repository)}/manifests/{name}"
        response = self.get(path, limit=MAX_MANIFEST, scope=_scope(repository), accept=_ACCEPT)
        said, header = response.content_type, response.header("Docker-Content-Digest")
        raw = response.read_all(limit=MAX_MANIFEST, what=f"{self.registry}/{repository}: manifest {name}")
        expected = target if isinstance(target, Digest) else (Digest.parse(header) if header else None)
        if expected is not None and Digest.of(raw, expected.algorithm) != expected:
            got = Digest.of(raw, expected.algorithm)
            raise DigestMismatchError(f"{self.registry}/{repository}: manifest {name}: got {got}, want {expected}")
        algorithm = target.algorithm if isinstance(target, Digest) else "sha256"
        return parse_manifest(raw, said or None, algorithm=algorithm)

    def head_manifest(self, repository: str, target: str | Digest) -> bool:
        """True if the registry has a manifest under this tag or digest, and lets us know.

        Raises:
            RemoteError: refused for another reason than that it is not there.
        """
        name = str(target) if isinstance(target, Digest) else check_tag(target)
        path = f"/v2/{check_repository(repository)}/manifests/{name}"
        return self._head(path, repository, {"Accept": _ACCEPT})

    def head_blob(self, repository: str, digest: Digest) -> bool:
        """True if the registry has this blob in the repository."""
        return self._head(f"/v2/{check_repository(repository)}/blobs/{digest}", repository, {})

    def open_blob(self, repository: str, descriptor: Descriptor) -> BlobStream:
        """The stored bytes of a blob, not yet proven: for whoever proves them elsewhere. Must be closed.

        Raises:
            RemoteError: refused or not there.
        """
        return BlobStream(self, check_repository(repository), descriptor)

    def referrers(self, repository: str, digest: Digest, artifact_type: str | None = None) -> tuple[Descriptor, ...]:
        """The manifests whose subject is `digest`, of one artifact type if that is given.

        A registry without the referrers API is asked for the fallback tag (`sha256-<hex>`).

        Raises:
            LimitError: more than MAX_REFERRERS, or a longer list than MAX_REFERRER_BYTES.
        """
        target = f"/v2/{check_repository(repository)}/referrers/{digest}"
        if artifact_type is not None:
            target += f"?artifactType={quote(artifact_type, safe='')}"
        try:
            found = [
                item
                for raw in self._pages(target, _scope(repository), MAX_REFERRER_BYTES, MediaType.OCI_INDEX)
                for item in parse_index(raw, MediaType.OCI_INDEX).manifests
            ]
        except RemoteMissingError:
            found = list(self._fallback(repository, digest))
        chosen = tuple(item for item in found if artifact_type is None or item.artifact_type == artifact_type)
        if len(chosen) > MAX_REFERRERS:
            what = f"{self.registry}/{repository}: {len(chosen)} referrers of {digest}"
            raise LimitError(f"{what}, expected at most {MAX_REFERRERS}")
        return chosen

    def tags(self, repository: str) -> tuple[str, ...]:
        """The repository's tags, in the registry's order.

        Raises:
            LimitError: more than MAX_TAGS.
        """
        target = f"/v2/{check_repository(repository)}/tags/list?n=1000"
        found: list[str] = []
        what = f"{self.registry}/{repository}: tags"
        for raw in self._pages(target, _scope(repository), MAX_MANIFEST, "application/json"):
            found += fields.texts(parse_object(raw, what=what), "tags", what=what, limit=MAX_TAGS)
            if len(found) > MAX_TAGS:
                raise LimitError(f"{what}: more than {MAX_TAGS}")
        return tuple(check_tag(tag) for tag in found)

    def push_blob(self, repository: str, descriptor: Descriptor, content: BinaryIO) -> None:
        """Upload a blob unless it is there (POST, then one PUT).

        Raises:
            RemoteError: refused.
            SpecError: the registry sends the upload to another host, which gets nothing.
        """
        if self.head_blob(repository, descriptor.digest):
            return
        scope = _scope(repository, push=True)
        path = f"/v2/{check_repository(repository)}/blobs/uploads/"
        response = self.transport.request("POST", path, scope=scope, headers={"Content-Length": "0"}, body=b"")
        if response.status != 202:
            raise _error(response, f"{self.registry}: upload to {repository}")
        location = response.header("Location")
        response.close()
        url = urlsplit(urljoin(f"{self.transport.origin}{path}", location))
        if Origin.of_url(url) != self.transport.origin:
            raise SpecError(f"{self.registry}: upload to {location[:200]!r}: another host is not followed")
        target = f"{url.path}?{url.query + '&' if url.query else ''}digest={descriptor.digest}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(descriptor.size)}
        done = self.transport.request("PUT", target, scope=scope, headers=headers, body=content)
        if done.status != 201:
            raise _error(done, f"{self.registry}: blob {descriptor.digest}")
        done.close()

    def push_manifest(self, repository: str, target: str | Digest, raw: bytes, media_type: str) -> Pushed:
        """Upload a manifest or index under a tag or its digest.

        Raises:
            RemoteError: refused.
        """
        name = str(target) if isinstance(target, Digest) else check_tag(target)
        path = f"/v2/{check_repository(repository)}/manifests/{name}"
        headers = {"Content-Type": media_type, "Content-Length": str(len(raw))}
        response = self.transport.request("PUT", path, scope=_scope(repository, push=True), headers=headers, body=raw)
        if response.status != 201:
            raise _error(response, f"{self.registry}/{repository}: manifest {name}")
        response.close()
        return Pushed(digest=Digest.of(raw), warnings=response.headers("Warning"))

    def _head(self, path: str, repository: str, headers: dict[str, str]) -> bool:
        response = self.transport.request("HEAD", path, scope=_scope(repository), headers=headers)
        if response.status not in {200, 404}:
            raise _error(response, f"{self.registry}: HEAD {path}")
        response.close()
        return response.status == 200

    def _pages(self, target: str, scope: str, limit: int, accept: str) -> Iterator[bytes]:
        left = limit
        for _ in range(MAX_PAGES):
            response = self.get(target, limit=left, scope=scope, accept=accept)
            link = _NEXT.search(response.header("Link"))
            raw = response.read_all(limit=left, what=f"{self.registry}: {target[:200]}")
            left -= len(raw)
            yield raw
            if link is None:
                return
            url = urlsplit(urljoin(f"{self.transport.origin}{target}", link[1]))
            if Origin.of_url(url) != self.transport.origin:
                raise SpecError(f"{self.registry}: the next page is at {link[1][:200]!r}, on another host")
            target = f"{url.path}?{url.query}"
        raise LimitError(f"{self.registry}: {target[:200]}: more than {MAX_PAGES} pages")

    def _fallback(self, repository: str, digest: Digest) -> Sequence[Descriptor]:
        # Distribution specification, "Referrers Tag Schema": algorithm and digits, cut to a tag's length.
        tag = f"{digest.algorithm[:32]}-{digest.hex[:64]}"
        try:
            document = self.manifest(repository, tag)
        except MissingError:
            return ()
        if not isinstance(document, Index):
            raise SpecError(f"{self.registry}/{repository}: tag {tag} is a manifest, expected an index")
        return document.manifests


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """One repository of a registry; implements ocispec.blobs.Blobs."""

    remote: Remote = field(repr=False)
    name: str

    @contextmanager
    def open_blob(self, descriptor: Descriptor) -> Iterator[BinaryIO]:
        """See ocispec.blobs.Blobs."""
        source = self.remote.open_blob(self.name, descriptor)
        what = f"blob {descriptor.digest}"
        with VerifyingReader(source, digest=descriptor.digest, size=descriptor.size, what=what) as reader:
            yield reader

    def read_manifest(self, descriptor: Descriptor) -> Manifest | Index:
        """See ocispec.blobs.Blobs."""
        document = self.remote.manifest(self.name, descriptor.digest)
        if len(document.raw) != descriptor.size:
            raise DigestMismatchError(
                f"manifest {descriptor.digest}: got {len(document.raw)} bytes, want {descriptor.size}"
            )
        return parse_as(document.raw, descriptor)


class BlobStream(ChunkStream):
    """A blob's bytes as the registry sends them; a broken connection is taken up again by Range.

    Nothing is proven here: a VerifyingReader stands behind it.
    """

    def __init__(self, remote: Remote, repository: str, descriptor: Descriptor) -> None:
        super().__init__()
        self._remote = remote
        self._repository = repository
        self._descriptor = descriptor
        self._done = 0
        self._breaks = 0
        self._response: Response | None = self._request()

    def chunk(self, size: int) -> bytes:
        """See ChunkStream.

        Raises:
            SourceError: the connection broke more than MAX_BREAKS times, or no new one was had.
        """
        while True:
            try:
                if self._response is None:
                    self._response = self._request()
                chunk = self._response.read(size)
            except RemoteError:
                raise
            except SourceError:
                self._breaks += 1
                if self._breaks > MAX_BREAKS:
                    raise
                self._drop()
                continue
            self._done += len(chunk)
            return chunk

    def close(self) -> None:
        """Drop the answer."""
        self._drop()
        super().close()

    def _drop(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def _request(self) -> Response:
        what = f"blob {self._descriptor.digest}"
        headers = {"Range": f"bytes={self._done}-"} if self._done else {}
        response = self._remote.transport.request(
            "GET",
            f"/v2/{self._repository}/blobs/{self._descriptor.digest}",
            scope=_scope(self._repository),
            headers={"Accept": "*/*", **headers},
        )
        if response.status == 206 and self._done:
            if not response.header("Content-Range").startswith(f"bytes {self._done}-"):
                response.close()
                raise SpecError(f"{what}: asked for bytes from {self._done}, got another range")
            return response
        if response.status != 200:
            raise _error(response, f"{self._remote.registry}/{self._repository}: {what}")
        # A server that does not know ranges begins again: what we have already is skipped.
        left = self._done
        while left and (chunk := response.read(min(left, CHUNK))):
            left -= len(chunk)
        return response


def _scope(repository: str, *, push: bool = False) -> str:
    return f"repository:{repository}:pull{',push' if push else ''}"


def _error(response: Response, what: str) -> RemoteError:
    """The error that an answer other than the expected one stands for; closes it."""
    try:
        said = parse_refusal(response.read_all(limit=MAX_ERROR, what=what), what=what)
    except SpecError:
        said = Refusal()  # an error without a readable body is still that error
    status = response.status
    kind = RemoteMissingError if status == 404 else RemoteError
    shown = f"{what}: answered {status}{said}"
    return kind(shown, status=status, code=said.code, message=said.message, detail=said.detail)
