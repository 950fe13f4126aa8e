"""Where an image stands: by content and signatures, whatever its labels say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from ocispec.digest import Digest
from policy.approvals import Counting
from policy.hierarchy import MAX_APPROVALS, Standing, Subject, place
from policy.load import default_document, load
from policy.model import ImageFacts, LayerFacts, Signed, Signer
from policy.parents import is_empty_layer, same_platform
from policy.settings import Accepts, Chain, Level, Quorum
from policy.statements import ConfigFacts, ImageApproval, LayerApproval, Role, Withdrawal
from tests.support.evidence import (
    BASE_CONFIG,
    DAY,
    NOW,
    REGISTRY,
    REPOSITORY,
    approve,
    approve_layer,
    base,
    digest,
    image,
    officer,
    revocations,
    team,
    withdraw,
)

POLICY = load(default_document())
ALICE, BOB = officer("alice"), officer("bob")


def subject(facts: ImageFacts) -> Subject:
    """The image as the hierarchy sees it."""
    return Subject(
        manifest=facts.manifest,
        config=facts.config,
        config_facts=facts.config_facts,
        platform=facts.platform,
        layers=facts.layers,
        root_index=facts.root_index,
        reader=facts.reader,
        format=facts.format,
    )


def standings(
    facts: ImageFacts,
    images: Iterable[Signed[ImageApproval]] = (),
    layers: Iterable[Signed[LayerApproval]] = (),
    *,
    levels: Sequence[Level] = POLICY.levels,
    withdrawals: Iterable[Signed[Withdrawal]] = (),
    revoked_keys: tuple[str, ...] = (),
    revoked: tuple[Digest, ...] = (),
) -> tuple[Standing, ...]:
    """Every place of an image."""
    counting = Counting.of(
        now=NOW,
        repository=f"{REGISTRY}/{REPOSITORY}",
        withdrawals=withdrawals,
        revocations=revocations(keys=revoked_keys, digests=revoked),
    )
    return place(levels, subject(facts), images, layers, counting)


def reasons(standing: Standing) -> list[str]:
    """The reasons that keep an image from its place."""
    return [refusal.reason for refusal in standing.refusals]


def level(name: str, **changes: object) -> tuple[Level, ...]:
    """The default levels, one of them changed: its own members, or its approval's."""
    changed = []
    for one in POLICY.levels:
        if one.name == name:
            own = {key: value for key, value in changes.items() if key in {"stands_on", "needs_parent"}}
            terms = {key: value for key, value in changes.items() if key not in own}
            approval = replace(one.approval, **terms)  # type: ignore[arg-type]  # named above
            changed.append(replace(one, approval=approval, **own))  # type: ignore[arg-type]  # named above
        else:
            changed.append(one)
    return tuple(changed)


def approved_base(*layers: str, name: str = "base", config: ConfigFacts = BASE_CONFIG) -> list[Signed[ImageApproval]]:
    """A base that two officers approved."""
    return [approve(base(*layers, name=name, config=config), "base", ALICE, BOB)]


# What holds.


def test_a_base_stands_on_nothing_by_two_officers() -> None:
    (standing,) = standings(base(), approved_base())
    assert standing.level is not None
    assert (standing.level.name, standing.parent, standing.refusals) == ("base", None, ())
    assert standing.config_approved
    assert standing.how == "image approved by officer alice, officer bob"


def test_two_envelopes_count_like_one_with_two_signatures() -> None:
    apart = [approve(base(), "base", ALICE), approve(base(), "base", BOB, issued=NOW - 2 * DAY)]
    (standing,) = standings(base(), apart)
    assert not standing.refusals
    assert set(standing.rests_on) == {signed.digest for signed in apart}


def test_an_application_continues_the_longest_approved_image() -> None:
    app = image("debian", "python", "app")
    middle = base("debian", "python", name="middle")
    found = standings(
        app, [*approved_base(), approve(middle, "middleware", ALICE)], [approve_layer(app, 2, "application", team())]
    )
    first = found[0]
    assert first.level is not None
    assert first.parent is not None
    assert (first.level.name, first.parent.level.name, first.own_from) == ("application", "middleware", 2)
    assert [parent.level.name for parent in first.parent.chain] == ["middleware", "base"]
    assert len(first.rests_on) == 3


def test_each_own_layer_may_be_approved_by_itself_at_its_own_level() -> None:
    app = image("debian", "python", "app")
    layers = [approve_layer(app, 1, "middleware", ALICE), approve_layer(app, 2, "application", team())]
    (standing,) = standings(app, approved_base(), layers)
    assert standing.level is not None
    assert (standing.level.name, standing.own_from, standing.config_approved) == ("application", 1, False)
    assert standing.how == "each own layer approved by alice, web"


