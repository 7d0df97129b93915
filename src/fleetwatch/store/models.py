"""The tables."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, ForeignKey, Index, String, TypeDecorator, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

SCHEMA_VERSION = 1
"""Raised with each change of the tables; a program refuses a database of a newer version."""


class Status(StrEnum):
    """The state of an incident, and the transition a notification tells of."""

    FIRING = "firing"
    RESOLVED = "resolved"


class State(StrEnum):
    """The state of a notification."""

    QUEUED = "queued"
    SENT = "sent"
    PARKED = "parked"


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time; always aware and UTC in Python, whatever the database keeps."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - the signature is SQLAlchemy's
        """Convert to UTC."""
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - the signature is SQLAlchemy's
        """Make the value aware again; SQLite keeps no time zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {datetime: UtcDateTime, dict[str, str]: JSON}  # noqa: RUF012 - SQLAlchemy's interface


class SchemaVersion(Base):
    """One row: the version of the tables, and when the readiness check last wrote here."""

    __tablename__ = "schema_version"

    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int]
    checked_at: Mapped[datetime | None]


class Incident(Base):
    """One occurrence of an alert."""

    __tablename__ = "incidents"
    __table_args__ = (
        UniqueConstraint("fingerprint", "starts_at"),
        Index("ix_incidents_status_severity", "status", "severity"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(128))
    starts_at: Mapped[datetime]
    """When the alert began to fire, as Alertmanager says."""
    status: Mapped[str] = mapped_column(String(16))
    severity: Mapped[str] = mapped_column(String(32))
    summary: Mapped[str]
    labels: Mapped[dict[str, str]]
    annotations: Mapped[dict[str, str]]
    generator_url: Mapped[str]
    external_url: Mapped[str]
    receiver: Mapped[str]
    received_at: Mapped[datetime]
    """When the first report of this occurrence was committed."""
    ends_at: Mapped[datetime | None]
    """When the alert was over, as Alertmanager says."""
    resolved_received_at: Mapped[datetime | None]
    """When the resolve was committed."""

    notifications: Mapped[list[Notification]] = relationship(
        back_populates="incident", order_by="Notification.id"
    )

    def to_json(self) -> dict[str, Any]:
        """Return the incident as the API shows it."""
        return {
            "id": self.id,
            "fingerprint": self.fingerprint,
            "status": self.status,
            "severity": self.severity,
            "summary": self.summary,
            "labels": self.labels,
            "annotations": self.annotations,
            "receiver": self.receiver,
            "generator_url": self.generator_url,
            "external_url": self.external_url,
            "fired_at": iso(self.starts_at),
            "received_at": iso(self.received_at),
            "resolved_at": iso(self.ends_at),
            "resolved_received_at": iso(self.resolved_received_at),
            "notifications": [notification.to_json() for notification in self.notifications],
        }


class Notification(Base):
    """A row of the outbox: one transition of one incident on one channel."""

    __tablename__ = "notifications"
    __table_args__ = (
        UniqueConstraint("incident_id", "transition", "channel"),
        Index("ix_notifications_state_due", "state", "due_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    incident_id: Mapped[int] = mapped_column(ForeignKey("incidents.id"))
    transition: Mapped[str] = mapped_column(String(16))
    channel: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16), default=State.QUEUED)
    attempts: Mapped[int] = mapped_column(default=0)
    """Attempts begun, including one whose dispatcher died."""
    queued_at: Mapped[datetime]
    due_at: Mapped[datetime]
    """Not to be attempted before this time."""
    claimed_by: Mapped[str | None] = mapped_column(String(64))
    claimed_until: Mapped[datetime | None]
    """After this time the claim is void and another dispatcher may take the row."""
    sent_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
    provider_id: Mapped[str | None]
    """What the provider calls the message."""

    incident: Mapped[Incident] = relationship(back_populates="notifications")

    def to_json(self) -> dict[str, Any]:
        """Return the notification as the API shows it."""
        return {
            "id": self.id,
            "transition": self.transition,
            "channel": self.channel,
            "state": self.state,
            "attempts": self.attempts,
            "queued_at": iso(self.queued_at),
            "next_attempt_at": iso(self.due_at) if self.state == State.QUEUED else None,
            "sent_at": iso(self.sent_at),
            "last_error": self.last_error,
            "provider_id": self.provider_id,
        }


def iso(time: datetime | None) -> str | None:
    """Return a time as ISO 8601 in UTC with milliseconds, e.g. ``2026-01-02T03:04:05.678Z``."""
    if time is None:
        return None
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
