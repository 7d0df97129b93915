"""What systemd's services use, by their control groups.

The kernel counts by control group, and systemd gives each service one. Which counters there are depends on
the host: all in the one hierarchy of cgroup v2, the usual case; some in those of v1; hardly any in a
container that was given no controllers. What has no counter is summed over the processes in the group, as
https://docs.kernel.org/filesystems/proc.html has them.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from fleetwatch.collector.plan import Plan

from . import cgroups
from .cgroups import Group, Tree, Wanted, keyed, read, words
from .families import Metrics, counters, gauges, label, table

BLOCK_DEVICES = Path("/sys/dev/block")
LIMITS_FOR = 60.0
"""Seconds for which a limit is taken as read; hardly ever does one change."""
KILLS_FOR = 3600.0
"""Seconds for which a service that is gone is remembered if a process of it was killed."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")
_MICRO, _NANO = 1e-6, 1e-9
_NO_LIMIT = 1 << 60
"""cgroup v1 has a number, nearly 2^63, where v2 says max."""


@dataclass
class Use:
    """What a service uses; None where the host does not tell."""

    cpu: float | None = None
    cpu_limit: float | None = None
    memory: float | None = None
    memory_limit: float | None = None
    tasks: float | None = None
    read: float | None = None
    written: float | None = None
    sources: dict[str, str] = field(default_factory=dict)
    """Resource to where it was read."""


class _Limits(NamedTuple):
    inode: int
    until: float
    cpu: float | None
    memory: float | None


class Units:
    """What the services use."""

    def __init__(self, plan: Plan) -> None:
        """Take the filters."""
        self._wanted = Wanted(plan.units_include, plan.units_exclude)
        self._limits: dict[str, _Limits] = {}
        self._processes: dict[str, Processes] = {}
        self._stacked: dict[str, bool] = {}
        self._enabled: dict[str, list[bytes]] = {}
        self._kills = Kills()

    def __call__(self) -> Metrics:
        """Return the metrics; none where systemd does not run the host."""
        tree = Tree.find()
        if tree is None:
            return []
        now = time.monotonic()
        self._enabled.clear()
        every = tree.services()
        groups = [group for group in every if self._wanted(group.unit)]
        uses = [(group.unit, self._use(tree, group, now)) for group in groups]
        running = {group.unit for group in groups}
        self._limits = {unit: limits for unit, limits in self._limits.items() if unit in running}
        self._processes = {unit: seen for unit, seen in self._processes.items() if unit in running}
        kills = self._kills.count(tree, every, now)
        sources = Counter(source for _, use in uses for source in use.sources.items())
        return [
            *table(
                CounterMetricFamily,
                ["unit"],
                {
                    "host_unit_cpu_seconds": "CPU time of the service since its start; where it is read from "
                    "processes, without what one used between the last look and its end.",
                    "host_unit_io_read_bytes": "Bytes that it read from disks, where that is counted.",
                    "host_unit_io_written_bytes": "Bytes that it wrote to disks, where that is counted.",
                },
                (([label(unit)], (use.cpu, use.read, use.written)) for unit, use in uses),
            ),
            *table(
                GaugeMetricFamily,
                ["unit"],
                {
                    "host_unit_cpu_limit_cores": "Cores that the service may use, if it has a limit.",
                    "host_unit_memory_bytes": "Memory of the service without cached files not in use; where "
                    "it is read from processes, what each has for itself and the most that one shares.",
                    "host_unit_memory_limit_bytes": "Memory that the service may use, if it has a limit.",
                    "host_unit_tasks": "Processes and threads of the service.",
                },
                (
                    ([label(unit)], (use.cpu_limit, use.memory, use.memory_limit, use.tasks))
                    for unit, use in uses
                ),
            ),
            counters(
                "host_unit_oom_kills",
                "Processes killed for lack of memory since the collector began, by service, or by slice "
                "where it is not known of which service they were.",
                ["unit"],
                (([label(unit)], number) for unit, number in kills.items() if self._wanted(unit)),
            ),
            gauges(
                "host_unit_sources",
                "Services by where their use of a resource was read: cgroup2, cgroup1, or proc (processes).",
                ["resource", "source"],
                sources.items(),
            ),
        ]

    def _use(self, tree: Tree, group: Group, now: float) -> Use:
        use = Use()
        if tree.unified:
            inside = group.path.rpartition("/")[0]
            if inside not in self._enabled:
                self._enabled[inside] = tree.enabled(inside)
            self._unified(use, tree.unified + group.path, self._enabled[inside])
        if tree.controllers:
            self._controllers(use, tree.controllers, group.path)
        if use.cpu is None or use.memory is None or use.tasks is None:
            self._from_processes(use, tree, group)
        limits = self._limits.get(group.unit)
        if limits is None or limits.inode != group.inode or now >= limits.until:
            limits = self._limits[group.unit] = _limits(tree, group, now)
        use.cpu_limit, use.memory_limit = limits.cpu, limits.memory
        return use

    def _unified(self, use: Use, path: str, enabled: list[bytes]) -> None:
        """Read what cgroup v2 counts: the CPU always, the rest if the controller is on."""
        if text := read(f"{path}/cpu.stat"):
            use.cpu, use.sources["cpu"] = keyed(text, b"usage_usec") * _MICRO, "cgroup2"
        if b"memory" in enabled and (text := read(f"{path}/memory.current")):
            inactive = keyed(read(f"{path}/memory.stat"), b"inactive_file")
            use.memory, use.sources["memory"] = max(0, int(text) - inactive), "cgroup2"
        if b"pids" in enabled and (text := read(f"{path}/pids.current")):
            use.tasks, use.sources["tasks"] = int(text), "cgroup2"
        if b"io" in enabled and (text := read(f"{path}/io.stat")) is not None:
            # 8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0
            items = [item for device, *rest in words(text) if self._counts(device) for item in rest]
            use.read, use.written = (
                sum(int(item.removeprefix(key)) for item in items if item.startswith(key))
                for key in ("rbytes=", "wbytes=")
            )
            use.sources["io"] = "cgroup2"

    def _controllers(self, use: Use, directories: Mapping[str, str], path: str) -> None:
        """Read what cgroup v1 counts, if it is not known yet."""

        def ask(controller: str, file: str) -> bytes | None:
            directory = directories.get(controller)
            return read(f"{directory}{path}/{file}") if directory else None

        if use.cpu is None and (text := ask("cpuacct", "cpuacct.usage")):
            use.cpu, use.sources["cpu"] = int(text) * _NANO, "cgroup1"
        if use.memory is None and (text := ask("memory", "memory.usage_in_bytes")):
            inactive = keyed(ask("memory", "memory.stat"), b"total_inactive_file")
            use.memory, use.sources["memory"] = max(0, int(text) - inactive), "cgroup1"
        if use.tasks is None and (text := ask("pids", "pids.current")):
            use.tasks, use.sources["tasks"] = int(text), "cgroup1"
        if (
            use.read is None
            and (text := ask("blkio", "blkio.throttle.io_service_bytes_recursive")) is not None
        ):
            # 8:16 Read 1459200
            items = [rest for device, *rest in words(text) if self._counts(device)]
            use.read, use.written = (
                sum(int(rest[1]) for rest in items if rest[0] == way) for way in ("Read", "Write")
            )
            use.sources["io"] = "cgroup1"

    def _counts(self, device: str) -> bool:
        """Return whether a disk counts: one that lies on others, as of LVM, would count their bytes again."""
        if device not in self._stacked:
            slaves = BLOCK_DEVICES / device / "slaves"
            self._stacked[device] = slaves.is_dir() and any(slaves.iterdir())
        return not self._stacked[device]

    def _from_processes(self, use: Use, tree: Tree, group: Group) -> None:
        pids = tree.pids(group)
        if pids is None:  # a 0 would look as if it had started anew
            return
        seen = self._processes.get(group.unit)
        if seen is None or seen.inode != group.inode:
            seen = self._processes[group.unit] = Processes(group.inode)
        seen.look(pids)
        if use.cpu is None:
            use.cpu, use.sources["cpu"] = seen.cpu, "proc"
        if use.memory is None:
            use.memory, use.sources["memory"] = seen.memory, "proc"
        if use.tasks is None:
            use.tasks, use.sources["tasks"] = seen.tasks, "proc"


