"""The worker on a real PostgreSQL, as a process of its own where it dies, else in a thread."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from fleetwatch.common import health, tracing
from fleetwatch.demo import worker as worker_module
from fleetwatch.demo.cache import PageCache
from fleetwatch.demo.metrics import PoolMetrics, WorkerMetrics
from fleetwatch.demo.models import Status, Transaction
from fleetwatch.demo.settings import Settings
from fleetwatch.demo.storage import Backlog, New, Storage, UnavailableError
from fleetwatch.demo.worker import DECLINED, Worker
from tests.common.collector import run_collector
from tests.common.services import Service, call, free_port, wait_until
from tests.databases import PostgresServer

from .conftest import Configure
from .servers import RedisServer

pytestmark = pytest.mark.slow

TRACE = "0af7651916cd43dd8448eb211c80319c"
SURE = {"worker_latency": 0, "worker_failure_rate": 0, "latency_spread": 0}
"""Settings of a worker without chance."""

_AUDIT = """
CREATE TABLE settlements (id uuid, worker text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO settlements VALUES (NEW.id, current_setting('application_name')); RETURN NEW;
END $$;
CREATE TRIGGER note AFTER UPDATE ON transactions FOR EACH ROW EXECUTE FUNCTION note();
"""


class Database:
    """The database as the test sees it, past the program."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            found = connection.execute(statement.encode())
            return found.fetchall() if found.description else []

    def audit(self) -> None:
        """From now on, note every settlement that became durable."""
        self.ask(_AUDIT)

    def settlements(self) -> dict[str, int]:
        """Return how often each transaction was settled, durably."""
        return dict(self.ask("SELECT id::text, count(*) FROM settlements GROUP BY id"))

    def settlers(self) -> dict[str, int]:
        """Return how many transactions each worker settled."""
        return dict(self.ask("SELECT worker, count(*) FROM settlements GROUP BY worker"))

    def holds_a_claim(self, worker: str) -> bool:
        """Tell whether a worker is in the middle of a batch."""
        states = self.ask(f"SELECT state FROM pg_stat_activity WHERE application_name = '{worker}'")  # noqa: S608
        return ("idle in transaction",) in states


class RunningWorker(Service):
    """A worker as a process of its own."""

    port: int

    def up(self) -> None:
        self.start(f"http://127.0.0.1:{self.port}/livez")

    def ready(self) -> int:
        return call("GET", f"http://127.0.0.1:{self.port}/readyz").status

    def value(self, name: str, **labels: str) -> float:
        """Return a sample of /metrics, the sum of those with these labels."""
        text = call("GET", f"http://127.0.0.1:{self.port}/metrics").text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


MakeWorker = Callable[..., RunningWorker]


@pytest.fixture
def make_worker(tmp_path: Path) -> Iterator[MakeWorker]:
    """Return a function that makes workers for a database; their numbers are 1, 2 and so on."""
    made: list[RunningWorker] = []

    def make(database: str, **settings: Any) -> RunningWorker:
        number = len(made) + 1
        directory = tmp_path / f"worker{number}"
        directory.mkdir()
        port = free_port()
        while not 10_000 < port < 60_000:
            port = free_port()
        config = {
            "database_url": database,
            "listen_address": "127.0.0.1",
            "worker_port": port - number,
            "api_port": 2000,
            "worker_poll_interval": 0.1,
            **SURE,
            **settings,
        }
        found = RunningWorker("demo", config, directory, arguments=("worker", "--instance", str(number)))
        found.port = port
        made.append(found)
        return found

    yield make
    for each in made:
        each.kill()


@pytest.fixture
def database(transactions_database: str) -> Database:
    return Database(transactions_database)


def add(storage: Storage, count: int = 1, **more: Any) -> list[Transaction]:
    """Store pending transactions."""
    new = {"amount": Decimal("12.34"), "currency": "EUR", "payment_id": "pay_1", **more}
    return [storage.create(New(**new))[0] for _ in range(count)]


def status(storage: Storage, transaction: Transaction) -> Status:
    found = storage.get(transaction.id)
    assert found is not None
    return found.status


@contextmanager
def running(settings: Settings, registry: CollectorRegistry | None = None) -> Iterator[Worker]:
    """Run a worker in a thread."""
    registry = registry or health.registry()
    storage = Storage(settings, PoolMetrics(registry), "worker")
    cache = PageCache(settings)
    worker = Worker(settings, storage, cache, WorkerMetrics(registry))
    thread = Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(60)
        cache.close()
        storage.close()
        assert not thread.is_alive()


def test_two_workers_settle_each_of_500_exactly_once(
    storage: Storage, database: Database, make_worker: MakeWorker
) -> None:
    made = add(storage, 500)
    database.audit()
    workers = [make_worker(database.url, worker_latency=0.005) for _ in range(2)]
    for each in workers:
        each.spawn()
    wait_until(lambda: storage.backlog().count == 0, 120, "all are settled")
    assert database.settlements() == {str(each.id): 1 for each in made}
    assert set(database.settlers()) == {"transactions_worker@1", "transactions_worker@2"}
    counted = 0
    for each in workers:
        wait_until(lambda each=each: each.ready() == 200)  # type: ignore[misc]
        counted += int(each.value("transactions_processed_total"))
    assert counted == 500


def test_what_a_killed_worker_held_is_settled_once_by_another(
    storage: Storage, database: Database, make_worker: MakeWorker
) -> None:
    made = add(storage, 100)
    database.audit()
    first = make_worker(database.url, worker_latency=0.4, worker_batch=10)
    first.up()
    # Once a batch is durable, and another is under way.
    wait_until(database.settlements, what="the first batch")
    wait_until(lambda: database.holds_a_claim("transactions_worker@1"), what="the second batch")
    first.kill()
    settled = database.settlements()
    assert 0 < len(settled) < 100
    second = make_worker(database.url)
    second.up()
    wait_until(lambda: storage.backlog().count == 0, what="all are settled")
    assert database.settlements() == {str(each.id): 1 for each in made}
    assert database.settlers() == {
        "transactions_worker@1": len(settled),
        "transactions_worker@2": 100 - len(settled),
    }


def test_sigterm_finishes_the_batch(storage: Storage, database: Database, make_worker: MakeWorker) -> None:
    add(storage, 300)
    database.audit()
    worker = make_worker(database.url, worker_latency=0.1, worker_batch=5)
    worker.up()
    wait_until(database.settlements, what="the first batch")
    before = len(database.settlements())
    wait_until(lambda: database.holds_a_claim("transactions_worker@1"), what="the next batch")
    assert worker.terminate() == 0
    settled = len(database.settlements())
    assert settled > before
    assert settled % 5 == 0
    assert settled == 300 - storage.backlog().count
    events = [event["event"] for event in worker.events()]
    assert events[0] == "started"
    assert events[-1] == "stopped"
    assert events.count("settled") == settled


def test_sigterm_gives_back_what_would_take_long(
    storage: Storage, database: Database, make_worker: MakeWorker
) -> None:
    add(storage, 10)
    worker = make_worker(database.url, worker_latency=10)
    worker.up()
    wait_until(lambda: database.holds_a_claim("transactions_worker@1"), what="a batch")
    assert worker.terminate() == 0
    assert storage.backlog().count == 10


def test_a_database_that_comes_late_goes_and_comes_back(tmp_path: Path, make_worker: MakeWorker) -> None:
    server = PostgresServer()
    try:
        with _stopped(server) as url:
            worker = make_worker(url)
            worker.up()
            wait_until(lambda: worker.value("transactions_worker_errors_total") >= 2, what="it tried twice")
            assert worker.ready() == 503
            assert not worker.value("transactions_worker_last_cycle_timestamp_seconds")
        server.start()
        storage = Storage(Settings.model_validate({"database_url": url}), PoolMetrics(health.registry()), "t")
        wait_until(lambda: worker.ready() == 200, what="it found the database")
        add(storage)
        wait_until(lambda: storage.backlog().count == 0, what="it settles")
        server.kill()
        wait_until(lambda: worker.ready() == 503, what="it misses the database")
        server.start()
        add(storage)
        wait_until(lambda: storage.backlog().count == 0, 120, "it settles again")
        wait_until(lambda: worker.ready() == 200)
        assert worker.value("transactions_processed_total", status="completed") == 2
        storage.close()
        assert {"database not usable", "settling again"} <= {event["event"] for event in worker.events()}
    finally:
        server.remove()


@contextmanager
def _stopped(server: PostgresServer) -> Iterator[str]:
    """Yield the URL of a database whose server does not run."""
    server.start()
    server.execute("CREATE DATABASE late")
    server.stop()
    yield server.url("late")


def test_a_port_that_is_taken_is_one_line(make_worker: MakeWorker, database: Database) -> None:
    first = make_worker(database.url)
    first.up()
    second = make_worker(database.url, worker_port=first.port - 2)
    done = second.run()
    assert done.returncode == 2
    assert done.stderr == (
        f'transactions_worker: setting "worker_port": cannot listen on 127.0.0.1 port {first.port}: '
        "Address already in use\n"
    )


def test_the_metrics_say_what_was_settled(configure: Configure, storage: Storage) -> None:
    registry = health.registry()
    value = registry.get_sample_value
    add(storage, 3)
    add(storage, 2, currency="PLN", amount=Decimal("0.50"))
    wait_until(lambda: storage.backlog().oldest_age > 0.2)
    with running(configure(**{**SURE, "worker_latency": 0.01}), registry):
        wait_until(lambda: value("transactions_settle_delay_seconds_count") == 5)
    assert value("transactions_processed_total", {"status": "failed"}) == 0
    completed = {"status": "completed"}
    assert value("transactions_processed_amount_total", completed | {"currency": "EUR"}) == pytest.approx(
        37.02
    )
    assert value("transactions_processed_amount_total", completed | {"currency": "PLN"}) == pytest.approx(1.0)
    assert value("transactions_processing_duration_seconds_count") == 5
    assert (value("transactions_processing_duration_seconds_sum") or 0) >= 0.05
    assert value("transactions_settle_delay_seconds_count") == 5
    assert (value("transactions_settle_delay_seconds_sum") or 0) >= 5 * 0.2
    assert (value("transactions_worker_last_cycle_timestamp_seconds") or 0) > 1e9
    assert value("transactions_worker_errors_total") == 0


def test_the_backlog_is_the_whole_databases(configure: Configure, storage: Storage) -> None:
    registry = health.registry()
    add(storage, 7)
    made = storage.backlog()
    with storage.claim(7), running(configure(**SURE), registry):  # another worker holds them
        wait_until(lambda: registry.get_sample_value("transactions_pending") == 7)
        wait_until(
            lambda: (
                (registry.get_sample_value("transactions_pending_oldest_age_seconds") or 0)
                > made.oldest_age + 1
            )
        )
    with running(configure(**SURE), registry := health.registry()):
        wait_until(
            lambda: registry.get_sample_value("transactions_processed_total", {"status": "completed"}) == 7
        )
        wait_until(lambda: registry.get_sample_value("transactions_pending") == 0)
        assert registry.get_sample_value("transactions_pending_oldest_age_seconds") == 0


def test_a_backlog_that_takes_too_long_to_count_stops_nobody(
    configure: Configure, storage: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks: list[float] = []

    def fail(_storage: Storage) -> Backlog:
        looks.append(time.monotonic())
        raise UnavailableError("canceling statement due to statement timeout")

    monkeypatch.setattr(worker_module, "_LATER_LOOK", 0.0)
    registry = health.registry()
    with running(configure(**SURE, worker_poll_interval=0.01), registry) as worker:
        wait_until(lambda: registry.get_sample_value("transactions_worker_last_cycle_timestamp_seconds"))
        with monkeypatch.context() as patch:
            patch.setattr(Storage, "backlog", fail)
            wait_until(lambda: len(looks) >= 3)
            made = add(storage, 3)
            wait_until(lambda: {status(storage, each) for each in made} == {Status.COMPLETED})
            assert worker.ready() is None
            assert registry.get_sample_value("transactions_worker_errors_total") == 0
            assert registry.get_sample_value("transactions_pending") == 0
        with storage.claim(1), monkeypatch.context() as patch:
            patch.setattr(Storage, "backlog", lambda _storage: Backlog(7, 1.0))
            wait_until(lambda: registry.get_sample_value("transactions_pending") == 7, what="it looks again")
    assert [each.levelname for each in caplog.records if "backlog" in each.message] == ["WARNING"]


def test_transactions_fail_as_often_as_the_settings_say(configure: Configure, storage: Storage) -> None:
    (made,) = add(storage)
    with running(configure(**{**SURE, "worker_failure_rate": 1}), registry := health.registry()):
        wait_until(lambda: status(storage, made) == Status.FAILED)
        wait_until(
            lambda: registry.get_sample_value("transactions_processed_total", {"status": "failed"}) == 1
        )
    found = storage.get(made.id)
    assert found is not None
    assert found.reason == DECLINED
    assert found.finished_at is not None


def test_old_ones_are_deleted_and_pending_ones_are_not(
    configure: Configure, storage: Storage, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_PRUNE_ROWS", 2)
    old = add(storage, 5)
    with storage.claim(5) as claim:
        for each in claim.transactions:
            claim.settle(each, Status.COMPLETED)
    (young,) = add(storage)
    (waiting,) = add(storage)
    for days, transactions in ((8, [*old, waiting]), (6, [young])):
        for each in transactions:
            database.ask(
                f"UPDATE transactions SET created_at = now() - interval '{days} days' WHERE id = '{each.id}'"  # noqa: S608
            )
    database.ask("UPDATE transactions SET finished_at = created_at WHERE status != 'pending'")
    with (
        storage.claim(1, waiting.id),  # held, so that the worker cannot finish it
        running(configure(**SURE, retention_days=7)),
    ):
        wait_until(lambda: len(storage.page(100)) <= 2, what="the old ones are gone, in several rounds")
        assert {each.id for each in storage.page(100)} == {young.id, waiting.id}


def test_the_trace_of_the_request_goes_on(
    configure: Configure, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = configure(**SURE)
    (made,) = add(storage, traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
    with run_collector() as collector:
        tracing.setup("transactions_worker", collector.url)
        with running(settings):
            wait_until(lambda: status(storage, made) == Status.COMPLETED)
        tracing.shutdown()
    (span,) = [span for span in collector.spans if span.name == "settle"]
    assert (span.trace, span.parent) == (TRACE, "b7ad6b7169203331")
    assert span.attributes == {"transaction": str(made.id), "status": "completed"}


def test_log_events_have_the_trace_of_the_request(
    storage: Storage, database: Database, make_worker: MakeWorker
) -> None:
    worker = make_worker(database.url)
    worker.up()
    (made,) = add(storage, traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
    wait_until(lambda: status(storage, made) == Status.COMPLETED)
    worker.terminate()
    started, settled, stopped = worker.events()
    assert (settled["transaction"], settled["status"]) == (str(made.id), "completed")
    assert settled["trace_id"] == TRACE
    assert "trace_id" not in started
    assert "trace_id" not in stopped


def test_pages_that_show_it_pending_are_not_used_any_more(
    configure: Configure, storage: Storage, tmp_path: Path
) -> None:
    redis = RedisServer(tmp_path)
    try:
        redis.start()
        settings = configure(**SURE, redis_url=redis.url, cache_seconds=3600)
        cache = PageCache(settings)

        def page() -> str:
            made = lambda: json.dumps([each.status for each in storage.page(10)]).encode()  # noqa: E731
            return cache.page("all", made).decode()

        add(storage)
        assert page() == '["pending"]'
        with running(settings):
            wait_until(lambda: page() == '["completed"]')
        cache.close()
    finally:
        redis.kill()


def test_an_error_that_is_not_the_databases_absence_is_survived_too(
    configure: Configure, storage: Storage, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    (made,) = add(storage)
    database.ask("ALTER TABLE transactions RENAME COLUMN reason TO hidden")
    with running(configure(**SURE), registry := health.registry()) as worker:
        wait_until(lambda: (registry.get_sample_value("transactions_worker_errors_total") or 0) >= 2)
        assert worker.ready() == "internal error (ProgrammingError), see the log"
        database.ask("ALTER TABLE transactions RENAME COLUMN hidden TO reason")
        wait_until(lambda: status(storage, made) == Status.COMPLETED)
        wait_until(lambda: worker.ready() is None)
    assert any(record.exc_info for record in caplog.records)
