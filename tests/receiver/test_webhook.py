from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from fleetwatch.alerting.labels import fingerprint
from fleetwatch.receiver.webhook import WebhookError, parse
from fleetwatch.store import Status
from tests.common.services import alert


def _parse(payload: object, max_alerts: int = 100) -> Any:
    return parse(json.dumps(payload).encode(), max_alerts)


def test_a_group_with_old_and_new_fields() -> None:
    batch = _parse(
        {
            "version": "4",
            "groupKey": '{}:{alertname="HighCpu"}',
            "truncatedAlerts": 0,
            "notification_reason": "new",
            "routeLabels": {"team": "web"},
            "status": "firing",
            "receiver": r"web\.hook",
            "groupLabels": {},
            "commonLabels": {},
            "commonAnnotations": {},
            "externalURL": "http://alertmanager:9093",
            "alerts": [
                alert(fingerprint="abc"),
                alert(status="resolved", endsAt="2026-01-02T04:04:05+01:00", fingerprint="def"),
            ],
        }
    )
    first, second = batch.events
    assert (first.status, first.fingerprint, first.ends_at) == (Status.FIRING, "abc", None)
    assert first.starts_at == datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    assert first.receiver == "web.hook"
    assert first.external_url == "http://alertmanager:9093"
    assert second.status is Status.RESOLVED
    assert second.ends_at == datetime(2026, 1, 2, 3, 4, 5, 0, UTC)
    assert batch.refused == []


def test_hand_written_with_little_more_than_labels() -> None:
    (event,) = _parse(
        {"alerts": [{"labels": {"alertname": "Test", "value": 95, "up": True, "none": None}}]}
    ).events
    assert event.status is Status.FIRING
    assert event.labels == {"alertname": "Test", "value": "95", "up": "true"}
    assert (event.starts_at, event.severity, event.summary) == (None, "none", "Test")


def test_the_groups_status_counts_for_an_alert_without_one() -> None:
    (event,) = _parse({"status": "Resolved", "alerts": [{"labels": {"a": "b"}}]}).events
    assert event.status is Status.RESOLVED
    assert event.summary == "alert a=b"


def test_fingerprint_is_that_of_prometheus() -> None:
    # The value stands in the tests of github.com/prometheus/common/model.
    labels = {"name": "garland, briggs", "fear": "love is not enough"}
    assert fingerprint(labels) == f"{5799056148416392346:016x}"
    assert fingerprint({}) == f"{14695981039346656037:016x}"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "must be a JSON object"),
        ({"labels": {}}, "labels: Dictionary should have at least 1 item"),
        ({"status": "firing"}, "labels: Field required"),
        ({"labels": {"a": ["b"]}}, "labels.a: Input should be a valid string"),
        ({"labels": {"a": "b"}, "status": "pending"}, "status: Input should be 'firing' or 'resolved'"),
        ({"labels": {"a": "b"}, "startsAt": "yesterday"}, "startsAt: Input should be a valid datetime"),
        ({"labels": {"a": "b"}, "fingerprint": "f" * 129}, "fingerprint: String should have at most 128"),
        ({"labels": {"a": "\ud800"}, "fingerprint": "f"}, "surrogate"),
        ({"labels": {"a": "b"}, "annotations": {"summary": "\ud800"}}, "surrogate"),
    ],
)
def test_a_bad_alert_is_refused_with_its_reason_and_costs_no_other(bad: object, reason: str) -> None:
    batch = _parse({"alerts": [alert("First"), bad, alert("Last")]})
    assert [event.labels["alertname"] for event in batch.events] == ["First", "Last"]
    (refused,) = batch.refused
    assert refused.index == 1
    assert reason in refused.reason


@pytest.mark.parametrize("zero", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "", None])
def test_times_that_are_not_set(zero: str | None) -> None:
    (event,) = _parse({"alerts": [alert(startsAt=zero, endsAt=zero)]}).events
    assert (event.starts_at, event.ends_at) == (None, None)


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "bad_json"),
        (b"{", 400, "bad_json"),
        (b"\xff\xfe\xfd", 400, "bad_json"),
        (b"[" * 100_000, 400, "bad_json"),
        (b'{"alerts": [' + b"9" * 5000 + b"]}", 400, "bad_json"),
        (b"[]", 400, "bad_request"),
        (b'{"alert": "test"}', 400, "bad_request"),
        (b'{"alerts": []}', 400, "bad_request"),
        (b'{"alerts": {}}', 400, "bad_request"),
        (b'{"alerts": [1]}', 400, "bad_alert"),
        (b'{"alerts": [1, 2, 3, 4]}', 413, "too_many_alerts"),
    ],
)
def test_what_will_never_be_good(body: bytes, status: int, reason: str) -> None:
    with pytest.raises(WebhookError) as refused:
        parse(body, 3)
    assert (refused.value.status, refused.value.reason) == (status, reason)


def test_a_nul_character_is_replaced() -> None:
    body = rb'{"receiver": "a\u0000b", "alerts": [{"labels": {"alertname": "A\u0000B", "x\u0000": "y"}}]}'
    (event,) = parse(body, 10).events
    assert event.labels == {"alertname": "A\ufffdB", "x\ufffd": "y"}
    assert event.receiver == "a\ufffdb"
