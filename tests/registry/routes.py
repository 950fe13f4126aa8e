"""For each route of the application, requests that would do what it is for: of one's own, and of what is not."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from ocispec.descriptor import MediaType
from ocispec.digest import Digest
from tests.registry.world import (
    ABOUT_SERVED,
    CONTENT,
    FOREIGN,
    FRESH,
    NAME,
    ONLY,
    OTHER,
    OWN,
    SERVED,
    SPARE,
    TOKENS,
    WAITING,
    Call,
    World,
    evidence_in,
)
from tests.support import judging

Sample = Callable[[World, str], Call]
"""The request that an actor makes; what it needs to be there beforehand is made by whoever may."""

NOWHERE: Final = {OWN: "own/none", FOREIGN: "foreign/none"}
_numbers = itertools.count(4)


def in_repositories(method: str, path: str, body: bytes = b"", **headers: str) -> dict[str, Sample]:
    """Requests below `/v2/<repository>/`: of one's own, of nobody's there, of another tenant's, of nobody's there."""
    places = {"own": OWN, "own-unknown": NOWHERE[OWN], "foreign": FOREIGN, "foreign-unknown": NOWHERE[FOREIGN]}
    return {place: fixed(method, f"/v2/{name}/{path}", body, **headers) for place, name in places.items()}


def fixed(method: str, path: str, body: bytes = b"", **headers: str) -> Sample:
    """The same request whoever makes it; `headers` with `_` for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _world, _actor: Call(method=method, path=path, body=body, headers=named)


def sent(method: str, path: str, **members: object) -> Sample:
    """A request with a JSON object."""
    return fixed(method, path, json.dumps(members).encode())


def session(method: str, body: bytes = b"", query: str = "") -> dict[str, Sample]:
    """Requests to upload sessions: one's own, another account's, of another repository, and none."""

    def at(place: str) -> Sample:
        def sample(world: World, actor: str) -> Call:
            repository = FOREIGN if place.startswith("foreign") else OWN
            where, opener = {
                "own": (OWN, _account(actor)),
                "anothers": (OWN, "everywhere"),
                "misplaced": (OTHER, actor),
                "foreign": (FOREIGN, "stranger"),
            }.get(place, ("", ""))
            found = _opened(world, opener, where) if where else str(uuid.uuid4())
            path = f"/v2/{repository}/blobs/uploads/{found}"
            return Call(method=method, path=f"{path}{query}", body=body)

        return sample

    return {place: at(place) for place in ("own", "anothers", "misplaced", "unknown", "foreign", "foreign-unknown")}


def _opened(world: World, actor: str, repository: str) -> str:
    begin = Call(method="POST", path=f"/v2/{repository}/blobs/uploads/")
    answer = world.ask(actor, begin)
    if answer.status_code != 202:
        answer = world.ask("everywhere", begin)
    assert answer.status_code == 202, answer.get_data()
    return answer.headers["Location"].rpartition("/")[2]


def of_image(method: str, path: str) -> dict[str, Sample]:
    """Requests of the control API about one image of a repository; `path` is to be formatted with both."""
    return {
        "own": fixed(method, path.format(digest=SERVED.digest, repository=OWN)),
        "own-unknown": fixed(method, path.format(digest=FRESH.digest, repository=OWN)),
        "borrowed": fixed(method, path.format(digest=ONLY.digest, repository=OWN)),
        "twin": fixed(method, path.format(digest=SERVED.digest, repository=FOREIGN)),
        "foreign": fixed(method, path.format(digest=ONLY.digest, repository=FOREIGN)),
        "foreign-unknown": fixed(method, path.format(digest=ONLY.digest, repository=NOWHERE[FOREIGN])),
    }


def borrowed(method: str, path: str) -> dict[str, Sample]:
    """A request about what only another tenant has, in one's own repository."""
    return {"borrowed": fixed(method, f"/v2/{OWN}/{path}")}


def _newer_trust(world: World, _actor: str) -> Call:
    body = world.ring.signed_root(replace(world.ring.root, version=2))
    return Call(method="POST", path="/api/v1/trust", body=body)


def _account(actor: str) -> str:
    return "pusher" if actor in TOKENS else actor


def _waiver(world: World, _actor: str) -> Call:
    body = judging.waive("components", f"{NAME}/{OWN}/{next(_numbers)}", world.ring.alice, now=world.now())
    return Call(method="POST", path="/api/v1/statements", body=body)


def _advisories(_world: World, _actor: str) -> Call:
    body = json.dumps({"catalogVersion": "1", "number": next(_numbers)}).encode()
    return Call(method="POST", path="/api/v1/advisories?kind=kev", body=body)


def _kept(world: World, _actor: str) -> Call:
    """The removal of a rule that is there."""
    put = sent("PUT", "/api/v1/rules", kind="quota", pattern=OWN, value={"tags": 100})
    assert world.ask("admin", put(world, "admin")).status_code in {200, 201}
    return Call(method="DELETE", path=f"/api/v1/rules?kind=quota&pattern={OWN}")


