"""From the inventory to virtual machines: without any."""

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lab import ROOT, inventory, preflight, vagrant
from lab.console import LabError
from lab.hosts import Spec
from lab.settings import Machines, Settings, driver

NETWORK = "192.168.56.0/24"
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith(("LAB_", "VAGRANT"))}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a place for the state, with nothing known."""
    path = tmp_path / ".vagrant" / "lab"
    monkeypatch.setattr(vagrant, "VM_STATE", path)
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path / "home"))
    return path


# -- settings ----------------------------------------------------------------------------------------------


def test_choices_are_remembered_until_they_are_taken_back(tmp_path: Path) -> None:
    given = {
        "LAB_NODES": "2",
        "LAB_VM_MEMORY": "768",
        "LAB_VM_CPUS": "2",
        "LAB_VM_DRIVER": "qemu",
        "LAB_BOX": "a/b",
    }
    Machines.load(given, tmp_path).save(tmp_path)
    known = Machines.load({}, tmp_path)
    assert (known.nodes, known.memory, known.cpus, known.driver, known.box) == (2, 768, 2, "qemu", "a/b")
    back = Machines.load({"LAB_VM_DRIVER": "none", "LAB_BOX": "none"}, tmp_path)
    assert (back.driver, back.box, back.memory) == ("", "", 768)


@pytest.mark.parametrize(
    "wrong",
    [
        {"LAB_NODES": "many"},
        {"LAB_RELEASE": "sid"},
        {"LAB_VM_MEMORY": "1G"},
        {"LAB_VM_MEMORY": "64"},
        {"LAB_VM_CPUS": "0"},
        {"LAB_VM_DRIVER": "xen"},
        {"LAB_VM_EMULATOR": "/no/such/program"},
        {"LAB_VM_NETWORK": "192.168.56.1/24"},
        {"LAB_VM_NETWORK": "8.8.8.0/24"},
        {"LAB_VM_NETWORK": "192.168.56.0/28"},
        {"LAB_INVENTORY": "inventory/none"},
    ],
)
def test_wrong_choices_name_the_variable(wrong: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(LabError, match=f"^{next(iter(wrong))} is "):
        Machines.load(wrong, tmp_path)


def test_hosts_are_containers_unless_it_is_said() -> None:
    assert driver({}) == driver({"LAB_DRIVER": ""}) == "podman"
    assert driver({"LAB_DRIVER": "vagrant"}) == "vagrant"
    with pytest.raises(LabError, match="LAB_DRIVER is 'docker'"):
        driver({"LAB_DRIVER": "docker"})


# -- inventory ---------------------------------------------------------------------------------------------


def test_the_dynamic_part_for_machines(tmp_path: Path) -> None:
    (tmp_path / "addresses.json").write_text('{"node1": "192.168.56.14"}')
    answer = inventory.dynamic(Machines(nodes=1), {"lab_user": "x"}, tmp_path)
    variables = answer["all"]["vars"]
    assert variables["ansible_user"] == "vagrant"
    assert variables["lab_user"] == "x"
    assert not set(inventory.CONTAINER_VARIABLES) & set(variables)
    assert variables["lab_addresses"] == {"node1": "192.168.56.14"}
    assert set(inventory.CONTAINER_VARIABLES) <= set(
        inventory.dynamic(Settings(), {}, tmp_path)["all"]["vars"]
    )


@pytest.mark.slow
def test_the_inventory_of_the_tests_is_the_labs_with_two_hosts() -> None:
    found = inventory.read(ROOT / "tests/vagrant/inventory", LAB_DRIVER="vagrant", LAB_NODES="0")
    specs = {spec.name: spec for spec in inventory.specs(found, "trixie")}
    assert {name: spec.release for name, spec in specs.items()} == {
        "monitor": "trixie",
        "receiver": "bookworm",
    }
    assert specs["receiver"].ports == (5001, 5002, 8025, 1025)
    hostvars = found["_meta"]["hostvars"]
    assert hostvars["receiver"]["alert_receiver_sender"] == "fleetwatch@lab.example"
    assert hostvars["monitor"]["ansible_user"] == "vagrant"


@pytest.mark.slow
def test_machines_find_one_another_by_address(tmp_path: Path) -> None:
    """Also those that only hosts.yml lists, of which a script cannot set variables."""
    (tmp_path / "addresses.json").write_text('{"monitor": "192.168.56.11", "receiver": "192.168.56.12"}')
    answer = json.dumps(inventory.dynamic(Machines(nodes=0), {}, tmp_path))
    folder = tmp_path / "inventory"
    shutil.copytree(ROOT / "tests/vagrant/inventory", folder, ignore=shutil.ignore_patterns("nodes.sh"))
    script = folder / "nodes.sh"
    script.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
    script.chmod(0o755)
    command = [
        "ansible",
        "all",
        "-i",
        str(folder),
        "-m",
        "ansible.builtin.debug",
        "-a",
        "var=fleetwatch_address",
    ]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)  # noqa: S603 (fixed program)
    assert "fleetwatch_address: 192.168.56.11" in said.stdout
    assert "fleetwatch_address: 192.168.56.12" in said.stdout


# -- the plan ----------------------------------------------------------------------------------------------


def test_machines_that_are_only_watched_come_first() -> None:
    specs = [Spec("monitor", ports=(9090,)), Spec("node1"), Spec("simulator", ports=(9101,)), Spec("web1")]
    assert [spec.name for spec in vagrant.order(specs)] == ["node1", "web1", "monitor", "simulator"]


def test_a_machine_keeps_its_address() -> None:
    first = vagrant.addresses(["a", "b"], {}, NETWORK)
    assert first == {"a": "192.168.56.11", "b": "192.168.56.12"}
    assert vagrant.addresses(["c", "b"], first, NETWORK)["b"] == "192.168.56.12"
    assert vagrant.addresses(["c", "b"], first, NETWORK)["c"] == "192.168.56.13"
    moved = vagrant.addresses(["a"], first, "10.1.0.0/24")
    assert moved == {"a": "10.1.0.11"}
    with pytest.raises(LabError, match="no address left for n"):
        vagrant.addresses([f"n{number}" for number in range(300)], {}, NETWORK)


def planned(monkeypatch: pytest.MonkeyPatch, **groups: list[str]) -> dict[str, Any]:
    found = {name: {"hosts": hosts} for name, hosts in groups.items()} | {"all": {"children": list(groups)}}
    monkeypatch.setattr(vagrant, "wanted", lambda _: found)
    return vagrant.plan(Machines())


def test_what_the_vagrantfile_is_told(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(monkeypatch, prometheus=["m"], node_exporter=["m", "n"])
    assert [(each["name"], each["address"], each["ports"]) for each in plan["machines"]] == [
        ("n", "192.168.56.11", ()),
        ("m", "192.168.56.12", (9090,)),
    ]
    assert {each["box"] for each in plan["machines"]} == {"debian/trixie64"}
    assert plan["netmask"] == "255.255.255.0"
    with pytest.raises(LabError, match="inventory/lab has no hosts"):
        planned(monkeypatch)


def test_without_ansible_the_cure_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vagrant, "VENV", tmp_path)
    with pytest.raises(LabError, match="run make venv"):
        vagrant.wanted(Machines())


def test_the_users_box_goes_before_our_own_and_that_before_a_public_one(state: Path, tmp_path: Path) -> None:
    settings = Machines()
    assert vagrant.chosen_box(settings, "bookworm") == "debian/bookworm64"
    folder = tmp_path / "home/boxes/fleetwatch-VAGRANTSLASH-bookworm/1/libvirt"
    folder.mkdir(parents=True)
    (folder / "metadata.json").write_text("{}")
    assert vagrant.chosen_box(settings, "bookworm") == "fleetwatch/bookworm"
    assert vagrant.chosen_box(settings, "trixie") == "debian/trixie64"
    assert vagrant.chosen_box(Machines(box="my/own"), "bookworm") == "my/own"


def test_a_machine_that_left_keeps_its_address(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(monkeypatch, node_exporter=["gone", "n"])
    vagrant.remember(Machines(), plan)
    for name in ("gone", "n"):
        folder = state.parent / "machines" / name / "libvirt"
        folder.mkdir(parents=True)
        (folder / "id").write_text("x")
    monkeypatch.setattr(vagrant, "made", lambda: ["gone", "n"])
    plan = planned(monkeypatch, node_exporter=["new", "n"])
    assert plan["departed"] == ["gone"]
    assert {each["name"]: each["address"] for each in plan["machines"]} == {
        "n": "192.168.56.12",
        "new": "192.168.56.13",
    }
    vagrant.remember(Machines(), plan)
    assert set(json.loads((state / "addresses.json").read_text())) == {"gone", "new", "n"}


def test_only_machines_that_exist_count(tmp_path: Path) -> None:
    for name, file in (("a", "id"), ("b", "index_uuid")):
        (tmp_path / name / "libvirt").mkdir(parents=True)
        (tmp_path / name / "libvirt" / file).write_text("x")
    assert vagrant.made(tmp_path) == ["a"]


# -- the connection ----------------------------------------------------------------------------------------


def test_ssh_reaches_a_machine_by_its_name(state: Path) -> None:
    info = {"host": "192.0.2.7", "port": 2222, "username": "vagrant", "private_key_path": ["/a key", "/b"]}
    vagrant.connect({"monitor": info})
    for name in ("ssh_config", "secrets.yml"):
        assert (state / name).stat().st_mode & 0o777 == 0o600
    assert state.stat().st_mode & 0o777 == 0o700
    command = ["ssh", "-F", str(state / "ssh_config"), "-G", "monitor"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()  # noqa: S603
    assert {
        "hostname 192.0.2.7",
        "port 2222",
        "user vagrant",
        "identityfile /a key",
        "identityfile /b",
    } <= set(said)


# -- what is missing ---------------------------------------------------------------------------------------


def test_libvirtd(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    assert "libvirtd does not run" in str(vagrant.libvirtd_problem([path]))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert "libvirtd does not run" in str(vagrant.libvirtd_problem([path]))
        server.listen()
        assert vagrant.libvirtd_problem([tmp_path / "none", path]) is None


def test_kvm(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    assert "LAB_VM_DRIVER=qemu" in str(vagrant.kvm_problem(device))
    device.touch()
    assert "does not work here" in str(vagrant.kvm_problem(device))


def test_memory(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  9999999 kB\nMemAvailable:    2097152 kB\n")
    assert vagrant.memory_problem(2048, meminfo) is None
    assert "want 2049 MB of memory, 2048 are free" in str(vagrant.memory_problem(2049, meminfo))


def test_a_box_that_is_missing_has_two_cures(state: Path) -> None:
    problem = str(vagrant.box_problem("debian/trixie64", "libvirt"))
    assert "make box LAB_RELEASE=trixie" in problem
    assert "vagrant box add debian/trixie64 --provider libvirt" in problem
    assert "make box" not in str(vagrant.box_problem("debian/trixie64", "virtualbox"))
    assert "make box" not in str(vagrant.box_problem("my/own", "libvirt"))


def test_everything_that_is_missing_is_said_at_once(
    state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = planned(monkeypatch, prometheus=["m"])
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(vagrant, "plugin_problem", lambda: "no plugin")
    monkeypatch.setattr(vagrant, "libvirtd_problem", lambda: "no libvirtd")
    monkeypatch.setattr(vagrant, "kvm_problem", lambda: "no kvm")
    monkeypatch.setattr(vagrant, "made", list)
    monkeypatch.setattr(preflight, "port_problem", lambda port: f"{port} is taken")
    monkeypatch.setattr(vagrant, "memory_problem", lambda needed: f"{needed} MB")
    said = list(vagrant.problems(Machines(), plan, "libvirt"))
    assert said[:3] == ["no plugin", "no libvirtd", "no kvm"]
    assert "there is no box for trixie" in said[3]
    assert said[4:] == ["9090 is taken", "1024 MB"]
    # Emulation needs no KVM; machines that exist need neither box nor port.
    monkeypatch.setattr(vagrant, "made", lambda: ["m"])
    assert list(vagrant.problems(Machines(driver="qemu"), plan, "libvirt")) == [
        "no plugin",
        "no libvirtd",
        "0 MB",
    ]
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "Vagrant is not installed" in "".join(vagrant.problems(Machines(), plan, "libvirt"))
    assert "'docker'" in "".join(vagrant.problems(Machines(), plan, "docker"))


def test_ansible_runs_once_whether_the_machines_are_there_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = {"machines": [{"name": "node1"}, {"name": "monitor"}]}
    monkeypatch.setattr(vagrant, "made", lambda: ["node1"])
    assert vagrant.steps(plan, "libvirt") == [["up", "--provider", "libvirt"]]
    monkeypatch.setattr(vagrant, "made", lambda: ["monitor"])
    assert vagrant.steps(plan, "libvirt") == [
        ["up", "--provider", "libvirt", "--no-provision"],
        ["provision"],
    ]


# -- the Vagrantfile ---------------------------------------------------------------------------------------


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 (fixed program)
        ["vagrant", *arguments],  # noqa: S607 (vagrant of PATH)
        cwd=ROOT,
        env={**PLAIN, "VAGRANT_NO_COLOR": "1", "LAB_DRIVER": "", "LAB_VM_EMULATOR": "none", **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen", [{}, {"LAB_VM_DRIVER": "kvm"}, {"LAB_VM_DRIVER": "qemu", "LAB_NODES": "0"}]
)
def test_vagrantfile_is_valid_for_libvirt(chosen: dict[str, str]) -> None:
    done = run("validate", VAGRANT_DEFAULT_PROVIDER="libvirt", **chosen)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "validated successfully" in done.stdout


@pytest.mark.slow
def test_vagrantfile_is_valid_as_far_as_can_be_told_without_virtualbox() -> None:
    done = run("validate", "--ignore-provider", VAGRANT_DEFAULT_PROVIDER="virtualbox")
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.slow
def test_vagrant_knows_the_machines_of_the_inventory(tmp_path: Path) -> None:
    dotfiles = {"VAGRANT_DOTFILE_PATH": str(tmp_path)}  # nothing exists there
    done = run("status", "--machine-readable", LAB_NODES="2", LAB_INVENTORY="inventory/lab", **dotfiles)
    assert done.returncode == 0, done.stderr + done.stdout
    rows = [line.split(",") for line in done.stdout.splitlines()]
    names = [row[1] for row in rows if row[2:4] == ["state", "not_created"]]
    assert names[-6:] == ["node1", "node2", "monitor", "receiver", "simulator", "shop"]


@pytest.mark.slow
def test_a_mistake_is_one_clear_line() -> None:
    done = run("status", LAB_VM_MEMORY="much")
    assert done.returncode != 0
    said = done.stderr.strip().splitlines()
    assert said[-1] == "LAB_VM_MEMORY is 'much': choose a number from 256 to 1048576"
    assert "Vagrantfile:" not in done.stderr
