"""From the inventory to containers, and from containers to the inventory."""

from pathlib import Path
from typing import Any

import pytest

from lab import inventory
from lab.console import LabError
from lab.hosts import Spec
from lab.settings import Settings


def make(groups: dict[str, list[str]], hostvars: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "_meta": {"hostvars": hostvars or {}},
        "all": {"children": ["ungrouped", *groups]},
        **{name: {"hosts": hosts} for name, hosts in groups.items()},
    }


def test_ports_follow_the_groups() -> None:
    found = make({"prometheus": ["m"], "pushgateway": ["m"], "node_exporter": ["m", "n"]})
    assert inventory.specs(found, "trixie") == [Spec("m", "trixie", (9090, 9091)), Spec("n", "trixie")]


def test_ports_and_releases_of_the_inventory() -> None:
    found = make({"prometheus": ["m"]}, {"m": {"prometheus_port": 19090, "lab_release": "bookworm"}})
    assert inventory.specs(found, "trixie") == [Spec("m", "bookworm", (19090,))]


def test_hosts_of_child_groups_count_once() -> None:
    found = make({"node_exporter": ["a"], "web": ["a", "b"]})
    found["node_exporter"]["children"] = ["web"]
    assert inventory.members(found, "node_exporter") == ["a", "b"]
    assert inventory.watched(found) == {"a", "b"}


def test_a_host_that_is_not_scraped_is_not_waited_for() -> None:
    found = make({"node_exporter": ["a", "b"]}, {"b": {"node_exporter_scrape": False}})
    assert inventory.watched(found) == {"a"}


@pytest.mark.parametrize(
    ("groups", "hostvars", "words"),
    [
        ({"prometheus": ["a", "b"]}, {}, "a and b would both publish port 9090.*prometheus_port"),
        ({"prometheus": ["a"]}, {"a": {"prometheus_port": "many"}}, "prometheus_port is 'many'"),
        ({"node_exporter": ["Web_1"]}, {}, "'Web_1' cannot be a host name"),
        ({"node_exporter": ["a"]}, {"a": {"lab_release": "sid"}}, "lab_release of a is 'sid'"),
    ],
)
def test_mistakes(groups: dict[str, list[str]], hostvars: dict[str, dict[str, Any]], words: Any) -> None:
    with pytest.raises(LabError, match=words):
        inventory.specs(make(groups, hostvars), "trixie")


def test_the_dynamic_part(tmp_path: Path) -> None:
    (tmp_path / "addresses.json").write_text('{"node1": "10.89.0.2"}')
    answer = inventory.dynamic(Settings(nodes=2), {"prometheus_port": "1"}, tmp_path)
    assert answer["node_exporter"]["hosts"] == ["node1", "node2"]
    assert "lab_addresses" not in answer["all"]["vars"], "containers know one another by name"
    assert answer["all"]["vars"]["prometheus_port"] == "1"
    assert str(tmp_path / "ssh_config") in answer["all"]["vars"]["ansible_ssh_common_args"]


@pytest.mark.slow
def test_ansible_reads_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_NODES", "2")
    found = inventory.read()
    names = {spec.name: spec.ports for spec in inventory.specs(found, "trixie")}
    assert names == {
        "monitor": (9090, 9093, 9091, 8080, 5000),
        "receiver": (5001, 5002, 8025, 1025),
        "simulator": (9101,),
        "shop": (8081, 8000),
        "node1": (),
        "node2": (),
    }
    assert inventory.watched(found) == set(names)


@pytest.mark.slow
def test_an_inventory_script_that_fails_stops_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_NODES", "many")
    with pytest.raises(LabError) as caught:
        inventory.read()
    assert "LAB_NODES is 'many'" in " ".join(str(caught.value).split())
