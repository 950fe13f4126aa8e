"""docs/openapi.yaml is true of the application: each endpoint and method is in it, and nothing else is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from flask import Flask
from openapi_spec_validator import validate

from registry.api.errors import TABLE
from registry.app import BLUEPRINTS
from tests.support.registry import LiveRegistry

PAGE: Final = Path(__file__).parents[3] / "docs" / "openapi.yaml"

METHODS: Final = ("get", "head", "put", "post", "patch", "delete")
OPEN_TO_OTHERS: Final = {"accounts.post_bootstrap", "credentials.post_password", "token.post_token"}

OF_THE_SPECIFICATION: Final = 14
"""Error codes of the distribution specification; they come first in the list."""


@cache
def description() -> dict[str, Any]:
    """The description, parsed."""
    found = yaml.safe_load(PAGE.read_text())
    assert isinstance(found, dict)
    return found


def described() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each operation: path, method in upper case, and what is said of it."""
    for path, item in description()["paths"].items():
        yield from ((path, method.upper(), item[method]) for method in METHODS if method in item)


def anonymous(path: str) -> str:
    """A path without the names of what is variable in it."""
    return re.sub(r"[{<][^}>]+[}>]", "{}", path)


@cache
def routes() -> dict[tuple[str, str], str]:
    """What the application answers: path and method, and the endpoint. Flask adds HEAD to GET, and OPTIONS to all."""
    app = Flask("registry", static_folder=None)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    return {
        (anonymous(rule.rule), method): rule.endpoint
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"OPTIONS"}
    }


def test_it_is_openapi() -> None:
    validate(description())


def test_each_endpoint_and_method_is_described() -> None:
    shown = {(anonymous(path), method) for path, method, _ in described()}
    assert {route for route in routes() if route[1] != "HEAD"} - shown == set()


def test_each_described_operation_exists_under_its_name() -> None:
    for path, method, operation in described():
        endpoint = routes().get((anonymous(path), method))
        name = f"{endpoint}.head" if method == "HEAD" else endpoint
        assert operation["operationId"] == name, f"{method} {path}"


def test_error_codes_are_those_of_the_table() -> None:
    shown = description()["components"]["schemas"]["ErrorCode"]["enum"]
    # Statements are refused with a reason of their own, by api/control/shared.py.
    assert set(shown) == {code for _, code, _ in TABLE} | {"STATEMENT_REFUSED"}
    of_ours = {"ACCOUNT_INVALID", "RULE_INVALID"}
    for kind, code, status in TABLE:
        # Distribution specification, "Error Codes": what is refused under /v2/ has one of its codes.
        if status < 500 and code not in of_ours:
            assert code in shown[:OF_THE_SPECIFICATION], kind


def test_each_status_of_the_table_is_described() -> None:
    shown = {int(status) for _, _, operation in described() for status in operation["responses"]}
    # A 500 is a fault: it is never promised.
    assert {status for _, _, status in TABLE} - shown == {500}
    assert 500 not in shown


def test_no_operation_but_the_open_ones_does_without_credentials(live: LiveRegistry) -> None:
    values = {"name": "team/app", "digest": f"sha256:{'0' * 64}", "reference": "v1", "tag": "v1", "account": "somebody"}
    values["upload_id"] = "00000000-0000-4000-8000-000000000000"
    for path, method, operation in described():
        where = re.sub(r"{(\w+)}", lambda found: values.get(found[1], "x"), path)
        answer = live.request(method, where, account=None)
        security = operation.get("security", description()["security"])
        if security == [] or {} in security:
            # Some are open to whoever has credentials of another kind.
            assert answer.status != 401 or operation["operationId"] in OPEN_TO_OTHERS
        else:
            assert answer.status == 401, f"{method} {path}"
            assert "www-authenticate" in answer.headers


@pytest.mark.parametrize("name", ["DELETE", "PUT", "PATCH", "POST", "TRACE", "FOO"])
def test_a_method_that_is_not_described_is_405_with_those_that_are(live: LiveRegistry, name: str) -> None:
    for path in ("/v2/", "/v2/_catalog", "/v2/team/app/tags/list", "/api/v1/images", "/api/v1/key"):
        answer = live.request(name, path)
        assert answer.status == 405
        assert set(answer.headers["allow"].replace(" ", "").split(",")) == {"GET", "HEAD", "OPTIONS"}
