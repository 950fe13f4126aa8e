"""Builders of evidence: images, approvals, findings and waivers as values, at one fixed time.

Statements here are signed by nobody: they are what `trust.py` returns when it believed a signature. Where
signatures matter, `tests.support.trust` has real keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from ocispec.config import chain_ids
from ocispec.digest import Digest
from policy import wire
from policy.model import Evidence, FileChange, ImageFacts, LayerFacts, Signed, Signer
from policy.statements import (
    ConfigFacts,
    ImageApproval,
    LayerApproval,
    ResolvedUser,
    RevocationList,
    Role,
    Statement,
    Waiver,
    Withdrawal,
)
from scanner.model import Component, DataSource, Finding, FixState, OperatingSystem, Severity, Unknown

NOW = datetime(2026, 11, 24, 8, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)
REGISTRY = "registry.example:5000"
REPOSITORY = "team/app"
LEVELS = ("base", "middleware", "application")

S = TypeVar("S", bound=Statement)

APP_CONFIG = ConfigFacts(user="app", entrypoint=("/app/serve",), env=("LANG=C", "PATH=/usr/bin"), working_dir="/app")
BASE_CONFIG = ConfigFacts(cmd=("bash",), env=("PATH=/usr/bin",))
LAYER_CONFIG = ConfigFacts(cmd=("bash",), env=("PATH=/usr/bin", "LANG=C"), user="app", working_dir="/app")


def digest(text: str) -> Digest:
    """A digest that stands for `text`."""
    return Digest.of(text.encode())


def day(offset: int) -> str:
    """The day `offset` days from NOW, as findings have it."""
    return f"{NOW + offset * DAY:%Y-%m-%d}"


def layer_facts(*names: str, database: Sequence[int] = (0,)) -> tuple[LayerFacts, ...]:
    """Layers whose diff_ids stand for `names`; those at the indexes `database` write a package database."""
    diff_ids = tuple(digest(name) for name in names)
    return tuple(
        LayerFacts(diff_id=diff_id, chain_id=chain_id, size=2048, writes_package_database=index in database)
        for index, (diff_id, chain_id) in enumerate(zip(diff_ids, chain_ids(diff_ids), strict=True))
    )


def image(
    *layers: str,
    name: str = "app",
    config: ConfigFacts = APP_CONFIG,
    database: Sequence[int] = (0,),
    platform: str = "linux/amd64",
    uid: int | None = 1000,
) -> ImageFacts:
    """An image of these layers; its name and config facts make its digests, as a real config's would."""
    layers = layers or ("debian", "app")
    identity = f"{name} {layers} {config}"
    return ImageFacts(
        registry=REGISTRY,
        repository=REPOSITORY,
        manifest=digest(f"manifest {identity}"),
        config=digest(f"config {identity}"),
        platform=platform,
        layers=layer_facts(*layers, database=database),
        root_index=digest(f"index {layers}"),
        reader=1,
        format=1,
        config_facts=config,
        user=ResolvedUser(uid=uid, gid=uid) if uid is not None else None,
        created="2026-11-20T00:00:00Z",
        first_seen=NOW - DAY,
    )


def base(*layers: str, name: str = "base", config: ConfigFacts = BASE_CONFIG) -> ImageFacts:
    """A base image, as its approvers saw it."""
    return image(*(layers or ("debian",)), name=name, config=config, uid=0)


def officer(owner: str, *levels: str) -> Signer:
    """A signature by an officer's key."""
    return Signer(key=str(digest(f"key of {owner}")), role=Role.OFFICER, owner=owner, levels=levels or LEVELS)


def team(owner: str = "web", *levels: str) -> Signer:
    """A signature by a team's key."""
    return Signer(key=str(digest(f"key of {owner}")), role=Role.TEAM, owner=owner, levels=levels or ("application",))


def signed(statement: S, *signers: Signer) -> Signed[S]:
    """The statement as if `signers` had signed it. The envelope is unique to statement and signers, and no more."""
    payload = wire.encode(statement)
    names = " ".join(signer.key for signer in signers)
    return Signed(
        statement=statement, signers=signers, digest=Digest.of(payload), envelope=payload + b"\n" + names.encode()
    )


