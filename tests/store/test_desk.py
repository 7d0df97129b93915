from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from fleetwatch.alerting.routes import Route, Router
from fleetwatch.store import (
    AlertEvent,
    ConflictError,
    Incident,
    Notification,
    State,
    Status,
    Store,
    UnknownIncidentError,
    timeline,
)

BEGAN = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
MAIL = Router([], ["mail"])
ESCALATING = Router(
    [
        Route.model_validate(
            {"name": "all", "channels": ["mail"], "escalations": [{"after": 600, "channels": ["sms"]}]}
        )
    ],
    [],
)


def _event(name: str, *, at: int = 0, status: Status = Status.FIRING, **labels: str) -> AlertEvent:
    started = BEGAN + timedelta(minutes=at)
    ended = started + timedelta(minutes=5) if status is Status.RESOLVED else None
    return AlertEvent(status, name, {"alertname": name, **labels}, starts_at=started, ends_at=ended)


def _accept(store: Store, *events: AlertEvent, router: Router = MAIL) -> None:
    for event in events:  # one after the other, so that the ids have that order
        store.accept([[event]], router)


def _names(found: list[Incident]) -> list[str]:
    return [incident.fingerprint for incident in found]


def _states(store: Store, number: int = 1) -> dict[tuple[str, str], str]:
    return {(row.transition, row.channel): row.state for row in store.incident(number).notifications}


def _told(store: Store, number: int = 1) -> list[tuple[str, str | None, str]]:
    return [
        (entry.kind, entry.author or entry.channel, entry.text) for entry in timeline(store.incident(number))
    ]


def _park(store: Store, reason: str = "no such address") -> list[Notification]:
    (rows,) = store.claim("d1", "mail", 1, lease=60.0)
    assert store.mark_parked(rows, reason)
    return rows


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["D", "C", "B", "A"]),
        ({"status": Status.FIRING}, ["C", "B", "A"]),
        ({"status": Status.RESOLVED}, ["D"]),
        ({"severity": "Critical"}, ["C", "A"]),
        ({"acknowledged": True}, ["B"]),
        ({"acknowledged": False}, ["D", "C", "A"]),
        ({"labels": {"host": "web1"}}, ["B", "A"]),
        ({"labels": {"host": "web1", "severity": "warning"}}, ["B"]),
        ({"labels": {"host": "web"}}, []),
        ({"labels": {'a"b.c': "d'e"}}, ["C"]),
        ({"labels": {"absent": ""}}, []),
        ({"text": "WEB1"}, ["B", "A"]),
        ({"text": "%"}, ["D"]),
        ({"text": "severity"}, []),  # a label's name is no text of the alert
        ({"text": "straße"}, ["B"]),
    ],
)
def test_filters(store: Store, filters: dict[str, Any], expected: list[str]) -> None:
    _accept(
        store,
        _event("A", severity="critical", host="web1"),
        _event("B", severity="warning", host="web1", place="Hauptstraße"),
        replace(_event("C"), labels={"alertname": "C", "severity": "critical", 'a"b.c': "d'e"}),
        _event("D", status=Status.RESOLVED, usage="95%"),
    )
    store.acknowledge(2, "anna")
    assert _names(store.incidents(**filters).rows) == expected
    if "status" not in filters:
        assert sorted(_names(store.open_incidents(**filters))) == sorted({*expected} - {"D"})


def test_pages_hold_every_incident_once_though_new_ones_come(store: Store) -> None:
    _accept(store, *(_event(f"A{number}") for number in range(5)))
    seen = []
    page = store.incidents(limit=2)
    while True:
        seen += _names(page.rows)
        _accept(store, _event(f"new{len(seen)}"))
        if page.next is None:
            break
        page = store.incidents(limit=2, cursor=page.next)
    assert seen == ["A4", "A3", "A2", "A1", "A0"]


@pytest.mark.parametrize("cursor", ["", "AAAA", "AAAAAAAA", "ü" * 6, "      ", "////AA"])
def test_a_cursor_of_ones_own_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        store.incidents(cursor=cursor)


def test_open_incidents_come_by_severity_and_age(store: Store) -> None:
    severities = ["info", "none", "critical", "warning", "custom", "critical"]
    _accept(store, *(_event(f"{name}{n}", at=-n, severity=name) for n, name in enumerate(severities)))
    _accept(store, _event("over", status=Status.RESOLVED, severity="critical"))
    expected = ["critical5", "critical2", "warning3", "info0", "custom4", "none1"]
    assert _names(store.open_incidents()) == expected
    assert _names(store.open_incidents(2, 1)) == expected[1:3]


def test_acknowledging_stops_what_was_to_follow(store: Store) -> None:
    _accept(store, _event("A"), router=ESCALATING)
    assert store.acknowledge(1, "anna", "on it")
    incident = store.incident(1)
    assert incident.acknowledged_by == "anna"
    assert incident.acknowledged_at is not None
    assert _states(store) == {("firing", "mail"): "queued", ("escalation", "sms"): "cancelled"}
    assert ("acknowledged", "anna", "on it") in _told(store)


def test_an_escalation_under_way_is_not_cancelled(store: Store) -> None:
    _accept(store, _event("A"), router=ESCALATING)
    with store.write() as session:
        session.execute(update(Notification).values(due_at=BEGAN, wanted_at=BEGAN))
    ((row,),) = store.claim("d1", "sms", 1, lease=60.0)
    store.acknowledge(1, "anna")
    assert _states(store)["escalation", "sms"] == State.QUEUED
    assert store.mark_sent([row], "id1")
    assert _states(store)["escalation", "sms"] == State.SENT


