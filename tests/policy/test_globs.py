"""Globs: what fits, and that no pattern is slow."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.errors import PolicyError
from policy.globs import MAX_PATTERN, MAX_TEXT, Glob, any_of


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("name", "name", True),
        ("name", "names", False),
        ("na*", "name", True),
        ("na*", "na", True),
        ("na*", "na/me", False),
        ("na**", "na/me", True),
        ("*", "a/b", False),
        ("*", "", True),
        ("**", "a/b\n", True),
        ("*.example/**", "registry.example/team/app", True),
        ("*.example/**", "registry/example/team/app", False),
        ("pkg:deb/debian/*@*", "pkg:deb/debian/openssl@3.5.0-1", True),
        ("pkg:deb/debian/*@*", "pkg:deb/ubuntu/openssl@3.5.0-1", False),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "a-b-b-d", False),
        ("a**b*c", "a/x/b/x/b-c", True),
        ("a*/b", "a/x/b", False),
        ("*a", "aa", True),
        (".", "x", False),
        ("[a-z]+", "b", False),
        ("(a", "(a", True),
    ],
)
def test_a_glob_fits_what_it_says(pattern: str, text: str, fits: bool) -> None:
    assert Glob.compile(pattern).matches(text) is fits


@pytest.mark.parametrize("pattern", ["", "a***b", "x" * (MAX_PATTERN + 1)])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(PolicyError, match="glob"):
        Glob.compile(pattern)


def test_backtracking_bomb_costs_one_step_a_character() -> None:
    glob = Glob.compile("*a" * 200 + "b")
    assert not glob.matches("a" * MAX_TEXT)


@pytest.mark.parametrize("pattern", ["a*", "a**", "a*b", "**b"])
def test_a_text_beyond_the_bound_fits_nothing(pattern: str) -> None:
    assert not Glob.compile(pattern).matches("a" * MAX_TEXT + "b")


def test_everything_fits_the_two_asterisks() -> None:
    assert Glob.compile("**").matches("a" * (MAX_TEXT + 1))


@given(st.text("ab/*", min_size=1, max_size=12).filter(lambda text: "***" not in text), st.text("ab/", max_size=14))
def test_it_agrees_with_a_regular_expression(pattern: str, text: str) -> None:
    parts = re.split(r"(\*\*|\*)", pattern)
    expression = "".join({"*": "[^/]*", "**": "(?s:.*)"}.get(part, re.escape(part)) for part in parts)
    assert Glob.compile(pattern).matches(text) is (re.fullmatch(expression, text) is not None)


def test_any_of_none_fits_nothing() -> None:
    assert not any_of(())("a")


def test_any_of_tries_names_and_patterns() -> None:
    fits = any_of((Glob.compile("name"), Glob.compile("LD_*")))
    assert [fits(text) for text in ("name", "LD_PRELOAD", "LD", "nam")] == [True, True, False, False]


def test_globs_of_one_pattern_are_equal_and_shown_as_it() -> None:
    assert Glob.compile("a*") == Glob.compile("a*")
    assert str(Glob.compile("a*")) == "a*"