def approve(
    facts: ImageFacts,
    level: str,
    *signers: Signer,
    issued: datetime = NOW - DAY,
    expires: datetime = NOW + 30 * DAY,
) -> Signed[ImageApproval]:
    """An approval of a whole image."""
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
        issued=issued,
        expires=expires,
    )
    return signed(approval, *signers)


def approve_layer(
    facts: ImageFacts,
    index: int,
    level: str,
    *signers: Signer,
    chain: bool = False,
    issued: datetime = NOW - DAY,
    expires: datetime = NOW + 30 * DAY,
) -> Signed[LayerApproval]:
    """An approval of one layer; with `chain`, on exactly the layers below it."""
    layer = facts.layers[index]
    approval = LayerApproval(
        level=level,
        diff_id=layer.diff_id,
        chain_id=layer.chain_id if chain else None,
        issued=issued,
        expires=expires,
    )
    return signed(approval, *signers)


def waive(
    *signers: Signer,
    rule: str = "vulnerabilities",
    advisory: str = "",
    component: str = "",
    scope: str = f"{REGISTRY}/**",
    issued: datetime = NOW - DAY,
    expires: datetime = NOW + 10 * DAY,
) -> Signed[Waiver]:
    """A waiver; by alice, if nobody is named."""
    statement = Waiver(
        rule=rule,
        advisory=advisory,
        component=component,
        scope=scope,
        owner="alice",
        reason="not reachable here",
        ticket="SEC-1",
        issued=issued,
        expires=expires,
    )
    return signed(statement, *(signers or (officer("alice"),)))


def withdraw(
    what: Signed[ImageApproval] | Signed[LayerApproval] | Signed[Waiver], *signers: Signer
) -> Signed[Withdrawal]:
    """The withdrawal of a statement; by carol, if nobody is named."""
    statement = Withdrawal(statement=what.digest, reason="found wrong", issued=NOW - timedelta(hours=1))
    return signed(statement, *(signers or (officer("carol"),)))


def revocations(
    *,
    digests: tuple[Digest, ...] = (),
    layers: tuple[Digest, ...] = (),
    components: tuple[str, ...] = (),
    keys: tuple[str, ...] = (),
    number: int = 7,
) -> Signed[RevocationList]:
    """A revocation list by two officers."""
    statement = RevocationList(
        number=number,
        digests=digests,
        layers=layers,
        components=components,
        keys=keys,
        reason="found hostile",
        issued=NOW - DAY,
    )
    return signed(statement, officer("alice"), officer("bob"))


def component(
    name: str = "flask", version: str = "3.1.0", *, kind: str = "pypi", licences: str = "BSD-3-Clause", layer: int = 1
) -> Component:
    """A component; of the application's layer and under a permissive licence, if nothing else is said."""
    namespace = "debian/" if kind == "deb" else ""
    return Component(
        purl=f"pkg:{kind}/{namespace}{name}@{version}",
        type=kind,
        name=name,
        version=version,
        licences=licences,
        layer=layer,
        location="var/lib/dpkg/status" if kind == "deb" else "app/METADATA",
        files=3,
    )


def advisory(
    purl: str = "pkg:pypi/flask@3.1.0",
    *,
    id: str = "GHSA-1",  # noqa: A002  # the field's name
    aliases: tuple[str, ...] = ("CVE-2026-1",),
    severity: Severity = Severity.CRITICAL,
    fixed_in: str = "3.1.1",
    exploited: bool = False,
    fixed_since: str = day(-60),
    published: str = day(-90),
    suppressed: str = "",
    state: FixState | None = None,
    layer: int = 1,
) -> Finding:
    """An advisory that meets a component; critical, and fixed two months ago, if nothing else is said."""
    return Finding(
        kind="advisory",
        id=id,
        purl=purl,
        layer=layer,
        summary="a hole",
        aliases=aliases,
        severity=severity,
        fix_state=state or (FixState.FIXED if fixed_in else FixState.NOT_FIXED),
        fixed_in=fixed_in,
        exploited=exploited,
        published=published,
        fixed_since=fixed_since if fixed_in else "",
        source="PyPI",
        suppressed=suppressed,
    )


