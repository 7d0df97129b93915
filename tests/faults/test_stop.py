"""SIGTERM in the middle of the work."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sqlalchemy import select

from fleetwatch.store import Notification, State, Store
from tests.common.services import wait_until
from tests.faults.provider import run_provider
from tests.faults.stack import Posters, names, run_stack

pytestmark = pytest.mark.slow

_ALERTS = 32


def test_a_dispatcher_that_is_stopped_finishes_or_gives_back(database: str, tmp_path: Path) -> None:
    with (
        run_provider(pause=1.5) as provider,
        # A claim that was left behind would last for longer than this test waits.
        run_stack(tmp_path, database, provider, channel={"concurrency": 4, "timeout": 5}, lease=600) as stack,
    ):
        posters = Posters(stack.url, names(_ALERTS, 8))
        posters.start()
        posters.join()
        for stop in range(1, 4):
            wait_until(lambda wanted=stop * 4: len(provider.taken) >= wanted)  # type: ignore[misc]
            began = time.monotonic()
            assert stack.dispatcher.terminate() == 0
            assert time.monotonic() - began < 10
            assert len(provider.taken) < _ALERTS
            assert _claimed(database) == 0
            stack.dispatcher.start()
        stack.wait_delivered()
        stack.check(posters.accepted, provider)
    assert provider.duplicates() == 0


def test_a_receiver_that_is_stopped_answers_what_it_took(database: str, tmp_path: Path) -> None:
    with run_provider() as provider, run_stack(tmp_path, database, provider) as stack:
        posters = Posters(stack.url, names(400, 5), pause=0.02)
        posters.start()
        wait_until(lambda: posters.progress > 0.2)
        assert stack.receiver.terminate() == 0
        stack.receiver.start()
        posters.join()
        stack.wait_delivered()
        stack.check(posters.accepted, provider)
    assert provider.duplicates() == 0


def _claimed(database: str) -> int:
    store = Store(database)
    try:
        with store.read() as session:
            held = Notification.claimed_until.is_not(None) & (Notification.state == State.QUEUED)
            return len(session.scalars(select(Notification.id).where(held)).all())
    finally:
        store.close()
