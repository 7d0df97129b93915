from __future__ import annotations

import time
from decimal import Decimal

import pytest
from prometheus_client import CollectorRegistry

from fleetwatch.common import tracing
from fleetwatch.demo import gateway
from fleetwatch.demo.gateway import Gateway, GatewayError
from fleetwatch.demo.metrics import ApiMetrics
from fleetwatch.demo.settings import Settings
from tests.common.collector import run_collector

AMOUNT = Decimal("12.34")


def make(registry: CollectorRegistry, **settings: float) -> Gateway:
    return Gateway(Settings.model_validate({"payment_latency": 0, **settings}), ApiMetrics(registry))


def counted(registry: CollectorRegistry) -> dict[str, float | None]:
    outcomes = ("authorised", "declined", "error")
    return {
        one: registry.get_sample_value("transactions_payments_total", {"outcome": one}) for one in outcomes
    }


def test_a_payment_gets_an_id_of_its_own(registry: CollectorRegistry) -> None:
    found = make(registry, payment_decline_rate=0)
    one, other = found.authorise(AMOUNT, "EUR"), found.authorise(AMOUNT, "EUR")
    assert one
    assert other
    assert one != other
    assert counted(registry) == {"authorised": 2, "declined": 0, "error": 0}
    assert registry.get_sample_value("transactions_payment_duration_seconds_count") == 2


def test_as_many_are_declined_as_the_settings_say(registry: CollectorRegistry) -> None:
    found = make(registry, payment_decline_rate=0.25)
    for _ in range(2000):
        found.authorise(AMOUNT, "EUR")
    declined = counted(registry)["declined"]
    assert declined == pytest.approx(500, abs=150)  # more than seven standard deviations


def test_a_gateway_that_takes_too_long_is_an_error(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "TIMEOUT", 0.02)
    found = make(registry, payment_latency=10, latency_spread=0)
    began = time.monotonic()
    with pytest.raises(GatewayError, match="did not answer"):
        found.authorise(AMOUNT, "EUR")
    assert time.monotonic() - began < 9  # seconds: it was not waited for
    assert counted(registry) == {"authorised": 0, "declined": 0, "error": 1}


@pytest.mark.slow
def test_a_payment_is_a_span_that_says_what_became_of_it(registry: CollectorRegistry) -> None:
    with run_collector() as collector:
        tracing.setup("example", collector.url)
        make(registry, payment_decline_rate=1).authorise(AMOUNT, "EUR")
        tracing.shutdown()
    (span,) = collector.spans
    assert span.name == "authorise payment"
    assert span.attributes["payment.outcome"] == "declined"
    assert not span.failed  # the gateway did its work
