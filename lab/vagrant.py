"""The lab on virtual machines: what the Vagrantfile asks, and ``make lab-vagrant``.

::

    python3 -m lab.vagrant hosts [--remember]   the machines of the inventory, as JSON for the Vagrantfile
    python3 -m lab.vagrant connect              from JSON on standard input: how ssh reaches them
    python3 -m lab.vagrant up                   `vagrant up`, after a look at what it needs

The state is in ``.vagrant/lab``. It remembers what `vagrant up`, `provision` and `reload` were told by the
environment (see ``lab.settings.Machines``), so that later commands know the same machines.
"""

from __future__ import annotations

import argparse
import fcntl
import ipaddress
import json
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab import CACHE, ROOT, VENV, VM_STATE, box, engine, grafana, image, inventory, preflight, up, venv
from lab.console import Console, LabError, output
from lab.hosts import Fleet, Spec
from lab.prepare import ProblemsError
from lab.settings import Machines, ensure_secrets, write_private

CATALOGUE = {"bookworm": "debian/bookworm64", "trixie": "debian/trixie64"}
"""Boxes of the public catalogue, by release."""

PROVIDERS = ("libvirt", "virtualbox")
FIRST_ADDRESS = 11
"""Offset of the first machine in the network; those below are the hypervisor's and the user's own."""

UP_SECONDS = 3 * 60 * 60
SHORT_SECONDS = 900
LIVE_SECONDS = 600
"""How long `vagrant up`, a shorter command, and the whole path after it may take, under emulation too."""

LIBVIRT_SOCKETS = (Path("/run/libvirt/libvirt-sock"), Path("/run/libvirt/virtqemud-sock"))
KVM = Path("/dev/kvm")
_KVM_GET_API_VERSION, _KVM_API = 0xAE00, 12

NEXT = """
Try next:
  .venv/bin/python -m lab.alert --secrets .vagrant/lab/secrets.yml      play an incident
  LAB_DRIVER=vagrant .venv/bin/ansible-playbook -i {inventory} playbooks/verify.yml
  vagrant provision                   after a change of the inventory
  vagrant destroy                     the end of the machines
"""


def order(specs: Iterable[Spec]) -> list[Spec]:
    """Sort machines so that the last, on which Ansible runs, is the same whatever is only watched."""
    return sorted(specs, key=lambda spec: bool(spec.ports))


def addresses(names: Iterable[str], known: Mapping[str, str], network: str) -> dict[str, str]:
    """Give every machine an address of the private network; one that has one keeps it.

    Args:
        names: of the machines.
        known: addresses that were given before, also to machines that left the inventory.
        network: in the form ``192.168.56.0/24``.

    Raises:
        LabError: the network is full.

    """
    subnet = ipaddress.IPv4Network(network)
    kept = {name: address for name, address in known.items() if ipaddress.IPv4Address(address) in subnet}
    free = (
        str(subnet.network_address + offset)
        for offset in range(FIRST_ADDRESS, subnet.num_addresses - 1)
        if str(subnet.network_address + offset) not in kept.values()
    )
    for name in names:
        if name not in kept:
            try:
                kept[name] = next(free)
            except StopIteration:
                raise LabError(f"LAB_VM_NETWORK: {network} has no address left for {name}") from None
    return kept


def made(machines: Path = VM_STATE.parent / "machines") -> list[str]:
    """Return the names of the machines that exist, whether they run or not."""
    return sorted({path.parent.parent.name for path in machines.glob("*/*/id")})


def chosen_box(settings: Machines, release: str) -> str:
    """Return the box of a machine for libvirt: the user's, else that of ``make box``, else a public one."""
    own = box.name(release)
    return settings.box or (own if box.present(own) else CATALOGUE[release])


def wanted(settings: Machines) -> dict[str, Any]:
    """Return the inventory as Ansible understands it, with virtual machines for hosts.

    Raises:
        LabError: there is no Ansible yet, or it cannot read the inventory.

    """
    if not (VENV / "bin" / "ansible-inventory").exists():
        raise LabError("the lab's Ansible is not installed here: run make venv")
    variables = {"LAB_DRIVER": "vagrant", "LAB_NODES": str(settings.nodes), "LC_ALL": "C.UTF-8"}
    return inventory.read(settings.directory, **variables)


