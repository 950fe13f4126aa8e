"""The one table of errors: which code and status each domain error is answered with.

Codes: distribution specification 1.1, "Error Codes"; a body is `{"errors": [{code, message, detail}]}`.
"""

from __future__ import annotations

import json
import logging
from typing import Final

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from ocispec.strictjson import JsonValue
from registry import errors
from registry.api.challenges import challenges
from registry.api.refusals import refusing

_log = logging.getLogger("pratique.registry")

TABLE: Final[tuple[tuple[type[errors.RegistryError], str, int], ...]] = (
    (errors.NameInvalidError, "NAME_INVALID", 400),
    (errors.NameUnknownError, "NAME_UNKNOWN", 404),
    (errors.DigestInvalidError, "DIGEST_INVALID", 400),
    (errors.BlobMismatchError, "DIGEST_INVALID", 400),
    (errors.SizeInvalidError, "SIZE_INVALID", 400),
    (errors.TooLargeError, "SIZE_INVALID", 413),
    (errors.BlobUnknownError, "BLOB_UNKNOWN", 404),
    (errors.UploadUnknownError, "BLOB_UPLOAD_UNKNOWN", 404),
    (errors.UploadOrderError, "BLOB_UPLOAD_INVALID", 416),
    (errors.UploadBusyError, "BLOB_UPLOAD_INVALID", 409),
    (errors.BodyCutOffError, "BLOB_UPLOAD_INVALID", 400),
    (errors.ManifestInvalidError, "MANIFEST_INVALID", 400),
    (errors.ManifestUnknownError, "MANIFEST_UNKNOWN", 404),
    (errors.ManifestBlobUnknownError, "MANIFEST_BLOB_UNKNOWN", 400),
    (errors.RangeInvalidError, "SIZE_INVALID", 416),
    (errors.UnauthorizedError, "UNAUTHORIZED", 401),
    (errors.DeniedError, "DENIED", 403),
    (errors.InUseError, "DENIED", 409),
    (errors.UnsupportedRequestError, "UNSUPPORTED", 400),
    (errors.PreconditionError, "DENIED", 412),
    (errors.AddressTooLongError, "UNSUPPORTED", 414),
    (errors.CodingError, "UNSUPPORTED", 415),
    (errors.TooManyRequestsError, "TOOMANYREQUESTS", 429),
    (errors.AccountError, "ACCOUNT_INVALID", 400),
    (errors.RuleError, "RULE_INVALID", 400),
    (errors.StorageFullError, "STORAGE_FULL", 507),
    (errors.StorageError, "STORAGE_UNAVAILABLE", 503),
    (errors.UpstreamError, "UPSTREAM_UNAVAILABLE", 503),
    (errors.CatalogueError, "CATALOGUE_UNAVAILABLE", 503),
    (errors.CorruptError, "CONTENT_CORRUPT", 500),
    (errors.RegistryError, "UNKNOWN", 500),
)
"""The first row whose class fits counts."""

_OUR_FAULT: Final = 500
_NOT_NOW: Final = 503

RETRY_SECONDS: Final = 2
"""What a client is told to wait when store or catalogue cannot be used: they are looked for again at each request."""


def error_response(code: str, message: str, status: int, detail: JsonValue = None) -> Response:
    """An error in the form that the specification gives it."""
    error: dict[str, JsonValue] = {"code": code, "message": message}
    if detail is not None:
        error["detail"] = detail
    return Response(json.dumps({"errors": [error]}), status=status, mimetype="application/json")


def register(app: Flask) -> None:
    """Render all errors of an application by the table."""
    app.register_error_handler(errors.RegistryError, _domain_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected_error)


def _domain_error(error: errors.RegistryError) -> Response:
    error = refusing(error)
    code, status = next((code, status) for kind, code, status in TABLE if isinstance(error, kind))
    if status >= _OUR_FAULT:
        _log.error("%s %s: %s", request.method, request.path, error)
    detail = error.detail if isinstance(error, errors.RequestError) else None
    response = error_response(code, str(error), status, detail)
    if isinstance(error, errors.UnauthorizedError):
        for challenge in challenges(error):
            response.headers.add("WWW-Authenticate", challenge)
    if isinstance(error, errors.UploadOrderError):
        response.headers["Range"] = f"0-{max(error.size - 1, 0)}"
        if error.location:
            response.headers["Location"] = error.location
    if isinstance(error, errors.TooManyRequestsError):
        response.headers["Retry-After"] = str(error.retry_after)
    if status == _NOT_NOW:
        response.headers["Retry-After"] = str(RETRY_SECONDS)
    if isinstance(error, errors.RangeInvalidError):
        response.headers["Content-Range"] = f"bytes */{error.size}"
    return response


def _http_error(error: HTTPException) -> Response:
    status = error.code or _OUR_FAULT
    response = error_response("UNSUPPORTED", error.name, status)
    for name, value in error.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response


def _unexpected_error(error: Exception) -> Response:
    # What an attacker can provoke here is a bug; what it says belongs into the log, not into the answer.
    _log.exception("%s %s", request.method, request.path, exc_info=error)
    return error_response("UNKNOWN", "the registry failed; its log says how", _OUR_FAULT)
