"""TLS certificates of tests: an authority, and what it signs, valid for some days."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A root that tests trust; `file` is its certificate."""

    folder: Path
    file: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def issue(self, name: str, *hosts: str, days: float = 30) -> tuple[Path, Path]:
        """Write a chain and its key for `hosts` (addresses or names), `name` in the files' names; returns both."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = (
            _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), days)
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .add_extension(x509.SubjectAlternativeName([_name(host) for host in hosts]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        chain, secret = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(_private(key))
        secret.chmod(0o600)
        return chain, secret

    def issue_client(
        self,
        name: str,
        *,
        uris: tuple[str, ...] = (),
        begins: timedelta = timedelta(minutes=-5),
        days: float = 30,
        usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.CLIENT_AUTH,
    ) -> Client:
        """Write a client's certificate, with `name` as its common name and DNS name, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(name), *map(x509.UniformResourceIdentifier, uris)]
        builder = (
            _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), days, begins=begins)
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        made = builder.sign(self.key, hashes.SHA256())
        chain, secret = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(_private(key))
        secret.chmod(0o600)
        return Client(chain=chain, key=secret, certificate=made)

    def revoke(self, *clients: Client, file: Path | None = None, days: float = 1) -> Path:
        """Write the list of what is revoked."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - timedelta(days=2))
            .next_update(now + timedelta(days=days))
        )
        for client in clients:
            number = client.certificate.serial_number
            revoked = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now)
            builder = builder.add_revoked_certificate(revoked.build())
        path = file or self.folder / "revoked.pem"
        path.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path

    def client(self, shown: Client | None = None) -> ssl.SSLContext:
        """A client's context that trusts this authority alone, and shows a certificate."""
        context = ssl.create_default_context(cafile=str(self.file))
        if shown is not None:
            context.load_cert_chain(shown.chain, shown.key)
        return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A client's certificate with its key, in files and as a value."""

    chain: Path
    key: Path
    certificate: x509.Certificate

    @property
    def fingerprint(self) -> str:
        """What an account is bound to for this certificate alone."""
        return f"sha256:{self.certificate.fingerprint(hashes.SHA256()).hex()}"

    @property
    def der(self) -> bytes:
        """The certificate as TLS has it."""
        return self.certificate.public_bytes(serialization.Encoding.DER)


_KEY_USAGE: Final = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def authority(folder: Path, title: str = "authority of the tests") -> Authority:
    """A new authority, with its files in `folder`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
    made = (
        _builder(name, 365)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_KEY_USAGE, critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "authority.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return Authority(folder=folder, file=file, key=key, certificate=made)


def _builder(subject: x509.Name, days: float, *, begins: timedelta = timedelta(minutes=-5)) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + timedelta(days=days))
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
