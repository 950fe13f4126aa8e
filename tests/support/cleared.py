"""A registry that clears images with real signatures over real HTTP, and hosts that are enrolled with it.

    with ClearedRegistry() as registry:
        app = registry.clear(built, "team/app", "1.0")
        host = registry.enrol(tmp_path / "store")
        pull(app.reference, host=host, clock=registry.clock)

Everything that a hostile registry could offer can be put in the place of what is right: the statements are
values, and the keys are at hand. What it takes to clear an image (scan, rules) is not done here.
"""

from __future__ import annotations

import io
import json
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from ocispec.access import Access, Credentials
from ocispec.config import chain_ids
from ocispec.digest import Digest
from ocispec.erofs import FORMAT_VERSION, root_index
from ocispec.layer import READER_VERSION, read_layer
from ocispec.merge import merge
from ocispec.reference import Reference
from policy import cosign
from policy.approve import config_facts
from policy.clearance import make_clearance
from policy.keys import SigningKey
from policy.model import Decision, ImageFacts, LayerFacts, Signed, State
from policy.seal import seal
from policy.statements import (
    Clearance,
    ImageApproval,
    IndexClearance,
    LayerApproval,
    PolicyStatement,
    ResolvedUser,
    RevocationList,
    Statement,
    TagStatement,
    Waiver,
)
from policy.wire import predicate_type
from runtime.host import Host, RegistryAccount
from runtime.store import Store
from tests.support.fakeregistry import FakeRegistry
from tests.support.images import BuiltImage, BuiltIndex, image
from tests.support.trust import DAY, NOW, Keyring, keyring, list_date, payload_of, revocation_list

ACCOUNT = ("host-1", "s3cret")

POLICY = b"""\
format: pratique-policy/1
name: default
version: 3
levels:
  - name: base
    needs_parent: false
    approval: {accepts: image, image: [{officer: 2}]}
  - name: application
    stands_on: [base]
    approval: {accepts: either, image: [{team: 1}, {officer: 1}], layers: [{team: 1}]}
    config: {may_change: [env]}
rules:
  - {rule: exploited, with_fix: deny, without_fix: deny}
running:
  revoked: {action: kill}
  denied: {action: stop}
  expired: {action: stop}
start:
  levels: [base, application]
  platforms: [linux/amd64, linux/arm64]
  max_clearance_age: 30d
  memory: 1GiB
  memory_default: 64MiB
  pids: 512
  pids_default: 64
  networks: [none]
  capabilities: [CAP_CHOWN]
  mounts: [/srv/**]
  writable: true
  user_override: false
  command_override: false
"""


def base_image(*, compression: str = "gzip") -> BuiltImage:
    """A base of one layer with account files."""
    return image(
        [
            {
                "etc/": b"",
                "etc/passwd": b"root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
                "etc/group": b"root:x:0:\napp:x:1000:\nextra:x:1001:app\n",
                "bin/": b"",
                "bin/true": b"#!",
            }
        ],
        compression=compression,
    )


def app_image(base: BuiltImage, marker: str = "app", **changes: object) -> BuiltImage:
    """An application of one layer on `base`."""
    settings: dict[str, object] = {"entrypoint": ("/bin/true",), "user": "app", "env": ("LANG=C",), **changes}
    return image([{"srv/": b"", "srv/name": marker.encode() * 2000}], parent=base, **settings)  # type: ignore[arg-type]  # values of several types


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearedImage:
    """An image that was cleared: what it is, what its clearance says, and the envelope."""

    built: BuiltImage
    reference: Reference
    facts: ImageFacts
    clearance: Clearance
    envelope: bytes = field(repr=False)

    @property
    def pinned(self) -> Reference:
        """The reference by digest."""
        return replace(self.reference, tag=None, digest=self.built.digest)


