"""``make test-vagrant``: a lab of two virtual machines, emulated, and the tests that need them.

It asks neither for KVM nor for systemd. Where systemd does not run libvirt, its daemons are started here and
ended afterwards. They see a configuration and a network of their own; the machine's stay as they are.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lab import CACHE, ROOT, VENV, VM_STATE, apt, box, engine, inventory, preflight, prepare, vagrant, venv
from lab.console import Console, LabError, output
from lab.settings import Machines

PACKAGES = (
    "vagrant",
    "vagrant-libvirt",
    "libvirt-daemon-system",
    "libvirt-daemon",
    "libvirt-daemon-driver-qemu",
    "libvirt-clients",
    "qemu-system-x86",
    "dnsmasq-base",
    "netcat-openbsd",
    "iproute2",
    "slirp4netns",
)
"""What emulated machines take, besides what their boxes do."""

INVENTORY = "tests/vagrant/inventory"
WORK = CACHE / "libvirt"
NETWORK = Path("/run/netns") / engine.prefix("vm")
UPLINK = "slirp4netns"
LIBVIRT = ("virtlogd", "libvirtd")
DAEMON_SECONDS = 60
TEST_SECONDS = 2 * 60 * 60

# Everything is root's, and nothing is asked of a machine that may have no cgroups to give.
QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
"""

# Half the memory of a machine would go to the translation of its code.
QEMU = """\
#!/bin/bash
words=()
for word in "$@"; do
    [[ $word == tcg && ${words[-1]} == -accel ]] && word=tcg,tb-size=192
    words+=("$word")
done
exec qemu-system-x86_64 "${words[@]}"
"""

_UNDER = 'mount --bind "$1" /etc/libvirt/qemu.conf && shift && exec "$@"'


