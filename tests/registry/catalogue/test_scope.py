"""What a query says is in somebody's scope is what their grants say, on both databases."""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from ocispec.digest import Digest
from registry.access import Grant, Principal, Right, Role
from registry.catalogue.blobs import add_blob, ensure_repository
from registry.catalogue.database import Catalogue
from registry.catalogue.schema import repositories
from registry.catalogue.scope import in_scope, readable_with

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
NAMES = ("a", "a/b", "a_b", "a-b", "a.b", "ab", "a/b/c", "b", "b/a", "team/web", "team/web2", "teams/web", "z", "zz/9")

_patterns = st.sampled_from(
    (*NAMES, "*", "a*", "a/*", "a_*", "a?b", "*b", "?", "??", "t*/w*", "*/*", "z*", "zz/*", "-*")
)
_rights = st.frozensets(st.sampled_from(list(Right)))
_layers = st.lists(st.builds(Grant, pattern=_patterns, rights=_rights), max_size=4).map(tuple)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(grants=_layers, narrower=st.lists(_layers, max_size=2), role=st.sampled_from(list(Role)))
def test_the_query_agrees_with_the_grants(
    catalogue: Catalogue, grants: tuple[Grant, ...], narrower: list[tuple[Grant, ...]], role: Role
) -> None:
    principal = Principal(name="x", role=role, grants=grants)
    for layer in narrower:
        principal = principal.narrowed(layer)
    digest = Digest.of(b"x")
    with catalogue.write(durable=False) as conn:
        for name in NAMES:
            ensure_repository(conn, name, by="x", now=NOW)
        add_blob(conn, "a_b", digest, 1, by="x", now=NOW)
    with catalogue.look() as conn:
        found = set(conn.scalars(select(repositories.c.name).where(in_scope(principal, repositories.c.name))))
        readable = readable_with(conn, principal, digest)
        named = {name: readable_with(conn, principal, digest, only=name) for name in NAMES}
    assert found == {name for name in NAMES if principal.in_scope(name)}
    assert readable == ("a_b" if principal.in_scope("a_b") else None)
    assert named == {name: readable if name == "a_b" else None for name in NAMES}


def test_r4_holders_out_of_scope_are_not_looked_at(catalogue: Catalogue) -> None:
    """Names and prefixes are looked up: a blob that 3,000 others have takes as long as one that nobody has."""
    popular, rare = Digest.of(b"popular"), Digest.of(b"rare")
    with catalogue.write(durable=False) as conn:
        for number in range(3000):
            add_blob(conn, f"secret/{number}", popular, 1, by="x", now=NOW)
    principal = Principal(name="x", role=Role.PUSHER, grants=(Grant(pattern="shop/*"), Grant(pattern="team/app")))
    times: dict[Digest, list[float]] = {popular: [], rare: []}
    for _ in range(100):
        for digest, taken in times.items():
            began = time.perf_counter()
            with catalogue.look() as conn:
                assert readable_with(conn, principal, digest) is None
            taken.append(time.perf_counter() - began)
    slow, fast = (statistics.median(times[digest]) for digest in (popular, rare))
    assert slow < 1.6 * fast + 0.0001, (slow, fast)
