"""R9: an image with a non-distributable layer is never cleared, whatever is known of that layer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocispec.descriptor import FOREIGN_TYPES, MediaType
from ocispec.manifest import Manifest, parse_manifest
from policy.model import State
from tests.support.bench import Bench
from tests.support.images import BuiltImage, image

REPOSITORY = "team/app"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    made.publish()
    yield made
    made.close()


def as_foreign(built: BuiltImage, media_type: str) -> BuiltImage:
    """The same image, with its last layer described as one that lies elsewhere."""
    members = json.loads(built.manifest.raw)
    members["layers"][-1] |= {"mediaType": media_type, "urls": ["https://store.example.com/layer"]}
    parsed = parse_manifest(json.dumps(members).encode(), built.manifest.media_type)
    assert isinstance(parsed, Manifest)
    return dataclasses.replace(built, manifest=parsed)


@pytest.mark.parametrize("media_type", sorted(FOREIGN_TYPES))
def test_r9_a_layer_that_lies_elsewhere_is_not_cleared_even_if_its_blob_is_here(
    bench: Bench, media_type: MediaType
) -> None:
    built = image([{"bin/": b"", "bin/sh": b"#!"}])
    foreign = as_foreign(built, str(media_type))
    # The layer is read, approved, and cleared as an ordinary one: nothing but the media type is against the other.
    bench.push(REPOSITORY, built, "1")
    bench.approve(REPOSITORY, built, "base", bench.ring.alice, bench.ring.bob)
    bench.settle()
    assert bench.state(REPOSITORY, built.digest) is State.CLEARED
    bench.push(REPOSITORY, foreign, "1")
    bench.approve(REPOSITORY, foreign, "base", bench.ring.alice, bench.ring.bob)
    bench.settle()
    row = bench.image(REPOSITORY, foreign.digest)
    assert (row.state, row.reason) == ("denied", "config-refused")
    assert "is not read" in row.message
    assert bench.tag(REPOSITORY, "1").served == built.digest
