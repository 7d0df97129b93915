"""Reconciliation: what Alertmanager says about the alerts, and what becomes of the incidents.

Messages get lost: Alertmanager forgets resolves when it restarts, and sends none during a silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session, load_only

from fleetwatch.alerting.routes import Router
from fleetwatch.store.database import Database
from fleetwatch.store.incidents import close_incidents, reopen_incident
from fleetwatch.store.models import Event, EventKind, Incident, Status

RECONCILER_LOCK = 0x666C6566
"""Key of PostgreSQL's advisory lock that the one who reconciles holds."""

_SAME = timedelta(milliseconds=1)
"""The API gives times in milliseconds, the webhook in nanoseconds."""
_CHUNK = 500  # values in one IN list

Suppression = Literal["silenced", "inhibited"]


@dataclass(frozen=True)
class KnownAlert:
    """An alert that an Alertmanager holds for active, told or suppressed."""

    fingerprint: str
    starts_at: datetime
    suppressed: Suppression | None


@dataclass
class Reconciled:
    """What a reconciliation changed: the ids of incidents."""

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
            over, missing = [], []
            for incident in session.scalars(_OPEN).all():
                found = alerts.get(incident.fingerprint, [])
                # A start that is earlier than ours is the same alert: of the times that several Prometheus
                # report, Alertmanager takes the earliest.
                same = [alert for alert in found if alert.starts_at < incident.starts_at + _SAME]
                if same:
                    incident.missing_since = None
                    _suppress(session, incident, same, now)
                elif found:
                    over.append(incident.id)
                elif complete and _is_gone(incident, grace, now):
                    missing.append(incident.id)
            notes = {"Alertmanager knows a later occurrence.": over, "No Alertmanager knows it.": missing}
            for note, ids in notes.items():
                close_incidents(session, ids, router, now, author=None, note=note)
            result.closed = over + missing
            for incident in _fire_again(session, alerts, now - grace):
                reopen_incident(session, incident, router, now)
                result.reopened.append(incident.id)
        return result


_OPEN = (
    select(Incident)
    .options(
        load_only(Incident.fingerprint, Incident.starts_at, Incident.silenced, Incident.missing_since),
    )
    # One that was posted by hand is unknown to Alertmanager.
    .where(Incident.status == Status.FIRING, Incident.external_url != "")
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
    fingerprints = list(alerts)
    for start in range(0, len(fingerprints), _CHUNK):
        part = fingerprints[start : start + _CHUNK]
        for incident in session.scalars(query.where(Incident.fingerprint.in_(part))).all():
            same = [
                alert
                for alert in alerts[incident.fingerprint]
                if abs(alert.starts_at - incident.starts_at) < _SAME
            ]
            if same and not any(alert.suppressed for alert in same):
                yield incident
