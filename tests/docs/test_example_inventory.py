"""The production inventory to copy, and what the how-tos add to it, are without mistakes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
VAULT = "group_vars/all/vault.yml"
CHECK = """
- hosts: all
  gather_facts: false
  tasks:
    - fleetwatch.monitoring.check_inventory:
      run_once: true
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """A copy with the dummy vault in place."""
    copy = tmp_path / "inventory"
    shutil.copytree(ROOT / "inventory/example", copy)
    (copy / VAULT).write_text((copy / f"{VAULT}.example").read_text())
    return copy


def check(inventory: Path) -> subprocess.CompletedProcess[str]:
    playbook = inventory.parent / "check.yml"
    playbook.write_text(CHECK)
    return subprocess.run(  # noqa: S603 (our own command)
        [BIN / "ansible-playbook", "--inventory", inventory, playbook],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "1"},
    )


def choose_everything(inventory: Path) -> int:
    """Turn every commented setting on, and return how many there were."""
    count = 0
    for path in (*inventory.rglob("*.yml"),):
        lines = []
        inside = False
        for line in path.read_text().splitlines():
            starts = re.match(r"# (\w+_\w+|pushgateway|grafana):", line)
            inside = bool(starts or (inside and line.startswith("#  ")))
            count += bool(starts)
            lines.append(line[2:] if inside else line)
        path.write_text("\n".join(lines) + "\n")
    return count


def test_it_has_no_mistake(inventory: Path) -> None:
    done = check(inventory)
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout + done.stderr


def test_every_choice_that_it_offers_is_one(inventory: Path) -> None:
    assert choose_everything(inventory) > 15
    done = check(inventory)
    assert done.returncode == 0, done.stdout


def test_a_missing_vault_is_a_mistake(inventory: Path) -> None:
    (inventory / VAULT).unlink()
    done = check(inventory)
    assert done.returncode != 0
    assert "vault_sendgrid_api_key" in done.stdout


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            "alert_receiver_channels: [{name: a, type: slack}]",
            "type is slack but all of the following are missing: url",
        ),
        ("alert_receiver_channels: [{name: a, type: smtp, host: mx}]", "are missing: sender, recipients"),
        ("alert_receiver_channels: [{name: a, type: fax}]", "value of type must be one of: sendgrid"),
        (
            "alert_receiver_channels: [{name: a, type: slack, url: hush, tokne: hush}]",
            "alert_receiver_channels.tokne",
        ),
        ("alert_receiver_routes: [{name: a}]", "missing required arguments: channels"),
        (
            "alert_receiver_routes: [{name: a, channels: [b], quiet_hours: {start: '22:00'}}]",
            "arguments: end",
        ),
        (
            "alert_receiver_users: [{name: a, password: hush, roles: [reed]}]",
            "value of roles must be one or more of",
        ),
        ("alert_receiver_users: [{name: a, roles: [read]}]", "missing required arguments: password"),
        ("alert_receiver_webhook_token: ''", "alert_receiver_webhook_token is empty"),
        ("alert_receiver_retention: 90d", "alert_receiver_retention must be a number"),
    ],
)
def test_a_wrong_setting_of_the_receiver_is_one_line(inventory: Path, setting: str, words: str) -> None:
    path = inventory / "host_vars/monitor1.yml"
    path.write_text(setting + "\n")
    (line,) = [line for line in check(inventory).stdout.splitlines() if line.startswith("- ")]
    assert words in line
    assert "hush" not in line
    assert "host_vars/monitor1.yml:1" in line
