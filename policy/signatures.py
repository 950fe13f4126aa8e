"""Checking one signature with one key: the only use of `cryptography` on a host's start path.

Imported when a key is first used, because it costs 19 ms. Loaded keys are kept by their bytes: loading is
a pure function of them, and says nothing about whether the key is trusted.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256


def ed25519_verifies(point: bytes, message: bytes, signature: bytes) -> bool:
    """True if `signature` (64 bytes, RFC 8032) over `message` is by the key whose 32 bytes are `point`."""
    try:
        _ed25519(point).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def p256_verifies(point: bytes, message: bytes, signature: bytes) -> bool:
    """True if `signature` (DER, over the SHA-256 of `message`) is by the key whose uncompressed point is `point`."""
    try:
        _p256(point).verify(signature, message, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=256)
def _ed25519(point: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(point)


@lru_cache(maxsize=256)
def _p256(point: bytes) -> EllipticCurvePublicKey:
    return EllipticCurvePublicKey.from_encoded_point(SECP256R1(), point)
