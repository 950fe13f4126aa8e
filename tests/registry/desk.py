"""A whole registry in one process: the application over a bench's catalogue, files, judge and signer.

desk = Desk(bench)
desk.push("team/app", image, "1")          # over HTTP, as a client does
bench.settle()                              # the judge's part, step by step
assert desk.get("host", "team/app", "1").status_code == 200
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from werkzeug.test import create_environ, run_wsgi_app
from werkzeug.wrappers import Response

from ocispec.descriptor import Descriptor, MediaType
from ocispec.digest import Digest
from registry.access import Grant, Role
from registry.again import Answers
from registry.app import create_app
from registry.authenticate import hash_secret
from registry.catalogue.accounts import Account, add_account
from registry.context import context_of
from registry.identity.open import open_identity
from registry.judge.queue import JudgeQueue
from registry.places import Places
from registry.settings import parse
from registry.telemetry.environ import REQUEST, SOURCE
from registry.web import joined
from tests.support import judging
from tests.support.bench import Bench
from tests.support.images import BuiltImage, BuiltIndex
from tests.support.trust import REGISTRY

EMPTY: Final = b"{}"
SBOM: Final = b"sbom"
ADDRESS: Final = "192.0.2.1"
OCI: Final = str(MediaType.OCI_MANIFEST)


class Desk:
    """Clients of the registry; one account a role, each named as its role, and `stranger` in other repositories.

    Answers are given again as in the web processes, so that what is kept too long shows.
    """

    def __init__(self, bench: Bench, *, push_wait_ms: int = 0, accounts: bool = True) -> None:
        """Make the application, and its accounts, if they are not there from before."""
        self.bench = bench
        members = {"name": REGISTRY, "data": str(bench.folder), "judge": {"push_wait_ms": push_wait_ms}}
        settings = parse(json.dumps(members).encode())
        settings.run_folder.mkdir(exist_ok=True)
        Places(settings).public_key.write_bytes(bench.ring.registry.public.pem)
        self.app = create_app(
            settings,
            store=bench.store,
            catalogue=bench.catalogue,
            identity=open_identity(settings, bench.catalogue, bench.clock),
            judge=JudgeQueue(bench.catalogue, settings.judge_socket, bench.clock),
            clock=bench.clock,
        )
        self.parts = context_of(self.app)
        self.answers = Answers(joined(self.app), self.parts)
        if accounts:
            self._make_accounts()

    def _make_accounts(self) -> None:
        bench = self.bench
        accounts = [(str(role), role, "*") for role in Role if role is not Role.REGISTRY]
        with bench.catalogue.write() as conn:
            for name, role, grant in [*accounts, ("stranger", Role.HOST, "other/*")]:
                account = Account(
                    name=name,
                    role=role,
                    grants=(Grant.parse(grant),),
                    secret=hash_secret(name),
                    created=bench.now,
                    created_by="test",
                )
                add_account(conn, account)

    def close(self) -> None:
        """Write what is counted or collected; before the bench is closed."""
        self.parts.reads.flush()
        self.parts.refusals.flush()
        self.parts.identity.failures.flush()

    def ask(self, actor: str, method: str, path: str, body: bytes = b"", **headers: str) -> Response:
        """One request; `headers` with `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["Authorization"] = "Basic " + base64.b64encode(f"{actor}:{actor}".encode()).decode()
        environ = create_environ(path, method=method, data=body or None, headers=named)
        for name in ("REQUEST_URI", "RAW_URI"):  # of this builder alone: no server of ours sends them
            environ.pop(name, None)
        environ |= {"REMOTE_ADDR": ADDRESS, SOURCE: ADDRESS, REQUEST: "test"}
        pieces, status, found = run_wsgi_app(self.answers, environ, buffered=True)
        return Response(b"".join(pieces), status=status, headers=found)

    def get(self, actor: str, repository: str, reference: object, method: str = "GET") -> Response:
        """A manifest."""
        return self.ask(actor, method, f"/v2/{repository}/manifests/{reference}")

    def blob(self, actor: str, repository: str, digest: Digest) -> Response:
        """A blob."""
        return self.ask(actor, "GET", f"/v2/{repository}/blobs/{digest}")

    def referrers(self, actor: str, repository: str, digest: Digest) -> Response:
        """The referrers of a manifest."""
        return self.ask(actor, "GET", f"/v2/{repository}/referrers/{digest}")

    def tag(self, actor: str, repository: str, tag: str) -> dict[str, Any]:
        """What is told of a tag."""
        answer = self.ask(actor, "GET", f"/api/v1/tags/{tag}/{repository}")
        assert answer.status_code == 200, answer.get_data()
        found: dict[str, Any] = answer.get_json()
        return found

    def state(self, actor: str, repository: str, digest: Digest) -> str:
        """The state of an image, as it is told."""
        answer = self.ask(actor, "GET", f"/api/v1/images/{digest}/{repository}")
        assert answer.status_code == 200, answer.get_data()
        return str(answer.get_json()["state"])

    def hand_in(self, envelope: bytes, *, actor: str = "officer") -> None:
        """A statement, over HTTP: a revocation list counts at once."""
        answer = self.ask(actor, "POST", "/api/v1/statements", envelope)
        assert answer.status_code == 201, answer.get_data()

    def revoke(self, number: int, **entries: tuple[object, ...]) -> None:
        """Hand in a revocation list."""
        self.hand_in(judging.published_list(self.bench.ring, number, now=self.bench.now, **entries))

    def push_blobs(self, repository: str, *contents: bytes) -> None:
        """Push blobs."""
        for content in contents:
            path = f"/v2/{repository}/blobs/uploads/?digest={Digest.of(content)}"
            assert self.ask("pusher", "POST", path, content).status_code == 201

    def put(
        self, repository: str, reference: object, raw: bytes, media_type: str = OCI, *, actor: str = "pusher"
    ) -> Response:
        """Push a manifest alone."""
        return self.ask(actor, "PUT", f"/v2/{repository}/manifests/{reference}", raw, Content_Type=media_type)

    def push(self, repository: str, built: BuiltImage | BuiltIndex, tag: str | None = None) -> Response:
        """Push an image, or an index with its images."""
        if isinstance(built, BuiltIndex):
            for child in built.images:
                self.push(repository, child)
            parsed = built.index
            return self._pushed(repository, tag or built.digest, parsed.raw, parsed.media_type)
        self.push_blobs(repository, *built.blobs.values())
        return self._pushed(repository, tag or built.digest, built.manifest.raw, built.manifest.media_type)

    def _pushed(self, repository: str, reference: object, raw: bytes, media_type: str) -> Response:
        answer = self.put(repository, reference, raw, media_type)
        assert answer.status_code == 201, answer.get_data()
        return answer


def artifact(subject: Descriptor | None, kind: str = "application/x-sbom", **annotations: str) -> bytes:
    """An artifact manifest about `subject`, of EMPTY and SBOM."""
    members: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI,
        "artifactType": kind,
        "config": {"mediaType": str(MediaType.OCI_EMPTY), "digest": str(Digest.of(EMPTY)), "size": len(EMPTY)},
        "layers": [{"mediaType": "text/plain", "digest": str(Digest.of(SBOM)), "size": len(SBOM)}],
    }
    if subject is not None:
        members["subject"] = Descriptor(
            media_type=subject.media_type, digest=subject.digest, size=subject.size
        ).to_json()
    if annotations:
        members["annotations"] = annotations
    return json.dumps(members).encode()


def described(raw: bytes) -> Descriptor:
    """The descriptor of a manifest."""
    return Descriptor(media_type=MediaType.OCI_MANIFEST, digest=Digest.of(raw), size=len(raw))
