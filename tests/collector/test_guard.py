"""The guard: what raises or hangs harms nobody else, and threads do not pile up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from threading import Event

import pytest

from fleetwatch.collector.guard import Guard
from tests.common.services import wait_until

PATIENT = 60.0


@pytest.fixture
def release() -> Iterator[Event]:
    """Ends what hangs."""
    event = Event()
    yield event
    event.set()


def limits(**seconds: float) -> Callable[[str], float]:
    return lambda name: seconds.get(name, PATIENT)


def threads() -> int:
    return sum(thread.name == "collect" for thread in threading.enumerate())


def fail() -> int:
    raise ValueError("no such sensor")


def test_one_that_raises_leaves_the_others_alone() -> None:
    outcomes = Guard().run({"a": lambda: 1, "b": fail, "c": lambda: 3}, limits(), PATIENT)
    assert {name: outcome.result for name, outcome in outcomes.items()} == {"a": 1, "b": None, "c": 3}
    assert (outcomes["b"].reason, outcomes["b"].message) == ("error", "ValueError: no such sensor")
    assert outcomes["a"].reason is outcomes["c"].reason is None


def test_one_that_hangs_leaves_the_others_alone(release: Event) -> None:
    functions = {"a": lambda: 1, "b": lambda: release.wait() and 2, "c": lambda: 3}
    outcomes = Guard().run(functions, limits(b=0.05), PATIENT)
    assert list(outcomes) == ["a", "b", "c"]
    assert [outcome.result for outcome in outcomes.values()] == [1, None, 3]
    assert outcomes["b"].reason == "timeout"
    assert outcomes["b"].seconds >= 0.05


def test_one_that_still_hangs_is_not_run_again_and_holds_nobody_up(release: Event) -> None:
    guard, runs = Guard(), []

    def hang() -> int:
        runs.append(1)
        release.wait()
        return 2

    functions = {"a": lambda: 1, "b": hang}
    before = threads()
    for _ in range(20):
        outcomes = guard.run(functions, limits(b=0.05), PATIENT)
        assert outcomes["a"].result == 1
    assert len(runs) == 1
    assert outcomes["b"].reason == "busy"
    assert outcomes["b"].seconds == 0
    wait_until(lambda: threads() <= before + 1, what="one thread hangs, and no more")

    release.set()
    wait_until(lambda: guard.run(functions, limits(), PATIENT)["b"].result == 2, what="it works again")
    wait_until(lambda: threads() <= before, what="all threads ended")


def test_all_may_hang(release: Event) -> None:
    guard = Guard()
    functions = {name: lambda: release.wait() and 1 for name in "abc"}
    reasons = [each.reason for each in guard.run(functions, lambda _: 0.05, PATIENT).values()]
    assert reasons == ["timeout"] * 3
    assert [each.reason for each in guard.run(functions, lambda _: 0.05, PATIENT).values()] == ["busy"] * 3


def test_all_together_have_a_limit_and_those_missed_come_next_time(release: Event) -> None:
    guard = Guard()
    functions = {"a": lambda: release.wait() and 1, "b": lambda: 2}
    outcomes = guard.run(functions, limits(), total=0.1)
    assert outcomes["a"].reason == outcomes["b"].reason == "timeout"
    assert guard.run(functions, limits(), PATIENT)["b"].result == 2


def test_a_thread_that_cannot_be_started_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        outcomes = Guard().run({"a": lambda: 1}, limits(), PATIENT)
    assert (outcomes["a"].reason, outcomes["a"].message) == ("error", "can't start new thread")


def test_a_late_result_is_not_taken_for_that_of_a_later_run(release: Event) -> None:
    guard, results = Guard(), iter([1, 2])

    def slow_at_first() -> int:
        result = next(results)
        if result == 1:
            release.wait()
        return result

    assert guard.run({"a": slow_at_first}, limits(a=0.05), PATIENT)["a"].reason == "timeout"
    release.set()
    time.sleep(0.05)
    assert wait_until(lambda: guard.run({"a": slow_at_first}, limits(), PATIENT)["a"].result) == 2
