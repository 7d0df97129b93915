from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import selectinload

from fleetwatch.alerting.routes import Route, Router
from fleetwatch.store import AlertEvent, Incident, Notification, Status, Store
from fleetwatch.store.incidents import Accepted, close_incidents, reopen_incident
from fleetwatch.store.models import EventKind, State

BEGAN = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
FIRING = AlertEvent(Status.FIRING, "f1", {"alertname": "A", "severity": "Critical"}, starts_at=BEGAN)
RESOLVED = replace(FIRING, status=Status.RESOLVED, ends_at=BEGAN + timedelta(minutes=5))
MAIL = Router([], ["mail"])


def _accept(store: Store, *events: AlertEvent, router: Router = MAIL) -> Accepted:
    return store.accept([events], router)[0]


def _incidents(store: Store) -> list[Incident]:
    """Return all incidents with what belongs to them, the oldest first."""
    query = select(Incident).options(selectinload(Incident.notifications), selectinload(Incident.events))
    with store.read() as session:
        return list(session.scalars(query.order_by(Incident.id)))


def _transitions(store: Store) -> list[tuple[str, list[str]]]:
    return [
        (incident.status, [row.transition for row in incident.notifications])
        for incident in _incidents(store)
    ]


def _routes(*routes: dict[str, Any]) -> Router:
    return Router([Route.model_validate({"name": f"r{n}", **route}) for n, route in enumerate(routes)], [])


def _queued(store: Store, *, state: str = State.QUEUED) -> Sequence[tuple[str, str]]:
    return [
        (row.transition, row.channel)
        for incident in _incidents(store)
        for row in incident.notifications
        if row.state == state
    ]


def test_fire_and_resolve_make_one_incident_and_two_messages(store: Store) -> None:
    assert _accept(store, FIRING).fired == 1
    assert _accept(store, RESOLVED).resolved == 1
    (incident,) = _incidents(store)
    assert incident.starts_at == BEGAN
    assert incident.ends_at == BEGAN + timedelta(minutes=5)
    assert incident.severity == "critical"
    assert incident.resolved_by is None
    assert _transitions(store) == [("resolved", ["firing", "resolved"])]


def test_redelivery_tells_nothing_new(store: Store) -> None:
    for event in (FIRING, FIRING, RESOLVED, RESOLVED, FIRING):
        _accept(store, event)
    assert _transitions(store) == [("resolved", ["firing", "resolved"])]
    assert _accept(store, FIRING, RESOLVED).duplicates == 2


def test_a_new_start_is_a_new_incident(store: Store) -> None:
    _accept(store, FIRING, RESOLVED, replace(FIRING, starts_at=BEGAN + timedelta(hours=1)))
    assert _transitions(store) == [("resolved", ["firing", "resolved"]), ("firing", ["firing"])]


def test_one_batch_may_repeat_itself(store: Store) -> None:
    done = _accept(store, FIRING, FIRING, RESOLVED)
    assert (done.fired, done.resolved, done.duplicates) == (1, 1, 1)


def test_each_batch_of_a_group_hears_its_own_result(store: Store) -> None:
    other = replace(FIRING, fingerprint="f2")
    results = store.accept([[FIRING], [FIRING, other], [RESOLVED]], MAIL)
    assert [(done.fired, done.resolved, done.duplicates) for done in results] == [
        (1, 0, 0),
        (1, 0, 1),
        (0, 1, 0),
    ]


def test_posts_without_a_time_mean_the_open_occurrence(store: Store) -> None:
    by_hand = replace(FIRING, starts_at=None)
    resolved = replace(by_hand, status=Status.RESOLVED)
    for event in (by_hand, by_hand, resolved, resolved):
        _accept(store, event)
    assert _transitions(store) == [("resolved", ["firing", "resolved"])]
    _accept(store, by_hand)
    assert _transitions(store)[-1] == ("firing", ["firing"])
    assert len(_incidents(store)) == 2


def test_resolve_of_something_unknown_is_kept_and_told(store: Store) -> None:
    _accept(store, RESOLVED, RESOLVED)
    assert _transitions(store) == [("resolved", ["resolved"])]


def test_several_receivers_of_the_same_thing_at_once(database: str) -> None:
    events = [replace(FIRING, fingerprint=f"f{number}") for number in range(20)]

    def deliver(_: int) -> int:
        store = Store(database)
        try:
            return sum(_accept(store, event).fired for event in events)
        finally:
            store.close()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(deliver, range(4))) == 20


@pytest.mark.slow
def test_thousands_in_one_transaction(store: Store) -> None:
    events = [replace(FIRING, fingerprint=f"f{number}") for number in range(3000)]
    assert _accept(store, *events).fired == 3000
    ends = [replace(event, status=Status.RESOLVED) for event in events]
    assert _accept(store, *ends).resolved == 3000
    assert store.depth().queued == 6000


def test_nothing_of_a_failed_group_stays(store: Store) -> None:
    unstorable = replace(FIRING, fingerprint="f2", labels={"a": object()})  # type: ignore[dict-item]
    with pytest.raises(Exception, match="not JSON serializable"):
        store.accept([[FIRING], [unstorable]], MAIL)
    assert _incidents(store) == []


