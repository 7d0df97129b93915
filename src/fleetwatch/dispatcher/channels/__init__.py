"""Channels: one module for each way to deliver a notification.

A channel names the templates it needs and has a ``send`` that either delivers and returns, or raises
``DeliveryError``. It neither retries nor waits: when to try again is decided in one place,
``fleetwatch.dispatcher.retry``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar, Protocol
from urllib.parse import quote

if TYPE_CHECKING:
    from fleetwatch.alerting.channels import AnyChannel
    from fleetwatch.dispatcher.settings import DispatcherSettings

ATTEMPT = 1.5
"""Time-outs of the channel after which an attempt ends, whatever comes: before the lease, which is two."""


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


def header_value(text: str) -> str:
    """Return a text from outside so that any header can carry it; plain ASCII words stay as they are."""
    return quote(text, safe="/:+@,;=~")


def build(settings: DispatcherSettings) -> dict[str, Channel]:
    """Return all channels that the settings configure, by their names."""
    return {channel.name: _build(channel, settings) for channel in settings.channels}


def _build(channel: AnyChannel, settings: DispatcherSettings) -> Channel:
    # Imported here, since these modules import this one, and so that only what is used costs memory.
    def secret(name: str) -> str:
        return settings.secret(channel.name, name) or ""

    match channel.type:
        case "sendgrid":
            # Its check of SendGrid's own webhooks, never used here, would load 7 MB of cryptography.
            unused = "sendgrid.helpers.eventwebhook"
            sys.modules.setdefault(unused, ModuleType(unused))
            from fleetwatch.dispatcher.channels.sendgrid import SendGrid  # noqa: PLC0415

            return SendGrid(channel, secret("api_key"))
        case "smtp":
            from fleetwatch.dispatcher.channels.smtp import Smtp  # noqa: PLC0415

            return Smtp(channel, secret("password"))
        case "slack":
            from fleetwatch.dispatcher.channels.slack import Slack  # noqa: PLC0415

            return Slack(channel, secret("url"))
        case "webhook":
            from fleetwatch.dispatcher.channels.webhook import Webhook  # noqa: PLC0415

            return Webhook(channel, secret("token"), secret("hmac_key"))
        case "twilio":
            from fleetwatch.dispatcher.channels.twilio import Twilio  # noqa: PLC0415

            return Twilio(channel, secret("auth_token"))
