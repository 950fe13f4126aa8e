"""Client certificates to accounts: an account is bound to the names or the fingerprint that a certificate must have.

Whoever holds the private key was found out by TLS, ours (`certificate_listener.py`) or a proxy's that is believed.
Everything else is checked here, wherever it came from: which authority signed it, when it is good, that it is a
client's, and that it was not revoked. So a proxy that asks for certificates, but takes any, gives nothing away.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from registry.catalogue.accounts import Account, find_by_certificate
from registry.catalogue.database import Catalogue
from registry.errors import SettingsError
from registry.identity.failures import FailureLog
from registry.identity.identity import Identity, Method, earliest, known
from registry.settings_identity import CertificateSettings

MAX_CERTIFICATE: Final = 32 * 1024
"""Characters of a certificate in a header."""

MAX_FILE: Final = 64 * 1024 * 1024
MAX_NAMES: Final = 64
"""Names of one certificate that are looked up."""

_PEM: Final = b"-----BEGIN CERTIFICATE-----"
_DER: Final = Encoding.DER


class CertificateError(Exception):
    """A certificate is not believed; says why."""


class Certificates:
    """Proves clients' certificates and finds their accounts; for many threads."""

    def __init__(
        self,
        settings: CertificateSettings,
        catalogue: Catalogue,
        failures: FailureLog,
        clock: Callable[[], datetime],
    ) -> None:
        """Read the authorities.

        Raises:
            SettingsError: they, or the revocation lists, cannot be read.
        """
        self._catalogue, self._failures, self._clock = catalogue, failures, clock
        self._authorities = authorities(settings.ca)
        self._revoked = _Revocations(settings.crl, self._authorities) if settings.crl is not None else None

    def look_again(self) -> None:
        """Read the revocation lists anew, as whoever this process is now: later they change.

        Raises:
            SettingsError: it may not, or they cannot be used.
        """
        if self._revoked is not None:
            self._revoked.read_anew()

    def identify(self, certificate: bytes, source: str) -> Identity | None:
        """Whom a certificate (DER) speaks for; None if it is not believed, or bound to no account or to several."""
        try:
            found = x509.load_der_x509_certificate(certificate)
            self._check(found)
            account = self._account(found)
        except (CertificateError, ValueError) as error:
            self._failures.note(account="", source=source, reason=f"client certificate: {error}")
            return None
        ends = earliest(account.expires, found.not_valid_after_utc)
        return known(account.principal, Method.CERTIFICATE, version=account.version, ends=ends)

    def _account(self, certificate: x509.Certificate) -> Account:
        names = names_of(certificate)
        with self._catalogue.look() as conn:
            accounts = find_by_certificate(conn, names)
        if len(accounts) != 1:
            raise CertificateError(f"speaks for {len(accounts)} accounts, expected one: {', '.join(names)[:200]}")
        if accounts[0].has_ended(self._clock()):
            raise CertificateError(f"account {accounts[0].name} has ended")
        return accounts[0]

    def _check(self, certificate: x509.Certificate) -> None:
        now = self._clock()
        # (1) signed by one of the authorities, which is good itself
        authority = next((each for each in self._authorities if _signed(certificate, each)), None)
        if authority is None:
            raise CertificateError("signed by none of the authorities")
        for each in (certificate, authority):
            if not each.not_valid_before_utc <= now < each.not_valid_after_utc:
                raise CertificateError(f"good from {each.not_valid_before_utc} to {each.not_valid_after_utc}")
        # (2) a client's (RFC 5280 section 4.2.1.12)
        try:
            usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except x509.ExtensionNotFound:
            usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        if ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
            raise CertificateError("its extended key usage is not a client's")
        # (3) not revoked
        if self._revoked is not None:
            self._revoked.check(certificate, authority, now)