def test_the_end_is_that_of_the_first_approval_without_which_it_does_not_stand() -> None:
    app = image()
    images = [
        approve(base(), "base", ALICE, expires=NOW + 20 * DAY),
        approve(base(), "base", BOB, expires=NOW + 9 * DAY),
        approve(base(), "base", officer("carol"), expires=NOW + 15 * DAY),
        approve(app, "application", team(), expires=NOW + 30 * DAY),
    ]
    (standing,) = standings(app, images)
    # Alice and carol suffice, and last longer than bob.
    assert standing.ends == NOW + 15 * DAY
    assert images[1].digest not in standing.rests_on


def test_an_end_may_be_the_level_s_own() -> None:
    old = [approve(base(), "base", ALICE, BOB, issued=NOW - 364 * DAY, expires=NOW + 900 * DAY)]
    (standing,) = standings(base(), old)
    assert standing.ends == NOW + DAY


# Attack S8: a base that is none.


def test_s8_a_label_makes_no_parent() -> None:
    """Nothing of labels, annotations or history is in what the hierarchy sees; a claim is a claim of nobody."""
    assert not {"labels", "annotations", "history"} & set(Subject.__dataclass_fields__)
    app = image("other", "app")
    (standing,) = standings(app, [*approved_base(), approve(app, "application", team())])
    assert reasons(standing) == ["no-approved-parent"]
    assert "first of its 2 layers" in standing.refusals[0].message


def test_s8_a_squashed_image_has_no_parent() -> None:
    squashed = image("debian and app in one layer")
    (standing,) = standings(squashed, [*approved_base(), approve(squashed, "application", team())])
    assert reasons(standing) == ["no-approved-parent"]


@pytest.mark.parametrize("layers", [("app", "debian"), ("x", "debian", "app"), ("debia", "n", "app")])
def test_s8_the_parent_s_layers_elsewhere_than_at_the_bottom_are_no_prefix(layers: tuple[str, ...]) -> None:
    app = image(*layers)
    (standing,) = standings(app, [*approved_base(), approve(app, "application", team())])
    assert "no-approved-parent" in reasons(standing)


def test_s8_an_inserted_empty_layer_breaks_the_prefix() -> None:
    app = image("debian", "app")
    empty = LayerFacts(
        diff_id=Digest.of(bytes(1024)), chain_id=Digest.of(bytes(1024)), size=1024, writes_package_database=False
    )
    shifted = replace(app, layers=(empty, *app.layers))
    (standing,) = standings(shifted, approved_base())
    assert reasons(standing) == ["no-approved-parent"]


def test_s8_an_image_of_empty_layers_is_nobody_s_parent() -> None:
    empty = Digest.of(bytes(1024))
    assert is_empty_layer(empty)
    assert is_empty_layer(Digest.of(bytes(10240)))
    assert not is_empty_layer(digest("debian"))
    nothing = replace(
        base(),
        layers=(LayerFacts(diff_id=empty, chain_id=empty, size=1024, writes_package_database=False),),
    )
    app = image("x", "app")
    on_nothing = replace(app, layers=(nothing.layers[0], app.layers[1]))
    (standing,) = standings(
        on_nothing, [approve(nothing, "base", ALICE, BOB), approve(on_nothing, "application", team())]
    )
    assert reasons(standing) == ["no-approved-parent"]


def test_s8_an_approval_without_layers_is_a_prefix_of_nothing() -> None:
    scratch = replace(base(), layers=())
    (standing,) = standings(image(), [approve(scratch, "base", ALICE, BOB)])
    assert reasons(standing) == ["no-approved-parent"]


def test_s8_an_image_without_layers_stands_nowhere() -> None:
    scratch = replace(base(), layers=())
    (standing,) = standings(scratch, [approve(scratch, "base", ALICE, BOB)])
    assert reasons(standing) == ["no-layers"]


def test_s8_a_parent_of_another_platform_is_none() -> None:
    foreign = replace(base(), platform="linux/arm64")
    app = image()
    (standing,) = standings(app, [approve(foreign, "base", ALICE, BOB), approve(app, "application", team())])
    assert reasons(standing) == ["no-approved-parent"]


def test_s8_a_config_that_says_another_platform_is_not_what_was_approved() -> None:
    app = image()
    other = replace(app, platform="linux/arm64")
    (standing,) = standings(other, [approve(app, "application", team())])
    assert "approval-other-platform" in reasons(standing)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/amd64", "linux/amd64", True),
        ("linux/amd64", "linux/arm64", False),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("linux", "linux", False),
        ("", "", False),
    ],
)
def test_platforms_are_compared_as_everywhere(one: str, other: str, same: bool) -> None:
    assert same_platform(one, other) is same


