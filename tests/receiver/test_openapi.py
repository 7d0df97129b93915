"""The OpenAPI document, and schemathesis, which tries to make the application break its word."""

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
from schemathesis.specs.openapi.checks import negative_data_rejection

from fleetwatch.receiver.api import OPERATIONS
from fleetwatch.receiver.openapi import document
from tests.common.services import alert
from tests.receiver.callers import bearer, run

DOCUMENT = "/api/v1/openapi.json"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Flask]:
    file = tmp_path_factory.mktemp("openapi") / "alerts.db"
    file.write_bytes(sqlite_template.read_bytes())
    with run(f"sqlite:///{file}") as app:
        alerts = [alert(f"A{number}") for number in range(5)]
        client = app.test_client()
        assert (
            client.post("/alerts", json={"alerts": alerts}, headers=bearer("prometheus")).status_code == 200
        )
        yield app


def test_every_path_is_in_the_document(app: Flask) -> None:
    document = app.test_client().get(DOCUMENT, headers=bearer("rita")).get_json()
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    pages = {"/", "/alert", "/webhook"}  # the webhook's other names
    there = {
        (method, re.sub(r"<[^>]*?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        if not rule.endpoint.startswith("pages.") and rule.rule not in pages
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert described == there


def test_the_document_says_what_is_open_to_all(sqlite_database: str) -> None:
    with run(sqlite_database, anonymous_roles=["read"], external_url="https://alerts.example.org") as app:
        document = app.test_client().get(DOCUMENT).get_json()
    paths = document["paths"]
    assert {} in paths["/api/v1/incidents"]["get"]["security"]
    assert {} not in paths["/api/v1/dead-letters/requeue"]["post"]["security"]
    assert {} not in paths["/alerts"]["post"]["security"]
    assert document["servers"] == [{"url": "https://alerts.example.org"}]


contract = schemathesis.openapi.from_dict(document(OPERATIONS, [], None))


@pytest.mark.slow
@contract.parametrize()
@settings(max_examples=25, derandomize=True, deadline=None)
def test_contract(case: Case[Any], app: Flask) -> None:
    """Right and wrong requests: no 5xx, answers as described, wrong ones refused, nobody in without user."""
    operation: Any = case.operation
    user = "prometheus" if operation.path == "/alerts" else "anna"
    # The webhook takes more than Alertmanager sends: a good alert is never lost for a bad one beside it.
    excluded: list[Any] = [negative_data_rejection] if operation.path == "/alerts" else []
    operation.schema.app = operation.app = app
    case.call_and_validate(headers=bearer(user), excluded_checks=excluded)
