"""Channels: one module for each way to deliver a notification.

A channel names the templates it needs and has a ``send`` that either delivers and returns, or raises
``DeliveryError``. It neither retries nor waits: when to try again is decided in one place,
``fleetwatch.dispatcher.retry``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from fleetwatch.dispatcher.settings import DispatcherSettings


@dataclass(frozen=True)
class Message:
    """A rendered notification, or several in one."""

    key: str
    """Names what is told, the same in each attempt, so that a repeated delivery can be recognised."""
    parts: Mapping[str, str]
    """Template name to rendered text, for each template that the channel asked for."""
    traceparent: str | None = None
    """W3C trace context to hand on, if there is one."""


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

    templates: ClassVar[tuple[str, ...]]
    """The templates it needs, such as ``mail.html``; the files are named so with ``.j2`` at the end."""

    def send(self, message: Message) -> str | None:
        """Deliver; return what the provider calls the message, if anything. Raise DeliveryError.

        Called from several threads at once.
        """


def build(settings: DispatcherSettings) -> dict[str, Channel]:
    """Return all channels that the settings configure, by their names."""
    # Imported here, since these modules import this one, and so that only what is used costs memory.
    from fleetwatch.dispatcher.channels.sendgrid import SendGrid  # noqa: PLC0415

    return {
        channel.name: SendGrid(channel, settings.secret(channel.name, "api_key") or "")
        for channel in settings.channels
        if channel.type == "sendgrid"
    }
