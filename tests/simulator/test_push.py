"""Pushing to the Pushgateway, and what happens when it does not want to."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from fleetwatch.simulator.fleet import Fleet
from fleetwatch.simulator.metrics import HostCollector, OwnMetrics
from fleetwatch.simulator.push import Pusher
from fleetwatch.simulator.scenarios import Play

from .conftest import NAMES, Gateway, MakeFleet, Time

SERIES = {
    ("custom_cpu_usage", ()),
    ("custom_memory_usage", ()),
    (
        "node_filesystem_avail_bytes",
        (("device", "/dev/vda1"), ("fstype", "ext4"), ("mountpoint", "/")),
    ),
    (
        "node_filesystem_size_bytes",
        (("device", "/dev/vda1"), ("fstype", "ext4"), ("mountpoint", "/")),
    ),
    ("node_load1", ()),
    ("node_network_receive_bytes_total", (("device", "eth0"),)),
}


@pytest.fixture(autouse=True)
def log_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def pusher(fleet: Fleet, url: str, registry: CollectorRegistry | None = None) -> Pusher:
    return Pusher(fleet, url, 5, OwnMetrics(registry or CollectorRegistry(), fleet))


def series(text: str) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_each_host_is_a_group_labelled_host_and_instance(make_fleet: MakeFleet, gateway: Gateway) -> None:
    pusher(make_fleet(), gateway.url).round()
    assert set(gateway.groups) == {
        f"/metrics/job/metrics_simulator/host/{name}/instance/{name}" for name in NAMES
    }
    assert all(series(body) == SERIES for body in gateway.groups.values())


def test_served_series_are_those_of_the_groups_with_the_same_labels(make_fleet: MakeFleet) -> None:
    registry = CollectorRegistry()
    registry.register(HostCollector(make_fleet().snapshot, labelled=True))
    found = {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in registry.collect()
        for sample in family.samples
    }
    assert found == {
        (name, tuple(sorted([*labels, ("host", host), ("instance", host)])))
        for name, labels in SERIES
        for host in NAMES
    }


def test_a_silent_host_loses_its_group_once_and_gets_it_back(
    make_fleet: MakeFleet, gateway: Gateway, time: Time
) -> None:
    fleet = make_fleet()
    push = pusher(fleet, gateway.url)
    push.round()
    fleet.play(Play(scenario="host-silent", hosts=["sim-db-01"], duration=60))
    push.round()
    push.round()
    assert gateway.hosts() == {"sim-web-01", "sim-batch-01"}
    assert [method for method, _ in gateway.requests].count("DELETE") == 1
    time.pass_(60)
    push.round()
    assert gateway.hosts() == set(NAMES)


def test_deleting_a_silent_host_is_tried_until_it_works(make_fleet: MakeFleet, gateway: Gateway) -> None:
    fleet = make_fleet()
    push = pusher(fleet, gateway.url)
    push.round()
    fleet.play(Play(scenario="host-silent", hosts=["sim-db-01"]))
    gateway.refuse = {"sim-db-01": 500}
    push.round()
    assert "sim-db-01" in gateway.hosts()
    gateway.refuse = {}
    push.round()
    assert "sim-db-01" not in gateway.hosts()


def test_stopping_deletes_all_groups(make_fleet: MakeFleet, gateway: Gateway) -> None:
    push = pusher(make_fleet(), gateway.url)
    push.round()
    assert push.delete_all()
    assert gateway.groups == {}


def test_groups_of_hosts_that_are_no_more_are_deleted_at_the_next_start(
    make_fleet: MakeFleet, gateway: Gateway, tmp_path: Path
) -> None:
    state = tmp_path / "state.json"
    pusher(make_fleet(state), gateway.url).round()  # and then killed
    push = pusher(make_fleet(state, ["sim-web-01"]), gateway.url)
    gateway.refuse = {"": 503}
    push.round()
    gateway.refuse = {}
    pusher(make_fleet(state, ["sim-web-01"]), gateway.url).round()
    assert gateway.hosts() == {"sim-web-01"}


def test_a_gateway_that_is_down_is_said_once_and_tried_again(
    make_fleet: MakeFleet, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    push = pusher(make_fleet(), "http://127.0.0.1:1", registry)
    assert push.ready() == "nothing pushed yet"
    for _ in range(3):
        push.round()
    assert push.ready() == "Connection refused"
    assert registry.get_sample_value("metrics_simulator_pushes_total", {"result": "error"}) == 3
    push._url = gateway.url
    push.round()
    assert push.ready() is None
    assert [record.message for record in caplog.records] == ["push failed, trying again", "pushing again"]
    assert caplog.records[0].__dict__["error"] == "Connection refused"


def test_a_gateway_that_stays_down_is_said_again_after_a_while(
    make_fleet: MakeFleet, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetwatch.simulator.push.REMINDER", 0)
    push = pusher(make_fleet(), "http://127.0.0.1:1")
    push.round()
    push.round()
    assert len(caplog.records) == 2


def test_a_host_that_is_refused_does_not_hold_up_the_others(
    make_fleet: MakeFleet, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.refuse = {"sim-web-01": 400}
    push = pusher(make_fleet(), gateway.url)
    push.round()
    assert gateway.hosts() == {"sim-db-01", "sim-batch-01"}
    assert push.ready() == "HTTP 400: the gateway's own words"
    assert caplog.records[0].__dict__["error"] == push.ready()


def test_stopping_while_the_gateway_is_down_is_a_log_line(
    make_fleet: MakeFleet, caplog: pytest.LogCaptureFixture
) -> None:
    assert not pusher(make_fleet(), "http://127.0.0.1:1").delete_all()
    assert caplog.records[-1].message == "groups not deleted"


def test_it_pushes_until_told_to_stop(make_fleet: MakeFleet, gateway: Gateway) -> None:
    fleet = make_fleet()
    push = Pusher(fleet, gateway.url, 0.02, OwnMetrics(CollectorRegistry(), fleet))
    stop = Event()
    thread = Thread(target=push.run, args=(stop,))
    thread.start()
    wait_for(lambda: len(gateway.requests) > 3 * len(NAMES))
    stop.set()
    thread.join(5)
    assert not thread.is_alive()


def wait_for(happens: Callable[[], bool]) -> None:
    for _ in range(500):
        if happens():
            return
        Event().wait(0.01)
    raise AssertionError("did not happen within 5 s")
