"""The errors of the registry: what broke, or was asked for wrongly. `api/errors.py` gives each its HTTP answer."""

from __future__ import annotations

from ocispec.strictjson import JsonValue


class RegistryError(Exception):
    """Something in the registry failed or was refused; says what, which object, got and expected."""


class SettingsError(RegistryError):
    """The settings cannot be used: names the key, what stands there and what was expected, for each problem a line."""

    def __init__(self, *problems: str) -> None:
        """Say the first problem, and that there are more; `problems` has them all."""
        more = f" (and {len(problems) - 1} more: pratique serve --check)" if len(problems) > 1 else ""
        super().__init__(problems[0] + more)
        self.problems = problems


class BackupError(RegistryError):
    """A backup cannot be made, read or restored: says which file, and what is wrong with it or with the place."""


class StorageError(RegistryError):
    """The store could not read or write: the engine failed. Nothing half-written is visible afterwards."""


class StorageFullError(StorageError):
    """The store has no room left for what was to be written."""


class BlobBusyError(StorageError):
    """The bytes of a digest are being deleted right now, so they cannot be stored or recorded yet."""


class LeaseLostError(StorageError):
    """Storing took longer than its lease, and the collector has meanwhile come: what was stored does not count."""


class BlobUnknownError(RegistryError):
    """No such blob, to whoever asked."""


class BlobMismatchError(RegistryError):
    """The bytes that arrived do not have the digest or the size that was promised; they were dropped."""


class UploadUnknownError(RegistryError):
    """No such upload session: never begun, finished, cancelled, expired, or of another repository."""


class UploadOrderError(RegistryError):
    """A chunk does not continue where the upload stands.

    `size` is the number of bytes received so far, `location` where the session is.
    """

    def __init__(self, message: str, *, size: int, location: str = "") -> None:
        """Keep how far the upload has come, for the answer's headers."""
        super().__init__(message)
        self.size = size
        self.location = location


class UpstreamError(RegistryError):
    """Another registry, of which this one has a copy, cannot be asked, or sends what is not taken."""


class CatalogueError(RegistryError):
    """The catalogue database failed, or holds what it must not."""


class CatalogueConflictError(CatalogueError):
    """The database undid a transaction because of another one; done again, it may succeed."""


class CatalogueLostError(CatalogueError):
    """The connection to the database was lost; a transaction that was just being committed may count."""


class CollectionLostError(RegistryError):
    """A run of the collector is not, or not any more, the one that goes on."""


class AccountError(RegistryError):
    """An account cannot be made as asked."""


class RuleError(RegistryError):
    """A rule cannot be as asked."""


class TokenError(RegistryError):
    """A bearer token is not believed."""


class TokenEndedError(TokenError):
    """A bearer token was good, and its time is over: its client asks for the next one."""


class UploadBusyError(RegistryError):
    """Another request is sending to this upload session."""


class RequestError(RegistryError):
    """A request was refused; `detail` is more than the message says, as JSON."""

    def __init__(self, message: str, *, detail: JsonValue = None) -> None:
        """Keep what stands in the answer's `detail`."""
        super().__init__(message)
        self.detail = detail


class NameInvalidError(RequestError):
    """The path names no possible repository."""


class NameUnknownError(RequestError):
    """No such repository, to whoever asked."""


class DigestInvalidError(RequestError):
    """A digest is malformed, or is not the one of what was sent."""


class SizeInvalidError(RequestError):
    """Another number of bytes came than was promised."""


class TooLargeError(RequestError):
    """More was sent than is accepted."""


class ManifestInvalidError(RequestError):
    """A manifest is not what it says, or can be read in two ways (R1)."""


class ManifestUnknownError(RequestError):
    """No such manifest, to whoever asked."""


class ManifestBlobUnknownError(RequestError):
    """A manifest refers to a blob or manifest that is not in its repository."""


class UnauthorizedError(RequestError):
    """No credentials, none that we know, or (`insufficient`) a token that was asked for less than is needed."""

    def __init__(self, message: str, *, detail: JsonValue = None, insufficient: bool = False) -> None:
        """Keep which of them it is, for the answer's challenge."""
        super().__init__(message, detail=detail)
        self.insufficient = insufficient


class DeniedError(RequestError):
    """Whoever asked may not do or have that."""


class QuotaError(DeniedError):
    """It would be more than a quota allows; `detail` has the rule, the limit, and what it would come to."""


class ImmutableError(DeniedError):
    """A rule says that the tag is neither moved nor deleted."""


class InUseError(RequestError):
    """What was to be deleted is needed by a manifest of the same repository."""


class UnsupportedRequestError(RequestError):
    """The request asks for something that the registry does not do."""


class UnstorableError(UnsupportedRequestError):
    """A text or number that was sent cannot be kept by every database: a NUL, a lone surrogate, too long, too large."""


class CodingError(RequestError):
    """A body is coded, so that others may read other bytes in it than we do."""


class AddressTooLongError(RequestError):
    """The path and query of a request are longer than is accepted, or name too many tags."""


class PreconditionError(RequestError):
    """A conditional request (RFC 9110 section 13) found another content than its client expects."""


class TooManyRequestsError(RequestError):
    """One client does too much at a time; `retry_after` is after how many seconds it may try again."""

    def __init__(self, message: str, *, detail: JsonValue = None, retry_after: int = 1) -> None:
        """Keep the seconds, for the answer's Retry-After header."""
        super().__init__(message, detail=detail)
        self.retry_after = retry_after


class RangeInvalidError(RequestError):
    """The asked range is outside of the blob; `size` is the blob's."""

    def __init__(self, message: str, *, size: int) -> None:
        """Keep the size, for the answer's Content-Range header."""
        super().__init__(message)
        self.size = size


class BodyCutOffError(RequestError):
    """A body ended before its announced length, or came too slowly."""


class CorruptError(RegistryError):
    """Stored bytes are not what their digest says; they are not served (R2)."""
