"""The receiver takes the Watchdog for a heartbeat."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update

from fleetwatch.receiver.app import create_app
from fleetwatch.receiver.settings import ReceiverSettings
from fleetwatch.store import Store, Watchdog
from tests.common.services import MAIL, alert

AGE = "alert_receiver_heartbeat_age_seconds"


@pytest.fixture
def client(database: str) -> Iterator[FlaskClient]:
    settings = ReceiverSettings.model_validate(
        {"database_url": database, "channels": [MAIL], "anonymous_roles": ["send", "read"]}
    )
    app = create_app(settings)
    yield app.test_client()
    app.extensions["receiver"].close()


def _post(client: FlaskClient, *alerts: dict[str, Any], receiver: str = "fleetwatch-watchdog") -> Any:
    answer = client.post("/alerts", json={"receiver": receiver, "alerts": alerts})
    assert answer.status_code == 200
    return answer.get_json()


def _watchdog(region: str = "", **fields: Any) -> dict[str, Any]:
    labels = {"alertname": "Watchdog", "severity": "info"} | ({"region": region} if region else {})
    return alert("Watchdog", **fields) | {"labels": labels}


def _ages(client: FlaskClient) -> dict[str, float]:
    found = re.findall(rf'^{AGE}{{source="([^"]*)"}} (\S+)$', client.get("/metrics").text, re.MULTILINE)
    return {source: float(age) for source, age in found}


def test_it_is_recorded_and_no_incident(client: FlaskClient) -> None:
    assert _ages(client) == {}
    assert client.get("/api/v1/heartbeats").get_json() == {"heartbeats": []}
    answer = _post(client, _watchdog(), _watchdog("eu"))
    counts = {"accepted": 0, "fired": 0, "resolved": 0, "duplicates": 0, "heartbeats": 2}
    assert answer == counts | {"refused": []}
    assert client.get("/api/v1/incidents").get_json()["incidents"] == []
    assert "alert_receiver_heartbeats_total 2.0" in client.get("/metrics").text
    assert 'alert_receiver_alerts_accepted_total{status="firing"} 0.0' in client.get("/metrics").text
    rows = client.get("/api/v1/heartbeats").get_json()["heartbeats"]
    found = {row["labels"].get("region", ""): row["missing"] for row in rows}
    assert found == {"": False, "eu": False}
    last = datetime.fromisoformat(rows[0]["last_heartbeat"])
    assert timedelta(0) <= datetime.now(UTC) - last < timedelta(seconds=10)


def test_its_age_is_measured(client: FlaskClient, database: str) -> None:
    _post(client, _watchdog(), _watchdog("eu"))
    store = Store(database)
    with store.write() as session:
        ago = datetime.now(UTC) - timedelta(hours=1)
        session.execute(update(Watchdog).where(Watchdog.fingerprint != "").values(beat_at=ago))
    store.close()
    _post(client, _watchdog())
    ages = _ages(client)
    assert ages.keys() == {"", "region=eu"}
    assert 0 <= ages[""] < 60
    assert 3600 <= ages["region=eu"] < 3660


@pytest.mark.parametrize("old", [0, 1])
def test_two_that_differ_only_in_severity_are_one_series_of_the_older(
    client: FlaskClient, database: str, old: int
) -> None:
    other = _watchdog()
    _post(client, _watchdog(), other | {"labels": other["labels"] | {"severity": "none"}})
    assert len(client.get("/api/v1/heartbeats").get_json()["heartbeats"]) == 2
    store = Store(database)
    number = store.watchdogs()[old].fingerprint
    with store.write() as session:
        ago = datetime.now(UTC) - timedelta(hours=1)
        session.execute(update(Watchdog).where(Watchdog.fingerprint == number).values(beat_at=ago))
    store.close()
    (age,) = _ages(client).values()
    assert age >= 3600


def test_one_that_is_expected_has_no_last_heartbeat(client: FlaskClient, database: str) -> None:
    store = Store(database)
    store.expect_heartbeat()
    store.close()
    expected: dict[str, Any] = {"labels": {}, "last_heartbeat": None, "missing": False}
    assert client.get("/api/v1/heartbeats").get_json() == {"heartbeats": [expected]}


def test_a_watchdog_for_another_receiver_is_an_alert(client: FlaskClient) -> None:
    answer = _post(client, _watchdog(), receiver="fleetwatch")
    assert (answer["fired"], answer["heartbeats"]) == (1, 0)


def test_one_that_is_over_says_nothing(client: FlaskClient) -> None:
    answer = _post(client, _watchdog(status="resolved", endsAt="2026-01-02T04:00:00Z"))
    assert (answer["heartbeats"], answer["resolved"], answer["duplicates"]) == (0, 0, 1)
    assert client.get("/api/v1/heartbeats").get_json() == {"heartbeats": []}


def test_who_may_not_send_beats_no_heart(database: str) -> None:
    settings = {"database_url": database, "channels": [MAIL], "anonymous_roles": ["read"]}
    app = create_app(ReceiverSettings.model_validate(settings))
    client = app.test_client()
    body = {"receiver": "fleetwatch-watchdog", "alerts": [_watchdog()]}
    assert client.post("/alerts", json=body).status_code in {401, 403}
    assert client.get("/api/v1/heartbeats").get_json() == {"heartbeats": []}
    app.extensions["receiver"].close()