def test_s8_the_parent_s_layers_under_another_config_are_at_its_level_and_the_config_decides() -> None:
    relabelled = image("debian", name="relabelled", config=ConfigFacts(entrypoint=("/bin/evil",)))
    (standing,) = standings(relabelled, approved_base())
    assert standing.level is not None
    assert standing.parent is not None
    assert (standing.level.name, standing.own_from, standing.config_approved) == ("base", 1, False)


def test_s8_a_parent_needs_its_own_parent() -> None:
    """A middleware image that stands on no approved base carries nothing."""
    app = image("debian", "python", "app")
    middle = base("debian", "python", name="middle")
    images = [approve(middle, "middleware", ALICE), approve(app, "application", team())]
    (standing,) = standings(app, images)
    assert reasons(standing) == ["parent-not-approved"]
    assert "its own parent" in standing.refusals[0].message


def test_a_parent_whose_layers_must_be_approved_as_well() -> None:
    levels = level("middleware", accepts=Accepts.BOTH)
    middle = base("debian", "python", name="middle")
    app = image("debian", "python", "app")
    images = [*approved_base(), approve(middle, "middleware", ALICE), approve(app, "application", team())]
    without = standings(app, images, levels=levels)[0]
    assert without.own_from == 1
    with_layer = standings(app, images, [approve_layer(middle, 1, "middleware", BOB)], levels=levels)[0]
    assert with_layer.own_from == 2
    assert len(with_layer.rests_on) == 4


# Quorums.


def test_one_person_with_two_keys_is_one() -> None:
    twice = [
        approve(base(), "base", ALICE, Signer(key="another key", role=Role.OFFICER, owner="alice", levels=("base",)))
    ]
    (standing,) = standings(base(), twice)
    assert reasons(standing) == ["quorum-not-met"]
    assert "wants 2 officers; counted: alice (officer)" in standing.refusals[0].message


def test_one_person_in_two_roles_is_one() -> None:
    quorum = Quorum(((Role.OFFICER, 1), (Role.TEAM, 1)))
    assert not quorum.met_by([(Role.OFFICER, "alice"), (Role.TEAM, "alice")])
    assert quorum.met_by([(Role.OFFICER, "alice"), (Role.TEAM, "alice"), (Role.TEAM, "web")])
    assert not Quorum(()).met_by([(Role.OFFICER, "alice")])
    assert str(quorum) == "1 officer and 1 team"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"expires": NOW}, "approval-expired"),
        ({"issued": NOW + timedelta(minutes=6), "expires": NOW + DAY}, "approval-not-yet-valid"),
        ({"issued": NOW - 366 * DAY, "expires": NOW + DAY}, "approval-too-old"),
    ],
)
def test_an_approval_out_of_time_does_not_count(change: dict[str, object], code: str) -> None:
    late = [approve(base(), "base", ALICE, BOB, **change)]  # type: ignore[arg-type]  # times by name
    (standing,) = standings(base(), late)
    assert reasons(standing) == [code]


@pytest.mark.parametrize(
    ("signer", "code"),
    [
        (team("web", "base"), "approval-wrong-role"),
        (Signer(key="r", role=Role.REGISTRY, owner="registry", levels=("base",)), "approval-wrong-role"),
        (Signer(key="r", role=Role.ROOT, owner="root", levels=("base",)), "approval-wrong-role"),
        (officer("alice", "application"), "approval-wrong-level"),
    ],
)
def test_who_may_not_sign_does_not_count(signer: Signer, code: str) -> None:
    (standing,) = standings(base(), [approve(base(), "base", signer)])
    assert reasons(standing) == [code]
    assert "counted: none" in standing.refusals[0].message


def test_an_approval_that_nobody_signed_does_not_count() -> None:
    (standing,) = standings(base(), [approve(base(), "base")])
    assert reasons(standing) == ["approval-unsigned"]


def test_a_team_counts_where_the_policy_lets_it() -> None:
    raw = default_document().replace(
        b"      max_age: 180d\n", b"      teams: [{owner: 'web-*', repositories: ['*/web/**']}]\n"
    )
    levels = load(raw).levels
    app = image()
    (standing,) = standings(app, [*approved_base(), approve(app, "application", team("web-shop"))], levels=levels)
    assert reasons(standing)[0] == "approval-wrong-team"
    assert f"may not approve for {REGISTRY}/{REPOSITORY}" in standing.refusals[0].message


