"""Grants and rights: what of its role an account has where, and that credentials in between only take away."""

from __future__ import annotations

import itertools
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.digest import Digest
from registry.access import (
    ALL_RIGHTS,
    BOUNDS,
    REGISTRY,
    Grant,
    Principal,
    Right,
    Role,
    is_protected_tag,
    tag_subject,
)
from registry.errors import AccountError

NAMES = ("team/app", "team/a/b", "team", "teams/app", "other/app")
PATTERNS = ("*", "team/*", "team/app", "t?am*", "other/*")

_grants = st.builds(Grant, pattern=st.sampled_from(PATTERNS), rights=st.frozensets(st.sampled_from(list(Right))))
_layers = st.lists(_grants, max_size=4).map(tuple)


def principal(*grants: str, role: Role = Role.PUSHER) -> Principal:
    """Somebody with these grants."""
    return Principal(name="x", role=role, grants=tuple(map(Grant.parse, grants)))


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("right", list(Right))
def test_r5_a_role_bounds_what_grants_give(role: Role, right: Right) -> None:
    wanted = {
        Role.PUSHER: ALL_RIGHTS,
        Role.REGISTRY: ALL_RIGHTS,
        Role.ADMIN: frozenset[Right](),
    }.get(role, frozenset({Right.PULL}))
    assert principal("team/*", role=role).may(right, "team/app") is (right in wanted)
    assert not principal("team/*", role=role).may(right, "other/app")


def test_r5_each_right_is_apart_from_the_others() -> None:
    for count in range(1, len(Right) + 1):
        for rights in itertools.combinations(Right, count):
            some = principal(f"team/*:{','.join(rights)}")
            assert {right for right in Right if some.may(right, "team/app")} == set(rights)
            assert some.in_scope("team/app") is (Right.PULL in rights)


def test_rights_of_several_grants_add_up_where_they_meet() -> None:
    some = principal("*:pull", "team/*:create", "team/app:delete")
    found = {name: {str(right) for right in Right if some.may(right, name)} for name in ("x", "team/x", "team/app")}
    assert found == {"x": {"pull"}, "team/x": {"pull", "create"}, "team/app": {"pull", "create", "delete"}}


@pytest.mark.parametrize(
    ("globs", "repository", "inside"),
    [
        (("*",), "any/thing", True),
        (("team/*",), "team/a", True),
        (("team/*",), "team/a/b", True),
        (("team/*",), "team", False),
        (("team/*",), "teams/a", False),
        (("team/*",), "x/team/a", False),
        (("a", "b"), "b", True),
        (("a", "b"), "ab", False),
        (("te?m/x",), "team/x", True),
        ((), "a", False),
    ],
)
def test_scopes_are_globs(globs: tuple[str, ...], repository: str, inside: bool) -> None:
    assert principal(*globs).in_scope(repository) is inside


@given(grants=_layers, narrower=_layers, again=_layers, name=st.sampled_from(NAMES), role=st.sampled_from(list(Role)))
def test_credentials_in_between_only_take_away(
    grants: tuple[Grant, ...], narrower: tuple[Grant, ...], again: tuple[Grant, ...], name: str, role: Role
) -> None:
    whole = Principal(name="x", role=role, grants=grants)
    alone = [Principal(name="x", role=role, grants=layer) for layer in (grants, narrower, again)]
    narrow = whole.narrowed(narrower).narrowed(again)
    for right in Right:
        assert narrow.may(right, name) is all(each.may(right, name) for each in alone)
    assert narrow.in_scope(name) is narrow.may(Right.PULL, name)
    assert narrow.is_narrowed
    assert not whole.is_narrowed


@given(st.builds(Grant, pattern=st.from_regex(r"[a-z0-9*?./_-]{1,40}", fullmatch=True), rights=st.just(ALL_RIGHTS)))
def test_a_grant_is_read_as_it_is_written(grant: Grant) -> None:
    assert Grant.parse(str(grant)) == grant
    some = Grant(pattern=grant.pattern, rights=frozenset({Right.CREATE, Right.PULL}))
    assert str(some) == f"{grant.pattern}:pull,create"
    assert Grant.parse(str(some)) == some


@pytest.mark.parametrize(
    "text", ["", ":pull", "a:", "a:pull,", "a:push", "a:PULL", "a:pull:create", "A", "a b", "[a]", "a\n", "x" * 256]
)
def test_what_is_no_grant_is_refused(text: str) -> None:
    with pytest.raises(AccountError):
        Grant.parse(text)


def test_a_hostile_glob_takes_no_longer_for_a_long_name() -> None:
    hostile = principal("*" + "a*" * 100 + "b")
    assert timeit.timeit(lambda: hostile.in_scope("a" * 255), number=100) < 1


def test_a_right_is_asked_for_in_a_microsecond_or_so() -> None:
    # On every request: 100 grants, far under what a request takes.
    many = principal(*(f"team-{number}/*" for number in range(100))).narrowed([Grant(pattern="team-99/app")])
    assert many.in_scope("team-99/app")
    assert timeit.timeit(lambda: many.in_scope("team-99/app"), number=1000) / 1000 < 50e-6
    assert timeit.timeit(lambda: principal("*").in_scope("team-99/app"), number=1000) / 1000 < 50e-6


def test_no_account_has_more_than_a_pusher() -> None:
    assert all(bound <= BOUNDS[Role.PUSHER] for bound in BOUNDS.values())


def test_tags_that_speak_of_a_digest() -> None:
    digest = Digest.of(b"image")
    assert tag_subject(f"sha256-{digest.hex}") == digest
    assert tag_subject(f"sha256-{digest.hex}.sig") == digest
    assert tag_subject("latest") is tag_subject("sha256-abc") is tag_subject(f"sha256-{digest.hex}0") is None
    assert is_protected_tag(f"sha256-{digest.hex}.att")
    assert is_protected_tag(f"sha512-{digest.hex}.sig")
    assert not is_protected_tag(f"sha256-{digest.hex}")
    assert not is_protected_tag(f"x-sha256-{digest.hex}.sig")
    assert REGISTRY.role is Role.REGISTRY


@pytest.mark.parametrize(
    ("grants", "scope", "overlap"),
    [
        (("*",), "shop/web", True),
        (("shop/*",), "shop/web", True),
        (("shop/*",), "shop2/web", False),
        (("shop/*",), "**", True),
        (("shop/*",), "shop/**", True),
        (("shop/*",), "sho*/web", True),
        (("shop/*",), "team/*", False),
        (("shop/w?b", "x/*"), "shop/w*", True),
        (("shop/web",), "shop/we*", True),
        (("shop/web",), "shop/webs", False),
        (("shop/*:create",), "shop/web", False),
    ],
)
def test_a_scope_overlaps_what_somebody_may_read_or_not(grants: tuple[str, ...], scope: str, overlap: bool) -> None:
    someone = Principal(name="x", role=Role.PUSHER, grants=tuple(map(Grant.parse, grants)))
    assert someone.overlaps(scope) is overlap
    assert someone.reads_everywhere is (grants == ("*",))


def test_narrowed_credentials_overlap_no_more_than_both() -> None:
    someone = Principal(name="x", role=Role.PUSHER).narrowed(map(Grant.parse, ("shop/*:pull",)))
    assert not someone.reads_everywhere
    assert someone.overlaps("shop/**")
    assert not someone.overlaps("team/**")
