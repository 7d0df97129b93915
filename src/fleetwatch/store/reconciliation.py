"""Reconciliation: what Alertmanager says about the alerts, and what becomes of the incidents.

Messages get lost: Alertmanager forgets resolves when it restarts, and sends none during a silence. Nor does
it tell of an alert that ended and fires again before it could tell of the end: until its ``repeat_interval``
is over, that is the alert which it has told of already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy import func, or_, select, tuple_
from sqlalchemy.orm import Session, load_only

from fleetwatch.alerting.routes import Router
from fleetwatch.store.alert_event import AlertEvent, storable
from fleetwatch.store.database import Database
from fleetwatch.store.incidents import apply_events, chunks, close_incidents, reopen_incident
from fleetwatch.store.models import Event, EventKind, Incident, Status

RECONCILER_LOCK = 0x666C6566
"""Key of PostgreSQL's advisory lock that the one who reconciles holds."""

_SAME = timedelta(milliseconds=1)
"""The API gives times in milliseconds, the webhook in nanoseconds."""

Suppression = Literal["silenced", "inhibited"]


@dataclass(frozen=True)
class KnownAlert:
    """An alert that an Alertmanager holds for active, told or suppressed."""

    fingerprint: str
    starts_at: datetime
    suppressed: Suppression | None
    receivers: frozenset[str] = frozenset()
    """Names of Alertmanager's receivers that its routes lead to."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    generator_url: str = ""


@dataclass
class Reconciled:
    """What a reconciliation changed: the ids of incidents."""

    opened: int = 0
    """How many later occurrences have begun of which Alertmanager did not tell."""
    closed: list[int] = field(default_factory=list)
    reopened: list[int] = field(default_factory=list)


class Reconciliation(Database):
    """The part of the store that compares incidents with Alertmanager."""

    @contextmanager
    def reconciler(self) -> Iterator[bool]:
        """Be the only one who reconciles; gives False while another does. SQLite has one dispatcher."""
        if self.dialect == "sqlite":
            yield True
            return
        with self.autocommit() as connection:
            alone = bool(connection.scalar(select(func.pg_try_advisory_lock(RECONCILER_LOCK))))
            try:
                yield alone
            finally:
                if alone:
                    connection.execute(select(func.pg_advisory_unlock(RECONCILER_LOCK)))

    def reconcile(
        self, known: Iterable[KnownAlert], router: Router, grace: timedelta, *, complete: bool
    ) -> Reconciled:
        """Bring the incidents in line with what all Alertmanagers together know.

        grace: how long an incident must have been unknown, or known again, before that counts.
        complete: whether an alert that is not among ``known`` may count as unknown; False when an
            Alertmanager has started so lately that it may not have been told yet.
        Raises SQLAlchemyError when nothing could be changed.
        """
        alerts: dict[str, list[KnownAlert]] = {}
        for alert in known:
            alerts.setdefault(alert.fingerprint, []).append(alert)
        result = Reconciled()
        with self.write() as session:
            now = datetime.now(UTC)
            newest = _newest(session, alerts)
            untold = list(_untold(session, alerts, newest, now - grace))
            told = newest | {event.fingerprint: event.starts_at or now for event in untold}
            over, missing = [], []
            for incident in session.scalars(_OPEN).all():
                found = alerts.get(incident.fingerprint, [])
                same = [alert for alert in found if _is_same(alert, incident.starts_at)]
                later = [alert for alert in found if incident.receiver in alert.receivers]
                if not same and later and told[incident.fingerprint] >= incident.starts_at + _SAME:
                    over.append(incident.id)
                elif same or later:  # until the later one is told of, this one speaks for it
                    incident.missing_since = None
                    _suppress(session, incident, same or later, now)
                elif complete and _is_gone(incident, grace, now):
                    missing.append(incident.id)
            notes = {"Alertmanager knows a later occurrence.": over, "No Alertmanager knows it.": missing}
            for note, ids in notes.items():
                close_incidents(session, ids, router, now, author=None, note=note)
            result.closed = over + missing
            apply_events(session, untold, router, now)
            result.opened = len(untold)
            for incident in _fire_again(session, alerts, now - grace):
                reopen_incident(session, incident, router, now)
                result.reopened.append(incident.id)
        return result


_OPEN = (
    select(Incident)
    .options(
        load_only(
            Incident.fingerprint,
            Incident.starts_at,
            Incident.receiver,
            Incident.silenced,
            Incident.missing_since,
        ),
    )
    # One that was posted by hand is unknown to Alertmanager.
    .where(Incident.status == Status.FIRING, Incident.external_url != "")
)


def _is_same(alert: KnownAlert, starts_at: datetime) -> bool:
    """Tell whether an alert is the occurrence that began then, as far as we were told.

    A start that is earlier than ours is the same alert: of the times that several Prometheus report,
    Alertmanager takes the earliest.
    """
    return alert.starts_at < starts_at + _SAME


def _newest(session: Session, fingerprints: Iterable[str]) -> dict[str, datetime]:
    """Return when the newest incident of each alert began, of those that Alertmanager has told of."""
    query = select(Incident.fingerprint, func.max(Incident.starts_at)).where(Incident.external_url != "")
    found: dict[str, datetime] = {}
    for part in chunks(fingerprints):
        rows = session.execute(query.where(Incident.fingerprint.in_(part)).group_by(Incident.fingerprint))
        found.update((fingerprint, starts_at) for fingerprint, starts_at in rows)
    return found


def _untold(
    session: Session,
    alerts: Mapping[str, list[KnownAlert]],
    newest: Mapping[str, datetime],
    begun_before: datetime,
) -> Iterator[AlertEvent]:
    """Return later occurrences that fire for long enough, and that Alertmanager takes for told.

    It does when it never told the end of the one before: that is open here, or reconciliation closed it.
    """
    later = {
        fingerprint: [
            alert
            for alert in alerts[fingerprint]
            if not (_is_same(alert, starts_at) or alert.suppressed) and alert.starts_at <= begun_before
        ]
        for fingerprint, starts_at in newest.items()
    }
    query = select(Incident).where(
        Incident.external_url != "",
        or_(Incident.status == Status.FIRING, Incident.resolved_by == "reconciliation"),
    )
    occurrence = tuple_(Incident.fingerprint, Incident.starts_at)
    for part in chunks((fingerprint, newest[fingerprint]) for fingerprint, found in later.items() if found):
        for incident in session.scalars(query.where(occurrence.in_(part))).all():
            found = [alert for alert in later[incident.fingerprint] if incident.receiver in alert.receivers]
            if found:
                yield _next(incident, min(found, key=lambda alert: alert.starts_at))


def _next(incident: Incident, alert: KnownAlert) -> AlertEvent:
    """Return what Alertmanager's message about the next occurrence of an incident would say."""
    return AlertEvent(
        status=Status.FIRING,
        fingerprint=incident.fingerprint,
        labels=dict(incident.labels),  # of which the fingerprint is one
        annotations={storable(name): storable(text) for name, text in alert.annotations.items()},
        starts_at=alert.starts_at,
        generator_url=storable(alert.generator_url),
        external_url=incident.external_url,
        receiver=incident.receiver,
    )


