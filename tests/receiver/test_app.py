from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient

from fleetwatch.receiver.app import create_app
from fleetwatch.receiver.settings import ReceiverSettings
from fleetwatch.store import Store
from fleetwatch.store import database as database_module
from tests.common.services import MAIL, alert


@pytest.fixture
def client(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    monkeypatch.setattr(database_module, "_BUSY_TIMEOUT", 0.1)
    settings = ReceiverSettings.model_validate(
        {
            "database_url": database,
            "channels": [MAIL],
            "anonymous_roles": ["send", "read"],
            "max_body_bytes": 20_000,
            "max_alerts": 10,
            "external_url": "https://alerts.example.org",
        }
    )
    app = create_app(settings)
    yield app.test_client()
    app.extensions["receiver"].close()


def _metric(client: FlaskClient, line: str) -> float:
    for found in client.get("/metrics").text.splitlines():
        if found.startswith(line + " "):
            return float(found.split()[-1])
    raise AssertionError(f"no metric {line}")


def _incidents(client: FlaskClient, query: str = "") -> list[dict[str, Any]]:
    answer = client.get(f"/api/v1/incidents{query}")
    assert answer.status_code == 200
    return list(answer.get_json()["incidents"])


@pytest.mark.parametrize("path", ["/alerts", "/", "/alert", "/webhook"])
def test_every_path_commits(client: FlaskClient, path: str) -> None:
    answer = client.post(path, json={"alerts": [alert()]})
    assert answer.status_code == 200
    counts = {"accepted": 1, "fired": 1, "resolved": 0, "duplicates": 0, "heartbeats": 0}
    assert answer.get_json() == counts | {"refused": []}
    (incident,) = _incidents(client)
    assert incident["labels"]["alertname"] == "HighCpu"
    assert incident["fired_at"] == "2026-01-02T03:04:05.678Z"
    assert incident["received_at"].endswith("Z")
    assert (incident["resolved_at"], incident["resolved_received_at"]) == (None, None)
    (notification,) = incident["notifications"]
    assert (notification["channel"], notification["state"]) == ("mail", "queued")
    assert (notification["attempts"], notification["sent_at"], notification["last_error"]) == (0, None, None)


def test_good_alerts_are_committed_beside_a_bad_one(client: FlaskClient) -> None:
    answer = client.post("/alerts", json={"alerts": [alert("A"), {"labels": 5}, alert("B")]})
    assert answer.status_code == 200
    (refused,) = answer.get_json()["refused"]
    assert refused["index"] == 1
    assert "labels" in refused["reason"]
    assert len(_incidents(client)) == 2
    assert _metric(client, 'alert_receiver_refused_total{reason="bad_alert"}') == 1


def test_what_alertmanager_left_out_is_counted(client: FlaskClient) -> None:
    group = {"alerts": [alert("A")], "truncatedAlerts": 7}
    assert client.post("/alerts", json=group).status_code == 200
    assert _metric(client, 'alert_receiver_refused_total{reason="truncated"}') == 7


def test_a_second_alertmanager_makes_no_second_message(client: FlaskClient) -> None:
    for url in ("http://a:9093", "http://b:9093"):
        assert client.post("/alerts", json={"externalURL": url, "alerts": [alert()]}).status_code == 200
    (incident,) = _incidents(client)
    assert len(incident["notifications"]) == 1
    assert _metric(client, "alert_receiver_alerts_duplicate_total") == 1


def test_hand_written_redelivery_is_one_incident(client: FlaskClient) -> None:
    payload = {
        "alerts": [{"status": "firing", "labels": {"alertname": "HighErrorRate", "severity": "critical"}}]
    }
    for _ in range(3):
        assert client.post("/alerts", json=payload).status_code == 200
    assert len(_incidents(client)) == 1


@pytest.mark.parametrize(
    ("sent", "status", "reason"),
    [
        ({"data": "{", "content_type": "application/json"}, 400, "not JSON"),
        ({"json": {"alert": "test"}}, 400, '"alerts" must be a list'),
        ({"json": {"alerts": [{}]}}, 400, "no alert can be used"),
        ({"json": {"alerts": [alert()] * 11}}, 413, "11 alerts, the limit is 10"),
        ({"json": {"alerts": [alert()], "x": "x" * 20_000}}, 413, "larger than the limit of 20000 bytes"),
        ({"data": "{}"}, 415, "application/json"),
        (
            {
                "data": b"\x1f\x8b",
                "content_type": "application/json",
                "headers": {"Content-Encoding": "gzip"},
            },
            415,
            "compressed",
        ),
    ],
)
def test_what_will_never_be_good(client: FlaskClient, sent: dict[str, Any], status: int, reason: str) -> None:
    answer = client.post("/alerts", **sent)
    assert answer.status_code == status
    assert reason in answer.get_json()["error"]
    assert _incidents(client) == []


@pytest.mark.slow
def test_503_when_it_cannot_commit_and_then_all_is_well(client: FlaskClient, database: str) -> None:
    blocker = Store(database)
    with blocker.write():
        with ThreadPoolExecutor(3) as pool:  # those that wait for one another fail in time as well
            posts = [pool.submit(client.post, "/alerts", json={"alerts": [alert()]}) for _ in range(3)]
            for post in posts:
                assert post.result(10).status_code == 503
                assert post.result().headers["Retry-After"]
        # PostgreSQL can still be written, only no incidents.
        assert client.get("/readyz").status_code == (503 if blocker.dialect == "sqlite" else 200)
        assert client.get("/healthz").status_code == 200
        assert _incidents(client) == []
    blocker.close()
    assert client.get("/readyz").status_code == 200
    assert client.post("/alerts", json={"alerts": [alert()]}).status_code == 200
    assert len(_incidents(client)) == 1
    assert _metric(client, "alert_receiver_commit_failures_total") == 3


def test_a_test_alert_is_recorded_but_announced_on_no_channel(client: FlaskClient) -> None:
    for receiver, name in (("fleetwatch-verify", "Silent"), ("fleetwatch", "Loud")):
        for status in ("firing", "resolved"):
            answer = client.post(
                "/alerts", json={"receiver": receiver, "alerts": [alert(name, status=status)]}
            )
            assert answer.status_code == 200
    loud, silent = _incidents(client)
    assert silent["status"] == "resolved"
    assert silent["notifications"] == []
    assert len(loud["notifications"]) == 2


def test_incidents_are_filtered(client: FlaskClient) -> None:
    client.post("/alerts", json={"alerts": [alert("A"), alert("B", labels={"query": "a=b"})]})
    client.post("/alerts", json={"alerts": [alert("A", status="resolved", endsAt="2026-01-02T04:00:00Z")]})
    assert [i["labels"]["alertname"] for i in _incidents(client)] == ["B", "A"]
    assert [i["labels"]["alertname"] for i in _incidents(client, "?status=resolved")] == ["A"]
    assert [i["labels"]["alertname"] for i in _incidents(client, "?label=host=node1&label=query=a=b")] == [
        "B"
    ]
    assert len(_incidents(client, "?limit=1")) == 1
    (resolved,) = _incidents(client, "?label=alertname=A")
    assert resolved["resolved_at"] == "2026-01-02T04:00:00.000Z"
    assert [n["transition"] for n in resolved["notifications"]] == ["firing", "resolved"]


@pytest.mark.parametrize(
    "query",
    ["?status=open", "?limit=0", "?limit=1001", "?limit=x", "?limit=" + "9" * 5000, "?label=a", "?label==b"],
)  # fmt: skip
def test_bad_queries(client: FlaskClient, query: str) -> None:
    answer = client.get(f"/api/v1/incidents{query}")
    assert answer.status_code == 400
    assert answer.get_json()["error"]


def test_errors_are_json(client: FlaskClient) -> None:
    assert client.get("/nowhere").get_json()["error"]
    answer = client.get("/alerts")
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]


