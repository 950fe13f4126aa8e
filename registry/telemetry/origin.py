"""Which request the work at hand began with: in log lines, in spans, and on its way through the judge's queue."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

MAX_REQUEST: Final = 64
"""Characters of a request id."""

MAX_TRACE: Final = 55
"""Characters of a traceparent (W3C Trace Context, section 3.2)."""

REQUEST_ID: Final = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_REQUEST}}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Origin:
    """A request id, and the W3C traceparent of the span that asks; "" for none."""

    request: str = ""
    trace: str = ""


NONE: Final = Origin()

current: Final[ContextVar[Origin]] = ContextVar("origin", default=NONE)
"""The origin of what this thread does now."""


@contextmanager
def within(origin: Origin) -> Iterator[None]:
    """While the block runs, what is done has this origin."""
    token = current.set(origin)
    try:
        yield
    finally:
        current.reset(token)
