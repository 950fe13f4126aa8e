"""References: no default registry, each part checked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.reference import Reference, check_registry, check_repository, check_tag

DIGEST = Digest.of(b"x")

_component = st.from_regex(r"[a-z0-9]+(?:(?:\.|_|__|-{1,3})[a-z0-9]+){0,2}", fullmatch=True)
_repository = st.lists(_component, min_size=1, max_size=4).map("/".join).filter(lambda name: len(name) < 200)
_registry = st.sampled_from(["localhost", "localhost:5000", "registry.example", "10.0.0.1:5000", "[::1]:5000", "a-b.c"])
_tag = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", fullmatch=True)


@given(_registry, _repository, st.none() | _tag, st.none() | st.just(DIGEST))
def test_a_reference_reads_back_as_itself(
    registry: str, repository: str, tag: str | None, digest: Digest | None
) -> None:
    reference = Reference(registry=registry, repository=repository, tag=tag, digest=digest)
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(f"docker://{reference}") == reference


@given(st.text())
def test_what_is_accepted_prints_as_what_was_read(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except SpecError:
        return
    assert str(reference) == text.removeprefix("docker://")
    assert ".." not in reference.repository.split("/")


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("h.example/a", "latest"),
        ("h.example/a:1", "1"),
        (f"h.example/a@{DIGEST}", str(DIGEST)),
        (f"h.example/a:1@{DIGEST}", str(DIGEST)),
    ],
)
def test_a_digest_is_asked_for_before_a_tag(text: str, target: str) -> None:
    assert Reference.parse(text).target == target


def test_pinning_keeps_the_tag_for_people() -> None:
    pinned = Reference.parse("h.example/a/b:1").at(DIGEST)
    assert str(pinned) == f"h.example/a/b:1@{DIGEST}"
    assert pinned.name == "h.example/a/b"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "debian",
        "library/debian:12",
        "h.example",
        "h.example/",
        "h.example/A",
        "h.example/a//b",
        "h.example/a/../b",
        "h.example/a:",
        "h.example/a:b:c",
        "h.example/a:.x",
        "h.example/a:" + "x" * 129,
        "h.example/a@sha256:00",
        f"h.example/a@{DIGEST}@{DIGEST}",
        "h..example/a",
        "-h.example/a",
        "h.example-/a",
        "h.example:0/a",
        "h.example:65536/a",
        "h.example:99999/a",
        "user@h.example/a",
        "http://h.example/a",
        "h.example/a\n",
        "h.exa mple/a",
        "h.example/" + "a" * 256,
        ("x" * 64) + ".example/a",
        "[::1/a",
    ],
)
def test_a_reference_that_could_be_read_otherwise_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        Reference.parse(text)


def test_parts_are_checked_however_a_reference_is_made() -> None:
    with pytest.raises(SpecError, match="repository"):
        Reference(registry="h.example", repository="../etc")
    with pytest.raises(SpecError, match="registry"):
        Reference(registry="h.example/x", repository="a")
    with pytest.raises(SpecError, match="tag"):
        Reference(registry="h.example", repository="a", tag="a/b")


def test_the_checks_give_back_what_they_accept() -> None:
    assert check_registry("[fe80::1]:443") == "[fe80::1]:443"
    assert check_repository("a/b__c.d") == "a/b__c.d"
    assert check_tag("v1.0_x-y") == "v1.0_x-y"
