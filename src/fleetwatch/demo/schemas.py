"""What the API takes and answers: models that check, form and describe it."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

from fleetwatch.common.web import Query
from fleetwatch.demo.models import Currency, Status, Transaction

LARGEST_PAGE = 100
KEY = r"^[!-~]{1,128}$"
"""An idempotency key."""

_AMOUNT = r"^(?!0+(\.0+)?$)[0-9]{1,6}(\.[0-9]{1,2})?$"
_REFERENCE = r"^[^\u0000-\u001f\u007f]{1,140}$"


def _amount(value: object) -> Decimal:
    if not isinstance(value, str) or not re.fullmatch(_AMOUNT, value):
        raise ValueError('must be a string such as "12.34", from "0.01" to "999999.99"')
    return Decimal(value)


def _cursor(value: object) -> Cursor:
    try:
        time, _, id_ = base64.urlsafe_b64decode(str(value).encode()).decode().partition(" ")
        found = Cursor(time=datetime.fromisoformat(time), id=UUID(id_))
    except (ValueError, binascii.Error):
        raise ValueError("is not one that an answer gave as next_cursor") from None
    if found.time.tzinfo is None:
        raise ValueError("is not one that an answer gave as next_cursor")
    return found


Amount = Annotated[
    Decimal,
    BeforeValidator(_amount),
    PlainSerializer(lambda value: f"{value:.2f}", return_type=str),
    WithJsonSchema({"type": "string", "pattern": _AMOUNT, "examples": ["12.34"]}),
]
"""A string, since a number of JSON is often read as binary fraction."""


class Cursor(BaseModel):
    """Where a page ended."""

    time: datetime
    id: UUID

    def __str__(self) -> str:
        """Return it as callers get it; they need not know what is in it."""
        return base64.urlsafe_b64encode(f"{self.time.isoformat()} {self.id}".encode()).decode()


class PageQuery(Query):
    """Which transactions."""

    limit: int = Field(20, ge=1, le=LARGEST_PAGE, description="Most transactions in the answer")
    cursor: Annotated[Cursor, BeforeValidator(_cursor), WithJsonSchema({"type": "string"})] | None = Field(
        None, description="`next_cursor` of an answer, to go on from there"
    )
    status: Status | None = Field(None, description="Only transactions of this status")


class NewTransaction(BaseModel):
    """An amount to be paid."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    amount: Amount
    currency: Currency
    reference: str | None = Field(
        None, pattern=_REFERENCE, description="What the caller calls it; no control characters"
    )

    def is_that_of(self, transaction: Transaction) -> bool:
        """Tell whether a transaction was made of the same request."""
        return (self.amount, self.currency, self.reference) == (
            transaction.amount,
            transaction.currency,
            transaction.reference,
        )


class Answer(BaseModel):
    """Base of answers."""

    model_config = ConfigDict(
        extra="forbid", from_attributes=True, json_schema_serialization_defaults_required=True
    )


class TransactionAnswer(Answer):
    """A transaction."""

    id: UUID
    status: Status = Field(description="`pending` until a worker has completed or failed it")
    amount: Annotated[
        Decimal,
        PlainSerializer(lambda value: f"{value:.2f}", return_type=str),
        WithJsonSchema({"type": "string", "pattern": _AMOUNT}),
    ]
    currency: Currency
    reference: str | None
    reason: str | None = Field(description="Why it failed")
    created_at: datetime
    finished_at: datetime | None


class PageAnswer(Answer):
    """Transactions, the newest first."""

    transactions: list[TransactionAnswer]
    next_cursor: str | None = Field(description="For the next page; null when this is the last one")


class HealthAnswer(Answer):
    """Whether the service can do its work. It can without cache and queue."""

    status: Literal["ok", "degraded", "unavailable"]
    database: Literal["up", "down"]
    cache: Literal["up", "down", "off"]
    queue: Literal["up", "down", "off"]


class Problem(Answer):
    """Why a request was not done, as RFC 9457 has it."""

    type: Literal["about:blank"] = "about:blank"
    title: str = Field(examples=["Bad Request"])
    status: int = Field(examples=[400])
    detail: str
    trace_id: str = Field(description="By which the logs of the request can be found")
