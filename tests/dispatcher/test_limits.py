from __future__ import annotations

from fleetwatch.dispatcher.limits import CircuitBreaker, RateLimit


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_and_then_the_rate() -> None:
    clock = Clock()
    limit = RateLimit(per_minute=60, burst=3, clock=clock)
    assert limit.room(2) == 2
    assert limit.room(10) == 3
    limit.take(3)
    assert limit.room(10) == 0
    clock.now += 0.9
    assert limit.room(10) == 0
    clock.now += 0.2
    assert limit.room(10) == 1
    clock.now += 3600
    assert limit.room(10) == 3


def test_looking_often_loses_no_token() -> None:
    clock = Clock()
    limit = RateLimit(per_minute=6, burst=1, clock=clock)
    limit.take(1)
    sent = 0
    for _ in range(600):
        clock.now += 0.1
        if limit.room(1):
            limit.take(1)
            sent += 1
    assert sent in (5, 6)


def test_no_limit() -> None:
    limit = RateLimit(per_minute=0, burst=1)
    limit.take(1000)
    assert limit.room(7) == 7


def test_the_breaker_opens_after_failures_in_a_row_and_lets_one_try() -> None:
    clock = Clock()
    breaker = CircuitBreaker(failures=3, pause=30, clock=clock)
    assert [breaker.failed(), breaker.failed()] == [False, False]
    breaker.succeeded()
    assert [breaker.failed(), breaker.failed(), breaker.failed()] == [False, False, True]
    assert (breaker.room(4, 0), breaker.paused(), breaker.tripped()) == (0, True, True)
    clock.now += 31
    assert (breaker.room(4, 0), breaker.paused(), breaker.tripped()) == (1, False, True)
    assert breaker.room(4, 1) == 0
    assert not breaker.failed()
    assert breaker.room(4, 0) == 0
    clock.now += 31
    breaker.succeeded()
    assert (breaker.room(4, 0), breaker.tripped()) == (4, False)


def test_what_the_provider_asks_pauses_the_channel() -> None:
    clock = Clock()
    breaker = CircuitBreaker(failures=3, pause=30, clock=clock)
    breaker.failed(asked=10)
    breaker.failed()
    assert breaker.room(4, 0) == 0
    assert not breaker.tripped()
    clock.now += 11
    assert breaker.room(4, 0) == 4
    breaker.failed(asked=100)
    clock.now += 31
    assert breaker.paused()
