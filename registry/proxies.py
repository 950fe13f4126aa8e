"""Who asks, where proxies stand in front: the right-most address of the header that is none of theirs.

Each proxy adds to the header, at its right end, the address that it was asked from (X-Forwarded-For as nginx and
others write it; Forwarded, RFC 7239). What stands left of the first address that no proxy of ours has was sent by
the client, and can be anything: it is not looked at. One header is read, the one that the settings name: a client
could send the other, and a proxy that does not know it would pass it on.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

HEADERS: Final = {"x-forwarded-for": "HTTP_X_FORWARDED_FOR", "forwarded": "HTTP_FORWARDED"}
"""The environment variable (PEP 3333) of each header that the settings can name."""

MAX_HOPS: Final = 32
"""Addresses of a header that are looked at, from the right: no chain of proxies is so long."""

_MAX_KNOWN: Final = 4096


class Proxies:
    """The proxies that are believed; for many threads."""

    def __init__(self, networks: Sequence[IPv4Network | IPv6Network], header: str) -> None:
        """Believe what stands in `header` (a key of HEADERS) of requests that come from `networks`."""
        self._networks = tuple(networks)
        self.variable: Final = HEADERS[header]
        self._node = _forwarded_node if header == "forwarded" else _address
        self._known: dict[str, bool] = {}

    def believes(self, peer: str) -> bool:
        """True if the address `peer` is a proxy's."""
        if not self._networks:
            return False
        known = self._known.get(peer)
        if known is None:
            address = _address(peer)
            known = address is not None and any(address in network for network in self._networks)
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[peer] = known
        return known

    def source(self, peer: str, header: str) -> str:
        """The address that a request comes from, which `peer` sent with the header's text `header`.

        Where the header ends, or says what is no address, it is the last proxy before that.
        """
        if not self.believes(peer):
            return peer
        found = peer
        for element in reversed(header[-MAX_HOPS * 64 :].split(",")[-MAX_HOPS:]):
            address = self._node(element)
            if address is None:
                break
            found = str(address)
            if not self.believes(found):
                break
        return found


def _forwarded_node(element: str) -> IPv4Address | IPv6Address | None:
    """The address of a `for` parameter (RFC 7239, section 4); None for `unknown`, an obfuscated one, or none at all.

    Elements are split at each comma, quoted or not: a quotation mark that the client left open must not swallow what
    our proxies wrote behind it, and an address has no comma.
    """
    for pair in element.split(";"):
        name, _, value = pair.partition("=")
        if name.strip().lower() == "for":
            return _address(value.strip().strip('"'))
    return None


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address in `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        # A socket for both versions shows an IPv4 peer in this form.
        return address.ipv4_mapped or address
    return address
