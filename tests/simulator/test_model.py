"""The quiet life of a host."""

from __future__ import annotations

import statistics
from itertools import pairwise

import pytest

from fleetwatch.simulator.model import DAY, DISK_SIZE, KINDS, Host, default_names

MIDNIGHT = 1_750_032_000.0
assert MIDNIGHT % DAY == 0
METRICS = ("cpu", "memory", "disk", "load", "received")


def cpu_at(host: Host, hour: float) -> float:
    """Mean over two weeks."""
    return statistics.mean(host.at(MIDNIGHT + day * DAY + hour * 3600, 0).cpu for day in range(14))


def test_a_value_is_a_function_of_seed_host_metric_and_time() -> None:
    # Written down, so that neither another process nor another Python may differ.
    reading = Host("sim-web-01", 7).at(MIDNIGHT, MIDNIGHT - DAY)
    assert reading == Host("sim-web-01", 7).at(MIDNIGHT, MIDNIGHT - DAY)
    assert reading.cpu == pytest.approx(11.948891447838704)
    assert reading.received == pytest.approx(185570611767.5, abs=1)


@pytest.mark.parametrize("metric", METRICS)
def test_hosts_and_seeds_differ(metric: str) -> None:
    readings = [
        Host("sim-web-01", 1).at(MIDNIGHT, 0),
        Host("sim-web-02", 1).at(MIDNIGHT, 0),
        Host("sim-web-01", 2).at(MIDNIGHT, 0),
    ]
    assert len({getattr(reading, metric) for reading in readings}) == len(readings)


@pytest.mark.parametrize("peak", [14, 3.5])
def test_web_hosts_are_busy_at_the_peak_hour_and_quiet_twelve_hours_later(peak: float) -> None:
    for number in range(5):
        host = Host(f"sim-web-{number}", 1, peak)
        assert cpu_at(host, peak) > 2 * cpu_at(host, peak + 12)


def test_batch_hosts_work_at_night() -> None:
    host = Host("sim-batch-01", 1)
    assert cpu_at(host, 2) > 2 * cpu_at(host, 14)


def test_there_is_noise_but_no_jump() -> None:
    host = Host("sim-web-01", 1)
    cpu = [host.at(MIDNIGHT + second, 0).cpu for second in range(3600)]
    steps = [abs(b - a) for a, b in pairwise(cpu)]
    assert statistics.pstdev(cpu) > 0.3
    assert max(steps) < 1


@pytest.mark.parametrize("kind", KINDS)
def test_quiet_hosts_stay_within_bounds_and_below_the_default_thresholds(kind: str) -> None:
    for seed in range(12):
        host = Host(f"sim-{kind}-01", seed)
        for step in range(300):
            reading = host.at(MIDNIGHT + step * 1789, 0)
            assert 0 < reading.cpu < 65
            assert 0 < reading.memory < 48
            assert 0 < reading.disk < 70
            assert 0 <= reading.load < 1.8


@pytest.mark.parametrize("kind", KINDS)
def test_the_counter_rises_at_a_believable_rate_at_any_step(kind: str) -> None:
    low, high = KINDS[kind].traffic
    for seed in range(6):
        host = Host(f"sim-{kind}-01", seed)
        for start in (MIDNIGHT, MIDNIGHT + 51_234.5):
            for step in (0.25, 1, 7, 60, 900):
                values = [host.at(start + n * step, MIDNIGHT - 1e7).received for n in range(60)]
                rates = [(b - a) / step for a, b in pairwise(values)]
                assert 0.02 * low < min(rates)
                assert max(rates) < 1.6 * high


def test_the_counter_is_the_integral_of_the_rate() -> None:
    host = Host("sim-web-01", 1)
    for quarter in range(4):
        start = MIDNIGHT + quarter * DAY / 4
        rates = [host._traffic * (0.4 + 0.6 * host._busy(start + minute * 60 + 30)) for minute in range(360)]
        assert host.at(start + DAY / 4, start).received == pytest.approx(sum(rates) * 60, rel=0.01)


def test_the_counter_is_zero_where_the_simulation_began() -> None:
    assert Host("sim-web-01", 1).at(MIDNIGHT, MIDNIGHT).received == 0


def test_names() -> None:
    assert default_names(4) == ["sim-web-01", "sim-db-01", "sim-batch-01", "sim-web-02"]
    assert len(set(default_names(1000))) == 1000
    assert DISK_SIZE > 0
