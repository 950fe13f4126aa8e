"""The application over a catalogue and store of its own, filled for two tenants, with accounts of every kind.

`own/app` is where most accounts may do something; `foreign/app` is another tenant's, and none of theirs. Both hold an
image that is served, one in quarantine, an artifact about the first, and a Decision with evidence and report; the
second holds one image more. Nothing judges or signs; the application is called as a server would, without a socket
between.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from flask import Flask
from sqlalchemy import delete, insert, select, update
from werkzeug.test import TestResponse

from ocispec.descriptor import Descriptor, MediaType
from ocispec.digest import Digest
from policy import codec
from policy.model import State
from registry.access import Grant, Role
from registry.app import open_app
from registry.audit import Record, read
from registry.authenticate import hash_secret
from registry.catalogue import schema
from registry.catalogue.accounts import Account, Kind, add_account
from registry.catalogue.database import Catalogue
from registry.context import Context, context_of
from registry.judge.derived import evidence_key, report_key
from registry.places import Places
from registry.prepare import prepare
from registry.settings import parse
from tests.support import judging, trust
from tests.support.images import BuiltImage, image
from tests.support.trust import Keyring

NAME: Final = "registry.test"
OWN, OTHER, FOREIGN = "own/app", "own/other", "foreign/app"
SERVED = image([{"served": b"1"}])
WAITING = image([{"waiting": b"1"}])
FRESH = image([{"fresh": b"1"}])
"""Its blobs are there, and it is not."""

ONLY = image([{"only": b"1"}])
"""Is in `foreign/app` alone."""

SPARE = b"a blob that nothing needs"
CONTENT = b"a blob that is not there yet"
_SBOM = b"sbom"
_EMPTY = b"{}"


def artifact(subject: Descriptor | None, kind: str = "application/x-sbom") -> bytes:
    """An artifact about `subject`."""
    members: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": str(MediaType.OCI_MANIFEST),
        "artifactType": kind,
        "config": {"mediaType": str(MediaType.OCI_EMPTY), "digest": str(Digest.of(_EMPTY)), "size": len(_EMPTY)},
        "layers": [{"mediaType": "text/plain", "digest": str(Digest.of(_SBOM)), "size": len(_SBOM)}],
    }
    if subject is not None:
        members["subject"] = subject.to_json()
    return json.dumps(members).encode()


ABOUT_SERVED = artifact(replace(SERVED.descriptor, platform=None))


def evidence_in(repository: str) -> bytes:
    """What stands for the evidence of the Decision on SERVED there."""
    return json.dumps({"of": repository}).encode()


GRANTS: Final[dict[str, tuple[Role, str]]] = {
    "pusher": (Role.PUSHER, "own/*"),
    "creator": (Role.PUSHER, "own/*:create"),
    "mover": (Role.PUSHER, "own/*:pull,update"),
    "deleter": (Role.PUSHER, "own/*:delete"),
    "puller": (Role.PUSHER, "own/*:pull"),
    "host": (Role.HOST, "own/*"),
    "scanner": (Role.SCANNER, "own/*"),
    "officer": (Role.OFFICER, "own/*"),
    "auditor": (Role.AUDITOR, "own/*"),
    "admin": (Role.ADMIN, "own/*"),
    "stranger": (Role.PUSHER, "foreign/*"),
}
"""Robots: role and grants."""

TOKENS: Final = {
    "token": f"repository:{OWN}:pull,push,delete repository:own/none:pull,push,delete",
    "pull-token": f"repository:{OWN}:pull repository:own/none:pull",
    "other-token": f"repository:{OTHER}:pull,push,delete",
}
"""Tokens of the pusher, by the scopes that they were asked for."""

NOBODY: Final = ("anonymous", "wrong", "ended", "cut-token")
"""Those who are not known: without credentials, with a wrong secret, after their end, with half a token."""

PEOPLE: Final = ("person",)
KNOWN: Final = (*GRANTS, *PEOPLE, *TOKENS)
ACTORS: Final = (*NOBODY, *KNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class World:
    """Made once; `reset` makes the catalogue what it was at first."""

    def __init__(self, folder: Path, database: str = "") -> None:
        """Fill a catalogue at `database` (SQLite without it), and a store in `folder`."""
        members = {
            "name": NAME,
            "data": str(folder / "data"),
            "judge": {"push_wait_ms": 0},
            "logins": {"failures_per_account": 10_000, "failures_per_address": 10_000},
            "rates": {"account_writes": 0, "unknown": 0},
            **({"catalogue": database} if database else {}),
        }
        settings = parse(json.dumps(members).encode())
        prepare(settings, now=self.now())
        self.app: Flask = open_app(settings)
        self.ring: Keyring = trust.keyring(registry=NAME, levels=("base", "application"), now=self.now())
        Places(settings).public_key.write_bytes(self.ring.registry.public.pem)
        self.headers = {"anonymous": {}, "wrong": _basic("pusher", "wrong"), "ended": _basic("ended", "ended")}
        self._accounts()
        self._content()
        self._statements()
        for name, scope in TOKENS.items():
            self.headers[name] = {"Authorization": f"Bearer {self._token(scope)}"}
        self.headers["cut-token"] = {"Authorization": self.headers["token"]["Authorization"][:-9]}
        self._first = {table.name: self._rows(table.name) for table in schema.metadata.sorted_tables}
        self._queries = {
            table.name: str(select(table).order_by(*table.primary_key.columns))
            for table in schema.metadata.sorted_tables
        }

    @staticmethod
    def now() -> datetime:
        """The time, in whole seconds."""
        return datetime.now(UTC).replace(microsecond=0)

    @property
    def parts(self) -> Context:
        """What handlers are given."""
        return context_of(self.app)

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue."""
        return self.parts.catalogue

    def close(self) -> None:
        """Let nothing be written any more."""
        self.flush()
        self.catalogue.close()

    def flush(self) -> None:
        """Write what is counted or collected."""
        self.parts.reads.flush()
        self.parts.refusals.flush()
        self.parts.identity.failures.flush()

    def reset(self) -> None:
        """Have in the catalogue what was there at first."""
        self.flush()
        with self.catalogue.write(durable=False) as conn:
            for table in reversed(schema.metadata.sorted_tables):
                conn.execute(delete(table))
            for table in schema.metadata.sorted_tables:
                if self._first[table.name]:
                    conn.execute(insert(table), self._first[table.name])

    def tables(self, *but: str) -> dict[str, list[tuple[object, ...]]]:
        """All rows of all tables, but of those named, as the database has them: this is asked thousands of times."""
        with self.catalogue.read() as conn:
            return {
                name: [tuple(row) for row in conn.exec_driver_sql(query)]
                for name, query in self._queries.items()
                if name not in but
            }

    def records(self, after: int = 0) -> list[Record]:
        """The audit, with all that is counted or collected, behind a number."""
        self.flush()
        with self.catalogue.read() as conn:
            return list(read(conn, after=after, limit=100_000))

    def ask(self, actor: str, call: Call) -> TestResponse:
        """One request of somebody, from 192.0.2.1."""
        return self.app.test_client().open(
            call.path,
            method=call.method,
            data=call.body,
            headers={**self.headers[actor], **call.headers},
            environ_base={"REMOTE_ADDR": "192.0.2.1"},
        )

    # ---- what there is ----------------------------------------------------------------------------------------------

    def _rows(self, name: str) -> list[dict[str, object]]:
        with self.catalogue.read() as conn:
            return [dict(row._mapping) for row in conn.execute(select(schema.metadata.tables[name]))]

    def _accounts(self) -> None:
        made: list[tuple[str, Role, str, dict[str, object]]] = [
            (name, role, grants, {}) for name, (role, grants) in GRANTS.items()
        ]
        made += [
            ("everywhere", Role.PUSHER, "*", {}),
            ("chief", Role.OFFICER, "*", {}),
            ("ended", Role.PUSHER, "*", {"expires": self.now() - timedelta(seconds=1)}),
        ]
        hashed = self.parts.identity.passwords.hash("person's password")
        with self.catalogue.write() as conn:
            for name, role, grants, more in made:
                add_account(conn, self._account(name, role, grants, secret=hash_secret(name), **more))
                self.headers.setdefault(name, _basic(name, name))
            person = self._account("person", Role.PUSHER, "own/*", secret="", kind=Kind.PERSON, password=hashed)
            add_account(conn, person)
        self.headers["person"] = _basic("person", "person's password")

    def _account(self, name: str, role: Role, grants: str, **more: object) -> Account:
        members: dict[str, object] = {"created": self.now(), "created_by": "test"}
        return Account(name=name, role=role, grants=(Grant.parse(grants),), **(members | more))  # type: ignore[arg-type]  # by name

    def _content(self) -> None:
        blobs = {**SERVED.blobs, **WAITING.blobs, **FRESH.blobs}
        for repository in (OWN, FOREIGN):
            for content in (*blobs.values(), _EMPTY, _SBOM, SPARE):
                self._do("POST", f"/v2/{repository}/blobs/uploads/?digest={Digest.of(content)}", content)
            self._push(repository, SERVED, "1")
            self._push(repository, WAITING, "2")
            path = f"/v2/{repository}/manifests/{Digest.of(ABOUT_SERVED)}"
            self._do("PUT", path, ABOUT_SERVED, str(MediaType.OCI_MANIFEST))
            self._decide(repository)
        for name in (OTHER, "foreign/other"):
            self._do("POST", f"/v2/{name}/blobs/uploads/?digest={Digest.of(SPARE)}", SPARE)
        for content in ONLY.blobs.values():
            self._do("POST", f"/v2/{FOREIGN}/blobs/uploads/?digest={Digest.of(content)}", content)
        self._push(FOREIGN, ONLY, "3")
        self.parts.store.put_derived(report_key(ONLY.digest), b'{"findings": [], "unknowns": []}')
        self.parts.store.put_derived(report_key(SERVED.digest), b'{"findings": [], "unknowns": []}')

    def _decide(self, repository: str) -> None:
        """Have SERVED be cleared there, and served under its tag."""
        evidence = evidence_in(repository)
        facts = replace(trust.image_facts(registry=NAME), manifest=SERVED.digest)
        made = replace(
            trust.decision_of(facts, trust.policy_statement(), ()),
            evidence=Digest.of(evidence),
            taken=self.now(),
            policy_name=repository.replace("/", "-"),
        )
        content = codec.encode_decision(made)
        self.parts.store.put_derived(evidence_key(Digest.of(evidence)), evidence)
        images, tags = schema.images, schema.tags
        with self.catalogue.write() as conn:
            conn.execute(
                insert(schema.decisions).values(
                    digest=Digest.of(content),
                    repository=repository,
                    image=SERVED.digest,
                    content=content,
                    evidence=Digest.of(evidence),
                    taken=self.now(),
                )
            )
            conn.execute(
                update(images)
                .where(images.c.repository == repository, images.c.digest == SERVED.digest)
                .values(state=str(State.CLEARED), reason="policy-holds", decision=Digest.of(content))
            )
            serving = (tags.c.repository == repository, tags.c.tag == "1")
            conn.execute(update(tags).where(*serving).values(served=SERVED.digest))

    def _statements(self) -> None:
        self._do("POST", "/api/v1/trust", self.ring.envelope, actor="chief")
        for envelope in (
            judging.published_policy(self.ring, 3, now=self.now()),
            judging.published_list(self.ring, 3, now=self.now()),
            judging.waive("components", f"{NAME}/{FOREIGN}", self.ring.alice, now=self.now()),
            judging.waive("components", f"{NAME}/{OWN}", self.ring.alice, now=self.now()),
        ):
            self._do("POST", "/api/v1/statements", envelope, actor="chief")

    def _push(self, repository: str, built: BuiltImage, tag: str) -> None:
        self._do("PUT", f"/v2/{repository}/manifests/{tag}", built.manifest.raw, built.manifest.media_type)

    def _do(self, method: str, path: str, body: bytes, media_type: str = "", *, actor: str = "everywhere") -> None:
        headers = {"Content-Type": media_type} if media_type else {}
        answer = self.ask(actor, Call(method=method, path=path, body=body, headers=headers))
        assert answer.status_code in {200, 201}, (path, answer.get_data())

    def _token(self, scope: str) -> str:
        query = "&".join(f"scope={each}" for each in scope.split(" "))
        answer = self.ask("pusher", Call(method="GET", path=f"/token?service={NAME}&{query}"))
        assert answer.status_code == 200, answer.get_data()
        return str(answer.get_json()["token"])


def _basic(name: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}
