from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from fleetwatch.alerting.routes import Route, Router
from fleetwatch.store import AlertEvent, Notification, Status, Store
from fleetwatch.store.models import Event, Incident, State

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FIRING = AlertEvent(Status.FIRING, "f0", {"alertname": "A", "severity": "critical"}, starts_at=BEGAN)
RESOLVED = replace(FIRING, status=Status.RESOLVED, ends_at=BEGAN + timedelta(minutes=5))
MAIL = Router([], ["mail"])
REMIND = timedelta(hours=1)


def _fire(store: Store, count: int = 1, router: Router = MAIL) -> None:
    store.accept([[replace(FIRING, fingerprint=f"f{number}") for number in range(count)]], router)


def _claim(store: Store, limit: int = 10, claimant: str = "w", lease: float = 60) -> list[Notification]:
    groups = store.claim(claimant, "mail", limit, lease=lease)
    assert all(len(group) == 1 for group in groups)
    return [group[0] for group in groups]


def _rows(store: Store) -> list[Notification]:
    with store.read() as session:
        return list(session.scalars(select(Notification).order_by(Notification.id)))


def _change(store: Store, **values: object) -> None:
    with store.write() as session:
        session.execute(update(Notification).values(**values))


def test_a_claim_is_exclusive_until_its_lease_ends(store: Store) -> None:
    _fire(store)
    (row,) = _claim(store, claimant="dead", lease=0.2)
    assert _claim(store, claimant="other") == []
    time.sleep(0.25)
    (again,) = _claim(store, claimant="other")
    assert (again.id, again.attempts) == (row.id, 2)
    # The first one was only slow. Its result must not overwrite what the new claimant does.
    assert store.mark_parked([row], "late") is False
    assert store.mark_sent([again], "name") is True
    (stored,) = _rows(store)
    assert (stored.state, stored.provider_id) == (State.SENT, "name")


def test_claims_at_once_never_share_a_row(store: Store) -> None:
    _fire(store, 40)

    def claim(worker: int) -> list[int]:
        return [row.id for _ in range(5) for row in _claim(store, 4, f"w{worker}")]

    with ThreadPoolExecutor(4) as pool:
        claimed = [number for part in pool.map(claim, range(4)) for number in part]
    assert len(claimed) == len(set(claimed)) == 40


def test_a_claim_is_quick_before_postgresql_has_statistics(store: Store) -> None:
    _fire(store, 5000)
    began = time.monotonic()
    for _ in range(5):
        assert len(_claim(store, 1)) == 1
    assert time.monotonic() - began < 1  # it was two seconds when each claim compared all with all


def test_a_channel_has_its_own_queue(store: Store) -> None:
    _fire(store, router=Router([], ["mail", "sms"]))
    assert [row.channel for row in _claim(store)] == ["mail"]
    assert store.claim("w", "pigeon", 10, lease=60) == []


def test_resolved_does_not_overtake_firing(store: Store) -> None:
    store.accept([[FIRING, RESOLVED]], MAIL)
    (firing,) = _claim(store)
    assert firing.transition == "firing"
    store.mark_retry([firing], 0.1, "later")
    assert _claim(store) == []
    time.sleep(0.15)
    (firing,) = _claim(store)
    store.mark_parked([firing], "never")
    (resolved,) = _claim(store)
    assert resolved.transition == "resolved"


def test_what_was_not_begun_goes_back(store: Store) -> None:
    _fire(store)
    (row,) = _claim(store)
    assert store.give_back([row])
    (row,) = _claim(store, claimant="other")
    assert row.attempts == 1


def test_depth_counts_what_is_late(store: Store) -> None:
    assert store.depth().oldest_age == 0
    _fire(store, 4)
    first, second = _claim(store, 2)
    store.mark_sent([first], None)
    store.mark_parked([second], "no")
    with store.write() as session:
        later = datetime.now(UTC) + timedelta(hours=1)
        last = select(Notification.id).order_by(Notification.id.desc()).limit(1).scalar_subquery()
        session.execute(
            update(Notification).where(Notification.id == last).values(wanted_at=later, due_at=later)
        )
    depth = store.depth()
    assert (depth.queued, depth.parked) == (1, 1)
    assert 0 < depth.oldest_age < 10


