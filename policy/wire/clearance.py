"""The clearance on the wire: a SLSA Verification Summary Attestation v1, with one field of our own.

The predicate is slsa.dev's `verification_summary/v1`, so that tools which read such summaries can. They see
neither the expiry nor a revocation. What that predicate has no field for stands under `EXTENSION`, whose
JSON Schema is policies/schemas/clearance.schema.json.
"""

from __future__ import annotations

from typing import Final

from ocispec.digest import Digest
from ocispec.manifest import MAX_LAYERS
from ocispec.strictjson import JsonValue
from policy.statements import Clearance, ResolvedUser
from policy.times import format_time
from policy.wire.approvals import read_facts, write_facts
from policy.wire.body import Body
from policy.wire.members import Members, base64_of, texts_of
from scanner.model import DataSource

CLEARANCE: Final = "https://slsa.dev/verification_summary/v1"
EXTENSION: Final = "urn:pratique:clearance:v1"
LEVEL_PREFIX: Final = "PRATIQUE_LEVEL_"

MAX_COMPONENTS: Final = 20_000
MAX_EMBEDDED: Final = 256
MAX_STATEMENT: Final = 256 * 1024
MAX_POLICY: Final = 2 * 1024 * 1024
"""Bytes of the embedded policy's envelope: its document twice in base64, and the signatures."""


def write_clearance(clearance: Clearance) -> Body:
    """The subject is the platform manifest."""
    inputs: list[JsonValue] = [
        {"digest": _digest_set(Digest.of(envelope))} for envelope in (*clearance.approvals, *clearance.waivers)
    ]
    predicate: dict[str, JsonValue] = {
        "inputAttestations": inputs,
        "policy": {
            "digest": _digest_set(clearance.policy_digest),
            "uri": f"urn:pratique:policy:{clearance.policy_name}:{clearance.policy_version}",
        },
        "resourceUri": _resource_uri(clearance),
        "timeVerified": format_time(clearance.issued),
        "verificationResult": "PASSED",
        "verifiedLevels": [f"{LEVEL_PREFIX}{clearance.level}"],
        "verifier": {"id": f"urn:pratique:registry:{clearance.registry}"},
        EXTENSION: _extension(clearance),
    }
    return Body(name=f"{clearance.registry}/{clearance.repository}", digest=clearance.manifest, predicate=predicate)


def read_clearance(_name: str, digest: Digest, members: Members) -> Clearance:
    """The clearance that `write_clearance` wrote; what is there twice is compared by writing it again.

    Raises:
        SpecError: the result is not PASSED, the digest of the policy is not one sha256, or anything is malformed.
    """
    members.fixed("verificationResult", "PASSED")
    for derived in ("inputAttestations", "resourceUri", "verifiedLevels", "verifier"):
        members.derived(derived)
    policy = members.child("policy")
    policy.derived("uri")
    digests = policy.child("digest")
    policy_digest = Digest("sha256", digests.text("sha256", 64))
    digests.end()
    policy.end()
    issued = members.time("timeVerified")
    own = members.child(EXTENSION)
    clearance = Clearance(
        registry=own.registry("registry"),
        repository=own.repository("repository"),
        manifest=digest,
        config=own.digest("config"),
        platform=own.platform("platform"),
        level=own.word("level"),
        state=own.word("state"),
        diff_ids=own.digests("diffIds", MAX_LAYERS),
        chain_id=own.digest("chainId"),
        root_index=own.digest("rootIndex"),
        reader=own.number("reader"),
        format=own.number("format"),
        user=_read_user(own.child("user")),
        config_facts=read_facts(own.child("configFacts")),
        policy_name=own.word("policyName"),
        policy_version=own.number("policyVersion", 1),
        policy_digest=policy_digest,
        evidence=own.digest("evidence"),
        data=tuple(_read_source(source) for source in own.children("data", MAX_EMBEDDED)),
        components=own.texts("components", MAX_COMPONENTS, 1024),
        policy=own.blob("policy", MAX_POLICY),
        approvals=own.blobs("approvals", MAX_EMBEDDED, MAX_STATEMENT),
        waivers=own.blobs("waivers", MAX_EMBEDDED, MAX_STATEMENT),
        issued=issued,
        expires=own.time("expires"),
    )
    own.end()
    return clearance


def _extension(clearance: Clearance) -> dict[str, JsonValue]:
    return {
        "approvals": [base64_of(envelope) for envelope in clearance.approvals],
        "chainId": str(clearance.chain_id),
        "components": texts_of(clearance.components),
        "config": str(clearance.config),
        "configFacts": write_facts(clearance.config_facts),
        "data": [_write_source(source) for source in clearance.data],
        "diffIds": texts_of(clearance.diff_ids),
        "evidence": str(clearance.evidence),
        "expires": format_time(clearance.expires),
        "format": clearance.format,
        "level": clearance.level,
        "platform": clearance.platform,
        "policy": base64_of(clearance.policy),
        "policyName": clearance.policy_name,
        "policyVersion": clearance.policy_version,
        "reader": clearance.reader,
        "registry": clearance.registry,
        "repository": clearance.repository,
        "rootIndex": str(clearance.root_index),
        "state": clearance.state,
        "user": _write_user(clearance.user),
        "waivers": [base64_of(envelope) for envelope in clearance.waivers],
    }


def _resource_uri(clearance: Clearance) -> str:
    # purl-spec, types/oci: the name is the last part of the repository; a colon stays as it is.
    name = clearance.repository.rpartition("/")[2]
    return f"pkg:oci/{name}@{clearance.manifest}?repository_url={clearance.registry}/{clearance.repository}"


def _digest_set(digest: Digest) -> dict[str, JsonValue]:
    return {digest.algorithm: digest.hex}


def _write_user(user: ResolvedUser) -> dict[str, JsonValue]:
    return {"gid": user.gid, "groups": list(user.groups), "home": user.home, "uid": user.uid}


def _read_user(members: Members) -> ResolvedUser:
    user = ResolvedUser(
        uid=members.identity("uid"),
        gid=members.identity("gid"),
        groups=members.identities("groups", 65536),
        home=members.text("home"),
    )
    members.end()
    return user


def _write_source(source: DataSource) -> dict[str, JsonValue]:
    return {
        "broken": source.broken,
        "date": source.date,
        "digest": source.digest,
        "name": source.name,
        "records": source.records,
    }


def _read_source(members: Members) -> DataSource:
    source = DataSource(
        name=members.line("name"),
        digest=members.line("digest"),
        date=members.line("date", 64),
        records=members.number("records"),
        broken=members.number("broken"),
    )
    members.end()
    return source
