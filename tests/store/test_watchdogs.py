"""Heartbeats, and what becomes of their absence."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import selectinload

from fleetwatch.alerting.routes import DEFAULT_RECEIVER, WATCHDOG_RECEIVER, Route, Router
from fleetwatch.store import AlertEvent, Incident, Status, Store, Watchdog
from fleetwatch.store.incidents import Accepted

TIMEOUT = 600.0
PAUSE = 15.0
BEAT = AlertEvent(
    Status.FIRING,
    "w1",
    {"alertname": "Watchdog", "severity": "info"},
    starts_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    external_url="http://alertmanager:9093",
    receiver=WATCHDOG_RECEIVER,
)
EU = replace(BEAT, fingerprint="w2", labels={**BEAT.labels, "region": "eu"})
ALERT = replace(BEAT, fingerprint="f1", labels={"alertname": "A"}, receiver=DEFAULT_RECEIVER)
MAIL = Router([], ["mail"])


def _accept(store: Store, *events: AlertEvent) -> Accepted:
    return store.accept([events], MAIL)[0]


def _watch(store: Store, router: Router = MAIL, **options: Any) -> list[str]:
    return store.watch(TIMEOUT, PAUSE, router, **options)


def _pass(store: Store, seconds: float, *, pause: float = PAUSE) -> list[str]:
    """Let time go by, with a look after each pause; return what these found."""
    found: list[str] = []
    for _ in range(round(seconds / pause)):
        _shift(store, -pause)
        found += _watch(store)
    return found


def _shift(store: Store, seconds: float) -> None:
    """Move all times that were written down."""
    with store.write() as session:
        for row in session.scalars(select(Watchdog)):
            row.looked_at += timedelta(seconds=seconds)
            if not row.missing:
                row.beat_at += timedelta(seconds=seconds)


def _incidents(store: Store) -> list[Incident]:
    query = select(Incident).options(selectinload(Incident.notifications), selectinload(Incident.events))
    with store.read() as session:
        return list(session.scalars(query.order_by(Incident.id)))


def _told(store: Store) -> list[tuple[str, list[str]]]:
    return [(each.status, [row.transition for row in each.notifications]) for each in _incidents(store)]


def _fingerprints(store: Store) -> list[str]:
    return [row.fingerprint for row in store.watchdogs()]


def test_a_heartbeat_is_no_incident_and_no_message(store: Store) -> None:
    done = _accept(store, BEAT, ALERT)
    assert (done.heartbeats, done.fired, done.duplicates) == (1, 1, 0)
    assert [incident.labels["alertname"] for incident in _incidents(store)] == ["A"]
    (row,) = store.watchdogs()
    assert (row.fingerprint, row.labels, row.silent_for, row.missing) == ("w1", BEAT.labels, 0, False)
    assert abs(row.beat_at - datetime.now(UTC)) < timedelta(seconds=5)


def test_a_watchdog_that_is_over_is_no_heartbeat(store: Store) -> None:
    done = _accept(store, replace(BEAT, status=Status.RESOLVED))
    assert (done.heartbeats, done.resolved, done.duplicates) == (0, 0, 1)
    assert store.watchdogs() == []
    _accept(store, BEAT)
    assert len(_pass(store, TIMEOUT - PAUSE)) == 0
    _accept(store, replace(BEAT, status=Status.RESOLVED))
    assert len(_pass(store, 2 * PAUSE)) == 1


def test_silence_opens_one_incident_and_a_heartbeat_closes_it(store: Store) -> None:
    _accept(store, BEAT)
    assert _pass(store, TIMEOUT - PAUSE) == []
    assert _incidents(store) == []
    assert _pass(store, PAUSE) == ["No heartbeat from Prometheus"]
    assert _pass(store, TIMEOUT * 3) == []
    (incident,) = _incidents(store)
    assert (incident.status, incident.severity) == (Status.FIRING, "critical")
    assert incident.labels == {"alertname": "WatchdogMissing", "severity": "critical"}
    assert incident.receiver == DEFAULT_RECEIVER
    assert incident.external_url == "", "the reconciliation would close it"
    (row,) = store.watchdogs()
    assert (row.missing, row.beat_at) == (True, incident.starts_at)
    assert incident.starts_at.strftime("%H:%M:%S") in incident.annotations["description"]

    assert _accept(store, BEAT).heartbeats == 1
    assert _told(store) == [("resolved", ["firing", "resolved"])]
    (incident,) = _incidents(store)
    assert incident.resolved_by is None
    assert incident.ends_at is not None
    assert abs(incident.ends_at - datetime.now(UTC)) < timedelta(seconds=5)
    _accept(store, BEAT)
    assert len(_pass(store, TIMEOUT)) == 1
    assert _told(store) == [("resolved", ["firing", "resolved"]), ("firing", ["firing"])]


def test_heartbeats_that_come_leave_no_trace(store: Store) -> None:
    for _ in range(5):
        _accept(store, BEAT)
        assert _pass(store, TIMEOUT - PAUSE) == []
    assert _incidents(store) == []
    assert len(store.watchdogs()) == 1


def test_each_prometheus_is_watched_alone(store: Store) -> None:
    _accept(store, BEAT, EU)
    assert _pass(store, TIMEOUT / 2) == []
    _accept(store, BEAT)
    assert _pass(store, TIMEOUT / 2) == ["No heartbeat from Prometheus (region=eu)"]
    (incident,) = _incidents(store)
    assert incident.labels == {"alertname": "WatchdogMissing", "severity": "critical", "region": "eu"}
    _accept(store, BEAT)
    assert _told(store) == [("firing", ["firing"])]
    _accept(store, EU)
    assert _told(store) == [("resolved", ["firing", "resolved"])]


def test_the_same_from_two_alertmanagers_or_an_ha_pair_is_one(store: Store) -> None:
    other = replace(BEAT, external_url="http://alertmanager2:9093", starts_at=datetime.now(UTC))
    assert _accept(store, BEAT, other).heartbeats == 2
    assert _fingerprints(store) == ["w1"]


def test_one_that_is_expected_and_never_comes(store: Store) -> None:
    store.expect_heartbeat()
    store.expect_heartbeat()
    assert _pass(store, TIMEOUT) == ["No heartbeat from Prometheus"]
    (incident,) = _incidents(store)
    assert "has never come" in incident.annotations["description"]
    assert _accept(store, EU).heartbeats == 1
    assert _told(store) == [("resolved", ["firing", "resolved"])]
    assert _fingerprints(store) == ["w2"]


def test_the_first_heartbeat_ends_the_wait_for_it(store: Store) -> None:
    store.expect_heartbeat()
    _accept(store, EU)
    assert _fingerprints(store) == ["w2"]
    store.expect_heartbeat()
    assert _fingerprints(store) == ["w2"]


def test_nothing_is_missed_that_never_came(store: Store) -> None:
    assert _pass(store, TIMEOUT * 2) == []
    assert store.watchdogs() == []


def test_who_resolves_it_by_hand_waits_for_it_no_more(store: Store) -> None:
    _accept(store, BEAT, EU)
    assert len(_pass(store, TIMEOUT)) == 2
    (first, _) = _incidents(store)
    store.resolve(first.id, "ops", MAIL, "the old one is switched off")
    assert _pass(store, TIMEOUT * 2) == []
    assert _told(store) == [("resolved", ["firing", "resolved"]), ("firing", ["firing"])]
    assert len(store.watchdogs()) == 1
    _accept(store, BEAT, EU)  # it is back after all
    assert [status for status, _ in _told(store)] == ["resolved", "resolved"]
    assert len(_pass(store, TIMEOUT)) == 2


def test_the_reconciliation_leaves_it_alone(store: Store) -> None:
    _accept(store, BEAT)
    _pass(store, TIMEOUT)
    for _ in range(2):
        done = store.reconcile([], MAIL, timedelta(0), complete=True)
        assert (done.closed, done.reopened) == ([], [])
    assert _told(store) == [("firing", ["firing"])]


def test_retention_leaves_it_alone(store: Store) -> None:
    _accept(store, BEAT)
    _pass(store, TIMEOUT)
    assert store.prune(0) == 0
    _accept(store, BEAT)
    assert _told(store) == [("resolved", ["firing", "resolved"])]


def test_routes_escalations_and_runbook_are_those_of_any_incident(store: Store) -> None:
    routes: Sequence[dict[str, Any]] = [
        {
            "name": "eu",
            "receivers": ["fleetwatch"],
            "matchers": ['region="eu"', 'alertname="WatchdogMissing"'],
            "channels": ["sms"],
            "escalations": [{"after": 60, "channels": ["boss"]}],
        },
        {"name": "rest", "channels": ["mail"]},
    ]
    router = Router([Route.model_validate(route) for route in routes], [])
    _accept(store, EU)
    _pass(store, TIMEOUT - PAUSE)
    _shift(store, -PAUSE)
    assert len(_watch(store, router, runbook_url="https://wiki/runbooks")) == 1
    (incident,) = _incidents(store)
    assert incident.annotations["runbook_url"] == "https://wiki/runbooks/WatchdogMissing.md"
    assert [(row.transition, row.channel, row.route) for row in incident.notifications] == [
        ("firing", "sms", "eu"),
        ("escalation", "boss", "eu"),
    ]


@pytest.mark.parametrize("hours", [-3, 3])
def test_a_clock_that_jumps_makes_no_alarm_and_hides_none(store: Store, hours: int) -> None:
    _accept(store, BEAT)
    assert _pass(store, TIMEOUT / 2) == []
    _shift(store, -hours * 3600)  # as if the clock had jumped, the other way
    assert _watch(store) == []
    assert _incidents(store) == []
    assert len(_pass(store, TIMEOUT / 2 + PAUSE)) == 1
    (incident,) = _incidents(store)
    assert incident.starts_at <= datetime.now(UTC), "it began in the future"
    _accept(store, BEAT)
    assert _told(store) == [("resolved", ["firing", "resolved"])]


def test_time_without_a_dispatcher_does_not_count(store: Store) -> None:
    _accept(store, BEAT)
    _shift(store, -86400)  # the host was off
    assert _watch(store) == []
    (row,) = store.watchdogs()
    assert row.silent_for <= 2 * PAUSE


def test_a_dispatcher_that_is_restarted_goes_on_where_it_was(store: Store, database: str) -> None:
    _accept(store, BEAT)
    _pass(store, TIMEOUT - PAUSE)
    _shift(store, -PAUSE)
    other = Store(database)
    try:
        assert len(_watch(other)) == 1
    finally:
        other.close()
    assert _watch(store) == []
    assert len(_incidents(store)) == 1


def test_two_dispatchers_count_the_time_once(store: Store) -> None:
    _accept(store, BEAT)
    for _ in range(10):
        _shift(store, -PAUSE)
        _watch(store)
        _shift(store, -PAUSE / 3)
        _watch(store)  # the other one, a moment later
        _shift(store, PAUSE / 2)
        _watch(store)  # a third whose clock is a little behind
    (row,) = store.watchdogs()
    assert row.silent_for == pytest.approx(10 * PAUSE, abs=2 * PAUSE)


def test_only_one_of_many_dispatchers_opens_it(store: Store, database: str) -> None:
    _accept(store, BEAT)
    _pass(store, TIMEOUT - PAUSE)
    _shift(store, -PAUSE)
    stores = [Store(database) for _ in range(4)]
    try:
        with ThreadPoolExecutor(4) as pool:
            assert sum(len(found) for found in pool.map(_watch, stores)) == 1
    finally:
        for each in stores:
            each.close()
    assert _told(store) == [("firing", ["firing"])]


def test_a_failure_in_between_neither_loses_nor_doubles_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _accept(store, BEAT)
    _pass(store, TIMEOUT - PAUSE)
    _shift(store, -PAUSE)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("in the middle")

    with monkeypatch.context() as patch:
        patch.setattr("fleetwatch.store.incidents._queue", fail)
        with pytest.raises(RuntimeError, match="in the middle"):
            _watch(store)
    assert _incidents(store) == []
    assert len(_watch(store)) == 1
    with monkeypatch.context() as patch:
        patch.setattr("fleetwatch.store.incidents._close", fail)
        with pytest.raises(RuntimeError, match="in the middle"):
            _accept(store, BEAT)
    assert store.watchdogs()[0].missing
    _accept(store, BEAT)
    assert _told(store) == [("resolved", ["firing", "resolved"])]


def test_two_that_differ_only_in_severity_are_two_incidents(store: Store) -> None:
    other = replace(BEAT, fingerprint="w3", labels={"alertname": "Watchdog", "severity": "none"})
    _accept(store, BEAT)
    _accept(store, other)
    assert len(_pass(store, TIMEOUT)) == 2
    assert len(_incidents(store)) == 2
    _accept(store, BEAT, other)
    assert [status for status, _ in _told(store)] == ["resolved", "resolved"]


def test_an_incident_posted_by_somebody_with_its_name_is_another(store: Store) -> None:
    _accept(store, BEAT)
    _pass(store, TIMEOUT)
    (incident,) = _incidents(store)
    _accept(store, replace(ALERT, fingerprint=incident.fingerprint, labels=incident.labels))
    assert len(_incidents(store)) == 2
    _accept(store, BEAT)
    assert [status for status, _ in _told(store)] == ["resolved", "firing"]
