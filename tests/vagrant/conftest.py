"""The virtual machines, as ``make test-vagrant`` left them: running, and set up by ``site.yml``.

Here a machine under software emulation is ten times slower than a real one: nothing may assume to be quick.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import testinfra
from testinfra.host import Host

from lab import VM_STATE, settings
from lab.alert import Tokens, Urls, read_tokens
from tests.vagrant.support import AlertPath

SSH_CONFIG = VM_STATE / "ssh_config"
SSH = ["ssh", "-F", str(SSH_CONFIG), "-o", "ControlPath=none"]
BOOT_SECONDS = 900
"""What a machine may take to be back."""
COMMAND_SECONDS = 600


class Vm:
    """A virtual machine.

    Attributes:
        name: in the inventory.
        host: testinfra's view of it, as root.
        address: its IP address in the private network, which this machine reaches too.

    """

    def __init__(self, name: str, folder: Path) -> None:
        """Touch nothing yet. folder: for the socket of the connection that all commands share."""
        self.name = name
        self._control = folder / name  # a connection for each would take seconds
        options = f"ssh_config={SSH_CONFIG}&controlpath={self._control}&controlpersist=600"
        self.host: Host = testinfra.get_host(f"ssh://{name}?{options}&sudo=True&timeout=60")
        self.address: str = json.loads((VM_STATE / "addresses.json").read_text())[name]

    def ssh(self, command: str, seconds: float = COMMAND_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run a command as root, over a connection of its own; its exit code is 255 if there is none."""
        return subprocess.run(  # noqa: S603 (fixed program, no shell here)
            [*SSH, self.name, f"sudo -n {command}"],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def disconnect(self) -> None:
        """Close the connection of ``host``; the next command opens one. After a boot it leads nowhere."""
        close = ["ssh", "-F", str(SSH_CONFIG), "-o", f"ControlPath={self._control}", "-O", "exit", self.name]
        subprocess.run(close, capture_output=True, timeout=COMMAND_SECONDS, check=False)  # noqa: S603 (as above)

    @property
    def boot_id(self) -> str:
        """What the kernel calls this boot; empty while the machine does not answer."""
        return self.ssh("cat /proc/sys/kernel/random/boot_id").stdout.strip()

    def reboot(self) -> None:
        """Reboot from within, and wait until the next boot is complete."""
        before = self.boot_id
        assert before, f"{self.name} does not answer before the reboot"
        self.ssh("systemctl reboot")
        self.wait_for_boot(before)

    def wait_for_boot(self, before: str = "") -> None:
        """Wait until a boot is complete that is not the one ``before``."""
        deadline = time.monotonic() + BOOT_SECONDS
        while self.boot_id in ("", before):
            assert time.monotonic() < deadline, f"{self.name} is not back after {BOOT_SECONDS} s"
            time.sleep(1)
        self.disconnect()
        # With `degraded` too: what failed is for the test to find.
        state = self.ssh("systemctl is-system-running --wait", BOOT_SECONDS).stdout.strip()
        assert state in ("running", "degraded"), f"{self.name} is {state or 'silent'}"


def pytest_sessionstart() -> None:
    """Say what is missing, once."""
    if not SSH_CONFIG.exists():
        pytest.exit("these tests need virtual machines that run: make test-vagrant", returncode=1)


@pytest.fixture(scope="session")
def vm() -> Iterator[Callable[[str], Vm]]:
    """Return a machine, by its name."""
    machines: dict[str, Vm] = {}
    with tempfile.TemporaryDirectory(prefix="fleetwatch-") as folder:

        def find(name: str) -> Vm:
            if name not in machines:
                machines[name] = Vm(name, Path(folder))
            return machines[name]

        yield find
        for machine in machines.values():
            machine.disconnect()


@pytest.fixture(scope="session")
def monitor(vm: Callable[[str], Vm]) -> Host:
    """Return the machine with Prometheus, Alertmanager, Pushgateway and the metrics simulator."""
    return vm("monitor").host


@pytest.fixture(scope="session")
def receiver(vm: Callable[[str], Vm]) -> Host:
    """Return the machine with the alert receiver and the mailbox."""
    return vm("receiver").host


@pytest.fixture(scope="session")
def urls(vm: Callable[[str], Vm]) -> Urls:
    """Return where the stations of an alert answer.

    On the machines' own addresses, since libvirt's forwarded ports (over ssh) end with a reboot.
    """
    first, second = f"http://{vm('monitor').address}", f"http://{vm('receiver').address}"
    return Urls(
        simulator=f"{first}:9101",
        prometheus=f"{first}:9090",
        alertmanager=f"{first}:9093",
        receiver=f"{second}:5001",
        mailbox=f"{second}:8025",
    )


@pytest.fixture(scope="session")
def secrets() -> dict[str, str]:
    """Return the lab's secrets, by variable."""
    return settings.read_secrets(VM_STATE)


@pytest.fixture(scope="session")
def tokens() -> Tokens:
    """Return what the stations ask for."""
    return read_tokens(Path(VM_STATE / "secrets.yml"))


@pytest.fixture(scope="session")
def path(urls: Urls, secrets: dict[str, str]) -> AlertPath:
    """Return the stations of an alert."""
    return AlertPath(urls, secrets)
