"""Measure how fast the scrape targets of a large inventory are written: time, memory and growth.

Generates inventories in a temporary folder and runs ansible-playbook on them, from reading the inventory
(INI, as is usual at this size) to the finished target files. Each size is measured several times and the
best run counts, because these machines have other things to do too. The last line is the figure and its
goal; exit code 1 when it is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import say, verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[1]
SIZES = (1_000, 3_000, 10_000)
MAX_SECONDS = 10.0
MAX_MIB = 1024.0
MAX_GROWTH = 2.0
"""How much more one host may cost among 10,000 than among 3,000, beyond what a run costs anyway."""

PLAYBOOK = """
- hosts: prometheus
  gather_facts: false
  connection: local
  vars:
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
  tasks:
    - ansible.builtin.copy:
        content: "{{ item.file_sd }}"
        dest: "{{ playbook_dir }}/targets/{{ item.job }}.json"
        mode: "0640"
      loop: "{{ query('fleetwatch.monitoring.scrape_jobs') }}"
      loop_control: {label: "{{ item.job }}"}
"""
LABELS = {"env": ["production", "staging"], "site": ["berlin", "paris", "lisbon"]}


@dataclass(frozen=True)
class Result:
    """One run."""

    seconds: float
    mib: float


def write_inventory(folder: Path, hosts: int, form: str) -> None:
    """Write a playbook and an inventory: groups for labels, an address for each host, some overrides.

    :param form: ``ini`` or ``yaml``.
    """
    names = [f"web{number:05d}" for number in range(hosts)]
    variables = {}
    for number, name in enumerate(names):
        variables[name] = {"ansible_host": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"}
        if number % 10 == 0:
            variables[name]["node_exporter_port"] = "9101"
        if number % 100 == 0:
            variables[name]["fleetwatch_address"] = "'{{ inventory_hostname }}.{{ site_domain }}'"
    groups: dict[str, Mapping[str, Mapping[str, str]]]
    groups = {"node_exporter": variables, "prometheus": {names[0]: {}}}
    for label in LABELS.values():
        for index, group in enumerate(label):
            groups[group] = {name: {} for name in names[index :: len(label)]}

    lines = []
    for group, members in groups.items():
        lines.append(f"[{group}]" if form == "ini" else f"{group}:\n  hosts:")
        for name, values in members.items():
            if form == "ini":
                lines.append(" ".join([name, *(f"{key}={value}" for key, value in values.items())]))
            else:
                content = ", ".join(f"{key}: {value}" for key, value in values.items())
                lines.append(f"    {name}: {{{content}}}")
    (folder / f"hosts.{form}").write_text("\n".join(lines) + "\n")
    (folder / "group_vars").mkdir()
    (folder / "targets").mkdir()
    (folder / "group_vars" / "all.yml").write_text(
        json.dumps({"fleetwatch_target_labels": LABELS, "site_domain": "example.org"})
    )
    (folder / "play.yml").write_text(PLAYBOOK)


def memory_mib(session: int) -> float:
    """Return the memory of all processes of a session; pages that they share count once."""
    kib = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int((process / "stat").read_text().rpartition(") ")[2].split()[3]) == session:
                rollup = (process / "smaps_rollup").read_text()
                kib += int(rollup.partition("\nPss:")[2].split()[0])
        except (OSError, IndexError):
            continue  # it has ended
    return kib / 1024


def run(folder: Path, form: str) -> Result:
    """Write the targets once.

    :raises RuntimeError: the playbook failed.
    """
    environment = os.environ | {
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
    }
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", f"hosts.{form}", "play.yml"]
    with (folder / "log").open("w+") as log:
        start = time.monotonic()
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, memory_mib(process.pid))
            time.sleep(0.1)
        seconds = time.monotonic() - start
        if process.returncode:
            log.seek(0)
            raise RuntimeError(log.read())
    return Result(seconds, peak)


def measure(hosts: int, runs: int, form: str = "ini") -> Result:
    """Return the best time of several runs and the highest memory.

    :raises RuntimeError: a run failed or wrote the wrong number of targets.
    """
    with tempfile.TemporaryDirectory(prefix="fleetwatch-bench-") as name:
        folder = Path(name)
        write_inventory(folder, hosts, form)
        results = [run(folder, form) for _ in range(runs)]
        written = len(json.loads((folder / "targets" / "node_exporter.json").read_text()))
    if written != hosts:
        raise RuntimeError(f"{written} targets were written instead of {hosts}")
    return Result(min(result.seconds for result in results), max(result.mib for result in results))


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=3, help="runs of each size; the best counts")
    runs = parser.parse_args().runs

    say(f"{'hosts':>7}  {'seconds':>7}  {'MiB':>5}")
    base = measure(1, runs)
    say(f"{1:>7,}  {base.seconds:>7.2f}  {base.mib:>5.0f}  what a run costs anyway")
    results = {}
    for hosts in SIZES:
        results[hosts] = measure(hosts, runs)
        say(f"{hosts:>7,}  {results[hosts].seconds:>7.2f}  {results[hosts].mib:>5.0f}")
    yaml = measure(SIZES[-1], 1, "yaml")
    say(f"{SIZES[-1]:>7,}  {yaml.seconds:>7.2f}  {yaml.mib:>5.0f}  as YAML, which Ansible reads slowly")

    def cost(hosts: int) -> float:
        """Return the milliseconds that each of so many hosts costs."""
        return 1e3 * (results[hosts].seconds - base.seconds) / hosts

    large, growth = results[SIZES[-1]], cost(SIZES[-1]) / cost(SIZES[1])
    costs = ", ".join(f"{cost(hosts):.2f} ms among {hosts:,}" for hosts in SIZES)
    say(f"one host costs {costs}")
    reached = large.seconds < MAX_SECONDS and large.mib < MAX_MIB and growth < MAX_GROWTH
    return verdict(
        f"targets for {SIZES[-1]:,} hosts: {large.seconds:.1f} s (goal: under {MAX_SECONDS:.0f} s),"
        f" {large.mib:.0f} MiB (goal: under {MAX_MIB:.0f} MiB),"
        f" growth {growth:.2f} (1 is linear; goal: under {MAX_GROWTH:.0f})",
        reached=reached,
    )


if __name__ == "__main__":
    sys.exit(main())
