"""The metrics collector on a real host: complete, and of one mind with node_exporter on the same host."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support import Fleet, wait_for

HOST = "receiver"
Page = dict[tuple[str, ...], float]


def scrape(fleet: Fleet, port: int) -> Page:
    """Return name and sorted values of labels to value."""
    text = fleet.host(HOST).check_output(f"curl --silent --fail {fleet.url(HOST, port)}/metrics")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_collector_works_in_the_sandbox(fleet: Fleet) -> None:
    page = scrape(fleet, 8080)
    success = {key[1]: value for key, value in page.items() if key[0] == "metrics_collector_success"}
    assert len(success) == 13
    assert set(success.values()) == {1}
    for gauge, kind in (("cpu", "CPU"), ("mem", "Memory"), ("disk", "Disk")):
        assert 0 < page[f"gauge_{gauge}_usage", kind] <= 100


def test_it_sees_the_processes_and_mounts_of_the_host_and_not_those_of_its_sandbox(fleet: Fleet) -> None:
    page = scrape(fleet, 8080)
    host = fleet.host(HOST)
    running = len(host.check_output("ps -e --no-headers").splitlines())
    seen = sum(value for key, value in page.items() if key[0] == "host_processes")
    assert seen >= running / 2 > 2, "the sandbox hides the processes of others"
    points = {key[3] for key in page if key[0] == "host_filesystem_error"}
    mounted = set(host.check_output("findmnt --noheadings --raw --output TARGET").splitlines())
    assert "/" in points
    assert points <= mounted
    assert {value for key, value in page.items() if key[0] == "host_filesystem_error"} == {0}
    assert page[next(key for key in page if key[0] == "host_filesystem_readonly" and key[3] == "/")] == 0


@pytest.mark.parametrize(
    ("ours", "theirs", "tolerance"),
    [
        (("host_memory_size_bytes",), ("node_memory_MemTotal_bytes",), 0),
        (("host_memory_available_bytes",), ("node_memory_MemAvailable_bytes",), 0.2),
        (("host_boot_time_seconds",), ("node_boot_time_seconds",), 0.001),
        (("host_context_switches_total",), ("node_context_switches_total",), 0.2),
        (("host_cpu_seconds_total", "0", "idle"), ("node_cpu_seconds_total", "0", "idle"), 0.05),
        (
            ("host_network_receive_bytes_total", "eth0"),
            ("node_network_receive_bytes_total", "eth0"),
            0.2,
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_it_agrees_with_node_exporter(
    fleet: Fleet, ours: tuple[str, ...], theirs: tuple[str, ...], tolerance: float
) -> None:
    """Each reads at its own moment, so a value that moves may differ a little."""

    def agree() -> bool:
        assert scrape(fleet, 8080)[ours] == pytest.approx(scrape(fleet, 9100)[theirs], rel=tolerance)
        return True

    wait_for(agree, 60)


def test_prometheus_has_it_with_the_host(fleet: Fleet) -> None:
    def there(expression: str) -> Callable[[], bool]:
        return lambda: [result["metric"]["host"] for result in fleet.query(expression)] == [HOST]

    wait_for(there('up{job="metrics_collector"} == 1'))
    wait_for(there('gauge_cpu_usage{type="CPU"}'))
    wait_for(there('gauge_disk_usage{type="Disk"} > 0'))


def test_a_wrong_setting_stops_the_run_and_leaves_the_service_alone(fleet: Fleet) -> None:
    run = fleet.play_with({"metrics_collector_round_timeout": 1}, "--limit", HOST)
    assert run.code != 0
    assert 'setting "round_timeout": 1 is less than the 2' in " ".join(run.error.split())
    assert scrape(fleet, 8080)["metrics_collector_success", "cpu"] == 1
