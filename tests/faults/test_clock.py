"""The clock of both services goes three hours ahead, and back again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.common.services import SOURCE, wait_until
from tests.faults.provider import Fate, run_provider
from tests.faults.stack import Posters, names, run_stack

pytestmark = pytest.mark.slow

_CONCURRENCY = 2

# Python sleeps until a point of the monotonic clock, and libfaketime 0.9.10 takes that for a wrong argument.
_SITE = """
import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""


def _faketime() -> str:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.fail("libfaketime is not installed: `make prepare` installs it", pytrace=False)
    return str(found[0])


def test_a_clock_that_jumps(database: str, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    (tmp_path / "sitecustomize.py").write_text(_SITE)
    variables = {
        "PYTHONPATH": f"{tmp_path}:{SOURCE}",
        "LD_PRELOAD": _faketime(),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        # Seconds. To look at every call costs too much.
        "FAKETIME_CACHE_DURATION": "1",
        # As in life, where only the wall clock jumps.
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    state = {"fate": Fate.OK}
    channel = {"concurrency": _CONCURRENCY, "breaker_failures": 1000}
    quick: dict[str, Any] = {"poll_interval": 0.25, "lease": 300}
    with (
        run_provider(lambda: state["fate"], pause=0.05) as provider,
        run_stack(tmp_path, database, provider, channel=channel, variables=variables, **quick) as stack,
    ):
        accepted: set[str] = set()
        jumps = 0
        for hours in (3, 0, 3, 0):
            prefix = f"J{jumps}-"
            # What waits for a retry, is under way, or comes just now sees the jump.
            state["fate"] = Fate.ERROR
            before = Posters(stack.url, names(6, 3, f"{prefix}before"))
            before.start()
            before.join()
            wait_until(lambda wanted=jumps: provider.fates[Fate.ERROR] > wanted * 4)  # type: ignore[misc]
            state["fate"] = Fate.OK
            around = Posters(stack.url, names(8, 1, f"{prefix}around"), pause=1)  # until all see the jump
            around.start()
            wait_until(lambda: around.progress > 0.3)  # noqa: B023 - called at once
            if not hours:  # what is in hand is claimed until three hours from now
                stack.dispatcher.kill()
            new = tmp_path / "new"
            new.write_text(f"+{hours}h")
            new.replace(clock)  # at once: an empty file would be a time as well
            jumps += 1
            around.join()
            accepted |= before.accepted | around.accepted
        stack.wait_delivered()  # well within what a lease or a retry lasts that waits for the wrong time
        stack.check(accepted, provider)
    # A jump may cost a duplicate of what is under way: its claim seems to have run out, or its holder died.
    assert provider.duplicates() <= _CONCURRENCY * jumps