class Daemons:
    """Programs that run until the end of the tests, or with ``LAB_KEEP=1`` beyond.

    Args:
        console: where it is said what is started.

    """

    def __init__(self, console: Console) -> None:
        """Start nothing yet."""
        self.console = console
        self._pids = WORK / "pids.json"
        self._started: list[subprocess.Popen[bytes]] = []

    def pids(self) -> dict[str, int]:
        """Return the process ids of those that run, by name; also of those from an earlier run."""
        known = json.loads(self._pids.read_text(encoding="utf-8")) if self._pids.exists() else {}
        return {name: pid for name, pid in known.items() if _is(pid, name)}

    def start(self, name: str, command: list[str]) -> None:
        """Start one as root; what it says goes to a log of its name."""
        self.console.note(f"started until the end of the tests: {name}")
        running = self.pids()
        with (WORK / f"{name}.log").open("a", encoding="utf-8") as log:
            daemon = subprocess.Popen(  # noqa: S603 (fixed programs)
                engine.as_root(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started.append(daemon)
        self._pids.write_text(json.dumps(running | {name: daemon.pid}), encoding="utf-8")

    def wait(self, problem: Callable[[], str | None], name: str) -> None:
        """Wait until there is no problem left.

        Raises:
            LabError: there still is, after a minute.

        """
        deadline = time.monotonic() + DAEMON_SECONDS
        while found := problem():
            if time.monotonic() > deadline:
                self.end()
                raise LabError(f"{found}; what it said: {WORK}/{name}.log")
            time.sleep(0.2)

    def end(self) -> None:
        """End those that run, the last first."""
        deadline = time.monotonic() + DAEMON_SECONDS
        for name, pid in reversed(self.pids().items()):
            output(engine.as_root(["kill", str(pid)]))
            while _is(pid, name) and time.monotonic() < deadline:
                for daemon in self._started:
                    daemon.poll()  # one that ended is a process until it is asked
                time.sleep(0.2)
        self._pids.unlink(missing_ok=True)
        if NETWORK.exists():
            output(engine.as_root(["ip", "netns", "delete", NETWORK.name]))


def own_daemons() -> bool:
    """Tell whether libvirt is for us to run, or already ours.

    Raises:
        LabError: it is not, and does not run.

    """
    if not Path("/run/systemd/system").exists():
        return NETWORK.exists() or bool(vagrant.libvirtd_problem())
    if problem := vagrant.libvirtd_problem():
        raise LabError(problem)
    return False


def inside() -> bool:
    """Tell whether this process is in the network of the machines."""
    return NETWORK.exists() and NETWORK.stat().st_ino == Path("/proc/self/ns/net").stat().st_ino


def enter(daemons: Daemons) -> None:
    """Go on, from the start of the program, in a network namespace that exists for the machines alone.

    Their bridges, addresses and firewall rules are there, none in this machine's own network. What the
    machines fetch goes through slirp4netns, which needs no rule of this machine's firewall either.

    Raises:
        LabError: it cannot be made.

    """
    WORK.mkdir(parents=True, exist_ok=True)
    name = NETWORK.name
    if UPLINK not in daemons.pids():
        daemons.end()
        output(engine.as_root(["ip", "netns", "add", name]))
        output(engine.as_root(["ip", "-n", name, "link", "set", "lo", "up"]))
        daemons.start(
            UPLINK, [UPLINK, "--configure", "--mtu=65520", "--netns-type=path", str(NETWORK), "tap0"]
        )
        daemons.wait(lambda: None if "tap0" in _links() else "the machines have no way out", UPLINK)
    kept = {name: value for name, value in os.environ.items() if name.startswith(("LAB_", "VAGRANT_", "LC_"))}
    kept |= {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    user = [f"--reuid={os.getuid()}", f"--regid={os.getgid()}", "--init-groups"]
    again = ["setpriv", *user, sys.executable, "-m", "lab.emulation", *sys.argv[1:]]
    command = engine.as_root(
        ["ip", "netns", "exec", name, "env", *(f"{k}={v}" for k, v in kept.items()), *again]
    )
    os.execvp(command[0], command)  # noqa: S606 (a fixed program)


def _links() -> list[str]:
    said = output(engine.as_root(["ip", "-n", NETWORK.name, "-json", "address"]))
    return [link["ifname"] for link in json.loads(said) if link["addr_info"]]


def ensure_libvirt(daemons: Daemons) -> None:
    """Let libvirt answer: as the machine runs it, else by daemons of our own.

    Raises:
        LabError: it does not.

    """
    if not own_daemons():
        return
    if vagrant.libvirtd_problem():
        configuration = WORK / "qemu.conf"
        configuration.write_text(QEMU_CONF, encoding="utf-8")
        for name in LIBVIRT:
            daemons.start(name, ["unshare", "--mount", "sh", "-c", _UNDER, "sh", str(configuration), name])
        daemons.wait(vagrant.libvirtd_problem, LIBVIRT[-1])
    # Made anew each time: it goes with the daemon.
    pool = WORK / "pool"
    pool.mkdir(exist_ok=True)
    if "default" not in output(virsh("pool-list", "--all", "--name")).split():
        output(virsh("pool-create-as", "default", "dir", "--target", str(pool)))


def _is(pid: int, name: str) -> bool:
    """Tell whether a process is what it was."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
    except OSError:
        return False
    return name in words or f"/usr/sbin/{name}" in words


def virsh(*arguments: str) -> list[str]:
    """Return a command line for libvirt's own client."""
    return engine.as_root(["virsh", "--connect", "qemu:///system", *arguments])


def emulator() -> Path:
    """Write the program that stands in for qemu, and return its path."""
    WORK.mkdir(parents=True, exist_ok=True)
    program = WORK / "qemu"
    program.write_text(QEMU, encoding="utf-8")
    program.chmod(0o755)
    return program


def variables() -> dict[str, str]:
    """Return what the tests' machines are, as environment variables."""
    return {
        "LAB_INVENTORY": INVENTORY,
        "LAB_NODES": "0",
        "LAB_VM_DRIVER": "qemu",
        "LAB_VM_EMULATOR": str(emulator()),
        "LAB_BOX": "none",
        "VAGRANT_DEFAULT_PROVIDER": "libvirt",
    }


class Recap(vagrant.Progress):
    """Keeps what Ansible counts on each host."""

    def __init__(self) -> None:
        """Count nothing yet."""
        self.hosts: dict[str, dict[str, int]] = {}

    def show(self, line: str) -> str | None:
        """Show the counts too."""
        if found := re.match(r"\s*(\S+)\s+: (ok=.*)", line):
            words = [word.partition("=") for word in found[2].split()]
            self.hosts[found[1]] = {name: int(value) for name, _, value in words}
            super().show(line)
            return line.strip()
        return super().show(line)


def converge(console: Console, names: list[str], *arguments: str, changes: bool) -> None:
    """Run Vagrant so that it runs Ansible, and check what Ansible counted.

    Args:
        console: where it is shown.
        names: of all machines.
        arguments: of Vagrant.
        changes: whether there may be any.

    Raises:
        LabError: a host is missing, failed, or was changed though it may not be.

    """
    recap = Recap()
    vagrant.run(*arguments, console=console, seconds=vagrant.UP_SECONDS, watcher=recap)
    if sorted(recap.hosts) != sorted(names):
        raise LabError(f"Ansible ran on {', '.join(recap.hosts) or 'no host'}, not on {', '.join(names)}")
    wrong = ["failed", "unreachable", *([] if changes else ["changed"])]
    for name, counts in recap.hosts.items():
        if any(counts[word] for word in wrong):
            raise LabError(
                f"{name}: {', '.join(f'{word}={counts[word]}' for word in wrong)}; expected only 0"
            )


def check() -> list[str]:
    """Check what can be checked before anything is changed; return the Debian packages to install.

    Raises:
        prepare.ProblemsError: something stands in the way.

    """
    for check_one in (preflight.platform_problem, box.machine_problem, preflight.root_problem):
        if problem := check_one():
            raise prepare.ProblemsError([problem])
    missing = apt.missing([*PACKAGES, *box.BUILD_PACKAGES])
    found = vagrant.made()
    if found and _remembered():
        names = _names()
        found = [name for name in found if name not in names]
    if found:
        raise prepare.ProblemsError(
            [f"there is a lab of virtual machines ({', '.join(found)}): vagrant destroy"]
        )
    if missing and (problem := preflight.mirror_problem() or preflight.package_problem(missing)):
        raise prepare.ProblemsError([problem])
    return missing


def _remembered() -> bool:
    """Tell whether the machines that exist are those of the tests."""
    return Machines.load({}).inventory == INVENTORY


def _names() -> list[str]:
    return inventory.members(inventory.read(ROOT / INVENTORY, LAB_DRIVER="vagrant", LAB_NODES="0"), "all")


def test(console: Console, arguments: list[str]) -> None:
    """Make the machines, prove that they converge, run the tests on them, and remove them.

    ``LAB_KEEP=1`` leaves machines and daemons as they are; the next run goes on with them.

    Args:
        console: where progress is shown.
        arguments: for pytest.

    Raises:
        LabError: something failed.

    """
    if not venv.current():
        raise LabError("the virtual environment is missing or out of date: run make venv")
    prepare.install(check(), console)
    daemons = Daemons(console)
    if own_daemons() and not inside():
        enter(daemons)
    os.environ.update(variables())
    settings = Machines.load(os.environ)
    try:
        with console.phase("libvirt"):
            ensure_libvirt(daemons)
        specs = inventory.specs(vagrant.wanted(settings), settings.release)
        for release in sorted({spec.release for spec in specs}):
            box.ensure(release, console)
        names = [spec.name for spec in specs]
        if vagrant.made():
            # Those that the tests rebooted have lost their ports on 127.0.0.1: the tunnels end with a boot.
            with console.phase("vagrant reload"):
                vagrant.run("reload", "--no-provision", console=console, seconds=vagrant.UP_SECONDS)
        with console.phase(f"vagrant up: {', '.join(names)}"):
            *before, last = vagrant.steps(vagrant.plan(settings), "libvirt")
            for step in before:
                vagrant.run(*step, console=console, seconds=vagrant.UP_SECONDS)
            converge(console, names, *last, changes=True)
        with console.phase("Everything that they serve, on 127.0.0.1"):
            vagrant.live(settings, console)
        with console.phase("vagrant provision: nothing may change"):
            converge(console, names, "provision", changes=False)
        with console.phase("pytest tests/vagrant"):
            command = [str(VENV / "bin" / "pytest"), "-vv", "tests/vagrant", *arguments]
            console.run(vagrant.within(TEST_SECONDS, command), log="vagrant", watcher=Tests(), cwd=ROOT)
    finally:
        if os.environ.get("LAB_KEEP") == "1":
            shell = f": ip netns exec {NETWORK.name} bash" if inside() else ""
            console.say(f"Kept until the next make test-vagrant: the machines, libvirt, their network{shell}")
        else:
            _remove(daemons, console)


class Tests(vagrant.Progress):
    """Shows each test's outcome."""

    def show(self, line: str) -> str | None:
        """Return what pytest says about a test."""
        return line if re.search(r"(PASSED|FAILED|ERROR|SKIPPED|passed|failed)", line) else None


def _remove(daemons: Daemons, console: Console) -> None:
    with contextlib.suppress(LabError), console.phase("vagrant destroy"):
        if vagrant.made():
            vagrant.run("destroy", "--force", console=console, seconds=vagrant.SHORT_SECONDS)
        for name in ("lab.json", "addresses.json", "ssh_config", "secrets.yml"):
            (VM_STATE / name).unlink(missing_ok=True)
    daemons.end()


def main() -> int:
    """Run the command line."""
    os.umask(0o022)
    # Ended from outside, it cleans up as after an interrupt.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(CACHE / "log")
    try:
        test(console, sys.argv[1:])
    except LabError as error:
        console.say(f"\n{error}")
        return 1
    except KeyboardInterrupt:
        console.say("\nInterrupted.")
        return 130
    console.say(f"\nAll of it passed, in {time.monotonic() - console.started:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
