"""What the how-tos tell people to write works: the inventory is accepted, and so is what comes of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
INVENTORY = "inventory/production/"
PAGES = ["add-a-host", "change-a-threshold", "route-alerts", "your-own-programs", "high-availability"]
SECRETS = {
    "vault_sendgrid_api_key": "SG.test",
    "vault_slack_database_url": "https://hooks.example.com/database",
    "vault_night_shift_url": "https://calls.example.com/night",
}

# A role that borrows all but its tasks from the real one, and writes down what that would have put on a host.
RENDER = {
    "alertmanager": """
- ansible.builtin.copy:
    content: "{{ lookup('ansible.builtin.template', 'alertmanager.yml.j2') }}"
    dest: "{{ output }}/alertmanager.yml"
    mode: "0600"
""",
    "prometheus": """
- ansible.builtin.file:
    path: "{{ output }}/{{ item | dirname }}"
    state: directory
    mode: "0700"
  loop: "{{ prometheus_files.keys() }}"
- ansible.builtin.copy:
    content: "{{ item.value }}"
    dest: "{{ output }}/{{ item.key }}"
    mode: "0600"
  loop: "{{ prometheus_files | dict2items }}"
""",
}


def files(page: str, folder: str) -> dict[str, str]:
    """Return the files below a folder that a page shows, and their content."""
    text = (ROOT / f"docs/how-to/{page}.md").read_text()
    found = re.findall(rf"^```yaml\n# {folder}([^\n]+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return dict(found)


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    copy = tmp_path / "inventory"
    shutil.copytree(ROOT / "inventory/example", copy)
    (copy / "group_vars/all/vault.yml").write_text(yaml.safe_dump(SECRETS))
    return copy


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    for key, value in new.items():
        both = isinstance(value, dict) and isinstance(old.get(key), dict)
        old[key] = merge(old[key], value) if both else value
    return old


def follow(page: str, inventory: Path) -> None:
    """Write into the inventory what the page says."""
    for name, block in files(page, INVENTORY).items():
        path = inventory / name
        old = (yaml.safe_load(path.read_text()) if path.exists() else None) or {}
        path.write_text(yaml.safe_dump(merge(old, yaml.safe_load(block)), sort_keys=False))


def render(component: str, inventory: Path) -> Path:
    """Check the inventory and return the folder with the component's configuration for its first host."""
    top = inventory.parent
    role, output = top / "roles" / "render", top / component
    (role / "tasks").mkdir(parents=True)
    output.mkdir()
    for part in ("defaults", "vars", "templates", "meta/main.yml"):
        (role / part).parent.mkdir(exist_ok=True)
        (role / part).symlink_to(ROOT / "roles" / component / part)
    (role / "tasks/main.yml").write_text(RENDER[component])
    check = {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [{"fleetwatch.monitoring.check_inventory": {}, "run_once": True}],
    }
    write = {
        "hosts": f"{component}[0]",
        "connection": "local",
        "gather_facts": False,
        "roles": ["render"],
        "vars": {"output": str(output)},
    }
    (top / "site.yml").write_text(yaml.safe_dump([check, write]))
    playbook(inventory)
    return output


def playbook(inventory: Path, *options: str) -> None:
    """Run the playbook beside the inventory."""
    done = subprocess.run(  # noqa: S603 (our own command)
        [BIN / "ansible-playbook", "--inventory", inventory, inventory.parent / "site.yml", *options],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"LC_ALL": "C.UTF-8", "ANSIBLE_PYTHON_INTERPRETER": sys.executable},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def checker(*command: str | Path) -> str:
    done = subprocess.run(  # noqa: S603 (our own command)
        [ROOT / ".cache/tools/bin" / command[0], *command[1:]], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_pages_show_files_of_the_inventory() -> None:
    assert all(files(page, INVENTORY) for page in PAGES)


def test_all_pages_together_give_a_good_prometheus(inventory: Path) -> None:
    for page in PAGES:
        follow(page, inventory)
    output = render("prometheus", inventory)
    checker("promtool", "check", "config", output / "prometheus.yml")
    assert (
        yaml.safe_load((output / "rules/shop.yml").read_text())["groups"][0]["rules"][0]["annotations"][
            "summary"
        ]
        == "The shop on {{ $labels.instance }} is down"
    )
    assert "< 0.15" in (output / "rules/node_exporter.yml").read_text()
    assert '"web3.internal' not in (output / "targets/node_exporter.json").read_text()
    assert "192.0.2.22:9100" in (output / "targets/node_exporter.json").read_text()
    config = yaml.safe_load((output / "prometheus.yml").read_text())
    assert len(config["alerting"]["alertmanagers"]) == 2
    assert config["scrape_configs"][-1]["job_name"] == "shop"


def test_routes_lead_where_the_page_says(inventory: Path) -> None:
    follow("route-alerts", inventory)
    file = render("alertmanager", inventory) / "alertmanager.yml"
    checker("amtool", "check-config", file)

    def receivers(*labels: str) -> set[str]:
        found = checker("amtool", "config", "routes", "test", f"--config.file={file}", *labels)
        return set(found.strip().split(","))

    assert receivers("alertname=LowDiskSpace", "host=db1", "severity=warning") == {"database-team"}
    assert receivers("alertname=NodeDown", "host=web1", "severity=critical") == {"night-shift", "fleetwatch"}
    assert receivers("alertname=HighLoadAverage", "host=web1", "severity=warning") == {"fleetwatch"}


def test_a_component_is_added_as_the_page_says(inventory: Path) -> None:
    follow("add-a-component", inventory)
    for name, content in files("add-a-component", "roles/").items():
        path = inventory.parent / "roles" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    output = render("prometheus", inventory)
    checker("promtool", "check", "config", output / "prometheus.yml")
    assert "192.0.2.31:9121" in (output / "targets/redis_exporter.json").read_text()
    assert "/RedisDown.md" in (output / "rules/redis_exporter.yml").read_text()

    play = files("add-a-component", "")["site.yml, at its end"]
    (inventory.parent / "site.yml").write_text((ROOT / "site.yml").read_text() + play)
    playbook(inventory, "--syntax-check")