def plan(settings: Machines) -> dict[str, Any]:
    """Return what the Vagrantfile has to know.

    Raises:
        LabError: the inventory cannot be read, or asks for what no machine can be.

    """
    specs = order(inventory.specs(wanted(settings), settings.release))
    if not specs:
        raise LabError(f"{settings.inventory} has no hosts")
    known = addresses([spec.name for spec in specs], Fleet.addresses(VM_STATE), settings.network)
    names = {spec.name for spec in specs}
    return {
        "prefix": engine.prefix("vm") + "-",
        "programs": str(VENV / "bin"),
        "inventory": str(settings.directory),
        "memory": settings.memory,
        "cpus": settings.cpus,
        "driver": settings.driver,
        "emulator": settings.emulator,
        "netmask": str(ipaddress.IPv4Network(settings.network).netmask),
        "machines": [
            {
                "name": spec.name,
                "box": chosen_box(settings, spec.release),
                "catalogue": settings.box or CATALOGUE[spec.release],
                "address": known[spec.name],
                "ports": spec.ports,
            }
            for spec in specs
        ],
        "departed": [name for name in made() if name not in names],
    }


def remember(settings: Machines, planned: Mapping[str, Any]) -> None:
    """Keep the choices, and the address of every machine that exists or is about to."""
    settings.save(VM_STATE)
    known = Fleet.addresses(VM_STATE)
    departed = {name: known[name] for name in planned["departed"] if name in known}
    given = departed | {machine["name"]: machine["address"] for machine in planned["machines"]}
    write_private(VM_STATE / "addresses.json", json.dumps(given) + "\n")


def connect(reach: Mapping[str, Mapping[str, Any]]) -> None:
    """Write down how ssh reaches the machines, and make the lab's secrets, if they are not there yet.

    Args:
        reach: by name, what Vagrant knows: ``host``, ``port``, ``username`` and ``private_key_path``.

    """
    write_private(VM_STATE / "ssh_config", ssh_config(reach))
    ensure_secrets(VM_STATE)


