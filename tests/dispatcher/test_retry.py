from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from fleetwatch.dispatcher.channels.http import retry_after
from fleetwatch.dispatcher.retry import RetryPolicy

POLICY = RetryPolicy(base=2, longest=60, give_up=1000)


@pytest.mark.parametrize(("attempt", "full"), [(1, 2), (2, 4), (3, 8), (6, 60), (100_000, 60)])
def test_backoff_doubles_up_to_the_limit_with_jitter(attempt: int, full: float) -> None:
    delays = {POLICY.delay(attempt) for _ in range(200)}
    assert all(full / 2 <= delay <= full for delay in delays)
    assert max(delays) - min(delays) > full / 4


def test_what_the_provider_asks_is_never_cut_short() -> None:
    assert all(120 <= POLICY.delay(1, 120) < 121 for _ in range(50))
    assert POLICY.delay(6, 0.1) >= 30
    assert POLICY.delay(1, 1e9) < 3601


def test_retry_after() -> None:
    assert retry_after({}) is None
    assert retry_after({"Retry-After": "7"}) == 7
    assert retry_after({"Retry-After": "-7"}) is None
    assert retry_after({"Retry-After": formatdate(time.time() + 60, usegmt=True)}) == pytest.approx(60, abs=2)
    assert retry_after({"X-RateLimit-Reset": str(int(time.time()) + 30)}) == pytest.approx(30, abs=2)
    assert retry_after({"X-RateLimit-Reset": "1"}) == 0
    assert retry_after({"Retry-After": "soon", "X-RateLimit-Reset": "later"}) is None
    assert retry_after({"Retry-After": "nan"}) is None
    assert retry_after({"X-RateLimit-Reset": "inf"}) is None
