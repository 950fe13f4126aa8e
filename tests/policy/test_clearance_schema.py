"""The schema of a clearance's own field, held against what is written."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jsonschema
import pytest

from policy import wire
from policy.clearance import Subject
from policy.wire.clearance import EXTENSION
from tests.support.trust import scene

SCHEMA = json.loads((Path(__file__).parents[2] / "policies" / "schemas" / "clearance.schema.json").read_bytes())
WRITTEN = json.loads(wire.encode(scene().clearance))["predicate"][EXTENSION]
CHECK = jsonschema.Draft202012Validator(SCHEMA)


def test_the_schema_is_a_schema_and_named_as_the_field() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"] == EXTENSION


def test_what_is_written_fits_and_every_member_is_described() -> None:
    CHECK.validate(WRITTEN)
    assert set(SCHEMA["properties"]) == set(WRITTEN) == set(SCHEMA["required"])


def test_a_subjects_fields_are_in_it() -> None:
    # What a host compares must stand in the signed field, or the comparison would be with nothing.
    compared = {"registry", "repository", "config", "platform", "config_facts", "diff_ids", "root_index"}
    assert compared <= set(Subject.__dataclass_fields__)
    assert {"registry", "repository", "config", "platform", "configFacts", "diffIds", "rootIndex"} <= set(WRITTEN)


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_no_member_may_be_left_out_or_be_of_another_type(name: str) -> None:
    less = {key: value for key, value in WRITTEN.items() if key != name}
    assert not CHECK.is_valid(less)
    assert not CHECK.is_valid({**WRITTEN, name: None})


def test_nothing_may_be_added() -> None:
    more = copy.deepcopy(WRITTEN)
    more["user"]["shell"] = "/bin/sh"
    assert not CHECK.is_valid(more)
    assert not CHECK.is_valid({**WRITTEN, "note": "x"})
