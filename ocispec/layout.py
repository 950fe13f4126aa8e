"""`oci:FOLDER[:TAG]`: an OCI image layout (image specification 1.1, image-layout.md).

TAG is the annotation `org.opencontainers.image.ref.name` in index.json; as in containers-transports(5), the
first colon ends the folder. Without TAG the layout must hold one image or index.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from ocispec import fields
from ocispec.blobs import parse_as, read_document
from ocispec.descriptor import INDEX_TYPES, MANIFEST_TYPES, Descriptor, MediaType
from ocispec.errors import MissingError, SpecError
from ocispec.localfile import open_regular, read_small
from ocispec.manifest import MAX_MANIFEST, Index, Manifest, parse_index
from ocispec.strictjson import parse_object
from ocispec.verify import VerifyingReader

REF_NAME: Final = "org.opencontainers.image.ref.name"
"""The annotation that names an entry of index.json (image specification, annotations.md)."""

MAX_HEADER: Final = 4096
"""Bytes of the oci-layout file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """An OCI image layout in a folder; implements ocispec.blobs.Blobs."""

    folder: Path
    index: Index

    @classmethod
    def open(cls, folder: Path) -> Layout:
        """The layout in `folder`.

        Raises:
            MissingError: no oci-layout or index.json there.
            SpecError: another version, or a malformed index.
        """
        what = f"layout {folder}"
        check_header(read_small(folder / "oci-layout", limit=MAX_HEADER, what=what), what=what)
        raw = read_small(folder / "index.json", limit=MAX_MANIFEST, what=what)
        return cls(folder=folder, index=parse_index(raw, MediaType.OCI_INDEX))

    def find(self, tag: str | None) -> Manifest | Index:
        """The manifest or index called `tag`, or the only one.

        Raises:
            SpecError: there is none, or more than one.
        """
        return self.read_manifest(find_entry(self.index, tag, what=f"layout {self.folder}"))

    def open_blob(self, descriptor: Descriptor) -> AbstractContextManager[BinaryIO]:
        """See ocispec.blobs.Blobs."""
        digest = descriptor.digest
        what = f"blob {digest}"
        file = open_regular(self.folder / "blobs" / digest.algorithm / digest.hex, what=what)
        return VerifyingReader(file, digest=digest, size=descriptor.size, what=what)

    def read_manifest(self, descriptor: Descriptor) -> Manifest | Index:
        """See ocispec.blobs.Blobs."""
        what = f"manifest {descriptor.digest}"
        return parse_as(read_document(self, descriptor, limit=MAX_MANIFEST, what=what), descriptor)


def check_header(raw: bytes, *, what: str) -> None:
    """Check the content of an `oci-layout` file.

    Raises:
        SpecError: it is not version 1.0.0's.
    """
    version = fields.text(parse_object(raw, what=f"{what}: oci-layout"), "imageLayoutVersion", what=what)
    if version != "1.0.0":
        raise SpecError(f"{what}: imageLayoutVersion is {version[:40]!r}, expected '1.0.0'")


def find_entry(index: Index, tag: str | None, *, what: str) -> Descriptor:
    """The entry of a layout's index.json called `tag`; with None the only manifest or index in it.

    Raises:
        MissingError: there is none.
        SpecError: there are several, which another reader could tell apart otherwise.
    """
    entries = [entry for entry in index.manifests if entry.media_type in MANIFEST_TYPES | INDEX_TYPES]
    if tag is not None:
        entries = [entry for entry in entries if (REF_NAME, tag) in entry.annotations]
    if not entries:
        raise MissingError(f"{what}: no image{'' if tag is None else f' called {tag[:140]!r}'}")
    if len({entry.digest for entry in entries}) > 1:
        names = [dict(entry.annotations).get(REF_NAME, str(entry.digest)) for entry in entries[:8]]
        raise SpecError(f"{what}: {len(entries)} images, expected one: {', '.join(map(repr, names))}")
    return entries[0]
