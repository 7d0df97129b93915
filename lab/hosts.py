"""Systemd hosts as containers on a private network: for the lab, and for any other purpose.

A purpose (``lab``, or the name of a Molecule scenario) has a network of its own, in which its hosts
find one another by name, and a state directory with the key to them. From the command line::

    python3 -m lab.hosts create PURPOSE [SPEC]   hosts of SPEC present, others of the purpose gone
    python3 -m lab.hosts list PURPOSE            what is there
    python3 -m lab.hosts restart PURPOSE HOST    a reboot: same address, same disk
    python3 -m lab.hosts destroy PURPOSE         nothing left

SPEC is JSON, or a file with JSON, or standard input: a list of ``{"name": ..., "release": ...}``; other
keys are ignored. The answer is JSON on standard output, in the form of Molecule's instance config.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lab import CACHE, ROOT, STATE, engine, image
from lab.console import Console, LabError, output

INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_PER_HOST = 6
"""Instances that a systemd host takes; the machine's limit is shared by all of them."""

START_SECONDS = 90
_PARALLEL = 4
_LOOPBACK = "127.0.0.1"

_Item = TypeVar("_Item")

# Run in a host: let the key in, wait for systemd, answer with the host's own key.
_SETTLE = f"""
umask 077; mkdir -p /root/.ssh; cat > /root/.ssh/authorized_keys
for _ in $(seq {START_SECONDS * 5}); do
    state=$(systemctl is-system-running 2>/dev/null)
    case $state in running|degraded|maintenance) break ;; esac
    sleep 0.2
done
if [ "$state" != running ]; then
    echo "systemd is ${{state:-silent}}:" $(systemctl --failed --plain --no-legend | cut -d" " -f1) >&2
    exit 1
fi
cat {image.HOST_KEY}.pub
"""


@dataclass(frozen=True)
class Spec:
    """A host that is wanted.

    Attributes:
        name: what it is called, by itself and by its neighbours.
        release: Debian release.
        ports: TCP ports to publish on 127.0.0.1, under the same numbers.

    """

    name: str
    release: str = image.DEFAULT_RELEASE
    ports: tuple[int, ...] = ()


@dataclass(frozen=True)
class Host:
    """A host that exists.

    Attributes:
        spec: what was asked for when it was made.
        container: its name in Podman.
        address: its IP address, which it keeps for life.
        running: whether it runs.

    """

    spec: Spec
    container: str
    address: str
    running: bool


