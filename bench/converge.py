"""Measure ``site.yml`` on ten hosts: fresh, and again when nothing changed.

Makes ten hosts, runs the playbook once on the fresh ones and several times more, the median of which
counts, and removes the hosts. Meanwhile it watches the network: a packet filter counts what leaves the
hosts, and one more run, which is not timed, notes all that the controller's processes reach for. The last
line is the figures and their goals; exit code 1 when one is missed.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench import end_properly, say, verdict
from bench.fleet import BenchError, Run, Site, conditions, site
from lab import engine, image
from lab.console import LabError, output
from lab.hosts import Spec

HOSTS = 10
MAX_TASKS = 18
MAX_RATIO = 0.2
ROLES = {  # a play of site.yml has one role
    "Prometheus": "prometheus",
    "Alertmanager": "alertmanager",
    "Pushgateway": "pushgateway",
    "Host metrics": "node_exporter",
}
SHARED_PLAY = "Look before touching anything"
MONITOR, RECEIVER = "monitor", "receiver"
NAMES = [MONITOR, RECEIVER, *(f"node{number}" for number in range(1, HOSTS - 1))]
GROUPS = {
    "prometheus": [MONITOR],
    "alertmanager": [MONITOR],
    "pushgateway": [MONITOR],
    "alert_receiver": [RECEIVER],
    "lab_mailbox": [RECEIVER],
    "node_exporter": NAMES,
}
AUDIT = Path(__file__).parent / "audit"
SSH = {"ssh", "scp", "sftp"}
LOCAL = {"ldconfig"}
"""Programs that Python and Ansible start and that know no network."""


class Counters:
    """A packet filter that counts new connections from the hosts to anywhere but each other.

    Look-ups of names are left out: the hosts ask the network's own name server for each other all the time.
    """

    TABLE = "fleetwatch_bench"
    RULES = """
        table ip {table} {{
            counter outside {{ }}
            chain forward {{
                type filter hook forward priority -10
                ip saddr {hosts} ip daddr != {hosts} ct state new counter name outside
            }}
            chain input {{
                type filter hook input priority -10
                ip saddr {hosts} ct state new th dport != 53 counter name outside
            }}
        }}
    """

    def __init__(self, hosts: list[str]) -> None:
        """Take the addresses of the hosts."""
        self._hosts = "{ " + ", ".join(hosts) + " }"

    @contextmanager
    def counting(self) -> Iterator[Counters]:
        """Count in the ``with`` block."""
        rules = self.RULES.format(table=self.TABLE, hosts=self._hosts)
        output(engine.as_root(["nft", f"table ip {self.TABLE} {{}}; delete table ip {self.TABLE}; {rules}"]))
        try:
            yield self
        finally:
            output(engine.as_root(["nft", "delete", "table", "ip", self.TABLE]))

    def read(self) -> int:
        """Return the number of connections tried since the last reading."""
        answer = output(engine.as_root(["nft", "--json", "reset", "counter", "ip", self.TABLE, "outside"]))
        entries = json.loads(answer)["nftables"]
        return sum(int(entry["counter"]["packets"]) for entry in entries if "counter" in entry)


@dataclass(frozen=True)
class Reached:
    """What the controller's processes reached for in a run, beside the hosts.

    Attributes:
        strange: connections, look-ups and programs that do not lead to a host.
        programs: the programs that were started, with how often.

    """

    strange: list[str]
    programs: Counter[str]


def watched_run(inventory: Site) -> Reached:
    """Run ``site.yml`` and note what the controller's processes reach for."""
    with tempfile.NamedTemporaryFile() as log:
        inventory.run(PYTHONPATH=str(AUDIT), FLEETWATCH_AUDIT=log.name)
        events = [json.loads(line) for line in log.read().decode().splitlines()]
    hosts = set(inventory.addresses.values())
    programs: Counter[str] = Counter()
    strange = []
    for event, what in events:
        if event.startswith("socket."):
            if not (event == "socket.getaddrinfo" and is_address(what[0])):
                strange.append(f"{event} {what}")
            continue
        words = what if isinstance(what, list) else what.split()
        program = Path(words[0]).name
        programs[program] += 1
        if program not in LOCAL and not (program in SSH and hosts.intersection(words)):
            strange.append(" ".join(words[:6]))
    return Reached(strange, programs)


