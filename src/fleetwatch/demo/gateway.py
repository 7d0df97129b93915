"""A payment gateway that is not there: it takes its time, and declines some payments, as the settings say."""

from __future__ import annotations

import random
import secrets
import time
from decimal import Decimal

from fleetwatch.common import tracing
from fleetwatch.demo.behaviour import lognormal
from fleetwatch.demo.metrics import ApiMetrics
from fleetwatch.demo.settings import Settings

TIMEOUT = 5.0
"""Seconds that a payment may take."""


class GatewayError(Exception):
    """The gateway does not answer in time."""


class Gateway:
    """Authorises payments."""

    def __init__(self, settings: Settings, metrics: ApiMetrics) -> None:
        """Take the settings ``payment_latency`` and ``payment_decline_rate``."""
        self._settings = settings
        self._metrics = metrics

    def authorise(self, amount: Decimal, currency: str) -> str | None:
        """Return the gateway's id of the payment, ``None`` when it declines; raise GatewayError."""
        began = time.monotonic()
        outcome = "error"
        with tracing.span("authorise payment", kind="client") as span:
            span.set_attribute("peer.service", "payment-gateway")
            span.set_attribute("payment.amount", str(amount))
            span.set_attribute("payment.currency", currency)
            try:
                payment = self._ask()
                outcome = "declined" if payment is None else "authorised"
                return payment
            finally:
                span.set_attribute("payment.outcome", outcome)
                self._metrics.payments.labels(outcome).inc()
                self._metrics.payment_seconds.observe(time.monotonic() - began)

    def _ask(self) -> str | None:
        seconds = lognormal(self._settings.payment_latency, self._settings.latency_spread)
        time.sleep(min(seconds, TIMEOUT))
        if seconds > TIMEOUT:
            raise GatewayError(f"the payment gateway did not answer within {TIMEOUT:g} seconds")
        if random.random() < self._settings.payment_decline_rate:  # noqa: S311 - no secret
            return None
        return f"pay_{secrets.token_hex(12)}"
