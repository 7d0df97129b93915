"""Channels: one module for each way to deliver a notification.

A channel has a ``send`` that either delivers and returns, or raises ``DeliveryError``. It neither retries
nor waits: when to try again is decided in one place, ``fleetwatch.dispatcher.retry``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fleetwatch.dispatcher.settings import DispatcherSettings


@dataclass(frozen=True)
class Message:
    """A rendered notification."""

    key: str
    """Names the transition, the same in each attempt, so that a repeated delivery can be recognised."""
    subject: str
    text: str
    html: str


class DeliveryError(Exception):
    """The message was not delivered, as far as is known."""

    def __init__(self, message: str, *, permanent: bool = False, retry_after: float | None = None) -> None:
        """Say why.

        permanent: trying again cannot help.
        retry_after: seconds the provider asks to wait, if it does.
        """
        super().__init__(message)
        self.permanent = permanent
        self.retry_after = retry_after


class Channel(Protocol):
    """A way to deliver."""

    def send(self, message: Message) -> str | None:
        """Deliver; return what the provider calls the message, if anything. Raise DeliveryError."""


def build(settings: DispatcherSettings) -> dict[str, Channel]:
    """Return all channels that the settings configure, by the name that stands in the outbox."""
    from fleetwatch.dispatcher.channels.sendgrid import SendGrid  # noqa: PLC0415 - it imports this module

    return {"sendgrid": SendGrid(settings)}
