"""Starts: each cause of a refusal under its own code, beside a control start that differs in the cause only."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ocispec.config import chain_ids
from policy.clearance import HostView, Verified, make_clearance, verify_clearance
from policy.evaluate import evaluate
from policy.hoststate import HostState, see_list, see_trust
from policy.load import default_document, load, load_verified
from policy.model import (
    Decision,
    HostFacts,
    ImageFacts,
    Outcome,
    Signed,
    StartEvidence,
    StartRequest,
    State,
)
from policy.seal import seal
from policy.settings import Policy, RunAction
from policy.start import evaluate_start, running_terms, start_evidence
from policy.statements import (
    Clearance,
    ConfigFacts,
    ImageApproval,
    LayerApproval,
    ListDate,
    PolicyStatement,
    ResolvedUser,
    Role,
)
from tests.support import trust as real
from tests.support.evidence import (
    APP_CONFIG,
    DAY,
    LAYER_CONFIG,
    NOW,
    advisory,
    approve,
    approve_layer,
    case,
    digest,
    image,
    officer,
    revocations,
    signed,
    team,
    waive,
)
from tests.support.policies import policy

POLICY = load_verified(default_document())
REQUEST = StartRequest(memory=256 * 2**20, pids=100)
THE = case()


def cleared(facts: ImageFacts = THE.app, under: Policy = POLICY, **members: Any) -> Signed[Clearance]:
    """A registry's clearance of an image for an hour ago, with these members in place of others."""
    diff_ids = tuple(layer.diff_id for layer in facts.layers)
    plain = Clearance(
        registry=facts.registry,
        repository=facts.repository,
        manifest=facts.manifest,
        config=facts.config,
        platform=facts.platform,
        level="application",
        state="cleared",
        diff_ids=diff_ids,
        chain_id=chain_ids(diff_ids)[-1],
        root_index=facts.root_index,
        reader=facts.reader,
        format=facts.format,
        user=facts.user or ResolvedUser(uid=1000, gid=1000),
        config_facts=facts.config_facts,
        policy_name=under.name,
        policy_version=under.version,
        policy_digest=under.digest,
        evidence=digest("evidence"),
        data=(),
        components=("pkg:pypi/flask@3.1.0", "pkg:deb/debian/openssl@3.5.0"),
        policy=b"policy",
        approvals=(b"approval",),
        waivers=(),
        issued=NOW - timedelta(hours=1),
        expires=NOW + 7 * DAY,
    )
    statement = replace(plain, **members)
    return Signed(statement=statement, signers=(), digest=digest("clearance"), envelope=b"clearance")


def dated(*, issued: timedelta = timedelta(hours=-2), lasts: timedelta = DAY) -> Signed[ListDate]:
    """The registry's date of the revocation list."""
    date = ListDate(list=digest("list"), number=7, issued=NOW + issued, expires=NOW + issued + lasts)
    return signed(date)


def start(clearance: Signed[Clearance] | None = None, **members: Any) -> StartEvidence:
    """The start of the cleared application, with these members in place of others."""
    clearance = clearance or cleared()
    plain = StartEvidence(
        clearance=clearance,
        manifest=clearance.statement.manifest,
        root_index=clearance.statement.root_index,
        request=REQUEST,
        host=HostFacts(platform="linux/amd64", policies=("default",), floor=1, highest_time=NOW - DAY, list_number=7),
        image_approvals=(*THE.base_approvals, *THE.app_approvals),
        layer_approvals=(),
        waivers=(),
        revocations=revocations(),
        list_date=dated(),
        rejected=(),
        now=NOW,
    )
    return replace(plain, **members)


def decide(found: StartEvidence, under: Policy = POLICY) -> Decision:
    """The Decision on a start."""
    return evaluate_start(under, found)


def codes(decision: Decision) -> list[str]:
    """The codes of the refusals."""
    return [verdict.reason for verdict in decision.refusals]


def host(**members: Any) -> HostFacts:
    """The host's facts with these in place of others."""
    return replace(start().host, **members)


