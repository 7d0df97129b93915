"""A thread that waits is woken, or goes on when the time is over, whatever happens in between."""

from __future__ import annotations

import signal
import time
from threading import Event, Thread, Timer

from fleetwatch.common.wakeups import Wakeups


def test_all_items_come_at_once_and_in_order() -> None:
    wakeups: Wakeups[int] = Wakeups()
    wakeups.put(1)
    wakeups.put(2)
    assert wakeups.get(60) == [1, 2]
    assert wakeups.get(0) == []


def test_an_item_wakes_who_waits() -> None:
    wakeups: Wakeups[int] = Wakeups()
    Timer(0.1, wakeups.put, [1]).start()
    began = time.monotonic()
    assert wakeups.get(60) == [1]
    assert 0.05 < time.monotonic() - began < 30


def test_the_time_is_over_although_it_was_woken_before() -> None:
    wakeups: Wakeups[int] = Wakeups()
    wakeups.put(1)
    wakeups.get(0)
    began = time.monotonic()
    assert wakeups.get(0.1) == []
    assert time.monotonic() - began >= 0.1
    assert wakeups.get(-1) == []


def test_a_time_that_runs_out_while_it_looks_is_not_waited_for_without_limit() -> None:
    """With ``SimpleQueue.get(timeout=...)`` this hangs within some thousand rounds, before Python 3.13."""
    wakeups: Wakeups[int] = Wakeups()
    done = Event()

    def wait() -> None:
        for _ in range(30_000):
            wakeups.put(1)
            wakeups.get(0)
            wakeups.get(1e-6)
        done.set()

    Thread(target=wait, daemon=True).start()
    assert done.wait(60)


def test_a_signal_handler_may_put_at_any_moment() -> None:
    wakeups: Wakeups[int] = Wakeups()
    before = signal.signal(signal.SIGALRM, lambda *_: wakeups.put(1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        found = 0
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            found += len(wakeups.get(0.01))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert found > 50
