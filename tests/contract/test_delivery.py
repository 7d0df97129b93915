"""The real Alertmanager posts to the real receiver, in good times and bad."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from typing import Any

import pytest

from tests.common.services import free_port, wait_until
from tests.contract.alertmanager import Alertmanager
from tests.contract.conftest import Start
from tests.faults.provider import Provider
from tests.faults.stack import Stack

pytestmark = pytest.mark.slow

FAILED = "alertmanager_notification_requests_failed_total"
DUPLICATES = "alert_receiver_alerts_duplicate_total"


@pytest.fixture
def settings() -> dict[str, Any]:
    """Routes by Alertmanager's receiver."""
    return {
        "routes": [
            {"name": "known", "receivers": ["fleetwatch", "web.hook"], "channels": ["hook"]},
            {"name": "unknown", "channels": []},
        ]
    }


def _wait_told(provider: Provider, *told: tuple[str, str]) -> None:
    wait_until(lambda: provider.known >= set(told), what=f"told: {told}")


def _check(stack: Stack, provider: Provider, *told: tuple[str, str]) -> None:
    """Check that this was told, each once, and nothing else; each alert is one incident."""
    stack.wait_delivered()
    assert provider.told() == dict.fromkeys(told, 1)
    assert len(stack.incidents()) == len({name for name, _ in told})


def test_fires_and_resolves(start: Start, stack: Stack, provider: Provider) -> None:
    am = start()
    am.fire("A")
    _wait_told(provider, ("A", "firing"))
    am.resolve("A")
    _wait_told(provider, ("A", "resolved"))
    _check(stack, provider, ("A", "firing"), ("A", "resolved"))
    (incident,) = stack.incidents()
    assert (incident.status, incident.resolved_by) == ("resolved", None)
    assert incident.external_url


def test_two_that_deliver_the_same_make_one_incident(start: Start, stack: Stack, provider: Provider) -> None:
    pair = [start("am1"), start("am2")]  # which do not know each other, so both deliver
    for delivered, tell in ((1, Alertmanager.fire), (2, Alertmanager.resolve)):
        for am in pair:
            tell(am, "A")
        wait_until(lambda wanted=delivered: [am.delivered for am in pair] == [wanted] * 2)  # type: ignore[misc]
    _wait_told(provider, ("A", "firing"), ("A", "resolved"))
    _check(stack, provider, ("A", "firing"), ("A", "resolved"))
    assert stack.metric(DUPLICATES) == 2


def test_a_cluster_of_which_one_dies(start: Start, stack: Stack, provider: Provider) -> None:
    ports = [free_port(), free_port()]
    cluster = [
        start(f"am{number}", peers=ports, cluster_port=port) for number, port in enumerate(ports, start=1)
    ]
    wait_until(lambda: all(am.members == 2 for am in cluster), what="they found each other")
    for am in cluster:
        am.fire("A")
    _wait_told(provider, ("A", "firing"))
    cluster[0].kill()
    cluster[1].resolve("A")
    _wait_told(provider, ("A", "resolved"))
    _check(stack, provider, ("A", "firing"), ("A", "resolved"))


def test_a_redelivery_after_a_time_out_tells_nothing_new(
    start: Start, stack: Stack, provider: Provider
) -> None:
    am = start()
    process = stack.receiver.service.process
    assert process is not None
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        am.fire("A")
        # It waits for 10 seconds, and gives up.
        wait_until(lambda: am.metric("alertmanager_notifications_failed_total"), what="it has timed out")
        wait_until(lambda: am.metric("alertmanager_notification_requests_total") >= 2)
    finally:
        os.killpg(process.pid, signal.SIGCONT)
    _wait_told(provider, ("A", "firing"))
    wait_until(lambda: stack.metric(DUPLICATES), what="it came twice")
    _check(stack, provider, ("A", "firing"))


def test_a_receiver_that_is_down_gets_it_later(start: Start, stack: Stack, provider: Provider) -> None:
    assert stack.receiver.terminate() == 0
    am = start()
    am.fire("A")
    wait_until(lambda: am.metric(FAILED) >= 3, what="it tries in vain")
    stack.receiver.start()
    _wait_told(provider, ("A", "firing"))
    _check(stack, provider, ("A", "firing"))


def test_a_receiver_that_is_killed_in_the_middle(start: Start, stack: Stack, provider: Provider) -> None:
    am = start()
    names = [f"A{number}" for number in range(900)]
    for start_at in (0, 300, 600):
        am.fire(*names[start_at : start_at + 300])  # each is a group, and so a request, of its own
        wait_until(lambda wanted=start_at: stack.count() > wanted)  # type: ignore[misc]
        stack.receiver.kill()
    _wait_told(provider, *((name, "firing") for name in names))
    assert am.metric(FAILED) > 0
    _check(stack, provider, *((name, "firing") for name in names))


def test_503_is_tried_again(start: Start, stack: Stack, provider: Provider) -> None:
    am = start()
    database = sqlite3.connect(stack.config["database_url"].removeprefix("sqlite:///"), isolation_level=None)
    database.execute("BEGIN IMMEDIATE")  # now nobody else can write
    am.fire("A")
    wait_until(lambda: am.metric(FAILED), what="503")
    assert stack.metric("alert_receiver_commit_failures_total") >= 1
    assert stack.incidents() == []
    database.execute("ROLLBACK")
    database.close()
    _wait_told(provider, ("A", "firing"))
    _check(stack, provider, ("A", "firing"))


def test_what_max_alerts_leaves_of_a_group_is_taken(start: Start, stack: Stack, provider: Provider) -> None:
    am = start(group_by=["severity"], webhook={"max_alerts": 2})
    am.fire("A", "B", "C", "D", "E")
    wait_until(lambda: len(provider.known) == 2)
    stack.wait_delivered()
    assert am.metric(FAILED) == 0
    assert len(stack.incidents()) == len(provider.known) == 2


def test_the_name_of_its_receiver_comes_unescaped(start: Start, stack: Stack, provider: Provider) -> None:
    start("am1", receiver="web.hook").fire("A")
    start("am2", receiver="webxhook").fire("B")
    wait_until(lambda: len(stack.incidents()) == 2)
    assert {incident.receiver for incident in stack.incidents()} == {"web.hook", "webxhook"}
    stack.wait_delivered()
    assert provider.known == {("A", "firing")}


def test_a_wrong_token_is_a_failure_at_once(start: Start, stack: Stack, provider: Provider) -> None:
    am = start(token="wrong")  # noqa: S106 - of the test
    am.fire("A")
    time.sleep(4)
    failed = am.metric("alertmanager_notifications_failed_total")
    # Offered once in each group_interval, and not again and again in between.
    assert 1 <= failed <= 5
    assert am.metric("alertmanager_notification_requests_total") <= failed + 1
    assert stack.incidents() == []
    assert "401" in (am.directory / "log").read_text()
