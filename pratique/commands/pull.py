"""Fetch a cleared image and prove it: tag, manifest, clearance, layers, and the root index written again here.

pratique pull registry.example/shop/web:1

Nothing of a layer is fetched before the clearance is proven. What is whole is kept, so a pull that broke off goes
on where it was.
"""

from __future__ import annotations

import argparse

from pratique import arguments as shared
from pratique import clock, hosting
from pratique.exits import Exit
from pratique.output import as_json, line, size


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the image and where it goes."""
    parser.add_argument("image", metavar="IMAGE", help="registry/repository:tag or @digest")
    parser.add_argument("--platform", metavar="OS/ARCH", help="of an index, the child for this platform")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    hosting.add_store(parser)
    shared.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Pull it."""
    from ocispec.platform import Platform
    from ocispec.reference import Reference
    from policy.refusal import Refused
    from policy.times import format_time
    from runtime.pull import pull

    pulled = pull(
        Reference.parse(arguments.image),
        host=hosting.open_host(arguments),
        clock=clock.now,
        platform=Platform.parse(arguments.platform) if arguments.platform else None,
        progress=(lambda _: None) if arguments.quiet or arguments.json else hosting.ProgressLines(),
    )
    if isinstance(pulled, Refused):
        return hosting.refused(pulled, json=arguments.json)
    clearance = pulled.verified.clearance.statement
    hosting.warn_of(pulled.synced)
    if arguments.json:
        as_json(
            {
                "image": pulled.record.name,
                "level": clearance.level,
                "root_index": str(pulled.record.root_index),
                "cleared_until": format_time(clearance.expires),
                "fetched_bytes": pulled.fetched,
            }
        )
    else:
        line(f"{pulled.record.name}")
        line(f"  cleared for level {clearance.level} until {format_time(clearance.expires)}")
        line(f"  root index {pulled.record.root_index}, written here and equal to the clearance's")
        line(f"  {len(pulled.record.diff_ids)} layers, {size(pulled.fetched)} fetched")
    return Exit.FINE
