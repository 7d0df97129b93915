"""The OpenAPI document, and schemathesis, which tries to make the application break its word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import schemathesis
from flask import Flask
from hypothesis import settings
from schemathesis import Case
from schemathesis.specs.openapi.checks import positive_data_acceptance

from fleetwatch.collector.usage.openapi import document
from tests.collector.usage.conftest import run

QUERY = "resource=cpu&start=2026-01-02T00:00:00Z&end=2026-01-02T01:00:00Z"


@pytest.fixture(scope="module")
def app(prometheus: str) -> Iterator[Flask]:
    with run(prometheus) as app:
        yield app


def test_every_path_is_in_the_document() -> None:
    with run("http://127.0.0.1:1", external_url="https://usage.example.org") as app:
        told = app.test_client().get("/openapi.json").get_json()
    described = {(method.upper(), path) for path, methods in told["paths"].items() for method in methods}
    there = {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        if not rule.endpoint.startswith("page.")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert described == there
    assert told["servers"] == [{"url": "https://usage.example.org"}]


@pytest.mark.parametrize("open_to_all", [True, False])
def test_the_document_says_who_may(*, open_to_all: bool) -> None:
    paths = document(None, open_to_all=open_to_all)["paths"]
    assert ({} in paths["/avg_usage"]["get"]["security"]) is open_to_all
    assert {} not in paths["/alert"]["post"]["security"]


@pytest.mark.slow
@pytest.mark.parametrize("resource", ["cpu", "mem"])
@pytest.mark.parametrize("path", ["/avg_usage", "/metrics_usage"])
def test_answers_are_as_described(app: Flask, path: str, resource: str) -> None:
    told = document(None, open_to_all=True)
    schema = told["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    answer = app.test_client().get(f"{path}?{QUERY.replace('cpu', resource)}")
    assert answer.status_code == 200
    validator = jsonschema.Draft202012Validator({**schema, "components": told["components"]})
    assert list(validator.iter_errors(answer.get_json())) == []
    assert list(validator.iter_errors({**answer.get_json(), "more": 1}))


contract = schemathesis.openapi.from_dict(document(None, open_to_all=True))


@pytest.mark.slow
@contract.parametrize()
@settings(max_examples=40, derandomize=True, deadline=None)
def test_contract(case: Case[Any], app: Flask) -> None:
    """Right and wrong requests: no 5xx, answers as described, wrong ones refused."""
    operation: Any = case.operation
    operation.schema.app = operation.app = app
    # No schema can say that a start is before its end, or that a date exists.
    excluded: list[Any] = [positive_data_acceptance]
    case.call_and_validate(excluded_checks=excluded)
