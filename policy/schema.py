"""The JSON Schema of policies (draft 2020-12), and what it says of a document: where, got, expected.

`policies/schemas/policy.schema.json` is this schema, for editors; a test keeps the two equal. It is written by
`python -m policy.schema > policies/schemas/policy.schema.json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, Final, cast

from ocispec.strictjson import JsonValue
from policy.rules.table import rule_schema
from policy.shape import Schema, shown
from policy.vocabulary import DOCUMENT

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

_TYPES: Final = {
    "object": "a mapping",
    "array": "a list",
    "string": "a string",
    "integer": "a whole number",
    "boolean": "true or false",
}


def policy_schema() -> Schema:
    """The schema of a whole policy."""
    head: Schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A policy of pratique",
    }
    return head | DOCUMENT.schema() | {"$defs": {"rule": rule_schema()}}


def schema_problems(value: JsonValue) -> Iterator[str]:
    """Everything in `value` that the schema does not allow, in the order of the document."""
    errors = _validator().iter_errors(value)
    ordered = sorted(errors, key=lambda error: ([str(part) for part in error.absolute_path], error.message))
    # jsonschema reports each missing key with all that are required: every problem is told once.
    yield from dict.fromkeys(problem for error in ordered for problem in _problem(error))


@cache
def _validator() -> Draft202012Validator:
    from jsonschema import Draft202012Validator  # noqa: PLC0415  # costs 60 ms: only where a policy is written

    return Draft202012Validator(policy_schema())


def _problem(error: ValidationError) -> Iterator[str]:
    where = _path(error.absolute_path)
    value = cast("JsonValue", error.instance)
    schema = error.schema if isinstance(error.schema, dict) else {}
    match error.validator:
        case "additionalProperties":
            known = sorted(schema.get("properties", {}))
            for key in sorted(set(value if isinstance(value, dict) else ()) - set(known)):
                yield f"policy: {_join(where, key[:80])}: unknown key, expected one of {', '.join(known)}"
        case "required":
            for key in cast("list[str]", error.validator_value):
                if isinstance(value, dict) and key not in value:
                    yield f"policy: {_join(where, key)}: missing"
        case _:
            yield f"policy: {where or 'the document'}: got {_got(error, value)}, expected {_expected(error, schema)}"


def _got(error: ValidationError, value: JsonValue) -> str:
    if error.validator in {"minItems", "maxItems"} and isinstance(value, list):
        return f"{len(value)} items"
    return shown(value)


def _expected(error: ValidationError, schema: dict[str, Any]) -> str:
    limit = cast(Any, error.validator_value)
    match error.validator:
        case "enum":
            return f"one of {', '.join(str(word) for word in limit)}"
        case "type":
            return str(schema.get("title") or _TYPES.get(limit, limit))
        case "minimum" | "maximum":
            return f"a whole number from {schema.get('minimum')} to {schema.get('maximum')}"
        case "minLength" | "maxLength":
            return f"{schema.get('minLength')} to {schema.get('maxLength')} characters"
        case "minItems" | "maxItems":
            return f"{schema.get('minItems')} to {schema.get('maxItems')} items"
        case "minProperties":
            return f"at least {limit} of {', '.join(schema.get('properties', {}))}"
        case _:
            return str(schema.get("title") or error.message)


def _path(parts: Iterable[str | int]) -> str:
    path = ""
    for part in parts:
        path = f"{path}[{part}]" if isinstance(part, int) else _join(path, str(part)[:80])
    return path


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


if __name__ == "__main__":
    sys.stdout.write(json.dumps(policy_schema(), indent=2) + "\n")