def test_the_control_start_is_allowed() -> None:
    decision = decide(start())
    assert (decision.state, decision.level, decision.parent) == (State.CLEARED, "application", THE.base.manifest)
    assert [verdict.rule for verdict in decision.verdicts] == [
        *("clock", "revocation", "clearance", "hierarchy", "config"),
        *("level", "platform", "user", "waivers", "limits"),
    ]
    # The registry's date of the list, a day from two hours ago, and the grace of a week are the first to end.
    assert decision.valid_until == NOW + 7 * DAY - timedelta(hours=1)


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (start(manifest=digest("another")), "other-digest"),
        (start(root_index=digest("another")), "other-root-index"),
        (start(cleared(policy_digest=digest("another"))), "other-policy"),
        (start(cleared(policy_name="unheard-of")), "unknown-policy"),
        (start(host=host(floor=2)), "policy-below-floor"),
        (start(cleared(issued=NOW + timedelta(minutes=6))), "issued-in-future"),
        (start(cleared(expires=NOW)), "clearance-expired"),
        (start(cleared(issued=NOW - 8 * DAY)), "clearance-too-old"),
        (start(cleared(state="denied")), "state-not-startable"),
        (start(host=host(highest_time=NOW + timedelta(minutes=6))), "clock-set-back"),
        (start(revocations=None), "no-revocation-list"),
        (start(list_date=None), "no-revocation-list"),
        (start(host=host(list_number=8)), "number-went-back"),
        (start(list_date=dated(issued=-8 * DAY)), "revocation-list-expired"),
        (start(revocations=revocations(digests=(THE.app.manifest,))), "revoked"),
        (start(revocations=revocations(digests=(THE.base.manifest,))), "revoked"),
        (start(revocations=revocations(layers=(digest("debian"),))), "revoked"),
        (start(revocations=revocations(components=("pkg:pypi/flask",))), "revoked"),
        (start(image_approvals=THE.app_approvals), "no-approved-parent"),
        (start(image_approvals=THE.base_approvals), "layer-not-approved"),
        (start(cleared(level="middleware")), "level-not-reached"),
        (start(host=host(platform="linux/arm64")), "other-platform"),
        (
            start(cleared(user=ResolvedUser(uid=0, gid=0), config_facts=replace(APP_CONFIG, user="1000"))),
            "user-mismatch",
        ),
        (start(waivers=(waive(expires=NOW),)), "waiver-expired"),
        (start(waivers=(waive(officer("alice", "base")),)), "waiver-wrong-level"),
        (start(waivers=(waive(expires=NOW + 200 * DAY),)), "waiver-too-long"),
        (start(waivers=(waive(rule="hierarchy"),)), "waiver-not-possible"),
        (start(waivers=(waive(scope="elsewhere/**"),)), "waiver-out-of-scope"),
        (start(revocations=revocations(keys=(officer("bob").key,))), "parent-not-approved"),
    ],
)
def test_each_cause_is_refused_under_its_own_code(found: StartEvidence, code: str) -> None:
    decision = decide(found)
    assert not decision.allowed
    assert code in codes(decision)
    assert decide(start()).allowed


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (replace(REQUEST, memory=None), "memory-unlimited"),
        (replace(REQUEST, memory=2**40), "memory-over-cap"),
        (replace(REQUEST, memory=-1), "memory-over-cap"),
        (replace(REQUEST, pids=None), "pids-unlimited"),
        (replace(REQUEST, pids=5000), "pids-over-cap"),
        (replace(REQUEST, network="host"), "network-not-allowed"),
        (replace(REQUEST, capabilities=("CAP_SYS_ADMIN",)), "capability-not-allowed"),
        (replace(REQUEST, mounts=("/etc",)), "mount-not-allowed"),
        (replace(REQUEST, mounts=("/srv/../etc",)), "mount-not-allowed"),
        (replace(REQUEST, mounts=("/srv//etc",)), "mount-not-allowed"),
        (replace(REQUEST, mounts=("srv/x",)), "mount-not-allowed"),
        (replace(REQUEST, mounts=("/srv/x",), writable_mounts=("/srv/x",)), "writable-mount-not-allowed"),
        (replace(REQUEST, writable_mounts=("/srv/data/x",)), "writable-mount-not-allowed"),
        (replace(REQUEST, mounts=("/srv/x",), executable_mounts=("/srv/x",)), "executable-mount-not-allowed"),
        (replace(REQUEST, user_override=True), "user-override"),
        (replace(REQUEST, command_override=True), "command-override"),
    ],
)
def test_what_is_asked_for_stays_within_the_caps(request_: StartRequest, code: str) -> None:
    assert codes(decide(start(request=request_))) == [code]