class _Revocations:
    """The revocation lists of a file, read again when it changes."""

    def __init__(self, path: Path, issuers: tuple[x509.Certificate, ...]) -> None:
        self._path, self._issuers = path, issuers
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] = (-1, -1)
        self._lists: dict[x509.Name, x509.CertificateRevocationList] = {}
        self.read_anew()

    def read_anew(self) -> None:
        self._stamp = (-1, -1)
        try:
            self._read()
        except CertificateError as error:
            raise SettingsError(f"setting certificates.crl: {error}") from None

    def check(self, certificate: x509.Certificate, authority: x509.Certificate, now: datetime) -> None:
        self._read()
        found = self._lists.get(authority.subject)
        if found is None or (found.next_update_utc is not None and found.next_update_utc <= now):
            raise CertificateError("its authority has no revocation list that is good now")
        if found.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
            raise CertificateError("revoked")

    def _read(self) -> None:
        with self._lock:
            try:
                stat = self._path.stat()
                if (stat.st_mtime_ns, stat.st_size) == self._stamp:
                    return
                lists = [x509.load_pem_x509_crl(pem) for pem in _blocks(_content(self._path), b"X509 CRL")]
                self._lists = {each.issuer: each for each in lists if any(_issued(each, by) for by in self._issuers)}
                self._stamp = (stat.st_mtime_ns, stat.st_size)
            except (OSError, ValueError) as error:
                raise CertificateError(f"{self._path}: {error}") from None


def authorities(path: Path) -> tuple[x509.Certificate, ...]:
    """The certificates of authorities in a PEM file.

    Raises:
        SettingsError: none, or one that is no authority's.
    """
    try:
        found = tuple(x509.load_pem_x509_certificates(_content(path)))
    except (OSError, ValueError) as error:
        raise SettingsError(f"setting certificates.ca: {path}: {error}") from None
    for each in found:
        try:
            is_authority = each.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (x509.ExtensionNotFound, ValueError):
            is_authority = False
        if not is_authority:
            name = each.subject.rfc4514_string()[:200]
            raise SettingsError(f"setting certificates.ca: {path}: {name} is no authority (basic constraints)")
    return found


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """What an account can be bound to: `sha256:` with the fingerprint, and each name behind its kind."""
    found = [f"sha256:{hashlib.sha256(certificate.public_bytes(_DER)).hexdigest()}"]
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    found += [f"dns:{name.lower()}" for name in names.get_values_for_type(x509.DNSName)]
    found += [f"uri:{name}" for name in names.get_values_for_type(x509.UniformResourceIdentifier)]
    found += [f"email:{name}" for name in names.get_values_for_type(x509.RFC822Name)]
    found += [
        f"cn:{attribute.value!s}" for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    ]
    # A name with a NUL or another oddity is no name that anything can be bound to.
    return tuple(name for name in found[:MAX_NAMES] if name.isascii() and name.isprintable() and len(name) <= 300)


def from_header(text: str) -> bytes | None:
    """The certificate (DER) that a proxy passes on: `:base64:` (RFC 9440), or URL-encoded PEM as nginx writes it."""
    if not 0 < len(text) <= MAX_CERTIFICATE:
        return None
    try:
        if text.startswith(":") and text.endswith(":"):
            return base64.b64decode(text[1:-1], validate=True)
        pem = unquote_to_bytes(text)
        if not pem.startswith(_PEM):
            return None
        return x509.load_pem_x509_certificate(pem).public_bytes(_DER)
    except (binascii.Error, ValueError):
        return None


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _issued(revoked: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    key = authority.public_key()
    try:
        return revoked.issuer == authority.subject and revoked.is_signature_valid(key)  # type: ignore[arg-type]  # any key of a certificate; TypeError for those that sign nothing
    except TypeError:
        return False


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise ValueError(f"more than {MAX_FILE} bytes")
    return content


def _blocks(content: bytes, label: bytes) -> Iterator[bytes]:
    begin, end = b"-----BEGIN " + label + b"-----", b"-----END " + label + b"-----"
    for part in content.split(begin)[1:]:
        body, closed, _ = part.partition(end)
        if not closed:
            raise ValueError(f"a block {label.decode()} without its end")
        yield begin + body + end + b"\n"
