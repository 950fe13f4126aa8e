"""What it costs to know who asks: `python -m benchmarks.credentials`. No server: the front door alone, over SQLite.

For each kind of credentials the first time (proven, the median) and from then on (remembered, the best of batches), in
microseconds. A remembered one is looked up by its keyed hash, and neither catalogue nor key is asked.
"""

from __future__ import annotations

import base64
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from registry.access import Grant, Role
from registry.authenticate import hash_secret, new_secret
from registry.catalogue.accounts import Account, Kind, add_account, find_account
from registry.catalogue.database import Catalogue
from registry.identity.identity import Method, known
from registry.identity.open import IdentityParts, open_identity
from registry.settings import parse
from registry.tokens.scopes import Scope

FIRST: Final = 200
"""Credentials that are proven for the first time; passwords fewer, for they cost much."""

AGAIN: Final = 1000
BATCHES: Final = 50
PASSWORDS: Final = 20
PASSWORD: Final = "brown fox over 13 lazy dogs"  # noqa: S105 -- of nobody
NAME: Final = "registry.test"


def main() -> int:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        catalogue = Catalogue(f"sqlite:///{folder}/catalogue.sqlite")
        catalogue.create()
        settings = parse(f"{{name: {NAME}, data: {Path(folder)}}}".encode())
        parts = open_identity(settings, catalogue, _now)
        robots, people = _accounts(catalogue, parts)
        tokens, made = _tokens(catalogue, parts, robots)
        print("| credentials | proven | remembered |\n| --- | --- | --- |")
        for kind, headers in (("Basic, a robot's secret", robots), ("Bearer", tokens), ("Basic, a password", people)):
            ask = parts.authenticator.authenticate
            first = [_microseconds(ask, header, 1) for header in headers]
            again = min(_microseconds(ask, headers[-1], AGAIN) for _ in range(BATCHES))
            print(f"| {kind} | {statistics.median(first):.0f} µs | {again:.1f} µs |")
        print(f"| a token is made and signed | {made:.0f} µs | |")
        catalogue.close()
    return 0


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _accounts(catalogue: Catalogue, parts: IdentityParts) -> tuple[list[str], list[str]]:
    robots, people = [], []
    hashes = [parts.passwords.hash(PASSWORD) for _ in range(PASSWORDS)]
    with catalogue.write() as conn:
        for number in range(FIRST):
            secret = new_secret()
            add_account(conn, _account(f"robot-{number}", Kind.ROBOT, secret=hash_secret(secret)))
            robots.append(_basic(f"robot-{number}", secret))
        for number, hashed in enumerate(hashes):
            add_account(conn, _account(f"person-{number}", Kind.PERSON, password=hashed))
            people.append(_basic(f"person-{number}", PASSWORD))
    return robots, people


def _account(name: str, kind: Kind, *, secret: str = "", password: str = "") -> Account:
    grants = (Grant.parse("team/*"),)
    return Account(
        name=name,
        role=Role.PUSHER,
        grants=grants,
        secret=secret,
        created=_now(),
        created_by="benchmark",
        kind=kind,
        password=password,
    )


def _tokens(catalogue: Catalogue, parts: IdentityParts, robots: list[str]) -> tuple[list[str], float]:
    """A token for each robot, and the microseconds that making one takes (the median)."""
    access = (Scope(type="repository", name="team/app", actions=("pull", "push")),)
    made, took = [], []
    for number in range(len(robots)):
        with catalogue.look() as conn:
            account = find_account(conn, f"robot-{number}")
        assert account is not None
        who = known(account.principal, Method.SECRET, version=account.version, ends=None)
        began = time.perf_counter()
        made.append(f"Bearer {parts.tokens.issue(who, access, withdrawals=parts.generation.current()).token}")
        took.append((time.perf_counter() - began) * 1e6)
    return made, statistics.median(took)


def _basic(name: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def _microseconds(ask: Callable[[str], object], header: str, times: int) -> float:
    """What each of so many questions costs."""
    began = time.perf_counter()
    for _ in range(times):
        if ask(header) is None:
            raise AssertionError("nobody was known")
    return (time.perf_counter() - began) * 1e6 / times


if __name__ == "__main__":
    raise SystemExit(main())
