"""Content that lies elsewhere: `urls` of descriptors, and layers that are not to be distributed (R9).

A client that follows `urls` asks a host that whoever pushed the manifest chose, from where the client stands, and some
have sent it their credentials (CVE-2020-15157). A manifest cannot be changed on its way, so what is not to be followed
is not taken in: `urls` are accepted where the specification has a use for them, on the non-distributable layers of an
image, and only such that lead to a public place. No such image is ever cleared (`ocispec.config.check_image`), so no
host is served one; nothing of ours follows them. docs/adr/0091 says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from ocispec.access import Origin
from ocispec.descriptor import FOREIGN_TYPES, Descriptor
from ocispec.errors import SpecError
from ocispec.manifest import Index, Manifest
from ocispec.reference import check_registry
from registry.errors import ManifestInvalidError

_NOT_PUBLIC: Final = ("localhost", "local", "internal")
"""Last labels that never lead to a public place (RFC 6761, RFC 6762, and ICANN's of 2024)."""


def check_urls(parsed: Manifest | Index) -> None:
    """Check each place that a manifest says its parts can be had from.

    Raises:
        ManifestInvalidError: on a descriptor that has no use for one, or a place that nobody should be led to.
    """
    for place, descriptor in _descriptors(parsed):
        what = f"manifest {parsed.digest}: {place}"
        if descriptor.urls and not (place.startswith("layers") and descriptor.media_type in FOREIGN_TYPES):
            raise ManifestInvalidError(f"{what}: urls are accepted on non-distributable layers only")
        for url in descriptor.urls:
            if not _is_public(url):
                raise ManifestInvalidError(f"{what}: url {url[:200]!r}, expected http(s) and a public host")


def _descriptors(parsed: Manifest | Index) -> Iterator[tuple[str, Descriptor]]:
    if parsed.subject is not None:
        yield "subject", parsed.subject
    if isinstance(parsed, Index):
        yield from ((f"manifests[{position}]", child) for position, child in enumerate(parsed.manifests))
        return
    yield "config", parsed.config
    yield from ((f"layers[{position}]", layer) for position, layer in enumerate(parsed.layers))


def _is_public(text: str) -> bool:
    """True for an http(s) URL without credentials, to a public name or a global address.

    What a name resolves to is the client's to look at: it may be another address tomorrow.
    """
    try:
        host = Origin.of_url(urlsplit(text)).host
        check_registry(f"[{host}]" if ":" in host else host)
    except (ValueError, SpecError):
        return False
    if not (text.isascii() and text.isprintable()):
        return False
    try:
        return ip_address(host).is_global
    except ValueError:
        last = host.rpartition(".")[2].lower()
        # A last label that begins with a digit makes an address in another spelling (0x7f.1, 127.1, 2130706433).
        return "." in host and last not in _NOT_PUBLIC and not last[0].isdigit()
