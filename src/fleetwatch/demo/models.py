"""The table of transactions."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Literal, get_args
from uuid import UUID, uuid4

from sqlalchemy import CheckConstraint, DateTime, Enum, Index, MetaData, Numeric, Text, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Currency = Literal["CHF", "EUR", "GBP", "PLN", "SEK", "USD"]
"""Few, since each is a label of metrics."""
CURRENCIES: tuple[Currency, ...] = get_args(Currency)
LARGEST_AMOUNT = Decimal("999999.99")


class Status(StrEnum):
    """The state of a transaction."""

    PENDING = "pending"
    """Paid for; no worker has settled it."""
    COMPLETED = "completed"
    FAILED = "failed"


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's interface
        datetime: DateTime(timezone=True),
        Decimal: Numeric(12, 2),
        str: Text,
        Status: Enum(
            Status,
            name="status_is_known",
            native_enum=False,
            create_constraint=True,
            values_callable=lambda states: [state.value for state in states],
        ),
    }


class Transaction(Base):
    """An amount that somebody paid. All times are the database's, so hosts need not agree on theirs."""

    __tablename__ = "transactions"
    __table_args__ = (
        CheckConstraint("amount > 0", name="amount_is_positive"),
        CheckConstraint("(status = 'pending') = (finished_at IS NULL)", name="finished_has_a_time"),
        Index(None, "created_at", "id"),  # pages
        Index(None, "status", "created_at", "id"),  # pages of one status, and the worker's queue
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    amount: Mapped[Decimal]
    currency: Mapped[str]
    reference: Mapped[str | None]
    """What the caller calls it."""
    idempotency_key: Mapped[str | None] = mapped_column(unique=True)
    payment_id: Mapped[str]
    """What the gateway calls the payment."""
    status: Mapped[Status] = mapped_column(server_default=Status.PENDING)
    reason: Mapped[str | None]
    """Why it failed."""
    finished_at: Mapped[datetime | None]
    traceparent: Mapped[str | None]
    """The trace of the request that made it, which the worker continues."""
