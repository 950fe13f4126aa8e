"""JSON Web Tokens as hostile input (RFC 7519, RFC 8725; R8): which algorithms are read is said by whoever asks.

The header of a token chooses nothing but which of the known keys is tried: a key that it brings or points to is a
reason to refuse it, and an algorithm that was not pinned is not even registered with the library.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWS, PyJWT
from jwt.exceptions import ExpiredSignatureError, PyJWTError

from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue, parse_object
from registry.errors import TokenEndedError, TokenError

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

MAX_TOKEN: Final = 16 * 1024
"""Characters of a token; issuers of builds put some thirty claims into theirs."""

MAX_HEADER: Final = 2048
_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)

REFUSED: Final = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc"})
"""Header members of RFC 7515 and RFC 7797 that would change which key counts, or how the rest is read."""

TIMES: Final = ("exp", "iat")
LEEWAY: Final = 5
"""Seconds by which another machine's clock may be ahead of ours."""


def read_unverified(token: str) -> tuple[dict[str, JsonValue], dict[str, JsonValue]]:
    """Header and claims of a token, to choose by who could verify it; nothing of it is believed yet.

    Raises:
        TokenError: no compact JWS of bounded size with JSON objects in it, or its header has one of REFUSED.
    """
    found = _COMPACT.fullmatch(token) if len(token) <= MAX_TOKEN else None
    if found is None or len(found[1]) > MAX_HEADER:
        raise TokenError(f"token: expected a compact JWS of at most {MAX_TOKEN} characters")
    header = _object(found[1], "header")
    for name in sorted(REFUSED & header.keys()):
        raise TokenError(f"token: its header has {name}, which is never followed")
    return header, _object(found[2], "claims")


def verify(
    token: str, key: PublicKey, *, algorithms: Sequence[str], issuer: str, audience: str, require: Sequence[str]
) -> dict[str, JsonValue]:
    """The claims of a token that `key` has signed by one of `algorithms`, for `audience`, and that is good now.

    Claims in `require`, and exp and iat in any case, have to be there. The caller has read it by `read_unverified`.

    Raises:
        TokenEndedError: it was good until a while ago.
        TokenError: anything else.
    """
    decoder = _Decoder(algorithms)
    try:
        claims = decoder.decode(
            token,
            key,
            algorithms=list(algorithms),
            issuer=issuer,
            audience=audience,
            leeway=LEEWAY,
            options={"require": [*TIMES, "iss", "aud", *require], "enforce_minimum_key_length": True},
        )
    except ExpiredSignatureError:
        raise TokenEndedError("token: it has ended") from None
    except (PyJWTError, ValueError, TypeError) as error:
        raise TokenError(f"token: {str(error)[:200]}") from None
    for name in (*TIMES, "nbf"):
        # The library takes "300", 300.9 and true for numbers.
        if name in claims and type(claims[name]) is not int:
            raise TokenError(f"token: {name} is not a whole number")
    return claims


class _Decoder(PyJWT):
    """PyJWT that knows the pinned algorithms alone, and reads claims as strictly as we read everything."""

    def __init__(self, algorithms: Sequence[str]) -> None:
        super().__init__()
        self._jws = PyJWS(algorithms=algorithms, options=self._get_sig_options())

    def _decode_payload(self, decoded: dict[str, Any]) -> dict[str, Any]:
        try:
            return parse_object(decoded["payload"], what="token: claims", max_bytes=MAX_TOKEN)
        except SpecError as error:
            raise ValueError(str(error)) from None


def _object(segment: str, name: str) -> dict[str, JsonValue]:
    try:
        raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
        return parse_object(raw, what=f"token: {name}", max_bytes=MAX_TOKEN)
    except (ValueError, SpecError) as error:
        raise TokenError(f"token: its {name} cannot be read: {str(error)[:200]}") from None
