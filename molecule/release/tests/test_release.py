"""Programs from release archives: installed once, upgraded, rolled back, and refused when they are wrong.

The tests build on one another, in this order.
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import Fleet, Run, wait_for

from lab.alert import call

CATALOGUE = json.loads((Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "releases.json").read_text())
OLD, NEW, FOREIGN = CATALOGUE["bookworm"], CATALOGUE["trixie"], CATALOGUE["foreign"]
ARCH, OLD_SHA256 = next(iter(OLD["node_exporter"]["checksums"].items()))
NEW_SHA256 = NEW["node_exporter"]["checksums"][ARCH]
PROGRAMS = [
    ("monitor", "prometheus", "promtool"),
    ("monitor", "alertmanager", "amtool"),
    ("monitor", "pushgateway", "pushgateway"),
    ("monitor", "node_exporter", "node_exporter"),
    ("node1", "node_exporter", "node_exporter"),
    ("web", "node_exporter", "node_exporter"),
]
MIRROR_PORT = 8000


def variables(releases: dict[str, Any], *components: str) -> dict[str, Any]:
    """Return the role variables that ask for these releases."""
    found = {}
    for component in components:
        found[f"{component}_version"] = releases[component]["version"]
        found[f"{component}_release_checksums"] = releases[component]["checksums"]
    return found


def running(fleet: Fleet, name: str, component: str) -> str:
    """Return the path of the program that a unit runs."""
    host = fleet.host(name)
    process = host.service(component).systemd_properties["MainPID"]
    return str(host.check_output(f"readlink /proc/{process}/exe")).strip()


def state(fleet: Fleet, name: str = "node1") -> str:
    """Return everything that a refused archive must leave as it is: files, links, unit and process."""
    command = (
        "find /opt/node_exporter -mindepth 1 -printf '%p %y %l %T@\n' | sort;"
        " sha256sum /etc/systemd/system/node_exporter.service;"
        " systemctl show -p MainPID,NRestarts,ActiveState node_exporter"
    )
    return str(fleet.host(name).check_output(command))


def versions(fleet: Fleet, name: str = "node1") -> set[str]:
    """Return what is in node_exporter's folder."""
    return set(fleet.host(name).check_output("ls -A /opt/node_exporter").split())


def requests(fleet: Fleet) -> int:
    """Return how many requests the mirror has answered."""
    log = str(fleet.host("web").check_output("journalctl --unit=releases --output=cat"))
    return log.count('"GET ')


@contextmanager
def no_mirror(fleet: Fleet) -> Iterator[None]:
    """Take the mirror away."""
    web = fleet.host("web")
    web.check_output("systemctl stop releases")
    try:
        yield
    finally:
        web.check_output("systemctl start releases")
        wait_for(lambda: web.run(f"curl --silent --head http://127.0.0.1:{MIRROR_PORT}/").rc == 0)


def refused(fleet: Fleet, extra: dict[str, Any]) -> Run:
    """Ask for a node_exporter that has to be refused; nothing may change."""
    before = state(fleet)
    run = fleet.play_with({**variables(NEW, "node_exporter"), **extra}, "--limit", "node1")
    assert run.code != 0
    assert state(fleet) == before
    assert call("GET", f"{fleet.url('node1', 9100)}/") is None
    return run


@pytest.mark.parametrize(("name", "component", "tool"), PROGRAMS)
def test_unit_runs_the_program_of_its_release(fleet: Fleet, name: str, component: str, tool: str) -> None:
    host = fleet.host(name)
    version = OLD[component]["version"]
    assert running(fleet, name, component) == f"/opt/{component}/{version}/{component}"
    assert host.file(f"/opt/{component}/current").linked_to == f"/opt/{component}/{version}"
    assert version in host.check_output(f"/opt/{component}/current/{tool} --version 2>&1")
    assert host.service(component).is_enabled
    assert host.service(component).systemd_properties["NRestarts"] == "0"
    assert host.run("systemctl is-system-running").stdout.strip() == "running"


def test_no_package_is_needed(fleet: Fleet) -> None:
    assert "prometheus" not in fleet.host("monitor").check_output("dpkg-query --show")


def test_every_target_is_up(fleet: Fleet) -> None:
    jobs = {"prometheus", "alertmanager", "pushgateway", "node_exporter"}
    up = wait_for(lambda: [r for r in fleet.query("up") if len(fleet.query("up == 1")) == len(PROGRAMS)])
    assert {result["metric"]["job"] for result in up} == jobs


