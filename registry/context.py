"""What every request handler is given: settings, store, catalogue and the rest, made once in `create_app`.

Handlers ask `context()`, `caller()` and `source()`; nothing else of Flask's globals is used to pass things.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol, cast

from flask import current_app, g, request
from sqlalchemy import Connection

from ocispec.digest import Digest
from policy.model import State
from registry.access import Principal
from registry.audit import Audit, ReadLog
from registry.authenticate import Authenticator
from registry.catalogue.database import Catalogue
from registry.limits import Bodies
from registry.settings import Settings
from registry.store.interface import BlobStore

_EXTENSION: Final = "pratique"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The state of an image as a push is told of it, with the first reason and its sentence."""

    state: State
    reason: str
    message: str


class Judging(Protocol):
    """What the API asks of the judge; it must never slow an upload down."""

    def uploading(self, upload_id: str, growing_file: Path | None) -> None:
        """Bytes of a blob begin to arrive, in a file that can be followed, or nowhere yet."""

    def uploaded(self, upload_id: str, digest: Digest) -> None:
        """That session has become a blob; with "" as its id, a blob that arrived in one request."""

    def enqueue(self, conn: Connection, repository: str, digest: Digest) -> None:
        """Ask for a judgement of an image or index, in the transaction that stores it."""

    def wait(self, repository: str, digest: Digest, seconds: float) -> Standing | None:
        """The state of an image as soon as it has been judged; None if it was not, in that time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The registry as its handlers see it. `clock` gives aware times in UTC, in whole seconds."""

    settings: Settings
    store: BlobStore
    catalogue: Catalogue
    authenticator: Authenticator
    audit: Audit
    reads: ReadLog
    judging: Judging
    bodies: Bodies
    clock: Callable[[], datetime]


def install(app_extensions: dict[str, object], context: Context) -> None:
    """Give an application its context."""
    app_extensions[_EXTENSION] = context


def context() -> Context:
    """The context of the application that handles this request."""
    return cast("Context", current_app.extensions[_EXTENSION])


def caller() -> Principal:
    """Who this request comes from; set before any handler runs."""
    return cast("Principal", g.principal)


def source() -> str:
    """The address that this request comes from, for the audit."""
    return request.remote_addr or ""