@pytest.mark.parametrize("who", [officer("carol"), team()])
def test_a_withdrawn_approval_does_not_count(who: Signer) -> None:
    """An officer may withdraw what anybody signed, and each owner what they signed themselves."""
    app = image()
    approval = approve(app, "application", team())
    (standing,) = standings(app, [*approved_base(), approval], withdrawals=[withdraw(approval, who)])
    assert reasons(standing)[0] == "approval-withdrawn"


def test_another_team_withdraws_nothing() -> None:
    app = image()
    approval = approve(app, "application", team())
    found = standings(app, [*approved_base(), approval], withdrawals=[withdraw(approval, team("rival"))])
    assert not found[0].refusals


def test_a_revoked_key_does_not_count() -> None:
    (standing,) = standings(base(), approved_base(), revoked_keys=(BOB.key,))
    assert reasons(standing) == ["quorum-not-met"]
    (standing,) = standings(base(), approved_base(), revoked_keys=(ALICE.key, BOB.key))
    assert reasons(standing) == ["approval-revoked-key"]


def test_a_revoked_statement_does_not_count() -> None:
    approvals = approved_base()
    (standing,) = standings(base(), approvals, revoked=(approvals[0].digest,))
    assert reasons(standing) == ["approval-revoked"]


# An approval is of one image.


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"root_index": digest("another tree")}, "approval-root-index"),
        ({"reader": 2}, "approval-index-version"),
        ({"format": 2}, "approval-index-version"),
        ({"config_facts": ConfigFacts(user="other")}, "approval-other-config"),
        ({"diff_ids": (digest("debian"),)}, "approval-other-layers"),
    ],
)
def test_an_approval_of_something_else_under_this_config_does_not_count(change: dict[str, object], code: str) -> None:
    app = image()
    genuine = approve(app, "application", team())
    statement = replace(genuine.statement, **change)  # type: ignore[arg-type]  # members by name
    (standing,) = standings(app, [*approved_base(), replace(genuine, statement=statement)])
    assert reasons(standing)[0] == code


def test_another_compression_of_the_same_image_is_the_same_image() -> None:
    """The config names diff_ids, and so the content; the manifest also names how it was compressed."""
    app = image()
    recompressed = replace(app, manifest=digest("the same, as zstd"))
    assert not standings(recompressed, [*approved_base(), approve(app, "application", team())])[0].refusals


# Layers by themselves.


def test_l8_a_layer_that_writes_a_package_database_is_approved_with_all_below_it() -> None:
    app = image("debian", "app", database=(0, 1))
    without = standings(app, approved_base(), [approve_layer(app, 1, "application", team())])[0]
    assert reasons(without) == ["approval-needs-chain"]
    assert "writes a package database" in without.refusals[0].message
    chained = standings(app, approved_base(), [approve_layer(app, 1, "application", team(), chain=True)])[0]
    assert not chained.refusals


def test_l8_a_layer_built_on_a_patched_base_does_not_stand_on_the_unpatched_one() -> None:
    built = image("patched", "app", database=(0, 1))
    recombined = image("unpatched", "app", database=(0, 1))
    bases = [*approved_base("patched", name="new"), *approved_base("unpatched", name="old")]
    layer = [approve_layer(built, 1, "application", team(), chain=True)]
    assert not standings(built, bases, layer)[0].refusals
    refused = standings(recombined, bases, layer)[0]
    assert reasons(refused) == ["approval-other-chain"]
    assert "on other layers than these" in refused.refusals[0].message


def test_a_level_may_want_the_chain_always() -> None:
    app = image()
    levels = level("application", chain=Chain.ALWAYS)
    refused = standings(app, approved_base(), [approve_layer(app, 1, "application", team())], levels=levels)[0]
    assert reasons(refused) == ["approval-needs-chain"]
    assert "the level wants one" in refused.refusals[0].message


def test_every_own_layer_that_is_not_approved_is_named() -> None:
    app = image("debian", "one", "two", "three")
    layers = [approve_layer(app, 2, "application", team())]
    (standing,) = standings(app, approved_base(), layers)
    assert [(refusal.reason, refusal.layer) for refusal in standing.refusals] == [
        ("layer-not-approved", 1),
        ("layer-not-approved", 3),
    ]
    assert "have this layer approved for application by 1 team" in standing.refusals[0].fix


def test_a_lower_level_s_layer_does_not_lie_on_a_higher_one_s() -> None:
    app = image("debian", "app", "python")
    layers = [approve_layer(app, 1, "application", team()), approve_layer(app, 2, "middleware", ALICE)]
    (standing,) = standings(app, approved_base(), layers)
    assert "level-order" in reasons(standing)


