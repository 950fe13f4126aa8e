"""How a registry is reached: its address, whom we are to it, and what we never do for it.

Plain HTTP exists for a registry on this machine only, and only where somebody asked for it. Credentials
are for the registry's own host and port and for token services that were named beside it (R9).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from ocispec.errors import SpecError
from ocispec.reference import check_registry

_LOOPBACK_NAMES: Final = ("localhost", "::1")
_PORTS: Final = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """An account's name and secret, for Basic authentication (RFC 7617)."""

    name: str
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot stand in the header."""
        if ":" in self.name or any(ord(char) < 0x20 or ord(char) == 0x7F for char in self.name + self.secret):
            raise SpecError(f"account {self.name[:80]!r}: a colon in the name, or a control character")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """Files of a certificate chain and of its private key, without a passphrase (PEM)."""

    chain: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How one registry is reached.

    `ca_file` holds the only certificate authorities (PEM) that are believed for it; None means the system's.
    `client_certificate` (PEM, with its key) is shown to the registry's own host alone. `plain_http` allows HTTP to a
    loopback address. `token_hosts` (host or host:port) may be sent the credentials when the registry names them as its
    token service. `timeout` are seconds without a byte, `attempts` the tries of a request that changes nothing,
    `first_delay` the seconds before the second try (doubled each time, 5 at most), `min_rate` the bytes a second below
    which a body is given up after `grace` seconds.
    """

    credentials: Credentials | None = None
    ca_file: Path | None = None
    client_certificate: ClientCertificate | None = None
    plain_http: bool = False
    token_hosts: tuple[str, ...] = ()
    timeout: float = 30.0
    attempts: int = 5
    first_delay: float = 0.2
    min_rate: int = 16 * 1024
    grace: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Scheme, host and port: what credentials and connections belong to (RFC 6454 section 4)."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of_registry(cls, registry: str, *, plain_http: bool) -> Origin:
        """The origin of `registry` (`host[:port]`).

        Raises:
            SpecError: not a host, or plain HTTP to a name that is not this machine's.
        """
        check_registry(registry)
        scheme = "http" if plain_http else "https"
        origin = cls.of_url(urlsplit(f"{scheme}://{registry}"))
        if plain_http and not origin.is_loopback_name:
            raise SpecError(f"registry {registry}: plain HTTP, expected a loopback address for that")
        return origin

    @classmethod
    def of_url(cls, url: SplitResult) -> Origin:
        """The origin of an absolute URL.

        Raises:
            SpecError: another scheme than http and https, no host, user information, or a bad port.
        """
        shown = repr(url.geturl()[:200])
        if url.scheme not in _PORTS or not url.hostname or "@" in url.netloc:
            raise SpecError(f"URL {shown}: expected http or https, a host, and no user in it")
        try:
            port = url.port or _PORTS[url.scheme]
        except ValueError:
            raise SpecError(f"URL {shown}: bad port") from None
        return cls(scheme=url.scheme, host=url.hostname, port=port)

    @property
    def is_loopback_name(self) -> bool:
        """True if the host can only be this machine; the connection's address is checked as well."""
        return self.host in _LOOPBACK_NAMES or (self.host.startswith("127.") and self.host.count(".") == 3)

    @property
    def authority(self) -> str:
        """`host:port`, without the port where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"
