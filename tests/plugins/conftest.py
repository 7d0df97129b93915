"""A small tree of roles, and inventories read by Ansible itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Protocol

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.fleet import Fleet

ROOT = Path(__file__).parents[2]

ROLES = {
    "common/defaults/main.yml": """
        fleetwatch_address: "{{ ansible_host | default(inventory_hostname) }}"
        fleetwatch_scheme: http
        fleetwatch_target_labels: {}
        """,
    "common/meta/argument_specs.yml": """
        argument_specs:
          main:
            options:
              fleetwatch_address: {type: str}
              fleetwatch_scheme: {type: str, choices: [http, https]}
              fleetwatch_target_labels: {type: dict}
        """,
    "node_exporter/defaults/main.yml": """
        node_exporter_port: 9100
        node_exporter_scheme: "{{ fleetwatch_scheme }}"
        node_exporter_metrics_path: /metrics
        node_exporter_scrape: true
        node_exporter_alert_down_after: 1m
        """,
    "node_exporter/meta/argument_specs.yml": """
        argument_specs:
          main:
            options:
              node_exporter_port: {type: int}
              node_exporter_scheme: {type: str, choices: [http, https]}
              node_exporter_alert_down_after: {type: str}
              node_exporter_flags: {type: dict}
              node_exporter_groups: {type: list, elements: str}
        """,
    "node_exporter/monitoring/scrape.yml": "- job: node_exporter\n",
    "node_exporter/monitoring/rules.yml": """
        groups:
          - name: node_exporter
            rules:
              - alert: NodeDown
                expr: up{job="node_exporter"} == 0
                for: [[ node_exporter_alert_down_after ]]
                annotations: {summary: "{{ $labels.host }} is down"}
        """,
    "node_exporter/monitoring/recording_rules.yml": """
        groups:
          - name: node_exporter_recording
            rules:
              - {record: "instance:up:max[[ node_exporter_alert_down_after ]]", expr: up}
        """,
    "prometheus/defaults/main.yml": "prometheus_port: 9090\nprometheus_version: '3.5.0'\n",
    "prometheus/meta/argument_specs.yml": """
        argument_specs:
          main:
            options:
              prometheus_port: {type: int}
              prometheus_version: {type: str}
        """,
    "prometheus/monitoring/scrape.yml": "- job: prometheus\n",
    # A component with two jobs, one of them with a path and settings of its own, and a required secret.
    "shop/defaults/main.yml": "shop_port: 8000\nshop_worker_port: 8001\n",
    "shop/meta/argument_specs.yml": """
        argument_specs:
          main:
            options:
              shop_port: {type: int}
              shop_api_key: {type: str, required: true}
              shop_channels:
                type: list
                elements: dict
                options:
                  name: {type: str, required: true}
                  kind: {type: str, choices: [mail, sms]}
                  token: {type: str}
                  retries: {type: int}
        """,
    "shop/monitoring/scrape.yml": """
        - job: shop
          honor_labels: true
        - job: shop_worker
          group: shop_workers
          metrics_path: /internal
          params: {format: [prometheus]}
        """,
    "shop/monitoring/rules.yml": "groups: []\n",
    # No component: it has no folder monitoring.
    "mailbox/defaults/main.yml": "mailbox_port: 8025\n",
}

INVENTORY = """\
prometheus:
  hosts:
    monitor: {ansible_host: 10.0.0.1}
node_exporter:
  hosts:
    monitor:
    web2: {ansible_host: 10.0.0.3}
    web1: {ansible_host: 10.0.0.2}
"""


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip("\n"))


@pytest.fixture
def roles(tmp_path: Path) -> Path:
    """A folder with the roles above."""
    write(tmp_path / "roles", ROLES)
    return tmp_path / "roles"


class MakeFleet(Protocol):
    def __call__(self, inventory: str = ..., **files: str) -> Fleet: ...


@pytest.fixture
def make_fleet(tmp_path: Path, roles: Path) -> MakeFleet:
    """Read an inventory; a keyword such as ``group_vars_all`` is the text of group_vars/all.yml."""

    def make(inventory: str = INVENTORY, **files: str) -> Fleet:
        folder = tmp_path / "inventory"
        write(folder, {"hosts.yml": inventory})
        for name, text in files.items():
            kind, _, owner = name.rpartition("_vars_")
            write(folder, {f"{kind}_vars/{owner}.yml": text})
        loader = DataLoader()
        manager = InventoryManager(loader, sources=[str(folder / "hosts.yml")])
        hostvars = HostVars(manager, VariableManager(loader, manager), loader)
        return Fleet(hostvars, manager.get_groups_dict(), loader, [roles])

    return make


class RunPlaybook(Protocol):
    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def run_playbook(tmp_path: Path, roles: Path) -> RunPlaybook:
    """Run the real ansible-playbook in the folder of the test, where ``roles`` is beside the playbook."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            "inventory/hosts.yml",
            *arguments,
        ]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
        }
        return subprocess.run(  # noqa: S603 - the tests' own command
            command,
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )

    return run
