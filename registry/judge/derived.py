"""What the judge makes of images and keeps in the store's derived space, by name; all of it can be made again."""

from __future__ import annotations

from ocispec.digest import Digest
from ocispec.erofs import FORMAT_VERSION
from ocispec.layer import READER_VERSION
from registry import assemble
from registry.judge import layers
from registry.store.keys import DerivedKey


def assembly_key(chain: Digest) -> DerivedKey:
    """What an image's layers come to, by their chain ID."""
    return DerivedKey(chain, f"assembly-v{assemble.VERSION}-{layers.VERSION}-{FORMAT_VERSION}")


def root_index_key(chain: Digest) -> DerivedKey:
    """An image's root index, by the chain ID of its layers."""
    return DerivedKey(chain, f"root-index-v{READER_VERSION}-{FORMAT_VERSION}")


def report_key(manifest: Digest) -> DerivedKey:
    """The newest report on an image, for people to read."""
    return DerivedKey(manifest, "report-v1")


def evidence_key(digest: Digest) -> DerivedKey:
    """The evidence of a Decision, by its own digest."""
    return DerivedKey(digest, "evidence-v1")
