"""The registry's own tokens as an attacker would make them (R8), their keys over several instances, and their end."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import update

from registry.access import Principal, Right, Role
from registry.catalogue import schema
from registry.catalogue.database import Catalogue
from registry.catalogue.token_keys import list_keys
from registry.errors import TokenError
from registry.identity.open import IdentityParts
from registry.tokens import jose
from registry.tokens.scopes import allowed, parse_scopes
from tests.registry.tokens.making import PULL, believed, issue, store, who
from tests.support.identity import NAME, decoded, encoded, ended_identities, fresh, grants, identity

__all__ = ["ended_identities"]  # a fixture of every test here

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Forger:
    """Signs with the registry's own key, as nobody can: what remains is what the claims and the header say."""

    def __init__(self, parts: IdentityParts, catalogue: Catalogue) -> None:
        self.token = issue(parts, catalogue)
        self.header, self.claims = decoded(self.token)
        own = parts.tokens._keys._own
        assert own is not None
        self.key = own.private

    def sign(self, claims: Mapping[str, object] | None = None, *, header: Mapping[str, object] | None = None) -> str:
        """A token with these claims in place of the right ones, None for none."""
        told = {**self.claims, **(claims or {})}
        left = {name: value for name, value in told.items() if value is not None}
        signed = f"{encoded(self.header if header is None else header)}.{encoded(left)}"
        return f"{signed}.{encoded(self.key.sign(signed.encode()))}"


@pytest.fixture
def database(tmp_path: Path) -> str:
    """SQLite alone: what a token says is judged before any database is asked (keys and accounts: test_keys.py)."""
    return fresh(tmp_path)


@pytest.fixture
def parts(catalogue: Catalogue) -> IdentityParts:
    store(catalogue)
    return identity(catalogue)


@pytest.fixture
def forger(parts: IdentityParts, catalogue: Catalogue) -> Forger:
    return Forger(parts, catalogue)


def test_a_token_speaks_for_what_it_was_asked_for(parts: IdentityParts, catalogue: Catalogue) -> None:
    found = believed(parts, issue(parts, catalogue))
    assert found is not None
    assert found.is_narrowed
    assert found.may(Right.PULL, "team/app")
    assert not found.may(Right.CREATE, "team/app")
    assert not found.may(Right.PULL, "team/other")


def test_the_forger_itself_is_believed(parts: IdentityParts, forger: Forger) -> None:
    """Otherwise the tests below would prove nothing."""
    assert believed(parts, forger.sign()) is not None


def test_r8_a_token_without_signature_is_nobodys(parts: IdentityParts, forger: Forger) -> None:
    body = f"{encoded(forger.claims)}"
    for algorithm in ("none", "None", "NONE", "nOnE", ""):
        headers: tuple[dict[str, object], ...] = (
            {"alg": algorithm, "typ": "JWT"},
            {**forger.header, "alg": algorithm},
        )
        for header in headers:
            for signature in ("", "AA", forger.token.rpartition(".")[2]):
                assert believed(parts, f"{encoded(header)}.{body}.{signature}") is None
    first, second, third = forger.token.split(".")
    for broken in (f"{first}.{second}.", f"{first}.{second}", f"{first}..{third}", f".{second}.{third}"):
        assert believed(parts, broken) is None


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_r8_the_public_key_is_no_secret_to_sign_with(
    parts: IdentityParts, forger: Forger, catalogue: Catalogue, algorithm: str
) -> None:
    """The confusion of algorithms: HMAC whose key is a form of the public key, which everybody may know."""
    with catalogue.look() as conn:
        [key] = list_keys(conn)
    public = forger.key.public_key()
    forms = [
        key.public,
        key.public.hex().encode(),
        base64.urlsafe_b64encode(key.public),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
    ]
    digest = getattr(hashlib, f"sha{algorithm[2:]}")
    for secret in forms:
        for alg in (algorithm, "EdDSA"):
            signed = f"{encoded({**forger.header, 'alg': alg})}.{encoded(forger.claims)}"
            mac = hmac.new(secret, signed.encode(), digest).digest()
            assert believed(parts, f"{signed}.{encoded(mac)}") is None


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "PS256", "Ed25519", "Ed448", "EDDSA", ["EdDSA"], None, 1])
def test_r8_the_header_chooses_no_algorithm(parts: IdentityParts, forger: Forger, algorithm: object) -> None:
    assert believed(parts, forger.sign(header={**forger.header, "alg": algorithm})) is None


