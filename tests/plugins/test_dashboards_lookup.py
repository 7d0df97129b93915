"""The dashboards of components with hosts, and the site's own, in a real run of ansible-playbook."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.plugins.conftest import INVENTORY, write

if TYPE_CHECKING:
    from tests.plugins.conftest import RunPlaybook

PLAY = """
- hosts: prometheus
  gather_facts: false
  connection: local
  vars:
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
    roles_path: ["{{ playbook_dir }}/roles"]
    own: {}
    folder: ""
    found: "{{ query('fleetwatch.monitoring.dashboards', folder, extra=own, roles_path=roles_path) }}"
    files: "{{ dict(found | map(attribute='path') | zip(found | map(attribute='text'))) }}"
  tasks:
    - ansible.builtin.copy:
        content: "{{ {'found': found, 'files': files} | to_json }}"
        dest: "{{ playbook_dir }}/result.json"
        mode: "0600"
"""


def model(uid: str, title: str = "", **more: Any) -> str:
    return json.dumps({"uid": uid, "title": title or uid, "panels": [], **more})


HOST = model("fleetwatch-host", legend="{{ host }} $host")
FILES = {
    "play.yml": PLAY,
    "inventory/hosts.yml": INVENTORY,
    "roles/node_exporter/monitoring/dashboards/fleetwatch-host.json": HOST,
    "roles/shop/monitoring/dashboards/shop.json": model("no-host-has-this"),
    "boards/Shop/orders.json": model("orders"),
    "boards/.git/x.json": "broken",
    "boards/general.json": model("general"),
}


@pytest.mark.slow
def test_components_with_hosts_and_the_site(tmp_path: Path, run_playbook: RunPlaybook) -> None:
    own = {"own": {"Team/extra": json.loads(model("extra")), "plain": model("plain")}}
    write(tmp_path, FILES | {"own.json": json.dumps(own)})
    run = run_playbook("play.yml", "-e", "folder=boards", "-e", "@own.json")
    assert run.returncode == 0, run.stdout
    result = json.loads((tmp_path / "result.json").read_text())
    assert [(one["path"], one["uid"]) for one in result["found"]] == [
        ("fleetwatch/fleetwatch-host.json", "fleetwatch-host"),
        ("site/Shop/orders.json", "orders"),
        ("site/Team/extra.json", "extra"),
        ("site/general.json", "general"),
        ("site/plain.json", "plain"),
    ]
    assert json.loads(result["files"]["site/Team/extra.json"])["uid"] == "extra"
    assert result["files"]["fleetwatch/fleetwatch-host.json"].strip() == HOST  # its braces are Grafana's


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("boards/b.json", "{", "boards/b.json is not JSON"),
        ("boards/b.json", "[]", "boards/b.json is not a dashboard: it has no panels"),
        ("boards/b.json", '{"panels": [], "title": "x"}', "boards/b.json has no uid"),
        ("boards/b.json", model("a b"), "the uid must be up to 40"),
        ("boards/b.json", model("b", __inputs=[]), "without 'Export for sharing externally'"),
        ("boards/b.json", model("fleetwatch-host"), "have the uid fleetwatch-host; change one of them"),
        ("boards/Shop/b.json", model("b", "orders"), "have the title 'orders' in one folder"),
    ],
)
def test_mistakes_name_the_file(
    tmp_path: Path, run_playbook: RunPlaybook, file: str, content: str, words: str
) -> None:
    write(tmp_path, FILES | {file: content})
    run = run_playbook("play.yml", "-e", "folder=boards")
    assert run.returncode == 2
    assert words in run.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ('{"folder": "nowhere"}', "grafana_dashboard_dir: there is no folder nowhere on the controller"),
        ('{"own": {"a/b/c": "{}"}}', "grafana_dashboards: 'a/b/c' must be a name, or Folder/name"),
        ('{"own": {"../x": "{}"}}', "'../x' must be a name"),
        ('{"own": {"x": {"dashboard": {}}}}', "grafana_dashboards: x is not a dashboard"),
    ],
)
def test_mistakes_name_the_setting(
    tmp_path: Path, run_playbook: RunPlaybook, variable: str, words: str
) -> None:
    write(tmp_path, FILES)
    run = run_playbook("play.yml", "-e", variable)
    assert run.returncode == 2
    assert words in run.stdout
