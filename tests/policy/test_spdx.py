"""Licence expressions: what is read, and as what."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.errors import PolicyError
from policy.spdx import (
    MAX_EXPRESSION,
    Bundle,
    Choice,
    Expression,
    Licence,
    LicenceList,
    canonical_item,
    licences_of,
    parse_expression,
)


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("MIT", Licence("MIT")),
        ("mit", Licence("MIT")),
        ("GPL-2.0+", Licence("GPL-2.0-or-later")),
        ("GPL-2.0", Licence("GPL-2.0-only")),
        ("Apache-2.0+", Licence("Apache-2.0", or_later=True)),
        ("MIT OR ISC", Choice((Licence("MIT"), Licence("ISC")))),
        ("MIT AND ISC", Bundle((Licence("MIT"), Licence("ISC")))),
        ("MIT OR ISC AND Zlib", Choice((Licence("MIT"), Bundle((Licence("ISC"), Licence("Zlib")))))),
        ("GPL-2.0-only WITH Classpath-exception-2.0", Licence("GPL-2.0-only", "Classpath-exception-2.0")),
        ("LicenseRef-mine", Licence("LicenseRef-mine")),
        ("DocumentRef-x:LicenseRef-mine", Licence("DocumentRef-x:LicenseRef-mine")),
        ("LicenseRef-MIT-Bootstrap", Licence("LicenseRef-MIT-Bootstrap")),
        ("", None),
        ("   ", None),
        ("BSD", None),
        ("MIT ISC", None),
        ("MIT/ISC", None),
        ("MIT OR", None),
        ("(MIT", None),
        ("MIT WITH Apache-2.0", None),
        ("MIT WITH LicenseRef-x", None),
        ("MIT WITH No-Such-exception", None),
        ("Classpath-exception-2.0 AND", None),
        ("NOT MIT", None),
        ("MIT\0", None),
        ("MIT OR " * 300 + "MIT", None),
    ],
)
def test_an_expression_is_read_as_the_specification_says(text: str, expression: Expression | None) -> None:
    assert parse_expression(text) == expression


def test_deep_nesting_breaks_nothing() -> None:
    assert parse_expression("(" * 900 + "MIT" + ")" * 900) == Licence("MIT")
    nested = "MIT"
    while len(nested) < MAX_EXPRESSION - 30:
        nested = f"({nested} AND ISC) OR Zlib"
    assert parse_expression(nested) is not None


@settings(deadline=None)
@given(st.text("MITOR AND()-2.0+/\0\nWITH", max_size=40) | st.text(max_size=20))
def test_no_text_raises(text: str) -> None:
    parse_expression(text)


def test_the_licences_of_an_expression_are_named_in_order() -> None:
    expression = parse_expression("(MIT OR Apache-2.0+) AND GPL-2.0-only WITH Classpath-exception-2.0")
    assert expression is not None
    shown = [str(licence) for licence in licences_of(expression)]
    assert shown == ["MIT", "Apache-2.0+", "GPL-2.0-only WITH Classpath-exception-2.0"]


def test_items_of_lists_are_one_licence_or_a_glob() -> None:
    assert canonical_item("mit") == "MIT"
    assert canonical_item("BSD-*") == "BSD-*"
    assert canonical_item("GPL-2.0 WITH Classpath-exception-2.0") == "GPL-2.0-only WITH Classpath-exception-2.0"
    for item in ("MTI", "MIT OR ISC", "a***", ""):
        with pytest.raises(PolicyError):
            canonical_item(item)


LEAVES = st.sampled_from(("MIT", "ISC", "GPL-3.0-only", "SSPL-1.0")).map(Licence)
TREES: st.SearchStrategy[Expression] = st.recursive(
    LEAVES,
    lambda parts: (
        st.builds(Choice, st.lists(parts, min_size=2, max_size=3).map(tuple))
        | st.builds(Bundle, st.lists(parts, min_size=2, max_size=3).map(tuple))
    ),
    max_leaves=8,
)


def _truth(expression: Expression, good: frozenset[str]) -> bool:
    if isinstance(expression, Licence):
        return expression.id in good
    parts = [_truth(part, good) for part in expression.of]
    return any(parts) if isinstance(expression, Choice) else all(parts)


@settings(deadline=None)
@given(TREES, st.sets(st.sampled_from(("MIT", "ISC", "GPL-3.0-only", "SSPL-1.0")), min_size=1))
def test_a_list_permits_what_logic_permits(expression: Expression, allow: set[str]) -> None:
    assert LicenceList(tuple(allow), ()).permits()(expression) is _truth(expression, frozenset(allow))


@settings(deadline=None)
@given(TREES, st.sets(st.sampled_from(("MIT", "ISC", "GPL-3.0-only", "SSPL-1.0"))))
def test_one_more_denied_licence_never_permits_more(expression: Expression, denied: set[str]) -> None:
    before = LicenceList((), tuple(sorted(denied))).permits()(expression)
    after = LicenceList((), (*sorted(denied), "MIT")).permits()(expression)
    assert before or not after