def ssh_config(reach: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the text of an ssh configuration, see ``connect``."""
    lines = ["# Written by Vagrant's provisioner. By hand: ssh -F <this file> <machine>"]
    for name, info in reach.items():
        lines += [f"Host {name}", f"    HostName {info['host']}", f"    Port {info['port']}"]
        lines += [f"    User {info['username']}"]
        lines += [f'    IdentityFile "{key}"' for key in info["private_key_path"]]
    return "\n".join(
        [
            *lines,
            "Host *",
            "    IdentitiesOnly yes",
            "    PasswordAuthentication no",
            # As Vagrant's own: a machine made anew has another key, at an address that was used before.
            "    UserKnownHostsFile /dev/null",
            "    StrictHostKeyChecking no",
            "    LogLevel ERROR",
            # A machine whose power was cut says nothing any more; one that is emulated says it late.
            "    ConnectTimeout 60",
            "    ServerAliveInterval 15",
            "    ServerAliveCountMax 8",
            "",
        ]
    )


def vagrant(*arguments: str, seconds: int) -> list[str]:
    """Return a command line for Vagrant that ends after some time, as after an interrupt."""
    return within(seconds, ["vagrant", *arguments])


def within(seconds: int, command: Sequence[str]) -> list[str]:
    """Return a command line that ends after some time, as after an interrupt, where there is ``timeout``."""
    limit = ["timeout", "--signal=INT", "--kill-after=60", str(seconds)] if shutil.which("timeout") else []
    return [*limit, *command]


def provider(environment: Mapping[str, str]) -> str:
    """Return the provider: VAGRANT_DEFAULT_PROVIDER, else VirtualBox where only that is installed."""
    only = shutil.which("VBoxManage") and not any(path.exists() for path in LIBVIRT_SOCKETS)
    return environment.get("VAGRANT_DEFAULT_PROVIDER") or PROVIDERS[1 if only else 0]


def problems(settings: Machines, planned: Mapping[str, Any], chosen: str) -> Iterator[str]:
    """Yield what is missing for `vagrant up`, a line each with its cure.

    Args:
        settings: the user's choices.
        planned: what the Vagrantfile is told.
        chosen: the provider.

    """
    if chosen not in PROVIDERS:
        yield f"VAGRANT_DEFAULT_PROVIDER is {chosen!r}: choose one of {', '.join(PROVIDERS)}"
        return
    if not shutil.which("vagrant"):
        yield "Vagrant is not installed: apt-get install vagrant vagrant-libvirt libvirt-daemon-system"
        return
    if chosen == "virtualbox":
        if not shutil.which("VBoxManage"):
            yield "VirtualBox is not installed: install it, or use libvirt (unset VAGRANT_DEFAULT_PROVIDER)"
    else:
        yield from filter(None, [plugin_problem(), libvirtd_problem()])
        if (settings.driver or ("" if _emulated(planned) else "kvm")) == "kvm" and (problem := kvm_problem()):
            yield problem
    new = [machine for machine in planned["machines"] if machine["name"] not in made()]
    boxes = sorted({machine["box" if chosen == "libvirt" else "catalogue"] for machine in new})
    yield from filter(None, (box_problem(name, chosen) for name in boxes))
    yield from filter(None, (preflight.port_problem(port) for machine in new for port in machine["ports"]))
    yield from filter(None, [memory_problem(len(new) * settings.memory)])


def _emulated(planned: Mapping[str, Any]) -> bool:
    """Tell whether the boxes are those of ``make box``, which emulate unless they are told otherwise."""
    return all(machine["box"].startswith("fleetwatch/") for machine in planned["machines"])


def plugin_problem() -> str | None:
    """Tell whether Vagrant knows libvirt."""
    if "vagrant-libvirt" in output(["vagrant", "plugin", "list"], cwd=image.BUILD):
        return None
    return "Vagrant does not know libvirt: apt-get install vagrant-libvirt"


def libvirtd_problem(sockets: Sequence[Path] = LIBVIRT_SOCKETS) -> str | None:
    """Tell whether libvirt's daemon can be spoken to."""
    problem = "libvirtd does not run: apt-get install libvirt-daemon-system, or systemctl start libvirtd"
    for path in sockets:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except PermissionError:
                problem = "your user may not talk to libvirtd: adduser $USER libvirt, and log in again"
            except OSError:
                continue
            else:
                return None
    return problem


def kvm_problem(device: Path = KVM) -> str | None:
    """Tell whether this machine virtualises in hardware."""
    cure = "LAB_VM_DRIVER=qemu emulates, slowly"
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        return None  # libvirt has users of its own, who may
    except OSError as error:
        return f"there is no KVM here ({device}: {error.strerror}): {cure}"
    try:
        version = fcntl.ioctl(descriptor, _KVM_GET_API_VERSION)
    except OSError as error:
        return f"KVM does not work here ({device}: {error.strerror}): {cure}"
    finally:
        os.close(descriptor)
    return None if version == _KVM_API else f"{device} speaks version {version}, not {_KVM_API}: {cure}"


def box_problem(name: str, chosen: str) -> str | None:
    """Tell whether Vagrant has a box."""
    if box.present(name, chosen):
        return None
    fetch = f"vagrant box add {name} --provider {chosen} fetches it"
    own = next((release for release, catalogue in CATALOGUE.items() if catalogue == name), None)
    if own and chosen == "libvirt":
        return f"there is no box for {own}: make box LAB_RELEASE={own} builds one from your mirror; {fetch}"
    return f"there is no box {name}: {fetch}"


def memory_problem(needed: int, meminfo: Path = Path("/proc/meminfo")) -> str | None:
    """Tell whether this machine has room for others.

    Args:
        needed: megabytes.
        meminfo: where the kernel says what is available.

    """
    found = re.search(r"^MemAvailable:\s*(\d+) kB", meminfo.read_text(encoding="utf-8"), re.MULTILINE)
    free = int(found[1]) // 1024 if found else needed
    if needed <= free:
        return None
    return f"the machines want {needed} MB of memory, {free} are free: set LAB_NODES or LAB_VM_MEMORY lower"


class Progress(up.Playbook):
    """Shows what Vagrant does, and the plays of Ansible."""

    def show(self, line: str) -> str | None:
        """Return the machine that comes next, or the name of a play."""
        if found := re.match(
            r"==> (\S+): (Creating image|Starting domain|Booting VM|Running provisioner.*)", line
        ):
            return f"{found[1]}: {found[2]}"
        return super().show(line.strip())

    def state(self, line: str) -> str | None:
        """Return the name of a task, or Vagrant's own words."""
        words = line[4:].strip() if line.startswith("==> ") and " -- " not in line else None
        return super().state(line.strip()) or words


def bring_up(console: Console) -> None:
    """Make the machines of the inventory run, set them up, and wait until the whole path is live.

    Raises:
        LabError: something stands in the way, or failed.

    """
    settings = Machines.load(os.environ)
    chosen = provider(os.environ)
    if not venv.current():
        raise LabError("the virtual environment is missing or out of date: run make venv")
    planned = plan(settings)
    if found := list(problems(settings, planned, chosen)):
        raise ProblemsError(found)
    grafana.choose(settings, console, VM_STATE)
    planned = plan(settings)
    if chosen == "libvirt" and settings.driver != "kvm" and _emulated(planned):
        console.say(
            "The machines are emulated, which is slow. Where there is KVM: make lab-vagrant LAB_VM_DRIVER=kvm"
        )
    progress = Progress()
    names = [machine["name"] for machine in planned["machines"]]
    with console.phase(f"Virtual machines: {', '.join(names)}; then site.yml"):
        for step in steps(planned, chosen):
            run(*step, console=console, seconds=UP_SECONDS, watcher=progress)
    if planned["departed"]:
        with console.phase(f"Machines that left the inventory: {', '.join(planned['departed'])}"):
            run("destroy", "--force", *planned["departed"], console=console, seconds=SHORT_SECONDS)
    with console.phase("The whole path: scrape, rules, Alertmanager, receiver, mailbox"):
        rows = live(settings, console)
    up.show(rows, console)
    seconds = time.monotonic() - console.started
    console.say(f"\nThe lab runs. It took {seconds:.0f} s. Changes made: {progress.changed}.")
    console.say(NEXT.format(inventory=settings.inventory))


def steps(planned: Mapping[str, Any], chosen: str) -> list[list[str]]:
    """Return the commands of Vagrant after which all machines run, and Ansible ran once on all of them.

    `vagrant up --provision` would provision a machine that runs twice, with vagrant-libvirt; and `vagrant up`
    alone does not provision a machine that was provisioned before.
    """
    start = ["up", "--provider", chosen]
    if planned["machines"][-1]["name"] in made():
        return [[*start, "--no-provision"], ["provision"]]
    return [start]


def live(settings: Machines, console: Console) -> list[up.Row]:
    """Wait until everything that the machines serve is as it should be; return the table."""
    found = wanted(settings)
    hosts = up.Row("hosts", "ssh -F .vagrant/lab/ssh_config <host>", f"{len(made())} exist", fine=True)
    return up.wait(
        lambda: [*up.services(found, VM_STATE), hosts], console, seconds=LIVE_SECONDS, state=VM_STATE
    )


def run(
    *arguments: str, console: Console, seconds: int, watcher: Progress | None = None, log: str = "vagrant"
) -> None:
    """Run Vagrant visibly.

    Raises:
        LabError: it failed, or took too long.

    """
    command = vagrant(*arguments, seconds=seconds)
    console.run(command, log=log, watcher=watcher or Progress(), env={"VAGRANT_NO_COLOR": "1"}, cwd=ROOT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python3 -m lab.vagrant", description=(__doc__ or "").splitlines()[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("hosts").add_argument("--remember", action="store_true")
    for command in ("connect", "up"):
        commands.add_parser(command)
    options = parser.parse_args(arguments)
    os.umask(0o022)
    console = Console(CACHE / "log")
    try:
        if options.command == "hosts":
            settings = Machines.load(os.environ)
            planned = plan(settings)
            if options.remember:
                remember(settings, planned)
            print(json.dumps(planned, indent=2))  # noqa: T201 (what the Vagrantfile reads)
        elif options.command == "connect":
            connect(json.load(sys.stdin))
        else:
            bring_up(console)
    except (LabError, PermissionError) as error:
        console.say(f"{error}")
        return 1
    except KeyboardInterrupt:
        console.say("\nInterrupted. The same command goes on where this one stopped.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
