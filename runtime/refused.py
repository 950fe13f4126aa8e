"""A refusal on its way out of several functions: raised inside a module, and a value again at its edge."""

from __future__ import annotations

from typing import TypeVar

from policy.refusal import Refused

T = TypeVar("T")


class RefusalError(Exception):
    """Carries a refusal to the function that returns it; nobody outside sees it."""

    def __init__(self, refused: Refused) -> None:
        """Carry `refused`."""
        super().__init__(str(refused))
        self.refused = refused


def refuse(code: str, subject: object, detail: str) -> RefusalError:
    """A refusal to raise."""
    return RefusalError(Refused(code=code, subject=str(subject), detail=detail))


def unless_refused(result: T | Refused) -> T:
    """`result`, if it is no refusal.

    Raises:
        RefusalError: it is one.
    """
    if isinstance(result, Refused):
        raise RefusalError(result)
    return result
