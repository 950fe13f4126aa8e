"""What a host asks a registry for beside images: statements, as bytes that nothing has proven yet.

The paths are pratique's own `/api/v1` (docs/registry.md); clearances come by the referrers API, or by cosign's
tag where there is none. At most MAX_CANDIDATES envelopes and MAX_BYTES are read for one digest (trust.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from ocispec import fields
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import LimitError, MissingError, SpecError
from ocispec.localfile import read_all
from ocispec.manifest import Index, Manifest
from ocispec.reference import Reference
from ocispec.remote import MAX_REFERRERS, Remote
from ocispec.strictjson import JsonValue, parse_object
from policy import cosign, dsse
from policy.cosign import ATTESTATION, PREDICATE_ANNOTATION

MAX_CANDIDATES: Final = MAX_REFERRERS
MAX_BYTES: Final = 4 * 1024 * 1024
MAX_ANSWER: Final = 2 * dsse.MAX_ENVELOPE
MAX_REASON: Final = 2000
"""Characters of a registry's reason that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TagAnswer:
    """What a registry says of a tag; `statement` is the envelope that proves `served`, None if nothing is served.

    `reason` is the registry's word for people, why nothing is; a registry may say none.
    """

    served: Digest | None
    statement: bytes | None
    reason: str = ""


class Budget:
    """Bytes that may still be read for one question."""

    def __init__(self, what: str, limit: int = MAX_BYTES) -> None:
        """Begin with `limit` bytes."""
        self._what = what
        self._left = limit

    def take(self, size: int) -> None:
        """Spend `size` bytes.

        Raises:
            LimitError: there are not so many left.
        """
        self._left -= size
        if self._left < 0:
            raise LimitError(f"{self._what}: statements of more than {MAX_BYTES} bytes")


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements of one registry."""

    remote: Remote

    def trust(self) -> bytes | None:
        """Its trust.json, or None if it serves none."""
        return self._envelope("/api/v1/trust", None)

    def revocations(self) -> tuple[bytes, bytes] | None:
        """The revocation list and its date, or None before there is one."""
        path = "/api/v1/revocations"
        members = self._members(path)
        listed, date = members.get("list"), members.get("date")
        if listed is None or date is None:
            return None
        return envelope_of(listed, what=path), envelope_of(date, what=path)

    def floors(self) -> tuple[bytes, ...]:
        """The policy floors that officers have set; none if the registry serves none."""
        path = "/api/v1/floors"
        items = fields.items(self._members(path), "floors", what=path, limit=64)
        return tuple(envelope_of(item, what=path) for item in items)

    def tag(self, reference: Reference) -> TagAnswer:
        """What a tag serves.

        Raises:
            RemoteError: the registry refuses, or has no such tag that we may know of.
        """
        path = f"/api/v1/tags/{reference.tag or 'latest'}/{reference.repository}"
        members = parse_object(self.remote.get_document(path, limit=MAX_ANSWER), what=path, max_bytes=MAX_ANSWER)
        served, statement = fields.text(members, "served", what=path, default=""), members.get("statement")
        return TagAnswer(
            served=Digest.parse(served) if served else None,
            statement=None if statement is None else envelope_of(statement, what=path),
            reason=fields.text(members, "reason", what=path, default="")[:MAX_REASON],
        )

    def about(self, repository: str, digest: Digest, predicate: str) -> Iterator[bytes]:
        """The envelopes with statements of type `predicate` that are attached to a manifest or index.

        Raises:
            LimitError: more than MAX_CANDIDATES or MAX_BYTES.
            SpecError: something attached is malformed, or is not what its descriptor says.
        """
        budget = Budget(f"{self.remote.registry}/{repository}@{digest}")
        found = self.remote.referrers(repository, digest, ATTESTATION)
        if not found:
            yield from self._tagged(repository, digest, predicate, budget)
        for descriptor in found:
            if dict(descriptor.annotations).get(PREDICATE_ANNOTATION, predicate) != predicate:
                continue
            budget.take(descriptor.size)
            manifest = self.remote.repository(repository).read_manifest(descriptor)
            yield from self._blobs(repository, manifest, predicate, budget)

    def _tagged(self, repository: str, digest: Digest, predicate: str, budget: Budget) -> Iterator[bytes]:
        try:
            manifest = self.remote.manifest(repository, cosign.attestation_tag(digest))
        except MissingError:
            return
        budget.take(len(manifest.raw))
        yield from self._blobs(repository, manifest, predicate, budget)

    def _blobs(self, repository: str, manifest: Manifest | Index, predicate: str, budget: Budget) -> Iterator[bytes]:
        if not isinstance(manifest, Manifest):
            return
        for layer in _envelopes(manifest.layers, predicate):
            budget.take(layer.size)
            with self.remote.repository(repository).open_blob(layer) as stream:
                envelope = read_all(stream, limit=MAX_BYTES, what=f"blob {layer.digest}")
            yield envelope

    def _members(self, path: str) -> dict[str, JsonValue]:
        try:
            raw = self.remote.get_document(path, limit=MAX_ANSWER)
        except MissingError:
            return {}
        return parse_object(raw, what=path, max_bytes=MAX_ANSWER)

    def _envelope(self, path: str, member: str | None) -> bytes | None:
        members = self._members(path)
        value: JsonValue = members if member is None else members.get(member)
        return envelope_of(value, what=path) if value else None


def envelope_of(value: JsonValue, *, what: str) -> bytes:
    """An envelope out of a larger document; its payload is base64, so that writing it again changes nothing signed.

    Raises:
        SpecError: it is no object.
    """
    if not isinstance(value, dict):
        raise SpecError(f"{what}: an envelope is missing, expected an object")
    return json.dumps(value, separators=(",", ":")).encode()


def _envelopes(layers: Iterable[Descriptor], predicate: str) -> Iterator[Descriptor]:
    for position, layer in enumerate(layers):
        if position >= MAX_CANDIDATES:
            raise LimitError(f"attestations: more than {MAX_CANDIDATES} in one manifest")
        named = dict(layer.annotations).get(PREDICATE_ANNOTATION, predicate)
        if layer.media_type == dsse.MEDIA_TYPE and named == predicate:
            yield layer
