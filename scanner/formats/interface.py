"""What a format is given beside the report: the image that the document is about, and when it was made."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from ocispec.digest import Digest
from ocispec.strictjson import JsonValue
from scanner.model import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The image: its name as the reader knows it, its manifest's digest, and its layers' diff_ids, lowest first."""

    name: str
    digest: Digest
    diff_ids: tuple[Digest, ...]

    def layer(self, index: int) -> str:
        """A layer for people and tools: its diff_id, or its number if it has none."""
        return str(self.diff_ids[index]) if 0 <= index < len(self.diff_ids) else str(index)


class Format(Protocol):
    """Writes a report as a document."""

    @property
    def media_type(self) -> str:
        """The media type of the document."""

    def encode(self, report: Report, subject: Subject, *, created: datetime) -> bytes:
        """The document, in UTF-8; the same arguments give the same bytes."""


def rendered(document: Mapping[str, JsonValue]) -> bytes:
    """A document as indented JSON, members in their order."""
    return (json.dumps(document, ensure_ascii=False, indent=2) + "\n").encode("utf-8", "replace")


def timestamp(moment: datetime) -> str:
    """A time as both formats have it: RFC 3339, UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def document_id(document: Mapping[str, JsonValue]) -> uuid.UUID:
    """An id that is a function of the document's content, so that it is written again with the same one."""
    content = json.dumps(document, sort_keys=True).encode()
    # RFC 9562 section 5.8: a UUID of our own making, version 8.
    raw = bytearray(hashlib.sha256(content).digest()[:16])
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    return uuid.UUID(bytes=bytes(raw))
