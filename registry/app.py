"""The web application: what the processes of `serve.py` run, and tests call without them.

`create_app` is given its parts, so that a test can put any of them in; `open_app` makes them from the settings.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from flask import Flask, Response, current_app, g, request
from sqlalchemy import Connection

from registry.api import base, blobs, catalog, control, errors, health, manifests, referrers, tags, token, uploads
from registry.api.base import API_VERSION, is_open, require_principal
from registry.api.body import check_coding, drain
from registry.artifacts import ServedArtifacts
from registry.audit import Audit, Event
from registry.catalogue.database import Catalogue
from registry.collect.leases import Leases
from registry.context import Context, context, install, source
from registry.counted import CountedLog
from registry.errors import AddressTooLongError
from registry.identity.open import IdentityParts, open_identity
from registry.judge.queue import JudgeQueue
from registry.limits import Bodies, Shares
from registry.mirror.asking import Asking
from registry.mirror.mirrors import Mirrors
from registry.placement import Placement
from registry.places import Places
from registry.proven import ProvenManifests
from registry.rates import Rates
from registry.readiness import Readiness, checks_of
from registry.reads import ReadLog
from registry.settings import Settings
from registry.store.interface import BlobStore
from registry.store.open import open_store
from registry.telemetry.environ import ENDPOINT

if TYPE_CHECKING:
    from registry.prepared import Prepared

MAX_PATH: Final = 4096
"""Characters of a request's path and query together."""

BLUEPRINTS: Final = (
    base.blueprint,
    blobs.blueprint,
    uploads.blueprint,
    manifests.blueprint,
    tags.blueprint,
    referrers.blueprint,
    catalog.blueprint,
    health.blueprint,
    token.blueprint,
    *control.BLUEPRINTS,
)
"""All endpoints; those without a need for credentials are in `health`."""


def utc_now() -> datetime:
    """The time, in UTC and whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def create_app(
    settings: Settings,
    *,
    store: BlobStore,
    catalogue: Catalogue,
    identity: IdentityParts,
    judge: JudgeQueue,
    clock: Callable[[], datetime] = utc_now,
    leases: Leases | None = None,
    app: Flask | None = None,
) -> Flask:
    """The application over these parts, `app` if one was made without any; nothing is opened or started."""
    app = app if app is not None else make_app()
    parts = make_context(
        settings, store=store, catalogue=catalogue, identity=identity, judge=judge, clock=clock, leases=leases
    )
    install(app.extensions, parts)
    return app


def make_app() -> Flask:
    """The application with all its endpoints, without what they work with."""
    app = Flask("registry", static_folder=None)
    app.url_map.merge_slashes = False
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    errors.register(app)
    app.before_request(_check_request)
    app.after_request(_finish)
    return app


def make_context(
    settings: Settings,
    *,
    store: BlobStore,
    catalogue: Catalogue,
    identity: IdentityParts,
    judge: JudgeQueue,
    clock: Callable[[], datetime] = utc_now,
    leases: Leases | None = None,
) -> Context:
    """What the handlers of an application over these parts are given."""
    audit = Audit(clock)
    return Context(
        settings=settings,
        store=store,
        catalogue=catalogue,
        authenticator=identity.authenticator,
        identity=identity,
        audit=audit,
        reads=ReadLog(audit, clock, _writer(catalogue)),
        judge=judge,
        bodies=Bodies(settings.http.bodies_per_account, settings.http.bodies),
        downloads=Shares("downloads", settings.http.downloads, settings.http.downloads // 2),
        placement=Placement(),
        rates=Rates(settings.rates),
        refusals=CountedLog(catalogue, audit, clock, Event.REFUSED),
        readiness=Readiness(checks_of(settings, store, catalogue), Places(settings).draining),
        artifacts=ServedArtifacts(clock),
        proven=ProvenManifests(),
        asking=Asking(Mirrors(settings.mirrors), catalogue, clock, waiting=max(settings.http.threads // 4, 1)),
        leases=leases or Leases(catalogue, clock),
        clock=clock,
    )


def connections_of(settings: Settings) -> int:
    """How many connections to the catalogue an application needs at most."""
    return settings.http.threads + 4


def open_app(settings: Settings, prepared: Prepared | None = None) -> Flask:
    """The application over the store and catalogue that the settings name, with what was `prepared` for it.

    Raises:
        CatalogueError, StorageError, SettingsError: one of them cannot be used, or of who somebody is.
    """
    if prepared is not None:
        catalogue = prepared.web
    else:
        catalogue = Catalogue(settings.catalogue_url, connections=connections_of(settings))
    return create_app(
        settings,
        store=open_store(settings),
        catalogue=catalogue,
        identity=open_identity(settings, catalogue, utc_now),
        judge=JudgeQueue(catalogue, settings.judge_socket, utc_now),
        app=prepared.app if prepared is not None else None,
    )


def _check_request() -> None:
    """Before any handler: nothing endless, not too much, and nobody unknown."""
    request.environ[ENDPOINT] = request.endpoint or "none"
    if len(request.path) + len(request.query_string) > MAX_PATH:
        raise AddressTooLongError(f"path and query: expected at most {MAX_PATH} characters")
    rates = context().rates
    if rates.counts_addresses and request.blueprint != health.blueprint.name:
        rates.address(source())
    check_coding()
    if not is_open(current_app.view_functions.get(request.endpoint or "")):
        require_principal()


def _finish(response: Response) -> Response:
    # Whoever is not known is not listened to: reading on takes a thread.
    unknown = response.status_code == 401 or (response.status_code == 429 and g.get("principal") is None)
    if response.status_code >= 400 and not unknown and request.method in {"POST", "PUT", "PATCH"}:
        drain()
    response.headers["X-Content-Type-Options"] = "nosniff"
    if request.path.startswith("/v2/"):
        response.headers.update(API_VERSION)
    return response


def _writer(catalogue: Catalogue) -> Callable[[Callable[[Connection], None]], None]:
    def write(change: Callable[[Connection], None]) -> None:
        with catalogue.write(stamped=False) as conn:
            change(conn)

    return write
