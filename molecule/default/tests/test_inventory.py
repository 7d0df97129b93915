"""The inventory is the only truth: hosts come and go with it, and mistakes in it are found first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import TOKENS, Fleet, wait_for

from lab.alert import Plan, call, follow

ADDED_HOST: dict[str, Any] = {"node_exporter": {"hosts": {"node2": {}}}}


def inventory(folder: Path, content: dict[str, Any]) -> Path:
    """Write an inventory to use after the scenario's own."""
    path = folder / "more.yml"
    path.write_text(yaml.safe_dump(content))
    return path


def last_reload(fleet: Fleet) -> str:
    return str(fleet.query("prometheus_config_last_reload_success_timestamp_seconds")[0]["value"][1])


def test_host_comes_under_watch_and_goes_again(fleet: Fleet, tmp_path: Path) -> None:
    up = 'up{job="node_exporter",host="node2"}'
    assert fleet.query(up) == []
    reload_before = last_reload(fleet)

    run = fleet.play(inventory=inventory(tmp_path, ADDED_HOST))
    assert run.code == 0, run.error
    assert {host for host, changed in run.changed.items() if changed} == {"monitor", "node2"}
    wait_for(lambda: [result["value"][1] for result in fleet.query(up)] == ["1"])

    run = fleet.play()
    assert run.code == 0, run.error
    assert {host for host, changed in run.changed.items() if changed} == {"monitor"}
    wait_for(lambda: fleet.query(up) == [])
    assert last_reload(fleet) == reload_before, "targets change without a reload"


def test_host_can_be_left_out_and_served_elsewhere(fleet: Fleet, tmp_path: Path) -> None:
    labels = {
        "node_exporter": {"hosts": {"node1": {"node_exporter_scrape": False}}},
        "berlin": {"hosts": {"monitor": {}}},
        "all": {"vars": {"fleetwatch_target_labels": {"site": ["berlin"]}}},
    }
    assert fleet.play("--limit", "monitor", inventory=inventory(tmp_path, labels)).code == 0
    wait_for(lambda: fleet.query('up{job="node_exporter",host="node1"}') == [])
    wait_for(lambda: fleet.query('up{job="node_exporter",host="monitor",site="berlin"}'))
    assert fleet.play("--limit", "monitor").code == 0
    wait_for(lambda: fleet.query('up{job="node_exporter",host="node1"}'))


def test_converged_fleet_passes_a_check_run(fleet: Fleet) -> None:
    run = fleet.play("--check", "--diff")
    assert run.code == 0, run.error
    assert set(run.changed.values()) == {0}


def test_what_a_site_may_add_makes_valid_configurations(fleet: Fleet) -> None:
    """Promtool and amtool check the new files in check mode too."""
    site = {
        "prometheus_external_labels": {"region": "eu"},
        "prometheus_retention_size": "5GB",
        "prometheus_remote_write": [{"url": "http://127.0.0.1:1/write", "queue_config": {"capacity": 100}}],
        "prometheus_extra_scrape_configs": [
            {"job_name": "site", "static_configs": [{"targets": ["a:1"], "labels": {"x": "y"}}]},
            {"job_name": "other", "scheme": "https", "static_configs": [{"targets": ["b:1"]}]},
        ],
        "alertmanager_global": {"resolve_timeout": "10m"},
        "alertmanager_extra_routes": [
            {"receiver": "db", "matchers": ['team = "db"'], "mute_time_intervals": ["nights"]}
        ],
        "alertmanager_extra_receivers": [
            {"name": "db", "webhook_configs": [{"url": "http://127.0.0.1:1/", "send_resolved": False}]}
        ],
        "alertmanager_extra_inhibit_rules": [
            {"source_matchers": ["a = b"], "target_matchers": ["c = d"], "equal": ["host"]}
        ],
        "alertmanager_time_intervals": [
            {"name": "nights", "time_intervals": [{"times": [{"start_time": "22:00", "end_time": "24:00"}]}]}
        ],
    }
    run = fleet.play_with(site, "--check", "--diff", "--limit", "monitor")
    assert run.code == 0, run.error
    for words in ("region: eu", "job_name: other", "capacity: 100", "--storage.tsdb.retention.size=5GB"):
        assert words in run.output


