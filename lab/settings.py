"""What the user chose for the lab, and the secrets it was given at its first start."""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from lab import ROOT, STATE, VM_STATE, image
from lab.console import LabError

MAX_NODES = 100
MIN_MEMORY, MAX_MEMORY = 256, 1 << 20
MAX_CPUS = 64
MIN_HOSTS = 100
"""Addresses that a network of virtual machines has to have at least."""
DRIVERS = ("podman", "vagrant")
"""What hosts of the lab can be: containers, or virtual machines."""
NONE = "none"
"""Takes back a choice that is remembered."""

SECRETS = {
    "alert_receiver_sendgrid_api_key": "SG.",
    "alert_receiver_webhook_token": "",
    "grafana_admin_password": "",
    "grafana_secret_key": "",
    "lab_password": "",
    "metrics_simulator_control_token": "",
}
"""Secret variables of the lab, and what each begins with."""


@dataclass(frozen=True)
class Settings:
    """The user's choices; a later ``make lab`` keeps them.

    Attributes:
        release: Debian release of the hosts (LAB_RELEASE).
        nodes: number of hosts that are only watched (LAB_NODES).
        grafana: release archive of Grafana, a file or URL (GRAFANA_RELEASE); ``none`` takes it out.

    """

    release: str = image.DEFAULT_RELEASE
    nodes: int = 3
    grafana: str = ""

    @classmethod
    def load(cls, environment: Mapping[str, str], state: Path = STATE) -> Self:
        """Return the settings: from the environment, else as remembered, else the defaults.

        Raises:
            LabError: a variable has no possible value.

        """
        path = state / "lab.json"
        known = cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else cls()
        return cls(**known._chosen(environment))

    def _chosen(self, environment: Mapping[str, str]) -> dict[str, Any]:
        """Return the fields, where the environment says nothing else as they are here."""
        release = environment.get("LAB_RELEASE") or self.release
        if release not in image.RELEASES:
            raise LabError(f"LAB_RELEASE is {release!r}: choose one of {', '.join(image.RELEASES)}")
        grafana = environment.get("GRAFANA_RELEASE") or self.grafana
        if grafana and grafana != NONE and "://" not in grafana:
            grafana = str(Path(grafana).expanduser().absolute())
        nodes = number(environment, "LAB_NODES", self.nodes, 0, MAX_NODES)
        return {"release": release, "nodes": nodes, "grafana": grafana}

    def save(self, state: Path = STATE) -> None:
        """Remember the settings."""
        write_private(state / "lab.json", json.dumps(asdict(self)) + "\n")


@dataclass(frozen=True)
class Machines(Settings):
    """The same for the lab on virtual machines; whatever `vagrant up` was told, later commands keep.

    Attributes:
        nodes: as above; fewer by default, since a virtual machine costs more than a container.
        memory: megabytes of each machine (LAB_VM_MEMORY).
        cpus: of each machine (LAB_VM_CPUS).
        driver: ``kvm`` or ``qemu``, which emulates (LAB_VM_DRIVER); empty: what the box says.
        emulator: program that libvirt runs as qemu (LAB_VM_EMULATOR); empty: libvirt's choice.
        box: Vagrant box of all machines (LAB_BOX); empty: chosen by release.
        network: private network in which the machines find one another (LAB_VM_NETWORK).
        inventory: directory of the inventory (LAB_INVENTORY), in the checkout or absolute.

    """

    nodes: int = 1
    memory: int = 1024
    cpus: int = 1
    driver: str = ""
    emulator: str = ""
    box: str = ""
    network: str = "192.168.56.0/24"
    inventory: str = "inventory/lab"

    @classmethod
    def load(cls, environment: Mapping[str, str], state: Path = VM_STATE) -> Self:
        """Return the settings, as above."""
        return super().load(environment, state)

    def save(self, state: Path = VM_STATE) -> None:
        """Remember the settings."""
        super().save(state)

    @property
    def directory(self) -> Path:
        """The directory of the inventory."""
        return ROOT / self.inventory

    def _chosen(self, environment: Mapping[str, str]) -> dict[str, Any]:
        driver = _optional(environment, "LAB_VM_DRIVER", self.driver)
        if driver not in ("", "qemu", "kvm"):
            raise LabError(
                f"LAB_VM_DRIVER is {driver!r}: choose kvm, qemu (which emulates, slowly) or {NONE}"
            )
        emulator = _optional(environment, "LAB_VM_EMULATOR", self.emulator)
        if emulator and not os.access(emulator, os.X_OK):
            raise LabError(f"LAB_VM_EMULATOR is {emulator!r}: no such program; {NONE} takes it back")
        network = environment.get("LAB_VM_NETWORK") or self.network
        _check_network(network)
        inventory = environment.get("LAB_INVENTORY") or self.inventory
        if not (ROOT / inventory).is_dir():
            raise LabError(f"LAB_INVENTORY is {inventory!r}: there is no such directory")
        return {
            **super()._chosen(environment),
            "memory": number(environment, "LAB_VM_MEMORY", self.memory, MIN_MEMORY, MAX_MEMORY),
            "cpus": number(environment, "LAB_VM_CPUS", self.cpus, 1, MAX_CPUS),
            "driver": driver,
            "emulator": emulator,
            "box": _optional(environment, "LAB_BOX", self.box),
            "network": network,
            "inventory": inventory,
        }


def driver(environment: Mapping[str, str]) -> str:
    """Return what the hosts of the lab are, as LAB_DRIVER says: containers unless it says otherwise.

    Raises:
        LabError: it says something else.

    """
    chosen = environment.get("LAB_DRIVER") or DRIVERS[0]
    if chosen not in DRIVERS:
        raise LabError(f"LAB_DRIVER is {chosen!r}: choose one of {', '.join(DRIVERS)}")
    return chosen


def number(environment: Mapping[str, str], name: str, known: int, least: int, most: int) -> int:
    """Return what a variable says, ``known`` when it is not set.

    Raises:
        LabError: it is no number from ``least`` to ``most``.

    """
    value = environment.get(name) or str(known)
    if not (value.isascii() and value.isdigit() and least <= int(value) <= most):
        raise LabError(f"{name} is {value!r}: choose a number from {least} to {most}")
    return int(value)


def _optional(environment: Mapping[str, str], name: str, known: str) -> str:
    value = environment.get(name) or known
    return "" if value == NONE else value


def _check_network(text: str) -> None:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise LabError(f"LAB_VM_NETWORK is {text!r}: {error}; write it like 192.168.56.0/24") from error
    if not network.is_private or network.num_addresses < MIN_HOSTS:
        raise LabError(f"LAB_VM_NETWORK is {text!r}: choose a private network of /25 or larger")


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else may read, in a directory that nobody else may enter."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)


def read_secrets(state: Path = STATE) -> dict[str, str]:
    """Return the lab's secrets, by variable; none before its first start."""
    path = state / "secrets.yml"
    if not path.exists():
        return {}
    lines = (line.partition(": ") for line in path.read_text(encoding="utf-8").splitlines() if ": " in line)
    return {name: json.loads(value) for name, _, value in lines}


def ensure_secrets(state: Path = STATE) -> None:
    """Generate the secrets that are still missing, into a file of mode 0600."""
    known = read_secrets(state)
    missing = {
        name: start + secrets.token_urlsafe(32) for name, start in SECRETS.items() if name not in known
    }
    if missing:
        lines = [f"{name}: {json.dumps(value)}\n" for name, value in (known | missing).items()]
        write_private(state / "secrets.yml", "".join(lines))
