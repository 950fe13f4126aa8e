"""Typed look-ups: each says which member, got and expected."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ocispec import fields
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue

MEMBERS: dict[str, JsonValue] = {
    "text": "a",
    "number": 3,
    "true": True,
    "null": None,
    "object": {"k": "v"},
    "texts": ["a", "b"],
    "mixed": ["a", 1],
    "odd": {"k": 1},
}


def test_members_of_the_right_type_are_given() -> None:
    assert fields.text(MEMBERS, "text", what="x") == "a"
    assert fields.text(MEMBERS, "none", what="x", default="d") == "d"
    assert fields.integer(MEMBERS, "number", what="x") == 3
    assert fields.integer(MEMBERS, "null", what="x", default=7) == 7
    assert fields.child(MEMBERS, "object", what="x") == {"k": "v"}
    assert fields.child(MEMBERS, "null", what="x") is None
    assert fields.items(MEMBERS, "none", what="x", limit=1) == []
    assert fields.texts(MEMBERS, "texts", what="x") == ("a", "b")
    assert fields.text_map(MEMBERS, "object", what="x") == {"k": "v"}
    assert fields.boolean(MEMBERS, "true", what="x") is True
    assert fields.boolean(MEMBERS, "null", what="x", default=True) is True


@pytest.mark.parametrize(
    ("look_up", "reason"),
    [
        (lambda: fields.text(MEMBERS, "none", what="x"), "x: none is missing, expected a string"),
        (lambda: fields.text(MEMBERS, "number", what="x"), "x: number is a number, expected a string"),
        (lambda: fields.integer(MEMBERS, "true", what="x"), "true is a boolean, expected a whole number"),
        (lambda: fields.integer(MEMBERS, "none", what="x"), "none is null, expected a whole number"),
        (lambda: fields.integer(MEMBERS, "number", what="x", minimum=4), "number is 3, expected at least 4"),
        (lambda: fields.child(MEMBERS, "text", what="x"), "text is a string, expected an object"),
        (lambda: fields.items(MEMBERS, "object", what="x", limit=9), "object is an object, expected an array"),
        (lambda: fields.items(MEMBERS, "texts", what="x", limit=1), "texts has 2 items, expected at most 1"),
        (lambda: fields.texts(MEMBERS, "mixed", what="x"), r"mixed\[1\] is a number, expected a string"),
        (lambda: fields.text_map(MEMBERS, "odd", what="x"), r"odd\.'k' is a number, expected a string"),
        (lambda: fields.text_map(MEMBERS, "object", what="x", limit=0), "object has 1 members, expected at most 0"),
        (lambda: fields.boolean(MEMBERS, "text", what="x"), "text is a string, expected true or false"),
    ],
)
def test_members_of_another_type_are_refused(look_up: Callable[[], object], reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        look_up()


@pytest.mark.parametrize("name", ["Layers", "LAYERS", "layer\u017f"])
def test_r1_a_member_in_another_case_is_what_go_would_read(name: str) -> None:
    with pytest.raises(SpecError, match="in another case"):
        fields.refuse_variants({name: []}, fields.fold("layers"), what="x")
    fields.refuse_variants({"layers": [], "other": 1}, fields.fold("layers"), what="x")
