"""What runs on this host, told to the registries that it came from: their retention keeps it meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ocispec.access import Access
from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.reference import Reference
from runtime.host import Host
from runtime.record import Container

PATH: Final = "/api/v1/running"

MAX_ANSWER: Final = 64 * 1024

Image = tuple[str, str, Digest]
"""Registry, repository, manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one registry was told; `error` is why it does not know it, "" if it does."""

    registry: str
    images: int
    error: str = ""


def running_images(containers: Iterable[Container]) -> tuple[Image, ...]:
    """The images that containers run, each once; one that was started from something else than a registry has none."""
    found: set[Image] = set()
    for container in containers:
        if container.status != "exited" and container.shown.digest:
            try:
                reference = Reference.parse(container.shown.image)
                found.add((reference.registry, reference.repository, Digest.parse(container.shown.digest)))
            except SpecError:
                continue
    return tuple(sorted(found))


def report(host: Host, images: Iterable[Image], *, access: Access | None = None) -> tuple[Told, ...]:
    """Tell each registry what runs of it, which may be nothing; it takes the place of what was told before."""
    known = tuple(images)
    return tuple(_tell(host, account.registry, known, access) for account in host.accounts())


def _tell(host: Host, registry: str, images: tuple[Image, ...], access: Access | None) -> Told:
    mine = [{"repository": repository, "digest": str(digest)} for its, repository, digest in images if its == registry]
    body = json.dumps({"images": mine}).encode()
    try:
        with host.remote(registry, access=access) as remote:
            remote.send_document("PUT", PATH, body, content_type="application/json", limit=MAX_ANSWER)
    except SpecError as error:
        return Told(registry=registry, images=len(mine), error=str(error))
    return Told(registry=registry, images=len(mine))
