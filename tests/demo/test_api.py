"""The API in this process: what needs no database runs without one."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from fleetwatch.common import health, tracing
from fleetwatch.demo import gateway
from fleetwatch.demo.app import create_app
from fleetwatch.demo.behaviour import Behaviour, Change
from fleetwatch.demo.context import Api
from fleetwatch.demo.models import Status
from fleetwatch.demo.settings import Settings
from tests.common.collector import run_collector
from tests.common.services import free_port
from tests.demo.conftest import QUIET, Configure

TOKEN = "the-token-of-the-tests"  # noqa: S105 - of these tests alone
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PAYMENT = {"amount": "12.34", "currency": "EUR"}
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
NAMES = """
    http_requests http_request_duration_seconds http_requests_in_progress http_exceptions
    db_pool_in_use db_pool_size db_pool_max_overflow db_pool_overflow
    db_pool_waits db_pool_wait_seconds db_pool_timeouts
    cache_requests payments payment_duration_seconds created created_amount queue_published
    behaviour_error_rate behaviour_latency_seconds build_info
"""

Run = Callable[..., FlaskClient]


@pytest.fixture
def apps() -> Iterator[list[Flask]]:
    found: list[Flask] = []
    yield found
    for app in found:
        app.extensions["transactions"].close()


@pytest.fixture
def alone(tmp_path: Path, apps: list[Flask]) -> Run:
    """Return a function that runs the API without a database; arguments are settings."""

    def run(**more: Any) -> FlaskClient:
        url = f"postgresql://shop@127.0.0.1:{free_port()}/shop"
        apps.append(
            create_app(
                Settings.model_validate({"database_url": url, "state_directory": tmp_path, **QUIET, **more})
            )
        )
        return apps[-1].test_client()

    return run


@pytest.fixture
def run(configure: Configure, apps: list[Flask]) -> Run:
    """Return a function that runs the API with the database; arguments are settings."""

    def run(**more: Any) -> FlaskClient:
        apps.append(create_app(configure(**more)))
        return apps[-1].test_client()

    return run


def parts(client: FlaskClient) -> Api:
    found: Api = client.application.extensions["transactions"]
    return found


def count(client: FlaskClient, name: str, **labels: str) -> float | None:
    return parts(client).registry.get_sample_value(f"transactions_{name}", labels)


def create(client: FlaskClient, key: str | None = None, **more: Any) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    return client.post("/transactions/create", json=PAYMENT | more, headers=headers)


# Transactions


def test_a_transaction_is_created_and_found(run: Run) -> None:
    client = run()
    answer = create(client, reference="order 7")
    assert answer.status_code == 201
    made = answer.json
    assert made["status"] == "pending"
    assert (made["amount"], made["currency"], made["reference"]) == ("12.34", "EUR", "order 7")
    assert client.get(answer.headers["Location"]).json == made
    assert client.get("/transactions").json == {"transactions": [made], "next_cursor": None}
    assert count(client, "created_total", currency="EUR") == 1
    assert count(client, "created_amount_total", currency="EUR") == 12.34
    assert count(client, "payments_total", outcome="authorised") == 1


def test_pages_follow_each_other(run: Run) -> None:
    client = run()
    made = [create(client).get_json()["id"] for _ in range(5)]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        more = f"&cursor={cursor}" if cursor else ""
        page = client.get(f"/transactions?limit=2{more}").get_json()
        seen += [found["id"] for found in page["transactions"]]
        cursor = page["next_cursor"]
    assert seen == made[::-1]


def test_a_page_of_one_status(run: Run) -> None:
    client = run()
    create(client)
    failed = create(client).get_json()["id"]
    with parts(client).storage.claim(2) as claim:
        claim.settle(claim.transactions[1], Status.FAILED, "declined by the bank")
    (found,) = client.get("/transactions?status=failed").get_json()["transactions"]
    assert (found["id"], found["status"], found["reason"]) == (failed, "failed", "declined by the bank")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=x",
        "limit=1&limit=2",
        "cursor=x",
        "cursor=w6Q=",
        "status=lost",
        "page=2",
    ],
)
def test_a_wrong_query_is_refused(query: str, alone: Run) -> None:
    answer = alone().get(f"/transactions?{query}")
    assert answer.status_code == 400
    assert query.split("=", maxsplit=1)[0] in answer.get_json()["detail"]


@pytest.mark.parametrize("given", ["nonsense", "", "0191d1b2-0000-7000-8000-00000000000"])
def test_what_is_no_id_is_not_there(given: str, alone: Run) -> None:
    assert alone().get(f"/transactions/{given}").status_code == 404


def test_an_unknown_id_is_not_there(run: Run) -> None:
    answer = run().get(f"/transactions/{uuid4()}")
    assert (answer.status_code, answer.get_json()["detail"]) == (404, "there is no such transaction")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "amount"),
        ({**PAYMENT, "amount": 12.34}, "amount"),
        ({**PAYMENT, "amount": "0.00"}, "amount"),
        ({**PAYMENT, "amount": "-1"}, "amount"),
        ({**PAYMENT, "amount": "1.234"}, "amount"),
        ({**PAYMENT, "amount": "1000000"}, "amount"),
        ({**PAYMENT, "amount": "1e3"}, "amount"),
        ({**PAYMENT, "amount": "1\n"}, "amount"),
        ({**PAYMENT, "amount": "NaN"}, "amount"),
        ({**PAYMENT, "amount": "\u0661"}, "amount"),
        ({**PAYMENT, "currency": "eur"}, "currency"),
        ({**PAYMENT, "currency": "XXX"}, "currency"),
        ({**PAYMENT, "reference": "a\x00b"}, "reference"),
        ({**PAYMENT, "reference": "x" * 141}, "reference"),
        ({**PAYMENT, "reference": ""}, "reference"),
        ({**PAYMENT, "status": "completed"}, "status"),
        ([], ""),
    ],
)
def test_a_wrong_body_is_refused_before_anything_is_paid(body: object, named: str, alone: Run) -> None:
    client = alone()
    answer = client.post("/transactions/create", json=body)
    assert answer.status_code == 400
    assert named in answer.get_json()["detail"]
    assert count(client, "payment_duration_seconds_count") == 0


def test_what_is_no_json_or_too_large_is_refused(alone: Run) -> None:
    client = alone()
    post = client.post
    assert post("/transactions/create", data="amount=1").status_code == 415
    assert post("/transactions/create", data="{", content_type="application/json").status_code == 400
    assert post("/transactions/create", json=PAYMENT | {"reference": "x" * 20_000}).status_code == 413


def test_a_declined_payment_is_answered_402_and_not_stored(run: Run) -> None:
    client = run(payment_decline_rate=1)
    answer = create(client)
    assert (answer.status_code, answer.get_json()["title"]) == (402, "Payment Required")
    assert client.get("/transactions").get_json()["transactions"] == []
    assert count(client, "payments_total", outcome="declined") == 1
    assert count(client, "created_total", currency="EUR") == 0


def test_a_gateway_that_takes_too_long_is_answered_504(alone: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "TIMEOUT", 0.01)
    client = alone(payment_latency=1, latency_spread=0)
    assert create(client).status_code == 504
    labels = {"route": "/transactions/create", "exception": "GatewayError"}
    assert count(client, "http_exceptions_total", **labels) == 1


def test_a_request_that_comes_again_is_not_done_again(run: Run) -> None:
    client = run()
    first, again = create(client, "key-1"), create(client, "key-1")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json == again.json
    assert create(client, "key-2").get_json()["id"] != first.get_json()["id"]
    assert count(client, "created_total", currency="EUR") == 2
    assert count(client, "payments_total", outcome="authorised") == 2


def test_a_key_is_for_one_transaction(run: Run) -> None:
    client = run()
    create(client, "key-1")
    assert create(client, "key-1", amount="99.00").status_code == 422
    assert create(client, "key-1", amount="12.340"[:-1]).status_code == 200


@pytest.mark.parametrize("key", ["two words", "x" * 129, "\u00e4"])
def test_a_key_that_is_none_is_refused(key: str, alone: Run) -> None:
    answer = create(alone(), key)
    assert (answer.status_code, "Idempotency-Key" in answer.get_json()["detail"]) == (400, True)


# What goes wrong


def test_without_database_the_answer_is_503_and_the_process_alive(alone: Run) -> None:
    client = alone()
    for answer in (client.get("/transactions"), client.get(f"/transactions/{uuid4()}"), create(client)):
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "2"
        assert answer.content_type == "application/problem+json"
    labels = {"route": "/transactions", "exception": "UnavailableError"}
    assert count(client, "http_exceptions_total", **labels) == 1
    assert count(client, "http_requests_total", route="/transactions", method="GET", status="503") == 1
    assert health.answer("/livez", "", parts(client).ready, parts(client).registry)[0] == 200  # type: ignore[index]
    assert health.answer("/readyz", "", parts(client).ready, parts(client).registry)[0] == 503  # type: ignore[index]


def test_a_pool_that_is_exhausted_is_answered_503(run: Run) -> None:
    client = run(database_pool_size=1, database_max_overflow=0, database_pool_timeout=0.1)
    create(client)
    with parts(client).storage.claim():
        assert client.get("/transactions").status_code == 503
        assert client.get("/health").status_code == 503
    assert client.get("/transactions").status_code == 200
    assert count(client, "db_pool_timeouts_total") == 2
    assert count(client, "db_pool_waits_total") == 2


def test_a_cache_or_queue_that_is_away_fails_no_request(run: Run) -> None:
    client = run(redis_url=f"redis://127.0.0.1:{free_port()}/0", queue_url=f"amqp://127.0.0.1:{free_port()}/")
    assert create(client).status_code == 201
    assert len(client.get("/transactions").get_json()["transactions"]) == 1
    assert count(client, "queue_published_total", outcome="failed") == 1
    assert client.get("/health").json == {
        "status": "degraded",
        "database": "up",
        "cache": "down",
        "queue": "down",
    }


def test_health_says_what_is_there(run: Run, alone: Run) -> None:
    answer = run().get("/health")
    assert (answer.status_code, answer.get_json()["status"], answer.get_json()["cache"]) == (200, "ok", "off")
    answer = alone().get("/health")
    assert (answer.status_code, answer.get_json()["status"]) == (503, "unavailable")
    assert answer.get_json()["database"] == "down"


def test_an_unexpected_error_is_answered_500_logged_and_not_quoted(
    alone: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = alone()

    def fail(*_: object) -> None:
        raise KeyError("s3cret")

    monkeypatch.setattr(parts(client).storage, "page", fail)
    answer = client.get("/transactions")
    assert answer.status_code == 500
    assert "s3cret" not in answer.text
    (record,) = (record for record in caplog.records if record.message == "request")
    assert record.exc_info is not None
    labels = {"route": "/transactions", "exception": "KeyError"}
    assert count(client, "http_exceptions_total", **labels) == 1


@pytest.mark.parametrize(
    ("asked", "status", "counted"),
    [
        ("GET /error", 500, "GET /error"),
        ("GET /nothing", 404, "GET unmatched"),
        ("GET /transactions//create", 404, "GET unmatched"),
        ("POST /transactions", 405, "POST unmatched"),
        ("BREW /transactions", 405, "other unmatched"),
        ("GET /metrics", 404, "GET unmatched"),  # on another port
    ],
)
def test_every_error_is_a_problem_and_counted(asked: str, status: int, counted: str, alone: Run) -> None:
    client = alone()
    method, path = asked.split()
    answer = client.open(path, method=method)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert answer.get_json()["status"] == status
    assert re.fullmatch("[0-9a-f]{32}", answer.get_json()["trace_id"])
    method, route = counted.split()
    labels = {"route": route, "method": method, "status": str(status)}
    assert count(client, "http_requests_total", **labels) == 1


# Behaviour


def test_as_many_requests_fail_as_the_error_rate_says(alone: Run) -> None:
    client = alone(error_rate=0.5, payment_decline_rate=1)
    statuses = [create(client).status_code for _ in range(400)]
    assert set(statuses) == {402, 500}
    assert 120 < statuses.count(500) < 280  # eight standard deviations
    labels = {"route": "/transactions/create", "method": "POST", "status": "500"}
    assert count(client, "http_requests_total", **labels) == statuses.count(500)


def test_errors_on_purpose_come_for_transactions_only(alone: Run) -> None:
    client = alone(error_rate=1, control_token=TOKEN)
    for path in ("/transactions", f"/transactions/{uuid4()}"):
        assert client.get(path).status_code == 500
    labels = {"route": "/transactions", "exception": "InjectedError"}
    assert count(client, "http_exceptions_total", **labels) == 1
    assert client.get("/health").status_code == 503  # says the truth: there is no database
    assert client.get("/openapi.json").status_code == 200
    assert client.get("/control/behaviour", headers=BEARER).status_code == 200


def test_latency_is_added(alone: Run) -> None:
    client = alone(latency=0.2, latency_spread=0, error_rate=1)
    client.get("/transactions")
    assert count(client, "http_request_duration_seconds_sum", route="/transactions", method="GET") >= 0.2  # type: ignore[operator]


def test_the_behaviour_is_changed_shown_measured_and_reset(alone: Run) -> None:
    client = alone(control_token=TOKEN)
    change = {"error_rate": 1, "latency": 0.01, "seconds": 600}
    answer = client.put("/control/behaviour", json=change, headers=BEARER)
    assert answer.status_code == 200
    assert answer.get_json()["until"]
    assert client.get("/control/behaviour", headers=BEARER).json == answer.json
    assert client.get("/transactions").status_code == 500
    assert count(client, "behaviour_error_rate") == 1
    assert count(client, "behaviour_latency_seconds") == 0.01
    assert client.delete("/control/behaviour", headers=BEARER).get_json()["error_rate"] == 0
    assert client.get("/transactions").status_code == 503
    assert count(client, "behaviour_error_rate") == 0


def test_the_command_on_the_host_changes_a_running_api(alone: Run) -> None:
    client = alone()
    Behaviour(parts(client).settings).change(Change(error_rate=1, latency=None, seconds=600))
    assert client.get("/transactions").status_code == 500


@pytest.mark.parametrize("change", [{"error_rate": 2, "seconds": 60}, {"seconds": 60}, {"error_rate": 1}])
def test_a_wrong_change_is_refused(change: dict[str, float], alone: Run) -> None:
    client = alone(control_token=TOKEN)
    assert client.put("/control/behaviour", json=change, headers=BEARER).status_code == 400
    assert count(client, "behaviour_error_rate") == 0


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Bearer", "Bearer \xfc"])
def test_only_who_knows_the_token_controls(method: str, authorization: str | None, alone: Run) -> None:
    client = alone(control_token=TOKEN)
    headers = {"Authorization": authorization} if authorization else {}
    body = {"error_rate": 1, "seconds": 60}
    answer = client.open("/control/behaviour", method=method, json=body, headers=headers)
    assert answer.status_code == 401
    assert "Bearer" in answer.headers["WWW-Authenticate"]
    assert count(client, "behaviour_error_rate") == 0


@pytest.mark.parametrize("headers", [{}, BEARER, {"Authorization": "Bearer "}])
def test_without_a_token_nobody_controls_over_http(headers: dict[str, str], alone: Run) -> None:
    answer = alone().put("/control/behaviour", json={"error_rate": 1, "seconds": 60}, headers=headers)
    assert answer.status_code == 403
    assert "control_token" in answer.get_json()["detail"]
    assert answer.get_json()["detail"].endswith(": fleetwatch-transactions behaviour"), (
        "as on an installed host"
    )


# Logs, metrics, traces


def test_each_request_is_logged_with_what_it_takes_to_find_it(
    alone: Run, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    headers = {"X-Request-ID": "abc-1", "X-Real-IP": "192.0.2.7", "traceparent": TRACEPARENT}
    answer = alone().get("/error?password=s3cret", headers=headers)
    (record,) = (vars(record) for record in caplog.records if record.message == "request")
    assert (record["method"], record["path"], record["route"]) == ("GET", "/error", "/error")
    assert (record["status"], record["client"], record["levelname"]) == (500, "192.0.2.7", "ERROR")
    assert record["error"].startswith("DeliberateError")
    assert record["seconds"] >= 0
    assert "s3cret" not in caplog.text
    assert answer.headers["X-Request-ID"] == "abc-1"
    assert answer.get_json()["trace_id"] == TRACE


def test_health_is_neither_counted_nor_logged(alone: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    client = alone()
    client.get("/health")
    assert not [record for record in caplog.records if record.message == "request"]
    samples = parts(client).registry.collect()
    assert not any("/health" in sample.labels.values() for family in samples for sample in family.samples)


def metrics(client: FlaskClient, accept: str) -> tuple[str, str]:
    found = health.answer("/metrics", accept, parts(client).ready, parts(client).registry)
    assert found is not None
    return found[1], found[2].decode()


def test_the_histogram_has_exemplars_that_lead_to_the_trace(alone: Run) -> None:
    client = alone()
    client.get("/transactions", headers={"traceparent": TRACEPARENT})
    kind, text = metrics(client, "application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    exemplars = re.findall(
        r"^transactions_http_request_duration_seconds_bucket\{.*\} .* # (\{.*?\})", text, re.M
    )
    assert exemplars == [f'{{trace_id="{TRACE}"}}']
    kind, text = metrics(client, "text/plain")
    assert kind.startswith("text/plain")
    assert TRACE not in text


@pytest.mark.parametrize("given", [None, "nonsense", "00-" + "0" * 32 + "-b7ad6b7169203331-01"])
def test_without_a_trace_there_is_an_id_all_the_same(given: str | None, alone: Run) -> None:
    client = alone()
    answers = [client.get("/error", headers={"traceparent": given} if given else {}) for _ in range(2)]
    one, other = (answer.get_json()["trace_id"] for answer in answers)
    assert one != other
    assert int(one, 16)


def test_all_metrics_are_there_from_the_start_and_documented(alone: Run) -> None:
    families = list(text_string_to_metric_families(metrics(alone(), "text/plain")[1]))
    found = {family.name for family in families if family.name.startswith("transactions_")}
    assert found == {f"transactions_{name}" for name in NAMES.split()}
    assert all(family.documentation for family in families)
    requests = next(family for family in families if family.name == "transactions_http_requests")
    assert {(sample.labels["route"], sample.labels["status"]) for sample in requests.samples} >= {
        ("/transactions", "200"),
        ("/transactions", "500"),
        ("/transactions/create", "201"),
    }


def test_requests_in_progress_come_and_go(alone: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    client = alone()
    seen: list[float | None] = []
    storage = parts(client).storage
    page = storage.page

    def spy(*arguments: Any) -> Any:
        seen.append(count(client, "http_requests_in_progress"))
        return page(*arguments)

    monkeypatch.setattr(storage, "page", spy)
    client.get("/transactions")
    client.get("/nothing")
    assert seen == [1]
    assert count(client, "http_requests_in_progress") == 0


@pytest.mark.slow
def test_a_request_its_queries_and_its_payment_are_one_trace(run: Run) -> None:
    with run_collector() as collector:
        tracing.setup("transactions_api", collector.url)
        client = run()
        headers = {"traceparent": TRACEPARENT, "Idempotency-Key": "key-1"}
        made = client.post("/transactions/create", json=PAYMENT, headers=headers)
        failed = client.get("/error", headers={"traceparent": TRACEPARENT})
        with parts(client).storage.claim() as claim:
            stored = claim.transactions[0].traceparent
        tracing.shutdown()
    assert (made.status_code, failed.status_code) == (201, 500)
    assert stored is not None
    assert stored.startswith(f"00-{TRACE}-")
    assert stored != TRACEPARENT
    assert {span.trace for span in collector.spans} == {TRACE}
    found = {span.name: span for span in collector.spans}
    assert set(found) >= {
        "POST /transactions/create",
        "authorise payment",
        "INSERT postgresql",
        "SELECT postgresql",
        "GET /error",
    }
    assert found["POST /transactions/create"].attributes["http.response.status_code"] == 201
    assert {name: span.kind for name, span in found.items()} == {
        name: "server" if "/" in name else "client" for name in found
    }
    assert found["POST /transactions/create"].parent == TRACEPARENT.split("-")[2]
    assert found["INSERT postgresql"].attributes["db.system.name"] == "postgresql"
    assert "12.34" not in json.dumps(found["INSERT postgresql"].attributes)
    assert [span.name for span in collector.spans if span.failed] == ["GET /error"]


@pytest.mark.slow
def test_a_query_that_fails_is_a_failed_span(run: Run) -> None:
    with run_collector() as collector:
        tracing.setup("transactions_api", collector.url)
        client = run()
        create(client)
        storage = parts(client).storage
        with storage._begin() as session:
            session.connection().exec_driver_sql("ALTER TABLE transactions RENAME TO gone")
        assert client.get("/transactions").status_code == 500
        tracing.shutdown()
    assert {span.name for span in collector.spans if span.failed} == {
        "SELECT postgresql",
        "GET /transactions",
    }
