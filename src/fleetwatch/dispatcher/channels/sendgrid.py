"""Mail through SendGrid's v3 API, with the official client."""

from __future__ import annotations

import http.client
import json
import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from python_http_client.exceptions import HTTPError  # type: ignore[import-untyped]
from sendgrid import SendGridAPIClient  # type: ignore[import-untyped]
from sendgrid.helpers.mail import (  # type: ignore[import-untyped]
    Content,
    CustomArg,
    Email,
    From,
    Mail,
    Personalization,
)

from fleetwatch.dispatcher.channels import DeliveryError, Message
from fleetwatch.dispatcher.settings import DispatcherSettings

KEY = "fleetwatch_notification"
"""The custom argument that carries ``Message.key``; SendGrid returns it in its event webhook."""

_ACCEPTED = 202
_TRANSIENT_4XX = (408, 429)
_MAX_DETAIL = 300  # characters of an answer that are quoted


class SendGrid:
    """One mail to all recipients."""

    def __init__(self, settings: DispatcherSettings) -> None:
        """Take sender, recipients, key, host and time-out from the settings."""
        self._settings = settings

    def send(self, message: Message) -> str | None:
        """Deliver; see Channel."""
        # The client keeps state between calls, so each call has its own; it holds no connection.
        settings = self._settings
        api = SendGridAPIClient(settings.sendgrid_api_key.get_secret_value(), settings.sendgrid_host)
        api.client.timeout = settings.sendgrid_timeout
        try:
            response = api.send(self._mail(message))
        except HTTPError as error:
            status, headers = int(error.status_code), error.headers
            permanent = 400 <= status < 500 and status not in _TRANSIENT_4XX  # noqa: PLR2004 - HTTP's classes
            raise DeliveryError(
                f"SendGrid answered {status}: {_reason(error.body)}",
                permanent=permanent,
                retry_after=retry_after(headers or {}),
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise DeliveryError(f"SendGrid cannot be reached: {_describe(error)}") from error
        if response.status_code != _ACCEPTED:
            # For example a redirect to somebody's home page. It may have been taken, so do not repeat it.
            raise DeliveryError(
                f"SendGrid answered {response.status_code} where 202 was expected: check sendgrid_host",
                permanent=True,
            )
        message_id: str | None = response.headers.get("X-Message-Id")
        return message_id

    def _mail(self, message: Message) -> dict[str, object]:
        settings = self._settings
        mail = Mail(from_email=From(settings.sender, settings.sender_name), subject=message.subject)
        to = Personalization()
        for recipient in settings.recipients:
            to.add_to(Email(recipient))
        mail.add_personalization(to)
        mail.add_content(Content("text/plain", message.text))
        mail.add_content(Content("text/html", message.html))
        mail.add_custom_arg(CustomArg(KEY, message.key))
        body: dict[str, object] = mail.get()
        return body


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that an answer asks to wait: Retry-After, else X-RateLimit-Reset (epoch seconds)."""
    asked = headers.get("Retry-After") or ""
    if asked.isdecimal():
        return float(asked)
    reset = headers.get("X-RateLimit-Reset") or ""
    try:
        moment = parsedate_to_datetime(asked).timestamp() if asked else float(reset)
    except ValueError:
        return None
    return max(moment - time.time(), 0.0) if math.isfinite(moment) else None


def _reason(body: bytes) -> str:
    """Return the messages of SendGrid's error format, or the beginning of whatever came."""
    try:
        errors = json.loads(body)["errors"]
        text = "; ".join(
            f"{error['message']} ({error['field']})" if error.get("field") else str(error["message"])
            for error in errors
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        text = body.decode(errors="replace")
    return " ".join(text.split())[:_MAX_DETAIL] or "no reason given"


def _describe(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error) or type(error).__name__
