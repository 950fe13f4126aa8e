"""Builders of keys, trust.json, signed statements and whole cleared scenes, all at one fixed time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from ocispec.config import chain_ids
from ocispec.digest import Digest
from policy import dsse, wire
from policy.clearance import HostView, Subject, make_clearance
from policy.hoststate import HostState, see_list, see_trust
from policy.keys import Algorithm
from policy.model import Decision, ImageFacts, LayerFacts, Signed, State
from policy.private_key import PrivateKey
from policy.revocation import CurrentList, verify_list
from policy.seal import seal
from policy.statements import (
    Clearance,
    ConfigFacts,
    ImageApproval,
    LayerApproval,
    ListDate,
    PolicyName,
    PolicyStatement,
    ResolvedUser,
    RevocationList,
    Role,
    Statement,
    TrustedKey,
    TrustRoot,
    Waiver,
)
from policy.trust import Trust

NOW = datetime(2026, 11, 24, 8, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)
REGISTRY = "registry.example:5000"
REPOSITORY = "team/app"
LEVELS = ("base", "middleware", "application")
FORMATS = frozenset({(1, 1)})


def digest(text: str) -> Digest:
    """A digest that stands for `text`."""
    return Digest.of(text.encode())


def trusted(
    key: PrivateKey,
    role: Role,
    owner: str,
    *levels: str,
    begin: datetime = NOW - 30 * DAY,
    end: datetime = NOW + 365 * DAY,
) -> TrustedKey:
    """An entry of trust.json."""
    return TrustedKey(key=key.public, role=role, owner=owner, levels=levels, not_before=begin, not_after=end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """Everybody's private keys, and the trust.json that lists them.

    Three roots (two must sign), three officers (two must sign policies and lists), a team, a registry.
    """

    roots: dict[str, PrivateKey]
    officers: dict[str, PrivateKey]
    team: PrivateKey
    registry: PrivateKey
    root: TrustRoot
    envelope: bytes
    trust: Trust

    @property
    def alice(self) -> PrivateKey:
        """An officer."""
        return self.officers["alice"]

    @property
    def bob(self) -> PrivateKey:
        """Another officer."""
        return self.officers["bob"]

    def signed_root(self, root: TrustRoot, *owners: str) -> bytes:
        """A trust.json signed by the roots `owners`, two of them if none is named."""
        return seal(root, *(self.roots[owner] for owner in owners or ("rita", "ron")))

    def believe(self, statement: Statement, *keys: PrivateKey, now: datetime = NOW) -> Signed[Statement]:
        """`statement` signed by `keys`, as `Trust.verify_any` returns it."""
        return self.trust.verify_any(seal(statement, *keys), (type(statement),), now)


def keyring(
    *,
    registry: str = REGISTRY,
    levels: tuple[str, ...] = LEVELS,
    policies: tuple[str, ...] = ("default",),
    algorithm: Algorithm = Algorithm.ED25519,
    now: datetime = NOW,
) -> Keyring:
    """New keys for everybody, and a trust.json of version 1 that two roots signed."""
    roots = {owner: PrivateKey.generate() for owner in ("rita", "ron", "rose")}
    officers = {owner: PrivateKey.generate() for owner in ("alice", "bob", "carol")}
    team, online = PrivateKey.generate(), PrivateKey.generate(algorithm)
    begin, end = now - 30 * DAY, now + 365 * DAY
    keys = (
        *(trusted(key, Role.ROOT, owner, begin=begin, end=end) for owner, key in roots.items()),
        *(trusted(key, Role.OFFICER, owner, *levels, begin=begin, end=end) for owner, key in officers.items()),
        trusted(team, Role.TEAM, "build-app", levels[-1], begin=begin, end=end),
        trusted(online, Role.REGISTRY, registry, begin=begin, end=end),
    )
    root = TrustRoot(
        version=1,
        root_threshold=2,
        list_threshold=2,
        keys=keys,
        policies=tuple(PolicyName(name=name, threshold=2) for name in policies),
        registries=(registry,),
        issued=now - DAY,
        expires=now + 365 * DAY,
    )
    envelope = seal(root, roots["rita"], roots["ron"])
    return Keyring(
        roots=roots,
        officers=officers,
        team=team,
        registry=online,
        root=root,
        envelope=envelope,
        trust=Trust.parse(envelope, now),
    )


def image_facts(
    *, layers: tuple[str, ...] = ("base layer", "app layer"), name: str = "app", registry: str = REGISTRY
) -> ImageFacts:
    """The facts of an image whose digests stand for these texts; its name makes manifest, config and index."""
    diff_ids = tuple(digest(layer) for layer in layers)
    return ImageFacts(
        registry=registry,
        repository=REPOSITORY,
        manifest=digest(f"{name} manifest"),
        config=digest(f"{name} config"),
        platform="linux/amd64",
        layers=tuple(
            LayerFacts(diff_id=diff_id, chain_id=chain, size=10, writes_package_database=position == 0)
            for position, (diff_id, chain) in enumerate(zip(diff_ids, chain_ids(diff_ids), strict=True))
        ),
        root_index=digest(f"{name} root index"),
        reader=1,
        format=1,
        config_facts=ConfigFacts(user="1000", cmd=("/app",), env=("LANG=C",)),
        user=ResolvedUser(uid=1000, gid=1000, groups=(1000,), home="/home/app"),
        created="2026-11-20T00:00:00Z",
        first_seen=NOW - DAY,
    )


def image_approval(image: ImageFacts, level: str = "application") -> ImageApproval:
    """An approval of `image`, issued an hour ago."""
    return ImageApproval(
        level=level,
        manifest=image.manifest,
        config=image.config,
        config_facts=image.config_facts,
        diff_ids=tuple(layer.diff_id for layer in image.layers),
        root_index=image.root_index,
        reader=image.reader,
        format=image.format,
        platform=image.platform,
        issued=NOW - timedelta(hours=1),
        expires=NOW + 30 * DAY,
    )


def layer_approval(layer: LayerFacts, level: str = "application") -> LayerApproval:
    """An approval of `layer`, issued an hour ago."""
    return LayerApproval(
        level=level, diff_id=layer.diff_id, chain_id=None, issued=NOW - timedelta(hours=1), expires=NOW + 30 * DAY
    )


def waiver(rule: str = "vulnerable-package") -> Waiver:
    """A waiver of one advisory, issued an hour ago."""
    return Waiver(
        rule=rule,
        advisory="CVE-2026-0001",
        component="pkg:deb/debian/openssl@**",
        scope=f"{REGISTRY}/{REPOSITORY}",
        owner="alice",
        reason="no fix yet, not reachable",
        ticket="SEC-1",
        issued=NOW - timedelta(hours=1),
        expires=NOW + 10 * DAY,
    )


def policy_statement(document: bytes = b"name: default\nversion: 3\n", version: int = 3) -> PolicyStatement:
    """A version of the policy `default`."""
    return PolicyStatement(name="default", version=version, document=document, issued=NOW - 2 * DAY)


def revocation_list(
    number: int = 7,
    *,
    digests: tuple[Digest, ...] = (),
    layers: tuple[Digest, ...] = (),
    components: tuple[str, ...] = (),
    keys: tuple[str, ...] = (),
) -> RevocationList:
    """A list that revokes these."""
    return RevocationList(
        number=number,
        digests=digests,
        layers=layers,
        components=components,
        keys=keys,
        reason="found hostile",
        issued=NOW - DAY,
    )


def list_date(listed: bytes, number: int, issued: datetime = NOW - timedelta(hours=2)) -> ListDate:
    """The date of the list in the envelope `listed`, for a day."""
    payload = dsse.parse(listed, what="list").payload
    return ListDate(list=Digest.of(payload), number=number, issued=issued, expires=issued + DAY)


def current_list(ring: Keyring, revocations: RevocationList | None = None, *, now: datetime = NOW) -> CurrentList:
    """A list signed by two officers, dated by the registry."""
    revocations = revocations or revocation_list()
    listed = seal(revocations, ring.alice, ring.bob)
    dated = seal(list_date(listed, revocations.number), ring.registry)
    return verify_list(listed, dated, ring.trust, now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A cleared image with all that a host needs to prove it: `verify_clearance(envelope, subject=…, host=…)`."""

    ring: Keyring
    image: ImageFacts
    clearance: Clearance
    envelope: bytes
    subject: Subject
    host: HostView
    approvals: tuple[Signed[ImageApproval] | Signed[LayerApproval], ...] = field(repr=False)

    def signed(self, clearance: Clearance) -> bytes:
        """Another clearance, signed by the registry's key."""
        return seal(clearance, self.ring.registry)