@dataclass(frozen=True)
class Plan:
    """What has to happen to get from the hosts that exist to those that are wanted.

    Attributes:
        remove: names of hosts to remove, because they are unwanted or have to be made anew.
        create: hosts to make.
        start: names of hosts that are there but do not run.

    """

    remove: tuple[str, ...]
    create: tuple[Spec, ...]
    start: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Whether nothing has to happen."""
        return not (self.remove or self.create or self.start)


def plan(wanted: Iterable[Spec], existing: dict[str, Host], *, prune: bool = True) -> Plan:
    """Compare wanted with existing hosts.

    A host whose release or ports changed is made anew: a container cannot change them.

    Args:
        wanted: the hosts that are to be there.
        existing: those that are there.
        prune: whether unwanted hosts go; if not, only those go that hold a port.

    """
    specs = {spec.name: spec for spec in wanted}
    same = {name for name, host in existing.items() if specs.get(name) == host.spec}
    tolerated = {name for name, host in existing.items() if name not in specs and not host.spec.ports}
    return Plan(
        remove=tuple(name for name in existing if name not in (same if prune else same | tolerated)),
        create=tuple(spec for name, spec in specs.items() if name not in same),
        start=tuple(name for name in same if not existing[name].running),
    )


class Fleet:
    """The hosts of one purpose.

    Args:
        purpose: ``lab``, or whatever else tells this fleet from others of the checkout.
        console: where progress is shown.

    """

    def __init__(self, purpose: str, console: Console) -> None:
        """Look at nothing yet."""
        self.console = console
        self.name = engine.prefix(purpose)
        self.state = STATE if purpose == "lab" else CACHE / "hosts" / purpose
        self.key = self.state / "id_ed25519"
        self.known_hosts = self.state / "known_hosts"
        self.ssh_config = self.state / "ssh_config"

    @staticmethod
    def addresses(state: Path) -> dict[str, str]:
        """Return the addresses of the hosts, by name, without asking Podman."""
        path = state / "addresses.json"
        found: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return found

    def hosts(self) -> dict[str, Host]:
        """Return the hosts that exist, by name."""
        found = {}
        for entry in self._containers():
            labels = entry["Labels"]
            ports = tuple(int(port) for port in labels["fleetwatch.ports"].split(",") if port)
            found[labels["fleetwatch.host"]] = Host(
                Spec(labels["fleetwatch.host"], labels["fleetwatch.release"], ports),
                entry["Names"][0],
                labels["fleetwatch.address"],
                entry["State"] == "running",
            )
        return dict(sorted(found.items()))

    def apply(self, wanted: Sequence[Spec], *, prune: bool = True) -> Plan:
        """Make exactly the wanted hosts exist, run and answer.

        Args:
            wanted: the hosts.
            prune: see ``plan``.

        Returns:
            What was done.

        Raises:
            LabError: a host cannot be made or does not come up.

        """
        todo = plan(wanted, self.hosts(), prune=prune)
        images = {spec.release: image.ensure(spec.release, self.console) for spec in todo.create}
        self._make_key()
        _each(self._remove, todo.remove)
        self._allow_inotify(len(wanted))
        subnet = self._network()
        addresses = self._free_addresses(subnet, len(todo.create))
        _each(
            lambda job: self._create(job[0], images[job[0].release], job[1]),
            list(zip(todo.create, addresses, strict=True)),
        )
        _each(lambda name: output(engine.podman("start", f"{self.name}-{name}")), todo.start)
        if not todo.empty or not self.ssh_config.exists():
            self._settle()
        return todo

    def restart(self, name: str) -> None:
        """Reboot a host and wait until it is back.

        Raises:
            LabError: there is no such host, or it does not come back.

        """
        output(engine.podman("restart", "--time", "20", f"{self.name}-{name}"))
        self._settle()

    def remove(self) -> int:
        """Remove hosts, network and state, also when only half of them exist.

        Returns:
            The number of hosts removed.

        """
        containers = [entry["Names"][0] for entry in self._containers()]
        _each(lambda name: output(engine.podman("rm", "--force", "--time", "0", name)), containers)
        if self._network_subnet() is not None:
            output(engine.podman("network", "rm", self.name))
        shutil.rmtree(self.state, ignore_errors=True)
        return len(containers)

    def _containers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] | None = engine.podman_json(
            "ps", "--all", "--filter", f"label=fleetwatch.fleet={self.name}"
        )
        return found or []

    def _make_key(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True)
        self.state.chmod(0o700)
        if not self.key.exists():
            output(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", self.key])

    def _network_subnet(self) -> ipaddress.IPv4Network | None:
        networks = engine.podman_json("network", "ls", "--filter", f"name=^{self.name}$")
        return ipaddress.IPv4Network(networks[0]["subnets"][0]["subnet"]) if networks else None

    def _network(self) -> ipaddress.IPv4Network:
        """Return the subnet of this fleet's network, which Podman chooses among the free ones."""
        subnet = self._network_subnet()
        if subnet is None:
            label = f"{engine.OWNER}={engine.checkout_id()}"
            output(engine.podman("network", "create", "--label", label, self.name))
            subnet = self._network_subnet()
        if subnet is None:
            raise LabError(f"podman made the network {self.name} but does not list it")
        return subnet

    def _free_addresses(self, subnet: ipaddress.IPv4Network, number: int) -> list[str]:
        """Return addresses that were not in use lately.

        A multiplexed ssh connection outlives its host by a minute; a new host with the same address
        would be spoken to through it.
        """
        counter = CACHE / "last-address"
        text = counter.read_text(encoding="utf-8") if counter.exists() else ""
        last = int(text) if text.isdigit() else 1
        taken = {host.address for host in self.hosts().values()}
        addresses = next_addresses(subnet, last, number, taken)
        if addresses:
            offset = int(ipaddress.IPv4Address(addresses[-1])) - int(subnet.network_address)
            counter.write_text(str(offset), encoding="utf-8")
        return addresses

    def _create(self, spec: Spec, tag: str, address: str) -> None:
        labels = {
            engine.OWNER: engine.checkout_id(),
            engine.ROOT_LABEL: str(ROOT),
            "fleetwatch.fleet": self.name,
            "fleetwatch.host": spec.name,
            "fleetwatch.release": spec.release,
            "fleetwatch.ports": ",".join(map(str, spec.ports)),
            "fleetwatch.address": address,
        }
        output(
            engine.podman(
                "run",
                "--detach",
                "--pull=never",
                "--systemd=always",
                "--privileged",  # the units' own sandboxing needs it
                f"--name={self.name}-{spec.name}",
                f"--hostname={spec.name}",
                f"--network={self.name}",
                f"--network-alias={spec.name}",
                f"--ip={address}",
                *(f"--publish={_LOOPBACK}:{port}:{port}" for port in spec.ports),
                *(f"--label={name}={value}" for name, value in labels.items()),
                tag,
            )
        )

    def _remove(self, name: str) -> None:
        output(engine.podman("rm", "--force", "--time", "0", f"{self.name}-{name}"))

    def _settle(self) -> None:
        """Wait until every host is up and write how ssh reaches and recognises it."""
        hosts = self.hosts()
        public = self.key.with_suffix(".pub").read_text(encoding="utf-8")
        keys: dict[str, str] = {}

        def settle(host: Host) -> None:
            command = engine.podman("exec", "--interactive", host.container, "sh", "-c", _SETTLE)
            try:
                keys[host.spec.name] = output(command, stdin=public)
            except LabError as error:
                raise LabError(f"the host {host.spec.name} did not come up: {error}") from error
            _wait_for_ssh(host)

        _each(settle, list(hosts.values()))
        self.known_hosts.write_text(
            "".join(f"{host.address} {keys[name].strip()}\n" for name, host in hosts.items()),
            encoding="utf-8",
        )
        self.ssh_config.write_text(self._ssh_config(hosts), encoding="utf-8")
        addresses = json.dumps({name: host.address for name, host in hosts.items()})
        (self.state / "addresses.json").write_text(addresses + "\n", encoding="utf-8")

    def _ssh_config(self, hosts: dict[str, Host]) -> str:
        entries = [f"Host {name}\n    HostName {host.address}\n" for name, host in hosts.items()]
        return "\n".join(
            [
                "# Written when the hosts were made. By hand: ssh -F <this file> <host>",
                *entries,
                "Host *",
                "    User root",
                f'    IdentityFile "{self.key}"',
                "    IdentitiesOnly yes",
                f'    UserKnownHostsFile "{self.known_hosts}"',
                "    StrictHostKeyChecking yes",
                "",
            ]
        )

    def _allow_inotify(self, wanted: int) -> None:
        """Raise the machine's limit of inotify instances, if these hosts would exceed it."""
        limit = int(INOTIFY.read_text(encoding="utf-8"))
        others = len(engine.podman_json("ps") or []) - sum(host.running for host in self.hosts().values())
        needed = (wanted + others) * INOTIFY_PER_HOST
        if needed > limit:
            self.console.note(
                f"fs.inotify.max_user_instances is {limit}: raised to {needed * 2} until the next boot"
            )
            output(engine.as_root(["sysctl", "--quiet", f"fs.inotify.max_user_instances={needed * 2}"]))