@pytest.mark.parametrize("name", sorted(jose.REFUSED))
def test_r8_a_key_that_the_header_brings_is_not_looked_at(parts: IdentityParts, forger: Forger, name: str) -> None:
    own = Ed25519PrivateKey.generate()
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": encoded(own.public_key().public_bytes_raw())}
    forger.key = own
    value: object = jwk if name == "jwk" else "https://evil.test/keys" if name in {"jku", "x5u"} else ["exp"]
    for header in ({**forger.header, name: value}, {"alg": "EdDSA", "typ": "JWT", name: value}):
        assert believed(parts, forger.sign(header=header)) is None


@pytest.mark.parametrize(
    "key_id",
    [
        *("", "../../etc/passwd", "/dev/null", "../" * 14 + "x", "' OR 1=1 --", "%", "_" * 43, "x" * 43, "x" * 1000),
        *(7, None, ["a"], {"a": 1}, "\x00" * 43, "é" * 43),
    ],
)
def test_r8_a_key_id_only_selects(parts: IdentityParts, forger: Forger, key_id: object) -> None:
    assert believed(parts, forger.sign(header={**forger.header, "kid": key_id})) is None
    header = {name: value for name, value in forger.header.items() if name != "kid"}
    assert believed(parts, forger.sign(header=header)) is None


def test_r8_a_key_that_somebody_put_under_an_id_of_ours_is_none(
    parts: IdentityParts, forger: Forger, catalogue: Catalogue
) -> None:
    """A key id is the hash of its key, so a row that was changed in the database gives nothing away."""
    parts = identity(catalogue)
    forger.key = Ed25519PrivateKey.generate()
    with catalogue.write() as conn:
        conn.execute(update(schema.token_keys).values(public=forger.key.public_key().public_bytes_raw()))
    assert believed(parts, forger.sign()) is None


def test_r8_a_token_of_another_registry_is_not_ours(parts: IdentityParts, catalogue: Catalogue) -> None:
    """Also where both share a catalogue, and so each other's keys."""
    other = identity(catalogue, name="other.test")
    assert believed(other, issue(other, catalogue)) is not None
    assert believed(parts, issue(other, catalogue)) is None
    assert believed(other, issue(parts, catalogue)) is None


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "other.test"},
        {"iss": None},
        {"iss": ["registry.test"]},
        {"aud": "other.test"},
        {"aud": None},
        {"aud": ["registry.test", "other.test"]},
        {"aud": ["registry.test"]},
        {"sub": None},
        {"sub": ""},
        {"sub": 1},
        {"sub": "admin"},
        {"sub": "CI"},
        {"sub": "ci\x00"},
        {"jti": None},
        {"nbf": None},
        {"iat": None},
        {"exp": None},
        {"access": None},
        {"access": "repository:*:*"},
        {"access": [["repository", "team/app", "pull"]]},
        {"access": [{"type": "repository", "name": "team/app", "actions": "pull"}]},
        {"access": [{"type": "repository", "name": "team/app", "actions": ["pull"]}] * 33},
        {"ver": 1},
        {"ver": "1"},
        {"ver": None},
        {"ver": None, "role": "admin"},
        {"ver": None, "role": "admin", "grants": ["*"]},
        {"ver": None, "role": "admin", "grants": [], "sub": "issuer:somebody"},
        {"ver": None, "role": "admin", "grants": [1]},
        {"ver": None, "role": "nothing", "grants": ["*"]},
        {"ver": None, "role": "pusher", "grants": ["A*"]},
    ],
)
def test_claims_that_are_not_of_a_token_of_ours(
    parts: IdentityParts, forger: Forger, claims: dict[str, object]
) -> None:
    assert believed(parts, forger.sign(claims)) is None


def moments() -> list[dict[str, object]]:
    now = int(time.time())
    return [
        {"exp": now - 10, "iat": now - 100, "nbf": now - 100},
        {"exp": now + 400},
        {"exp": now + 10**9},
        {"exp": 2**63},
        {"exp": -1},
        {"nbf": now + 60},
        {"iat": now + 60, "exp": now + 120},
        {"exp": str(now + 60)},
        {"exp": now + 60.5},
        {"exp": True},
        {"nbf": "0"},
        {"iat": [now]},
        {"iat": now - 400, "exp": now + 60},
    ]


@pytest.mark.parametrize("case", range(len(moments())))
def test_times_that_are_not_of_a_token_of_ours(parts: IdentityParts, forger: Forger, case: int) -> None:
    assert believed(parts, forger.sign(moments()[case])) is None


