"""The production inventory to copy, and what the how-tos add to it, are without mistakes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
            starts = re.match(r"# (\w+_\w+|pushgateway):", line)
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