class _Process(NamedTuple):
    cpu: float
    """That it used, and those of its children that it has waited for."""
    parent: int


class Processes:
    """The sum over the processes of a service, and what ended ones had used, as far as was seen."""

    def __init__(self, inode: int) -> None:
        """Begin with a control group."""
        self.inode = inode
        self.cpu = 0.0
        self.memory = self.tasks = 0
        self._live: dict[tuple[int, str], _Process] = {}
        self._ended = 0.0

    def look(self, pids: list[int]) -> None:
        """Read the processes."""
        live: dict[tuple[int, str], _Process] = {}
        private = shared = tasks = 0
        for pid in pids:
            stat, statm = read(f"{cgroups.PROC}/{pid}/stat"), read(f"{cgroups.PROC}/{pid}/statm")
            if not stat or not statm:  # it ended just now
                continue
            # The name, in brackets, may have anything in it. See proc_pid_stat(5) for the fields.
            fields = stat[stat.rindex(b")") + 2 :].split(b" ")
            used = sum(map(int, fields[11:15])) / _TICK
            live[pid, fields[19].decode()] = _Process(used, int(fields[1]))
            tasks += int(fields[17])
            _, resident, common, *_ = map(int, statm.split(b" "))
            private += resident - common
            shared = max(shared, common)
        # What a child had used is now in its parent's, if that has waited for it and is in the service too;
        # if that has ended as well, in its parent's.
        pids_now = {pid for pid, _ in live}
        before = {pid: process.parent for (pid, _), process in self._live.items()}
        self._ended += sum(
            process.cpu
            for key, process in self._live.items()
            if key not in live and not _is_under(pids_now, process.parent, before)
        )
        self._live = live
        # A child that nobody has waited for yet would otherwise be missing for a while.
        self.cpu = max(self.cpu, self._ended + sum(process.cpu for process in live.values()))
        self.memory, self.tasks = (private + shared) * _PAGE, tasks


