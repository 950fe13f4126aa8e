"""Removing tags and manifests, with what goes with them and its records: for people and for the collector.

Who may do it, and whether anything needs what is to go, is the caller's to know; it holds the repository
(`catalogue.blobs.hold_repository`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from ocispec.digest import Digest
from registry.audit import Audit, Event
from registry.catalogue.locks import hold_alone
from registry.catalogue.manifests import let_go, own_artifacts, remove_manifest, touch_manifest
from registry.catalogue.tags import Tag, remove_tag, stop_serving, tags_of
from registry.publish import judgements_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Remover:
    """Who removes, when and why: what stands in the records; `why` is "" where nobody was asked for a reason."""

    audit: Audit
    principal: str
    source: str
    now: datetime
    why: str = ""

    def tag(self, conn: Connection, repository: str, tag: str) -> Tag | None:
        """Remove a tag and return what it was. What it pointed to stays for the collector's grace at least."""
        found = remove_tag(conn, repository, tag)
        if found is not None:
            touch_manifest(conn, repository, found.pushed, now=self.now)
            if found.served is not None:
                touch_manifest(conn, repository, found.served, now=self.now)
            self._record(conn, Event.TAG, f"{repository}:{tag}", str(found.pushed))
        return found

    def manifest(self, conn: Connection, repository: str, digest: Digest) -> bool:
        """Remove a manifest with its tags, and with what the registry itself says of it; False if it is not there."""
        hold_alone(conn, judgements_of(repository))
        let_go(conn, repository, digest, now=self.now)
        for doomed in (*own_artifacts(conn, repository, digest), digest):
            for tag in tags_of(conn, repository, doomed):
                self.tag(conn, repository, tag)
            for tag in stop_serving(conn, repository, doomed):
                self._record(conn, Event.SERVED, f"{repository}:{tag}", str(doomed))
            if not remove_manifest(conn, repository, doomed):
                return False
        self._record(conn, Event.DELETE, f"{repository}@{digest}", "manifest")
        return True

    def _record(self, conn: Connection, event: Event, subject: str, before: str) -> None:
        self.audit.append(
            conn, event, principal=self.principal, source=self.source, subject=subject, before=before, after=self.why
        )