def test_a_token_with_two_of_one_claim_is_not_read(parts: IdentityParts, forger: Forger) -> None:
    for raw in (b'{"sub":"ci","sub":"admin"}', b"[]", b"1", b"\xff", b'{"sub":"ci"', b'{"a":1e999}'):
        signed = f"{encoded(forger.header)}.{encoded(raw)}"
        assert believed(parts, f"{signed}.{encoded(forger.key.sign(signed.encode()))}") is None
    for raw in (b'{"alg":"EdDSA","alg":"none","typ":"JWT"}', b"null", b"{", b"\xff"):
        assert believed(parts, f"{encoded(raw)}.{encoded(forger.claims)}.AA") is None


def test_a_token_is_bounded(parts: IdentityParts, forger: Forger) -> None:
    long = forger.sign({"jti": "x" * jose.MAX_TOKEN})
    with pytest.raises(TokenError, match="expected a compact JWS of at most"):
        jose.read_unverified(long)
    assert believed(parts, long) is None
    assert believed(parts, forger.sign(header={**forger.header, "kid": "x" * 5000})) is None


def test_r8_scope_is_what_the_account_may_and_not_what_the_token_says(parts: IdentityParts, forger: Forger) -> None:
    """Even a token that our own key signed for more gives no more than its account has."""
    wide = [
        {"type": "repository", "name": name, "actions": ["pull", "push", "delete", "*"]} for name in ("*", "other/x")
    ]
    found = believed(parts, forger.sign({"access": wide}))
    assert found is not None
    assert found.may(Right.CREATE, "team/app")
    for right in Right:
        assert not found.may(right, "other/x")


def test_a_token_ends_with_its_account(catalogue: Catalogue) -> None:
    store(catalogue, expires=NOW + timedelta(seconds=100))
    made = identity(catalogue, lambda: NOW)
    issued = made.tokens.issue(who(catalogue), (PULL,), withdrawals=made.generation.current())
    assert issued.expires_in == 100


# ---- scopes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("repository:team/app:pull,push", "repository:team/app:pull,push"),
        ("repository:team/app:pull,push,delete", "repository:team/app:pull,push,delete"),
        ("repository:team/app:*", "repository:team/app:pull,push,delete"),
        ("repository(plugin):team/app:pull", "repository:team/app:pull"),
        ("repository:team/app:pull repository:team/app:push", "repository:team/app:pull,push"),
        ("repository:base/x:pull,push,delete", "repository:base/x:pull"),
        ("repository:other/x:pull", ""),
        ("repository:team/../other/x:pull", ""),
        ("repository:TEAM/app:pull", ""),
        ("repository:team/app:fly", ""),
        ("repository:team/app:", ""),
        ("repository::pull", ""),
        ("registry:catalog:*", "registry:catalog:*"),
        ("registry:catalog:pull", ""),
        ("registry:api:*", "registry:api:*"),
        ("registry:everything:*", ""),
        ("admin:team/app:*", ""),
        ("", ""),
        ("repository:team/app", ""),
    ],
)
def test_scopes_are_narrowed_to_the_account(asked: str, given: str) -> None:
    principal = Principal(name="ci", role=Role.PUSHER, grants=grants("team/*", "base/*:pull"))
    assert " ".join(map(str, allowed(principal, parse_scopes([asked])))) == given


@pytest.mark.parametrize("role", [Role.HOST, Role.OFFICER, Role.AUDITOR, Role.SCANNER, Role.ADMIN])
def test_a_role_bounds_what_a_token_is_for(role: Role) -> None:
    principal = Principal(name="x", role=role)
    given = allowed(principal, parse_scopes(["repository:team/app:pull,push,delete"]))
    assert [scope.actions for scope in given] == ([] if role is Role.ADMIN else [("pull",)])


def test_nothing_in_a_token_is_secret(parts: IdentityParts, catalogue: Catalogue) -> None:
    _, claims = decoded(issue(parts, catalogue))
    assert set(claims) == {"iss", "aud", "sub", "iat", "nbf", "exp", "jti", "access", "ver"}
    assert (claims["iss"], claims["aud"]) == (NAME, NAME)
    assert "right" not in json.dumps(claims)
    with pytest.raises(jwt.InvalidAlgorithmError):
        jwt.decode(issue(parts, catalogue), "", algorithms=["HS256"])
