"""What the real Alertmanager's API says about incidents that it never told the end of."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from fleetwatch.store import Incident
from tests.common.services import free_port, wait_until
from tests.contract.alertmanager import Alertmanager
from tests.contract.conftest import Start
from tests.faults.provider import Provider
from tests.faults.stack import Stack

pytestmark = pytest.mark.slow

_GRACE = 2.0


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def settings(port: int) -> dict[str, Any]:
    """Ask the one Alertmanager, often."""
    return {
        "alertmanagers": [f"http://127.0.0.1:{port}"],
        "reconcile_interval": 0.3,
        "reconcile_grace": _GRACE,
    }


def _fire(am: Alertmanager, stack: Stack, provider: Provider, name: str = "A") -> Incident:
    am.fire(name)
    wait_until(lambda: (name, "firing") in provider.known)
    return _incident(stack, name)


def _incident(stack: Stack, name: str = "A") -> Incident:
    (incident,) = [each for each in stack.incidents() if each.labels["alertname"] == name]
    return incident


def _wait_suppressed(stack: Stack, how: str | None) -> None:
    wait_until(lambda: _incident(stack).silenced == how, what=str(how))


def test_a_silence_is_seen_and_its_end(start: Start, stack: Stack, provider: Provider, port: int) -> None:
    am = start(port=port)
    _fire(am, stack, provider)
    silence = am.silence("alertname=A")
    _wait_suppressed(stack, "silenced")
    am.amtool("silence", "expire", silence)
    _wait_suppressed(stack, None)
    assert _incident(stack).status == "firing"


def test_an_inhibition_is_seen(start: Start, stack: Stack, provider: Provider, port: int) -> None:
    rule = {"source_matchers": ["alertname=Source"], "target_matchers": ["alertname=A"]}
    am = start(port=port, config={"inhibit_rules": [rule]})
    _fire(am, stack, provider)
    am.fire("Source")
    _wait_suppressed(stack, "inhibited")


def test_an_end_that_a_silence_swallowed(start: Start, stack: Stack, provider: Provider, port: int) -> None:
    am = start(port=port)
    _fire(am, stack, provider)
    am.silence("alertname=A")
    _wait_suppressed(stack, "silenced")
    am.resolve("A")
    wait_until(lambda: ("A", "resolved") in provider.known)
    incident = _incident(stack)
    assert (incident.status, incident.resolved_by) == ("resolved", "reconciliation")
    assert am.delivered == 1, "Alertmanager told of the end itself"


def test_an_alert_that_fires_again_before_its_end_could_be_told(
    start: Start, stack: Stack, provider: Provider, port: int
) -> None:
    """Alertmanager takes it for the one that it told of: it would tell after its repeat_interval, an hour."""
    am = start(port=port)
    _fire(am, stack, provider)
    stack.receiver.terminate()
    am.resolve("A")
    # It tries for 10 seconds each time to tell of the end, as which it takes the alert until the next time.
    wait_until(lambda: am.metric("alertmanager_notifications_failed_total") >= 1)
    am.began = datetime.now(UTC)
    am.fire("A")
    wait_until(lambda: am.metric("alertmanager_notifications_failed_total") >= 2)
    stack.receiver.start()
    wait_until(lambda: stack.count() == 2, _GRACE * 3 + 10)
    wait_until(lambda: ("A", "resolved") in provider.known)
    before, after = stack.incidents()
    assert (before.status, before.resolved_by) == ("resolved", "reconciliation")
    assert (after.status, after.summary, after.labels) == ("firing", "A", before.labels)
    assert (after.receiver, after.external_url) == (before.receiver, before.external_url)
    stack.wait_delivered()
    assert [row[1] for row in stack.rows()] == ["firing", "resolved", "firing"]


def test_an_alert_that_a_restart_forgot(start: Start, stack: Stack, provider: Provider, port: int) -> None:
    am = start(port=port)
    _fire(am, stack, provider, "A")
    _fire(am, stack, provider, "Stays")
    am.kill()
    time.sleep(_GRACE + 1)
    assert _incident(stack).status == "firing", "nobody knows while Alertmanager is away"
    am.start()
    began = time.monotonic()
    am.fire("Stays")
    wait_until(lambda: _incident(stack).status == "resolved", _GRACE * 3 + 5)
    assert time.monotonic() - began > _GRACE, "Prometheus had no time to tell it again"
    wait_until(lambda: ("A", "resolved") in provider.known)
    assert _incident(stack, "Stays").status == "firing"
    assert provider.duplicates() == 0
