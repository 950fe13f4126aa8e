"""What the supervisor makes before it forks, so that those it forks do not each make it again (`forked.py`).

Nothing here is open: no connection, file or thread crosses a fork. And nothing here is a secret that one process alone
may know: the settings are known to all, and the rest is made from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.app import connections_of, make_app
from registry.catalogue.database import Catalogue
from registry.judge.process import CONNECTIONS

if TYPE_CHECKING:
    from flask import Flask

    from registry.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The settings; the application, without what its endpoints work with; the catalogue of web and judge."""

    settings: Settings
    app: Flask
    web: Catalogue
    judge: Catalogue


def prepare(settings: Settings, before: Prepared | None = None) -> Prepared:
    """Make it for these settings; what depends on none is taken from what was made `before`.

    Raises:
        CatalogueError: the database cannot be used.
    """
    return Prepared(
        settings=settings,
        app=before.app if before is not None else _application(),
        web=_used(Catalogue(settings.catalogue_url, connections=connections_of(settings))),
        judge=_used(Catalogue(settings.catalogue_url, connections=CONNECTIONS)),
    )


def _application() -> Flask:
    app = make_app()
    # Nobody's address: all patterns are compiled on the way to that.
    app.url_map.bind("localhost").test("/v2/team/app/none")
    return app


def _used(catalogue: Catalogue) -> Catalogue:
    """The same, once its driver is imported and its database known."""
    with catalogue.read():
        pass
    catalogue.close()
    return catalogue
