"""What is particular to each kind of statement: its subject and its predicate."""

from __future__ import annotations

from dataclasses import dataclass

from ocispec.digest import Digest
from ocispec.strictjson import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A statement to write. `digest` is None where it is about no artifact: then its own predicate is the subject."""

    name: str
    digest: Digest | None
    predicate: dict[str, JsonValue]
