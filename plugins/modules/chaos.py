#!/usr/bin/python
# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""The module chaos: breaks something on a host on purpose, for a while, and mends it.

An experiment is one transient unit of systemd, which holds all of it. What breaks is its ``ExecStartPre``
and ``ExecStart``, what mends its ``ExecStopPost``. So the way back is armed before anything is broken, and
systemd goes it whatever happens: when the time is over, when the unit is stopped, when breaking failed
halfway, when the host is shut down, and when nobody can reach the host any more. As there is one name, there
is one experiment at a time.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: chaos
short_description: Break something on a host on purpose, for a while
description:
  - Runs an experiment as the transient unit C(fleetwatch-chaos.service), whose C(ExecStopPost) mends what
    was broken. systemd runs it when the time is over, when the unit is stopped, when the experiment fails
    halfway, and when the host is shut down. Nobody needs to reach the host for that.
  - Only one experiment runs on a host at a time; a second one is refused.
  - What an experiment needs is checked before anything is broken.
  - Whether an experiment may run on a host at all is not decided here; C(playbooks/chaos.yml) does.
attributes:
  check_mode:
    description: Everything is checked, nothing is broken or mended.
    support: full
options:
  state:
    description:
      - V(started) begins the experiment. V(stopped) ends the one that runs, and fails if not all was mended.
    type: str
    choices: [started, stopped]
    default: started
  experiment:
    description:
      - V(kill_unit) kills a unit with SIGKILL again and again.
      - V(errors) makes the transactions service fail, V(latency) makes it slow.
      - V(postgresql_stop) stops the cluster of PostgreSQL.
      - V(disk_fill) fills a file system, with a file that has no name and is gone with the unit. In a
        container its root, volumes, bind mounts and subvolumes are refused, as their space is that of the
        container's host. A file system in memory is, if it would take more than half of what is available.
      - V(packet_loss) drops packets from and to other hosts; SSH is spared. It needs nftables.
      - V(clock_skew) sets the clock, and stops what would correct it. Refused in containers, whose clock is
        that of their host.
    type: str
    choices: [kill_unit, errors, latency, postgresql_stop, disk_fill, packet_loss, clock_skew]
  seconds:
    description: How long it lasts at most.
    type: int
    default: 120
  by:
    description: Who does it; shown by C(systemctl status fleetwatch-chaos).
    type: str
    default: ansible
  unit:
    description:
      - The service that V(kill_unit) kills, or that V(postgresql_stop) stops; without it, the latter stops
        the only cluster that runs, and refuses what is none. SSH and systemd's own services are refused.
    type: str
  every:
    description: Seconds between two kills; more than Prometheus' scrape interval, so that it sees each.
    type: int
    default: 20
  error_rate:
    description: Share of the requests that fail, above 0 to 1.
    type: float
    default: 0.5
  latency:
    description: Seconds that are added to requests, above 0 to 10.
    type: float
    default: 0.5
  path:
    description: A folder of the file system that is filled.
    type: path
    default: /
  percent:
    description: How full it is then, in percent of its size, 50 to 95.
    type: int
    default: 95
  peers:
    description: Names or addresses of the hosts to and from which packets are lost.
    type: list
    elements: str
    default: []
  loss:
    description: Percent of the packets that are lost in each direction, 1 to 100.
    type: int
    default: 90
  spared_ports:
    description: TCP ports of this host that lose nothing, so that it stays in reach.
    type: list
    elements: int
    default: [22]
  offset:
    description: Seconds by which the clock is set forward, or back if negative; 5 to 3600.
    type: int
    default: 30
author: [The Fleetwatch authors]
"""

EXAMPLES = r"""
- name: Kill a unit for four minutes
  fleetwatch.monitoring.chaos:
    experiment: kill_unit
    unit: transactions-api@1.service
    seconds: 240

- name: Mend it before
  fleetwatch.monitoring.chaos:
    state: stopped