def _unknown_rule(_world: World, _actor: str) -> Call:
    return Call(method="DELETE", path="/api/v1/rules?kind=quota&pattern=no/such")


_MANIFEST: Final = {"Content_Type": FRESH.manifest.media_type}
_FORM: Final = {"Content_Type": "application/x-www-form-urlencoded"}
_BLOB: Final = f"blobs/{Digest.of(SPARE)}"
_STATEMENTS: Final = f"/api/v1/statements?config={SERVED.config.digest}&diff_id={SERVED.diff_ids[0]}"
_SESSION: Final = f"?digest={Digest.of(CONTENT)}"

ROUTES: Final[Mapping[str, Mapping[str, Sample]]] = {
    "base.version GET": {"any": fixed("GET", "/v2/")},
    "health.healthz GET": {"any": fixed("GET", "/healthz")},
    "health.readyz GET": {"any": fixed("GET", "/readyz")},
    "catalog.get_catalog GET": {"any": fixed("GET", "/v2/_catalog")},
    "tags.get_tags GET": in_repositories("GET", "tags/list"),
    "blobs.get_blob GET": in_repositories("GET", f"blobs/{SERVED.config.digest}")
    | borrowed("GET", f"blobs/{ONLY.config.digest}"),
    "blobs.delete_blob DELETE": in_repositories("DELETE", _BLOB) | borrowed("DELETE", f"blobs/{ONLY.config.digest}"),
    "manifests.get_manifest GET": in_repositories("GET", "manifests/1") | borrowed("GET", f"manifests/{ONLY.digest}"),
    "manifests.put_manifest PUT": in_repositories("PUT", "manifests/new", FRESH.manifest.raw, **_MANIFEST),
    "manifests.put_manifest PUT, a tag that is there": in_repositories(
        "PUT", "manifests/1", WAITING.manifest.raw, **_MANIFEST
    ),
    "manifests.put_manifest PUT, tags by query": in_repositories(
        "PUT", f"manifests/{WAITING.digest}?tag=1", WAITING.manifest.raw, **_MANIFEST
    ),
    "manifests.put_manifest PUT, an artifact": in_repositories(
        "PUT", f"manifests/sha256-{SERVED.digest.hex}", ABOUT_SERVED, Content_Type=str(MediaType.OCI_MANIFEST)
    ),
    "manifests.delete_manifest DELETE": in_repositories("DELETE", f"manifests/{WAITING.digest}")
    | borrowed("DELETE", f"manifests/{ONLY.digest}"),
    "manifests.delete_manifest DELETE, a tag": in_repositories("DELETE", "manifests/1"),
    "referrers.get_referrers GET": in_repositories("GET", f"referrers/{SERVED.digest}")
    | borrowed("GET", f"referrers/{ONLY.digest}"),
    "uploads.begin_upload POST": in_repositories("POST", "blobs/uploads/"),
    "uploads.begin_upload POST, whole": in_repositories("POST", f"blobs/uploads/{_SESSION}", CONTENT),
    "uploads.begin_upload POST, a mount": {
        "own": fixed("POST", f"/v2/{OWN}/blobs/uploads/?mount={Digest.of(SPARE)}&from={OTHER}"),
        "borrowed": fixed("POST", f"/v2/{OWN}/blobs/uploads/?mount={ONLY.config.digest}&from={FOREIGN}"),
        "borrowed-unknown": fixed("POST", f"/v2/{OWN}/blobs/uploads/?mount={ONLY.config.digest}&from=foreign/none"),
        "borrowed-anywhere": fixed("POST", f"/v2/{OWN}/blobs/uploads/?mount={ONLY.config.digest}"),
    },
    "uploads.upload_status GET": session("GET"),
    "uploads.append_upload PATCH": session("PATCH", CONTENT),
    "uploads.finish_upload PUT": session("PUT", CONTENT, _SESSION),
    "uploads.cancel_upload DELETE": session("DELETE"),
    "token.get_token GET": {"any": fixed("GET", f"/token?service={NAME}&scope=repository:{OWN}:pull")},
    "token.post_token POST": {"any": fixed("POST", "/token", b"grant_type=password&username=x&password=y", **_FORM)},
    "accounts.get_accounts GET": {"any": fixed("GET", "/api/v1/accounts")},
    "accounts.post_account POST": {"any": sent("POST", "/api/v1/accounts", name="new", role="host")},
    "accounts.delete_account DELETE": {
        "known": fixed("DELETE", "/api/v1/accounts/stranger"),
        "unknown": fixed("DELETE", "/api/v1/accounts/no-such"),
    },
    "accounts.patch_account PATCH": {
        "known": sent("PATCH", "/api/v1/accounts/stranger", grants=["foreign/*:pull"]),
        "unknown": sent("PATCH", "/api/v1/accounts/no-such", grants=["foreign/*:pull"]),
    },
    "credentials.post_secret POST": {
        "own": lambda _world, actor: Call(method="POST", path=f"/api/v1/accounts/{_account(actor)}/secret", body=b"{}"),
        "anothers": sent("POST", "/api/v1/accounts/everywhere/secret"),
        "unknown": sent("POST", "/api/v1/accounts/no-such/secret"),
    },
    "credentials.post_invitation POST": {
        "known": sent("POST", "/api/v1/accounts/person/invitation"),
        "unknown": sent("POST", "/api/v1/accounts/no-such/invitation"),
    },
    "credentials.post_password POST": {
        "any": sent("POST", "/api/v1/password", name="person", password="wrong", new="a password of twenty letters"),
        "invited": sent("POST", "/api/v1/password", name="person", invitation="x" * 43, new="twenty letters and more"),
    },
    "credentials.get_token_keys GET": {"any": fixed("GET", "/api/v1/token-keys")},
    "credentials.delete_token_keys DELETE": {"any": fixed("DELETE", "/api/v1/token-keys")},
    "collections.post_collection POST": {"any": sent("POST", "/api/v1/collections", dryRun=True)},
    "collections.get_collections GET": {"any": fixed("GET", "/api/v1/collections")},
    "collections.get_collection GET": {"unknown": fixed("GET", "/api/v1/collections/77")},
    "running.put_running PUT": {
        "own": sent("PUT", "/api/v1/running", images=[{"repository": OWN, "digest": str(SERVED.digest)}]),
        "foreign": sent("PUT", "/api/v1/running", images=[{"repository": FOREIGN, "digest": str(SERVED.digest)}]),
        "foreign-unknown": sent(
            "PUT", "/api/v1/running", images=[{"repository": NOWHERE[FOREIGN], "digest": str(SERVED.digest)}]
        ),
    },
    "running.get_running GET": {"any": fixed("GET", f"/api/v1/running?digest={SERVED.digest}")},
    "accounts.post_bootstrap POST": {"any": sent("POST", "/api/v1/bootstrap", name="root", token="x" * 43)},
    "rules.get_rules GET": {"any": fixed("GET", "/api/v1/rules")},
    "rules.put_one PUT": {
        "any": sent("PUT", "/api/v1/rules", kind="immutable", pattern=OWN, value={"tags": ["none"]}),
        "foreign": sent("PUT", "/api/v1/rules", kind="immutable", pattern=FOREIGN, value={"tags": ["none"]}),
    },
    "rules.delete_one DELETE": {"known": _kept, "unknown": _unknown_rule},
    "statements.post_statement POST": {"any": _waiver},
    "statements.get_statements GET": {"any": fixed("GET", _STATEMENTS)},
    "statements.get_policy GET": {"any": fixed("GET", "/api/v1/policy")},
    "statements.get_policy_by_digest GET": {
        "known": fixed("GET", f"/api/v1/policy/{Digest.of(judging.policy_document(3))}"),
        "unknown": fixed("GET", f"/api/v1/policy/{Digest.of(b'')}"),
    },
    "statements.get_floors GET": {"any": fixed("GET", "/api/v1/floors")},
    "statements.get_revocations GET": {"any": fixed("GET", "/api/v1/revocations")},
    "trust.post_trust POST": {"any": _newer_trust},
    "trust.get_trust GET": {"any": fixed("GET", "/api/v1/trust")},
    "trust.get_key GET": {"any": fixed("GET", "/api/v1/key")},
    "advisories.post_advisories POST": {"any": _advisories},
    "advisories.get_advisories GET": {"any": fixed("GET", "/api/v1/advisories")},
    "audit.get_audit GET": {"any": fixed("GET", "/api/v1/audit")},
    "images.list_images GET": {"any": fixed("GET", "/api/v1/images")},
    "images.get_image GET": of_image("GET", "/api/v1/images/{digest}/{repository}"),
    "images.get_decision GET": of_image("GET", "/api/v1/decisions/{digest}/{repository}"),
    "images.get_status GET": of_image("GET", "/api/v1/status/{repository}?reference={digest}"),
    "images.get_tag GET": {
        "own": fixed("GET", f"/api/v1/tags/1/{OWN}"),
        "own-unknown": fixed("GET", f"/api/v1/tags/3/{OWN}"),
        "foreign": fixed("GET", f"/api/v1/tags/1/{FOREIGN}"),
        "foreign-unknown": fixed("GET", "/api/v1/tags/1/foreign/none"),
    },
    "images.get_report GET": {
        "own": fixed("GET", f"/api/v1/reports/{SERVED.digest}"),
        "foreign": fixed("GET", f"/api/v1/reports/{ONLY.digest}"),
        "foreign-unknown": fixed("GET", f"/api/v1/reports/{Digest.of(b'')}"),
    },
    "images.get_evidence GET": {
        "own": fixed("GET", f"/api/v1/evidence/{Digest.of(evidence_in(OWN))}"),
        "foreign": fixed("GET", f"/api/v1/evidence/{Digest.of(evidence_in(FOREIGN))}"),
        "foreign-unknown": fixed("GET", f"/api/v1/evidence/{Digest.of(b'')}"),
    },
}
"""By endpoint and method, with a word behind a comma where a route does several things; HEAD goes with GET."""
