"""What goes with a refusal: it is counted for the audit, and whoever is known to nobody gets so many and no more."""

from __future__ import annotations

from typing import Final

from flask import g, request

from registry import errors
from registry.access import Principal
from registry.context import context, source
from registry.counted import Refusal

MAX_TEXT: Final = 255
"""Characters of a refusal's subject and reason; what is more makes no refusal another one."""


def refusing(error: errors.RegistryError) -> errors.RegistryError:
    """What this request is answered instead of `error`, or that: too many 401 to one address become a 429."""
    if isinstance(error, errors.UnauthorizedError) and not error.insufficient:
        try:
            context().rates.unknown(source())
        except errors.TooManyRequestsError as too_many:
            error = too_many
    if isinstance(error, errors.DeniedError | errors.TooManyRequestsError):
        _note(error)
    return error


def _note(error: errors.RegistryError) -> None:
    principal = g.get("principal")
    name = principal.name if isinstance(principal, Principal) else ""
    subject = f"{request.method} {request.path}"
    context().refusals.note(Refusal(name, source(), subject[:MAX_TEXT], str(error)[:MAX_TEXT]))