def test_what_the_policy_allows_may_be_asked_for() -> None:
    asked = replace(
        REQUEST,
        writable=True,
        capabilities=("CAP_NET_BIND_SERVICE",),
        mounts=("/srv/x", "/srv/data/y"),
        writable_mounts=("/srv/data/y",),
    )
    assert decide(start(request=asked)).allowed
    caps = {"levels": ["application"], "cpus_milli": 500, "writable": False}
    under = policy(start=caps)
    clearance = cleared(under=under)
    refused = decide(start(clearance, request=replace(REQUEST, writable=True, cpus_milli=501)), under)
    assert codes(refused) == ["cpus-over-cap", "writable-not-allowed"]
    # No cap on memory and processes: none need be asked for.
    assert decide(start(clearance, request=StartRequest(cpus_milli=500)), under).allowed


def test_levels_and_platforms_are_the_policy_s() -> None:
    under = policy(start={"levels": ["middleware"], "platforms": ["linux/arm64"]})
    assert codes(decide(start(cleared(under=under)), under)) == ["level-not-startable", "platform-not-allowed"]


def test_in_the_offline_grace_it_starts_with_a_warning() -> None:
    decision = decide(start(list_date=dated(issued=-2 * DAY)))
    assert decision.state is State.WARNING
    (verdict,) = [one for one in decision.verdicts if one.note == "warning"]
    assert (verdict.reason, verdict.until) == ("revocation-list-expired", NOW + 6 * DAY)
    assert decision.valid_until == NOW + 6 * DAY


def test_a_clearance_in_grace_starts_as_that() -> None:
    assert decide(start(cleared(state="grace"))).state is State.GRACE


def test_of_two_places_the_one_that_was_cleared_is_taken() -> None:
    """The base's layers under another config stand at the base's level, and, approved, at the application's too."""
    app = image("debian", config=APP_CONFIG)
    found = start(cleared(app), image_approvals=(*THE.base_approvals, approve(app, "application", team())))
    assert decide(found).allowed


# A stolen registry key: it signs what it likes, but not the approvals.


def test_s11_a_stolen_registry_key_does_not_clear_another_entrypoint() -> None:
    forged = image(config=replace(LAYER_CONFIG, entrypoint=("/bin/sh", "-c", "evil")))
    layer = approve_layer(image(config=LAYER_CONFIG), 1, "application", team())
    decision = decide(start(cleared(forged), image_approvals=THE.base_approvals, layer_approvals=(layer,)))
    assert codes(decision) == ["config-not-approved"]
    control = image(config=LAYER_CONFIG)
    assert decide(start(cleared(control), image_approvals=THE.base_approvals, layer_approvals=(layer,))).allowed


def test_s12_a_stolen_registry_key_does_not_clear_another_tree() -> None:
    """The approval names the root index, so the same layers under another index are not what was approved."""
    forged = cleared(root_index=digest("another tree"))
    assert codes(decide(start(forged)))[:2] == ["approval-root-index", "layer-not-approved"]


def test_s12_an_approval_that_the_registry_signed_itself_counts_for_nothing() -> None:
    registry = replace(team(), role=Role.REGISTRY, owner="registry")
    own = approve(THE.app, "application", registry)
    assert codes(decide(start(image_approvals=(*THE.base_approvals, own))))[0] == "approval-wrong-role"


