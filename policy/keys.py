"""Public keys: Ed25519 and ECDSA P-256, named by the digest of their bytes.

A public key is its SubjectPublicKeyInfo in DER (RFC 5280 section 4.1, RFC 8410, RFC 5480), in the one
encoding that each algorithm has here, so one key has one id. The algorithm comes from trust.json, never
from the signature: there is nothing to confuse (R8). The private half is in `private_key.py`.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, assert_never

from ocispec.digest import Digest
from policy.errors import TrustError

MAX_PEM: Final = 16 * 1024
"""Bytes of a key file that we read."""

ED25519_HEAD: Final = bytes.fromhex("302a300506032b6570032100")
"""What the DER of each Ed25519 key begins with; 32 bytes of the point follow."""

P256_HEAD: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
"""What the DER of each P-256 key begins with; the 65 bytes of the uncompressed point follow."""

_PUBLIC_PEM: Final = re.compile(
    rb"\s*-----BEGIN PUBLIC KEY-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END PUBLIC KEY-----\s*", re.ASCII
)
_P256_PRIME: Final = 2**256 - 2**224 + 2**192 + 2**96 - 1
_P256_B: Final = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_ED25519_PRIME: Final = 2**255 - 19
_SMALL_ORDER: Final = frozenset(
    {
        0,
        1,
        _ED25519_PRIME - 1,
        2707385501144840649318225287225658788936804267575313519463743609750303402022,
        55188659117513257062467267217118295137698188065244968500265048394206261417927,
    }
)
"""The y coordinates of the points whose order divides 8."""


class Algorithm(StrEnum):
    """The signature algorithms; each signs the message itself (P-256 over its SHA-256, as DER)."""

    ED25519 = "ed25519"
    ECDSA_P256 = "ecdsa-p256-sha256"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key; `spki` is its DER. Equal keys are equal values.

    Raises:
        TrustError: `bad-key`: the DER is not exactly the algorithm's one encoding of a sound key.
    """

    spki: bytes
    algorithm: Algorithm

    def __post_init__(self) -> None:
        """Check the DER, so that what is called a key is one."""
        match self.algorithm:
            case Algorithm.ED25519:
                _check_ed25519(self.spki)
            case Algorithm.ECDSA_P256:
                _check_p256(self.spki)
            case other:
                assert_never(other)

    @classmethod
    def parse(cls, spki: bytes) -> PublicKey:
        """Return the key in the DER `spki`, whichever of the two algorithms it is for.

        Raises:
            TrustError: `bad-key`: another algorithm or encoding, or a key that proves nothing.
        """
        ed25519 = spki.startswith(ED25519_HEAD)
        return cls(spki, Algorithm.ED25519 if ed25519 else Algorithm.ECDSA_P256)

    @classmethod
    def from_pem(cls, pem: bytes) -> PublicKey:
        """Return the key in a `PUBLIC KEY` PEM, as cosign and openssl write it.

        Raises:
            TrustError: `bad-key`: not one such block, or not a key that we take.
        """
        found = _PUBLIC_PEM.fullmatch(pem) if len(pem) <= MAX_PEM else None
        if found is None:
            raise TrustError("bad-key", "public key", f"not one PEM block of type PUBLIC KEY in {MAX_PEM} bytes")
        try:
            return cls.parse(base64.b64decode(b"".join(found[1].split()), validate=True))
        except ValueError:
            raise TrustError("bad-key", "public key", "the PEM block is not base64") from None

    @property
    def id(self) -> str:
        """`sha256:` and the digest of the DER: how this key is named everywhere."""
        return str(Digest.of(self.spki))

    @property
    def pem(self) -> bytes:
        """The key as a `PUBLIC KEY` PEM (RFC 7468 section 13)."""
        encoded = base64.b64encode(self.spki)
        lines = [encoded[start : start + 64] for start in range(0, len(encoded), 64)]
        return b"\n".join([b"-----BEGIN PUBLIC KEY-----", *lines, b"-----END PUBLIC KEY-----", b""])

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """True if `signature` over `message` was made by this key's private half."""
        from policy import signatures  # noqa: PLC0415  # cryptography costs 19 ms: paid when a key is first used

        match self.algorithm:
            case Algorithm.ED25519:
                return signatures.ed25519_verifies(self.spki[len(ED25519_HEAD) :], message, signature)
            case Algorithm.ECDSA_P256:
                return signatures.p256_verifies(self.spki[len(P256_HEAD) :], message, signature)
            case other:
                assert_never(other)


class SigningKey(Protocol):
    """What can sign: a private key in memory, or a process or device that holds one."""

    @property
    def public(self) -> PublicKey:
        """The public half."""

    def sign(self, message: bytes) -> bytes:
        """The signature over `message`: 64 bytes for Ed25519, DER for P-256."""


def _check_ed25519(spki: bytes) -> None:
    if not spki.startswith(ED25519_HEAD) or len(spki) != len(ED25519_HEAD) + 32:
        raise TrustError("bad-key", "public key", "not the DER of an Ed25519 key (RFC 8410)")
    y = int.from_bytes(spki[len(ED25519_HEAD) :], "little") & (2**255 - 1)
    # Under a point of small order anybody can make signatures that verify; a y beyond the prime is a second
    # spelling of another key.
    if y >= _ED25519_PRIME or y in _SMALL_ORDER:
        raise TrustError("bad-key", "public key", "an Ed25519 point of small order or in a second spelling")


def _check_p256(spki: bytes) -> None:
    head = P256_HEAD + b"\x04"
    if not spki.startswith(head) or len(spki) != len(head) + 64:
        raise TrustError("bad-key", "public key", "not the DER of an Ed25519 or uncompressed P-256 key (RFC 5480)")
    x, y = int.from_bytes(spki[-64:-32], "big"), int.from_bytes(spki[-32:], "big")
    on_curve = (y * y - (x * x * x - 3 * x + _P256_B)) % _P256_PRIME == 0
    if not (x < _P256_PRIME and y < _P256_PRIME and on_curve):
        raise TrustError("bad-key", "public key", "not a point of the curve P-256")
