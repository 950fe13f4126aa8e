"""docs/trust.md lists every reason code, predicate type and role; nothing that it lists is invented."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from policy.statements import Role
from policy.wire.clearance import EXTENSION
from policy.wire.frame import KINDS

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "trust.md").read_text()
TABLE = DOCUMENT.partition("## Reason codes")[2]
DOCUMENTED = {code for row in TABLE.splitlines() if row.startswith("| `") for code in re.findall("`([a-z-]+)`", row)}
MODULES = (
    "believe",
    "clearance",
    "cosign",
    "dsse",
    "embedded",
    "hoststate",
    "key_files",
    "keys",
    "private_key",
    "revocation",
    "seal",
    "served",
    "trust",
    "wire/frame",
    "wire/members",
    "wire/root",
)
CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def codes_in(module: str) -> set[str]:
    """The codes that a module gives: first arguments of what refuses, and codes chosen beforehand."""
    tree = ast.parse((ROOT / "policy" / f"{module}.py").read_text())
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            place = {"TrustError": 0, "_expect": 0, "_reject": 1}.get(node.func.id)
            chosen = node.args[place : place + 1] if place is not None else []
        elif isinstance(node, ast.Tuple | ast.Return):
            chosen = node.elts[:1] if isinstance(node, ast.Tuple) else [node.value] if node.value else []
            chosen = [each for each in chosen if isinstance(each, ast.Constant) and _chosen(each.value)]
        elif isinstance(node, ast.keyword) and node.arg == "code":
            chosen = [node.value]
        else:
            continue
        found |= {each.value for each in chosen if isinstance(each, ast.Constant) and isinstance(each.value, str)}
    return found


def _chosen(value: object) -> bool:
    return isinstance(value, str) and value.startswith(("other-", "revoked-", "approval-"))


def test_every_reason_code_is_documented() -> None:
    used = set().union(*(codes_in(module) for module in MODULES))
    assert all(CODE.fullmatch(code) for code in used)
    # Made from another code by one expression in revocation.py.
    assert used - DOCUMENTED == set()
    assert DOCUMENTED - used - {"revocation-list-expired"} == set()


def test_every_predicate_type_and_role_is_documented() -> None:
    for word in (*KINDS, EXTENSION):
        assert f"`{word}`" in DOCUMENT
    security = (ROOT / "docs" / "security.md").read_text()
    for role in Role:
        assert re.search(rf"\b{role}\b", DOCUMENT)
        assert re.search(rf"\b{role}\b", security)
