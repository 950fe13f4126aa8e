"""The socket that the API is served at, and the certificate that it is served with.

The supervisor opens the socket, while it may (a port below 1024 needs root), or takes the one that systemd hands over,
and the web processes of before and after a reload share it: nothing that connects meanwhile is lost. Certificate and
key are read by the parent of the web processes, whose workers may not, into memory that they inherit: the key file
can be root's alone.
"""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from registry.errors import SettingsError
from registry.settings import HttpSettings

BACKLOG: Final = 1024
MAX_PEM: Final = 1024 * 1024
_FIRST_INHERITED: Final = 3
"""sd_listen_fds(3), SD_LISTEN_FDS_START."""


def open_listener(listen: str, key: str = "http.listen") -> socket.socket:
    """A socket that listens at an address with a port, which the setting `key` names.

    Raises:
        SettingsError: it cannot be listened at.
    """
    host, _, port = listen.rpartition(":")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen(BACKLOG)
        except OSError:
            made.close()
            raise
    except (OSError, OverflowError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsError(f"setting {key}: {listen}: {said}") from error
    return made


def inherited_listener() -> socket.socket | None:
    """The socket that systemd hands over (sd_listen_fds(3)), None if it hands over none.

    Raises:
        SettingsError: it hands over something else.
    """
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return None
    count = os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if count != "1":
        raise SettingsError(f"socket activation: got {count[:8]!r} sockets, expected 1")
    handed = socket.socket(fileno=_FIRST_INHERITED)
    if handed.type != socket.SOCK_STREAM or not handed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise SettingsError("socket activation: expected a stream socket that listens (Accept=no)")
    return handed


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate chain and its key, as descriptors that this process and its children read them by."""

    chain: int
    key: int

    @property
    def paths(self) -> tuple[str, str]:
        """Where a process that inherited the descriptors finds chain and key."""
        return f"/proc/self/fd/{self.chain}", f"/proc/self/fd/{self.key}"

    def close(self) -> None:
        """Give the memory up."""
        os.close(self.chain)
        os.close(self.key)


def read_certificate(http: HttpSettings) -> Certificate | None:
    """The certificate of the settings, None where there is none.

    Raises:
        SettingsError: it cannot be read, or does not go with its key.
    """
    if http.certificate is None or http.key is None:
        return None
    chain = _kept("http.certificate", http.certificate)
    try:
        key = _kept("http.key", http.key)
    except SettingsError:
        os.close(chain)
        raise
    found = Certificate(chain=chain, key=key)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*found.paths, password=_no_password)
    except (OSError, ValueError) as error:
        found.close()
        said = getattr(error, "reason", None) or str(error)
        raise SettingsError(
            f"setting http.certificate: {http.certificate} with {http.key}: {said}, expected a PEM chain and its key"
        ) from error
    return found


def _kept(key: str, path: Path) -> int:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PEM + 1)
    except OSError as error:
        raise SettingsError(f"setting {key}: {path}: {error.strerror}") from error
    if len(content) > MAX_PEM:
        raise SettingsError(f"setting {key}: {path}: more than {MAX_PEM} bytes")
    memory = os.memfd_create(key, os.MFD_CLOEXEC)
    os.fchmod(memory, 0o444)
    os.write(memory, content)
    return memory


def _no_password() -> str:
    raise ValueError("the key is encrypted")
