"""The errors of ocispec: what an image, a name or a layer is refused for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ocispec.strictjson import JsonValue


class SpecError(Exception):
    """Something is not what the OCI specifications, or our stricter rules, say it must be.

    The message says what, which object, got and expected. It never holds advice: the command line
    adds that.
    """


class DigestMismatchError(SpecError):
    """Bytes do not hash to the digest, or do not have the size, that named them."""


class LimitError(SpecError):
    """An input is larger, deeper or longer than we read."""


class UnsupportedError(SpecError):
    """A well-formed input of a kind that we do not read (schema 1, an unknown compression)."""


class LayerError(SpecError):
    """A layer is refused for one of its members.

    `offset` is where the member's header begins in the uncompressed tar (None where no longer known),
    `member` its raw name as far as it could be read, `repair` what whoever makes the layer can do; the
    command line adds it to the message.
    """

    def __init__(self, message: str, *, offset: int | None, member: bytes, repair: str) -> None:
        super().__init__(message)
        self.offset = offset
        self.member = member
        self.repair = repair


class LayerLimitError(LayerError, LimitError):
    """A layer is refused because one of its members, or their sum, is beyond a limit."""


class SourceError(SpecError):
    """Where an image should come from cannot be read: no such file, no answer, no access."""


class MissingError(SourceError):
    """The source answers, and has no such image, manifest or blob."""


class RemoteError(SourceError):
    """A registry answered with an error.

    `status` is HTTP's. `code`, `message` and `detail` are the first entry of the answer's `errors` (distribution
    specification, "Error codes"), or "", "" and None where there is none.
    """

    def __init__(self, text: str, *, status: int, code: str = "", message: str = "", detail: JsonValue = None) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.message = message
        self.detail = detail


class RemoteMissingError(RemoteError, MissingError):
    """A registry answered 404: not there, or not for us to know."""
