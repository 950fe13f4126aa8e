"""All parts of who somebody is, made from the settings; one set a process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ocispec.errors import SourceError, SpecError
from registry.audit import Audit
from registry.authenticate import Authentication
from registry.catalogue.database import Catalogue
from registry.certificates import Certificates
from registry.errors import SettingsError
from registry.identity.attempts import Attempts
from registry.identity.basic import BasicLogins
from registry.identity.bearer import Bearers
from registry.identity.failures import FailureLog
from registry.identity.generation import AccountsGeneration
from registry.identity.issuers import Issuers
from registry.identity.passwords import Passwords
from registry.proxies import Proxies
from registry.settings import Settings
from registry.tokens.access_tokens import AccessTokens
from registry.tokens.keys import TokenKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityParts:
    """What handlers need beside the `Authenticator`."""

    authenticator: Authentication
    tokens: AccessTokens
    generation: AccountsGeneration
    certificates: Certificates | None
    passwords: Passwords
    attempts: Attempts
    failures: FailureLog
    proxies: Proxies


def open_identity(settings: Settings, catalogue: Catalogue, clock: Callable[[], datetime]) -> IdentityParts:
    """The parts; nothing is asked or written yet.

    Raises:
        SettingsError: a certificate file cannot be read, or an issuer cannot be asked.
    """
    audit = Audit(clock)
    lifetime = timedelta(seconds=settings.tokens.lifetime)
    rotation = timedelta(seconds=settings.tokens.rotation)
    keys = TokenKeys(catalogue, audit, clock=clock, rotation=rotation, lifetime=lifetime)
    tokens = AccessTokens(keys, registry=settings.name, lifetime=lifetime, clock=clock)
    failures = FailureLog(catalogue, audit, clock)
    logins = settings.logins
    passwords = Passwords(length=logins.password_length)
    attempts = Attempts(per_account=logins.failures_per_account, per_address=logins.failures_per_address)
    generation = AccountsGeneration(catalogue, changed=keys.forget)
    try:
        issuers = Issuers(settings.oidc)
    except (SpecError, SourceError) as error:
        raise SettingsError(f"setting oidc: {error}") from error
    basic = BasicLogins(catalogue, passwords=passwords, attempts=attempts, failures=failures, clock=clock)
    bearers = Bearers(catalogue, tokens=tokens, issuers=issuers, failures=failures, clock=clock)
    certificates = settings.certificates
    return IdentityParts(
        authenticator=Authentication(basic, bearers, generation, clock),
        tokens=tokens,
        generation=generation,
        certificates=Certificates(certificates, catalogue, failures, clock) if certificates is not None else None,
        passwords=passwords,
        attempts=attempts,
        failures=failures,
        proxies=Proxies(settings.http.proxies, settings.http.forwarded_header),
    )
