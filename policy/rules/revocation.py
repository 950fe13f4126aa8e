"""Revocation: what officers said may no longer run. Nothing waives it, and one match is enough.

A revoked image takes with it what stands on it: every approval of it that is at hand is looked at, and every chain
ID, so that an image is met although its list names only its base.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ocispec.digest import Digest
from policy.errors import PolicyError
from policy.globs import Glob
from policy.model import LayerFacts, Signed, Verdict
from policy.rules.interface import deny, split_purl, unknown
from policy.statements import ImageApproval, RevocationList

RULE = "revocation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocable:
    """What of one image a list may name. `components` are purls."""

    manifest: Digest
    config: Digest
    root_index: Digest
    layers: Sequence[LayerFacts]
    components: Iterable[str]
    parents: Iterable[Signed[ImageApproval]]


def revocation_verdicts(image: Revocable, revocations: RevocationList) -> Iterable[Verdict]:
    """Every way in which `revocations` names `image`."""
    why = f"revocation list {revocations.number}: {revocations.reason}"
    digests = {*revocations.digests, *revocations.layers}
    for what, digest in (
        ("the image", image.manifest),
        ("its config", image.config),
        ("its root index", image.root_index),
    ):
        if digest in digests:
            yield deny(RULE, "revoked", str(digest), f"{what} {digest} is revoked; {why}")
    yield from _layers(image, digests, why)
    yield from _parents(image, digests, why)
    yield from _components(image, revocations, why)


def _layers(image: Revocable, digests: set[Digest], why: str) -> Iterable[Verdict]:
    for index, layer in enumerate(image.layers):
        if layer.diff_id in digests:
            message = f"layer {index}, {layer.diff_id}, is revoked; {why}"
            yield deny(RULE, "revoked", str(layer.diff_id), message, layer=index)
        if layer.chain_id in digests and layer.chain_id != layer.diff_id:
            message = f"layers 0 to {index}, chain ID {layer.chain_id}, are revoked; {why}"
            yield deny(RULE, "revoked", str(layer.chain_id), message, layer=index)


def _parents(image: Revocable, digests: set[Digest], why: str) -> Iterable[Verdict]:
    diff_ids = tuple(layer.diff_id for layer in image.layers)
    for signed in image.parents:
        approval = signed.statement
        named = next((digest for digest in (approval.manifest, approval.config) if digest in digests), None)
        begins = bool(approval.diff_ids) and approval.diff_ids == diff_ids[: len(approval.diff_ids)]
        if named is not None and begins and approval.config != image.config:
            message = f"it stands on the image {approval.manifest}, which is revoked; {why}"
            yield deny(RULE, "revoked", str(named), message)


def _components(image: Revocable, revocations: RevocationList, why: str) -> Iterable[Verdict]:
    globs: list[Glob] = []
    for pattern in revocations.components:
        try:
            globs.append(Glob.compile(pattern))
        except PolicyError as error:
            yield unknown(RULE, "revocation-unreadable", pattern[:200], f"{error}; {why}")
    if not globs:
        return
    for purl in image.components:
        if any(glob.matches(form) for form in (purl, *split_purl(purl)) for glob in globs):
            yield deny(RULE, "revoked", purl, f"the component {purl} is revoked; {why}")
