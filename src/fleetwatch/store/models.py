"""The tables. A change here needs a migration in ``migrations/versions``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeEngine


class Status(StrEnum):
    """The state of an incident."""

    FIRING = "firing"
    RESOLVED = "resolved"


class Transition(StrEnum):
    """What a notification tells of."""

    FIRING = "firing"
    RESOLVED = "resolved"
    REMINDER = "reminder"
    ESCALATION = "escalation"


class State(StrEnum):
    """The state of a notification."""

    QUEUED = "queued"
    SENT = "sent"
    PARKED = "parked"
    """Given up: a dead letter, until somebody queues it again."""
    CANCELLED = "cancelled"
    """A reminder or escalation that was no longer needed."""


class EventKind(StrEnum):
    """What a timeline holds beside firing, resolving and what was sent, which other tables know."""

    ACKNOWLEDGED = "acknowledged"
    NOTE = "note"
    RESOLVED = "resolved"
    """Resolved otherwise than by Alertmanager's message: by hand, or because no Alertmanager knows it."""
    REOPENED = "reopened"
    RETRIED = "retried"
    PARKED = "parked"
    REQUEUED = "requeued"
    SILENCED = "silenced"
    UNSILENCED = "unsilenced"


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time; always aware and UTC in Python, whatever the database keeps."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], Any]:
        """Convert to UTC; for SQLite to SQLAlchemy's own text form, several times faster than it does."""
        if dialect.name == "sqlite":
            return lambda time: (
                time and time.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
            )
        return lambda time: time and time.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - the signature is SQLAlchemy's
        """Make the value aware again; SQLite keeps no time zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Mapping(TypeDecorator[dict[str, str]]):
    """Names and values, as JSON."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Take PostgreSQL's binary form there; its dialect is 2 MB that SQLite need not load."""
        if dialect.name != "postgresql":
            return dialect.type_descriptor(JSON())
        from sqlalchemy.dialects.postgresql import JSONB  # noqa: PLC0415

        return dialect.type_descriptor(JSONB())


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(
        naming_convention={  # so that a migration can name a constraint on both databases
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's interface
        datetime: UtcDateTime,
        dict[str, str]: Mapping,
        str: Text,
    }


class Heartbeat(Base):
    """One row, which the readiness check writes to see whether the database takes it."""

    __tablename__ = "heartbeat"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    beat_at: Mapped[datetime]


class Incident(Base):
    """One occurrence of an alert, known by (fingerprint, starts_at)."""

    __tablename__ = "incidents"
    __table_args__ = (
        UniqueConstraint("fingerprint", "starts_at"),
        Index(None, "status", "severity"),
        Index(None, "resolved_received_at"),  # retention
        # An id stands in links of messages, so it is never given to another incident.
        {"sqlite_autoincrement": True},
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
    """Alertmanager's own URL; empty for an alert that was posted by hand."""
    receiver: Mapped[str]
    """Alertmanager's receiver name."""
    received_at: Mapped[datetime]
    """When the first report of this occurrence was committed."""
    ends_at: Mapped[datetime | None]
    """When the alert was over, as Alertmanager says."""
    resolved_received_at: Mapped[datetime | None]
    """When the resolve was committed."""
    resolved_by: Mapped[str | None]
    """``None`` for Alertmanager's message, ``reconciliation``, or the name of who resolved it by hand."""
    acknowledged_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str | None]
    silenced: Mapped[str | None]
    """``silenced`` or ``inhibited`` while Alertmanager says so; reminders and escalations wait."""
    missing_since: Mapped[datetime | None]
    """Since when no Alertmanager has known the alert, ``None`` while one does."""
    reopened: Mapped[int] = mapped_column(default=0, server_default="0")
    """How often the occurrence fired again after its end was told."""

    notifications: Mapped[list[Notification]] = relationship(
        back_populates="incident", order_by="Notification.id", passive_deletes=True
    )
    events: Mapped[list[Event]] = relationship(order_by="Event.id", passive_deletes=True)


class Notification(Base):
    """A row of the outbox: one transition of one incident on one channel."""

    __tablename__ = "notifications"
    __table_args__ = (
        # Named by hand: the convention's name is too long for PostgreSQL.
        UniqueConstraint(
            "incident_id", "channel", "transition", "sequence", "episode", name="uq_notifications_once"
        ),
        Index(None, "state", "channel", "due_at", "id"),  # in the order of claims
        Index(None, "channel", "queued_at"),  # how many came of late
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    incident_id: Mapped[int] = mapped_column(ForeignKey("incidents.id", ondelete="CASCADE"))
    transition: Mapped[str] = mapped_column(String(16))
    sequence: Mapped[int] = mapped_column(default=0, server_default="0")
    """Number of the reminder or escalation step, from 0."""
    episode: Mapped[int] = mapped_column(default=0, server_default="0")
    """``Incident.reopened`` at the time, since a reopened incident is told anew."""
    channel: Mapped[str] = mapped_column(String(32))
    route: Mapped[str] = mapped_column(String(32), default="", server_default="")
    state: Mapped[str] = mapped_column(String(16), default=State.QUEUED)
    attempts: Mapped[int] = mapped_column(default=0)
    """Attempts begun, including one whose dispatcher died."""
    queued_at: Mapped[datetime]
    wanted_at: Mapped[datetime]
    """When it was first to go out: later than ``queued_at`` for reminders and in quiet hours."""
    due_at: Mapped[datetime]
    """Not to be attempted before this time."""
    claimed_by: Mapped[str | None] = mapped_column(String(64))
    claimed_until: Mapped[datetime | None]
    """After this time the claim is void and another dispatcher may take the row."""
    sent_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
    provider_id: Mapped[str | None]
    """What the provider calls the message."""
    traceparent: Mapped[str | None] = mapped_column(String(64))
    """W3C trace context of the request that caused it."""

    incident: Mapped[Incident] = relationship(back_populates="notifications")


class Event(Base):
    """One entry of an incident's timeline."""

    __tablename__ = "events"
    __table_args__ = (Index(None, "incident_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    incident_id: Mapped[int] = mapped_column(ForeignKey("incidents.id", ondelete="CASCADE"))
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(16))
    author: Mapped[str | None]
    """Who did it, ``None`` for the program."""
    text: Mapped[str]


class Watchdog(Base):
    """Where heartbeats come from: one Prometheus or HA pair, known by the fingerprint of its Watchdog."""

    __tablename__ = "watchdogs"

    fingerprint: Mapped[str] = mapped_column(String(128), primary_key=True)
    """Empty for one that is expected and has never come."""
    labels: Mapped[dict[str, str]]
    """Labels of its Watchdog."""
    beat_at: Mapped[datetime]
    """When the last heartbeat came, or since when the first is expected."""
    looked_at: Mapped[datetime]
    """When a dispatcher last looked, or the last heartbeat came."""
    silent_for: Mapped[float] = mapped_column(Double)
    """Seconds since the last heartbeat that dispatchers have seen go by: neither those when none ran nor
    those that a clock jumped over."""
    missing: Mapped[bool]
    """Whether there is an incident because of it."""
