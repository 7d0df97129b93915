"""A provider that fails at random, in every way HTTP knows: all is delivered in the end."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.faults.provider import TAKEN, UNKNOWN, Fate, run_provider
from tests.faults.stack import SEED, Posters, names, run_stack

pytestmark = pytest.mark.slow

_ALERTS = 300
_FAILING = 0.5
"""Part of the requests that do not go well."""


def test_a_provider_that_fails_in_every_way(database: str, tmp_path: Path) -> None:
    rng = random.Random(SEED)  # noqa: S311 - to be repeated
    failures = [fate for fate in Fate if fate is not Fate.OK]
    channel = {"concurrency": 8, "timeout": 0.5, "breaker_failures": 5, "breaker_pause": 0.2}
    with (
        run_provider(lambda: rng.choice(failures) if rng.random() < _FAILING else Fate.OK) as provider,
        run_stack(tmp_path, database, provider, channel=channel, retry_max=1.5) as stack,
    ):
        posters = Posters(stack.url, names(_ALERTS, 25))
        began = time.monotonic()
        posters.start()
        posters.join()
        stack.wait_delivered()
        stack.check(posters.accepted, provider)
    unknown = sum(provider.fates[fate] for fate in UNKNOWN)
    print(  # noqa: T201 - figures that people ask for
        f"FAULTS_SEED={SEED}: {_ALERTS} alerts in {time.monotonic() - began:.0f} s: "
        f"{sum(provider.fates.values())} requests, {unknown} with a lost answer, "
        f"{provider.duplicates()} duplicates"
    )
    assert set(provider.fates) == set(Fate), "more alerts are needed to see every failure"
    assert sum(provider.fates[fate] for fate in TAKEN) == len(provider.taken)
    assert provider.duplicates() <= unknown
    assert provider.told().total() - provider.duplicates() == _ALERTS


def test_a_provider_that_is_away_for_a_while(sqlite_database: str, tmp_path: Path) -> None:
    state = {"fate": Fate.ERROR}
    channel = {"concurrency": 4, "breaker_failures": 3, "breaker_pause": 1}
    with (
        run_provider(lambda: state["fate"]) as provider,
        run_stack(tmp_path, sqlite_database, provider, channel=channel) as stack,
    ):
        posters = Posters(stack.url, names(50, 25))
        posters.start()
        posters.join()
        time.sleep(5)
        assert provider.taken == []
        # The breaker leaves it alone: 50 messages, each tried every half second, would be 500 requests.
        assert provider.fates[Fate.ERROR] < 30
        state["fate"] = Fate.OK
        stack.wait_delivered()
        stack.check(posters.accepted, provider)
    assert provider.duplicates() == 0
