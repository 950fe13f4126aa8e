"""Public keys: two algorithms, one encoding each, and nothing that proves nothing."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from policy.errors import TrustError
from policy.keys import ED25519_HEAD, P256_HEAD, Algorithm, PublicKey
from policy.private_key import PrivateKey
from tests.support.tools import need

BOTH = pytest.mark.parametrize("algorithm", list(Algorithm))


@BOTH
def test_a_signature_is_verified_and_another_message_or_key_is_not(algorithm: Algorithm) -> None:
    key, other = PrivateKey.generate(algorithm), PrivateKey.generate(algorithm)
    signature = key.sign(b"message")
    assert key.public.verifies(b"message", signature)
    assert not key.public.verifies(b"massage", signature)
    assert not other.public.verifies(b"message", signature)
    assert not key.public.verifies(b"message", signature[:-1])
    assert not key.public.verifies(b"message", b"")


def test_a_signature_of_one_algorithm_is_nothing_under_the_other_r8() -> None:
    ed25519, p256 = PrivateKey.generate(Algorithm.ED25519), PrivateKey.generate(Algorithm.ECDSA_P256)
    assert not p256.public.verifies(b"message", ed25519.sign(b"message"))
    assert not ed25519.public.verifies(b"message", p256.sign(b"message"))
    with pytest.raises(TrustError) as refused:
        PublicKey(p256.public.spki, Algorithm.ED25519)
    assert refused.value.code == "bad-key"
    with pytest.raises(TrustError):
        PublicKey(ed25519.public.spki, Algorithm.ECDSA_P256)


@BOTH
def test_the_id_is_the_sha256_of_the_der_and_the_pem_comes_back(algorithm: Algorithm) -> None:
    public = PrivateKey.generate(algorithm).public
    assert public.id == f"sha256:{hashlib.sha256(public.spki).hexdigest()}"
    assert public.algorithm is algorithm
    assert PublicKey.from_pem(public.pem) == public
    assert PublicKey.from_pem(b"\n" + public.pem.replace(b"\n", b"\r\n")) == public


@BOTH
def test_openssl_reads_our_pem_and_names_the_same_bytes(algorithm: Algorithm, tmp_path: Path) -> None:
    public = PrivateKey.generate(algorithm).public
    file = tmp_path / "key.pem"
    file.write_bytes(public.pem)
    command = [need("openssl"), "pkey", "-pubin", "-in", str(file), "-outform", "DER"]
    assert subprocess.run(command, capture_output=True, check=True, timeout=30).stdout == public.spki


@pytest.mark.parametrize(
    "y",
    [
        0,
        1,
        2**255 - 20,
        2**255 - 19,
        2**255 - 18,
        2707385501144840649318225287225658788936804267575313519463743609750303402022,
        55188659117513257062467267217118295137698188065244968500265048394206261417927,
    ],
)
@pytest.mark.parametrize("sign", [0, 1])
def test_an_ed25519_point_of_small_order_is_refused(y: int, sign: int) -> None:
    with pytest.raises(TrustError) as refused:
        PublicKey(ED25519_HEAD + (y | sign << 255).to_bytes(32, "little"), Algorithm.ED25519)
    assert refused.value.code == "bad-key"


def test_under_a_point_of_small_order_anybody_could_sign() -> None:
    # Why they are refused: the neutral element verifies the signature (R = neutral, S = 0) over every message.
    neutral = (1).to_bytes(32, "little")
    Ed25519PublicKey.from_public_bytes(neutral).verify(neutral + bytes(32), b"whatever you like")


def test_a_point_beside_the_curve_is_refused() -> None:
    spki = PrivateKey.generate(Algorithm.ECDSA_P256).public.spki
    with pytest.raises(TrustError, match="P-256"):
        PublicKey(spki[:-1] + bytes([spki[-1] ^ 1]), Algorithm.ECDSA_P256)
    with pytest.raises(TrustError, match="P-256"):
        PublicKey(P256_HEAD + b"\x04" + b"\xff" * 64, Algorithm.ECDSA_P256)


def test_a_compressed_point_is_refused_because_one_key_has_one_id() -> None:
    point = (
        ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    )
    with pytest.raises(TrustError):
        PublicKey.parse(P256_HEAD + point)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN PUBLIC KEY-----\nA===A\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        b"x" * 20_000,
    ],
)
def test_what_is_no_public_pem_is_refused(pem: bytes) -> None:
    with pytest.raises(TrustError) as refused:
        PublicKey.from_pem(pem)
    assert refused.value.code == "bad-key"


def test_two_blocks_in_one_pem_are_refused() -> None:
    pem = PrivateKey.generate().public.pem
    with pytest.raises(TrustError):
        PublicKey.from_pem(pem + PrivateKey.generate().public.pem)


def test_keys_of_other_algorithms_are_refused() -> None:
    others = (
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP384R1()),
        x25519.X25519PrivateKey.generate(),
    )
    for other in others:
        with pytest.raises(TrustError) as refused:
            PublicKey.from_pem(other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        assert refused.value.code == "bad-key"
        with pytest.raises(TrustError) as refused:
            PrivateKey.from_pem(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        assert refused.value.code == "bad-key"


@BOTH
def test_a_private_key_comes_back_from_its_pem(algorithm: Algorithm) -> None:
    key = PrivateKey.generate(algorithm)
    assert PrivateKey.from_pem(key.to_pem()).public == key.public
    sealed = key.to_pem(b"correct horse")
    assert b"ENCRYPTED" in sealed
    assert PrivateKey.from_pem(sealed, b"correct horse").public == key.public


def test_a_passphrase_must_fit() -> None:
    key = PrivateKey.generate()
    for pem, passphrase in ((key.to_pem(b"right"), b"wrong"), (key.to_pem(b"right"), None), (key.to_pem(), b"right")):
        with pytest.raises(TrustError) as refused:
            PrivateKey.from_pem(pem, passphrase)
        assert refused.value.code == "passphrase"


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"x" * 20_000])
def test_what_is_no_private_pem_is_refused(pem: bytes) -> None:
    with pytest.raises(TrustError) as refused:
        PrivateKey.from_pem(pem)
    assert refused.value.code == "bad-key"


def test_a_private_key_never_shows_itself() -> None:
    key = PrivateKey.generate()
    assert repr(key) == f"<PrivateKey {key.public.id}>"
