"""An account, and tokens for it, over a catalogue."""

from __future__ import annotations

from datetime import datetime

from registry.access import Principal
from registry.catalogue.accounts import add_account, find_account
from registry.catalogue.database import Catalogue
from registry.identity.identity import Identity, Method, known
from registry.identity.open import IdentityParts
from registry.tokens.scopes import Scope
from tests.support.identity import robot

PULL = Scope(type="repository", name="team/app", actions=("pull",))


def store(catalogue: Catalogue, name: str = "ci", *, expires: datetime | None = None) -> None:
    with catalogue.write() as conn:
        add_account(conn, robot(name, secret="right", expires=expires))


def who(catalogue: Catalogue, name: str = "ci") -> Identity:
    with catalogue.look() as conn:
        found = find_account(conn, name)
    assert found is not None
    return known(found.principal, Method.SECRET, version=found.version, ends=found.expires)


def issue(parts: IdentityParts, catalogue: Catalogue, *access: Scope) -> str:
    return parts.tokens.issue(who(catalogue), access or (PULL,), withdrawals=parts.generation.current()).token


def believed(parts: IdentityParts, token: str) -> Principal | None:
    found = parts.authenticator.identify(f"Bearer {token}")
    return found.principal if found is not None else None
