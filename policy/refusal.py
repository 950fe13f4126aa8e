"""A refusal as a value: what a host says instead of starting something."""

from __future__ import annotations

from dataclasses import dataclass

from policy.errors import TrustError


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why something is not believed: a stable `code`, the object it is about, got and expected."""

    code: str
    subject: str
    detail: str

    @classmethod
    def of(cls, error: TrustError) -> Refused:
        """The refusal that `error` says."""
        return cls(code=error.code, subject=error.subject, detail=error.detail)

    def __str__(self) -> str:
        return f"{self.code}: {self.subject}: {self.detail}"