"""

RETURN = r"""
msg:
  description: What was done, in one line.
  returned: always
  type: str
ends:
  description: When it ends by itself at the latest, as Unix time.
  returned: when an experiment was started
  type: float
"""

import os  # noqa: E402 - Ansible's documentation blocks come first
import re  # noqa: E402
import shutil  # noqa: E402
import socket  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Mapping, Sequence  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from ipaddress import ip_address  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

Command = Sequence[str]
Run = Callable[[Command], tuple[int, str]]
"""Runs a command; returns its exit code and its output."""

UNIT = "fleetwatch-chaos.service"
RUNS = frozenset({"activating", "active", "deactivating"})
"""The states of the unit while an experiment is begun, goes on or is mended."""
TABLE = "fleetwatch_chaos"
"""Of nftables."""
MAX_SECONDS = 3600
PYTHON = "/usr/bin/python3"
SYSTEMCTL = "/usr/bin/systemctl"
SLEEP = "/usr/bin/sleep"
NEVER = ("dbus", "init", "ssh", "sshd", "systemd-", "fleetwatch-chaos", "user@", "getty@")
"""What is never broken begins so: without it nobody gets at the host, or nothing is mended."""
TIME_SERVICES = (
    "systemd-timesyncd.service",
    "chrony.service",
    "ntpsec.service",
    "ntp.service",
    "openntpd.service",
)
CLOCK_FILE = "/run/fleetwatch-chaos.clock"
"""Says what the clock would show without the experiment, as its distance to that which counts since boot."""
API = "transactions-api@1.service"
BEHAVIOUR = ("/usr/local/bin/fleetwatch-transactions", "behaviour")
"""Changes the behaviour of the transactions service; its role installs it."""

KILL = """
import subprocess, sys, time
unit, every, end = sys.argv[1], float(sys.argv[2]), time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    subprocess.run(["systemctl", "kill", "--signal=KILL", unit])
    time.sleep(max(0, min(every, end - time.monotonic())))
"""
# The file has no name, so it goes with the process, even if that is killed or the host loses its power.
FILL = """
import os, sys, tempfile, time
with tempfile.TemporaryFile(dir=sys.argv[1]) as file:
    os.posix_fallocate(file.fileno(), 0, int(sys.argv[2]))
    time.sleep(float(sys.argv[3]))
"""
# What is remembered does not depend on who else sets the clock meanwhile, and is complete or not there.
SET_CLOCK = """
import os, sys, time
path, offset = sys.argv[1], float(sys.argv[2])
now = time.time()
with open(path + ".new", "w") as file:
    file.write(repr(now - time.clock_gettime(time.CLOCK_BOOTTIME)))
os.replace(path + ".new", path)
time.clock_settime(time.CLOCK_REALTIME, now + offset)
"""
# One command, as systemd would not run a second one after a first that failed.
MEND_CLOCK = """
import os, subprocess, sys, time
path, start = sys.argv[1], sys.argv[2:]
try:
    if os.path.exists(path):
        with open(path) as file:
            at_boot = float(file.read())
        time.clock_settime(time.CLOCK_REALTIME, at_boot + time.clock_gettime(time.CLOCK_BOOTTIME))
        os.unlink(path)
finally:
    code = subprocess.run(start).returncode if start else 0
