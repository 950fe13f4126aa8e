"""Builders for what is judged: a small policy, evidence on an image, and a place that holds statements."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from policy.evidence import Scan, gather
from policy.model import Evidence, ImageFacts
from policy.private_key import PrivateKey
from policy.seal import seal
from policy.statements import ImageApproval, LayerApproval, PolicyStatement, RevocationList, Statement, Waiver
from policy.trust import Trust
from scanner.model import Component, Inventory, OperatingSystem, Report
from tests.support import trust as builders
from tests.support.trust import Keyring

POLICY = """
format: pratique-policy/1
name: default
version: {version}
description: a small policy for tests
levels:
  - name: base
    needs_parent: false
    approval: {{accepts: image, image: [{{officer: 2}}]}}
  - name: application
    stands_on: [base]
    approval: {{accepts: either, image: [{{team: 1}}, {{officer: 1}}], layers: [{{team: 1}}, {{officer: 1}}]}}
    config: {{may_change: [env, working-dir, user]}}
rules:
  - rule: shadowing
  - rule: components
    deny: [{{purl: "pkg:deb/debian/bad", reason: known to be bad}}]
scan:
  unknowns:
    - {{code: unowned-executable, action: allow}}
    - {{code: no-operating-system, action: allow}}
    - {{code: no-end-of-life-date, action: allow}}
clearance: {{lifetime: 7d, renew_after: 84h}}
revocation: {{lifetime: 24h, offline_grace: 7d, required: {required}}}
start: {{levels: [base, application], platforms: [linux/amd64]}}
artifacts: ["application/vnd.example.*"]
"""
"""To be formatted with `version` and `required` (a revocation list)."""


def policy_document(version: int = 1, *, required: bool = True) -> bytes:
    """The small policy."""
    return POLICY.format(version=version, required=str(required).lower()).encode()


def published_policy(ring: Keyring, version: int = 1, *, now: datetime, required: bool = True) -> bytes:
    """The small policy, signed by two officers."""
    document = policy_document(version, required=required)
    return seal(PolicyStatement(name="default", version=version, document=document, issued=now), ring.alice, ring.bob)


def published_list(ring: Keyring, number: int = 1, *, now: datetime, **entries: tuple[object, ...]) -> bytes:
    """A revocation list of these entries, signed by two officers."""
    listed = {name: entries.get(name, ()) for name in ("digests", "layers", "components", "keys")}
    made = RevocationList(number=number, reason="found hostile", issued=now, **listed)  # type: ignore[arg-type]  # by name
    return seal(made, ring.alice, ring.bob)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heap:
    """A StatementSource: a heap of envelopes and a revocation list."""

    statements: tuple[bytes, ...] = ()
    revocations: bytes | None = None

    def envelopes(self, image: ImageFacts) -> Iterable[bytes]:
        """See `StatementSource`."""
        return self.statements

    def revocation_list(self) -> bytes | None:
        """See `StatementSource`."""
        return self.revocations


def report(*purls: str) -> Report:
    """A scan that found these components, and nothing wrong."""
    components = tuple(
        Component(
            purl=purl, type=purl[4:].partition("/")[0], name=purl.rpartition("/")[2].partition("@")[0], version="1"
        )
        for purl in purls
    )
    system = OperatingSystem(id="debian", version_id="13")
    taken = Inventory(operating_system=system, components=components, unknowns=())
    return Report(inventory=taken, findings=(), unknowns=(), data=(), scanner_version="test")


def evidence_on(image: ImageFacts, trust: Trust, heap: Heap, *, now: datetime, found: Report | None = None) -> Evidence:
    """The evidence on `image` from a heap of statements."""
    return gather(image, statements=heap, trust=trust, scan=Scan(report=found or report()), now=now)


def approve(image: ImageFacts, level: str, *keys: PrivateKey, now: datetime) -> bytes:
    """An approval of a whole image."""
    made = ImageApproval(
        level=level,
        manifest=image.manifest,
        config=image.config,
        config_facts=image.config_facts,
        diff_ids=tuple(layer.diff_id for layer in image.layers),
        root_index=image.root_index,
        reader=image.reader,
        format=image.format,
        platform=image.platform,
        issued=now - timedelta(minutes=1),
        expires=now + timedelta(days=30),
    )
    return seal(made, *keys)


def approve_layer(image: ImageFacts, position: int, level: str, *keys: PrivateKey, now: datetime) -> bytes:
    """An approval of one layer of an image, by chain ID."""
    layer = image.layers[position]
    made = LayerApproval(
        level=level,
        diff_id=layer.diff_id,
        chain_id=layer.chain_id,
        issued=now - timedelta(minutes=1),
        expires=now + timedelta(days=30),
    )
    return seal(made, *keys)


def waive(rule: str, scope: str, *keys: PrivateKey, now: datetime) -> bytes:
    """A waiver of a rule for every component in a scope."""
    made = Waiver(
        rule=rule,
        advisory="",
        component="pkg:**",
        scope=scope,
        owner="alice",
        reason="a test",
        ticket="T-1",
        issued=now - timedelta(minutes=1),
        expires=now + timedelta(days=1),
    )
    return seal(made, *keys)


def utc_now() -> datetime:
    """The time in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def wire_statement(envelope: bytes) -> Statement:
    """The statement in an envelope, whoever signed it."""
    return builders.read(envelope)
