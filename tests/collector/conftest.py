"""A host that systemd runs, as files: control groups and processes of the kernel's, and a systemctl."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fleetwatch.collector.collectors import cgroups, unit_states, units

MEMORY_STAT = """anon 70000000
file 30000000
kernel 1000000
shmem 0
inactive_anon 60000000
active_anon 10000000
inactive_file 20000000
active_file 10000000
workingset_refault_file 123
"""
"""The first lines of memory.stat of cgroup v2, as its documentation and Linux 6.1 have them."""
CPU_STAT = """usage_usec {usage}
user_usec 1000000
system_usec 500000
nice_usec 0
core_sched.force_idle_usec 0
nr_periods 0
nr_throttled 0
throttled_usec 0
"""
MEMORY_EVENTS = """low 0
high 0
max 12
oom {kills}
oom_kill {kills}
oom_group_kill 0
"""
IO_STAT = """8:16 rbytes=1000 wbytes=3000 rios=192 wios=353 dbytes=0 dios=0
8:0 rbytes=90430464 wbytes=299008000 rios=8950 wios=1252 dbytes=50331648 dios=3021
253:0 rbytes=1000 wbytes=3000 rios=192 wios=353 dbytes=0 dios=0
7:0 
"""  # noqa: W291 - the kernel does so for a disk that was not used
SHOW = """Result=success
NRestarts={restarts}
Id={unit}
ActiveState={state}
ActiveEnterTimestamp={since}
"""


class Host:
    """The files; to be filled by a test."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        """Make a host without any service."""
        self.cgroups, self.proc, self.block = root / "cgroup", root / "proc", root / "block"
        self.booted, self.invocations = root / "booted", root / "units"
        self.systemctl, self.answer, self.asked = root / "systemctl", root / "answer", root / "asked"
        for folder in (self.cgroups, self.proc / "1", self.block, self.booted, self.invocations):
            folder.mkdir(parents=True)
        self.systemctl.write_text(f'#!/bin/sh\necho "$@" >> {self.asked}\nexec cat {self.answer}\n')
        self.systemctl.chmod(0o755)
        self.answer.write_text("")
        patch.setattr(cgroups, "CGROUPS", self.cgroups)
        patch.setattr(cgroups, "PROC", self.proc)
        patch.setattr(cgroups, "BOOTED", self.booted)
        patch.setattr(units, "BLOCK_DEVICES", self.block)
        patch.setattr(unit_states, "SYSTEMCTL", str(self.systemctl))
        patch.setattr(unit_states, "INVOCATIONS", self.invocations)

    def unified(self, base: str = "", under: str = "") -> Path:
        """Have cgroup v2, and return where systemd's units are in it."""
        root = self.cgroups / under
        root.mkdir(exist_ok=True)
        (root / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
        self._process_1(f"0::{base}/init.scope\n")
        return self._folder(root, base)

    def legacy(self, *controllers: str, base: str = "") -> dict[str, Path]:
        """Have cgroup v1 with these hierarchies, and return where systemd's units are in each."""
        found = {}
        for number, names in enumerate(("name=systemd", *controllers), start=1):
            self._process_1(f"{number}:{names}:{base}/init.scope\n")
            found[names] = self._folder(self.cgroups / names.removeprefix("name="), base)
        return found

    def _folder(self, root: Path, base: str) -> Path:
        folder = Path(f"{root}{base}")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _process_1(self, line: str) -> None:
        with (self.proc / "1/cgroup").open("a") as file:
            file.write(line)

    def process(self, pid: int, cpu: float, parent: int = 1, **values: int) -> None:
        """Have a process, with seconds of CPU, of ``children`` too; ``resident`` and ``shared`` are pages."""
        tick, children = os.sysconf("SC_CLK_TCK"), values.get("children", 0)
        folder = self.proc / str(pid)
        folder.mkdir(exist_ok=True)
        fields = ["S", parent, pid, pid, 0, -1, 4194560, 1, 2, 3, 4]
        fields += [round(cpu * tick), 0, children * tick, 0]
        fields += [20, 0, values.get("threads", 1), 0, 7000 + pid, 1 << 30, 999, 0]
        (folder / "stat").write_text(f"{pid} (a) b (c) {' '.join(map(str, fields))}\n")
        resident, shared = values.get("resident", 0), values.get("shared", 0)
        (folder / "statm").write_text(f"300000 {resident} {shared} 10 0 500 0\n")

    def ends(self, pid: int) -> None:
        """Let a process be gone."""
        for file in (self.proc / str(pid)).iterdir():
            file.unlink()

    def says(self, *services: tuple[str, str, int]) -> None:
        """Let systemctl tell of services: name, state, restarts."""
        since = "@1795294284"
        self.answer.write_text(
            "\n".join(
                SHOW.format(unit=unit, state=state, restarts=restarts, since=since)
                for unit, state, restarts in services
            )
        )

    def something_began(self) -> None:
        """Let systemd write a link, as it does when a unit begins."""
        before = self.invocations.stat().st_mtime_ns
        (self.invocations / f"invocation:{time.monotonic_ns()}.service").symlink_to("0123")
        os.utime(self.invocations, ns=(before + 1, before + 1))

    @property
    def times_asked(self) -> int:
        """Return how often systemctl ran."""
        return len(self.asked.read_text().splitlines()) if self.asked.exists() else 0


def write(folder: Path, **files: str) -> Path:
    """Make a control group with files; ``cpu_stat`` is cpu.stat, and ``oom__control`` oom_control."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        file = name.replace("__", "-").replace("_", ".").replace("-", "_")
        (folder / file).write_text(text)
    return folder


def counted(folder: Path, usage: int = 1_500_000, kills: int = 0, memory: int = 100_000_000) -> Path:
    """Make a service's control group of cgroup v2, as with all accounting on."""
    write(folder.parent, cgroup_subtree__control="cpu io memory pids\n")
    return write(
        folder,
        cgroup_procs="",
        cpu_stat=CPU_STAT.format(usage=usage),
        cpu_max="max 100000\n",
        memory_current=f"{memory}\n",
        memory_stat=MEMORY_STAT,
        memory_max="max\n",
        memory_events=MEMORY_EVENTS.format(kills=kills),
        pids_current="5\n",
    )


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Return a host that systemd runs."""
    return Host(tmp_path, monkeypatch)
