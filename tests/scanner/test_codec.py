"""The codec: every value survives the round trip, and nothing else is read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.strictjson import JsonValue
from scanner.codec import from_json, to_json
from scanner.errors import ScanError
from scanner.model import (
    Component,
    DataSource,
    Finding,
    FixState,
    Inventory,
    OperatingSystem,
    Report,
    Severity,
    Unknown,
)

texts = st.text(max_size=8)
layers = st.integers(min_value=0, max_value=500)
systems = st.builds(OperatingSystem, id=texts, version_id=texts, codename=texts, pretty_name=texts, layer=layers)
components = st.builds(
    Component,
    purl=texts,
    type=texts,
    name=texts,
    version=texts,
    source=texts,
    licences=texts,
    layer=layers,
    files=layers,
)
unknowns = st.builds(Unknown, code=texts, subject=texts, detail=texts, layer=layers)
findings = st.builds(
    Finding,
    kind=texts,
    id=texts,
    purl=texts,
    layer=layers,
    aliases=st.lists(texts, max_size=3).map(tuple),
    severity=st.sampled_from(Severity),
    fix_state=st.sampled_from(FixState),
    exploited=st.booleans(),
)
sources = st.builds(DataSource, name=texts, digest=texts, date=texts, records=layers)


def tuples_of(values: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(values, max_size=3).map(tuple)


inventories = st.builds(
    Inventory,
    operating_system=st.one_of(st.none(), systems),
    components=tuples_of(components),
    unknowns=tuples_of(unknowns),
)
reports = st.builds(
    Report,
    inventory=inventories,
    findings=tuples_of(findings),
    unknowns=tuples_of(unknowns),
    data=tuples_of(sources),
    scanner_version=texts,
)


@given(reports)
def test_a_report_survives_the_round_trip(report: Report) -> None:
    through = json.loads(json.dumps(to_json(report)))
    assert from_json(Report, through, what="report") == report


def test_defaults_are_left_out_so_that_a_new_member_changes_no_old_digest() -> None:
    component = Component(purl="pkg:deb/debian/a@1", type="deb", name="a", version="1")
    assert to_json(component) == {"purl": "pkg:deb/debian/a@1", "type": "deb", "name": "a", "version": "1"}


GOOD: dict[str, JsonValue] = {"code": "c", "subject": "s", "detail": "d"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({**GOOD, "extra": 1}, "unknown member 'extra'"),
        ({"code": "c", "subject": "s"}, "detail is missing"),
        ({**GOOD, "layer": "1"}, "unknown.layer: got a string, expected int"),
        ({**GOOD, "layer": True}, "unknown.layer: got a boolean, expected int"),
        ({**GOOD, "layer": 1.0}, "unknown.layer: got a number, expected int"),
        ({**GOOD, "code": None}, "unknown.code: got null, expected str"),
        ([], "got an array, expected an object"),
    ],
)
def test_anything_else_is_refused(value: JsonValue, message: str) -> None:
    with pytest.raises(ScanError, match=message.replace(".", r"\.")):
        from_json(Unknown, value, what="unknown")


def test_an_unknown_word_is_refused() -> None:
    value = to_json(Finding(kind="advisory", id="CVE-1", purl="p", layer=0))
    assert isinstance(value, dict)
    for wrong in ("terrible", 5):
        with pytest.raises(ScanError, match="expected one of critical, high"):
            from_json(Finding, {**value, "severity": wrong}, what="finding")


def test_a_float_has_no_canonical_form() -> None:
    with pytest.raises(TypeError, match="float"):
        to_json((1.5,))
