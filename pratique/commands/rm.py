"""Remove what is kept of a container that ended, or an image from this host's store.

pratique rm web                                     what is kept of a container
pratique rm --force web                             the same, stopped first if it runs
pratique rm --image registry.example/shop/web:1     an image that nothing runs from
pratique rm --unused                                every image that nothing runs from
"""

from __future__ import annotations

import argparse

from pratique import clock, hosting
from pratique.exits import CommandError, Exit, UsageError
from pratique.output import line, size


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare what goes."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="containers, or images with --image")
    parser.add_argument("-f", "--force", action="store_true", help="stop a container that runs")
    parser.add_argument("--image", action="store_true", help="the names are images")
    parser.add_argument("--unused", action="store_true", help="all images that nothing runs from")
    hosting.add_store(parser)
    hosting.add_state(parser)


def run(arguments: argparse.Namespace) -> int:
    """Remove them."""
    if arguments.unused == bool(arguments.names):
        raise UsageError("rm: expected names, or --unused without any")
    if arguments.unused:
        return _prune(arguments)
    return _images(arguments) if arguments.image else _containers(arguments)


def _containers(arguments: argparse.Namespace) -> int:
    from runtime.container import remove
    from runtime.model import ContainerId

    for name in arguments.names:
        remove(ContainerId(name), force=arguments.force, state_dir=arguments.state)
        line(name)
    return Exit.FINE


def _images(arguments: argparse.Namespace) -> int:
    from ocispec.reference import Reference
    from policy.refusal import Refused
    from runtime.admission import find

    host = hosting.open_host(arguments)
    now = clock.now()
    for name in arguments.names:
        record = find(Reference.parse(name), host=host, view=host.view(now), now=now)
        if isinstance(record, Refused):
            raise CommandError(str(record))
        host.store.remove(record, in_use=lambda: hosting.in_use(arguments.state))
        line(record.name)
    return Exit.FINE


def _prune(arguments: argparse.Namespace) -> int:
    pruned = hosting.open_host(arguments).store.prune(in_use=lambda: hosting.in_use(arguments.state))
    for name in pruned.images:
        line(name)
    line(f"{len(pruned.images)} images, {pruned.layers} layers, {pruned.indexes} root indexes: {size(pruned.freed)}")
    return Exit.FINE