class ClearedRegistry:
    """See the module. `now` may be changed: it is every clock's time."""

    def __init__(self) -> None:
        self.fake = FakeRegistry(account=ACCOUNT)
        self.now = NOW
        self.ring: Keyring = keyring(registry=self.fake.host)
        self.policy = self._sign_policy(POLICY)
        self.numbers: dict[str, int] = {}
        self._held = ExitStack()

    def __enter__(self) -> Self:
        self._held.enter_context(self.fake)
        self.serve_trust(self.ring.envelope)
        self.revoke(revocation_list())
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def clock(self) -> datetime:
        """The time."""
        return self.now

    @property
    def access(self) -> Access:
        """Little patience."""
        return Access(attempts=2, first_delay=0.001, timeout=5)

    def enrol(self, folder: Path) -> Host:
        """A fresh host with its store in `folder`."""
        account = RegistryAccount(
            registry=self.fake.host,
            credentials=Credentials(name=ACCOUNT[0], secret=ACCOUNT[1]),
            plain_http=True,
        )
        return Host.enrol(Store.open(folder), self.ring.envelope, account, self.now)

    def serve_trust(self, envelope: bytes) -> None:
        """Serve another trust.json."""
        self.fake.documents["/api/v1/trust"] = envelope

    def revoke(self, revocations: RevocationList, *, date: datetime | None = None) -> None:
        """Serve a revocation list, signed by two officers and dated by the registry."""
        listed = seal(revocations, self.ring.alice, self.ring.bob)
        issued = date or self.now - timedelta(hours=1)
        self.serve_list(listed, seal(list_date(listed, revocations.number, issued), self.ring.registry))

    def serve_list(self, listed: bytes, date: bytes) -> None:
        """Serve a list and a date, whatever they are."""
        document = {"list": json.loads(listed), "date": json.loads(date)}
        self.fake.documents["/api/v1/revocations"] = json.dumps(document).encode()

    def facts(self, built: BuiltImage, repository: str = "team/app", user: ResolvedUser | None = None) -> ImageFacts:
        """What an honest judge finds."""
        layers = [read_layer(io.BytesIO(layer.tar), what="layer") for layer in built.layers]
        index = root_index(merge(layers), layers)
        return self.claimed(built, Digest.of(index), repository, user)

    def claimed(
        self, built: BuiltImage, index: Digest, repository: str = "team/app", user: ResolvedUser | None = None
    ) -> ImageFacts:
        """What a judge says who has not read the layers: the root index is whatever is said."""
        chain = chain_ids(built.diff_ids)
        return ImageFacts(
            registry=self.fake.host,
            repository=repository,
            manifest=built.digest,
            config=built.config.digest,
            platform=str(built.config.platform),
            layers=tuple(
                LayerFacts(
                    diff_id=diff_id, chain_id=chain[n], size=len(built.layers[n].tar), writes_package_database=n == 0
                )
                for n, diff_id in enumerate(built.diff_ids)
            ),
            root_index=index,
            reader=READER_VERSION,
            format=FORMAT_VERSION,
            config_facts=config_facts(built.config),
            user=user or default_user(built),
            created=built.config.created,
            first_seen=self.now - DAY,
        )

    def approve(self, facts: ImageFacts, level: str, *keys: SigningKey) -> Signed[ImageApproval]:
        """An approval of the image with these facts, by the team if no key is named."""
        approval = ImageApproval(
            level=level,
            manifest=facts.manifest,
            config=facts.config,
            config_facts=facts.config_facts,
            diff_ids=tuple(layer.diff_id for layer in facts.layers),
            root_index=facts.root_index,
            reader=facts.reader,
            format=facts.format,
            platform=facts.platform,
            issued=self.now - timedelta(hours=2),
            expires=self.now + 30 * DAY,
        )
        return self.ring.trust.verify(seal(approval, *(keys or (self.ring.team,))), ImageApproval, self.now)

    def decide(
        self, facts: ImageFacts, statements: tuple[Signed[ImageApproval] | Signed[LayerApproval], ...]
    ) -> Clearance:
        """The clearance that rests on these statements."""
        said = self.policy.statement
        decision = Decision(
            state=State.CLEARED,
            level="application",
            parent=None,
            verdicts=(),
            image=facts.manifest,
            policy_name=said.name,
            policy_version=said.version,
            policy=Digest.of(said.document),
            evidence=Digest.of(b"evidence"),
            rests_on=tuple(signed.digest for signed in statements),
            taken=self.now,
        )
        none: tuple[Signed[Waiver], ...] = ()
        return make_clearance(
            image=facts,
            decision=decision,
            policy=self.policy,
            statements=(*statements, *none),
            components=("pkg:deb/debian/openssl@3.5.0-1?arch=amd64",),
            data=(),
            issued=self.now - timedelta(hours=1),
        )

    def clear(
        self,
        built: BuiltImage,
        repository: str = "team/app",
        tag: str | None = "1.0",
        *,
        base: BuiltImage | None = None,
        facts: ImageFacts | None = None,
    ) -> ClearedImage:
        """Store an application with its base approved by two officers and itself by its team, and serve it.

        With `facts` those are what is approved and cleared, whatever is in the layers.
        """
        facts = facts or self.facts(built, repository)
        base_facts = self.facts(base or parent_of(built), repository)
        approvals = (
            self.approve(base_facts, "base", self.ring.alice, self.ring.bob),
            self.approve(facts, "application"),
        )
        clearance = self.decide(facts, approvals)
        envelope = self.seal(clearance)
        self.fake.add(built, repository)
        self.attach(built, repository, envelope, Clearance)
        if tag is not None:
            self.serve_tag(repository, tag, built.digest)
        reference = Reference(registry=self.fake.host, repository=repository, tag=tag)
        return ClearedImage(built=built, reference=reference, facts=facts, clearance=clearance, envelope=envelope)

    def clear_index(self, built: BuiltIndex, repository: str, tag: str, *children: Digest) -> None:
        """Store an index and a statement that these children of it are cleared, and serve it."""
        self.fake.add(built, repository)
        statement = IndexClearance(
            registry=self.fake.host,
            repository=repository,
            index=built.digest,
            children=children,
            issued=self.now - timedelta(hours=1),
            expires=self.now + 7 * DAY,
        )
        self.attach(built, repository, self.seal(statement), IndexClearance)
        self.serve_tag(repository, tag, built.digest)

    def seal(self, statement: Statement) -> bytes:
        """Signed by the registry's online key."""
        return seal(statement, self.ring.registry)

    def attach(self, subject: BuiltImage | BuiltIndex, repository: str, envelope: bytes, kind: type[Statement]) -> None:
        """Attach an envelope as the signer does."""
        artifact = cosign.envelope_referrer(subject.descriptor, envelope, predicate_type(kind))
        for blob in artifact.blobs:
            self.fake.blobs[repository, str(blob.digest)] = blob.content
        self.fake.put_manifest(repository, artifact.manifest, artifact.media_type)

    def detach(self, repository: str) -> None:
        """Remove everything that was attached."""
        for key, (_, raw) in list(self.fake.manifests.items()):
            if key[0] == repository and "subject" in json.loads(raw):
                del self.fake.manifests[key]

    def tag_statement(self, repository: str, tag: str, digest: Digest, number: int) -> bytes:
        """A signed statement of what the tag serves."""
        return self.seal(
            TagStatement(
                registry=self.fake.host,
                repository=repository,
                tag=tag,
                digest=digest,
                number=number,
                issued=self.now - timedelta(hours=1),
            )
        )

    def serve_tag(self, repository: str, tag: str, digest: Digest, number: int | None = None) -> None:
        """Move the tag, by the next number if none is given."""
        name = f"{repository}:{tag}"
        self.numbers[name] = number if number is not None else self.numbers.get(name, 0) + 1
        self.serve_tag_envelope(
            repository, tag, digest, self.tag_statement(repository, tag, digest, self.numbers[name])
        )

    def serve_tag_envelope(self, repository: str, tag: str, digest: Digest, envelope: bytes | None) -> None:
        """Answer for the tag with any statement, or none."""
        statement = None if envelope is None else json.loads(envelope)
        document = {"pushed": str(digest), "served": str(digest) if envelope else None, "statement": statement}
        self.fake.documents[f"/api/v1/tags/{tag}/{repository}"] = json.dumps(document).encode()

    def _sign_policy(self, document: bytes) -> Signed[PolicyStatement]:
        statement = PolicyStatement(name="default", version=3, document=document, issued=self.now - 2 * DAY)
        envelope = seal(statement, self.ring.alice, self.ring.bob)
        return self.ring.trust.verify(envelope, PolicyStatement, self.now)


def default_user(built: BuiltImage) -> ResolvedUser:
    """Who the config's user is with the account files of `base_image`."""
    if built.config.user == "app":
        return ResolvedUser(uid=1000, gid=1000, groups=(1000, 1001), home="/home/app")
    return ResolvedUser(uid=0, gid=0, groups=(0,), home="/root")


def parent_of(built: BuiltImage) -> BuiltImage:
    """The image of the first layer alone, under the same platform."""
    return image([built.layers[0].tar], platform=str(built.config.platform))


def same_payload(one: bytes, other: bytes) -> bool:
    """True if two envelopes hold the same statement."""
    return payload_of(one) == payload_of(other)
