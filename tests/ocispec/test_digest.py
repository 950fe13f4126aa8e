"""Digests: one spelling, safe as a path, whatever is offered."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.digest import HEX_LENGTH, Digest
from ocispec.errors import SpecError

HEX = "0123456789abcdef" * 4


@given(st.sampled_from(sorted(HEX_LENGTH)), st.data())
def test_a_well_formed_digest_reads_back_as_itself(algorithm: str, data: st.DataObject) -> None:
    length = HEX_LENGTH[algorithm]
    encoded = data.draw(st.text("0123456789abcdef", min_size=length, max_size=length))
    assert str(Digest.parse(f"{algorithm}:{encoded}")) == f"{algorithm}:{encoded}"


@given(st.text())
def test_what_is_accepted_is_spelled_exactly_so_and_holds_no_path(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except SpecError:
        return
    assert str(digest) == text
    assert "/" not in text
    assert "." not in text


@given(st.binary(max_size=2000))
def test_a_digest_of_content_is_hashlibs(content: bytes) -> None:
    assert Digest.of(content).hex == hashlib.sha256(content).hexdigest()
    assert Digest.of(content, "sha512").hex == hashlib.sha512(content).hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        "sha256",
        "sha256:",
        ":" + HEX,
        HEX,
        "sha256:../../etc/passwd",
        "sha256:" + HEX[:-1],
        "sha256:" + HEX + "0",
        "sha256:" + HEX.upper(),
        "SHA256:" + HEX,
        "sha512:" + HEX,
        "md5:" + HEX[:32],
        "sha256:" + HEX[:-1] + "\n",
        "sha256:" + HEX + "\n",
        "sha256:" + HEX[:-1] + "٣",
        " sha256:" + HEX,
        "sha256:sha256:" + HEX,
        "sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564",
    ],
)
def test_r3_a_digest_of_another_grammar_never_becomes_a_path(text: str) -> None:
    with pytest.raises(SpecError, match="digest"):
        Digest.parse(text)


def test_an_unknown_algorithm_is_refused_for_content_too() -> None:
    with pytest.raises(SpecError, match="'md5' is not supported"):
        Digest.of(b"", "md5")


def test_digests_sort_and_hash_by_value() -> None:
    low, high = Digest("sha256", "0" * 64), Digest("sha256", "f" * 64)
    assert sorted({high, low, Digest("sha256", "0" * 64)}) == [low, high]
