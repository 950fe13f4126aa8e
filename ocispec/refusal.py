"""What a registry says of a request that it refuses (distribution specification, "Error Codes")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ocispec import fields
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue, parse_object

MAX_ERRORS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The first error of an answer; all empty where its body is none that can be read."""

    code: str = ""
    message: str = ""
    detail: JsonValue = None

    def __str__(self) -> str:
        """For a message: a space, code and text; or nothing."""
        return f" {self.code}: {self.message}" if self.code or self.message else ""


def parse_refusal(raw: bytes, *, what: str) -> Refusal:
    """The first error of a body. An answer without a readable one is still that answer, so nothing is raised."""
    try:
        for item in fields.items(parse_object(raw, what=what), "errors", what=what, limit=MAX_ERRORS)[:1]:
            if isinstance(item, dict):
                return Refusal(
                    code=fields.text(item, "code", what=what, default=""),
                    message=fields.text(item, "message", what=what, default=""),
                    detail=item.get("detail"),
                )
    except SpecError:
        pass
    return Refusal()
