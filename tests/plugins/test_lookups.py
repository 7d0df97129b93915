"""The lookups in a real run of ansible-playbook."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.plugins.conftest import INVENTORY, write
from tests.plugins.test_overrides import parsed

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugins.conftest import RunPlaybook

# The lookups are called twice, as variables of roles are.
PLAY = """
- hosts: prometheus
  gather_facts: false
  connection: local
  vars:
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
    roles_path: ["{{ playbook_dir }}/roles"]
    jobs: "{{ query('fleetwatch.monitoring.scrape_jobs', roles_path=roles_path) }}"
    rules: "{{ lookup('fleetwatch.monitoring.alert_rules', roles_path=roles_path) }}"
    result:
      jobs: "{{ jobs }}"
      files: "{{ jobs | items2dict(key_name='job', value_name='file_sd') }}"
      rules: "{{ rules }}"
      endpoints: "{{ query('fleetwatch.monitoring.endpoints', *names, roles_path=roles_path) }}"
      listener: "{{ lookup('fleetwatch.monitoring.listener', 'prometheus', roles_path=roles_path) }}"
    names: [prometheus, node_exporter]
  tasks:
    - ansible.builtin.copy:
        content: "{{ result | to_json }}"
        dest: "{{ playbook_dir }}/result.json"
        mode: "0600"
"""


def test_lookups_see_the_whole_inventory(tmp_path: Path, run_playbook: RunPlaybook) -> None:
    write(
        tmp_path,
        {
            "play.yml": PLAY,
            "inventory/hosts.yml": INVENTORY + "production: {hosts: {web1: {}}}\n",
            "inventory/group_vars/all.yml": """
                fleetwatch_target_labels: {env: ["{{ live }}", staging]}
                live: production
                """,
            # What another host says about an alert counts for it, what the host of Prometheus says for all.
            "inventory/host_vars/web1.yml": """
                node_exporter_alert_down_after: '{{ minutes * 3 }}m'
                minutes: 3
                node_exporter_port: 9101
                """,
            "inventory/host_vars/web2.yml": "node_exporter_alert_down_after: 3m",
            "inventory/host_vars/monitor.yml": """
                node_exporter_alert_down_after: '{{ minutes }}m'
                minutes: 3
                prometheus_listen_address: "::"
                """,
        },
    )
    run = run_playbook("play.yml", "--limit", "monitor", "-e", "node_exporter_scheme=https")
    assert run.returncode == 0, run.stdout
    result = json.loads((tmp_path / "result.json").read_text())

    assert [job["job"] for job in result["jobs"]] == ["node_exporter", "prometheus"]
    assert json.loads(result["files"]["node_exporter"])[1] == {
        "targets": ["10.0.0.2:9101"],
        "labels": {"host": "web1", "env": "production", "__scheme__": "https"},
    }
    assert [endpoint["url"] for endpoint in result["endpoints"]] == [
        "http://10.0.0.1:9090",
        "https://10.0.0.1:9100",
        "https://10.0.0.3:9100",
        "https://10.0.0.2:9101",
    ]
    assert result["listener"] == {"address": "[::]:9090", "url": "http://[::1]:9090"}
    # The component shop has rules as well, but no hosts.
    assert list(result["rules"]) == ["node_exporter.yml", "node_exporter_recording.yml"]
    assert [rule.get("for") for rule in parsed(result["rules"]["node_exporter.yml"])] == [None, "3m", "9m"]
    assert '{host=~"web1"}' in parsed(result["rules"]["node_exporter.yml"])[0]["expr"]
    assert "{{ $labels.host }} is down" in result["rules"]["node_exporter.yml"]
    assert "instance:up:max3m" in result["rules"]["node_exporter_recording.yml"]


def test_rule_with_an_undefined_variable_names_file_and_variable(
    tmp_path: Path, roles: Path, run_playbook: RunPlaybook
) -> None:
    write(roles, {"node_exporter/monitoring/rules.yml": "groups:\n  - [[ node_exporter_nowhere ]]\n"})
    write(tmp_path, {"play.yml": PLAY, "inventory/hosts.yml": INVENTORY})
    run = run_playbook("play.yml")
    assert run.returncode == 2
    assert "node_exporter/monitoring/rules.yml:2: 'node_exporter_nowhere' is undefined" in run.stdout
