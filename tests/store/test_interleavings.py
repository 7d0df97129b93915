"""Whatever the order and number of deliveries, the same incidents and messages come out.

Reports of a few alerts are delivered in any order, in any batches, any number of times, by two
Alertmanagers; in between a dispatcher sends, and may die at the worst moments.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetwatch.alerting.routes import Router
from fleetwatch.store import AlertEvent, Notification, Status, Store
from fleetwatch.store.models import State

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROUTER = Router([], ["mail", "sms"])

_reports = st.builds(
    lambda alert, occurrence, status, peer: AlertEvent(
        status,
        f"f{alert}",
        {"alertname": f"A{alert}", "severity": "critical"},
        starts_at=BEGAN + timedelta(hours=occurrence),
        ends_at=BEGAN + timedelta(hours=occurrence, minutes=5) if status is Status.RESOLVED else None,
        external_url=f"http://alertmanager{peer}:9093",
        receiver="fleetwatch",
    ),
    alert=st.integers(0, 2),
    occurrence=st.integers(0, 1),
    status=st.sampled_from(Status),
    peer=st.integers(1, 2),
)
_steps = st.one_of(
    st.builds(
        lambda groups: ("post", groups), st.lists(st.lists(_reports, max_size=5), min_size=1, max_size=3)
    ),
    st.builds(lambda limit: ("send", limit), st.integers(1, 4)),
    st.builds(lambda limit: ("fail", limit), st.integers(1, 4)),
    st.builds(lambda fate: ("crash", fate), st.sampled_from(["before sending", "after sending"])),
    st.just(("restart", None)),
)


@dataclass
class World:
    """A store, and what a provider got from it."""

    url: str
    store: Store
    reported: dict[tuple[str, datetime], set[Status]] = field(default_factory=dict)
    delivered: list[tuple[str, datetime, str, str]] = field(default_factory=list)
    crashes: int = 0

    def post(self, groups: list[list[AlertEvent]]) -> None:
        self.store.accept(groups, ROUTER)
        for event in (event for group in groups for event in group):
            assert event.starts_at is not None
            self.reported.setdefault((event.fingerprint, event.starts_at), set()).add(event.status)

    def send(self, limit: int) -> None:
        for row in self._claim(limit):
            self._deliver(row)
            assert self.store.mark_sent([row], None)

    def fail(self, limit: int) -> None:
        for row in self._claim(limit):
            assert self.store.mark_retry([row], 0.05, "the provider is away")

    def crash(self, fate: str) -> None:
        """Die with a message in hand; the lease runs out before the next dispatcher looks."""
        for row in self._claim(1):
            if fate == "after sending":
                self._deliver(row)
                self.crashes += 1
            with self.store.write() as session:
                stuck = session.get(Notification, row.id)
                assert stuck is not None
                stuck.claimed_until = datetime.now(UTC) - timedelta(seconds=1)

    def restart(self, _: None) -> None:
        self.store.close()
        self.store = Store(self.url)

    def _claim(self, limit: int) -> list[Notification]:
        groups = [
            group for channel in ("mail", "sms") for group in self.store.claim("w", channel, limit, lease=60)
        ]
        assert all(len(group) == 1 for group in groups)
        return [group[0] for group in groups]

    def _deliver(self, row: Notification) -> None:
        incident = row.incident
        self.delivered.append((incident.fingerprint, incident.starts_at, row.channel, row.transition))

    def check(self) -> None:
        while self.store.depth().queued:
            self.send(100)
        with self.store.read() as session:
            rows = session.query(Notification).all()
            assert all(row.state == State.SENT for row in rows)
            known = {(row.incident.fingerprint, row.incident.starts_at): row.incident.status for row in rows}
        # Each occurrence is one incident, and it is over once anybody said so.
        assert known == {
            key: Status.RESOLVED if Status.RESOLVED in said else Status.FIRING
            for key, said in self.reported.items()
        }
        counts = Counter(self.delivered)
        # Each message at most once, but for those that a crash hit between provider and commit.
        assert sum(counts.values()) - len(counts) <= self.crashes
        for key, status in known.items():
            for channel in ("mail", "sms"):
                told = [each[3] for each in self.delivered if each[:3] == (*key, channel)]
                assert told, "nobody was told"
                assert (status == Status.RESOLVED) == ("resolved" in told)
                # The end is the last that is told.
                assert "firing" not in told[told.index("resolved") :] if "resolved" in told else True


@pytest.mark.slow
@settings(max_examples=50, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(_steps, max_size=12))
def test_any_interleaving_ends_the_same(database: str, steps: list[tuple[str, object]]) -> None:
    world = World(database, Store(database))
    try:
        _empty(world.store)
        for name, argument in steps:
            getattr(world, name)(argument)
        world.check()
    finally:
        world.store.close()


def _empty(store: Store) -> None:
    with store.write() as session:
        for table in ("events", "notifications", "incidents"):
            session.connection().exec_driver_sql(f"DELETE FROM {table}")  # noqa: S608 - a constant
