from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Histogram
from sqlalchemy.exc import IntegrityError, OperationalError

from fleetwatch.alerting.routes import Router
from fleetwatch.receiver.committer import MAX_ALERTS, ClosedError, Committer
from fleetwatch.store import Accepted, AlertEvent, Status

ROUTER = Router([], ["mail"])


def _batch(name: str, count: int = 1) -> list[AlertEvent]:
    return [AlertEvent(Status.FIRING, f"{name}{number}", {"alertname": name}) for number in range(count)]


class FakeStore:
    """Keeps the names of what it is given, and lets the test hold up the first transaction."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.go = Event()
        self.begun = Event()
        self.error: Exception | None = None

    def accept(self, batches: Sequence[Sequence[AlertEvent]], _router: Router) -> list[Accepted]:
        self.begun.set()
        assert self.go.wait(5)
        names = [batch[0].labels["alertname"] for batch in batches]
        self.groups.append(names)
        if self.error and "bad" in names:
            raise self.error
        return [Accepted(fired=len(batch)) for batch in batches]


@pytest.fixture
def fake() -> FakeStore:
    return FakeStore()


@pytest.fixture
def committer(fake: FakeStore) -> Iterator[Committer]:
    size = Histogram("group", "Requests", registry=CollectorRegistry())
    committer = Committer(fake, ROUTER, size)  # type: ignore[arg-type]
    yield committer
    fake.go.set()
    committer.close()


def _commit_beside(committer: Committer, fake: FakeStore, batches: list[list[AlertEvent]]) -> list[Any]:
    """Let these come while a first transaction is under way."""
    with ThreadPoolExecutor(len(batches) + 1) as pool:
        first = pool.submit(committer.commit, _batch("first"), 5)
        assert fake.begun.wait(5)
        rest = []
        for number, batch in enumerate(batches, 1):
            rest.append(pool.submit(committer.commit, batch, 5))
            while len(committer._waiting) < number:
                pass
        fake.go.set()
        assert first.result().fired == 1
        return [each.exception() or each.result() for each in rest]


def test_what_waits_is_committed_together(committer: Committer, fake: FakeStore) -> None:
    results = _commit_beside(committer, fake, [_batch("a"), _batch("b", 3), _batch("c")])
    assert [result.fired for result in results] == [1, 3, 1]
    assert fake.groups == [["first"], ["a", "b", "c"]]


def test_nobody_is_answered_before_the_commit(committer: Committer, fake: FakeStore) -> None:
    with pytest.raises(TimeoutError):
        committer.commit(_batch("a"), 0.1)


def test_a_bad_request_does_not_cost_the_others(committer: Committer, fake: FakeStore) -> None:
    fake.error = IntegrityError("INSERT", {}, Exception("no"))
    good, bad, other = _commit_beside(committer, fake, [_batch("a"), _batch("bad"), _batch("c")])
    assert (good.fired, other.fired) == (1, 1)
    assert isinstance(bad, IntegrityError)


def test_a_store_that_fails_is_not_asked_again_for_each(committer: Committer, fake: FakeStore) -> None:
    fake.error = OperationalError("INSERT", {}, Exception("disk full"))
    results = _commit_beside(committer, fake, [_batch("a"), _batch("bad"), _batch("c")])
    assert all(isinstance(result, OperationalError) for result in results)
    assert len(fake.groups) == 2


def test_a_transaction_has_a_bound(committer: Committer, fake: FakeStore) -> None:
    batches = [_batch("a", MAX_ALERTS - 1), _batch("b", 2), _batch("huge", 2 * MAX_ALERTS)]
    _commit_beside(committer, fake, batches)
    assert fake.groups == [["first"], ["a"], ["b"], ["huge"]]


def test_closing_commits_what_waits_and_takes_no_more(committer: Committer, fake: FakeStore) -> None:
    fake.go.set()
    committer.commit(_batch("a"), 5)
    committer.close()
    with pytest.raises(ClosedError):
        committer.commit(_batch("b"), 5)
