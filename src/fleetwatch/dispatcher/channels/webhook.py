"""A JSON document posted to any URL; any 2xx is success.

With the secret ``hmac_key`` each request is signed: HMAC-SHA256 over the timestamp, a dot and the body, as
GitHub, Slack and Stripe do. A receiver in Python checks it so::

    timestamp = request.headers["X-Fleetwatch-Timestamp"]
    signed = timestamp.encode() + b"." + request.get_data()
    expected = "sha256=" + hmac.new(key, signed, "sha256").hexdigest()
    genuine = hmac.compare_digest(expected, request.headers["X-Fleetwatch-Signature"])
    fresh = abs(time.time() - int(timestamp)) < 300  # an old request, recorded, is not played again

``Idempotency-Key`` is the same in each attempt, so that a receiver can drop what it already has.
"""

from __future__ import annotations

import hmac
import re
import time
from typing import ClassVar

from urllib3 import HTTPHeaderDict

from fleetwatch.alerting.channels import WebhookSettings
from fleetwatch.dispatcher.channels import Message, header_value
from fleetwatch.dispatcher.channels.http import Client, json_part

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Webhook:
    """Posts a JSON document."""

    templates: ClassVar[tuple[str, ...]] = ("webhook.json",)

    def __init__(
        self, settings: WebhookSettings, token: str | None = None, hmac_key: str | None = None
    ) -> None:
        """Set where to post.

        token: the bearer token to send.
        hmac_key: the key to sign with.
        """
        self._settings = settings
        self._token = token
        self._hmac_key = hmac_key
        self._client = Client(
            "The webhook",
            settings.timeout,
            secrets=[token or "", hmac_key or ""],
            allowed_networks=settings.allowed_networks,
        )

    def send(self, message: Message) -> str | None:
        """Deliver; see Channel. The message has no name there."""
        body = json_part(message, "webhook.json")
        answer = self._client.post(self._settings.url, body, self._headers(message, body))
        if not answer.ok:
            raise self._client.error(answer)
        return None

    def _headers(self, message: Message, body: bytes) -> HTTPHeaderDict:
        headers = HTTPHeaderDict({"User-Agent": "Fleetwatch"})
        # One by one, so that a name in another case replaces, and what this program says comes last.
        for name, value in self._settings.headers.items():
            headers[name] = value
        headers["Content-Type"] = "application/json"
        headers["Idempotency-Key"] = header_value(message.key)
        if message.traceparent and _TRACEPARENT.fullmatch(message.traceparent):
            headers["traceparent"] = message.traceparent
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if self._hmac_key:
            timestamp = str(int(time.time()))
            signed = timestamp.encode() + b"." + body
            headers["X-Fleetwatch-Timestamp"] = timestamp
            headers["X-Fleetwatch-Signature"] = (
                "sha256=" + hmac.new(self._hmac_key.encode(), signed, "sha256").hexdigest()
            )
        return headers
