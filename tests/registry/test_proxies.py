"""Whom a request comes from, where proxies stand in front."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.proxies import MAX_HOPS, Proxies

NETWORKS = tuple(ip_network(text) for text in ("10.0.0.0/8", "127.0.0.1", "2001:db8:1::/48"))
PROXIES = Proxies(NETWORKS, "x-forwarded-for")
FORWARDED = Proxies(NETWORKS, "forwarded")
CLIENT = "198.51.100.7"
ADDRESSES = st.ip_addresses().map(str).filter(lambda text: not PROXIES.believes(text))


@pytest.mark.parametrize(
    ("peer", "header", "source"),
    [
        ("10.0.0.1", CLIENT, CLIENT),
        ("10.0.0.1", f"203.0.113.9, {CLIENT}", CLIENT),
        ("10.0.0.1", f"203.0.113.9,{CLIENT}, 10.0.0.2", CLIENT),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", f"{CLIENT}, nonsense, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", f"{CLIENT}:51234", CLIENT),
        ("10.0.0.1", "[2001:db8:2::1]:443", "2001:db8:2::1"),
        ("10.0.0.1", "2001:DB8:2::0:1", "2001:db8:2::1"),
        ("::ffff:10.0.0.1", f"::ffff:{CLIENT}", CLIENT),
        ("2001:db8:1::5", CLIENT, CLIENT),
        ("10.0.0.1", "fe80::1%eth0", "10.0.0.1"),
    ],
)
def test_the_right_most_address_that_is_no_proxys_counts(peer: str, header: str, source: str) -> None:
    assert PROXIES.source(peer, header) == source


@pytest.mark.parametrize(
    ("header", "source"),
    [
        (f"for={CLIENT}", CLIENT),
        (f'for="{CLIENT}:4711"', CLIENT),
        ('For="[2001:db8:2::1]:4711"', "2001:db8:2::1"),
        (f"for=203.0.113.9;proto=https;by=10.0.0.9, proto=https;for={CLIENT};host=x, for=10.0.0.2", CLIENT),
        ("for=unknown", "10.0.0.1"),
        ("for=_hidden", "10.0.0.1"),
        ("proto=https", "10.0.0.1"),
        (f'for="203.0.113.9, for={CLIENT}', CLIENT),
        (CLIENT, "10.0.0.1"),
    ],
)
def test_forwarded_is_read_as_rfc_7239_has_it(header: str, source: str) -> None:
    assert FORWARDED.source("10.0.0.1", header) == source


@given(peer=ADDRESSES, header=st.text(max_size=200))
def test_who_is_no_proxy_is_believed_nothing(peer: str, header: str) -> None:
    assert PROXIES.source(peer, header) == peer
    assert FORWARDED.source(peer, header) == peer
    assert Proxies((), "x-forwarded-for").source(peer, header) == peer


@given(sent=st.text(max_size=300), client=ADDRESSES)
def test_what_a_client_sends_in_the_header_never_counts(sent: str, client: str) -> None:
    assert PROXIES.source("10.0.0.1", f"{sent}, {client}") == PROXIES.source("10.0.0.1", client)
    written = f'for="[{client}]"' if ":" in client else f"for={client}"
    assert FORWARDED.source("10.0.0.1", f"{sent}, {written}") == FORWARDED.source("10.0.0.1", written)


def test_a_long_header_is_looked_at_only_so_far() -> None:
    hops = ", ".join(["10.0.0.2"] * MAX_HOPS)
    assert PROXIES.source("10.0.0.1", f"{CLIENT}, {hops}") == "10.0.0.2"