def _is_under(pids: set[int], parent: int, parents: Mapping[int, int]) -> bool:
    """Return whether a process with this parent is below one of ``pids``, by the ``parents`` of others."""
    for _ in range(len(parents) + 1):  # numbers that were given away anew could make a circle
        if parent in pids or parent not in parents:
            break
        parent = parents[parent]
    return parent in pids


class Kills:
    """Counts processes that were killed for lack of memory, also those that took their service with them.

    It begins at 0 with the collector: a count that went on from another would look like new kills.

    The count of a service is in its control group, which systemd removes when the service ends, and a kill
    mostly ends it. With cgroup v2 the outermost slice counts for all below it and stays, so what it counted
    and no service there has is of one that is gone.
    """

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self._first = True
        self._slices: dict[str, int] = {}
        self._groups: dict[str, Group] = {}
        self._own: dict[tuple[str, int], int] = {}
        """Service and inode of its control group to what that had counted when it was last read."""
        self._total: dict[str, int] = {}
        self._at: dict[str, float] = {}

    def count(self, tree: Tree, groups: list[Group], now: float) -> Mapping[str, int]:
        """Return the kills of each service that can tell them, and of slices those of nobody."""
        current = {group.unit: group for group in groups}
        if tree.unified:
            self._unified(tree.unified, current, now)
        if "memory" in tree.controllers:
            for group in groups:
                text = read(f"{tree.controllers['memory']}{group.path}/memory.oom_control")
                if text is not None:
                    self._add(group, keyed(text, b"oom_kill"), now)
        self._groups, self._first = current, False
        keys = {(group.unit, group.inode) for group in groups}
        self._own = {key: number for key, number in self._own.items() if key in keys}
        stale = [
            unit
            for unit in self._total
            if unit not in current
            and unit not in self._slices
            and now - self._at.get(unit, float("-inf")) > KILLS_FOR
        ]
        for unit in stale:
            del self._total[unit]
            self._at.pop(unit, None)
        return self._total

    def _unified(self, directory: str, current: Mapping[str, Group], now: float) -> None:
        for top in {group.top for group in [*current.values(), *self._groups.values()]}:
            text = read(f"{directory}/{top}/memory.events")
            if text is None:  # the controller is off, or the slice is gone
                self._slices.pop(top, None)
                continue
            number, before = keyed(text, b"oom_kill"), self._slices.get(top)
            self._slices[top] = number
            self._total.setdefault(top, 0)
            here = [group for group in current.values() if group.top == top]
            if number == before:
                for group in here:
                    self._total.setdefault(group.unit, 0)
                continue
            grew = 0
            for group in here:
                events = read(f"{directory}{group.path}/memory.events")
                if events is not None:
                    grew += self._add(group, keyed(events, b"oom_kill"), now)
            if before is not None and (rest := number - before - grew) > 0:
                gone = [
                    unit
                    for unit, group in self._groups.items()
                    if group.top == top and (unit not in current or current[unit].inode != group.inode)
                ]
                culprit = gone[0] if len(gone) == 1 else top
                self._total[culprit] = self._total.get(culprit, 0) + rest
                self._at[culprit] = now

    def _add(self, group: Group, number: int, now: float) -> int:
        """Take the count of a group and return what is new of it."""
        key = (group.unit, group.inode)
        new = 0 if self._first else max(0, number - self._own.get(key, 0))
        self._own[key] = number
        self._total[group.unit] = self._total.get(group.unit, 0) + new
        if new:
            self._at[group.unit] = now
        return new


def _limits(tree: Tree, group: Group, now: float) -> _Limits:
    cpu = memory = None
    if tree.unified:
        path = tree.unified + group.path
        # 50000 100000: microseconds in each period, and the period
        if (text := read(f"{path}/cpu.max")) and not text.startswith(b"max"):
            quota, period = map(int, text.split())
            cpu = quota / period
        if (text := read(f"{path}/memory.max")) and not text.startswith(b"max"):
            memory = float(text)
    if cpu is None and (directory := tree.controllers.get("cpu")):
        quota, period = (
            int(read(f"{directory}{group.path}/cpu.cfs_{name}_us") or -1) for name in ("quota", "period")
        )
        if quota > 0 and period > 0:
            cpu = quota / period
    if memory is None and (directory := tree.controllers.get("memory")):
        number = int(read(f"{directory}{group.path}/memory.limit_in_bytes") or _NO_LIMIT)
        memory = float(number) if number < _NO_LIMIT else None
    return _Limits(group.inode, now + LIMITS_FOR, cpu, memory)