def test_unchanged_run_asks_the_mirror_for_nothing(fleet: Fleet) -> None:
    before = requests(fleet)
    assert before > 0
    run = fleet.play()
    assert run.code == 0, run.output
    assert set(run.changed.values()) == {0}
    assert requests(fleet) == before


def test_broken_archive_is_refused(fleet: Fleet) -> None:
    url = f"http://web:{MIRROR_PORT}/broken/node_exporter-{{version}}.linux-{{arch}}.tar.gz"
    output = refused(fleet, {"node_exporter_release_url": url}).output
    mirrored = fleet.host("web").check_output(
        f"sha256sum /srv/releases/broken/{NEW['node_exporter']['file']}"
    )
    assert f"expected {NEW_SHA256}" in output
    assert f"got {mirrored.split()[0]}" in output
    assert "nothing was installed" in output


def test_archive_for_another_architecture_is_refused(fleet: Fleet) -> None:
    url = f"http://web:{MIRROR_PORT}/foreign/node_exporter-{{version}}.linux-{{arch}}.tar.gz"
    output = refused(fleet, {**variables(FOREIGN, "node_exporter"), "node_exporter_release_url": url}).output
    assert "Wrong architecture" in output
    assert f"but this host is {ARCH}" in output


def test_missing_checksum_is_refused(fleet: Fleet) -> None:
    output = refused(fleet, {"node_exporter_release_checksums": {"riscv64": NEW_SHA256}}).output
    assert f"checksums has no entry for {ARCH}" in output


def test_alerts_reach_alertmanager(fleet: Fleet) -> None:
    url = f"{fleet.url('monitor', 9093)}/api/v2/alerts?filter=alertname=Watchdog"
    # An alert from Prometheus' first seconds, before it knew of Alertmanager, is sent again after a minute.
    wait_for(lambda: call("GET", url), 90)


def test_upgrade_runs_the_new_programs_and_keeps_the_data(fleet: Fleet) -> None:
    oldest = 'min_over_time(timestamp(up{job="prometheus"})[1h:2s])'
    before = float(fleet.query(oldest)[0]["value"][1])
    run = fleet.play_with(variables(NEW, *NEW))
    assert run.code == 0, run.output
    for name, component, tool in PROGRAMS:
        version = NEW[component]["version"]
        assert running(fleet, name, component) == f"/opt/{component}/{version}/{component}"
        assert version in fleet.host(name).check_output(f"/opt/{component}/current/{tool} --version 2>&1")
    new = f'node_exporter_build_info{{version=~"{NEW["node_exporter"]["version"]}.*"}}'
    wait_for(lambda: len(fleet.query(new)) == 3)
    assert float(fleet.query(oldest)[0]["value"][1]) - before < 30, "the samples from before are gone"
    assert versions(fleet) == {"current", OLD["node_exporter"]["version"], NEW["node_exporter"]["version"]}


def test_rollback_needs_no_download(fleet: Fleet) -> None:
    with no_mirror(fleet):
        run = fleet.play()
    assert run.code == 0, run.output
    for name, component, _ in PROGRAMS:
        assert running(fleet, name, component) == f"/opt/{component}/{OLD[component]['version']}/{component}"
    wait_for(lambda: len(fleet.query("up == 1")) == len(PROGRAMS))


def test_older_versions_go_beyond_the_number_to_keep(fleet: Fleet) -> None:
    process = fleet.host("node1").service("node_exporter").systemd_properties["MainPID"]
    run = fleet.play_with({"node_exporter_release_keep": 0}, "--limit", "node1")
    assert run.code == 0, run.output
    assert versions(fleet) == {"current", OLD["node_exporter"]["version"]}
    assert fleet.host("node1").service("node_exporter").systemd_properties["MainPID"] == process


def test_controller_hands_over_what_hosts_cannot_fetch(fleet: Fleet, tmp_path: Path) -> None:
    name = NEW["node_exporter"]["file"]
    url = f"{fleet.url('web', MIRROR_PORT)}/{name}"
    urllib.request.urlretrieve(url, tmp_path / name)  # noqa: S310 - a host of this scenario
    local = {
        "node_exporter_release_download": "controller",
        "node_exporter_release_url": str(tmp_path / "node_exporter-{version}.linux-{arch}.tar.gz"),
    }
    with no_mirror(fleet):
        run = fleet.play_with({**variables(NEW, "node_exporter"), **local}, "--limit", "node1")
    assert run.code == 0, run.output
    version = NEW["node_exporter"]["version"]
    assert running(fleet, "node1", "node_exporter") == f"/opt/node_exporter/{version}/node_exporter"