def is_address(name: str) -> bool:
    """Tell whether there is nothing to look up."""
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def tasks_of_roles(run: Run) -> dict[str, tuple[int, int]]:
    """Return role -> tasks that it executed on the monitoring host, and those with which every run begins."""
    count: Counter[str] = Counter()
    for task in run.tasks:
        count[task.play] += MONITOR in task.executed
    return {role: (count[play], count[SHARED_PLAY]) for play, role in ROLES.items()}


def show_run(title: str, run: Run, outside: int) -> None:
    """Print what a run took."""
    say(
        f"{title}  {run.seconds:6.1f} s  {run.changed:3} changes  {outside:3} connections to the outside",
    )


def show_slowest(title: str, run: Run, number: int) -> None:
    """Print where the time goes."""
    say(f"\n{title}, {run.seconds:.1f} s, by task:")
    for task in run.slowest(number):
        say(f"  {task.seconds:5.1f} s  {len(task.executed):2} hosts  {task.name}")
    between = run.seconds - sum(task.seconds for task in run.tasks)
    say(f"  {between:5.1f} s            before, between and after {len(run.tasks)} tasks")


def main() -> int:
    """Run the benchmark and return the exit code."""
    end_properly()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="runs without a change; their median counts")
    parser.add_argument("--slowest", type=int, default=5, help="how many of the slowest tasks to show")
    options = parser.parse_args()
    say(
        f"{HOSTS} hosts of Debian {image.DEFAULT_RELEASE} as containers here, packages from a mirror,"
        f" ansible-core {version('ansible-core')} with ansible.cfg; {conditions()}"
    )
    try:
        with (
            site("bench-converge", [Spec(name) for name in NAMES], GROUPS) as inventory,
            Counters(list(inventory.addresses.values())).counting() as counters,
        ):
            fresh = inventory.run()
            fetched = counters.read()
            show_run("fresh run", fresh, fetched)
            again, left = [], 0
            for _ in range(options.runs):
                again.append(inventory.run())
                outside = counters.read()
                left += outside
                show_run("no change", again[-1], outside)
            reached = watched_run(inventory)
            left += counters.read()
    except (BenchError, LabError) as error:
        say(str(error))
        return 1

    show_slowest("Fresh run", fresh, options.slowest)
    show_slowest("No change", again[-1], options.slowest)
    say("\nNetwork, in a further run without a change:")
    say(f"  the controller started {', '.join(f'{n} x {p}' for p, n in reached.programs.most_common())};")
    say(f"  beside ssh to the hosts it reached for {'; '.join(reached.strange) or 'nothing'}")
    say(f"  in all of these runs the hosts tried {left} connections to others, {fetched} in the fresh run")

    say("\nTasks executed per role on a fresh host, validation of arguments and all:")
    say("  role           own  and those with which every run begins")
    tasks = tasks_of_roles(fresh)
    for role, (own, shared) in tasks.items():
        say(f"  {role:<13} {own:4}  {own + shared:3}")

    most = max(own + shared for own, shared in tasks.values())
    ratio = statistics.median(run.seconds for run in again) / fresh.seconds
    changed = max(run.changed for run in again)
    requests = left + len(reached.strange)
    good = most <= MAX_TASKS and ratio <= MAX_RATIO and changed == 0 and requests == 0
    return verdict(
        f"tasks per role: {most} (goal: at most {MAX_TASKS}), no change / fresh: {ratio:.2f}"
        f" (goal: at most {MAX_RATIO}), changed: {changed} (goal: 0), network requests: {requests} (goal: 0)",
        reached=good,
    )


if __name__ == "__main__":
    sys.exit(main())