def test_metrics(client: FlaskClient) -> None:
    client.post("/alerts", json={"alerts": [alert("A"), alert("B", labels={"severity": "warning"})]})
    client.post("/alerts", json={"alerts": [alert("A", status="resolved")]})
    assert _metric(client, 'alert_receiver_alerts_accepted_total{status="firing"}') == 2
    assert _metric(client, 'alert_receiver_alerts_accepted_total{status="resolved"}') == 1
    assert _metric(client, 'alert_receiver_open_incidents{severity="critical"}') == 0
    assert _metric(client, 'alert_receiver_open_incidents{severity="warning"}') == 1
    assert _metric(client, 'alert_receiver_acknowledged_incidents{severity="warning"}') == 0
    (incident,) = _incidents(client, "?severity=warning&status=firing")
    client.application.extensions["receiver"].store.acknowledge(incident["id"], by="ann")
    assert _metric(client, 'alert_receiver_acknowledged_incidents{severity="warning"}') == 1
    assert _metric(client, "alert_receiver_commit_seconds_count") == 2
    assert _metric(client, "alert_receiver_outbox_depth") == 3
    assert _metric(client, "alert_receiver_outbox_oldest_age_seconds") > 0
    assert _metric(client, "alert_receiver_parked_notifications") == 0
    assert _metric(client, 'alert_receiver_info{external_url="https://alerts.example.org"}') == 1
