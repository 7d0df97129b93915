"""The lab's inventory: what Ansible learns about the hosts that this machine runs, and the hosts it asks for.

They are containers, or virtual machines where ``LAB_DRIVER`` is ``vagrant``.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import ROOT, STATE, VENV, VM_STATE, grafana, image
from lab.components import ENDPOINTS, Endpoint
from lab.console import LabError, output
from lab.hosts import Fleet, Spec
from lab.settings import Machines, Settings, driver, read_secrets

DIRECTORY = ROOT / "inventory" / "lab"

CONTAINER_VARIABLES = {
    # Every container shows the load of the whole machine, which says nothing about the host.
    "node_exporter_extra_flags": {"collector.loadavg": False},
    # Nor is its clock theirs: a value that the kernel never reaches.
    "node_exporter_alert_node_clock_not_synchronising_threshold": 17,
}
"""What the inventory says only where hosts are containers."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def dynamic(settings: Settings, secrets: dict[str, str], state: Path = STATE) -> dict[str, Any]:
    """Return the part of the inventory that only this machine knows, as an inventory script says it.

    Args:
        settings: the user's choices; ``Machines`` when the hosts are virtual machines.
        secrets: of the lab, by variable.
        state: directory of the lab's state.

    """
    ssh = {"ansible_ssh_common_args": f'-F "{state / "ssh_config"}"'}
    if isinstance(settings, Machines):
        # ssh knows them by name, whichever way leads there; they know one another by address. No variable of
        # a host says it: Ansible drops what a script says of hosts that it does not list itself.
        variables: dict[str, Any] = {
            "ansible_user": "vagrant",
            **ssh,
            "lab_addresses": Fleet.addresses(state),
        }
    else:
        variables = {"ansible_user": "root", **ssh, **CONTAINER_VARIABLES}
    found = grafana.variables(state)
    return {
        "all": {"vars": {**variables, **secrets}},
        "grafana": {"hosts": [], "vars": {}} if found is None else {"hosts": [grafana.HOST], "vars": found},
        "node_exporter": {"hosts": [f"node{number}" for number in range(1, settings.nodes + 1)]},
        "_meta": {"hostvars": {}},
    }


def read(directory: Path = DIRECTORY, **variables: str) -> dict[str, Any]:
    """Return the whole inventory of the lab, as Ansible understands it.

    Args:
        directory: of the inventory.
        variables: for the environment of the inventory's scripts.

    Raises:
        LabError: Ansible cannot read it; carries its words.

    """
    command: list[str | Path] = [VENV / "bin" / "ansible-inventory", "--inventory", directory, "--list"]
    inventory: dict[str, Any] = json.loads(output(command, cwd=ROOT, env=variables))
    return inventory


@dataclass(frozen=True)
class Published:
    """An endpoint, the host that serves it, and the port under which it is published."""

    endpoint: Endpoint
    host: str
    port: int

    @property
    def url(self) -> str:
        """Where it is reached from this machine."""
        return f"{self.endpoint.scheme}://127.0.0.1:{self.port}"


def published(inventory: dict[str, Any]) -> list[Published]:
    """Return what the lab serves on 127.0.0.1.

    Args:
        inventory: as ``ansible-inventory --list`` prints it.

    Raises:
        LabError: two hosts want the same port.

    """
    hostvars = _hostvars(inventory)
    found: dict[int, Published] = {}
    for endpoint in ENDPOINTS:
        for host in members(inventory, endpoint.group):
            port = endpoint.port(hostvars.get(host, {}))
            if port in found:
                raise LabError(
                    f"{found[port].host} and {host} would both publish port {port} on 127.0.0.1: "
                    f"give one of them another {endpoint.variable} in inventory/lab"
                )
            found[port] = Published(endpoint, host, port)
    return list(found.values())


def watched(inventory: dict[str, Any]) -> set[str]:
    """Return the hosts that Prometheus has to scrape."""
    hostvars = _hostvars(inventory)
    hosts = members(inventory, "node_exporter")
    return {host for host in hosts if hostvars.get(host, {}).get("node_exporter_scrape", True)}


def specs(inventory: dict[str, Any], release: str) -> list[Spec]:
    """Return the hosts that an inventory asks for.

    ``lab_release`` chooses another Debian for one host.

    Args:
        inventory: as ``ansible-inventory --list`` prints it.
        release: Debian release of hosts that do not choose.

    Raises:
        LabError: a host cannot be made.

    """
    ports = [(entry.host, entry.port) for entry in published(inventory)]
    return [
        _spec(
            name,
            _hostvars(inventory).get(name, {}),
            tuple(port for host, port in ports if host == name),
            release,
        )
        for name in members(inventory, "all")
    ]


def _hostvars(inventory: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = inventory.get("_meta", {}).get("hostvars", {})
    return found


def members(inventory: dict[str, Any], group: str) -> list[str]:
    """Return the hosts of a group and of its children, each once."""

    def walk(name: str) -> Iterator[str]:
        entry = inventory.get(name, {})
        yield from entry.get("hosts", [])
        for child in entry.get("children", []):
            yield from walk(child)

    return list(dict.fromkeys(walk(group)))


def _spec(name: str, variables: dict[str, Any], ports: tuple[int, ...], release: str) -> Spec:
    if not _NAME.fullmatch(name):
        raise LabError(f"inventory/lab: {name!r} cannot be a host name: use a-z, 0-9 and -")
    chosen = variables.get("lab_release", release)
    if chosen not in image.RELEASES:
        raise LabError(
            f"inventory/lab: lab_release of {name} is {chosen!r}: use {' or '.join(image.RELEASES)}"
        )
    return Spec(name, chosen, ports)


def main() -> int:
    """Answer as an inventory script."""
    try:
        if driver(os.environ) == "vagrant":
            answer = dynamic(Machines.load(os.environ), read_secrets(VM_STATE), VM_STATE)
        else:
            answer = dynamic(Settings.load(os.environ), read_secrets())
    except (LabError, PermissionError) as error:
        print(f"the lab's inventory: {error}", file=sys.stderr)  # noqa: T201 (what Ansible shows)
        return 1
    print(json.dumps(answer, indent=2))  # noqa: T201 (what Ansible reads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
