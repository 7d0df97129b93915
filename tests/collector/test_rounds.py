"""Rounds: what is served when collectors fail, who asks at once, and when it is ready."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from threading import Event

import pytest
from prometheus_client import CollectorRegistry, Metric

from fleetwatch.collector.collectors import Collect
from fleetwatch.collector.collectors.families import Metrics, gauge
from fleetwatch.collector.rounds import Rounds
from tests.common.services import wait_until

PATIENT = 60.0


def rounds(interval: float = 0, limit: float = PATIENT, **collectors: Collect) -> Rounds:
    return Rounds(collectors, lambda _: limit, PATIENT, interval)


def value(served: Rounds, name: str, **labels: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(served)
    found = registry.get_sample_value(name, labels)
    return None if found is None else float(found)


def works() -> Metrics:
    return [gauge("host_demo", "For the test.", 1)]


class Flaky:
    """Raises while told to."""

    def __init__(self) -> None:
        self.broken = True

    def __call__(self) -> Metrics:
        if self.broken:
            raise OSError("the sensor bus is stuck")
        return [gauge("host_flaky", "For the test.", 2)]


def test_a_collector_that_raises_is_told_of_and_the_others_are_served() -> None:
    flaky = Flaky()
    served = rounds(works=works, flaky=flaky)
    served.run()
    metrics = {sample.name: sample.value for metric in served.collect() for sample in metric.samples}
    assert metrics["host_demo"] == 1
    assert "host_flaky" not in metrics
    assert value(served, "metrics_collector_success", collector="works") == 1
    assert value(served, "metrics_collector_success", collector="flaky") == 0
    assert value(served, "metrics_collector_last_success_timestamp_seconds", collector="flaky") is None
    failures = value(served, "metrics_collector_failures_total", collector="flaky", reason="error")
    assert failures is not None
    assert failures >= 5
    assert value(served, "metrics_collector_failures_total", collector="works", reason="error") == 0

    flaky.broken = False
    before = time.time()
    assert value(served, "host_flaky") == 2
    assert value(served, "metrics_collector_success", collector="flaky") == 1
    good = value(served, "metrics_collector_last_success_timestamp_seconds", collector="flaky")
    assert good is not None
    assert good >= before


def test_only_changes_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    flaky = Flaky()
    served = rounds(works=works, flaky=flaky)
    with caplog.at_level(logging.INFO):
        for broken in (True, True, True, False, False, True):
            flaky.broken = broken
            served.run()
    assert [record.message for record in caplog.records] == [
        "collector fails",
        "collector works again",
        "collector fails",
    ]
    assert vars(caplog.records[0])["error"] == "OSError: the sensor bus is stuck"
    assert caplog.records[0].exc_info is None


def test_ready_while_anything_works() -> None:
    flaky = Flaky()
    served = rounds(works=works, flaky=flaky)
    assert served.ready() == "no round has ended yet"
    served.run()
    assert served.ready() is None
    alone = rounds(flaky=flaky)
    alone.run()
    assert "the sensor bus is stuck" in str(alone.ready())


@pytest.fixture
def release() -> Iterator[Event]:
    event = Event()
    yield event
    event.set()


def scrape(served: Rounds, into: list[list[Metric]]) -> threading.Thread:
    thread = threading.Thread(target=lambda: into.append(list(served.collect())), daemon=True)
    thread.start()
    return thread


def test_scrapes_at_once_share_rounds(release: Event) -> None:
    runs: list[int] = []

    def slow() -> Metrics:
        runs.append(1)
        release.wait(PATIENT)
        return works()

    served, answers = rounds(slow=slow), []  # type: ignore[var-annotated]
    first = scrape(served, answers)
    wait_until(lambda: runs)
    others = [scrape(served, answers) for _ in range(8)]
    time.sleep(0.1)  # so that they wait; if they do not yet, the test is only less strict
    release.set()
    for thread in (first, *others):
        thread.join(PATIENT)
    assert len(answers) == 9
    assert all(answer[0].samples[0].value == 1 for answer in answers)
    assert len(runs) <= 3, "the one under way, one for those who came meanwhile, one for a straggler"


def test_on_an_interval_a_scrape_runs_nothing_and_waits_for_nobody(release: Event) -> None:
    hang = Event()
    runs: list[int] = []

    def sometimes() -> Metrics:
        runs.append(1)
        if hang.is_set():
            release.wait(PATIENT)
        return works()

    served = rounds(interval=0.05, limit=0.2, sometimes=sometimes)
    assert served.ready() == "no round has ended yet"
    served.run()
    count = len(runs)
    assert value(served, "host_demo") == 1
    assert len(runs) == count
    stop = Event()
    thread = threading.Thread(target=served.keep_running, args=(stop,), daemon=True)
    thread.start()
    wait_until(lambda: len(runs) > count + 3)
    hang.set()

    def hung() -> bool:
        return value(served, "metrics_collector_success", collector="sometimes") == 0

    wait_until(hung)
    wait_until(
        lambda: value(served, "metrics_collector_failures_total", collector="sometimes", reason="busy")
    )
    assert value(served, "host_demo") is None
    hang.clear()
    release.set()
    wait_until(lambda: value(served, "host_demo") == 1)
    stop.set()
    thread.join(PATIENT)
    assert not thread.is_alive()


def test_rounds_that_stay_out_are_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Rounds({"works": works}, lambda _: 1, 3, interval=10)
    served.run()
    assert served.ready() is None
    now: Callable[[], float] = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 32)
    assert served.ready() is None
    monkeypatch.setattr(time, "monotonic", lambda: now() + 40)
    assert str(served.ready()).startswith("the last round ended 4")