def test_a_burst_waits_and_then_goes_out_as_one(store: Store) -> None:
    _fire(store, 30)

    def claim() -> list[list[Notification]]:
        return store.claim("w", "mail", 4, lease=60, group_above=10, group_wait=0.5)

    assert claim() == []
    time.sleep(0.55)
    (group,) = claim()
    assert len(group) == 30
    assert store.mark_sent(group, "one")
    assert {row.provider_id for row in _rows(store)} == {"one"}
    assert claim() == []


def test_a_straggler_of_a_burst_waits_too(store: Store) -> None:
    _fire(store, 11)
    time.sleep(0.3)
    (group,) = store.claim("w", "mail", 4, lease=60, group_above=10, group_wait=0.25)
    store.mark_sent(group, None)
    store.accept([[replace(FIRING, fingerprint="late")]], MAIL)
    assert store.claim("w", "mail", 4, lease=60, group_above=10, group_wait=60) == []


def test_few_are_not_held_back(store: Store) -> None:
    _fire(store, 3)
    assert len(store.claim("w", "mail", 4, lease=60, group_above=10, group_wait=60)) == 3


def test_part_of_a_message_that_was_taken_over_is_left_alone(store: Store) -> None:
    _fire(store, 3)
    (group,) = store.claim("slow", "mail", 4, lease=0.1, group_above=2, group_wait=1e-6)
    time.sleep(0.15)
    (taken,) = _claim(store, 1, "other")
    assert store.mark_sent(group, "slow") is False
    assert store.mark_sent([taken], "other") is True
    assert sorted(row.provider_id or "" for row in _rows(store)) == ["other", "slow", "slow"]


@pytest.mark.parametrize("acknowledged", [False, True])
def test_reminders_follow_until_somebody_acknowledges(store: Store, acknowledged: bool) -> None:
    _fire(store)
    store.mark_sent(_claim(store), None, lambda _row: REMIND)
    (_, reminder) = _rows(store)
    assert (reminder.transition, reminder.sequence) == ("reminder", 0)
    assert timedelta(minutes=59) < reminder.due_at - datetime.now(UTC) <= REMIND
    assert _claim(store) == []
    with store.write() as session:
        past = datetime.now(UTC) - timedelta(seconds=1)
        session.execute(update(Notification).values(due_at=past, wanted_at=past))
        if acknowledged:
            session.execute(update(Incident).values(acknowledged_at=past))
    claimed = _claim(store)
    if acknowledged:
        assert claimed == []
        assert [row.state for row in _rows(store)] == [State.SENT, State.CANCELLED]
    else:
        store.mark_sent(claimed, None, lambda _row: REMIND)
        assert [row.sequence for row in _rows(store)] == [0, 0, 1]


def test_no_reminder_of_what_is_over(store: Store) -> None:
    _fire(store)
    rows = _claim(store)
    store.accept([[RESOLVED]], MAIL)
    store.mark_sent(rows, None, lambda _row: REMIND)
    assert [row.transition for row in _rows(store)] == ["firing", "resolved"]


def test_escalations_wait_while_the_alert_is_silenced(store: Store) -> None:
    route = {"name": "r", "channels": [], "escalations": [{"after": 0.001, "channels": ["mail"]}]}
    _fire(store, router=Router([Route.model_validate(route)], []))
    with store.write() as session:
        session.execute(update(Incident).values(silenced="silenced"))
    time.sleep(0.01)
    assert _claim(store) == []
    (row,) = _rows(store)
    assert row.state == State.QUEUED
    assert row.due_at > datetime.now(UTC) + timedelta(seconds=30)


def test_the_same_error_is_told_once_in_the_timeline(store: Store) -> None:
    _fire(store)
    for error in ("429", "429", "500"):
        store.mark_retry(_claim(store), 0, error)
    with store.read() as session:
        texts = list(session.scalars(select(Event.text).order_by(Event.id)))
    assert texts == ["firing by mail, attempt 1: 429", "firing by mail, attempt 3: 500"]


@pytest.mark.parametrize(
    "values",
    [
        {"queued_at": timedelta(hours=3), "wanted_at": timedelta(hours=3), "due_at": timedelta(hours=3)},
        {"attempts": 1, "due_at": timedelta(hours=3)},
        {"claimed_by": "w", "claimed_until": timedelta(hours=3)},
    ],
)
def test_a_clock_that_was_set_back_leaves_nothing_stuck(store: Store, values: dict[str, object]) -> None:
    _fire(store)
    now = datetime.now(UTC)
    moved = {name: now + value if isinstance(value, timedelta) else value for name, value in values.items()}
    _change(store, **moved)
    assert len(_claim(store)) == 1
