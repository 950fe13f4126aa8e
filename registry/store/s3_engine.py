"""Requests to an S3-compatible engine: one seam, `Engine`, and boto3 behind it.

Names of operations, parameters and error codes are those of the S3 API reference. botocore's standard mode decides
what is tried again (connection errors, 500s, throttling); the deadline ends it, at whatever it is waiting then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.utils import get_environ_proxies
from urllib3.exceptions import HTTPError

from registry.errors import StorageError, StorageFullError
from registry.settings_storage import S3Settings
from registry.store.s3_time import Allowance, BoundedSession, seconds_left

ATTEMPTS: Final = 4
"""How often one request is sent at most."""

POOL: Final = 64
"""Connections to the engine that are kept open."""

_FULL: Final = frozenset({"507", "InsufficientStorage", "QuotaExceeded", "EntityTooLarge", "XMinioStorageFull"})

_EXPLAINED: Final = {
    "NoSuchBucket": "the bucket {bucket} does not exist",
    "InvalidAccessKeyId": "the engine does not know the access key",
    "SignatureDoesNotMatch": "the engine does not accept the access key with this secret key",
    "AuthorizationHeaderMalformed": "the engine is of another region than {region}",
    "PermanentRedirect": "the bucket {bucket} is at another address, or in another region than {region}",
    "301": "the bucket {bucket} is at another address, or in another region than {region}",
    "AccessDenied": "the access key may not {operation} in the bucket {bucket}",
    "AllAccessDisabled": "the access key may not {operation} in the bucket {bucket}",
    "403": "the access key may not {operation} in the bucket {bucket}, or is wrong",
    "RequestTimeTooSkewed": "the clocks of the engine and of this machine differ by too much",
    "RequestExpired": "the clocks of the engine and of this machine differ by too much",
    "ExpiredToken": "the credentials of the environment are past their end",
    "InvalidToken": "the engine does not accept the credentials of the environment",
    "NotImplemented": "the engine does not know {operation} as it is set (storage.s3.encryption: {encryption})",
    "SlowDown": "the engine has too much to do",
}
"""What an operator can do something about."""


class EngineError(StorageError):
    """The engine answered with an error: its `code` as in the S3 API reference, the status where it names none."""

    def __init__(self, message: str, *, code: str) -> None:
        """Keep the code, for who can go on."""
        super().__init__(message)
        self.code = code


class Engine(Protocol):
    """An engine's S3 API, for one bucket; for many threads."""

    def call(
        self, operation: str, parameters: Mapping[str, object], *, size: int = 0, patient: bool = False
    ) -> dict[str, Any]:
        """Send one request that moves `size` bytes, `patient` if the engine is silent while it works.

        `operation` and `parameters` are as boto3 has them, but for the bucket.

        Raises:
            EngineError: the engine refused.
            StorageFullError: it has no room.
            StorageError: it could not be asked, or did not answer in time.
        """

    def presigned(self, key: str, *, seconds: int) -> str:
        """An address at which GET gives an object for so many seconds, to whoever knows it."""

    def allowance(self, size: int = 0) -> Allowance:
        """The time for something that moves `size` bytes."""


class BotoEngine:
    """An `Engine` by boto3."""

    def __init__(self, settings: S3Settings) -> None:
        """Make the client; nothing is sent yet, but for asking the machine for credentials.

        Raises:
            StorageError: the settings make no client.
        """
        self._settings = settings
        self._names = {"bucket": settings.bucket, "region": settings.region, "encryption": settings.encryption}
        with self._translated("store", "connect"):
            self._client = self._make_client(settings.endpoint)
            outside = settings.redirect_endpoint
            self._outside = self._make_client(outside) if outside else self._client
        self._session = BoundedSession(
            verify=str(settings.ca_file) if settings.ca_file is not None else True,
            proxies=get_environ_proxies(self._client.meta.endpoint_url),
            timeout=(min(10, settings.timeout), settings.timeout),
            max_pool_connections=POOL,
        )
        events = self._client.meta.events
        events.register("before-send.s3", self._send)
        events.register_first("needs-retry.s3", _in_time)

    def call(
        self, operation: str, parameters: Mapping[str, object], *, size: int = 0, patient: bool = False
    ) -> dict[str, Any]:
        """See `Engine`."""
        what = str(parameters.get("Key") or parameters.get("Prefix") or f"bucket {self._settings.bucket}")
        with self._translated(what, operation), self.allowance(size).running(patient=patient):
            answer: dict[str, Any] = getattr(self._client, operation)(Bucket=self._settings.bucket, **parameters)
            return answer

    def presigned(self, key: str, *, seconds: int) -> str:
        """See `Engine`."""
        at = {"Bucket": self._settings.bucket, "Key": key}
        with self._translated(key, "presign"):
            return str(self._outside.generate_presigned_url("get_object", Params=at, ExpiresIn=seconds))

    def allowance(self, size: int = 0) -> Allowance:
        """See `Engine`."""
        return Allowance(self._settings.deadline + size / self._settings.minimum_rate)

    def _make_client(self, endpoint: str) -> Any:
        settings = self._settings
        return boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint or None,
            region_name=settings.region,
            aws_access_key_id=settings.access_key or None,
            aws_secret_access_key=settings.secret_key or None,
            config=Config(
                signature_version="s3v4",
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                s3={"addressing_style": settings.addressing},
                # Other engines do not know the newer trailing checksums, and our digests check more than they do.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def _send(self, request: Any, **_: object) -> Any:
        """What botocore asks before it sends a request by itself."""
        return self._session.send(request)

    @contextmanager
    def _translated(self, what: str, operation: str) -> Iterator[None]:
        with translated(what):
            try:
                yield
            except ClientError as error:
                code = _code(error)
                if code in _FULL:
                    raise StorageFullError(f"{what}: no room left in the store ({code})") from error
                problem = _EXPLAINED.get(code, "the engine answered {code} to {operation}")
                said = problem.format(code=code or "an error", operation=operation.replace("_", " "), **self._names)
                raise EngineError(f"{what}: {said}", code=code) from error


def _in_time(attempts: int, **_: object) -> bool | None:
    """False, so that nothing is tried again, where the pause before it could be longer than what is left of the time.

    Standard mode waits up to 2 ** (attempts - 1) seconds (botocore/retries/standard.py, ExponentialBackoff).
    """
    return False if seconds_left() <= 2 ** (attempts - 1) else None


@contextmanager
def translated(what: str) -> Iterator[None]:
    """The one place where errors on the way to an engine become ours.

    Raises:
        StorageError: as above.
    """
    try:
        yield
    except NoCredentialsError as error:
        raise StorageError(f"{what}: no credentials in the settings, in the environment, or of this machine") from error
    except (BotoCoreError, HTTPError, OSError, ValueError) as error:
        raise StorageError(f"{what}: {' '.join(str(error).split())[:300]}") from error


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))[:64]
