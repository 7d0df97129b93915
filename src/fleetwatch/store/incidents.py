"""Incidents: taking alerts in, and finding them again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session, selectinload

from fleetwatch.store.database import Database
from fleetwatch.store.models import Incident, Notification, Status

_MAX_SEVERITY = 32


@dataclass(frozen=True)
class AlertEvent:
    """What one report says about one alert, checked and in canonical form."""

    status: Status
    fingerprint: str
    labels: dict[str, str]
    annotations: dict[str, str] = field(default_factory=dict)
    starts_at: datetime | None = None
    """``None`` when the sender did not say; the store then looks for the occurrence that is meant."""
    ends_at: datetime | None = None
    generator_url: str = ""
    external_url: str = ""
    receiver: str = ""
    silent: bool = False
    """Recorded, but announced on no channel."""

    @property
    def severity(self) -> str:
        """Return the label ``severity`` in lower case, or ``none``."""
        return self.labels.get("severity", "").strip().lower()[:_MAX_SEVERITY] or "none"

    @property
    def summary(self) -> str:
        """Return the best short description there is."""
        for text in (
            self.annotations.get("summary"),
            self.annotations.get("description"),
            self.labels.get("alertname"),
        ):
            if text and text.strip():
                return text.strip()
        return "alert " + ", ".join(f"{name}={value}" for name, value in sorted(self.labels.items()))


@dataclass
class Accepted:
    """What became of a batch of alert events."""

    fired: int = 0
    resolved: int = 0
    duplicates: int = 0
    """Events that told nothing new."""


class Incidents(Database):
    """The part of the store that keeps incidents."""

    def accept(self, events: Iterable[AlertEvent], channels: Sequence[str]) -> Accepted:
        """Commit a batch of events, and for what is new in it (and not silent) a notification per channel.

        All or nothing: raises SQLAlchemyError when the batch is not on disk.
        """
        result = Accepted()
        with self.write() as session:
            now = datetime.now(UTC)
            for alert in events:
                _accept_one(session, alert, channels, now, result)
        return result

    def incidents(
        self, status: Status | None = None, labels: Mapping[str, str] | None = None, limit: int = 100
    ) -> list[Incident]:
        """Return incidents with their notifications, the newest first.

        labels: only incidents with all these label values.
        """
        query = (
            select(Incident)
            .options(selectinload(Incident.notifications))
            .order_by(Incident.id.desc())
            .limit(limit)
        )
        if status:
            query = query.where(Incident.status == status)
        for name, value in (labels or {}).items():
            query = query.where(Incident.labels[name].as_string() == value)
        with self.read() as session:
            return list(session.scalars(query))

    def open_by_severity(self) -> dict[str, int]:
        """Return how many incidents are firing, by severity."""
        query = (
            select(Incident.severity, func.count())
            .where(Incident.status == Status.FIRING)
            .group_by(Incident.severity)
        )
        with self.read() as session:
            return {row[0]: row[1] for row in session.execute(query)}


def _accept_one(
    session: Session, alert: AlertEvent, channels: Sequence[str], now: datetime, result: Accepted
) -> None:
    incident = _find(session, alert)
    if incident is None:
        incident = Incident(
            fingerprint=alert.fingerprint,
            starts_at=alert.starts_at or alert.ends_at or now,
            status=alert.status,
            severity=alert.severity,
            summary=alert.summary,
            labels=alert.labels,
            annotations=alert.annotations,
            generator_url=alert.generator_url,
            external_url=alert.external_url,
            receiver=alert.receiver,
            received_at=now,
        )
        session.add(incident)
    elif alert.status is Status.RESOLVED and incident.status == Status.FIRING:
        incident.status = Status.RESOLVED
    else:
        # A repeat, another Alertmanager's copy, or a firing report that its own resolve has overtaken.
        result.duplicates += 1
        return
    if alert.status is Status.RESOLVED:
        incident.ends_at = alert.ends_at or now
        incident.resolved_received_at = now
        result.resolved += 1
    else:
        result.fired += 1
    session.add_all(
        Notification(incident=incident, transition=alert.status, channel=channel, queued_at=now, due_at=now)
        for channel in channels
        if not alert.silent
    )


def _find(session: Session, alert: AlertEvent) -> Incident | None:
    """Return the incident that the event is about, if it is known."""
    query = select(Incident).where(Incident.fingerprint == alert.fingerprint)
    if alert.starts_at is not None:
        return session.scalars(query.where(Incident.starts_at == alert.starts_at)).first()
    # Posted by hand without a time. It means the occurrence that is open now. When none is open, a
    # resolve can only be the repeat of the last one, while a firing alert is a new occurrence.
    latest = query.order_by(Incident.starts_at.desc())
    incident = session.scalars(latest.where(Incident.status == Status.FIRING)).first()
    if incident is None and alert.status is Status.RESOLVED:
        incident = session.scalars(latest).first()
    return incident