sys.exit(code)
"""


class RefusedError(Exception):
    """The experiment cannot be done here; nothing was touched. The message names the setting and the cure."""


@dataclass(frozen=True, slots=True)
class Plan:
    """An experiment as commands."""

    during: Command
    """Runs as long as the experiment lasts."""
    begin: Sequence[Command] = ()
    """Break."""
    end: Sequence[Command] = ()
    """Mend; a first word that begins with ``-`` may fail."""


def plan_of(params: Mapping[str, Any], run: Run) -> Plan:
    """Return what is to be done for an experiment, after a look whether the host can do it.

    :param params: the module's parameters.
    :raises RefusedError: it cannot be done.
    """
    within("seconds", params["seconds"], 1, MAX_SECONDS)
    return EXPERIMENTS[params["experiment"]](params, run)


def within(name: str, value: float, least: float, most: float) -> None:
    """Refuse a number that is out of its range.

    :raises RefusedError: it is.
    """
    if not least <= value <= most:
        raise RefusedError(f"{name} is {value:g}; it must be {least:g} to {most:g}.")


def kill_unit(params: Mapping[str, Any], run: Run) -> Plan:
    """Kill a unit with SIGKILL again and again."""
    unit = running_unit(params["unit"] or "", run)
    within("every", params["every"], 1, 600)
    return Plan(
        (PYTHON, "-I", "-c", KILL, unit, str(params["every"]), str(params["seconds"])),
        end=(("-" + SYSTEMCTL, "reset-failed", unit), (SYSTEMCTL, "start", unit)),
    )


def running_unit(unit: str, run: Run) -> str:
    """Return the full name of a service that runs and may be broken.

    :raises RefusedError: it is not given, does not run, or must not be broken.
    """
    if not unit:
        raise RefusedError("unit is not set; say which service, such as transactions-api@1.service.")
    name = unit if "." in unit else f"{unit}.service"
    if name.startswith(NEVER) or not name.endswith(".service") or set(name) & set(" /*?["):
        raise RefusedError(f"unit: {unit} is not touched by experiments; name a service of your programs.")
    if run([SYSTEMCTL, "is-active", "--quiet", "--", name])[0] != 0:
        raise RefusedError(
            f"unit: {name} does not run here, so there is nothing to break; name one that does."
        )
    return name


def postgresql_stop(params: Mapping[str, Any], run: Run) -> Plan:
    """Stop the cluster of PostgreSQL."""
    unit = params["unit"]
    if not unit:
        _, listed = run(
            [SYSTEMCTL, "list-units", "--plain", "--no-legend", "--state=active", "postgresql@*.service"]
        )
        running = [line.split()[0] for line in listed.splitlines() if line.strip()]
        if len(running) != 1:
            what = f"{', '.join(running)} run here" if running else "no postgresql@….service runs here"
            raise RefusedError(f"unit is not set, and {what}; name the cluster's unit.")
        (unit,) = running
    if not unit.startswith(("postgresql@", "postgresql.")):
        raise RefusedError(
            f"unit: {unit} is no cluster of PostgreSQL; name one such as postgresql@17-main.service."
        )
    unit = running_unit(unit, run)
    return Plan((SLEEP, str(params["seconds"])), [(SYSTEMCTL, "stop", unit)], [(SYSTEMCTL, "start", unit)])


def errors(params: Mapping[str, Any], run: Run) -> Plan:
    """Make the transactions service fail."""
    within("error_rate", params["error_rate"], 0.01, 1)
    return behaviour(params["seconds"], ["--error-rate", f"{params['error_rate']:g}"], run)


def latency(params: Mapping[str, Any], run: Run) -> Plan:
    """Make the transactions service slow."""
    within("latency", params["latency"], 0.01, 10)
    return behaviour(params["seconds"], ["--latency", f"{params['latency']:g}"], run)


def behaviour(seconds: int, change: Command, run: Run) -> Plan:
    """Change the behaviour of the transactions service, which also forgets it by itself.

    :raises RefusedError: it does not run here.
    """
    running_unit(API, run)
    return Plan(
        (SLEEP, str(seconds)),
        [(*BEHAVIOUR, *change, "--seconds", str(seconds))],
        [(*BEHAVIOUR, "--reset")],
    )


def disk_fill(params: Mapping[str, Any], run: Run) -> Plan:
    """Fill a file system."""
    path, percent = params["path"], params["percent"]
    within("percent", percent, 50, 95)
    if not os.path.isdir(path):  # noqa: PTH112 - a path is text in a module's parameters
        raise RefusedError(f"path: {path} is no folder; name one of the file system that is to be filled.")
    _, found = run(["/usr/bin/findmnt", "--noheadings", "--output=FSTYPE,FSROOT", f"--target={path}"])
    # The last is that which is seen, if several are mounted there.
    kind, _, root = (found.splitlines() or [""])[-1].strip().partition(" ")
    if ("overlay" in kind or root.strip() != "/") and container(run):
        raise RefusedError(
            f"path: the file system of {path} is that of the container's host, and of all that runs there; "
            "name a file system that is the container's own."
        )
    size = missing_bytes(os.statvfs(path), percent)
    if size <= 0:
        raise RefusedError(f"path: the file system of {path} is filled to {percent} % already; name another.")
    if kind in {"tmpfs", "ramfs"} and size > available_memory() / 2:
        raise RefusedError(
            f"path: {path} is in memory, of which not enough is available; name one on a disk."
        )
    return Plan((PYTHON, "-I", "-c", FILL, path, str(size), str(params["seconds"])))


def available_memory() -> int:
    """Return the bytes of memory that programs may still take."""
    with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123 - as one reads such files
        found = re.search(r"^MemAvailable:\s+(\d+) kB", file.read(), re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


def missing_bytes(filesystem: Any, percent: int) -> int:
    """Return how many bytes a file system lacks until so many percent of its size are not available.

    :param filesystem: the answer of ``os.statvfs``.
    """
    blocks = filesystem.f_bavail - -(-filesystem.f_blocks * (100 - percent) // 100)
    return int(blocks * filesystem.f_frsize)


def packet_loss(params: Mapping[str, Any], run: Run) -> Plan:
    """Drop packets from and to other hosts."""
    within("loss", params["loss"], 1, 100)
    nft = shutil.which("nft", path="/usr/sbin:/usr/bin")
    if not nft:
        raise RefusedError("packet_loss needs nftables; install it with: apt-get install nftables")
    if run([nft, "list", "tables"])[0] != 0:
        raise RefusedError(
            "packet_loss needs nf_tables in the kernel, and the right to use it; it has neither here."
        )
    addresses = sorted({address for peer in params["peers"] for address in addresses_of(peer)})
    if not addresses:
        raise RefusedError("peers is empty; name the hosts to which packets are to be lost.")
    drop = ("numgen", "random", "mod", "100", "<", str(params["loss"]), "drop")
    spared = ",".join(map(str, params["spared_ports"]))
    begin: list[Command] = [(nft, "add", "table", "inet", TABLE)]
    for hook, side, port in (("input", "saddr", "dport"), ("output", "daddr", "sport")):
        chain = ("inet", TABLE, hook)
        begin.append(
            (nft, "add", "chain", *chain, "{", f"type filter hook {hook} priority -150; policy accept;", "}")
        )
        if spared:
            begin.append((nft, "add", "rule", *chain, "tcp", port, "{", spared, "}", "accept"))
        for address in addresses:
            family = "ip6" if ":" in address else "ip"
            begin.append((nft, "add", "rule", *chain, family, side, address, *drop))
    # First it is tried whether the kernel knows all of it; then nothing is left half done.
    rules = "\n".join(" ".join(command[1:]) for command in begin)
    if (found := run([nft, "--check", rules]))[0] != 0:
        raise RefusedError(f"packet_loss: nftables refuses it here: {first_line(found[1])}")
    return Plan((SLEEP, str(params["seconds"])), begin, [(nft, "delete", "table", "inet", TABLE)])


def addresses_of(peer: str) -> set[str]:
    """Return the addresses of a host, but not those of this one.

    :raises RefusedError: it has none.
    """
    try:
        found = {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(peer, None)}
    except OSError as error:
        raise RefusedError(f"peers: {peer} has no address here: {error}.") from error
    others = {address for address in found if not own(address)}
    if not others:
        raise RefusedError(f"peers: {peer} is this host itself; name another.")
    return others


def own(address: str) -> bool:
    """Say whether an address is one of this host, so that a socket can be bound to it."""
    if ip_address(address).is_loopback:
        return True
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def clock_skew(params: Mapping[str, Any], run: Run) -> Plan:
    """Set the clock, and stop what would correct it."""
    within("offset", abs(params["offset"]), 5, 3600)
    if kind := container(run):
        raise RefusedError(
            f"clock_skew: this is a container ({kind}), and its clock is that of its host, which is not "
            "touched. Try it on a machine of its own, virtual or not."
        )
    services = [name for name in TIME_SERVICES if run([SYSTEMCTL, "is-active", "--quiet", name])[0] == 0]
    return Plan(
        (SLEEP, str(params["seconds"])),
        [
            # Of an experiment that could not be mended; if the next command fails, it must not be gone by.
            ("/usr/bin/rm", "--force", CLOCK_FILE),
            *([(SYSTEMCTL, "stop", *services)] if services else []),
            (PYTHON, "-I", "-c", SET_CLOCK, CLOCK_FILE, str(params["offset"])),
        ],
        [
            (
                *(PYTHON, "-I", "-c", MEND_CLOCK, CLOCK_FILE),
                *((SYSTEMCTL, "start", *services) if services else ()),
            )
        ],
    )


def container(run: Run) -> str:
    """Return what kind of container this is, or an empty text for a machine of its own."""
    code, kind = run(["/usr/bin/systemd-detect-virt", "--container"])
    return kind.strip() if code == 0 else ""


EXPERIMENTS: dict[str, Callable[[Mapping[str, Any], Run], Plan]] = {
    "kill_unit": kill_unit,
    "errors": errors,
    "latency": latency,
    "postgresql_stop": postgresql_stop,
    "disk_fill": disk_fill,
    "packet_loss": packet_loss,
    "clock_skew": clock_skew,
}


def started(params: Mapping[str, Any], run: Run, *, change: bool) -> dict[str, Any]:
    """Begin an experiment; returns the module's answer.

    :raises RefusedError: it cannot be done, or another one runs.
    """
    state = shown(run)
    if state.get("ActiveState") in RUNS:
        raise RefusedError(
            f"An experiment runs on this host already: {state.get('Description')}. Wait for its end, or "
            f"end it with: systemctl stop {UNIT}"
        )
    if state.get("ActiveState") == "failed":
        raise RefusedError(
            f"The last experiment on this host failed, and perhaps not all was mended: see journalctl -u "
            f"{UNIT}. Then forget it with: systemctl reset-failed {UNIT}"
        )
    plan = plan_of(params, run)
    name, seconds = params["experiment"], params["seconds"]
    answer = {"changed": True, "ends": time.time() + seconds}
    if not change:
        return answer | {"msg": f"{name} would begin."}
    code, output = run(systemd_run(plan, f"Experiment {name} of {params['by']}", seconds))
    if code != 0:
        raise RefusedError(f"{name} could not begin: {not_begun(first_line(output), run)}")
    return answer | {"msg": f"{name} has begun; it ends by itself within {seconds} s."}


def not_begun(reason: str, run: Run) -> str:
    """Return why an experiment has not begun; what it broke is mended already.

    :raises RefusedError: not everything was mended.
    """
    state = shown(run).get("ActiveState")
    if state in RUNS:  # the unit is not ours, and what it has yet to mend is not to be judged
        return f"another experiment has just begun on this host. {reason}"
    return f"{reason} {aftermath(run)}" if state == "failed" else reason


def systemd_run(plan: Plan, description: str, seconds: int) -> list[str]:
    """Return the command that runs a plan as the unit."""
    return [
        "/usr/bin/systemd-run",
        f"--unit={UNIT}",
        f"--description={description}",
        "--quiet",
        "--service-type=exec",
        # A second bound, should what runs not end by itself.
        f"--property=RuntimeMaxSec={seconds + 60}",
        "--property=TimeoutStopSec=300",
        "--property=OOMScoreAdjust=-900",
        *(f"--property=ExecStartPre={quoted(command)}" for command in plan.begin),
        *(f"--property=ExecStopPost={quoted(command)}" for command in plan.end),
        "--",
        *plan.during,
    ]


def quoted(command: Command) -> str:
    """Return a command as systemd reads it."""
    words = (word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for word in command)
    return " ".join(f'"{word}"' if set(word) & set(" \"'\\;") or not word else word for word in words)


def stopped(run: Run, *, change: bool) -> dict[str, Any]:
    """End the experiment that runs, if one does; returns the module's answer.

    :raises RefusedError: it could not be ended, or not everything could be mended.
    """
    state = shown(run)
    runs = state.get("ActiveState") in RUNS
    if runs and change:
        run([SYSTEMCTL, "stop", UNIT])
        state = shown(run)
        if state.get("ActiveState") in RUNS:
            raise RefusedError(
                f"The experiment could not be ended; it ends by itself. See: systemctl status {UNIT}"
            )
    if state.get("ActiveState") == "failed" and change:
        return {"changed": runs, "msg": f"The experiment failed. {aftermath(run)}"}
    return {"changed": runs, "msg": "The experiment was ended." if runs else "No experiment runs."}


def aftermath(run: Run) -> str:
    """Forget an experiment that failed, and return what its journal says.

    :raises RefusedError: not everything was mended, so that it must not be forgotten.
    """
    _, log = run(["/usr/bin/journalctl", f"--unit={UNIT}", "--lines=5", "--output=cat", "--no-pager"])
    _, commands = run([SYSTEMCTL, "show", UNIT, "--property=ExecStopPost"])
    if any(
        "ignore_errors=no" in command and not re.search(r"code=exited ; status=0\b", command)
        for command in commands.splitlines()
    ):
        raise RefusedError(
            f"Not everything could be mended: see journalctl -u {UNIT}, and systemctl cat {UNIT} for what "
            "was to be done. Then forget it with: systemctl reset-failed fleetwatch-chaos"
        )
    run([SYSTEMCTL, "reset-failed", UNIT])
    return f"All was mended. Its journal: {log.strip()}"


def shown(run: Run) -> dict[str, str]:
    """Return what systemd says of the unit."""
    _, output = run([SYSTEMCTL, "show", UNIT, "--property=ActiveState,Description,Result"])
    return dict(line.partition("=")[::2] for line in output.splitlines())


def first_line(text: str) -> str:
    """Return the first line that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")


ARGUMENTS: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
    "experiment": {"type": "str", "choices": list(EXPERIMENTS)},
    "seconds": {"type": "int", "default": 120},
    "by": {"type": "str", "default": "ansible"},
    "unit": {"type": "str"},
    "every": {"type": "int", "default": 20},
    "error_rate": {"type": "float", "default": 0.5},
    "latency": {"type": "float", "default": 0.5},
    "path": {"type": "path", "default": "/"},
    "percent": {"type": "int", "default": 95},
    "peers": {"type": "list", "elements": "str", "default": []},
    "loss": {"type": "int", "default": 90},
    "spared_ports": {"type": "list", "elements": "int", "default": [22]},
    "offset": {"type": "int", "default": 30},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[("state", "started", ("experiment",))],
        supports_check_mode=True,
    )

    def run(command: Command) -> tuple[int, str]:
        try:
            code, output, errors = module.run_command(list(command), handle_exceptions=False)
        except OSError as error:  # the host has no such program
            return 127, str(error)
        return code, output + errors

    try:
        if module.params["state"] == "started":
            answer = started(module.params, run, change=not module.check_mode)
        else:
            answer = stopped(run, change=not module.check_mode)
    except RefusedError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
