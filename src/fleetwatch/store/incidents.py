"""Incidents: taking alerts in, closing and reopening."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import filterfalse, islice
from typing import Any, TypeVar

from sqlalchemy import Connection, Executable, Insert, bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from fleetwatch.alerting.routes import Planned, Router
from fleetwatch.store.alert_event import AlertEvent
from fleetwatch.store.database import Database
from fleetwatch.store.heartbeats import is_heartbeat, record_heartbeats
from fleetwatch.store.models import (
    Event,
    EventKind,
    Incident,
    Notification,
    State,
    Status,
    Transition,
    UtcDateTime,
)

T = TypeVar("T")

_CHUNK = 500  # values in one IN list
_FOLLOW_UPS = (Transition.REMINDER, Transition.ESCALATION)


@dataclass
class Accepted:
    """What became of a batch of alert events."""

    fired: int = 0
    resolved: int = 0
    duplicates: int = 0
    """Events that told nothing new."""
    heartbeats: int = 0
    """Watchdogs, which are never incidents."""


class Incidents(Database):
    """The part of the store that takes alerts in."""

    def accept(self, batches: Sequence[Sequence[AlertEvent]], router: Router) -> list[Accepted]:
        """Commit several batches at once, and for what is new in them the messages that the routes ask for.

        All or nothing: raises SQLAlchemyError when they are not on disk. Returns what became of each batch.
        """
        with self.write() as session:
            now = datetime.now(UTC)
            all_events = [event for batch in batches for event in batch]
            back = record_heartbeats(session, filter(is_heartbeat, all_events), now)
            changes = _Changes(session, router, now)
            changes.load([*filterfalse(is_heartbeat, all_events), *back])
            results = [changes.apply(batch) for batch in batches]
            changes.apply(back)
            changes.flush()
        return results

    def open_by_severity(self) -> dict[str, int]:
        """Return how many incidents are firing, by severity."""
        return {severity: count for severity, (count, _) in self.acknowledged_by_severity().items()}

    def acknowledged_by_severity(self) -> dict[str, tuple[int, int]]:
        """Return how many incidents are firing, and how many of these are acknowledged, by severity."""
        query = (
            select(Incident.severity, func.count(), func.count(Incident.acknowledged_at))
            .where(Incident.status == Status.FIRING)
            .group_by(Incident.severity)
        )
        with self.read() as session:
            return {row[0]: (row[1], row[2]) for row in session.execute(query)}


# No order is asked for, so that many rows go into one statement, but not into a new one for each number:
# SQLite keeps them prepared.
_INSERT = (
    insert(Incident)
    .returning(Incident.id, Incident.fingerprint, Incident.starts_at)
    .execution_options(insertmanyvalues_page_size=50)
)
_KNOWN = select(Incident.fingerprint, Incident.starts_at, Incident.status, Incident.id).where(
    Incident.fingerprint.in_(bindparam("fingerprints", expanding=True))
)
_KNOWN_BETWEEN = _KNOWN.where(
    Incident.starts_at.between(bindparam("since", type_=UtcDateTime), bindparam("until", type_=UtcDateTime))
)


def _milliseconds(time: datetime) -> datetime:
    """Return a time as precisely as Alertmanager's API gives it; the webhook has all of it."""
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


@dataclass(slots=True)
class _Known:
    """An incident as the changes under way see it."""

    fingerprint: str
    starts_at: datetime
    status: str
    id: int | None = None
    """``None`` until it is inserted."""
    values: dict[str, Any] = field(default_factory=dict)
    """The row to be inserted, for a new one."""
    queued: list[tuple[Planned, str | None]] = field(default_factory=list)
    """The messages to be queued with it, each with its trace context."""


