"""One value has one spelling."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.strictjson import JsonValue
from policy import canonical
from policy.errors import PolicyError

NAMES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=8)
VALUES: st.SearchStrategy[JsonValue] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def test_members_are_sorted_and_nothing_is_padded() -> None:
    assert canonical.encode({"b": [1, True, None], "a": "ä\n"}) == '{"a":"ä\\n","b":[1,true,null]}'.encode()


def test_members_are_sorted_by_utf16_units_as_rfc_8785_section_3_2_3_has_it() -> None:
    assert canonical.encode({"\ufb33": 1, "\U0001f600": 2}) == '{"\U0001f600":2,"\ufb33":1}'.encode()


@pytest.mark.parametrize("value", [1.5, [0.0], {"a": {"b": float("nan")}}])
def test_a_float_is_refused_wherever_it_stands(value: JsonValue) -> None:
    with pytest.raises(PolicyError, match="float"):
        canonical.encode(value)


def test_an_integer_beyond_doubles_is_refused() -> None:
    with pytest.raises(PolicyError, match="9007199254740992"):
        canonical.encode(2**53)


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(PolicyError, match="UTF-8"):
        canonical.encode("\ud800")


def test_the_digest_is_of_the_canonical_form() -> None:
    assert canonical.digest({"a": 1}).hex == hashlib.sha256(b'{"a":1}').hexdigest()


@given(VALUES)
def test_the_quick_check_agrees_with_the_encoder(value: JsonValue) -> None:
    raw = canonical.encode(value)
    assert canonical.spells(raw, value)
    assert json.loads(raw) == value


@given(VALUES)
def test_another_spelling_is_told_apart(value: JsonValue) -> None:
    raw = canonical.encode({"a": value})
    assert not canonical.spells(raw.replace(b'{"a":', b'{"a": ', 1), {"a": value})
