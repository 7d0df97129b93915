"""What the how-tos tell people to write works: the inventory is accepted, and so is what comes of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.fleetwatch.monitoring.plugins.filter.secrets import CHANNEL_SECRETS

from fleetwatch.common.settings import read
from fleetwatch.dispatcher.settings import DispatcherSettings
from fleetwatch.receiver.settings import ReceiverSettings
from tests.docs.conftest import load

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
INVENTORY = "inventory/production/"
PAGES = [
    "add-a-host",
    "change-a-threshold",
    "slo",
    "route-alerts",
    "your-own-programs",
    "high-availability",
]
SECRETS = {
    "vault_sendgrid_api_key": "SG.test",
    "vault_alert_receiver_webhook_token": "from-alertmanager",
    "vault_alert_receiver_ops_password": "of-ops",
    "vault_alert_receiver_database_password": "of-the-database",
    "vault_slack_database_url": "https://hooks.example.com/database",
    "vault_slack_url": "https://hooks.example.com/team",
    "vault_night_shift_url": "https://calls.example.com/night",
    "vault_smtp_password": "of-the-mail-server",
    "vault_twilio_auth_token": "of-twilio",
    "vault_dead_mans_switch_url": "https://switch.example.com/of-the-fleet",
    "vault_alertmanager_switch_url": "https://switch.example.com/of-alertmanager",
    "vault_ticket_token": "of-tickets",
    "vault_ticket_hmac_key": "signs-tickets",
}

# A role that borrows all but its tasks from the real one, and writes down what that would have put on a host.
RENDER = {
    "alert_receiver": """
- ansible.builtin.file:
    path: "{{ output }}/{{ item }}"
    state: directory
    mode: "0700"
  loop: [credentials, templates]
- ansible.builtin.copy:
    content: "{{ item.value }}"
    dest: "{{ output }}/{{ item.key }}"
    mode: "0600"
  loop: "{{ alert_receiver_secrets | combine(alert_receiver_template_files,
    {'receiver.yml': alert_receiver_settings | to_nice_yaml(sort_keys=false),
    'checks.json': alert_receiver_checks | to_json}) | dict2items }}"
""",
    "alertmanager": """
- ansible.builtin.copy:
    content: "{{ lookup('ansible.builtin.template', 'alertmanager.yml.j2') }}"
    dest: "{{ output }}/alertmanager.yml"
    mode: "0600"
- ansible.builtin.copy:
    content: "{{ alertmanager_credentials | to_json }}"
    dest: "{{ output }}/credentials.json"
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


