"""The errors of the registry: what broke, or was asked for wrongly. `api/errors.py` gives each its HTTP answer."""

from __future__ import annotations


class RegistryError(Exception):
    """Something in the registry failed or was refused; says what, which object, got and expected."""


class SettingsError(RegistryError):
    """The settings file cannot be used: names the key, what stands there and what was expected."""


class StorageError(RegistryError):
    """The store could not read or write: the engine failed. Nothing half-written is visible afterwards."""


class StorageFullError(StorageError):
    """The store has no room left for what was to be written."""


class BlobUnknownError(RegistryError):
    """No such blob, to whoever asked."""


class BlobMismatchError(RegistryError):
    """The bytes that arrived do not have the digest or the size that was promised; they were dropped."""


class UploadUnknownError(RegistryError):
    """No such upload session: never begun, finished, cancelled, expired, or of another repository."""


class UploadOrderError(RegistryError):
    """A chunk does not continue where the upload stands; `size` is the number of bytes received so far."""

    def __init__(self, message: str, *, size: int) -> None:
        """Keep how far the upload has come, for the answer's Range header."""
        super().__init__(message)
        self.size = size


class CatalogueError(RegistryError):
    """The catalogue database failed, or holds what it must not."""


class AccountError(RegistryError):
    """An account cannot be made as asked."""


class UploadBusyError(RegistryError):
    """Another request is sending to this upload session."""
