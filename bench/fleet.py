"""Hosts of a benchmark's own, and ``site.yml`` on them."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bench import say
from lab import ROOT, VENV, engine
from lab.console import Console
from lab.hosts import Fleet, Spec

RUN_SECONDS = 600
"""A playbook run that takes longer has failed."""

VARIABLES = {
    "fleetwatch_address": "{{ inventory_hostname }}",
    "alert_receiver_sender": "fleetwatch@example.org",
    "alert_receiver_recipients": ["ops@example.org"],
    "alert_receiver_sendgrid_api_key": "only-for-the-mailbox-of-the-benchmark",
    "alert_receiver_sendgrid_host": (
        "{{ query('fleetwatch.monitoring.endpoints', 'lab_mailbox') | map(attribute='url') | first }}"
    ),
    "alert_receiver_webhook_token": "only-for-alertmanager-of-the-benchmark",
    "metrics_simulator_control_token": "only-for-the-simulator-of-the-benchmark",
}


class BenchError(Exception):
    """Why nothing could be measured."""


@dataclass(frozen=True)
class Task:
    """A task of a playbook run.

    Attributes:
        play: name of its play.
        name: its name, with its role.
        seconds: from its start to its last host's result.
        results: host -> Ansible's result.

    """

    play: str
    name: str
    seconds: float
    results: dict[str, dict[str, Any]]

    @property
    def executed(self) -> list[str]:
        """The hosts on which it was not skipped."""
        return [host for host, result in self.results.items() if not result.get("skipped")]


@dataclass(frozen=True)
class Run:
    """A playbook run.

    Attributes:
        seconds: from the start of ansible-playbook to its end.
        tasks: in order.
        changed: number of changes, over all hosts.

    """

    seconds: float
    tasks: list[Task]
    changed: int

    def slowest(self, number: int) -> list[Task]:
        """Return the tasks that took longest."""
        return sorted(self.tasks, key=lambda task: -task.seconds)[:number]


class Site:
    """An inventory of hosts that exist, to run ``site.yml`` on."""

    def __init__(self, fleet: Fleet, groups: dict[str, list[str]], folder: Path) -> None:
        """Write the inventory to ``folder``."""
        self.fleet = fleet
        self.addresses = {name: host.address for name, host in fleet.hosts().items()}
        self.ssh_config = fleet.ssh_config
        self._folder = folder
        self._inventory = folder / "inventory.json"
        connection = {"ansible_user": "root", "ansible_ssh_common_args": f'-F "{fleet.ssh_config}"'}
        hosts = {name: {"ansible_host": address} for name, address in self.addresses.items()}
        children = {group: {"hosts": dict.fromkeys(names)} for group, names in groups.items()}
        content = {"all": {"hosts": hosts, "vars": {**connection, **VARIABLES}, "children": children}}
        self._inventory.write_text(json.dumps(content, indent=1), encoding="utf-8")

    def run(self, **environment: str) -> Run:
        """Run ``site.yml``, with ssh connections of its own, as from a controller that just woke up.

        Raises:
            BenchError: the playbook failed; carries the reasons.

        """
        sockets = tempfile.mkdtemp(dir=self._folder)
        command = [str(VENV / "bin" / "ansible-playbook"), "-i", str(self._inventory), "site.yml"]
        began = time.monotonic()
        done = subprocess.run(  # noqa: S603 - our own command
            command,
            cwd=ROOT,
            env={
                **os.environ,
                "PATH": f"{VENV / 'bin'}:{os.environ['PATH']}",
                "LC_ALL": "C.UTF-8",
                "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
                "ANSIBLE_SSH_CONTROL_PATH_DIR": sockets,
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        seconds = time.monotonic() - began
        try:
            return read(done.stdout, seconds)
        except ValueError as error:
            raise BenchError(f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}") from error


def read(text: str, seconds: float) -> Run:
    """Read what Ansible's json callback printed.

    Raises:
        BenchError: a task failed.
        ValueError: this is no such output.

    """
    report = json.loads(text[text.index("{") :])
    tasks = []
    for play in report["plays"]:
        for entry in play["tasks"]:
            for host, result in entry["hosts"].items():
                if result.get("failed") or result.get("unreachable"):
                    raise BenchError(f"{host}: {entry['task']['name']}: {result.get('msg')}")
            duration = entry["task"]["duration"]
            took = _seconds(duration["end"]) - _seconds(duration["start"]) if "end" in duration else 0.0
            tasks.append(Task(play["play"]["name"], entry["task"]["name"], took, entry["hosts"]))
    return Run(seconds, tasks, sum(host["changed"] for host in report["stats"].values()))


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


@contextmanager
def site(purpose: str, specs: list[Spec], groups: dict[str, list[str]]) -> Iterator[Site]:
    """Give fresh hosts with an inventory of them; remove them afterwards.

    Args:
        purpose: tells these hosts from others of the checkout.
        specs: the hosts.
        groups: group -> names of its hosts.

    """
    fleet = Fleet(purpose, Console())
    fleet.remove()
    try:
        began = time.monotonic()
        fleet.apply(specs)
        say(f"{len(specs)} fresh hosts in {time.monotonic() - began:.1f} s")
        with tempfile.TemporaryDirectory(prefix="fleetwatch-bench-") as folder:
            yield Site(fleet, groups, Path(folder))
    finally:
        fleet.remove()


def conditions() -> str:
    """Return what about this machine bears on the figures."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, load {os.getloadavg()[0]:.1f}, {engine.runtime()}"
