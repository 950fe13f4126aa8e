"""A policy as values: what load.py made of a document."""

from __future__ import annotations

from dataclasses import dataclass

from ocispec.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A whole policy; `digest` is of the document's exact bytes."""

    name: str
    version: int
    digest: Digest
