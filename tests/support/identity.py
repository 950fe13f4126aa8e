"""Who somebody is, in tests: all its parts over a catalogue, without a web server; accounts, headers, tokens by hand.

`identity` leaves a timer behind once a login has failed; the fixture `ended_identities` ends those of a test.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import jwt
import pytest

from registry.access import Grant, Role
from registry.authenticate import hash_secret
from registry.catalogue.accounts import Account, Kind
from registry.catalogue.database import Catalogue
from registry.identity.open import IdentityParts, open_identity
from registry.settings import Settings, parse

NAME = "registry.test"


def utc_now() -> datetime:
    """The time, in UTC and whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def settings(**members: object) -> Settings:
    """Settings with these members beside what is required; a push waits for no judge, for there is none."""
    required = {"name": NAME, "data": "/var/lib/registry", "judge": {"push_wait_ms": 0}}
    return parse(json.dumps(required | members).encode())


def fresh(folder: Path) -> str:
    """The URL of an SQLite catalogue that was just made, for tests that need no other."""
    url = f"sqlite:///{folder}/catalogue.sqlite"
    made = Catalogue(url)
    made.create()
    made.close()
    return url


_opened: list[IdentityParts] = []


def identity(catalogue: Catalogue, clock: Callable[[], datetime] = utc_now, **members: object) -> IdentityParts:
    """The parts of a registry with these settings."""
    _opened.append(open_identity(settings(**members), catalogue, clock))
    return _opened[-1]


@pytest.fixture(autouse=True)
def ended_identities(catalogue: Catalogue) -> Iterator[None]:
    """Ends what `identity` made, while its catalogue is there."""
    yield
    while _opened:
        _opened.pop().failures.flush()


def grants(*texts: str) -> tuple[Grant, ...]:
    """Grants by their texts."""
    return tuple(map(Grant.parse, texts))


def robot(name: str = "ci", role: Role = Role.PUSHER, *, secret: str = "any", **changes: object) -> Account:  # noqa: S107 -- of a test
    """A robot's account."""
    members: dict[str, object] = {"grants": grants("team/*"), "created": utc_now(), "created_by": "test"}
    return Account(name=name, role=role, secret=hash_secret(secret), **(members | changes))  # type: ignore[arg-type]  # the changes are of the fields' types


def person(name: str = "alice", role: Role = Role.OFFICER, **changes: object) -> Account:
    """A person's account, without a password yet."""
    members: dict[str, object] = {"grants": grants("*"), "created": utc_now(), "created_by": "test"}
    return Account(name=name, role=role, secret="", kind=Kind.PERSON, **(members | changes))  # type: ignore[arg-type]  # the changes are of the fields' types


def basic(name: str, secret: str) -> str:
    """An Authorization header."""
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def encoded(document: Mapping[str, object] | bytes) -> str:
    """One part of a token (RFC 7515): base64url without padding."""
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decoded(token: str) -> tuple[dict[str, object], dict[str, object]]:
    """Header and claims of a token, unverified."""
    return jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})
