"""The dead man's switch: a dead Alertmanager is told of by the receiver, and no longer told of outside."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from support import READER, Fleet, wait_for
from testinfra.host import Host

from lab.alert import call

SUBJECT = "No heartbeat from Prometheus"


def heartbeats(fleet: Fleet) -> list[bool]:
    """Return whether each Watchdog is missing."""
    answer = call("GET", f"{fleet.urls.receiver}/api/v1/heartbeats", token=READER["password"])
    return [row["missing"] for row in answer["heartbeats"]]


def mails(fleet: Fleet, status: str) -> int:
    """Return how many mails said so."""
    return len([mail for mail in fleet.mails(SUBJECT) if status in mail["subject"]])


def taken_outside(fleet: Fleet) -> float:
    """Return how many heartbeats the dispatcher has posted outside."""
    metrics = fleet.host("receiver").check_output(
        f"curl --silent --fail {fleet.url('receiver', 5002)}/metrics"
    )
    found = re.search(r"^alert_dispatcher_heartbeats_sent_total (\S+)$", metrics, re.MULTILINE)
    assert found
    return float(found[1])


@pytest.fixture
def monitor(fleet: Fleet) -> Iterator[Host]:
    """Return the host of Alertmanager, which runs again after the test."""
    host = fleet.host("monitor")
    yield host
    host.check_output("systemctl start alertmanager")


def test_heartbeats_come_and_are_no_incident(fleet: Fleet) -> None:
    wait_for(lambda: heartbeats(fleet) == [False], 90)
    (age,) = wait_for(lambda: fleet.query("alert_receiver_heartbeat_age_seconds"))
    assert float(age["value"][1]) < 20
    url = f"{fleet.urls.receiver}/api/v1/incidents?label=alertname=Watchdog"
    assert call("GET", url, token=READER["password"])["incidents"] == []
    before = taken_outside(fleet)
    wait_for(lambda: taken_outside(fleet) > before, 30)


def test_a_dead_alertmanager_is_noticed_and_its_return(fleet: Fleet, monitor: Host) -> None:
    wait_for(lambda: heartbeats(fleet) == [False], 90)
    # One that was missed while the fleet was installed has been told of.
    wait_for(lambda: mails(fleet, "[CRITICAL]") == mails(fleet, "[RESOLVED]"))
    fired = resolved = mails(fleet, "[CRITICAL]")
    monitor.check_output("systemctl stop alertmanager")
    wait_for(lambda: mails(fleet, "[CRITICAL]") == fired + 1, 60)
    assert heartbeats(fleet) == [True]
    (incident,) = call(
        "GET",
        f"{fleet.urls.receiver}/api/v1/incidents?status=firing&label=alertname=WatchdogMissing",
        token=READER["password"],
    )["incidents"]
    assert incident["severity"] == "critical"
    before = taken_outside(fleet)
    time.sleep(5)
    assert taken_outside(fleet) == before, "the switch outside hears though the Watchdog is missing"
    monitor.check_output("systemctl start alertmanager")
    # Prometheus repeats its alerts each minute.
    wait_for(lambda: mails(fleet, "[RESOLVED]") == resolved + 1, 90)
    wait_for(lambda: taken_outside(fleet) > before, 30)
    assert mails(fleet, "[CRITICAL]") == fired + 1