def _suppress(session: Session, incident: Incident, alerts: list[KnownAlert], now: datetime) -> None:
    """Record whether the alert is suppressed, which it is when no Alertmanager would tell of it."""
    suppressed = alerts[0].suppressed if all(alert.suppressed for alert in alerts) else None
    if suppressed == incident.silenced:
        return
    kind = EventKind.SILENCED if suppressed else EventKind.UNSILENCED
    session.add(Event(incident_id=incident.id, at=now, kind=kind, text=suppressed or ""))
    incident.silenced = suppressed


def _is_gone(incident: Incident, grace: timedelta, now: datetime) -> bool:
    """Tell whether an unknown alert has been so for long enough; remember since when it has."""
    since = incident.missing_since
    if since is None or since > now:  # the latter when the clock was set back
        incident.missing_since = now
        return False
    return now - since >= grace


def _fire_again(
    session: Session, alerts: Mapping[str, list[KnownAlert]], resolved_before: datetime
) -> Iterator[Incident]:
    """Return incidents whose end was told, while Alertmanager calls the same occurrence active."""
    query = select(Incident).where(
        Incident.status == Status.RESOLVED,
        Incident.external_url != "",
        Incident.resolved_received_at <= resolved_before,
        or_(Incident.resolved_by.is_(None), Incident.resolved_by == "reconciliation"),
    )
    for part in chunks(alerts):
        for incident in session.scalars(query.where(Incident.fingerprint.in_(part))).all():
            same = [
                alert
                for alert in alerts[incident.fingerprint]
                if abs(alert.starts_at - incident.starts_at) < _SAME
            ]
            if same and not any(alert.suppressed for alert in same):
                yield incident
