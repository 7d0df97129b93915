"""nftables between VMs: what is cut off is told of, and the page of ports names all that has to be open."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import yaml
from testinfra.host import Host

from lab.alert import Plan, follow
from tests.vagrant.conftest import Vm
from tests.vagrant.support import (
    PATIENCE,
    ROOT,
    UNITS,
    AlertPath,
    documented_ports,
    nftables,
    owner,
    wait_for,
)

GROUPS = {
    role: list(group["hosts"])
    for role, group in yaml.safe_load((ROOT / "tests/vagrant/inventory/hosts.yml").read_text()).items()
}
PEOPLE = {"people", "who plays incidents", "mail clients"}
"""Who comes from this machine."""
PROGRAMS = {
    "Prometheus": "prometheus",
    "Alertmanager": "alertmanager",
    "the other Alertmanagers": "alertmanager",
    "the dispatcher": "alert_receiver",
    "Grafana": "grafana",
    "whoever pushes": "metrics_simulator",
}
"""Who connects, as the page of ports says it, to the group where that is."""


def ruleset(name: str, addresses: dict[str, str], here: str) -> str:
    """Return a chain that lets in what the page of ports says, and counts what else the fleet tries.

    name: of the VM.
    addresses: of each VM.
    here: address by which this machine reaches them.
    """
    lines = [
        "type filter hook input priority -10; policy drop;",
        "ct state established,related accept",
        "iif lo accept",
        "meta l4proto { icmp, ipv6-icmp } accept",
        "tcp dport 22 accept",
    ]
    for variable, port, who in documented_ports():
        if name not in GROUPS.get(owner(variable), []):
            continue
        callers = {caller.removesuffix(" (lab only)").strip() for caller in who.split(";")}
        sources = {
            addresses[host] for caller in callers - PEOPLE for host in GROUPS.get(PROGRAMS[caller], [])
        } | ({here} if callers & PEOPLE else set())
        if sources:
            lines.append(f"ip saddr {{ {', '.join(sorted(sources))} }} tcp dport {port} accept")
    fleet = ", ".join(sorted(addresses.values()))
    lines.append(f"ip saddr {{ {fleet} }} tcp flags & (syn | ack) == syn counter name refused")
    body = "\n".join(f"    {line}" for line in lines)
    return f"  counter refused {{ }}\n  chain input {{\n{body}\n  }}"


def refused(host: Host) -> int:
    """Return how many connections from the fleet were not let in."""
    found = json.loads(host.check_output("nft --json list counter inet fleetwatch_test refused"))
    return int(next(each["counter"]["packets"] for each in found["nftables"] if "counter" in each))


@pytest.fixture
def closed(vm: Callable[[str], Vm]) -> Iterator[dict[str, str]]:
    """Close all VMs but for the documented ports, and return their addresses."""
    addresses = {name: vm(name).address for name in UNITS}
    with ExitStack() as stack:
        for name, address in addresses.items():
            with socket.create_connection((address, 22), timeout=60) as connection:
                here = connection.getsockname()[0]
            stack.enter_context(nftables(vm(name).host, ruleset(name, addresses, here)))
        yield addresses


def test_a_host_cut_off_is_told_of_and_so_is_its_return(receiver: Host, path: AlertPath) -> None:
    wait_for(path.all_up, PATIENCE)
    wait_for(lambda: not path.incidents("NodeDown", "firing", host="receiver"), PATIENCE)
    before = path.newest("NodeDown", host="receiver")
    drop = "chain input { type filter hook input priority -10; iif != lo tcp dport 9100 counter drop; }"
    with nftables(receiver, drop):
        incident = path.wait_fired("NodeDown", "receiver", before)
        # It is only this port: the alert itself came by the same host.
        wait_for(lambda: path.value('up{job="alert_receiver"}') == 1, PATIENCE)
    path.wait_resolved(incident)
    assert path.newest("NodeDown", host="receiver") == incident["id"]


def test_the_documented_ports_are_all_that_the_alert_path_needs(
    vm: Callable[[str], Vm], path: AlertPath, closed: dict[str, str]
) -> None:
    reconciled = "alert_dispatcher_reconciliation_last_success_timestamp_seconds"
    before = path.now(reconciled)
    stations = follow(path.urls, path.tokens, Plan(host="sim-db-01", patience=4))
    assert stations[-1].name == "resolved message in the mailbox"
    wait_for(path.all_up, PATIENCE)
    wait_for(lambda: path.value(reconciled) > before, PATIENCE)
    assert {name: refused(vm(name).host) for name in UNITS} == dict.fromkeys(UNITS, 0)

    # The rules do hold: nobody on the receiver's host pushes.
    push = f"curl --silent --max-time 5 http://{closed['monitor']}:9091/-/ready"
    assert vm("receiver").host.run(push).rc == 28, "time-out"
    assert refused(vm("monitor").host) > 0


def test_the_example_in_the_documentation_is_a_ruleset(monitor: Host) -> None:
    page = (ROOT / "docs/explanation/security.md").read_text(encoding="utf-8")
    example = page.partition("# /etc/nftables.conf\n")[2].partition("```")[0]
    assert "policy drop" in example
    monitor.check_output(f"printf %s '{example}' | nft --check --file -")
