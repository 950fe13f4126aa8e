"""Licences: expressions evaluated properly, and the unknown never taken for permitted."""

from __future__ import annotations

import pytest

from policy.combine import run
from policy.hierarchy import Standing
from policy.load import load_verified
from policy.rules.interface import View
from tests.support.evidence import case, component
from tests.support.policies import document, reasons_of, verdicts_of

RULE = {"rule": "licences", "allow": ["MIT", "Apache-2.0", "BSD-*", "GPL-2.0-only WITH Classpath-exception-2.0"]}


@pytest.mark.parametrize(
    ("licences", "said"),
    [
        ("MIT", []),
        ("mit", []),
        ("BSD-3-Clause", []),
        ("GPL-3.0-only", ["deny licence-not-allowed"]),
        ("MIT OR GPL-3.0-only", []),
        ("MIT AND GPL-3.0-only", ["deny licence-not-allowed"]),
        ("(MIT OR GPL-3.0-only) AND Apache-2.0", []),
        ("Apache-2.0 WITH LLVM-exception", []),
        ("GPL-2.0-only WITH Classpath-exception-2.0", []),
        ("GPL-2.0-only", ["deny licence-not-allowed"]),
        ("Apache-2.0+", []),
        ("LicenseRef-MIT", ["deny licence-not-allowed"]),
        ("LicenseRef-MIT-Bootstrap", ["deny licence-not-allowed"]),
        ("", ["unknown licence-unknown"]),
        ("UNLICENSED", ["unknown licence-unknown"]),
        ("MIT AND", ["unknown licence-unknown"]),
        ("MIT/BSD", ["unknown licence-unknown"]),
        ("MIT" + " AND MIT" * 400, ["unknown licence-unknown"]),
    ],
)
def test_an_allow_list_decides_an_expression(licences: str, said: list[str]) -> None:
    found = case().evidence(components=(component(licences=licences),))
    assert reasons_of(RULE, found) == said


@pytest.mark.parametrize(
    ("licences", "said"),
    [
        ("SSPL-1.0", ["deny licence-not-allowed"]),
        ("SSPL-1.0 OR MIT", []),
        ("SSPL-1.0 AND MIT", ["deny licence-not-allowed"]),
        ("GPL-3.0-only", []),
        ("", []),
    ],
)
def test_a_deny_list_decides_an_expression(licences: str, said: list[str]) -> None:
    rule = {"rule": "licences", "deny": ["SSPL-1.0"], "unknown": "allow"}
    assert reasons_of(rule, case().evidence(components=(component(licences=licences),))) == said


def test_denied_goes_before_allowed_but_not_before_an_exception_by_name() -> None:
    rule = {
        "rule": "licences",
        "allow": ["GPL-*", "GPL-2.0-only WITH Classpath-exception-2.0"],
        "deny": ["GPL-2.0-only"],
    }
    for licences, said in (
        ("GPL-2.0-only", ["deny licence-not-allowed"]),
        ("GPL-2.0-only WITH Bison-exception-2.2", ["deny licence-not-allowed"]),
        ("GPL-2.0-only WITH Classpath-exception-2.0", []),
        ("GPL-3.0-only", []),
    ):
        assert reasons_of(rule, case().evidence(components=(component(licences=licences),))) == said


def test_unknown_may_only_warn() -> None:
    found = case().evidence(components=(component(licences=""),))
    assert reasons_of(RULE | {"unknown": "warn"}, found) == ["warning licence-unknown"]


def test_only_own_components_if_the_rule_says_so() -> None:
    found = case().evidence(
        components=(component(licences="GPL-3.0-only", layer=0), component(licences="MIT", layer=1))
    )
    assert reasons_of(RULE | {"components": "own"}, found) == []
    assert reasons_of(RULE, found) == ["deny licence-not-allowed"]


def test_components_may_be_left_out() -> None:
    found = case().evidence(components=(component(licences="GPL-3.0-only"),))
    assert reasons_of(RULE | {"ignore": ["pkg:pypi/flask"]}, found) == []
    assert reasons_of(RULE | {"ignore": ["pkg:pypi/flask@3.0.*"]}, found) == ["deny licence-not-allowed"]


def test_a_refusal_names_package_and_licence() -> None:
    (verdict,) = verdicts_of(RULE, case().evidence(components=(component(licences="SSPL-1.0 AND MIT"),)))
    assert verdict.message == "pkg:pypi/flask@3.1.0 is under SSPL-1.0 AND MIT, which the policy does not allow"
    assert (verdict.layer, verdict.fix) == (1, "replace it; the lists were asked for SSPL-1.0, MIT")


def test_a_list_that_only_a_host_read_refuses_when_it_is_asked() -> None:
    """A host does not read licence lists; whoever judges by one with an id that SPDX has not, lets nothing pass."""
    policy = load_verified(document(rules=[{"rule": "licences", "allow": ["MTI"]}], waivers=[]))
    found = case().evidence()
    view = View.of(found, Standing(level=None, parent=None, own_from=0, config_approved=False, how=""))
    (verdict,) = run("licences", policy.rules[0].check, view, "image")
    assert (verdict.outcome, verdict.reason) == ("unknown", "rule-failed")
    assert "MTI" in verdict.message
