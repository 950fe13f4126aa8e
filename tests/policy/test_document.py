"""Policy documents as hostile input: what is ambiguous, tagged, aliased, doubled or huge is refused."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ocispec.strictjson import JsonValue
from policy.document import MAX_DOCUMENT, MAX_NODES, read_document
from policy.errors import PolicyError
from policy.load import default_document


def test_yaml_and_json_mean_the_same() -> None:
    yaml = b"a: 1\nb: [x, 'y', \"z\"]\nc: {d: true, e: null, f: }\ng: |\n  two\n  lines\nh: -5\ni: 7d\n"
    value = {"a": 1, "b": ["x", "y", "z"], "c": {"d": True, "e": None, "f": None}, "g": "two\nlines\n"}
    value |= {"h": -5, "i": "7d"}
    assert read_document(yaml) == value
    assert read_document(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"", "empty"),
        (b"# only a comment\n", "empty"),
        (b"- a\n", "expected a mapping at the top"),
        (b"a\n", "expected a mapping at the top"),
        (b"a: 1\na: 2\n", "the key 'a' a second time"),
        (b"a: {b: 1, b: 2}\n", "the key 'b' a second time"),
        (b'{"a": 1, "a": 2}', "duplicate name 'a'"),
        (b"a: &x 1\nb: *x\n", "an anchor"),
        (b"a: *x\n", "an alias"),
        (b"a: !!python/object/apply:os.system ['true']\n", "the tag"),
        (b"a: !custom 1\n", "the tag"),
        (b"a: !!str 1\n", "the tag"),
        (b"? [a]\n: 1\n", "a key that is not a word"),
        (b"1: 1\n", "a key that is not a word"),
        (b"<<: {a: 1}\n", "YAML versions read differently"),
        (b"a: 1\n---\nb: 2\n", "a second document"),
        (b"%YAML 1.1\n---\na: 1\n", "a directive"),
        (b"%TAG ! tag:example,2000:\n---\na: 1\n", "a directive"),
        (b"a: yes\n", "YAML versions read differently"),
        (b"a: Off\n", "YAML versions read differently"),
        (b"a: True\n", "YAML versions read differently"),
        (b"a: ~\n", "YAML versions read differently"),
        (b"a: 010\n", "may be octal"),
        (b"a: 0x1f\n", "may be a number"),
        (b"a: 1.5\n", "may be a number"),
        (b"a: 1e3\n", "may be a number"),
        (b"a: .inf\n", "may be a number"),
        (b"a: 12:30\n", "may be a number"),
        (b"a: 2026-11-24\n", "may be a number or a date"),
        (b"a: 1_000\n", "may be a number"),
        (b"a: 9007199254740992\n", "beyond 2^53"),
        (b'{"a": 9007199254740992}', "beyond 2\\^53"),
        (b"a: [1\n", "not YAML"),
        (b"a: \x01\n", "not YAML"),
        (b"a: \xff\n", "not UTF-8 at byte 3"),
        ("a: 1".encode("utf-16"), "not UTF-8"),
        (b"{a: 1}", "not JSON"),
        (b"a: " + b"[" * 40 + b"]" * 40 + b"\n", "more than 32 levels"),
        (b"a: [" + b"1," * MAX_NODES + b"1]\n", "more than 50000 values"),
        (b"a: " + b"x" * MAX_DOCUMENT, "expected at most"),
    ],
)
def test_what_could_be_read_in_two_ways_or_never_ends_is_refused(document: bytes, said: str) -> None:
    with pytest.raises(PolicyError, match=said.replace("^", r"\^") if "\\" not in said else said):
        read_document(document)


def test_billion_laughs_is_refused_at_the_first_laugh() -> None:
    lines = [b'a0: &a0 ["lol"]'] + [
        b"a%d: &a%d [%s]" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 10)
    ]
    with pytest.raises(PolicyError, match="an anchor"):
        read_document(b"\n".join(lines))


def test_an_error_names_line_and_column() -> None:
    with pytest.raises(PolicyError, match=r"policy: line 3, column 4: got 'yes'"):
        read_document(b"a: 1\nb:\n   yes\n")


VALUES: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text("ab 01:{}[]#'\"-.~", max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text("ab", min_size=1), children, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text("ab", min_size=1, max_size=3), VALUES, max_size=4))
def test_what_json_writes_is_read_back_also_as_yaml(value: dict[str, JsonValue]) -> None:
    raw = json.dumps(value).encode()
    assert read_document(raw) == value
    # JSON in flow style is YAML too, once it does not begin with a brace.
    assert read_document(b"top: " + raw) == {"top": value}


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_but_a_policy_error(raw: bytes) -> None:
    try:
        read_document(raw)
    except PolicyError as error:
        assert str(error).startswith("policy: ")  # noqa: PT017  # any other outcome is fine


@pytest.mark.parametrize(
    "raw", [default_document(), b"a: yes\n", b"a: &x 1\n", b"a: 'b'\nc: [1, x]\n", b"a: [1\n", b"a: \x01\n"]
)
def test_the_reader_in_c_and_the_one_in_python_read_the_same(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of them there is depends on how PyYAML was built."""

    def outcome() -> object:
        try:
            return read_document(raw)
        except PolicyError as error:
            return str(error).partition(":")[0]

    fast = outcome()
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    assert outcome() == fast