def test_a_layer_that_may_not_lie_on_its_parent_s_level() -> None:
    levels = level("application", stands_on=("middleware",))
    app = image("debian", "app")
    (standing,) = standings(app, approved_base(), [approve_layer(app, 1, "application", team())], levels=levels)
    assert "level-order" in reasons(standing)
    assert "middleware" in standing.refusals[0].message


def test_no_layer_is_approved_at_a_level_that_takes_whole_images() -> None:
    app = image("debian", "more")
    (standing,) = standings(app, approved_base(), [approve_layer(app, 1, "base", ALICE, BOB)])
    assert standing.refusals


@pytest.mark.parametrize(
    ("accepts", "whole", "layers", "holds"),
    [
        (Accepts.IMAGE, True, False, True),
        (Accepts.IMAGE, False, True, False),
        (Accepts.LAYERS, True, False, False),
        (Accepts.LAYERS, False, True, True),
        (Accepts.EITHER, True, False, True),
        (Accepts.EITHER, False, True, True),
        (Accepts.EITHER, False, False, False),
        (Accepts.BOTH, True, False, False),
        (Accepts.BOTH, False, True, False),
        (Accepts.BOTH, True, True, True),
    ],
)
def test_what_a_level_accepts(accepts: Accepts, whole: bool, layers: bool, holds: bool) -> None:
    app = image()
    images = [*approved_base(), *([approve(app, "application", team())] if whole else [])]
    single = [approve_layer(app, 1, "application", team())] if layers else []
    found = standings(app, images, single, levels=level("application", accepts=accepts))
    assert any(not standing.refusals for standing in found) is holds


def test_a_config_only_image_needs_an_approval_of_its_config() -> None:
    """No layers of its own are not 'all layers approved': that would be approved by nobody."""
    app = image("debian", name="config only", config=ConfigFacts(env=("A=b",)))
    (standing,) = standings(app, approved_base())
    assert standing.level is not None
    assert standing.level.name == "base"
    found = standings(app, [*approved_base(), approve(app, "application", team())])
    names = [standing.level.name for standing in found if standing.level is not None]
    assert names == ["base", "application"]
    assert [standing.config_approved for standing in found] == [False, True]


# Failures.


def test_a_parent_that_was_approved_once_is_named_with_what_it_lacks() -> None:
    app = image()
    for approvals, said in (
        ([approve(base(), "base", ALICE)], "counted: alice"),
        ([approve(base(), "base", ALICE, BOB, expires=NOW - DAY)], "expired"),
        ([approve(base(), "base", team("web", "base"))], "role does not count"),
    ):
        (standing,) = standings(app, [*approvals, approve(app, "application", team())])
        assert reasons(standing) == ["parent-not-approved"]
        assert said in standing.refusals[0].message
        assert standing.refusals[0].subject == str(base().manifest)


def test_an_image_of_nobody_is_told_what_it_needs() -> None:
    (standing,) = standings(image())
    (refusal,) = standing.refusals
    assert refusal.reason == "no-approved-parent"
    assert "base by 2 officers" in refusal.fix
    assert "level base or middleware" in refusal.fix


def test_an_application_without_approvals_of_its_own_is_told_by_layer() -> None:
    (standing,) = standings(image(), approved_base())
    assert reasons(standing) == ["layer-not-approved"]
    assert standing.parent is not None


def test_levels_that_no_policy_has_count_for_nothing() -> None:
    (standing,) = standings(image(), [approve(base(), "platinum", ALICE, BOB), approve(image(), "platinum", ALICE)])
    assert reasons(standing) == ["no-approved-parent"]


def test_a_policy_without_levels_places_nothing() -> None:
    (standing,) = standings(image(), levels=())
    assert reasons(standing) == ["no-levels"]


def test_a_flood_of_approvals_is_refused_before_it_is_counted() -> None:
    one = approve(image(), "application", team())
    (standing,) = standings(image(), [one] * (MAX_APPROVALS + 1))
    assert reasons(standing) == ["too-many-approvals"]


def test_many_discounts_are_told_in_short() -> None:
    late = [approve(base(), "base", officer(f"o{n}"), expires=NOW - DAY) for n in range(9)]
    (standing,) = standings(base(), late)
    assert "and 5 more" in standing.refusals[0].message


def test_the_order_of_statements_does_not_matter() -> None:
    app = image("debian", "python", "app")
    images = [
        *approved_base(),
        *approved_base(name="second base", config=ConfigFacts()),
        approve(app, "application", team()),
    ]
    assert standings(app, images) == standings(app, reversed(images))