class _Changes:
    """The changes of one transaction: read all that is needed, decide in memory, write all at once.

    Statements cost far more than rows, so their number does not depend on that of the alerts.
    """

    def __init__(self, session: Session, router: Router, now: datetime) -> None:
        self._session = session
        self._router = router
        self._now = now
        self._known: dict[tuple[str, datetime], _Known] = {}
        self._new: list[_Known] = []
        self._closed: list[tuple[_Known, AlertEvent]] = []

    def load(self, events: Iterable[AlertEvent]) -> None:
        """Read the incidents that the events may be about."""
        starts: dict[str, set[datetime]] = {}
        untimed: set[str] = set()
        for event in events:
            if event.starts_at is None:
                untimed.add(event.fingerprint)
            else:
                # Rounded as well: reconciliation may have read it from Alertmanager's API.
                both = {event.starts_at, _milliseconds(event.starts_at)}
                starts.setdefault(event.fingerprint, set()).update(both)
        for part in chunks(starts):
            moments = [moment for fingerprint in part for moment in starts[fingerprint]]
            since, until = min(moments), max(moments)
            self._remember(_KNOWN_BETWEEN, {"fingerprints": part, "since": since, "until": until})
        for part in chunks(sorted(untimed)):
            self._remember(_KNOWN, {"fingerprints": part})

    def _remember(self, query: Executable, values: dict[str, Any]) -> None:
        for row in self._session.connection().execute(query, values):
            self._known.setdefault((row[0], row[1]), _Known(*row))

    def apply(self, batch: Iterable[AlertEvent]) -> Accepted:
        """Decide what each event changes."""
        result = Accepted()
        for event in batch:
            if is_heartbeat(event):
                if event.status is Status.FIRING:
                    result.heartbeats += 1
                else:
                    result.duplicates += 1
                continue
            known = self._find(event)
            if known is None:
                self._open(event)
            elif event.status is Status.RESOLVED and known.status == Status.FIRING:
                self._close(known, event)
            else:
                # A repeat, another Alertmanager's copy, or a firing report that its own resolve has
                # overtaken. One that really fires again is seen by the reconciliation.
                result.duplicates += 1
                continue
            if event.status is Status.RESOLVED:
                result.resolved += 1
            else:
                result.fired += 1
        return result

    def _find(self, event: AlertEvent) -> _Known | None:
        if event.starts_at is not None:
            return self._known.get((event.fingerprint, event.starts_at)) or self._known.get(
                (event.fingerprint, _milliseconds(event.starts_at))
            )
        # Posted by hand without a time. It means the occurrence that is open now. When none is open, a
        # resolve can only be the repeat of the last one, while a firing alert is a new occurrence.
        all_known = [known for known in self._known.values() if known.fingerprint == event.fingerprint]
        found = [known for known in all_known if known.status == Status.FIRING]
        if not found and event.status is Status.RESOLVED:
            found = all_known
        return max(found, key=lambda known: known.starts_at, default=None)

    def _open(self, event: AlertEvent) -> None:
        starts_at = event.starts_at or event.ends_at or self._now
        resolved = event.status is Status.RESOLVED
        severity = event.severity
        known = _Known(event.fingerprint, starts_at, event.status)
        known.values = {
            "fingerprint": event.fingerprint,
            "starts_at": starts_at,
            "status": event.status.value,
            "severity": severity,
            "summary": event.summary,
            "labels": event.labels,
            "annotations": event.annotations,
            "generator_url": event.generator_url,
            "external_url": event.external_url,
            "receiver": event.receiver,
            "received_at": self._now,
            "ends_at": (event.ends_at or self._now) if resolved else None,
            "resolved_received_at": self._now if resolved else None,
            "reopened": 0,
        }
        plan = self._router.resolved if resolved else self._router.firing
        known.queued = [
            (planned, event.traceparent)
            for planned in plan(event.receiver, event.labels, severity, self._now)
        ]
        self._known[event.fingerprint, starts_at] = known
        self._new.append(known)

    def _close(self, known: _Known, event: AlertEvent) -> None:
        known.status = Status.RESOLVED
        if known.id is not None:
            self._closed.append((known, event))
            return
        # It fired in this very transaction.
        known.values |= {
            "status": Status.RESOLVED.value,
            "ends_at": event.ends_at or self._now,
            "resolved_received_at": self._now,
        }
        told = [each for each in known.queued if each[0].transition == Transition.FIRING]
        channels = [(planned.channel, planned.route) for planned, _ in told]
        ends = _ends(channels, self._router, known.values["severity"], self._now)
        known.queued = told + [(planned, event.traceparent) for planned in ends]

    def flush(self) -> None:
        """Write."""
        connection = self._session.connection()
        if self._new:
            inserted = connection.execute(_INSERT, [known.values for known in self._new])
            # What many are to be told in the same way is one statement too.
            alike: dict[tuple[Planned, str | None], list[int]] = {}
            for number, fingerprint, starts_at in inserted:
                for each in self._known[fingerprint, starts_at].queued:
                    alike.setdefault(each, []).append(number)
            # Beginnings first, since an incident's messages go out in the order of their ids.
            for planned, traceparent in sorted(alike, key=lambda each: each[0].transition != "firing"):
                _queue(connection, alike[planned, traceparent], planned, self._now, traceparent)
        if self._closed:
            _close(
                self._session,
                {known.id: event.ends_at for known, event in self._closed if known.id is not None},
                self._router,
                self._now,
                traceparents={known.id: event.traceparent for known, event in self._closed},
            )


