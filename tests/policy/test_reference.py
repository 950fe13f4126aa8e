"""docs/policy.md tells every setting, rule and reason, and nothing that is not there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from policy.errors import PolicyError
from policy.reference import BEGIN, END, REASONS, reference, replace_reference
from policy.rules.table import COMMON, kinds
from policy.vocabulary import BUILT_IN, DOCUMENT

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")
ENGINE = (
    *("approvals", "combine", "evaluate", "hierarchy", "parents", "stack", "start", "verdicts", "waivers"),
    *(f"rules/{path.stem}" for path in (ROOT / "policy" / "rules").glob("*.py")),
)


def test_the_page_holds_the_reference_that_the_code_makes() -> None:
    assert replace_reference(PAGE) == PAGE, "run: python -m policy.reference docs/policy.md"


def test_every_rule_and_setting_is_told() -> None:
    for kind in kinds().values():
        assert f"### `{kind.name}`" in PAGE
        for setting in kind.members:
            assert f"| `{setting}` |" in PAGE
    for setting in (*DOCUMENT.members, *COMMON, *BUILT_IN):
        assert f"| `{setting}` |" in PAGE


def _reasons(path: Path) -> Iterator[str]:
    """The constant reasons of one module: of refusals, discounts and verdicts, and of tuples that begin with one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        found: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            found += [word.value for word in node.keywords if word.arg in {"reason", "code"}]
            found += node.args[1:2] if name in {"deny", "unknown", "_note"} else []
            found += node.args[:1] if name == "refuse" and path.stem == "start" else []
        elif isinstance(node, ast.Tuple) and len(node.elts) == 2:
            found += [first for first in node.elts[:1] if "-" in str(getattr(first, "value", ""))]
        for expression in found:
            for constant in ast.walk(expression):
                if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                    yield constant.value


def _is_code(text: str) -> bool:
    words = text.split("-")
    return len(words) > 1 and all(word.isalnum() and word.islower() for word in words)


def test_every_reason_in_the_code_is_told() -> None:
    found = {reason for module in ENGINE for reason in _reasons(ROOT / "policy" / f"{module}.py") if _is_code(reason)}
    assert len(found) > 60
    told = {reason for kind in kinds().values() for reason in kind.reasons}
    told |= {reason for reasons in REASONS.values() for reason in reasons}
    assert sorted(found - told - {*BUILT_IN, *kinds()}) == []


def test_a_page_without_the_marks_is_refused() -> None:
    for page in ("", BEGIN, f"{END}{BEGIN}"):
        with pytest.raises(PolicyError, match="expected the two marks"):
            replace_reference(page)


def test_the_reference_is_markdown_tables_of_four_or_two_columns() -> None:
    for line in reference().splitlines():
        if line.startswith("|"):
            assert line.count("|") - line.count("\\|") in {3, 5}