def test_routes_choose_the_channels(store: Store) -> None:
    router = _routes(
        {"receivers": ["noc"], "channels": ["pager"], "continue": True},
        {"matchers": ['severity=~"critical|warning"', "team!=db"], "channels": ["mail", "pager"]},
        {"channels": ["log"], "send_resolved": False},
    )
    for number, labels in enumerate(({"severity": "critical"}, {"severity": "critical", "team": "db"})):
        _accept(
            store,
            replace(FIRING, fingerprint=f"f{number}", labels=labels, receiver="noc"),
            router=router,
        )
    first, second = _incidents(store)
    assert [(row.channel, row.route) for row in first.notifications] == [("pager", "r0"), ("mail", "r1")]
    assert [(row.channel, row.route) for row in second.notifications] == [("pager", "r0"), ("log", "r2")]
    for number in range(2):
        _accept(store, replace(RESOLVED, fingerprint=f"f{number}"), router=router)
    assert [row.channel for row in _incidents(store)[1].notifications] == ["pager", "log", "pager"]


def test_the_test_alert_is_recorded_and_told_to_nobody(store: Store) -> None:
    _accept(store, replace(FIRING, receiver="fleetwatch-verify"))
    assert _transitions(store) == [("firing", [])]


def test_quiet_hours_put_a_message_off_but_not_an_urgent_one(store: Store) -> None:
    now = datetime.now(UTC)
    start, end = (now - timedelta(hours=1)).strftime("%H:%M"), (now + timedelta(hours=2)).strftime("%H:%M")
    router = _routes({"channels": ["mail"], "quiet_hours": {"start": start, "end": end}})
    warning = replace(FIRING, fingerprint="f2", labels={"alertname": "B", "severity": "warning"})
    _accept(store, FIRING, warning, router=router)
    urgent, put_off = _incidents(store)
    assert urgent.notifications[0].due_at <= datetime.now(UTC)
    wait = put_off.notifications[0].due_at - now
    assert timedelta(minutes=118) < wait <= timedelta(minutes=120)
    assert store.depth().queued == 1
    assert len(store.claim("w", "mail", 10, lease=60)) == 1


def test_escalations_are_dropped_when_it_is_over(store: Store) -> None:
    router = _routes({"channels": ["mail"], "escalations": [{"after": 600, "channels": ["sms", "mail"]}]})
    _accept(store, FIRING, router=router)
    assert _queued(store) == [("firing", "mail"), ("escalation", "sms"), ("escalation", "mail")]
    _accept(store, RESOLVED, router=router)
    # Whoever was not told of the beginning is not told of the end.
    assert _queued(store) == [("firing", "mail"), ("resolved", "mail")]
    assert _queued(store, state=State.CANCELLED) == [("escalation", "sms"), ("escalation", "mail")]


def test_whom_an_escalation_reached_hears_of_the_end(store: Store) -> None:
    router = _routes({"channels": ["mail"], "escalations": [{"after": 0.01, "channels": ["sms"]}]})
    _accept(store, FIRING, router=router)
    (mail,) = store.claim("w", "mail", 10, lease=60)
    store.mark_sent(mail, None)
    sms: list[list[Notification]] = []
    while not sms:
        sms = store.claim("w", "sms", 10, lease=60)
    _accept(store, RESOLVED, router=router)  # while it is under way
    assert store.mark_sent(sms[0], None)
    assert _queued(store) == [("resolved", "mail"), ("resolved", "sms")]


def test_resolved_by_the_reconciliation_or_by_hand(store: Store) -> None:
    _accept(store, FIRING, replace(FIRING, fingerprint="f2"))
    first, second = _incidents(store)
    now = datetime.now(UTC)
    with store.write() as session:
        assert close_incidents(session, [first.id], MAIL, now, author=None, note="gone") == 1
        assert close_incidents(session, [first.id, second.id], MAIL, now, author="anna") == 1
    first, second = _incidents(store)
    assert (first.status, first.resolved_by, first.events[0].text) == ("resolved", "reconciliation", "gone")
    assert (second.resolved_by, second.events[0].author) == ("anna", "anna")
    assert second.events[0].kind == EventKind.RESOLVED
    assert _transitions(store) == [("resolved", ["firing", "resolved"])] * 2


def test_what_fires_again_is_told_again(store: Store) -> None:
    _accept(store, FIRING, RESOLVED)
    with store.write() as session:
        incident = session.scalars(select(Incident)).one()
        reopen_incident(session, incident, MAIL, datetime.now(UTC))
    (incident,) = _incidents(store)
    assert (incident.status, incident.ends_at) == ("firing", None)
    assert incident.events[0].kind == EventKind.REOPENED
    _accept(store, RESOLVED)
    (incident,) = _incidents(store)
    assert [(row.transition, row.episode) for row in incident.notifications] == [
        ("firing", 0),
        ("resolved", 0),
        ("firing", 1),
        ("resolved", 1),
    ]


def test_open_by_severity(store: Store) -> None:
    _accept(store, FIRING, replace(FIRING, fingerprint="f2"), replace(RESOLVED, fingerprint="f3"))
    assert store.open_by_severity() == {"critical": 2}


def test_the_trace_context_goes_with_the_message(store: Store) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    _accept(store, replace(FIRING, traceparent=trace))
    with store.read() as session:
        assert session.scalars(select(Notification.traceparent)).one() == trace
