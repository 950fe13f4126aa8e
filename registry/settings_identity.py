"""Settings of who somebody is: tokens, logins, OpenID Connect issuers, client certificates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from registry import settings_checks as checks
from registry.access import Grant, Role
from registry.errors import AccountError, SettingsError
from registry.settings_checks import Key, Sections, choice, number

MAX_ISSUERS: Final = 16
MAX_RULES: Final = 100
MAX_CLAIMS: Final = 16
"""Claims that one rule asks for."""

MAX_RULE_GRANTS: Final = 32
ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
"""Of RFC 7518 and RFC 8037; none of them is symmetric."""

_DAY: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """`tokens`: what `/token` gives out."""

    lifetime: Annotated[int, Key("Seconds that a token is good for.", number(60, 300))] = 300
    rotation: Annotated[
        int, Key("Seconds after which each process that signs tokens makes itself a new key.", number(60, 30 * _DAY))
    ] = _DAY
    anonymous: Annotated[
        tuple[Grant, ...],
        Key(
            "Where whoever shows no credentials gets a token to pull what is cleared, e.g. `['public/*']`; without it "
            "nobody does.",
            grants,
        ),
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginSettings:
    """`logins`: people's passwords, and what failed logins cost whoever fails."""

    password_length: Annotated[int, Key("Characters that a password must have.", number(12, 128))] = 15
    failures_per_account: Annotated[
        int, Key("Failed logins a minute of one account; more are answered 429 unread.", number(1, 10_000))
    ] = 10
    failures_per_address: Annotated[
        int, Key("Failed logins a minute from one address (IPv6: one /64); more are answered 429.", number(1, 100_000))
    ] = 60


Claims = tuple[tuple[str, str], ...]
"""What a rule asks for: a claim's name, and a glob over its value (`*` is anything, `?` one character)."""


def claims(value: object, key: str) -> Claims:
    """Names of claims with globs; at least one: a rule that asks for nothing would fit everybody."""
    if not isinstance(value, dict) or not 1 <= len(value) <= MAX_CLAIMS:
        raise SettingsError(f"setting {key}: expected 1 to {MAX_CLAIMS} claims with the globs that they must match")
    return tuple((checks.text(name, key), checks.text(glob, f"{key}.{name}")) for name, glob in value.items())


def grants(value: object, key: str) -> tuple[Grant, ...]:
    """Grants as `pratique accounts add --grant` has them."""
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_RULE_GRANTS:
        raise SettingsError(f"setting {key}: expected a list of 1 to {MAX_RULE_GRANTS} grants, e.g. ['shop/*:pull']")
    try:
        return tuple(Grant.parse(checks.text(item, key)) for item in value)
    except AccountError as error:
        raise SettingsError(f"setting {key}: {error}") from None


def algorithms(value: object, key: str) -> tuple[str, ...]:
    """Signature algorithms, as JSON Web Algorithms calls them."""
    if not isinstance(value, list) or not value or any(item not in ALGORITHMS for item in value):
        raise SettingsError(f"setting {key}: got {str(value)[:120]}, expected some of {', '.join(ALGORITHMS)}")
    return tuple(value)


def role(value: object, key: str) -> Role:
    """A role that an account can have."""
    return Role(choice(*(str(each) for each in Role if each is not Role.REGISTRY))(value, key))


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcRule:
    """`oidc[].rules[]`: who fits it, and what they may."""

    claims: Annotated[
        Claims,
        Key("Claims and globs that all must match, e.g. `{repository: acme/app, ref: refs/heads/*}`.", claims),
    ]
    role: Annotated[Role, Key("Role of whoever fits.", role)]
    grants: Annotated[tuple[Grant, ...], Key("What of the role, and where, e.g. `[acme/app, 'base/*:pull']`.", grants)]


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """`oidc[]`: one issuer of bearer tokens for people or builds (OpenID Connect Core 1.0)."""

    name: Annotated[
        str, Key("Short name; who comes from there is called `name:subject` in the audit.", checks.short_name)
    ]
    issuer: Annotated[str, Key("Its `iss`, an https address; http on a loopback address only.", checks.issuer_url)]
    audience: Annotated[str, Key("The `aud` that its tokens must have.", checks.text)]
    rules: Annotated[
        tuple[OidcRule, ...],
        Sections(
            "Who may what; the first rule that fits counts, and without one nobody is known.", OidcRule, MAX_RULES
        ),
    ]
    algorithms: Annotated[
        tuple[str, ...], Key("What it signs with: `RS256`, `ES256`, `EdDSA`; nothing else is read.", algorithms)
    ] = ("RS256",)
    subject: Annotated[str, Key("The claim that names somebody.", checks.text)] = "sub"
    keys_age: Annotated[
        int, Key("Seconds that its keys are believed without asking it again.", number(60, 7 * _DAY))
    ] = 3600
    ca_file: Annotated[Path | None, Key("Certificates to check the issuer's by, not the system's.", checks.path)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateSettings:
    """`certificates`: client certificates that speak for accounts."""

    ca: Annotated[
        Path, Key("Authorities (PEM) of the clients' certificates, intermediate ones among them.", checks.path)
    ]
    crl: Annotated[Path | None, Key("Their revocation lists (PEM), one for each authority.", checks.path)] = None
    listen: Annotated[
        str,
        Key(
            "Address and port of a process of its own that asks for certificates and gives tokens; it shows "
            "`http.certificate`.",
            checks.address,
        ),
    ] = ""
    url: Annotated[
        str,
        Key("Address that clients reach it at; without it the host of `name` and the port of `listen`.", checks.url),
    ] = ""
    required: Annotated[
        bool,
        Key(
            "Whether the process at `listen` ends the connection of whoever shows no certificate. Every client is sent "
            "there for its tokens, so people and builds need one too then.",
            checks.switch,
        ),
    ] = False
    header: Annotated[
        str,
        Key(
            "Or, where `http.proxies` end TLS: the header in which they pass on the certificate, `Client-Cert` (RFC "
            "9440) or any with URL-encoded PEM. They must remove what clients send under that name.",
            checks.header_name,
        ),
    ] = ""


TOKENS: Final = TokenSettings()
LOGINS: Final = LoginSettings()


def check_identity(
    name: str, *, secure: bool, proxied: bool, oidc: Sequence[OidcSettings], certificates: CertificateSettings | None
) -> None:
    """Check what these settings need of each other and of the rest.

    Raises:
        SettingsError: two issuers cannot be told apart, or certificates could not reach us.
    """
    for key in ("name", "issuer"):
        values = [getattr(each, key) for each in oidc]
        if len(set(values)) != len(values):
            raise SettingsError(f"setting oidc: two issuers have the same {key}")
    if any(each.issuer == name for each in oidc):
        raise SettingsError(f"setting oidc: {name} is the issuer of the registry's own tokens")
    if certificates is None:
        return
    if bool(certificates.listen) == bool(certificates.header):
        raise SettingsError("setting certificates: expected either listen or header")
    if certificates.required and not certificates.listen:
        raise SettingsError("setting certificates.required: expected together with certificates.listen")
    if certificates.listen and not secure:
        raise SettingsError("setting certificates.listen: expected together with http.certificate, which it shows")
    if certificates.header and not proxied:
        raise SettingsError("setting certificates.header: expected together with http.proxies, whom it is believed of")
