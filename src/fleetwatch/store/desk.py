"""The desk: what people do with incidents and with messages that were given up."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypedDict, TypeVar, Unpack

from sqlalchemy import Select, TableValuedAlias, case, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session, contains_eager, selectinload

from fleetwatch.alerting.routes import Router
from fleetwatch.store.database import Database
from fleetwatch.store.incidents import cancel_follow_ups, close_incidents
from fleetwatch.store.models import Event, EventKind, Incident, Notification, State, Status

_URGENCY = {"critical": 0, "warning": 1, "info": 2}
_LEAST_URGENT = 3
_MAX_ID = 2**31 - 1

RowT = TypeVar("RowT", Incident, Notification)


class UnknownIncidentError(LookupError):
    """There is no incident of this id, or no longer."""


class ConflictError(Exception):
    """The state of the incident does not allow it; the text says why."""


class Filters(TypedDict, total=False):
    """What a list of incidents can be narrowed to."""

    severity: str | None
    acknowledged: bool | None
    labels: Mapping[str, str] | None
    text: str


@dataclass(frozen=True)
class Page(Generic[RowT]):
    """A part of a long list."""

    rows: list[RowT]
    next: str | None
    """Cursor of the next part, ``None`` at the end."""


@dataclass(frozen=True)
class Entry:
    """One line of an incident's timeline."""

    at: datetime
    kind: str
    """``fired``, ``received``, ``resolved``, ``notified``, ``waiting``, or another ``EventKind``."""
    text: str = ""
    author: str | None = None
    """Who did it, ``None`` for the program."""
    channel: str | None = None
    """Where a message went or is to go, for ``notified`` and ``waiting``."""
    transition: str | None = None
    """What that message tells of."""