def apply_events(session: Session, events: Sequence[AlertEvent], router: Router, now: datetime) -> None:
    """Take in what this program itself has found out, as if it had been reported.

    session: of ``Database.write()``.
    """
    changes = _Changes(session, router, now)
    changes.load(events)
    changes.apply(events)
    changes.flush()


def close_incidents(  # noqa: PLR0913 - who, why and when
    session: Session,
    incidents: Iterable[int],
    router: Router,
    now: datetime,
    *,
    author: str | None,
    note: str = "",
) -> int:
    """Resolve firing incidents without a message of Alertmanager; return how many were still firing.

    session: of ``Database.write()``.
    incidents: their ids.
    author: who resolved them by hand, ``None`` for the reconciliation.
    note: the reason, for the timeline.
    """
    query = select(Incident.id).where(Incident.status == Status.FIRING)
    ids = [
        number for part in chunks(incidents) for number in session.scalars(query.where(Incident.id.in_(part)))
    ]
    _close(session, dict.fromkeys(ids), router, now, resolved_by=author or "reconciliation")
    if ids:
        session.execute(
            insert(Event),
            [
                {"incident_id": number, "at": now, "kind": EventKind.RESOLVED, "author": author, "text": note}
                for number in ids
            ],
        )
    return len(ids)


def reopen_incident(session: Session, incident: Incident, router: Router, now: datetime) -> None:
    """Let a resolved incident fire again, and tell so anew.

    session: of ``Database.write()``, which the incident belongs to.
    """
    was_over = incident.ends_at.isoformat(timespec="seconds") if incident.ends_at else "?"
    incident.status = Status.FIRING
    incident.reopened += 1
    incident.ends_at = incident.resolved_received_at = incident.resolved_by = None
    incident.acknowledged_at = incident.acknowledged_by = incident.missing_since = None
    session.add(
        Event(
            incident_id=incident.id,
            at=now,
            kind=EventKind.REOPENED,
            text=f"It fires again; its end at {was_over} had been told.",
        )
    )
    planned = router.firing(incident.receiver, incident.labels, incident.severity, now)
    rows = [
        _row(each, now, None) | {"incident_id": incident.id, "episode": incident.reopened} for each in planned
    ]
    if rows:
        session.execute(insert(Notification), rows)


def cancel_follow_ups(session: Session, incidents: Sequence[int]) -> None:
    """Drop the reminders and escalations of incidents that no dispatcher has in hand."""
    for part in chunks(incidents):
        session.execute(
            update(Notification)
            .where(
                Notification.incident_id.in_(part),
                Notification.transition.in_(_FOLLOW_UPS),
                Notification.state == State.QUEUED,
                Notification.claimed_by.is_(None),
            )
            .values(state=State.CANCELLED.value)
        )