def test_acknowledging_again_changes_nothing_but_keeps_a_new_note(store: Store) -> None:
    _accept(store, _event("A"))
    assert store.acknowledge(1, "anna", "on it")
    before = store.incident(1).acknowledged_at
    assert not store.acknowledge(1, "anna", "on it")
    assert not store.acknowledge(1, "bert", "me too")
    assert not store.acknowledge(1, "bert")
    incident = store.incident(1)
    assert (incident.acknowledged_by, incident.acknowledged_at) == ("anna", before)
    assert [(event.kind, event.author, event.text) for event in incident.events] == [
        ("acknowledged", "anna", "on it"),
        ("note", "bert", "me too"),
    ]


def test_resolving_by_hand_tells_whoever_was_told(store: Store) -> None:
    _accept(store, _event("A"), router=ESCALATING)
    (rows,) = store.claim("d1", "mail", 1, lease=60.0)
    store.mark_sent(rows, None)
    assert store.resolve(1, "anna", ESCALATING, "was a test")
    incident = store.incident(1)
    assert (incident.status, incident.resolved_by) == ("resolved", "anna")
    assert _states(store) == {
        ("firing", "mail"): "sent",
        ("escalation", "sms"): "cancelled",
        ("resolved", "mail"): "queued",
    }
    assert not store.resolve(1, "bert", ESCALATING, "too late")
    assert _states(store)["resolved", "mail"] == State.QUEUED
    assert [entry for entry in _told(store) if entry[0] in ("resolved", "note")] == [
        ("resolved", "anna", "was a test"),
        ("note", "bert", "too late"),
    ]
    _accept(store, _event("A"))  # Alertmanager repeats itself
    assert store.incident(1).status == "resolved"


def test_what_cannot_be(store: Store) -> None:
    _accept(store, _event("A", status=Status.RESOLVED))
    with pytest.raises(ConflictError, match="resolved"):
        store.acknowledge(1, "anna")
    for number in (0, 2, 2**31, 2**63, 2**70):
        for act in (
            store.incident,
            lambda n: store.acknowledge(n, "anna"),
            lambda n: store.add_note(n, "anna", "x"),
            lambda n: store.resolve(n, "anna", MAIL),
        ):
            with pytest.raises(UnknownIncidentError, match=f"no incident {number}"):
                act(number)


def test_timeline_tells_all_in_order(store: Store) -> None:
    two = Router([], ["mail", "chat"])
    _accept(store, replace(_event("A"), receiver="team-db"), router=two)
    (rows,) = store.claim("d1", "mail", 1, lease=60.0)
    store.mark_retry(rows, 0.0, "503")
    (rows,) = store.claim("d1", "mail", 1, lease=60.0)
    store.mark_sent(rows, "id1")
    store.add_note(1, "anna", "looking")
    (rows,) = store.claim("d1", "chat", 1, lease=60.0)
    store.mark_retry(rows, 3600.0, "429")
    assert _told(store) == [
        ("fired", None, ""),
        ("received", None, "by team-db"),
        ("retried", None, "firing by mail, attempt 1: 503"),
        ("notified", "mail", "attempt 2"),
        ("note", "anna", "looking"),
        ("retried", None, "firing by chat, attempt 1: 429"),
        ("waiting", "chat", "429"),
    ]
    _accept(store, _event("A", status=Status.RESOLVED), router=two)
    # It ended, says Alertmanager, before it was received here.
    assert [kind for kind, *_ in _told(store)[:3]] == ["fired", "resolved", "received"]


def test_dead_letters_are_queued_again_with_a_new_deadline(store: Store) -> None:
    _accept(store, _event("A"), _event("B"))
    _park(store)
    with store.write() as session:  # long ago
        session.execute(update(Notification).values(queued_at=BEGAN, wanted_at=BEGAN, due_at=BEGAN))
    (letter,) = store.dead_letters().rows
    assert (letter.incident.fingerprint, letter.last_error, letter.attempts) == ("A", "no such address", 1)
    before = datetime.now(UTC)
    assert store.requeue("anna", ids=[letter.id, letter.id + 1, 999, 2**70]) == 1
    assert store.requeue("anna", ids=[letter.id]) == 0
    assert store.dead_letters().rows == []
    claimed = [row for (row,) in store.claim("d1", "mail", 5, lease=60.0)]
    again = next(row for row in claimed if row.id == letter.id)
    assert again.attempts == 2
    assert again.wanted_at >= before
    assert ("requeued", "anna", "firing by mail") in _told(store)
    assert ("requeued", "anna", "firing by mail") not in _told(store, 2)


def test_dead_letters_by_channel_and_page(store: Store) -> None:
    router = Router([], ["mail", "chat"])
    _accept(store, _event("A"), _event("B"), router=router)
    with store.write() as session:
        session.execute(update(Notification).values(state=State.PARKED))
        ids = list(session.scalars(select(Notification.id).order_by(Notification.id.desc())))
    first = store.dead_letters(limit=3)
    assert first.next is not None
    rest = store.dead_letters(limit=3, cursor=first.next)
    assert ([row.id for row in first.rows + rest.rows], rest.next) == (ids, None)
    assert {row.channel for row in store.dead_letters(channel="chat").rows} == {"chat"}
    assert store.requeue("anna", channel="chat") == 2
    assert {row.channel for row in store.dead_letters().rows} == {"mail"}
    assert store.requeue("anna") == 2
    assert store.depth().parked == 0
