"""Tokens of OpenID Connect issuers: whose are believed, by which keys, for how long, and what they may."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from registry.access import Right, Role
from registry.audit import Event, read
from registry.catalogue.database import Catalogue
from registry.identity.identity import Identity, Method
from registry.identity.issuer_keys import COOLDOWN, WAITING, IssuerKeys, keys_of
from registry.identity.open import IdentityParts
from registry.settings_identity import OidcSettings
from tests.support.certificates import authority
from tests.support.identity import basic, encoded, ended_identities, fresh, identity, settings
from tests.support.issuer import AUDIENCE, Issuer, SigningKey, issuer

__all__ = ["ended_identities"]  # a fixture of every test here

RULE = {"claims": {"sub": "build-*"}, "role": "pusher", "grants": ["team/*"]}


@pytest.fixture
def database(tmp_path: Path) -> str:
    """SQLite alone: no account is looked up for any of this."""
    return fresh(tmp_path)


@pytest.fixture
def ci() -> Iterator[Issuer]:
    with issuer() as running:
        yield running


def told(ci: Issuer, **members: object) -> dict[str, object]:
    return {"name": "ci", "issuer": ci.url, "audience": AUDIENCE, "rules": [RULE], **members}


def parts_for(catalogue: Catalogue, ci: Issuer, **members: object) -> IdentityParts:
    return identity(catalogue, oidc=[told(ci, **members)])


def who(parts: IdentityParts, token: str) -> Identity | None:
    return parts.authenticator.identify(f"Bearer {token}", "10.0.0.1")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_build_is_known_by_its_token(catalogue: Catalogue, algorithm: str) -> None:
    with issuer(algorithm) as ci:
        parts = parts_for(catalogue, ci, algorithms=[algorithm])
        found = who(parts, ci.token())
    assert found is not None
    assert (found.principal.name, found.principal.role, found.method) == ("ci:build-1", Role.PUSHER, Method.ISSUER)
    assert found.principal.may(Right.CREATE, "team/app")
    assert not found.principal.may(Right.CREATE, "other/app")
    assert ci.asked == ["/.well-known/openid-configuration", "/keys"]


def test_it_stands_in_place_of_a_password_too(catalogue: Catalogue, ci: Issuer) -> None:
    parts = parts_for(catalogue, ci)
    found = parts.authenticator.identify(basic("oidc", ci.token()), "10.0.0.1")
    assert found is not None
    assert found.principal.name == "ci:build-1"
    assert parts.authenticator.identify(basic("build-1", ci.token()), "10.0.0.1") is None


def test_one_of_the_registrys_own_is_given_for_it(catalogue: Catalogue, ci: Issuer) -> None:
    parts = parts_for(catalogue, ci)
    found = who(parts, ci.token())
    assert found is not None
    own = parts.tokens.issue(found, (), withdrawals=parts.generation.current())
    again = who(parts, own.token)
    assert again is not None
    assert (again.account.name, again.account.grants) == (found.account.name, found.account.grants)
    assert again.method is Method.TOKEN


# ---- R8: what an attacker makes of it ----------------------------------------------------------------------------


def test_r8_algorithms_are_pinned_to_the_issuer_and_the_kind_of_key(catalogue: Catalogue) -> None:
    with issuer("RS256", "ES256", "EdDSA") as ci:
        only = parts_for(catalogue, ci, algorithms=["ES256"])
        assert [who(only, ci.token(key)) is not None for key in ci.keys] == [False, True, False]
        every = parts_for(catalogue, ci, algorithms=["RS256", "ES256", "EdDSA"])
        assert all(who(every, ci.token(key)) is not None for key in ci.keys)
        for key in ci.keys:  # the id of a key of another kind
            for other in ci.keys:
                if other is not key:
                    assert who(every, ci.token(key, header={"kid": other.id})) is None


def test_r8_no_signature_and_symmetric_signatures(catalogue: Catalogue, ci: Issuer) -> None:
    parts = parts_for(catalogue, ci)
    claims = encoded(ci.claims())
    public = ci.keys[0].private.public_key()
    forms = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(ci.keys[0].jwk()).encode(),
        b"",
    ]
    for algorithm in ("none", "HS256", "RS256", "HS512"):
        signed = f"{encoded({'alg': algorithm, 'typ': 'JWT', 'kid': ci.keys[0].id})}.{claims}"
        assert who(parts, f"{signed}.") is None
        for secret in forms:
            assert who(parts, f"{signed}.{encoded(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}") is None
    assert who(parts, ci.token()) is not None


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c", "crit"])
def test_r8_keys_that_a_token_brings_or_points_to(catalogue: Catalogue, ci: Issuer, name: str) -> None:
    with issuer() as evil:
        value: object = evil.keys[0].jwk() if name == "jwk" else f"{evil.url}/keys"
        parts = parts_for(catalogue, ci)
        token = evil.token(header={name: value, "kid": ci.keys[0].id}, iss=ci.url)
        assert who(parts, token) is None
        assert evil.asked == []


@pytest.mark.parametrize("key_id", ["../../keys", "", "key-0/../key-0", "KEY-0", "key-0\x00", "x" * 3000])
def test_r8_a_key_id_only_selects(catalogue: Catalogue, ci: Issuer, key_id: str) -> None:
    parts = parts_for(catalogue, ci)
    found = who(parts, ci.token(header={"kid": key_id}))
    # Without one, the only key of the algorithm counts.
    assert (found is not None) is (key_id == "")
    assert set(ci.asked) <= {"/.well-known/openid-configuration", "/keys"}


def test_r8_another_issuers_token_is_of_that_issuer(catalogue: Catalogue, ci: Issuer) -> None:
    with issuer() as evil, issuer() as other:
        parts = identity(catalogue, oidc=[told(ci), {**told(other), "name": "other"}])
        for by in (evil, other):
            by.keys[0].id = ci.keys[0].id
            assert who(parts, by.token(iss=ci.url)) is None
        assert who(parts, evil.token()) is None
        found = who(parts, other.token())
        assert found is not None
        assert found.principal.name == "other:build-1"


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another.test"},
        {"aud": None},
        {"aud": []},
        {"aud": ""},
        {"iss": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": ["build-1"]},
        {"sub": "build-\x00"},
        {"sub": "build-" + "x" * 300},
        {"sub": "someone"},
        {"exp": None},
        {"iat": None},
        {"exp": 1},
        {"exp": "9999999999"},
        {"exp": 9999999999.5},
        {"exp": True},
        {"nbf": 9999999999},
        {"iat": 9999999999},
    ],
)
def test_claims_that_do_not_count(catalogue: Catalogue, ci: Issuer, claims: dict[str, Any]) -> None:
    parts = parts_for(catalogue, ci)
    header = {"alg": "RS256", "typ": "JWT", "kid": ci.keys[0].id}
    signed = f"{encoded(header)}.{encoded(ci.claims(**claims))}"
    private = ci.keys[0].private
    assert isinstance(private, rsa.RSAPrivateKey)
    assert who(parts, f"{signed}.{encoded(private.sign(signed.encode(), padding.PKCS1v15(), SHA256()))}") is None


def test_one_audience_of_several_is_enough_and_clocks_may_differ_a_little(catalogue: Catalogue, ci: Issuer) -> None:
    parts = parts_for(catalogue, ci)
    now = int(time.time())
    assert who(parts, ci.token(aud=["another.test", AUDIENCE])) is not None
    assert who(parts, ci.token(nbf=now + 3, iat=now + 3)) is not None
    assert who(parts, ci.token(nbf=now + 30)) is None
    assert who(parts, ci.token(exp=now - 30)) is None
    assert who(parts, ci.token(nbf=None)) is not None


def test_a_token_counts_no_longer_than_it_says(catalogue: Catalogue, ci: Issuer) -> None:
    parts = parts_for(catalogue, ci)
    token = ci.token(exp=int(time.time()) + 1)
    assert who(parts, token) is not None
    deadline = time.monotonic() + 15
    while who(parts, token) is not None:  # until the leeway is over too
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_was_refused_is_counted_in_the_audit_without_the_token(catalogue: Catalogue, ci: Issuer) -> None:
    parts = parts_for(catalogue, ci)
    token = ci.token(sub="someone")
    for _ in range(3):
        assert who(parts, token) is None
    parts.failures.flush()
    with catalogue.read() as conn:
        [record] = [each for each in read(conn, after=0, limit=10) if each.event == Event.LOGIN]
    assert record.source == "10.0.0.1"
    assert record.after == "3 refused: token of ci: no rule fits 'someone'"
    assert token.rpartition(".")[2] not in str(record)


# ---- rules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "asked", "fits"),
    [
        ({"ref": "refs/heads/main"}, {"ref": "refs/heads/*"}, True),
        ({"ref": "refs/tags/1"}, {"ref": "refs/heads/*"}, False),
        ({}, {"ref": "*"}, False),
        ({"ref": ""}, {"ref": "*"}, True),
        ({"groups": ["dev", "ops"]}, {"groups": "ops"}, True),
        ({"groups": ["dev", {"ops": 1}]}, {"groups": "ops"}, False),
        ({"groups": "dev ops"}, {"groups": "ops"}, False),
        ({"groups": {"ops": True}}, {"groups": "ops"}, False),
        ({"protected": True}, {"protected": "true"}, True),
        ({"protected": "True"}, {"protected": "true"}, False),
        ({"id": 17}, {"id": "17"}, True),
        ({"id": 17}, {"id": "1*"}, False),
        ({"id": 17.0}, {"id": "17*"}, False),
        ({"ref": "a[b]"}, {"ref": "a[b]"}, True),
        ({"ref": "ab"}, {"ref": "a[b]"}, False),
        ({"ref": "MAIN"}, {"ref": "main"}, False),
        ({"ref": "main\nx"}, {"ref": "main"}, False),
        ({"ref": "x", "env": "prod"}, {"ref": "x", "env": "prod"}, True),
        ({"ref": "x", "env": "test"}, {"ref": "x", "env": "prod"}, False),
    ],
)
def test_all_claims_of_a_rule_must_fit(
    catalogue: Catalogue, ci: Issuer, claims: dict[str, Any], asked: dict[str, str], fits: bool
) -> None:
    rule = {"claims": asked, "role": "pusher", "grants": ["team/*"]}
    assert (who(parts_for(catalogue, ci, rules=[rule]), ci.token(**claims)) is not None) is fits


def test_the_first_rule_that_fits_counts(catalogue: Catalogue, ci: Issuer) -> None:
    rules = [
        {"claims": {"sub": "build-1", "ref": "refs/heads/main"}, "role": "pusher", "grants": ["team/*"]},
        {"claims": {"sub": "build-*"}, "role": "pusher", "grants": ["branches/*"]},
        {"claims": {"sub": "*"}, "role": "auditor", "grants": ["*"]},
    ]
    parts = parts_for(catalogue, ci, rules=rules)
    roles = []
    cases: tuple[dict[str, Any], ...] = ({"ref": "refs/heads/main"}, {"ref": "refs/heads/x"}, {"sub": "carol"})
    for claims in cases:
        found = who(parts, ci.token(**claims))
        assert found is not None
        roles.append((found.principal.role, found.principal.grants[0].pattern))
    assert roles == [(Role.PUSHER, "team/*"), (Role.PUSHER, "branches/*"), (Role.AUDITOR, "*")]


def test_another_claim_can_name_somebody(catalogue: Catalogue, ci: Issuer) -> None:
    rule = {"claims": {"repository": "acme/*"}, "role": "pusher", "grants": ["team/*"]}
    parts = parts_for(catalogue, ci, subject="repository", rules=[rule])
    found = who(parts, ci.token(repository="acme/app"))
    assert found is not None
    assert found.principal.name == "ci:acme/app"


# ---- keys --------------------------------------------------------------------------------------------------------


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def keys_for(ci: Issuer, clock: Clock, **members: object) -> IssuerKeys:
    [made] = settings(oidc=[told(ci, **members)]).oidc
    assert isinstance(made, OidcSettings)
    return IssuerKeys(made, clock)


def test_a_new_key_is_found_and_unknown_ones_ask_seldom(ci: Issuer) -> None:
    clock = Clock()
    keys = keys_for(ci, clock)
    assert keys.find("key-0", "RS256") is not None
    ci.keys.append(SigningKey.make("RS256", "key-1"))
    for _ in range(50):
        assert keys.find("key-1", "RS256") is None
        assert keys.find("nonsense", "RS256") is None
    assert len(ci.asked) == 2
    clock.now += COOLDOWN + 1
    assert keys.find("key-1", "RS256") is not None
    assert len(ci.asked) == 4


def test_a_key_that_the_issuer_took_away_ends_with_the_age_at_most(ci: Issuer) -> None:
    clock = Clock()
    keys = keys_for(ci, clock, keys_age=600)
    assert keys.find("key-0", "RS256") is not None
    ci.keys[:] = [SigningKey.make("RS256", "key-1")]
    assert keys.find("key-0", "RS256") is not None
    clock.now += 301  # they are asked for again half-way
    keys.find("key-0", "RS256")
    assert keys.find("key-0", "RS256") is None
    assert keys.find("key-1", "RS256") is not None


@pytest.mark.parametrize("how", ["status", "nonsense", "another issuer", "no keys"])
def test_an_issuer_that_is_away_is_lived_with_for_the_age_of_its_keys(ci: Issuer, how: str) -> None:
    clock = Clock()
    keys = keys_for(ci, clock, keys_age=600)
    assert keys.find("key-0", "RS256") is not None
    match how:
        case "status":
            ci.broken = 503
        case "nonsense":
            ci.configuration = {"jwks_uri": 7}
        case "another issuer":
            ci.configuration = {"issuer": "https://other.test"}
        case "no keys":
            ci.configuration = {"jwks_uri": f"{ci.url}/nothing"}
    clock.now += 500
    assert keys.find("key-0", "RS256") is not None
    clock.now += 101
    assert keys.find("key-0", "RS256") is None
    ci.broken, ci.configuration = 0, {}
    clock.now += COOLDOWN + 1
    assert keys.find("key-0", "RS256") is not None


def test_an_issuer_that_hangs_holds_up_few_requests(ci: Issuer) -> None:
    keys = keys_for(ci, Clock())
    ci.hangs = 2
    asked: list[float] = []
    quick = threading.Semaphore(0)

    def ask() -> None:
        began = time.monotonic()
        keys.find("key-0", "RS256")
        asked.append(time.monotonic() - began)
        quick.release()

    with ThreadPoolExecutor(20) as pool:
        for _ in range(20):
            pool.submit(ask)
        for _ in range(20 - 1 - WAITING):
            quick.acquire()
        assert len(ci.asked) == 1  # it has not even answered the first question
    assert keys.find("key-0", "RS256") is not None


@pytest.mark.parametrize(
    "where",
    ["file:///etc/passwd", "http://169.254.169.254/keys", "ftp://127.0.0.1/keys", "keys", "http://u@127.0.0.1/"],
)
def test_r9_an_issuer_sends_us_nowhere_near(ci: Issuer, where: str) -> None:
    ci.configuration = {"jwks_uri": where}
    assert keys_for(ci, Clock()).find("key-0", "RS256") is None


def test_tls_by_an_authority_of_its_own(tmp_path: Path) -> None:
    ours = authority(tmp_path)
    with issuer(tls=(ours, "issuer")) as ci:
        assert keys_for(ci, Clock(), ca_file=str(ours.file)).find("key-0", "RS256") is not None
        assert keys_for(ci, Clock()).find("key-0", "RS256") is None
        with issuer() as plain:
            ci.configuration = {"jwks_uri": f"{plain.url}/keys"}
            assert keys_for(ci, Clock(), ca_file=str(ours.file)).find("key-0", "RS256") is None
            assert plain.asked == []


def test_only_public_keys_that_can_sign_count() -> None:
    good = SigningKey.make("RS256", "good")
    curve = SigningKey.make("ES256", "curve")
    small = SigningKey(id="small", algorithm="RS256", private=rsa.generate_private_key(65537, 1024))  # noqa: S505 -- what is refused
    other = SigningKey(id="other", algorithm="ES256", private=ec.generate_private_key(ec.SECP384R1()))
    secret = base64.urlsafe_b64encode(b"x" * 32).decode()
    found = keys_of(
        [
            good.jwk(),
            curve.jwk(),
            good.jwk(kid="encrypts", use="enc"),
            good.jwk(kid="for another", alg="RS512"),
            good.jwk(kid="private", d="AA"),
            good.jwk(kid=7),
            good.jwk(kid="no number", n="!"),
            small.jwk(),
            other.jwk(),
            {"kty": "oct", "k": secret, "kid": "shared", "alg": "HS256"},
            {"kty": "RSA", "kid": "empty"},
            {"kty": "nothing"},
            {},
            "text",
        ]
    )
    assert [(key.id, key.algorithm) for key in found] == [("good", "RS256"), ("curve", "ES256")]


def test_two_keys_of_one_id_are_none(ci: Issuer) -> None:
    ci.keys.append(SigningKey.make("RS256", "key-0"))
    keys = keys_for(ci, Clock())
    assert keys.find("key-0", "RS256") is None
    assert keys.find("", "RS256") is None