def _close(  # noqa: PLR0913 - one statement of what is closed
    session: Session,
    ends: dict[int, datetime | None],
    router: Router,
    now: datetime,
    *,
    resolved_by: str | None = None,
    traceparents: dict[int | None, str | None] | None = None,
) -> None:
    """Mark incidents resolved, cancel what was to follow, and queue the end for whoever was told."""
    if not ends:
        return
    session.connection().execute(
        update(Incident)
        .where(Incident.id == bindparam("number"))
        .values(
            status=Status.RESOLVED.value,
            ends_at=bindparam("ended"),
            resolved_received_at=now,
            resolved_by=resolved_by,
            missing_since=None,
        ),
        [{"number": number, "ended": ended or now} for number, ended in ends.items()],
    )
    cancel_follow_ups(session, list(ends))
    # Who was told: also by an escalation that is under way, or may have been before it failed.
    query = select(
        Notification.incident_id,
        Notification.channel,
        Notification.route,
        Incident.severity,
        Incident.reopened,
    ).join(Incident)
    query = query.where(
        Notification.episode == Incident.reopened,
        Notification.transition != Transition.RESOLVED,
        (Notification.state != State.CANCELLED) | (Notification.attempts > 0),
    ).order_by(Notification.id)
    told: dict[int, list[Any]] = {}
    for part in chunks(ends):
        for row in session.execute(query.where(Notification.incident_id.in_(part))):
            told.setdefault(row.incident_id, []).append(row)
    rows = [
        _row(planned, now, (traceparents or {}).get(number))
        | {"incident_id": number, "episode": found[0].reopened}
        for number, found in told.items()
        for planned in _ends(((row.channel, row.route) for row in found), router, found[0].severity, now)
    ]
    if rows:
        session.execute(insert(Notification), rows)


def _ends(told: Iterable[tuple[str, str]], router: Router, severity: str, now: datetime) -> Iterable[Planned]:
    """Return the messages of an end, one for each channel that was told of the beginning."""
    for channel, name in dict(told).items():
        route = router.route(name)
        if route is None or route.send_resolved:
            due = route.due(severity, now) if route else now
            yield Planned(Transition.RESOLVED, channel, name, due)


def _queue(
    connection: Connection, incidents: list[int], planned: Planned, now: datetime, traceparent: str | None
) -> None:
    """Queue the same message for several incidents."""
    values = _row(planned, now, traceparent)
    for part in chunks(incidents):
        connection.execute(_QUEUE, {**values, "incidents": part})


def _row(planned: Planned, now: datetime, traceparent: str | None) -> dict[str, Any]:
    return {
        "transition": str(planned.transition),
        "sequence": planned.sequence,
        "episode": 0,
        "channel": planned.channel,
        "route": planned.route,
        "state": State.QUEUED.value,
        "attempts": 0,
        "queued_at": now,
        "wanted_at": planned.due_at,
        "due_at": planned.due_at,
        "traceparent": traceparent,
    }


def chunks(values: Iterable[T]) -> Iterator[list[T]]:
    """Yield the values in parts that fit into a statement."""
    rest = iter(values)
    while part := list(islice(rest, _CHUNK)):
        yield part


def _queue_statement() -> Insert:
    columns = [
        column for column in Notification.__table__.columns if column.name in _row(_ANY, _ANY.due_at, None)
    ]
    constants = [bindparam(column.name, type_=column.type) for column in columns]
    chosen = select(Incident.id, *constants).where(Incident.id.in_(bindparam("incidents", expanding=True)))
    return insert(Notification).from_select(["incident_id", *columns], chosen.order_by(Incident.id))


_ANY = Planned(Transition.FIRING, "", "", datetime.now(UTC))
_QUEUE = _queue_statement()
"""Queues one message for each of many incidents; made once, since making it costs more than running it."""
