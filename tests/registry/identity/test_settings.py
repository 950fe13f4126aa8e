"""The settings of who somebody is: what they say, and what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.access import Grant, Role
from registry.errors import SettingsError
from registry.settings import Settings, parse

MINIMUM = {"name": "registry.test:5000", "data": "/var/lib/registry"}
TLS = {"listen": "10.0.0.1:5000", "certificate": "/tls.pem", "key": "/tls.key"}
RULE = {"claims": {"repository": "acme/*"}, "role": "pusher", "grants": ["acme/*"]}
ISSUER = {"name": "ci", "issuer": "https://ci.test", "audience": "registry.test", "rules": [RULE]}


def settings(**members: object) -> Settings:
    """The settings of a document with these members beside what is required."""
    return parse(json.dumps({**MINIMUM, **members}).encode())


def test_a_whole_section_of_issuers() -> None:
    rules = [RULE, {"claims": {"sub": "*", "groups": "ops"}, "role": "auditor", "grants": ["*", "base/*:pull"]}]
    found = settings(oidc=[{**ISSUER, "rules": rules, "algorithms": ["ES256", "EdDSA"], "ca_file": "/ca.pem"}]).oidc
    assert [each.name for each in found] == ["ci"]
    assert found[0].algorithms == ("ES256", "EdDSA")
    assert found[0].ca_file == Path("/ca.pem")
    assert found[0].rules[0].claims == (("repository", "acme/*"),)
    assert (found[0].rules[1].role, found[0].rules[1].grants[0]) == (Role.AUDITOR, Grant(pattern="*"))


@pytest.mark.parametrize(
    ("members", "url"),
    [
        ({}, "http://registry.test:5000/token"),
        ({"http": TLS}, "https://registry.test:5000/token"),
        ({"http": {**TLS, "url": "https://r.test/"}}, "https://r.test/token"),
        (
            {"http": TLS, "certificates": {"ca": "/ca.pem", "listen": "0.0.0.0:5001"}},
            "https://registry.test:5001/token",
        ),
        (
            {"http": TLS, "certificates": {"ca": "/ca.pem", "listen": "0.0.0.0:1", "url": "https://t.test"}},
            "https://t.test/token",
        ),
        (
            {"name": "[::1]:5000", "http": TLS, "certificates": {"ca": "/ca.pem", "listen": "[::1]:5001"}},
            "https://[::1]:5001/token",
        ),
        (
            {"http": {"proxies": ["10.0.0.0/8"]}, "certificates": {"ca": "/ca.pem", "header": "Client-Cert"}},
            "https://registry.test:5000/token",
        ),
    ],
)
def test_where_clients_are_sent_for_a_token_stands_in_the_settings(members: dict[str, object], url: str) -> None:
    assert settings(**members).token_url == url


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"oidc": {}}, "setting oidc: got an object, expected a list of 1 to 16 groups"),
        ({"oidc": []}, "setting oidc: got an array, expected a list of 1 to 16"),
        ({"oidc": [ISSUER] * 17}, "expected a list of 1 to 16"),
        ({"oidc": [{**ISSUER, "isuer": "x"}]}, r"setting oidc\[0\]\.isuer: unknown key"),
        ({"oidc": [{**ISSUER, "issuer": "http://ci.test"}]}, "expected an https address"),
        ({"oidc": [{**ISSUER, "issuer": "http://127.0.0.1.ci.test"}]}, "expected an https address"),
        ({"oidc": [{**ISSUER, "issuer": "https://ci.test?x=y"}]}, "expected an https address"),
        ({"oidc": [{**ISSUER, "issuer": "https://u@ci.test"}]}, "expected an https address"),
        ({"oidc": [{**ISSUER, "name": "a:b"}]}, "lower-case letters, digits and dashes"),
        ({"oidc": [{**ISSUER, "algorithms": ["HS256"]}]}, "expected some of RS256, ES256, EdDSA"),
        ({"oidc": [{**ISSUER, "algorithms": ["none"]}]}, "expected some of RS256, ES256, EdDSA"),
        ({"oidc": [{**ISSUER, "algorithms": []}]}, "expected some of RS256, ES256, EdDSA"),
        ({"oidc": [{**ISSUER, "rules": [{**RULE, "claims": {}}]}]}, r"rules\[0\]\.claims: expected 1 to 16 claims"),
        ({"oidc": [{**ISSUER, "rules": [{**RULE, "claims": {"sub": 1}}]}]}, r"claims\.sub: got 1, expected text"),
        ({"oidc": [{**ISSUER, "rules": [{**RULE, "role": "registry"}]}]}, r"role: got 'registry', expected one of"),
        ({"oidc": [{**ISSUER, "rules": [{**RULE, "grants": ["A*"]}]}]}, "is not a glob over repository names"),
        ({"oidc": [{**ISSUER, "rules": [{**RULE, "grants": []}]}]}, "expected a list of 1 to 32 grants"),
        ({"oidc": [ISSUER, {**ISSUER, "name": "other"}]}, "two issuers have the same issuer"),
        ({"oidc": [ISSUER, {**ISSUER, "issuer": "https://o.test"}]}, "two issuers have the same name"),
        ({"tokens": {"lifetime": 301}}, "expected a number from 60 to 300"),
        ({"logins": {"password_length": 8}}, "expected a number from 12 to 128"),
        ({"certificates": {"ca": "/ca.pem"}}, "expected either listen or header"),
        ({"certificates": {"listen": "127.0.0.1:1"}}, r"setting certificates\.ca: missing"),
        ({"certificates": {"ca": "/ca.pem", "listen": "127.0.0.1:1"}}, "expected together with http.certificate"),
        ({"certificates": {"ca": "/ca.pem", "header": "Client-Cert"}}, "expected together with http.proxies"),
        (
            {"http": {"proxies": ["10.0.0.0/8"]}, "certificates": {"ca": "/ca.pem", "header": "a", "required": True}},
            "expected together with certificates.listen",
        ),
        ({"tokens": {"anonymous": []}}, "expected a list of 1 to 32 grants"),
        ({"tokens": {"anonymous": ["A"]}}, "is not a glob over repository names"),
        ({"certificates": {"ca": "/ca.pem", "header": "a b"}}, "expected the name of a header"),
    ],
)
def test_what_cannot_be_is_refused_by_name(members: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings(**members)
