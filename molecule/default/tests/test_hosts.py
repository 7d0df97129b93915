"""Each host carries what its groups say, locked down."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from support import ROOT, SETTINGS, Fleet

RECEIVER = yaml.safe_load((ROOT / "molecule/default/host_vars/receiver.yml").read_text())
UNITS = {
    "monitor": [
        "prometheus",
        "alertmanager",
        "pushgateway",
        "metrics_api",
        "blackbox_exporter",
        "node_exporter",
    ],
    "receiver": ["alert_receiver", "alert_dispatcher", "lab_mailbox", "metrics_collector", "node_exporter"],
    "simulator": ["metrics_simulator", "node_exporter"],
    "shop": [
        "transactions-api@1",
        "transactions-api@2",
        "transactions-worker@1",
        "transactions-worker@2",
        "nginx",
        "postgresql@15-main",
        "redis-server",
        "postgres_exporter",
        "redis_exporter",
        "nginx_exporter",
        "node_exporter",
    ],
    "node1": ["node_exporter"],
}
USERS = {
    "alert_dispatcher": "alert_receiver",
    "nginx": "www-data",
    "postgresql@15-main": "postgres",
    "redis-server": "redis",
    **{unit: "transactions" for unit in UNITS["shop"] if unit.startswith("transactions-")},
}
"""Of the units whose user has another name."""
FOLDERS = {"redis-server": "redis", "transactions-api@1": "transactions"}
"""Of the units whose configuration is in a folder of another name."""
EVERY_UNIT = [(host, unit) for host, units in UNITS.items() for unit in units]
# systemd-analyze security, in tenths: 0 is best, 100 worst.
EXPOSURE_LIMIT = 20


def strings(value: Any) -> Iterator[str]:
    """Yield every text in nested settings."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize(("name", "unit"), EVERY_UNIT)
def test_unit_runs_as_its_own_user_in_a_sandbox(fleet: Fleet, name: str, unit: str) -> None:
    host = fleet.host(name)
    service = host.service(unit)
    assert service.is_running
    assert service.is_enabled
    properties = service.systemd_properties
    assert properties["NRestarts"] == "0"
    assert properties["User"] == USERS.get(unit, unit)
    analysis = host.run(f"systemd-analyze security --threshold={EXPOSURE_LIMIT} {unit}.service")
    assert analysis.rc == 0, analysis.stdout.splitlines()[-1]


@pytest.mark.parametrize("name", list(UNITS))
def test_no_unit_failed_and_no_package_started_its_own(fleet: Fleet, name: str) -> None:
    host = fleet.host(name)
    assert host.run("systemctl is-system-running").stdout.strip() == "running"
    processes = host.check_output("ps -eo args=")
    assert processes.count("node-exporter") == 1


@pytest.mark.parametrize("name", list(UNITS))
def test_configuration_is_not_for_everybody(fleet: Fleet, name: str) -> None:
    host = fleet.host(name)
    folders = " ".join(f"/etc/{FOLDERS.get(unit, unit)}" for unit in UNITS[name])
    readable = host.run(f"runuser -u nobody -- find {folders} -type f -readable")
    assert readable.stdout == ""


@pytest.mark.parametrize("name", list(UNITS))
def test_secrets_are_in_no_log(fleet: Fleet, name: str) -> None:
    journal = fleet.host(name).check_output("journalctl --no-pager --output=cat")
    secrets = [value for value in strings([SETTINGS, RECEIVER]) if "only-for-" in value]
    assert len(secrets) == 8
    assert not [secret for secret in secrets if secret.rpartition("/")[2] in journal]


def test_every_target_is_up_and_knows_its_host(fleet: Fleet) -> None:
    up = {
        (result["metric"]["job"], result["metric"]["host"]): result["value"][1]
        for result in fleet.query("up")
    }
    expected = (
        {("node_exporter", name) for name in UNITS}
        | {
            ("prometheus", "monitor"),
            ("alertmanager", "monitor"),
            ("pushgateway", "monitor"),
            ("alert_receiver", "receiver"),
            ("alert_dispatcher", "receiver"),
            ("lab_mailbox", "receiver"),
            ("metrics_simulator", "simulator"),
            ("metrics_collector", "receiver"),
            ("metrics_api", "monitor"),
            ("blackbox_exporter", "monitor"),
            ("transactions_api", "shop"),
            ("transactions_worker", "shop"),
            ("postgres_exporter", "shop"),
            ("redis_exporter", "shop"),
            ("nginx_exporter", "shop"),
        }
        | {("blackbox", name) for name in UNITS}
    )
    assert set(up) == expected
    assert set(up.values()) == {"1"}


def test_node_exporter_tells_of_systemd_and_textfiles(fleet: Fleet) -> None:
    host = fleet.host("node1")
    host.check_output("echo 'fleetwatch_test 1' > /var/lib/node_exporter/textfile/test.prom")
    metrics = host.check_output(f"curl --silent --fail {fleet.url('node1', 9100)}/metrics")
    host.check_output("rm /var/lib/node_exporter/textfile/test.prom")
    assert "\nfleetwatch_test 1" in metrics
    assert re.search(r'node_systemd_unit_state\{name="node_exporter.service",state="active".*\} 1', metrics)
    assert "node_systemd_service_restart_total" in metrics
    assert "node_timex_offset_seconds" in metrics
