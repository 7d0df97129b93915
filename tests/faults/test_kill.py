"""Receiver, dispatcher and PostgreSQL killed at random moments: what was accepted is delivered or parked."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleetwatch.store import migrations
from tests.databases import PostgresServer
from tests.faults.provider import Provider, run_provider
from tests.faults.stack import SEED, Posters, Stack, names, run_stack

pytestmark = pytest.mark.slow

_ALMOST = 0.97
"""Part of the alerts of which nobody waits for a further message."""


@dataclass
class Database:
    """A database that can be killed, if it has processes of its own."""

    url: str
    server: PostgresServer | None = None

    def kill(self) -> None:
        assert self.server is not None
        self.server.kill()
        # From this thread: PostgreSQL ends with the thread that started it.
        self.server.start()


@pytest.fixture(params=["sqlite", "postgresql"])
def killable(request: pytest.FixtureRequest) -> Iterator[Database]:
    if request.param == "sqlite":
        yield Database(request.getfixturevalue("sqlite_database"))
        return
    server = PostgresServer()
    try:
        server.start()
        server.execute("CREATE DATABASE alerts")
        migrations.upgrade(server.url("alerts"))
        yield Database(server.url("alerts"), server)
    finally:
        server.remove()


def _kill_at_random(
    rng: random.Random, kills: int, victims: dict[str, tuple[Callable[[], float], Callable[[], None]]]
) -> None:
    """Kill each victim so often, at random points of its progress (from 0 to 1)."""
    moments = {name: sorted(rng.uniform(0, 0.95) for _ in range(kills)) for name in victims}
    deadline = time.monotonic() + 600
    while any(moments.values()):
        assert time.monotonic() < deadline, f"no progress; still to be killed: {moments}"
        for name, (progress, kill) in victims.items():
            if moments[name] and progress() >= moments[name][0]:
                del moments[name][0]
                # Right after a success, or somewhere between two.
                time.sleep(rng.choice([0, rng.uniform(0, 0.02)]))
                kill()
        time.sleep(0.002)


def _burst(stack: Stack, database: Database, provider: Provider, alerts: int, kills: int) -> Posters:
    """Post alerts while all is killed; return when nothing is queued any more."""
    posters = Posters(stack.url, names(alerts, 25))
    posters.start()

    def delivered() -> float:
        return len(provider.known) / alerts

    rng = random.Random(SEED)  # noqa: S311 - to be repeated

    def kill_dispatcher() -> None:
        """Kill it anywhere, or with a message in the provider's hands, which is the worst moment."""
        worst = rng.choice([None, False, True])
        if worst is None or delivered() > _ALMOST:  # nothing more may come
            stack.dispatcher.kill()
        else:
            provider.crash_client(stack.dispatcher.kill, taken=worst)

    victims: dict[str, tuple[Callable[[], float], Callable[[], None]]] = {
        "receiver": (lambda: posters.progress, stack.receiver.kill),
        "dispatcher": (delivered, kill_dispatcher),
    }
    if database.server:
        victims["postgresql"] = (lambda: (posters.progress + delivered()) / 2, database.kill)
    began = time.monotonic()
    _kill_at_random(rng, kills, victims)
    posters.join()
    stack.wait_delivered()
    print(  # noqa: T201 - figures that people ask for
        f"FAULTS_SEED={SEED}: {alerts} alerts, {kills} kills of each of {', '.join(victims)}, "
        f"{time.monotonic() - began:.0f} s, {len(provider.taken)} messages, "
        f"{provider.duplicates()} duplicates, answers {dict(posters.answered)}"
    )
    return posters


def test_a_burst_through_all_kills(killable: Database, tmp_path: Path) -> None:
    kills = 10
    with run_provider() as provider, run_stack(tmp_path, killable.url, provider) as stack:
        posters = _burst(stack, killable, provider, 5000, kills)
        stack.check(posters.accepted, provider)
    # One message at a time: each kill but those of the receiver can hit between provider and commit.
    assert provider.duplicates() <= kills * (2 if killable.server else 1)
    assert len({message.key for message in provider.taken}) == len(provider.told())


def test_a_burst_in_digests_through_kills(killable: Database, tmp_path: Path) -> None:
    grouping = {"group_above": 10, "group_wait": 0.5}
    with (
        run_provider() as provider,
        run_stack(tmp_path, killable.url, provider, channel=grouping, lease=4) as stack,
    ):
        posters = _burst(stack, killable, provider, 1000, 3)
        stack.check(posters.accepted, provider)
    assert len(provider.taken) < 100
