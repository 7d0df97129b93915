"""A silence keeps messages back, an upgrade makes one, and both go again."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support import Fleet, Run, wait_for

from lab.alert import call

SILENCE = "playbooks/silence.yml"
ASKED_FOR = {"silence_hosts": "node1", "silence_duration": "10m", "silence_comment": "tests of silences"}


def fire(fleet: Fleet, host: str) -> str:
    """Give Alertmanager an alert of a host, which ends by itself, and return its name."""
    name = f"Test{uuid.uuid4().hex[:12]}"
    ends = datetime.now(UTC) + timedelta(minutes=2)
    labels = {"alertname": name, "host": host, "severity": "critical"}
    alert = {"labels": labels, "annotations": {"summary": name}, "endsAt": ends.isoformat()}
    call("POST", f"{fleet.urls.alertmanager}/api/v2/alerts", [alert])
    return name


def silences(fleet: Fleet) -> list[dict[str, Any]]:
    """Return the silences that are active."""
    found = call("GET", f"{fleet.urls.alertmanager}/api/v2/silences")
    return [silence for silence in found if silence["status"]["state"] == "active"]


def end(fleet: Fleet) -> Run:
    return fleet.play_with({"silence_state": "absent", "silence_hosts": "node1"}, playbook=SILENCE)


@pytest.fixture
def silenced(fleet: Fleet) -> Iterator[Run]:
    """Silence node1 during a test."""
    yield fleet.play_with(ASKED_FOR, playbook=SILENCE)
    assert end(fleet).code == 0


def test_messages_about_a_silenced_host_wait_until_the_silence_ends(fleet: Fleet, silenced: Run) -> None:
    assert silenced.code == 0, silenced.output
    assert sum(silenced.changed.values()) == 1
    again = fleet.play_with(ASKED_FOR, playbook=SILENCE)
    assert (again.code, sum(again.changed.values()), len(silences(fleet))) == (0, 0, 1), again.output

    quiet, loud = fire(fleet, "node1"), fire(fleet, "receiver")
    wait_for(lambda: fleet.mails(loud))
    assert fleet.mails(quiet) == []

    ended = end(fleet)
    assert (ended.code, sum(ended.changed.values()), silences(fleet)) == (0, 1, [])
    wait_for(lambda: fleet.mails(quiet))


def test_a_silence_in_check_mode_is_none(fleet: Fleet) -> None:
    run = fleet.play_with(ASKED_FOR, "--check", "--diff", playbook=SILENCE)
    assert run.code == 0, run.output
    assert "tests of silences" in run.output
    assert silences(fleet) == []


def test_an_upgrade_silences_the_hosts_of_its_limit_and_then_no_more(fleet: Fleet) -> None:
    """The Alertmanager is asked although its host is outside of the limit."""
    run = fleet.play("--limit", "node1", playbook="playbooks/upgrade.yml")
    assert run.code == 0, run.error
    assert "Silenced until" in run.output
    assert "STATE" in run.output, "verify.yml has run"
    assert silences(fleet) == []
    found = call("GET", f"{fleet.urls.alertmanager}/api/v2/silences")
    hosts = {
        matcher["value"]
        for silence in found
        if silence["comment"] == "upgrade"
        for matcher in silence["matchers"]
        if matcher["name"] == "host"
    }
    assert hosts == {"node1"}