def _each(action: Callable[[_Item], object], items: Sequence[_Item]) -> None:
    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(action, items))


def next_addresses(subnet: ipaddress.IPv4Network, last: int, number: int, taken: set[str]) -> list[str]:
    """Return free addresses of a subnet, going round it.

    Args:
        subnet: the network; its first address is the gateway.
        last: offset of the address given last.
        number: how many are needed.
        taken: addresses in use.

    Raises:
        LabError: the subnet is full.

    """
    size = subnet.num_addresses - 3  # all but the network, the gateway and the broadcast address
    found: list[str] = []
    for step in range(size):
        if len(found) == number:
            break
        address = str(subnet.network_address + 2 + (last - 1 + step) % size)
        if address not in taken:
            found.append(address)
    if len(found) < number:
        raise LabError(f"the network {subnet} has no room for {number} more hosts")
    return found


def _wait_for_ssh(host: Host) -> None:
    for _ in range(50):
        try:
            with socket.create_connection((host.address, 22), timeout=2) as connection:
                if connection.recv(4) == b"SSH-":
                    return
        except OSError:
            pass
        time.sleep(0.2)
    raise LabError(f"the host {host.spec.name} runs, but this machine cannot reach {host.address} port 22")


def instance(fleet: Fleet, host: Host) -> dict[str, Any]:
    """Return a host in the form of Molecule's instance config."""
    return {
        "instance": host.spec.name,
        "address": host.address,
        "user": "root",
        "port": 22,
        "identity_file": str(fleet.key),
        "release": host.spec.release,
        "container": host.container,
    }


def read_specs(text: str) -> list[Spec]:
    """Read the hosts wanted from JSON.

    Raises:
        LabError: it is no list of objects with a name.

    """
    try:
        return [
            Spec(entry["name"], entry.get("release", image.DEFAULT_RELEASE)) for entry in json.loads(text)
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabError('the hosts must be JSON: [{"name": "a", "release": "trixie"}, ...]') from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python3 -m lab.hosts", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("create", "list", "restart", "destroy"):
        commands.add_parser(command).add_argument("purpose")
    commands.choices["create"].add_argument("spec", nargs="?", default="-")
    commands.choices["restart"].add_argument("host")
    options = parser.parse_args(arguments)
    fleet = Fleet(options.purpose, Console())
    try:
        if options.command == "create":
            text = sys.stdin.read() if options.spec == "-" else options.spec
            if not text.lstrip().startswith("["):
                text = Path(text).read_text(encoding="utf-8")
            fleet.apply(read_specs(text))
        elif options.command == "restart":
            fleet.restart(options.host)
        elif options.command == "destroy":
            fleet.remove()
    except (LabError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201 (a command line's answer)
        return 1
    print(json.dumps([instance(fleet, host) for host in fleet.hosts().values()], indent=2))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
