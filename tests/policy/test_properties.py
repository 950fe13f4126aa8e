"""Properties that hold for any evidence: more against an image never helps it, nor less for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from policy.codec import decode_evidence, encode_evidence
from policy.evaluate import evaluate
from policy.load import load
from policy.model import Decision, Evidence, Outcome, Signed
from policy.statements import ConfigFacts, ImageApproval, LayerApproval, Statement, Waiver
from scanner.model import Component, Finding, FixState, Severity, Unknown
from tests.support.evidence import (
    APP_CONFIG,
    BASE_CONFIG,
    DAY,
    LAYER_CONFIG,
    NOW,
    approve,
    approve_layer,
    base,
    change,
    component,
    data,
    day,
    digest,
    evidence,
    image,
    officer,
    revocations,
    statements_of,
    team,
    waive,
    withdraw,
)
from tests.support.policies import document

PROPERTY: Callable[[Any], Any] = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
"""No example is timed: the machine may be busy."""


@cache
def _policy() -> Any:
    return load(document())


CONFIGS = (APP_CONFIG, BASE_CONFIG, LAYER_CONFIG, ConfigFacts(env=("LD_PRELOAD=x",)))
STACKS = (("debian", "app"), ("debian", "python", "app"), ("debian", "python"), ("debian",))
PEOPLE = (officer("alice"), officer("bob"), team(), team("ops", "application", "base"))
FACTS = [
    image(*stack, config=config, database=database)
    for stack in STACKS
    for config in CONFIGS[:3]
    for database in ((0,), (0, 1))
]
PARENTS = [
    base(),
    base(name="other base", config=CONFIGS[3]),
    base("debian", "python", name="middle"),
    base("debian", "python", "app", name="whole"),
    *FACTS[:6],
]

LEVEL = st.sampled_from(("base", "middleware", "application"))
SIGNERS = st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=3, unique=True)
ENDS = st.sampled_from((NOW - DAY, NOW, NOW + timedelta(seconds=1), NOW + 30 * DAY))


@st.composite
def image_approvals(draw: st.DrawFn) -> Signed[ImageApproval]:
    """An approval of some image by some people for some level, mostly good ones."""
    facts = draw(st.sampled_from(PARENTS))
    good = draw(st.integers(0, 3)) > 0
    if good:
        level = {1: "base", 2: "middleware"}.get(len(facts.layers), "application")
        return approve(facts, level, *(PEOPLE[:3] if level != "application" else PEOPLE[2:3]))
    return approve(facts, draw(LEVEL), *draw(SIGNERS), expires=draw(ENDS), issued=NOW - 2 * DAY)


@st.composite
def layer_approvals(draw: st.DrawFn) -> Signed[LayerApproval]:
    """An approval of one layer of some image."""
    facts = draw(st.sampled_from(FACTS))
    index = draw(st.integers(0, len(facts.layers) - 1))
    return approve_layer(
        facts, index, draw(LEVEL), *draw(SIGNERS), chain=draw(st.booleans()), expires=draw(ENDS), issued=NOW - 2 * DAY
    )


FINDINGS = st.builds(
    Finding,
    kind=st.sampled_from(("advisory", "end-of-life")),
    id=st.sampled_from(("GHSA-1", "GHSA-2")),
    purl=st.sampled_from(("pkg:pypi/flask@3.1.0", "pkg:deb/debian/openssl@3.5.0")),
    layer=st.integers(0, 2),
    aliases=st.sampled_from(((), ("CVE-2026-1",))),
    severity=st.sampled_from(Severity),
    fix_state=st.sampled_from(FixState),
    fixed_in=st.sampled_from(("", "9.9")),
    exploited=st.booleans(),
    published=st.sampled_from(("", day(-400), day(-5))),
    fixed_since=st.sampled_from(("", day(-400), day(-5), day(5))),
    ended=st.sampled_from(("", day(-5), day(5))),
    suppressed=st.sampled_from(("", "", "so")),
)
COMPONENTS: st.SearchStrategy[Component] = st.builds(
    component,
    st.sampled_from(("flask", "xz-utils")),
    st.sampled_from(("3.1.0", "5.6.1-1", "not a version")),
    kind=st.sampled_from(("pypi", "deb")),
    licences=st.sampled_from(("MIT", "", "SSPL-1.0", "MIT OR SSPL-1.0", "nonsense")),
    layer=st.integers(0, 2),
)
UNKNOWNS = st.builds(
    Unknown,
    code=st.sampled_from(("unreadable-record", "unowned-executable", "unreadable-licence", "new")),
    subject=st.sampled_from(("a", "b")),
    detail=st.just("so"),
    layer=st.integers(0, 1),
)
CHANGES = st.builds(
    lambda path, layer, lower, owner, kind: replace(
        change(path, kind=kind, owner=owner), layer=max(layer, lower + 1), lower_layer=lower
    ),
    st.sampled_from(("usr/bin/openssl", "etc/ld.so.preload", "etc/passwd")),
    st.integers(1, 2),
    st.integers(0, 1),
    st.sampled_from(("", "pkg:deb/debian/openssl@3.5.0")),
    st.sampled_from(("replaced", "removed", "metadata")),
)
WAIVERS: st.SearchStrategy[Signed[Waiver]] = st.builds(
    lambda signers, rule, advisory, expires: waive(
        *signers, rule=rule, advisory=advisory, expires=expires, issued=NOW - 2 * DAY
    ),
    SIGNERS,
    st.sampled_from(("exploited", "vulnerabilities", "end-of-life", "licences", "shadowing", "unknowns", "account")),
    st.sampled_from(("", "GHSA-1", "CVE-2026-1")),
    ENDS,
)


@st.composite
def evidences(draw: st.DrawFn) -> Evidence:
    """Any evidence on one of a few images, rarely with much against it: both outcomes must be met."""
    few: dict[str, Any] = {"max_size": draw(st.integers(0, 2))}
    return evidence(
        draw(st.sampled_from(FACTS)),
        components=tuple(draw(st.lists(COMPONENTS, **few))),
        findings=tuple(draw(st.lists(FINDINGS, **few))),
        unknowns=tuple(draw(st.lists(UNKNOWNS, **few))),
        changes=tuple(draw(st.lists(CHANGES, **few))),
        image_approvals=tuple(draw(st.lists(image_approvals(), max_size=6))),
        layer_approvals=tuple(draw(st.lists(layer_approvals(), max_size=4))),
        waivers=tuple(draw(st.lists(WAIVERS, max_size=2))),
    )


def changed(found: Evidence, **members: Any) -> Evidence:
    """The evidence with these members in place of its own."""
    return replace(found, **members)


def decide(found: Evidence) -> Decision:
    """The Decision under the default policy."""
    return evaluate(_policy(), found)


def _one_less(draw: st.DataObject, items: tuple[Any, ...]) -> tuple[Any, ...]:
    assume(items)
    gone = draw.draw(st.integers(0, len(items) - 1))
    return items[:gone] + items[gone + 1 :]


@PROPERTY
@given(evidences(), FINDINGS | COMPONENTS | UNKNOWNS | CHANGES)
def test_one_more_finding_never_turns_deny_into_allow(found: Evidence, more: object) -> None:
    place = {Finding: "findings", Component: "components", Unknown: "unknowns"}.get(type(more), "changes")
    worse = changed(found, **{place: (*getattr(found, place), more)})
    assert decide(found).allowed or not decide(worse).allowed


@PROPERTY
@given(evidences(), st.data())
def test_one_approval_less_never_turns_deny_into_allow(found: Evidence, draw: st.DataObject) -> None:
    place = draw.draw(st.sampled_from(("image_approvals", "layer_approvals")))
    less = changed(found, **{place: _one_less(draw, getattr(found, place))})
    assert decide(found).allowed or not decide(less).allowed


@PROPERTY
@given(evidences(), st.data())
def test_one_waiver_less_never_turns_deny_into_allow(found: Evidence, draw: st.DataObject) -> None:
    less = replace(found, waivers=_one_less(draw, found.waivers))
    assert decide(found).allowed or not decide(less).allowed


@PROPERTY
@given(evidences(), st.data())
def test_a_withdrawal_or_a_revoked_key_never_turns_deny_into_allow(found: Evidence, draw: st.DataObject) -> None:
    signed: list[Any] = [*found.image_approvals, *found.layer_approvals, *found.waivers]
    assume(signed)
    what = draw.draw(st.sampled_from(signed))
    for worse in (
        replace(found, withdrawals=(withdraw(what),)),
        replace(found, revocations=revocations(keys=(what.signers[0].key,))),
        replace(found, revocations=revocations(digests=(found.image.layers[-1].chain_id,))),
    ):
        assert decide(found).allowed or not decide(worse).allowed


@PROPERTY
@given(evidences())
def test_what_is_unknown_is_never_allowed(found: Evidence) -> None:
    decision = decide(found)
    if any(verdict.outcome is not Outcome.ALLOW for verdict in decision.verdicts):
        assert not decision.allowed
    assert not decide(replace(found, errors=("crashed",))).allowed
    assert not decide(replace(found, data=())).allowed
    assert not decide(replace(found, unknowns=(*found.unknowns, Unknown(code="new", subject="x", detail="y")))).allowed


@PROPERTY
@given(evidences(), st.sampled_from((timedelta(0), timedelta(seconds=1), DAY, 31 * DAY)))
def test_an_allow_rests_on_nothing_that_has_ended(found: Evidence, later: timedelta) -> None:
    """S9, of approvals too: what a Decision rests on was in force at its time, and its end is the first of theirs."""
    now = NOW + later
    decision = decide(replace(found, now=now, data=data(-later)))
    if decision.allowed:
        signed: list[Any] = [*found.image_approvals, *found.layer_approvals, *found.waivers]
        ends = {each.digest: each.statement.expires for each in signed}
        assert all(now < ends[digest] for digest in decision.rests_on)
        assert decision.valid_until is not None
        assert now < decision.valid_until <= min(ends[digest] for digest in decision.rests_on)


@PROPERTY
@given(evidences(), st.randoms(use_true_random=False))
def test_the_order_of_evidence_does_not_matter(found: Evidence, random: Any) -> None:
    members = ("components", "findings", "unknowns", "changes", "image_approvals", "layer_approvals", "waivers", "data")
    shuffled = changed(
        found, **{name: tuple(random.sample(getattr(found, name), len(getattr(found, name)))) for name in members}
    )
    one, other = decide(found), decide(shuffled)
    assert replace(one, evidence=digest("")) == replace(other, evidence=digest(""))


@PROPERTY
@given(evidences())
def test_a_decision_is_the_same_each_time_and_after_a_journey_as_json(found: Evidence) -> None:
    believed = {signed.envelope: signed for signed in statements_of(found)}

    def verify(envelope: bytes) -> Signed[Statement]:
        return believed[envelope]

    raw = encode_evidence(found)
    again = decode_evidence(raw, verify)
    assert again == found
    assert decide(again) == decide(found)


def test_the_examples_meet_both_outcomes() -> None:
    """The properties say nothing if nothing is ever allowed."""
    seen = set()

    @settings(deadline=None, max_examples=200, derandomize=True, database=None)
    @given(evidences())
    def collect(found: Evidence) -> None:
        seen.add(decide(found).allowed)

    collect()
    assert seen == {True, False}
