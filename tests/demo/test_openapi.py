"""The OpenAPI document, and schemathesis, which tries to make the API break its word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import settings
from schemathesis import Case
from schemathesis.specs.openapi import checks

from fleetwatch.demo.app import create_app
from fleetwatch.demo.openapi import document
from fleetwatch.demo.settings import Settings
from tests.databases import PostgresServer, fresh_database
from tests.demo.conftest import QUIET

TOKEN = "the-token-of-the-tests"  # noqa: S105 - of these tests alone


@pytest.fixture(scope="module")
def app(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    with fresh_database(postgres_server) as url:
        directory = tmp_path_factory.mktemp("transactions")
        more = {"database_url": url, "state_directory": directory, "control_token": TOKEN}
        found = create_app(Settings.model_validate(QUIET | more))
        yield found
        found.extensions["transactions"].close()


def test_every_path_is_in_the_document(tmp_path: Path) -> None:
    found = create_app(Settings.model_validate({"state_directory": tmp_path}))
    told = found.test_client().get("/openapi.json").get_json()
    described = {(method.upper(), path) for path, methods in told["paths"].items() for method in methods}
    there = {
        (method, re.sub(r"<\w+:(\w+)>", r"{\1}", rule.rule))
        for rule in found.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert described == there
    found.extensions["transactions"].close()


# /error keeps its word by failing. A change of the behaviour would let the others fail.
contract = (
    schemathesis.openapi.from_dict(document()).exclude(path="/error").exclude(operation_id="change_behaviour")
)


@pytest.mark.slow
@contract.parametrize()
@settings(max_examples=40, derandomize=True, deadline=None)
def test_contract(case: Case[Any], app: Flask) -> None:
    """Right and wrong requests: no 5xx, answers as described, wrong ones refused."""
    operation: Any = case.operation
    operation.schema.app = operation.app = app
    # No schema can say what is a cursor.
    excluded: list[Any] = [checks.positive_data_acceptance]
    case.call_and_validate(excluded_checks=excluded)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [60, 7200])
def test_changes_of_the_behaviour_are_as_described(seconds: int, app: Flask) -> None:
    operation: Any = schemathesis.openapi.from_dict(document())["/control/behaviour"]["PUT"]
    operation.schema.app = operation.app = app
    change = {"error_rate": 0, "seconds": seconds}
    case = operation.Case(body=change, media_type="application/json")
    answer = case.call(headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == (200 if seconds == 60 else 400)
    # It takes the right token for one that it made up.
    case.validate_response(answer, excluded_checks=[checks.ignored_auth])
