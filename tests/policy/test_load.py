"""Loading policies: what is refused, with which words, and that schema and parser agree."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from datetime import timedelta
from importlib import resources
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocispec.digest import Digest
from policy.document import read_document
from policy.errors import PolicyError
from policy.load import default_document, load, load_verified
from policy.rules.table import kinds
from policy.schema import policy_schema, schema_problems
from policy.settings import Quorum, RunAction, spell_duration
from policy.statements import Role
from policy.vocabulary import DOCUMENT
from tests.support.evidence import DAY, NOW
from tests.support.policies import document, policy

DEFAULT = read_document(default_document())


def test_the_default_policy_says_what_it_says() -> None:
    found = load(default_document())
    assert (found.name, found.version) == ("default", 1)
    assert found.digest == Digest.of(default_document())
    assert [level.name for level in found.levels] == ["base", "middleware", "application"]
    assert [level.rank for level in found.levels] == [0, 1, 2]
    base = found.level("base")
    assert base is not None
    assert base.approval.image == (Quorum(((Role.OFFICER, 2),)),)
    assert not base.needs_parent
    assert (found.clearance.lifetime, found.clearance.renew_after) == (timedelta(days=7), timedelta(hours=84))
    assert (found.revocation.lifetime, found.revocation.offline_grace) == (timedelta(days=1), timedelta(days=7))
    assert (found.start.memory, found.start.memory_default) == (4 * 2**30, 512 * 2**20)
    assert found.running.revoked.action is RunAction.KILL
    assert found.level("gold") is None


def test_both_ways_of_loading_give_the_same() -> None:
    assert load(default_document()) == load_verified(default_document())


def test_yaml_and_json_of_one_policy_differ_in_the_digest_only() -> None:
    one, other = load(default_document()), load(document())
    assert one.digest != other.digest
    assert (one.levels, one.rules, one.start) == (other.levels, other.rules, other.start)


def test_a_host_loads_a_policy_without_schema_and_licence_libraries() -> None:
    code = (
        "import sys; from policy.load import load_verified, default_document; load_verified(default_document());"
        "print(sorted({'jsonschema', 'license_expression', 'rpds'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_the_shipped_schema_is_the_code_s() -> None:
    shipped = resources.files("policies").joinpath("schemas", "policy.schema.json").read_bytes()
    assert json.loads(shipped) == policy_schema()


def edited(path: str, value: object) -> bytes:
    """The default policy with the setting at a dotted path replaced, or removed where the value is `...`."""
    found: Any = copy.deepcopy(DEFAULT)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    here = found
    for part in parents:
        here = here[part]
    if value is ...:
        del here[last]
    else:
        here[last] = value
    return json.dumps(found).encode()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("format", "pratique-policy/2", "policy: format: got 'pratique-policy/2', expected one of pratique-policy/1"),
        ("name", "Default", "policy: name: got 'Default', expected a name of lower-case letters"),
        ("name", ..., "policy: name: missing"),
        ("version", 0, "policy: version: got 0, expected a whole number from 1 to"),
        ("version", True, "policy: version: got true, expected a whole number"),
        ("version", 1.5, "policy: version: got 1.5, expected a whole number"),
        ("levls", [], "policy: levls: unknown key, expected one of artifacts, clearance"),
        ("levels", [], "policy: levels: got 0 items, expected 1 to 64 items"),
        ("levels.1.stands_on", ["application"], "levels[1].stands_on: got 'application', expected this level or one"),
        ("levels.1.stands_on", [], "levels[1].stands_on: empty, but the level needs a parent"),
        ("levels.1.name", "base", "levels: got the level 'base' twice"),
        ("levels.0.approval.image", [], "levels[0].approval.image: empty, expected whose approval"),
        ("levels.2.approval.layers", [], "levels[2].approval.layers: empty, expected whose approval"),
        ("levels.0.approval.image.0", {}, "levels[0].approval.image[0]: got an object, expected at least 1 of officer"),
        ("levels.0.approval.image.0", {"root": 1}, "levels[0].approval.image[0].root: unknown key, expected one of"),
        ("levels.0.approval.accepts", "all", "levels[0].approval.accepts: got 'all', expected one of image, layers"),
        ("levels.0.approval.max_age", "1y", "levels[0].approval.max_age: got '1y', expected a duration as 90s"),
        ("levels.0.approval.max_age", "7d\n", "levels[0].approval.max_age: got '7d\\n', expected a duration"),
        ("levels.2.config.may_change", ["labels"], "config.may_change[0]: got 'labels', expected one of user, env"),
        ("levels.2.config.env_deny", ["a***"], "config.env_deny[0]: got 'a***', expected a glob"),
        ("levels.2.config.env_deny", [""], "config.env_deny[0]: got '', expected 1 to 512 characters"),
        ("rules.0.rule", "exploitet", "rules[0].rule: got 'exploitet', expected one of shadowing, account"),
        ("rules.0.with_fxi", "deny", "rules[0].with_fxi: unknown key, expected one of grace, levels, name"),
        ("rules.0.levels", ["gold"], "rules[0].levels: got 'gold', expected one of the levels: base"),
        ("rules.0.name", "age", "got 'age' again, expected a name that no other rule has"),
        ("rules.0.name", "hierarchy", "got 'hierarchy' again, expected a name that no other rule has"),
        ("rules.0", "exploited", "rules[0]: got 'exploited', expected a mapping"),
        ("rules.3.allow.0", "MTI", "rules[3].allow: licence 'MTI': expected one SPDX licence id"),
        ("rules.3.allow.0", "MIT OR ISC", "rules[3].allow: licence 'MIT OR ISC': expected one SPDX licence id"),
        ("rules.5.deny.0.versions", ["1.2"], "rules[5].deny[0].versions[0]: got '1.2', expected a version range"),
        ("rules.5.deny.0.versions", [">=1,2"], "rules[5].deny[0].versions[0]: version range '>=1,2': got '2'"),
        ("waivers.0.rules", ["exploitet"], "waivers[0].rules: got 'exploitet', expected one of the policy's rules"),
        ("waivers.0.rules", ["revocation"], "waivers[0].rules: got 'revocation', which nothing may waive"),
        ("waivers.0.levels", ["gold"], "waivers[0].levels: got 'gold'"),
        ("waivers.0.by", [], "waivers[0].by: got 0 items, expected 1 to 10 items"),
        ("waivers.0.max_duration", ..., "waivers[0].max_duration: missing"),
        ("scan.unknowns.0.code", "whatever", "scan.unknowns[0].code: got 'whatever', expected one of unreadable"),
        ("scan.unknowns.0.levels", ["gold"], "scan.unknowns[0].levels: got 'gold'"),
        ("clearance.renew_after", "7d", "clearance.renew_after: expected less than the lifetime"),
        ("running.revoked.action", "shoot", "running.revoked.action: got 'shoot', expected one of nothing, warn"),
        ("start.levels", ["gold"], "start.levels: got 'gold'"),
        ("start.memory", "4GB", "start.memory: got '4GB', expected a size as 64KiB"),
        ("start.memory", 4096, "start.memory: got 4096, expected a size as 64KiB"),
        ("start.platforms", ["Linux"], "start.platforms[0]: got 'Linux', expected a platform as linux/amd64"),
        ("start.capabilities", ["chown"], "start.capabilities[0]: got 'chown', expected a capability as CAP_CHOWN"),
        ("start.writable", "yes", "start.writable: got 'yes', expected true or false"),
        ("start.pids", 0, "start.pids: got 0, expected a whole number from 1 to 4000000"),
        ("description", "x" * 3000, "description: got 'xxx"),
        ("artifacts", "x", "artifacts: got 'x', expected a list"),
    ],
)
def test_a_mistake_is_told_with_place_what_was_got_and_what_was_expected(path: str, value: object, said: str) -> None:
    raw = edited(path, value)
    with pytest.raises(PolicyError) as told:
        load(raw)
    assert said in str(told.value)
    if not path.startswith("rules.3"):  # ids of licences are for whoever writes a policy, and for whoever judges
        with pytest.raises(PolicyError, match=r"^policy: "):
            load_verified(raw)


def test_all_mistakes_are_told_at_once_up_to_a_bound() -> None:
    with pytest.raises(PolicyError) as told:
        load(document(version="one", name="X", artifacts=5))
    assert str(told.value).count("\n") == 2
    with pytest.raises(PolicyError, match="and 10 more"):
        load(document(artifacts=[""] * 30))


def test_any_of_does_not_nest_without_end() -> None:
    rule: dict[str, Any] = {"rule": "age", "most": "1d"}
    for depth in range(5):
        rule = {"rule": "any-of", "name": f"d{depth}", "rules": [rule, {"rule": "exploited"}]}
    with pytest.raises(PolicyError, match="any-of within any-of"):
        load(document(rules=[rule], waivers=[]))


def test_an_alternative_with_levels_of_its_own_is_refused() -> None:
    rule = {"rule": "any-of", "rules": [{"rule": "age", "levels": ["base"]}, {"rule": "licences", "allow": ["MTI"]}]}
    with pytest.raises(PolicyError) as told:
        load(document(rules=[rule], waivers=[]))
    assert "age: levels: only those of the any-of rule count" in str(told.value)
    assert "licences: allow: licence 'MTI'" in str(told.value)


def test_each_kind_of_rule_loads_with_its_name_alone_or_says_what_is_missing() -> None:
    for name in kinds():
        if name != "any-of":
            assert policy(rules=[{"rule": name}], waivers=[]).rules[0].name == name


# The schema is for people, the parser decides: it must refuse whatever the schema refuses.

PATHS: list[tuple[str | int, ...]] = []


def _collect(value: Any, path: tuple[str | int, ...]) -> None:
    PATHS.append(path)
    if isinstance(value, dict):
        for key, member in value.items():
            _collect(member, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _collect(item, (*path, index))


_collect(DEFAULT, ())
JUNK: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    10**12,
    1.0,
    1.5,
    "",
    "x",
    "deny",
    "7d",
    "4GiB",
    "***",
    "a\n",
    "ä",
    [],
    {},
]
JUNK += [["x"], [1], {"x": 1}, {"officer": 1}, [None], "CAP_X", "linux/amd64", "base", [{"rule": "age"}]]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(PATHS[1:]), st.sampled_from(JUNK), st.booleans())
def test_what_the_schema_refuses_the_parser_refuses(path: tuple[str | int, ...], junk: object, extra: bool) -> None:
    changed: Any = copy.deepcopy(DEFAULT)
    here = changed
    for part in path[:-1]:
        here = here[part]
    if extra and isinstance(here, dict):
        here["unheard-of"] = junk
    else:
        here[path[-1]] = junk
    refused = any(True for _ in schema_problems(changed))
    try:
        DOCUMENT.parse(changed, "")
    except PolicyError:
        return
    assert not refused


# Small things that others read.


def test_a_clearance_ends_with_the_first_thing_it_rests_on() -> None:
    found = load(default_document())
    assert found.clearance_ends(NOW, None) == NOW + 7 * DAY
    assert found.clearance_ends(NOW, NOW + DAY) == NOW + DAY
    assert found.clearance_ends(NOW, NOW + 30 * DAY) == NOW + 7 * DAY


def test_artifacts_are_served_by_their_type() -> None:
    found = policy(artifacts=["application/vnd.cncf.helm.**"])
    assert found.serves_artifact("application/vnd.cncf.helm.config.v1+json")
    assert not found.serves_artifact("application/vnd.example")
    assert not load(default_document()).serves_artifact("application/vnd.example")


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (timedelta(days=1), "1 day"),
        (timedelta(hours=36), "36 hours"),
        (timedelta(minutes=1), "1 minute"),
        (timedelta(seconds=90), "90 seconds"),
        (timedelta(0), "0 days"),
    ],
)
def test_durations_are_spelled_in_their_largest_whole_unit(length: timedelta, words: str) -> None:
    assert spell_duration(length) == words
