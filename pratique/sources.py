"""The arguments that name a SOURCE of an image, and the image read whole."""

from __future__ import annotations

import argparse
from datetime import datetime
from typing import TYPE_CHECKING

from pratique import arguments as shared

if TYPE_CHECKING:
    from pratique.reading import ReadImage


def add_source(parser: argparse.ArgumentParser) -> None:
    """Declare SOURCE, `--platform` and `--account`."""
    forms = "registry/repository:tag or @digest, oci:FOLDER[:TAG], docker-archive:FILE or dir:FOLDER"
    parser.add_argument("source", metavar="SOURCE", help=forms)
    parser.add_argument("--platform", metavar="OS/ARCH", help="of an index, the child for this platform")
    shared.add_account(parser)


def read_source(arguments: argparse.Namespace, now: datetime, *, registry: str = "", repository: str = "") -> ReadImage:
    """The image that SOURCE names, read whole; `registry` and `repository` are where it is to be judged.

    Raises:
        SpecError: it cannot be read, or is refused. CommandError: the account is not remembered.
    """
    from pratique.reading import find_image, read_image

    image = find_image(arguments.source, account=arguments.account, platform=arguments.platform)
    return read_image(image, registry=registry, repository=repository, now=now)
