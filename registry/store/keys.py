"""The layout of the store: every key is made here, from parsed values only (R3).

    blobs/<algorithm>/<xx>/<hex>            a blob, whole and verified; xx = first two hex digits
    uploads/<id>/data                       files: the growing bytes; S3: the multipart upload's object
    uploads/<id>/tail-<size>                S3 only: bytes that do not fill a part yet; size = where they end
    derived/<algorithm>/<xx>/<hex>/<name>   made from the content <hex>, e.g. a layer's listing (by diff_id)
    tmp/<id>                                files only: being written, renamed when whole

The same on both engines; S3 puts the setting `storage.prefix` in front. Manifests are not here but in the
catalogue, where they change in one transaction with tags and states.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass

from ocispec.digest import Digest
from registry.errors import StorageError, UploadUnknownError

_UPLOAD_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class DerivedKey:
    """Names a derived object: the digest of what it was made from, and what it is (`listing-v1`, `root-index`)."""

    subject: Digest
    name: str

    def __post_init__(self) -> None:
        """Refuse a name that could be more than one path component."""
        if _NAME.fullmatch(self.name) is None:
            raise StorageError(f"derived object {self.name[:80]!r}: expected [a-z0-9][a-z0-9._-]{{0,63}}")


def new_upload_id() -> str:
    """A new session id: a random UUID (RFC 9562 section 5.4), so that it cannot be guessed by another client."""
    return uuid.uuid4().hex


def check_upload_id(text: str) -> str:
    """Return `text` if it can be the id of a session.

    Raises:
        UploadUnknownError: no id looks like that.
    """
    if _UPLOAD_ID.fullmatch(text) is None:
        raise UploadUnknownError(f"upload {text[:80]!r}: not known")
    return text


def blob_key(digest: Digest) -> str:
    """Where a blob is."""
    return f"blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"


def upload_key(upload_id: str) -> str:
    """Where a session's bytes are."""
    return f"uploads/{check_upload_id(upload_id)}/data"


def tail_key(upload_id: str, size: int) -> str:
    """Where the bytes of a session of `size` bytes after its last whole part are."""
    return f"{upload_prefix(upload_id)}tail-{size}"


def upload_prefix(upload_id: str) -> str:
    """What all keys of a session begin with."""
    return f"uploads/{check_upload_id(upload_id)}/"


def derived_key(key: DerivedKey) -> str:
    """Where a derived object is."""
    return f"derived/{key.subject.algorithm}/{key.subject.hex[:2]}/{key.subject.hex}/{key.name}"


def parse_blob_key(key: str) -> Digest | None:
    """The digest that a listed key belongs to, or None for a key that is no blob's."""
    parts = key.split("/")
    if len(parts) != 4 or parts[0] != "blobs":
        return None
    digest = Digest(parts[1], parts[3])
    return digest if blob_key(digest) == key else None


def parse_derived_key(key: str) -> DerivedKey | None:
    """The derived object that a listed key belongs to, or None for a key that is none."""
    parts = key.split("/")
    if len(parts) != 5 or parts[0] != "derived":
        return None
    found = DerivedKey(Digest(parts[1], parts[3]), parts[4])
    return found if derived_key(found) == key else None