class Desk(Database):
    """The part of the store that people work with. Texts must hold no NUL, which PostgreSQL cannot keep."""

    def incidents(  # noqa: PLR0913 - each is a filter of its own
        self,
        *,
        status: Status | None = None,
        severity: str | None = None,
        acknowledged: bool | None = None,
        labels: Mapping[str, str] | None = None,
        text: str = "",
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Incident]:
        """Return incidents with their notifications, the newest first.

        labels: each must be there with exactly this value.
        text: must be in the summary or in a label's value, in upper or lower case.
        cursor: ``next`` of the part before; raises ValueError when it is not one.
        """
        query = self._filtered(severity=severity, acknowledged=acknowledged, labels=labels, text=text)
        if status is not None:
            query = query.where(Incident.status == status)
        with self.read() as session:
            return _page(session, query, Incident, limit, cursor)

    def incident(self, number: int) -> Incident:
        """Return an incident with its notifications and events; raise UnknownIncidentError."""
        with self.read() as session:
            return _get(session, number, selectinload(Incident.notifications), selectinload(Incident.events))

    def open_incidents(self, limit: int = 100, offset: int = 0, **filters: Unpack[Filters]) -> list[Incident]:
        """Return firing incidents with their notifications, the most severe first, then the oldest.

        filters: as those of ``incidents``.
        """
        urgency = case(_URGENCY, value=Incident.severity, else_=_LEAST_URGENT)
        query = (
            self._filtered(**filters)
            .where(Incident.status == Status.FIRING)
            .order_by(urgency, Incident.starts_at, Incident.id)
            .limit(limit)
            .offset(offset)
        )
        with self.read() as session:
            return list(session.scalars(query))

    def acknowledge(self, number: int, by: str, note: str = "") -> bool:
        """Record that somebody takes care, and drop reminders and escalations.

        Return False when that was recorded before; a new note is kept all the same.
        Raises UnknownIncidentError, ConflictError when the incident is over, and SQLAlchemyError.
        """
        with self.write() as session:
            incident = _get(session, number)
            if incident.status != Status.FIRING:
                raise ConflictError("the incident is resolved")
            if incident.acknowledged_at is not None:
                _add_late_note(session, number, by, note)
                return False
            incident.acknowledged_at, incident.acknowledged_by = datetime.now(UTC), by
            _add_event(session, number, EventKind.ACKNOWLEDGED, by, note)
            cancel_follow_ups(session, [number])
        return True

    def add_note(self, number: int, by: str, text: str) -> None:
        """Add a note to the timeline; raises UnknownIncidentError and SQLAlchemyError."""
        with self.write() as session:
            _get(session, number)
            _add_event(session, number, EventKind.NOTE, by, text)

    def resolve(self, number: int, by: str, router: Router, note: str = "") -> bool:
        """Resolve an incident by hand, and tell so on every channel that was told of its beginning.

        Return False when it is over already; a new note is kept all the same.
        Raises UnknownIncidentError and SQLAlchemyError.
        """
        with self.write() as session:
            _get(session, number)
            closed = close_incidents(session, [number], router, datetime.now(UTC), author=by, note=note)
            if not closed:
                _add_late_note(session, number, by, note)
        return bool(closed)

    def dead_letters(
        self, *, channel: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page[Notification]:
        """Return messages that were given up, with their incidents, the newest first.

        cursor: ``next`` of the part before; raises ValueError when it is not one.
        """
        query = (
            select(Notification)
            .join(Notification.incident)
            .options(contains_eager(Notification.incident))
            .where(Notification.state == State.PARKED)
        )
        if channel is not None:
            query = query.where(Notification.channel == channel)
        with self.read() as session:
            return _page(session, query, Notification, limit, cursor)

    def requeue(self, by: str, *, ids: Sequence[int] | None = None, channel: str | None = None) -> int:
        """Let messages that were given up be tried again at once, and return how many.

        The count of attempts goes on, but the time after which they are given up starts anew.
        by: who asks for it, for the timelines.
        ids: only these; those that are not dead letters are left alone. Without ids and channel: all.
        channel: only those of this channel.
        """
        now = datetime.now(UTC)
        query = update(Notification).where(Notification.state == State.PARKED)
        if ids is not None:
            query = query.where(Notification.id.in_([number for number in ids if number <= _MAX_ID]))
        if channel is not None:
            query = query.where(Notification.channel == channel)
        with self.work() as session:
            rows = session.execute(
                query.values(state=State.QUEUED.value, wanted_at=now, due_at=now)
                .returning(Notification.incident_id, Notification.transition, Notification.channel)
                .execution_options(synchronize_session=False)
            ).all()
            events = [
                {
                    "incident_id": row.incident_id,
                    "at": now,
                    "kind": EventKind.REQUEUED.value,
                    "author": by,
                    "text": f"{row.transition} by {row.channel}",
                }
                for row in rows
            ]
            if events:
                session.execute(insert(Event), events)
        return len(rows)

    def _filtered(
        self,
        *,
        severity: str | None = None,
        acknowledged: bool | None = None,
        labels: Mapping[str, str] | None = None,
        text: str = "",
    ) -> Select[Any]:
        query = select(Incident).options(selectinload(Incident.notifications))
        if severity is not None:
            query = query.where(Incident.severity == severity.lower())
        if acknowledged is not None:
            query = query.where(Incident.acknowledged_at.is_not(None) == acknowledged)
        for name, value in (labels or {}).items():
            label = self._labels()
            query = query.where(exists().where(label.c.key == name, label.c.value == value))
        if text:
            label = self._labels()
            in_label = exists().where(label.c.value.icontains(text, autoescape=True))
            query = query.where(or_(Incident.summary.icontains(text, autoescape=True), in_label))
        return query

    def _labels(self) -> TableValuedAlias:
        """Return the labels of the incident that is asked for as rows of ``key`` and ``value``."""
        # Not a JSON path, whose quoting differs and cannot express every name.
        pairs = func.json_each if self.dialect == "sqlite" else func.jsonb_each_text
        return pairs(Incident.labels).table_valued("key", "value")


def timeline(incident: Incident) -> list[Entry]:
    """Return what happened to an incident, the oldest first; what is still to come stands last.

    incident: of ``Desk.incident``.
    """
    entries = [
        Entry(incident.starts_at, "fired"),
        Entry(incident.received_at, "received", incident.receiver and f"by {incident.receiver}"),
    ]
    # Otherwise there is an event, which also knows who.
    if incident.ends_at is not None and incident.resolved_by is None:
        entries.append(Entry(incident.ends_at, "resolved"))
    entries += [Entry(event.at, event.kind, event.text, event.author) for event in incident.events]
    for row in incident.notifications:
        if row.state == State.SENT and row.sent_at is not None:
            text = f"attempt {row.attempts}" if row.attempts > 1 else ""
            entries.append(
                Entry(row.sent_at, "notified", text, channel=row.channel, transition=row.transition)
            )
        elif row.state == State.QUEUED:
            text = row.last_error or ""
            entries.append(Entry(row.due_at, "waiting", text, channel=row.channel, transition=row.transition))
    return sorted(entries, key=lambda entry: (entry.kind == "waiting", entry.at))


def _page(
    session: Session, query: Select[RowT], table: type[RowT], limit: int, cursor: str | None
) -> Page[RowT]:
    if cursor is not None:
        query = query.where(table.id < _decode(cursor))
    rows = list(session.scalars(query.order_by(table.id.desc()).limit(limit + 1)))
    return Page(rows[:limit], _encode(rows[limit - 1].id) if len(rows) > limit else None)


def _encode(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(4)).decode().rstrip("=")


def _decode(cursor: str) -> int:
    if not re.fullmatch(r"[A-Za-z0-9_-]{6}", cursor):
        raise ValueError("the cursor is not one that was given out")
    return min(int.from_bytes(base64.urlsafe_b64decode(cursor + "==")), _MAX_ID)


def _get(session: Session, number: int, *options: Any) -> Incident:
    incident = session.get(Incident, number, options=options) if number <= _MAX_ID else None
    if incident is None:
        raise UnknownIncidentError(f"there is no incident {number}")
    return incident


def _add_event(session: Session, incident: int, kind: EventKind, by: str, text: str) -> None:
    session.add(Event(incident_id=incident, at=datetime.now(UTC), kind=kind.value, author=by, text=text))


def _add_late_note(session: Session, incident: int, by: str, note: str) -> None:
    """Keep what somebody adds to what was done before, unless it is only the same request again."""
    same = select(Event.id).where(Event.incident_id == incident, Event.author == by, Event.text == note)
    if note and session.scalar(same.limit(1)) is None:
        _add_event(session, incident, EventKind.NOTE, by, note)
