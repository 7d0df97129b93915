from __future__ import annotations

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from fleetwatch.store import AlertEvent, Incident, SchemaTooNewError, State, Status, Store
from fleetwatch.store.models import SchemaVersion

BEGAN = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
FIRING = AlertEvent(Status.FIRING, "f1", {"alertname": "A", "severity": "Critical"}, starts_at=BEGAN)
RESOLVED = replace(FIRING, status=Status.RESOLVED, ends_at=BEGAN + timedelta(minutes=5))
CHANNELS = ("sendgrid",)


def _transitions(store: Store) -> list[tuple[str, list[str]]]:
    return [
        (incident.status, [notification.transition for notification in incident.notifications])
        for incident in store.incidents()
    ]


def test_fire_and_resolve_make_one_incident_and_two_messages(store: Store) -> None:
    assert store.accept([FIRING], CHANNELS).fired == 1
    assert store.accept([RESOLVED], CHANNELS).resolved == 1
    (incident,) = store.incidents()
    assert incident.starts_at == BEGAN
    assert incident.ends_at == BEGAN + timedelta(minutes=5)
    assert incident.severity == "critical"
    assert _transitions(store) == [("resolved", ["firing", "resolved"])]


def test_redelivery_tells_nothing_new(store: Store) -> None:
    for event in (FIRING, FIRING, RESOLVED, RESOLVED, FIRING):
        store.accept([event], CHANNELS)
    assert _transitions(store) == [("resolved", ["firing", "resolved"])]
    assert store.accept([FIRING, RESOLVED], CHANNELS).duplicates == 2


def test_a_new_start_is_a_new_incident(store: Store) -> None:
    store.accept([FIRING, RESOLVED, replace(FIRING, starts_at=BEGAN + timedelta(hours=1))], CHANNELS)
    assert _transitions(store) == [("firing", ["firing"]), ("resolved", ["firing", "resolved"])]


def test_one_batch_may_repeat_itself(store: Store) -> None:
    done = store.accept([FIRING, FIRING, RESOLVED], CHANNELS)
    assert (done.fired, done.resolved, done.duplicates) == (1, 1, 1)


def test_posts_without_a_time_mean_the_open_occurrence(store: Store) -> None:
    by_hand = replace(FIRING, starts_at=None)
    resolved = replace(by_hand, status=Status.RESOLVED)
    for event in (by_hand, by_hand, resolved, resolved):
        store.accept([event], CHANNELS)
    assert _transitions(store) == [("resolved", ["firing", "resolved"])]
    store.accept([by_hand], CHANNELS)
    assert _transitions(store)[0] == ("firing", ["firing"])
    assert len(store.incidents()) == 2


def test_resolve_of_something_unknown_is_kept_and_told(store: Store) -> None:
    store.accept([RESOLVED, RESOLVED], CHANNELS)
    assert _transitions(store) == [("resolved", ["resolved"])]


def test_several_receivers_of_the_same_thing_at_once(database: str) -> None:
    events = [replace(FIRING, fingerprint=f"f{number}") for number in range(20)]

    def deliver(_: int) -> int:
        store = Store(database)
        try:
            return sum(store.accept([event], CHANNELS).fired for event in events)
        finally:
            store.close()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(deliver, range(4))) == 20


def test_filters(store: Store) -> None:
    other = replace(FIRING, fingerprint="f2", labels={"alertname": "B", "host.name": "x'=1"})
    store.accept([FIRING, RESOLVED, other], CHANNELS)
    assert [i.fingerprint for i in store.incidents()] == ["f2", "f1"]
    assert [i.fingerprint for i in store.incidents(Status.FIRING)] == ["f2"]
    assert [i.fingerprint for i in store.incidents(labels={"alertname": "A", "severity": "Critical"})] == [
        "f1"
    ]
    assert [i.fingerprint for i in store.incidents(labels={"host.name": "x'=1"})] == ["f2"]
    assert store.incidents(labels={"alertname": "A", "host.name": "x"}) == []
    assert len(store.incidents(limit=1)) == 1


def test_a_claim_is_exclusive_until_its_lease_ends(store: Store) -> None:
    store.accept([FIRING], CHANNELS)
    (row,) = store.claim("dead", 10, lease=0.2)
    assert store.claim("other", 10, lease=60) == []
    time.sleep(0.25)
    (again,) = store.claim("other", 10, lease=60)
    assert (again.id, again.attempts) == (row.id, 2)
    # The first one was only slow. Its result must not overwrite what the new claimant does.
    assert store.mark_parked(row, "late") is False
    assert store.mark_sent(again, "name") is True
    (notification,) = store.incidents()[0].notifications
    assert (notification.state, notification.provider_id) == (State.SENT, "name")


def test_claims_at_once_never_share_a_row(store: Store) -> None:
    store.accept([replace(FIRING, fingerprint=f"f{number}") for number in range(40)], CHANNELS)

    def claim(worker: int) -> list[int]:
        return [row.id for _ in range(5) for row in store.claim(f"w{worker}", 4, 60)]

    with ThreadPoolExecutor(4) as pool:
        claimed = [number for part in pool.map(claim, range(4)) for number in part]
    assert len(claimed) == len(set(claimed)) == 40


def test_resolved_does_not_overtake_firing(store: Store) -> None:
    store.accept([FIRING, RESOLVED], CHANNELS)
    (firing,) = store.claim("w", 10, 60)
    assert firing.transition == "firing"
    store.mark_retry(firing, 0.1, "later")
    assert store.claim("w", 10, 60) == []
    time.sleep(0.15)
    (firing,) = store.claim("w", 10, 60)
    store.mark_parked(firing, "never")
    (resolved,) = store.claim("w", 10, 60)
    assert resolved.transition == "resolved"


def test_depth(store: Store) -> None:
    assert store.depth().oldest_age == 0
    store.accept([FIRING, replace(FIRING, fingerprint="f2"), replace(FIRING, fingerprint="f3")], CHANNELS)
    first, second = store.claim("w", 2, 60)
    store.mark_sent(first, None)
    store.mark_parked(second, "no")
    depth = store.depth()
    assert (depth.queued, depth.parked) == (1, 1)
    assert 0 < depth.oldest_age < 10
    assert store.open_by_severity() == {"critical": 3}


def test_every_commit_is_synchronous(store: Store, tmp_path: Path) -> None:
    with store.write() as session:
        connection = session.connection()
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_nothing_of_a_failed_batch_stays(store: Store) -> None:
    unstorable = replace(FIRING, fingerprint="f2", labels={"a": object()})  # type: ignore[dict-item]
    with pytest.raises(Exception, match="not JSON serializable"):
        store.accept([FIRING, unstorable], CHANNELS)
    assert store.incidents() == []


def test_an_older_program_refuses_a_newer_database(database: str, store: Store) -> None:
    with store.write() as session:
        session.execute(update(SchemaVersion).values(version=99))
    with pytest.raises(SchemaTooNewError, match="schema version 99, this program knows 1"):
        Store(database)


def test_unknown_tables_of_a_newer_database_stay_untouched(
    database: str, store: Store, tmp_path: Path
) -> None:
    store.close()
    with sqlite3.connect(tmp_path / "alerts.db") as raw:
        raw.execute(f"DROP TABLE {Incident.__tablename__}")
        raw.execute("UPDATE schema_version SET version = 99")
    with pytest.raises(SchemaTooNewError):
        Store(database)
    with sqlite3.connect(tmp_path / "alerts.db") as raw:
        assert not raw.execute("SELECT name FROM sqlite_master WHERE name = 'incidents'").fetchall()
