"""Where an image can come from, as one word: a registry's reference, or a place on this machine.

registry.example/team/app:1.0          docker://registry.example/team/app@sha256:...
oci:FOLDER[:TAG]    docker-archive:FILE[:NAME]    dir:FOLDER
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ocispec.archive import open_archive
from ocispec.blobs import StoredImage, choose_image
from ocispec.directory import open_directory
from ocispec.errors import SpecError
from ocispec.layout import Layout
from ocispec.platform import Platform
from ocispec.reference import Reference

if TYPE_CHECKING:
    from ocispec.remote import Remote

SCHEMES: Final = ("oci", "docker-archive", "dir", "docker")

Connect = Callable[[str], "Remote"]
"""Gives the client for a registry's `host[:port]`: the caller knows credentials and certificates."""


def open_source(text: str, *, connect: Connect, platform: Platform | None = None) -> StoredImage:
    """The image that `text` names, for `platform` (None: this host's). Layers are read when they are opened.

    Raises:
        SpecError: the text, or what it leads to, is refused.
        SourceError: the place cannot be read.
    """
    host = platform or Platform.of_this_host()
    scheme, colon, rest = text.partition(":")
    if colon and scheme in SCHEMES and scheme != "docker":
        if not rest:
            raise SpecError(f"source {text!r}: a path is missing behind {scheme}:")
        path, _, name = rest.partition(":")
        match scheme:
            case "oci":
                layout = Layout.open(Path(path))
                return choose_image(layout, layout.find(name or None), host)
            case "docker-archive":
                return open_archive(Path(path), name or None, host)
            case _:
                return open_directory(Path(rest), host)
    reference = Reference.parse(text)
    return open_reference(reference, connect(reference.registry), host)


def open_reference(reference: Reference, remote: Remote, platform: Platform) -> StoredImage:
    """The image of a registry's reference; a tag is resolved once, and all that follows is by digest (S4).

    Raises:
        SpecError, SourceError: as `open_source`.
    """
    target = reference.digest if reference.digest is not None else (reference.tag or "latest")
    document = remote.manifest(reference.repository, target)
    return choose_image(remote.repository(reference.repository), document, platform)
