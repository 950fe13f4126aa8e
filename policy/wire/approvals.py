"""Approvals, waivers and withdrawals on the wire: what people and builds sign about images and layers."""

from __future__ import annotations

from typing import Final

from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.manifest import MAX_LAYERS
from ocispec.strictjson import JsonValue
from policy.globs import Glob
from policy.statements import ConfigFacts, ImageApproval, LayerApproval, Waiver, Withdrawal
from policy.times import format_time
from policy.wire.body import Body
from policy.wire.members import Members, texts_of

IMAGE_APPROVAL: Final = "urn:pratique:image-approval:v1"
LAYER_APPROVAL: Final = "urn:pratique:layer-approval:v1"
WAIVER: Final = "urn:pratique:waiver:v1"
WITHDRAWAL: Final = "urn:pratique:withdrawal:v1"

_MAX_ARGUMENTS: Final = 4096
_MAX_ARGUMENT: Final = 128 * 1024


def write_image(approval: ImageApproval) -> Body:
    """The subject is the image's manifest."""
    predicate: dict[str, JsonValue] = {
        "config": str(approval.config),
        "configFacts": write_facts(approval.config_facts),
        "diffIds": texts_of(approval.diff_ids),
        "expires": format_time(approval.expires),
        "format": approval.format,
        "issued": format_time(approval.issued),
        "level": approval.level,
        "platform": approval.platform,
        "reader": approval.reader,
        "rootIndex": str(approval.root_index),
    }
    return Body(name="manifest", digest=approval.manifest, predicate=predicate)


def read_image(_name: str, digest: Digest, members: Members) -> ImageApproval:
    """The approval that `write_image` wrote."""
    return ImageApproval(
        level=members.word("level"),
        manifest=digest,
        config=members.digest("config"),
        config_facts=read_facts(members.child("configFacts")),
        diff_ids=members.digests("diffIds", MAX_LAYERS),
        root_index=members.digest("rootIndex"),
        reader=members.number("reader"),
        format=members.number("format"),
        platform=members.platform("platform"),
        issued=members.time("issued"),
        expires=members.time("expires"),
    )


def write_layer(approval: LayerApproval) -> Body:
    """The subject is the layer's uncompressed tar."""
    predicate: dict[str, JsonValue] = {
        "expires": format_time(approval.expires),
        "issued": format_time(approval.issued),
        "level": approval.level,
    }
    if approval.chain_id is not None:
        predicate["chainId"] = str(approval.chain_id)
    return Body(name="diff_id", digest=approval.diff_id, predicate=predicate)


def read_layer(_name: str, digest: Digest, members: Members) -> LayerApproval:
    """The approval that `write_layer` wrote."""
    return LayerApproval(
        level=members.word("level"),
        diff_id=digest,
        chain_id=members.digest("chainId") if members.has("chainId") else None,
        issued=members.time("issued"),
        expires=members.time("expires"),
    )


def write_waiver(waiver: Waiver) -> Body:
    """A waiver is about no artifact: what it covers is in its fields."""
    predicate: dict[str, JsonValue] = {
        "advisory": waiver.advisory,
        "component": waiver.component,
        "expires": format_time(waiver.expires),
        "issued": format_time(waiver.issued),
        "owner": waiver.owner,
        "reason": waiver.reason,
        "rule": waiver.rule,
        "scope": waiver.scope,
        "ticket": waiver.ticket,
    }
    return Body(name="waiver", digest=None, predicate=predicate)


def read_waiver(_name: str, _digest: Digest, members: Members) -> Waiver:
    """The waiver that `write_waiver` wrote.

    Raises:
        SpecError: it waives every rule on every component, or has no rule, scope, owner or reason.
        PolicyError: component or scope is not a glob.
    """
    waiver = Waiver(
        rule=members.line("rule"),
        advisory=members.line("advisory"),
        component=members.line("component", 1024),
        scope=members.line("scope", 1024),
        owner=members.line("owner"),
        reason=members.line("reason", 4096),
        ticket=members.line("ticket"),
        issued=members.time("issued"),
        expires=members.time("expires"),
    )
    if waiver.rule == "*" and not waiver.advisory and not waiver.component:
        raise SpecError(f"{members.what}: rule * without advisory and component is a switch, not an exception")
    for name, value in (
        ("rule", waiver.rule),
        ("scope", waiver.scope),
        ("owner", waiver.owner),
        ("reason", waiver.reason),
    ):
        if not value.strip():
            raise SpecError(f"{members.what}: {name} is empty")
    for pattern in (waiver.component, waiver.scope):
        if pattern:
            Glob.compile(pattern)
    return waiver


def write_withdrawal(withdrawal: Withdrawal) -> Body:
    """The subject is the payload of the statement that no longer holds."""
    predicate: dict[str, JsonValue] = {"issued": format_time(withdrawal.issued), "reason": withdrawal.reason}
    return Body(name="statement", digest=withdrawal.statement, predicate=predicate)


def read_withdrawal(_name: str, digest: Digest, members: Members) -> Withdrawal:
    """The withdrawal that `write_withdrawal` wrote."""
    return Withdrawal(statement=digest, reason=members.line("reason", 4096), issued=members.time("issued"))


def write_facts(facts: ConfigFacts) -> dict[str, JsonValue]:
    """The config's fields that steer the process, each always there."""
    return {
        "cmd": texts_of(facts.cmd),
        "entrypoint": texts_of(facts.entrypoint),
        "env": texts_of(facts.env),
        "stopSignal": facts.stop_signal,
        "user": facts.user,
        "volumes": texts_of(facts.volumes),
        "workingDir": facts.working_dir,
    }


def read_facts(members: Members) -> ConfigFacts:
    """The facts that `write_facts` wrote."""
    facts = ConfigFacts(
        user=members.text("user"),
        env=members.texts("env", _MAX_ARGUMENTS, _MAX_ARGUMENT),
        entrypoint=members.texts("entrypoint", _MAX_ARGUMENTS, _MAX_ARGUMENT),
        cmd=members.texts("cmd", _MAX_ARGUMENTS, _MAX_ARGUMENT),
        working_dir=members.text("workingDir"),
        volumes=members.texts("volumes", _MAX_ARGUMENTS),
        stop_signal=members.text("stopSignal"),
    )
    members.end()
    return facts
