"""A VM that is rebooted comes back by itself, in an order that makes sense, with all its data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from testinfra.host import Host

from lab.alert import call
from tests.vagrant.conftest import Vm
from tests.vagrant.support import (
    PATIENCE,
    UNITS,
    AlertPath,
    boot_id,
    new_name,
    properties,
    wait_for,
)

PUSHED = "fleetwatch_test_kept"


@dataclass(frozen=True)
class Reboot:
    """A reboot that is over, and what there was before it."""

    name: str
    host: Host
    boot_before: str
    incident: str
    """Name of an alert that was accepted and mailed."""
    silence: str
    """Id of a silence for longer than the tests take."""
    samples: str
    """Query for samples from before."""
    count: float
    """Its value then."""


@pytest.fixture(scope="module", params=list(UNITS))
def reboot(request: pytest.FixtureRequest, path: AlertPath) -> Iterator[Reboot]:
    """Leave traces, and reboot a VM."""
    vm: Vm = request.getfixturevalue("vm")(request.param)
    name = new_name()
    path.post(name)
    wait_for(lambda: path.mails(name), PATIENCE)
    silence = silenced(path, name)
    request.getfixturevalue("monitor").check_output(
        f"echo '{PUSHED} 42' | curl --silent --fail --data-binary @- http://127.0.0.1:9091/metrics/job/{PUSHED}"
    )
    samples = f'count_over_time(up{{job="prometheus"}}[5m] @ {path.now("vector(time())") - 30})'
    done = Reboot(request.param, vm.host, vm.boot_id, name, silence, samples, path.now(samples))
    try:
        vm.reboot()
        yield done
    finally:
        call("DELETE", f"{path.urls.alertmanager}/api/v2/silence/{silence}")
        request.getfixturevalue("monitor").check_output(
            f"curl --silent --fail -X DELETE http://127.0.0.1:9091/metrics/job/{PUSHED}"
        )


def silenced(path: AlertPath, alert: str) -> str:
    """Silence an alert and return the silence's id."""
    now = datetime.now(UTC)
    silence = {
        "matchers": [{"name": "alertname", "value": f"{alert}Silenced", "isRegex": False}],
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(hours=6)).isoformat(),
        "createdBy": "tests",
        "comment": "kept over a reboot",
    }
    answer = call("POST", f"{path.urls.alertmanager}/api/v2/silences", silence)
    return str(answer["silenceID"])


def test_all_is_up_again_without_a_hand(reboot: Reboot, path: AlertPath) -> None:
    assert boot_id(reboot.host) != reboot.boot_before
    assert reboot.host.run("systemctl is-system-running --wait").stdout.strip() == "running"
    assert reboot.host.check_output("systemctl --failed --no-legend") == ""
    wait_for(path.all_up, PATIENCE)
    for unit in UNITS[reboot.name]:
        found = properties(reboot.host, unit, "ActiveState", "NRestarts", "UnitFileState")
        assert found == {"ActiveState": "active", "NRestarts": "0", "UnitFileState": "enabled"}, unit


def test_units_start_in_order(reboot: Reboot) -> None:
    """Not before there is a network, and who sends messages after who takes alerts."""

    def entered(unit: str, moment: str) -> int:
        name = f"{moment}TimestampMonotonic"
        return int(properties(reboot.host, unit, name)[name])

    network = entered("network-online.target", "ActiveEnter")
    assert network > 0, "nothing waited for the network"
    for unit in UNITS[reboot.name]:
        assert entered(unit, "InactiveExit") >= network, f"{unit} started before the network was there"
    if "alert_dispatcher" in UNITS[reboot.name]:
        assert entered("alert_dispatcher", "InactiveExit") >= entered("alert_receiver", "ActiveEnter")


def test_data_from_before_is_there(reboot: Reboot, path: AlertPath) -> None:
    wait_for(lambda: path.value(reboot.samples) == reboot.count > 0, PATIENCE)
    assert [found["labels"]["alertname"] for found in path.incidents(reboot.incident)] == [reboot.incident]
    assert len(path.mails(reboot.incident)) == 1
    (state,) = [
        silence["status"]["state"]
        for silence in call("GET", f"{path.urls.alertmanager}/api/v2/silences")
        if silence["id"] == reboot.silence
    ]
    assert state == "active"
    wait_for(lambda: path.value(PUSHED) == 42, PATIENCE)


def test_the_reboot_is_noticed(reboot: Reboot, path: AlertPath) -> None:
    """By the time of the start, which in a container is that of the machine below."""
    wait_for(lambda: path.fires("NodeRebooted", reboot.name), PATIENCE)
    wait_for(lambda: path.incidents("NodeRebooted", "firing", host=reboot.name), PATIENCE)
