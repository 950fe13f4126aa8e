"""When an index can be cleared: by its platform children, and only if no two of them match one host equally.

An index is judged by the platform that runs (S7): every child that a host could choose must be cleared, and the
one matcher of `ocispec.platform` must never have two to choose from. Attestation children (`unknown/unknown`) are
data: nobody starts them, and they do not keep their index from being cleared.
"""

from __future__ import annotations

from itertools import combinations

from ocispec.descriptor import MANIFEST_TYPES, Descriptor
from ocispec.manifest import Index
from policy.errors import TrustError


def check_index(index: Index) -> tuple[Descriptor, ...]:
    """The children of `index` that must be cleared, each once.

    Raises:
        TrustError: `index-ambiguous`: two match one host equally; `index-not-startable`: no platform child, one
            without a platform, or one that is no image manifest.
    """
    what = f"index {index.digest}"
    children = tuple({child.digest: child for child in index.platform_children}.values())
    if not children:
        raise TrustError("index-not-startable", what, "no child for any platform")
    for child in index.platform_children:
        if child.platform is None:
            raise TrustError("index-not-startable", what, f"child {child.digest} names no platform")
        if child.media_type not in MANIFEST_TYPES:
            raise TrustError("index-not-startable", what, f"child {child.digest} is a {child.media_type}")
    for one, other in combinations(index.platform_children, 2):
        if one.digest == other.digest or one.platform is None or other.platform is None:
            continue
        if one.platform.runs(other.platform) or other.platform.runs(one.platform):
            detail = f"children {one.digest} and {other.digest} match {one.platform} equally"
            raise TrustError("index-ambiguous", what, detail)
    return children
