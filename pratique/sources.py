"""Opening a SOURCE of an image, with the account that `pratique login` remembered for its registry."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pratique import accounts

if TYPE_CHECKING:
    from ocispec.blobs import StoredImage
    from ocispec.remote import Remote

HELP = "registry/repository:tag or @digest, oci:FOLDER[:TAG], docker-archive:FILE or dir:FOLDER"


def add_source(parser: argparse.ArgumentParser) -> None:
    """Declare SOURCE and `--platform`."""
    parser.add_argument("source", metavar="SOURCE", help=HELP)
    parser.add_argument("--platform", metavar="OS/ARCH", help="of an index, the child for this platform")


def connecting(account: str | None = None) -> Callable[[str], Remote]:
    """A function that gives the client of a registry; anonymous where no account is remembered."""

    def connect(registry: str) -> Remote:
        from ocispec.access import Access, Credentials
        from ocispec.remote import Remote

        known = accounts.find(registry, account)
        if known is None:
            return Remote(registry, Access())
        return Remote(
            registry,
            Access(
                credentials=Credentials(name=known.name, secret=known.secret),
                ca_file=Path(known.ca) if known.ca else None,
                plain_http=known.plain_http,
            ),
        )

    return connect


def open_image(arguments: argparse.Namespace) -> StoredImage:
    """The image that SOURCE names.

    Raises:
        SpecError: it cannot be read, or is refused.
    """
    from ocispec.platform import Platform
    from ocispec.source import open_source

    platform = Platform.parse(arguments.platform) if arguments.platform else None
    return open_source(arguments.source, connect=connecting(getattr(arguments, "account", None)), platform=platform)
