"""Which hosts are made, kept and removed, without making any."""

import ipaddress
import json
from pathlib import Path

import pytest

from lab import engine, hosts
from lab.console import Console, LabError
from lab.hosts import Host, Spec, next_addresses, plan, read_specs

NETWORK = ipaddress.IPv4Network("10.89.0.0/24")


def existing(*specs: Spec, running: bool = True) -> dict[str, Host]:
    return {spec.name: Host(spec, f"c-{spec.name}", "10.89.0.2", running) for spec in specs}


def test_nothing_to_do() -> None:
    assert plan([Spec("a")], existing(Spec("a"))).empty


def test_a_new_host_a_stopped_one_and_one_too_many() -> None:
    todo = plan([Spec("a"), Spec("b")], existing(Spec("b"), running=False) | existing(Spec("c")))
    assert (todo.create, todo.start, todo.remove) == ((Spec("a"),), ("b",), ("c",))


@pytest.mark.parametrize("changed", [Spec("a", "bookworm"), Spec("a", "trixie", (9090,))])
def test_a_host_that_changed_is_made_anew(changed: Spec) -> None:
    todo = plan([changed], existing(Spec("a", "trixie")))
    assert (todo.remove, todo.create, todo.start) == (("a",), (changed,), ())


def test_without_pruning_only_a_host_that_holds_a_port_goes() -> None:
    there = existing(Spec("idle"), Spec("old", ports=(9090,)), Spec("changed"))
    todo = plan([Spec("new", ports=(9090,)), Spec("changed", "bookworm")], there, prune=False)
    assert set(todo.remove) == {"old", "changed"}


def test_addresses_go_round_the_network() -> None:
    assert next_addresses(NETWORK, 1, 2, set()) == ["10.89.0.2", "10.89.0.3"]
    assert next_addresses(NETWORK, 7, 1, set()) == ["10.89.0.8"]
    assert next_addresses(NETWORK, 254, 2, {"10.89.0.2"}) == ["10.89.0.3", "10.89.0.4"]


def test_addresses_are_neither_network_nor_gateway_nor_broadcast() -> None:
    every = next_addresses(NETWORK, 100, 253, set())
    assert len(set(every)) == 253
    assert not {"10.89.0.0", "10.89.0.1", "10.89.0.255"} & set(every)


def test_a_full_network() -> None:
    with pytest.raises(LabError, match="no room for 254 more hosts"):
        next_addresses(NETWORK, 1, 254, set())


def test_specs_ignore_what_molecule_has_besides() -> None:
    text = json.dumps([{"name": "a", "groups": ["x"]}, {"name": "b", "release": "bookworm"}])
    assert read_specs(text) == [Spec("a"), Spec("b", "bookworm")]


@pytest.mark.parametrize("text", ["", "{}x", '["a"]', '[{"release": "trixie"}]', "3"])
def test_specs_that_are_none(text: str) -> None:
    with pytest.raises(LabError, match="must be JSON"):
        read_specs(text)


def test_two_checkouts_and_two_purposes_never_share_a_name(tmp_path: Path) -> None:
    assert engine.checkout_id(tmp_path / "a") != engine.checkout_id(tmp_path / "b")
    assert engine.prefix("lab") != engine.prefix("molecule-default")


def test_purposes_do_not_share_a_state() -> None:
    lab, molecule = (hosts.Fleet(purpose, Console()) for purpose in ("lab", "molecule-default"))
    assert lab.state not in (molecule.state, *molecule.state.parents)
    assert molecule.state not in (lab.state, *lab.state.parents)


@pytest.mark.parametrize(
    ("files", "processes", "text"),
    [(20_000, 96_365, "nofile=20000:20000"), (-1, -1, "nproc=32768:32768"), (1 << 20, 100, "nproc=100:100")],
)
def test_limits_stay_within_the_machines_own(files: int, processes: int, text: str) -> None:
    assert text in engine.configuration("runc", files, processes)