def subject_of(image: ImageFacts) -> Subject:
    """What a host is about to start when it starts `image`."""
    return Subject(
        registry=image.registry,
        repository=image.repository,
        manifest=image.manifest,
        config=image.config,
        diff_ids=tuple(layer.diff_id for layer in image.layers),
        platform=image.platform,
        config_facts=image.config_facts,
        root_index=image.root_index,
    )


def decision_of(image: ImageFacts, policy: PolicyStatement, rests_on: tuple[Digest, ...]) -> Decision:
    """A Decision that allows `image`."""
    return Decision(
        state=State.CLEARED,
        level="application",
        parent=digest("base manifest"),
        verdicts=(),
        image=image.manifest,
        policy_name=policy.name,
        policy_version=policy.version,
        policy=Digest.of(policy.document),
        evidence=digest("evidence"),
        rests_on=rests_on,
        taken=NOW,
    )


def scene(ring: Keyring | None = None) -> Scene:
    """An application on an approved base, cleared an hour ago with two base approvals, a layer's, and a waiver."""
    ring = ring or keyring()
    image, base = image_facts(), image_facts(layers=("base layer",), name="base")
    trust = ring.trust
    approvals: tuple[Signed[ImageApproval] | Signed[LayerApproval], ...] = (
        trust.verify(seal(image_approval(base, "base"), ring.alice), ImageApproval, NOW),
        trust.verify(seal(replace(image_approval(base, "base"), issued=NOW - DAY), ring.bob), ImageApproval, NOW),
        trust.verify(seal(layer_approval(image.layers[1]), ring.team), LayerApproval, NOW),
    )
    waived = trust.verify(seal(waiver(), ring.alice), Waiver, NOW)
    policy = trust.verify(seal(policy_statement(), ring.alice, ring.bob), PolicyStatement, NOW)
    clearance = make_clearance(
        image=image,
        decision=decision_of(image, policy.statement, (*(each.digest for each in approvals), waived.digest)),
        policy=policy,
        statements=(*approvals, waived),
        components=("pkg:deb/debian/openssl@3.5.0-1?arch=amd64&distro=debian-13", "pkg:pypi/flask@3.1.0"),
        data=(),
        issued=NOW - timedelta(hours=1),
    )
    current = current_list(ring)
    state = see_list(see_trust(HostState(), trust, NOW), current, NOW)
    return Scene(
        ring=ring,
        image=image,
        clearance=clearance,
        envelope=seal(clearance, ring.registry),
        subject=subject_of(image),
        host=HostView(trust=trust, revocations=current, state=state, formats=FORMATS),
        approvals=approvals,
    )


def payload_of(envelope: bytes) -> bytes:
    """The payload in an envelope."""
    return dsse.parse(envelope, what="envelope").payload


def read(envelope: bytes) -> Statement:
    """The statement in an envelope, whoever signed it."""
    return wire.decode(payload_of(envelope), what="statement")
