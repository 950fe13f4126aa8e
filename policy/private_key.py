"""Private keys: made, read and written as PKCS#8 (RFC 5958), and used to sign."""

from __future__ import annotations

from typing import assert_never

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from policy.errors import TrustError
from policy.keys import MAX_PEM, Algorithm, PublicKey


class PrivateKey:
    """A private key in memory; its repr shows the public id only. A `SigningKey`."""

    __slots__ = ("_key", "_public")

    def __init__(self, key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> None:
        """Wrap a `cryptography` key.

        Raises:
            TrustError: `bad-key`: a curve other than P-256.
        """
        self._key = key
        self._public = PublicKey.parse(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return self._public

    @classmethod
    def generate(cls, algorithm: Algorithm = Algorithm.ED25519) -> PrivateKey:
        """A new key."""
        match algorithm:
            case Algorithm.ED25519:
                return cls(ed25519.Ed25519PrivateKey.generate())
            case Algorithm.ECDSA_P256:
                return cls(ec.generate_private_key(ec.SECP256R1()))
            case other:
                assert_never(other)

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: bytes | None = None) -> PrivateKey:
        """Return the key in a PKCS#8 PEM, encrypted if `passphrase` is given.

        Raises:
            TrustError: `bad-key`: unreadable, too long, or of another algorithm; `passphrase`: wrong, missing,
                or given for a key that is not encrypted.
        """
        if len(pem) > MAX_PEM:
            raise TrustError("bad-key", "private key", f"got {len(pem)} bytes, expected at most {MAX_PEM}")
        try:
            key = load_pem_private_key(pem, passphrase)
        except TypeError:
            detail = "encrypted, and no passphrase given" if passphrase is None else "not encrypted, got a passphrase"
            raise TrustError("passphrase", "private key", detail) from None
        except (ValueError, UnsupportedAlgorithm):
            if passphrase is not None and b"ENCRYPTED" in pem:
                raise TrustError("passphrase", "private key", "wrong passphrase, or damaged") from None
            raise TrustError("bad-key", "private key", "not a PKCS#8 PEM") from None
        if not isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
            raise TrustError("bad-key", "private key", f"{type(key).__name__}, expected Ed25519 or ECDSA on P-256")
        return cls(key)

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        """The key as a PKCS#8 PEM, encrypted (PBES2 with AES-256) if `passphrase` is given."""
        encryption = BestAvailableEncryption(passphrase) if passphrase is not None else NoEncryption()
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

    def sign(self, message: bytes) -> bytes:
        """The signature over `message`: 64 bytes for Ed25519, DER for P-256."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(message)
        return self._key.sign(message, ec.ECDSA(SHA256()))

    def __repr__(self) -> str:
        return f"<PrivateKey {self._public.id}>"