@pytest.fixture
def pair(fleet: Fleet, tmp_path: Path) -> Iterator[Path]:
    """Return an inventory with a second Prometheus and Alertmanager on node2; they go after the test."""
    groups = ("node_exporter", "prometheus", "alertmanager")
    yield inventory(tmp_path, {group: {"hosts": {"node2": {}}} for group in groups})
    assert fleet.play().code == 0
    fleet.host("node2").check_output("systemctl disable --now prometheus alertmanager node_exporter")
    wait_for(lambda: len(fleet.query("up == 1")) == len(fleet.query("up")) > 0, 180)


def active_alertmanagers(fleet: Fleet, host: str) -> set[str]:
    """Return where the Prometheus of a host sends its alerts."""
    answer = call("GET", f"{fleet.url(host, 9090)}/api/v1/alertmanagers")
    return {manager["url"].split("/")[2] for manager in answer["data"]["activeAlertmanagers"]}


def test_two_in_a_group_are_a_pair(fleet: Fleet, pair: Path) -> None:
    """An alert that both Prometheus servers see and both Alertmanagers have is one incident and one mail."""
    run = fleet.play(inventory=pair)
    assert run.code == 0, run.error
    both = {"monitor:9093", "node2:9093"}
    wait_for(lambda: all(active_alertmanagers(fleet, host) == both for host in ("monitor", "node2")), 180)
    status = f"{fleet.urls.alertmanager}/api/v2/status"
    wait_for(lambda: len(call("GET", status)["cluster"]["peers"]) == 2, 180)

    follow(fleet.urls, TOKENS, Plan(host="sim-db-01", patience=4))
    assert len(fleet.mails("sim-db-01")) == 2, "one mail for its begin and one for its end"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"all": {"vars": {"prometheus_port": "ninety"}}}, ["prometheus_port", "monitor"]),
        (
            {"all": {"vars": {"alertmanager_install_method": "magic"}}},
            ["alertmanager_install_method", "package"],
        ),
        (
            {"all": {"vars": {"prometheus_retention_tim": "1d"}}},
            ["prometheus_retention_tim", "retention_time"],
        ),
        ({"prometheus": {"hosts": {"node2": {}}}}, ["node2", "node_exporter"]),
        (
            {group: {"hosts": {"node1": {}}} for group in ("alert_receiver", "node_exporter")},
            ["alert_receiver_database_url", "hosts receiver, node1", "PostgreSQL"],
        ),
        ({"all": {"hosts": {"node1": {"fleetwatch_address": "monitor"}}}}, ["node1", "monitor"]),
        (
            {"all": {"hosts": {"receiver": {"alert_receiver_sendgrid_api_key": None}}}},
            ["alert_receiver_sendgrid_api_key", "is empty"],
        ),
    ],
)
def test_mistake_is_found_before_any_host_is_touched(
    fleet: Fleet, tmp_path: Path, content: dict[str, Any], words: list[str]
) -> None:
    run = fleet.play(inventory=inventory(tmp_path, content))
    assert run.code != 0
    for word in words:
        assert word in run.output
    assert "Check the hosts" not in run.output, "a host was contacted"


def test_verify_finds_all_well(fleet: Fleet) -> None:
    run = fleet.play(playbook="playbooks/verify.yml")
    assert run.code == 0, run.output


def test_verify_finds_what_is_not(fleet: Fleet) -> None:
    host = fleet.host("node1")
    host.check_output("systemctl stop node_exporter")
    run = fleet.play(playbook="playbooks/verify.yml")
    host.check_output("systemctl start node_exporter")
    assert run.code != 0
    assert "node_exporter" in run.output
    wait_for(lambda: call("GET", fleet.url("node1", 9100)) is None)
    wait_for(lambda: len(fleet.query("up == 0")) == 0)