def test_a_stolen_registry_key_makes_nobody_root() -> None:
    """A user that is a number, or none at all, needs nobody's looking up."""
    facts = ConfigFacts(user="", entrypoint=("/app/serve",))
    app = image(config=facts, uid=0)
    approvals = (*THE.base_approvals, approve(app, "application", team()))
    assert decide(start(cleared(app), image_approvals=approvals)).allowed
    other = start(cleared(app, user=ResolvedUser(uid=5, gid=5)), image_approvals=approvals)
    assert codes(decide(other)) == ["user-mismatch"]


def test_a_rule_that_breaks_is_a_refusal() -> None:
    absurd = start(cleared(config_facts=replace(APP_CONFIG, user="9" * 5000)))
    user = next(verdict for verdict in decide(absurd).refusals if verdict.rule == "user")
    assert (user.outcome, user.reason) == (Outcome.UNKNOWN, "rule-failed")


# What happens to what runs.


@pytest.mark.parametrize(
    ("found", "action"),
    [
        (start(), None),
        (start(revocations=revocations(digests=(THE.base.manifest,))), RunAction.KILL),
        (start(cleared(expires=NOW)), RunAction.STOP),
        (start(list_date=dated(issued=-9 * DAY)), RunAction.STOP),
        (start(host=host(floor=2)), RunAction.FREEZE),
        (start(cleared(expires=NOW), host=host(floor=2)), RunAction.FREEZE),
    ],
)
def test_what_runs_is_stopped_as_the_policy_says(found: StartEvidence, action: RunAction | None) -> None:
    running = {
        "revoked": {"action": "kill"},
        "denied": {"action": "freeze", "after": "1h"},
        "expired": {"action": "stop", "after": "24h"},
    }
    under = replace(POLICY, running=policy(running=running).running)
    terms = running_terms(under, decide(found, under))
    assert (terms.action if terms is not None else None) is action


# The whole way with real keys.


def test_from_decision_to_clearance_to_start_with_real_keys() -> None:
    ring = real.keyring()
    full = load(default_document())
    app, below = real.image_facts(), real.image_facts(layers=("base layer",), name="base")
    trust = ring.trust
    images = (
        trust.verify(seal(real.image_approval(below, "base"), ring.alice, ring.bob), ImageApproval, real.NOW),
        trust.verify(seal(real.image_approval(app), ring.team), ImageApproval, real.NOW),
    )
    layer = trust.verify(seal(real.layer_approval(app.layers[1]), ring.team), LayerApproval, real.NOW)
    found = case().evidence(
        image=app,
        image_approvals=images,
        layer_approvals=(layer,),
        waivers=(),
        findings=(advisory(fixed_in=""),),
    )
    decision = evaluate(full, found)
    assert (decision.state, decision.refusals) == (State.WARNING, ())
    published = trust.verify(
        seal(real.policy_statement(default_document(), version=1), ring.alice, ring.bob), PolicyStatement, real.NOW
    )
    clearance = make_clearance(
        image=app,
        decision=decision,
        policy=published,
        statements=(*images, layer),
        components=("pkg:pypi/flask@3.1.0",),
        data=(),
        issued=real.NOW,
        lifetime=full.clearance.lifetime,
    )
    current = real.current_list(ring)
    view = HostView(
        trust=trust,
        revocations=current,
        state=see_list(see_trust(HostState(), trust, real.NOW), current, real.NOW),
        formats=real.FORMATS,
    )
    envelope = seal(clearance, ring.registry)
    verified = verify_clearance(envelope, subject=real.subject_of(app), host=view, now=real.NOW)
    assert isinstance(verified, Verified)
    started = evaluate_start(
        load_verified(verified.policy.statement.document),
        start_evidence(
            verified, host=view, platform="linux/amd64", root_index=app.root_index, request=REQUEST, now=real.NOW
        ),
    )
    assert (started.state, started.refusals) == (State.WARNING, ())
    # The approval of the image suffices; that of its layer alone was not needed, and is not embedded.
    assert layer.digest not in decision.rests_on
