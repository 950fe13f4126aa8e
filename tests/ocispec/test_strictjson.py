"""R11: JSON that two parsers could read differently is refused before anything is decided on it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.errors import LimitError, SpecError
from ocispec.strictjson import MAX_DEPTH, MAX_SAFE_INTEGER, JsonValue, parse, parse_object, type_name

_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
_values: st.SearchStrategy[JsonValue] = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5), max_leaves=30
)


@given(_values, st.booleans())
def test_whatever_json_can_say_is_read_as_it_was_written(value: JsonValue, ascii_only: bool) -> None:
    assert parse(json.dumps(value, ensure_ascii=ascii_only).encode(), what="x") == value


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        value = parse(raw, what="x")
    except SpecError:
        return
    assert value == json.loads(raw)


@given(st.text(alphabet='[]{}",:\\ 01e+-.truefalsnN\n"', max_size=200))
def test_nearly_json_is_read_as_the_standard_library_reads_it_or_refused(text: str) -> None:
    try:
        value = parse(text.encode(), what="x")
    except SpecError:
        return
    assert value == json.loads(text)


@given(st.integers(1, 200), st.sampled_from(["[", '{"a":']))
def test_depth_is_counted_before_anything_recurses(depth: int, opening: str) -> None:
    raw = (opening * depth + "0" + {"[": "]", '{"a":': "}"}[opening] * depth).encode()
    if depth <= MAX_DEPTH:
        parse(raw, what="x")
        return
    with pytest.raises(LimitError, match="nested deeper than 64"):
        parse(raw, what="x")


def test_brackets_in_strings_are_no_depth() -> None:
    text = '["' + "[" * 500 + '\\"' + "{" * 500 + '"]'
    assert parse(text.encode(), what="x") == json.loads(text)


def test_many_shallow_brackets_are_no_depth() -> None:
    assert parse(b"[" + b",".join([b"[]"] * 500) + b"]", what="x") == [[]] * 500


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"a":1,"a":1}', "duplicate name 'a'"),
        (b'{"a":{"b":1,"b":2}}', "duplicate name 'b'"),
        (b'{"a":1,"\\u0061":2}', "duplicate name 'a'"),
        (b"NaN", "number NaN"),
        (b"[Infinity]", "number Infinity"),
        (b"-Infinity", "number -Infinity"),
        (b"9007199254740992", r"beyond 2\^53"),
        (b"-9007199254740992", r"beyond 2\^53"),
        (b"1" * 5000, r"beyond 2\^53"),
        (b"1e400", "not finite"),
        (b"0." + b"1" * 100, "too long"),
        (b'"\\ud800"', "lone surrogate"),
        (b'{"\\udfff":1}', "lone surrogate"),
        (b'[["\\ud800x"]]', "lone surrogate"),
        (b'"\xff"', "not UTF-8 at byte 1"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"{} {}", "not JSON"),
        (b"", "not JSON"),
        (b"{'a':1}", "not JSON"),
        (b'{"a":1,}', "not JSON"),
        (b'"\x01"', "not JSON"),
        (b"01", "not JSON"),
    ],
)
def test_r11_ambiguous_json_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as caught:
        parse(raw, what="manifest x")
    assert str(caught.value).startswith("manifest x: ")


def test_a_document_is_refused_by_size_before_it_is_decoded() -> None:
    with pytest.raises(LimitError, match="got 11 bytes, expected at most 10"):
        parse(b"\xff" * 11, what="x", max_bytes=10)


def test_pairs_of_surrogates_are_characters() -> None:
    assert parse(b'"\\ud83d\\ude00"', what="x") == "\U0001f600"


def test_an_object_is_asked_for_by_name() -> None:
    assert parse_object(b'{"a":[]}', what="x") == {"a": []}
    with pytest.raises(SpecError, match="got an array, expected an object"):
        parse_object(b"[]", what="x")


def test_types_are_named_in_json_words() -> None:
    values: tuple[object, ...] = ({}, [], "", True, 1, 1.5, None, b"")
    named = [type_name(value) for value in values]
    assert named == ["an object", "an array", "a string", "a boolean", "a number", "a number", "null", "bytes"]