def end_of_life(purl: str = "pkg:generic/debian@10", *, ended: str = day(-30), fixed_in: str = "") -> Finding:
    """A component past the end of its support."""
    return Finding(kind="end-of-life", id="debian 10", purl=purl, layer=0, ended=ended, fixed_in=fixed_in)


def unknown(code: str, subject: str = "usr/bin/thing", layer: int = 1) -> Unknown:
    """Something that the scanner could not tell."""
    return Unknown(code=code, subject=subject, detail=f"{subject}: {code}", layer=layer)


def change(path: str, *, kind: str = "replaced", owner: str = "pkg:deb/debian/openssl@3.5.0") -> FileChange:
    """A file of the base that the application's layer changed."""
    return FileChange(path=path, layer=1, lower_layer=0, kind=kind, owner=owner)


def data(age: timedelta = DAY) -> tuple[DataSource, ...]:
    """The records of a scan, imported `age` ago."""
    date = f"{NOW - age:%Y-%m-%dT%H:%M:%SZ}"
    names = ("osv Debian:13", "osv PyPI", "kev", "endoflife")
    return tuple(DataSource(name=name, digest=str(digest(name)), date=date, records=100) for name in names)


def evidence(facts: ImageFacts, **members: object) -> Evidence:
    """Evidence on an image about which nothing is known but that it was scanned, and that nothing is revoked."""
    plain = Evidence(
        image=facts,
        operating_system=OperatingSystem(id="debian", version_id="13"),
        components=(
            component("openssl", "3.5.0", kind="deb", licences="Apache-2.0", layer=0),
            component(),
        ),
        findings=(),
        unknowns=(),
        changes=(),
        changes_truncated=False,
        image_approvals=(),
        layer_approvals=(),
        waivers=(),
        revocations=revocations(),
        rejected=(),
        data=data(),
        scanner_version="1",
        errors=(),
        now=NOW,
    )
    return replace(plain, **members)  # type: ignore[arg-type]  # each test names members of Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An application on an approved base, and what clears it under the default policy."""

    app: ImageFacts
    base: ImageFacts
    base_approvals: tuple[Signed[ImageApproval], ...]
    app_approvals: tuple[Signed[ImageApproval], ...]
    layer_approvals: tuple[Signed[LayerApproval], ...]

    def evidence(self, **members: object) -> Evidence:
        """The evidence with all approvals, and these members in place of others."""
        known: dict[str, object] = {
            "image_approvals": (*self.base_approvals, *self.app_approvals),
            "layer_approvals": self.layer_approvals,
        }
        return evidence(self.app, **(known | members))


def case(*, config: ConfigFacts | None = None, by_layer: bool = False) -> Case:
    """A base of one layer by two officers, and an application on it by its team: as a whole, or by its layer alone.

    Where only the layer is approved, the config differs from the base's in what the default policy allows.
    """
    app, below = image(config=config or (LAYER_CONFIG if by_layer else APP_CONFIG)), base()
    return Case(
        app=app,
        base=below,
        base_approvals=(
            approve(below, "base", officer("alice")),
            approve(below, "base", officer("bob"), issued=NOW - 2 * DAY),
        ),
        app_approvals=() if by_layer else (approve(app, "application", team()),),
        layer_approvals=(approve_layer(app, 1, "application", team()),) if by_layer else (),
    )


def statements_of(found: Evidence) -> Iterable[Signed[Statement]]:
    """Every signed statement in `found`, for a verifier that believes just these."""
    groups: tuple[Iterable[Signed[Statement]], ...] = (
        found.image_approvals,
        found.layer_approvals,
        found.waivers,
        found.withdrawals,
        (found.revocations,) if found.revocations is not None else (),
    )
    return [each for group in groups for each in group]
