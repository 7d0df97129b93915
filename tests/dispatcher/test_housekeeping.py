from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from fleetwatch.dispatcher.housekeeping import Housekeeper, Periodic
from fleetwatch.dispatcher.metrics import HousekeepingMetrics
from fleetwatch.store import Incident, Notification, State
from tests.common.services import alert, wait_until
from tests.dispatcher.conftest import Post


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def keeper(post: Post, registry: CollectorRegistry) -> Housekeeper:
    return Housekeeper(post.model(retention=3600), post.store, HousekeepingMetrics(registry))


def _value(registry: CollectorRegistry, name: str) -> float | None:
    return registry.get_sample_value(f"alert_dispatcher_housekeeping_{name}")


def test_old_incidents_are_deleted(post: Post, keeper: Housekeeper, registry: CollectorRegistry) -> None:
    post.accept(alert("Old"), alert("New"))
    post.accept(*(alert(name, status="resolved", endsAt="2026-01-02T03:14:05Z") for name in ("Old", "New")))
    with post.store.write() as session:
        session.execute(update(Notification).values(state=State.SENT))
        long_ago = datetime.now(UTC) - timedelta(hours=2)
        session.execute(update(Incident).where(Incident.id == 1).values(resolved_received_at=long_ago))
    keeper.prune()
    assert [incident.labels["alertname"] for incident in post.incidents()] == ["New"]
    assert _value(registry, "pruned_total") == 1
    assert abs((_value(registry, "last_success_timestamp_seconds") or 0) - time.time()) < 5


def test_a_store_that_fails_is_counted(
    post: Post, keeper: Housekeeper, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise OperationalError("DELETE", {}, Exception("disk I/O error"))

    monkeypatch.setattr(post.store, "prune", broken)
    keeper.prune()
    assert (_value(registry, "failures_total"), _value(registry, "last_success_timestamp_seconds")) == (1, 0)


def test_what_a_dispatcher_with_newer_settings_may_send_is_not_parked_yet(
    post: Post, keeper: Housekeeper
) -> None:
    post.accept(alert("A"), alert("B"))
    now = datetime.now(UTC)
    with post.store.write() as session:
        session.execute(update(Notification).values(channel="pigeon"))
        session.execute(
            update(Notification).where(Notification.id == 1).values(due_at=now - timedelta(minutes=6))
        )
    keeper.park_strays()
    keeper.park_strays()
    assert [row.state for row in post.notifications()] == [State.PARKED, State.QUEUED]


def test_what_is_periodic_survives_a_fault_and_stops() -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        raise KeyError("ours")

    task = Periodic("test", call, interval=0.01, first=0.01)
    wait_until(lambda: len(calls) > 2)
    task.stop(1)
    stopped_at = len(calls)
    time.sleep(0.05)
    assert len(calls) == stopped_at
