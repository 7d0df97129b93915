"""Sandbox and limits as a kernel of their own enforces them, and metrics of a whole machine."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.vagrant.support import (
    EVERY_UNIT,
    PATIENCE,
    UNITS,
    AlertPath,
    properties,
    sandboxed,
    wait_for,
)

EXPOSURE_LIMIT = 20
"""Of ``systemd-analyze security``, in tenths: 0 is best, 100 worst."""

PROBE = Path(__file__).with_name("probe.py").read_text(encoding="utf-8")
NEEDED = {"file in /tmp", "TCP"}
"""Attempts of the probe that each service has to be allowed."""
ALLOWED = {"node_exporter": {"netlink"}}
"""What a unit may do beyond that."""

CLOSED = ["/proc/sys/kernel/panic", "/sys/fs/cgroup/cgroup.procs", "/etc/hostname", "/usr", "/boot", "/root"]
"""What root may write, and no unit."""

LIMITS = {"MemoryMax": "memory.max", "MemoryHigh": "memory.high", "TasksMax": "pids.max"}
"""Property of a unit to its file in the cgroup."""
METRICS = "curl --silent --fail http://127.0.0.1:9100/metrics"

KEPT_SMALL = {"MemoryMax": str(256 << 20), "TasksMax": "64"}
"""What the inventory sets for the Pushgateway's unit."""


@pytest.fixture
def host(request: pytest.FixtureRequest, name: str) -> Host:
    """Return the VM of the test's parameters."""
    found: Host = request.getfixturevalue(name)
    return found


@pytest.mark.parametrize("name", list(UNITS))
def test_not_even_root_gets_out_of_a_sandbox(host: Host, name: str) -> None:
    answers = sandboxed(host, ["", *UNITS[name]], PROBE)
    without = answers.pop("")
    assert {what: how for what, how in without.items() if how != "done"} == {}, "refused without a sandbox"
    for unit, found in answers.items():
        allowed = NEEDED | ALLOWED.get(unit, set())
        assert {what for what, how in found.items() if how == "done"} == allowed, unit


@pytest.mark.parametrize(("name", "unit"), EVERY_UNIT)
def test_the_running_process_is_confined(host: Host, name: str, unit: str) -> None:
    """Seen from the kernel, and as root from within its view of the files."""
    process = properties(host, unit, "MainPID")["MainPID"]
    inside = f"nsenter --target {process} --mount --"
    look = (
        f"cat /proc/{process}/status; "
        f"for path in {' '.join(CLOSED)}; do test -w $path && echo may: $path; done; "
        f"{inside} sh -c 'for path in {' '.join(CLOSED)}; do test -w $path && echo inside: $path; done; "
        "test -e /dev/vda && echo inside: disk; test -e /dev/null && echo inside: null'"
    )
    lines = [line.split(":", 1) for line in host.check_output(look).splitlines()]
    status = {name: value.strip() for name, value in lines}
    assert status["Uid"].split()[0] != "0"
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert {status[kind].strip("0") for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {""}
    assert [value.strip() for name, value in lines if name == "may"] == CLOSED
    assert [value.strip() for name, value in lines if name == "inside"] == ["null"]


@pytest.mark.parametrize(("name", "unit"), EVERY_UNIT)
def test_exposure_is_low_on_this_kernel(host: Host, name: str, unit: str) -> None:
    analysis = host.run(f"systemd-analyze security --threshold={EXPOSURE_LIMIT} {unit}.service")
    assert analysis.rc == 0, analysis.stdout.splitlines()[-1]


@pytest.mark.parametrize("name", list(UNITS))
def test_limits_are_in_force_in_the_kernel(host: Host, name: str) -> None:
    assert host.check_output("stat --file-system --format=%T /sys/fs/cgroup") == "cgroup2fs"
    for unit in UNITS[name]:
        wanted = properties(host, unit, "ControlGroup", "LimitNOFILE", "MainPID", *LIMITS)
        files = " ".join(f"/sys/fs/cgroup{wanted['ControlGroup']}/{file}" for file in LIMITS.values())
        lines = host.check_output(f"cat {files} /proc/{wanted['MainPID']}/limits").splitlines()
        for limit, found in zip(LIMITS, lines, strict=False):
            assert found.replace("max", "infinity") == wanted[limit], f"{limit} of {unit}"
        (files_open,) = [line for line in lines if line.startswith("Max open files")]
        assert wanted["LimitNOFILE"] == files_open.split()[4]
        assert wanted["TasksMax"] != "infinity", f"{unit} may start any number of processes"


def test_limits_of_the_inventory_are_in_force(monitor: Host) -> None:
    assert properties(monitor, "pushgateway", *KEPT_SMALL) == KEPT_SMALL


def test_a_process_killed_for_its_memory_is_told_of(receiver: Host, path: AlertPath) -> None:
    """The kernel's count is that of the VM alone, and so is its alert."""
    before = {name: path.newest("NodeOOMKill", host=name) for name in UNITS}
    greedy = "MemoryMax=32M --property=MemorySwapMax=0 python3 -c 'bytearray(256 << 20)'"
    run = receiver.run(f"systemd-run --wait --collect --property={greedy}")
    assert "oom-kill" in run.stderr, run.stderr
    path.wait_fired("NodeOOMKill", "receiver", before["receiver"])
    assert path.newest("NodeOOMKill", host="monitor") == before["monitor"]
    assert receiver.check_output("systemctl --failed --no-legend") == ""


@pytest.mark.parametrize("name", list(UNITS))
def test_node_exporter_shows_this_machine(host: Host, name: str, path: AlertPath) -> None:
    def load_is_shown() -> list[str]:
        """Return the metrics, if the load stayed the same meanwhile; it changes every five seconds."""
        show = "cut -d' ' -f1 /proc/loadavg"
        before, *lines, after = host.check_output(f"{show}; {METRICS}; {show}").splitlines()
        return lines if float(before) == value(lines, "node_load1") == float(after) else []

    lines = wait_for(load_is_shown, PATIENCE)
    stat = host.check_output("cat /proc/stat")
    boot_time = float(re.findall(r"^btime (\d+)$", stat, re.MULTILINE)[0])
    assert value(lines, "node_boot_time_seconds") == boot_time
    assert f"btime {boot_time:.0f}\n" not in Path("/proc/stat").read_text(), "that of the machine below"
    size = host.check_output(
        "python3 -c 'import os; disk = os.statvfs(\"/\"); print(disk.f_blocks * disk.f_frsize)'"
    )
    assert value(lines, "node_filesystem_size_bytes", 'fstype="ext4"', 'mountpoint="/"') == float(size)
    memory = re.findall(r"^MemTotal: +(\d+) kB", host.check_output("cat /proc/meminfo"), re.MULTILINE)[0]
    assert value(lines, "node_memory_MemTotal_bytes") == float(memory) * 1024
    release = host.check_output("uname -r")
    assert value(lines, "node_uname_info", f'release="{release}"', f'nodename="{name}"') == 1
    assert release != os.uname().release, "that of the machine below"
    wait_for(lambda: path.query(f'node_uname_info{{host="{name}",release="{release}"}}'), PATIENCE)


def value(metrics: list[str], name: str, *labels: str) -> float:
    """Return the one value of a metric with these labels."""
    pattern = re.compile(rf"{name}[{{ ]")
    found = [line for line in metrics if pattern.match(line) and all(label in line for label in labels)]
    assert len(found) == 1, f"{name}: {found}"
    return float(found[0].rpartition(" ")[2])