def blocks(page: str, folder: str) -> list[tuple[str, str]]:
    """Return the files below a folder that a page shows, and their content; one may come in several parts."""
    text = (ROOT / f"docs/how-to/{page}.md").read_text()
    return re.findall(rf"^```yaml\n# {folder}([^\n]+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def files(page: str, folder: str) -> dict[str, str]:
    """Return the files below a folder that a page shows, and their content."""
    return dict(blocks(page, folder))


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    copy = tmp_path / "inventory"
    shutil.copytree(ROOT / "inventory/example", copy)
    (copy / "group_vars/all/vault.yml").write_text(yaml.safe_dump(SECRETS))
    return copy


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            merge(old[key], value)
        elif key == "alert_receiver_channels":  # a page shows them one by one
            old[key] = old.get(key, []) + value
        else:
            old[key] = value
    return old


def follow(page: str, inventory: Path) -> None:
    """Write into the inventory what the page says."""
    for name, block in blocks(page, INVENTORY):
        path = inventory / name
        old = (load(path.read_text()) if path.exists() else None) or {}
        new = load(block)
        path.write_text(yaml.safe_dump(merge(old, new), sort_keys=False))


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
        "vars": {"output": str(output), "python_program_bundle": {"version": "0"}},
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


def named(alert: str, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rule for rule in rules if rule.get("alert") == alert]


def test_pages_show_files_of_the_inventory() -> None:
    assert all(files(page, INVENTORY) for page in PAGES)


@pytest.mark.slow
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
    rules = yaml.safe_load((output / "rules/node_exporter.yml").read_text())["groups"][0]["rules"]
    low = [(rule["expr"].partition(") < ")[2][:4], rule["for"]) for rule in named("LowDiskSpace", rules)]
    assert low == [("0.15", "15m"), ("0.05", "15m"), ("0.15", "2h")]
    assert [" > 32)" in rule["expr"] for rule in named("HighLoadAverage", rules)] == [False, True]
    slos = yaml.safe_load((output / "rules/slo.yml").read_text())["groups"]
    assert [group["name"] for group in slos] == [
        "slo shop/availability",
        "slo shop/latency",
        "slo fleetwatch/scrapes",
    ]
    assert '"web3.internal' not in (output / "targets/node_exporter.json").read_text()
    assert "192.0.2.22:9100" in (output / "targets/node_exporter.json").read_text()
    config = yaml.safe_load((output / "prometheus.yml").read_text())
    assert len(config["alerting"]["alertmanagers"]) == 2
    assert config["scrape_configs"][-1]["job_name"] == "shop"


@pytest.mark.slow
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


@pytest.mark.slow
def test_two_receivers_get_the_token_and_share_a_database(
    inventory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow("high-availability", inventory)
    folder = render("alertmanager", inventory)
    checker("amtool", "check-config", folder / "alertmanager.yml")
    config = yaml.safe_load((folder / "alertmanager.yml").read_text())
    hooks = [hook for receiver in config["receivers"] for hook in receiver.get("webhook_configs", [])]
    shown = {hook["url"]: hook["http_config"]["authorization"]["credentials_file"] for hook in hooks}
    assert shown == {
        "http://192.0.2.10:5001/alerts": "/etc/alertmanager/credentials/monitor1",
        "http://192.0.2.11:5001/alerts": "/etc/alertmanager/credentials/monitor2",
    }
    token = SECRETS["vault_alert_receiver_webhook_token"]
    assert json.loads((folder / "credentials.json").read_text()) == {
        "credentials/monitor1": token,
        "credentials/monitor2": token,
    }
    shutil.rmtree(inventory.parent / "roles")
    receiver, _ = receiver_settings(render("alert_receiver", inventory), monkeypatch)
    assert receiver.database_url.startswith("postgresql://")
    assert receiver.database_password
    assert len(receiver.alertmanagers) == 2


@pytest.mark.slow
def test_heartbeats_go_where_the_page_says(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follow("dead-mans-switch", inventory)
    folder = render("alertmanager", inventory)
    config = yaml.safe_load((folder / "alertmanager.yml").read_text())
    (watchdog,) = [each for each in config["receivers"] if each["name"] == "fleetwatch-watchdog"]
    receiver, outside = watchdog["webhook_configs"]
    assert receiver["url"] == "http://192.0.2.10:5001/alerts"
    file = outside["url_file"].removeprefix("/etc/alertmanager/")
    credentials = json.loads((folder / "credentials.json").read_text())
    assert credentials[file] == SECRETS["vault_alertmanager_switch_url"]
    assert config["route"]["routes"][1]["receiver"] == "fleetwatch-watchdog"
    shutil.rmtree(inventory.parent / "roles")

    folder = render("alert_receiver", inventory)
    _, dispatcher = receiver_settings(folder, monkeypatch)
    assert (dispatcher.watchdog_timeout, dispatcher.watchdog_expected) == (300, True)
    assert str(dispatcher.runbook_url).endswith("/docs/runbooks")
    (url,) = dispatcher.heartbeat_urls.values()
    assert url.get_secret_value() == SECRETS["vault_dead_mans_switch_url"]
    assert refusals(folder) == []
    text = (folder / "receiver.yml").read_text()
    assert not [secret for secret in SECRETS.values() if secret in text]


def receiver_settings(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[ReceiverSettings, DispatcherSettings]:
    """Return what both services read from the files that the role would write."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder / "credentials"))
    file = folder / "receiver.yml"
    return read(ReceiverSettings, file), read(DispatcherSettings, file)


def refusals(folder: Path) -> list[str]:
    """Return what the commands say that check these files on a host, if they refuse them."""
    here = {
        "/opt/fleetwatch/0/lib": f"{ROOT}/src",
        "{config}": str(folder),
        "/usr/bin/python3": sys.executable,
    }
    checks = (folder / "checks.json").read_text()
    for there, replacement in here.items():
        checks = checks.replace(there, replacement)
    said = []
    for command in json.loads(checks):
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 (our own)
        said += [done.stderr] if done.returncode else []
    return said


@pytest.mark.slow
def test_the_example_sends_mail_through_sendgrid(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = render("alert_receiver", inventory)
    receiver, dispatcher = receiver_settings(folder, monkeypatch)
    (channel,) = dispatcher.channels
    assert (channel.name, channel.type) == ("mail", "sendgrid")
    assert dispatcher.secret("mail", "api_key") == SECRETS["vault_sendgrid_api_key"]
    assert {user.name: user.roles for user in receiver.users} == {
        "alertmanager": ["send"],
        "ops": ["read", "act"],
    }
    assert receiver.alertmanagers == ["http://192.0.2.10:9093"]
    assert str(receiver.external_url) == "http://192.0.2.10:5001"
    text = (folder / "receiver.yml").read_text()
    assert not [secret for secret in SECRETS.values() if secret in text]


@pytest.mark.slow
def test_every_way_to_notify_is_one(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follow("notify", inventory)
    follow("change-messages", inventory)
    (inventory.parent / "messages").mkdir()
    (inventory.parent / "messages/mail.subject.j2").write_text("[shop, {{ word }}] {{ title }}")
    folder = render("alert_receiver", inventory)

    receiver, dispatcher = receiver_settings(folder, monkeypatch)
    assert {channel.type for channel in dispatcher.channels} == CHANNEL_SECRETS.keys()
    assert refusals(folder) == []
    text = (folder / "receiver.yml").read_text()
    assert not [secret for secret in SECRETS.values() if secret in text]
    assert dispatcher.links["Logs"].endswith("host={{ labels.host }}")

    router, noon = receiver.router, datetime(2026, 6, 1, 12, tzinfo=UTC)
    labels = {"severity": "critical", "host": "db1"}
    planned = router.firing("fleetwatch", labels, "critical", noon)
    told = {(plan.channel, (plan.due_at - noon).total_seconds()) for plan in planned}
    assert told == {("ticket", 0), ("mail", 0), ("team", 0), ("sms", 900), ("office", 3600)}
    (rest,) = router.firing("fleetwatch", {"severity": "warning"}, "warning", noon.replace(hour=23))
    assert (rest.channel, rest.due_at) == ("team", datetime(2026, 6, 2, 5, tzinfo=UTC))

    subject = folder / "templates/mail.subject.j2"
    assert subject.read_text().startswith("[shop, ")
    subject.write_text("{{ no_such_thing }}")
    (said,) = refusals(folder)
    assert "mail.subject.j2" in said
    (folder / "credentials/user.ops").unlink()
    (folder / "credentials/channel.team.url").unlink()
    assert ["user.ops" in refusals(folder)[0], "channel.team.url" in refusals(folder)[1]] == [True, True]


@pytest.mark.slow
def test_a_component_is_added_as_the_page_says(inventory: Path) -> None:
    follow("add-a-component", inventory)
    for name, content in files("add-a-component", "roles/").items():
        path = inventory.parent / "roles" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    output = render("prometheus", inventory)
    checker("promtool", "check", "config", output / "prometheus.yml")
    assert "192.0.2.31:9101" in (output / "targets/haproxy_exporter.json").read_text()
    assert "/HaproxyDown.md" in (output / "rules/haproxy_exporter.yml").read_text()

    play = files("add-a-component", "")["site.yml, at its end"]
    (inventory.parent / "site.yml").write_text((ROOT / "site.yml").read_text() + play)
    playbook(inventory, "--syntax-check")
