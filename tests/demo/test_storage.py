from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from fleetwatch.common import health
from fleetwatch.demo import storage as module
from fleetwatch.demo.metrics import PoolMetrics
from fleetwatch.demo.models import Status, Transaction
from fleetwatch.demo.storage import New, Storage, UnavailableError
from tests.common.services import SOURCE, free_port, wait_until
from tests.databases import LOCKED_USER, PASSWORD, PostgresServer, fresh_database
from tests.demo.conftest import Configure

LIMIT = 90.0
"""Seconds: long enough on any machine."""


def new(amount: str = "12.34", key: str | None = None) -> New:
    return New(amount=Decimal(amount), currency="EUR", payment_id="p", idempotency_key=key)


def fill(storage: Storage, count: int) -> list[Transaction]:
    return [storage.create(new(str(number + 1)))[0] for number in range(count)]


def ids(transactions: object) -> list[object]:
    return [transaction.id for transaction in transactions]  # type: ignore[attr-defined]


def value(registry: CollectorRegistry, name: str) -> float:
    found = registry.get_sample_value(f"transactions_db_pool_{name}")
    assert found is not None
    return found


def test_a_new_transaction_is_pending_and_can_be_read(storage: Storage) -> None:
    made, is_new = storage.create(new())
    assert is_new
    assert (made.status, made.amount, made.reason, made.finished_at) == (
        Status.PENDING,
        Decimal("12.34"),
        None,
        None,
    )
    found = storage.get(made.id)
    assert found is not None
    assert (found.id, found.created_at, found.amount) == (made.id, made.created_at, made.amount)
    assert storage.get(uuid4()) is None


def test_one_key_makes_one_transaction_however_many_try_at_once(storage: Storage) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: storage.create(new(key="once")), range(24)))
    assert sum(is_new for _, is_new in made) == 1
    (one,) = {transaction.id for transaction, _ in made}
    assert storage.backlog().count == 1
    known = storage.by_key("once")
    assert known is not None
    assert known.id == one
    assert storage.by_key("twice") is None


def test_without_a_key_each_request_makes_one(storage: Storage) -> None:
    assert [storage.create(new())[1] for _ in range(3)] == [True] * 3


def test_pages_are_newest_first_without_gap_or_repetition_while_others_write(storage: Storage) -> None:
    made = ids(fill(storage, 7))
    seen: list[object] = []
    before = None
    while page := storage.page(3, before):
        fill(storage, 1)  # newer ones do not shift what follows
        seen += ids(page)
        before = (page[-1].created_at, page[-1].id)
    assert seen == made[::-1]


def test_pages_go_on_among_transactions_of_the_same_moment(
    storage: Storage, transactions_database: str
) -> None:
    fill(storage, 6)
    with psycopg.connect(transactions_database) as connection:
        connection.execute("UPDATE transactions SET created_at = '2026-01-02T03:04:05Z'")
    first = storage.page(4)
    rest = storage.page(4, (first[-1].created_at, first[-1].id))
    assert (len(first), len(rest)) == (4, 2)
    assert len({*ids(first), *ids(rest)}) == 6


def test_a_page_of_one_status(storage: Storage) -> None:
    fill(storage, 3)
    with storage.claim(2) as claim:
        claim.settle(claim.transactions[0], Status.COMPLETED)
        claim.settle(claim.transactions[1], Status.FAILED, "no")
    assert [found.reason for found in storage.page(9, status=Status.FAILED)] == ["no"]
    assert len(storage.page(9, status=Status.PENDING)) == 1
    assert len(storage.page(9)) == 3


def test_settled_transactions_keep_what_became_of_them(storage: Storage) -> None:
    made = fill(storage, 2)
    with storage.claim(5) as claim:
        assert ids(claim.transactions) == ids(made)  # the oldest first
        delay = claim.settle(claim.transactions[0], Status.FAILED, "no money")
    found, other = storage.get(made[0].id), storage.get(made[1].id)
    assert found is not None
    assert found.finished_at is not None
    assert (found.status, found.reason) == (Status.FAILED, "no money")
    assert (found.finished_at - found.created_at).total_seconds() == delay > 0
    assert other is not None
    assert other.status == Status.PENDING


def test_a_claim_is_one_workers_alone_by_batch_and_by_id(storage: Storage) -> None:
    made = fill(storage, 3)
    with storage.claim(2) as first:
        with storage.claim(5) as second:
            assert ids(second.transactions) == [made[2].id]
        with storage.claim(id=made[0].id) as third:
            assert third.transactions == []
        with storage.claim(id=made[2].id) as fourth:
            assert ids(fourth.transactions) == [made[2].id]
        first.settle(first.transactions[0], Status.COMPLETED)
    with storage.claim(5) as rest:
        assert ids(rest.transactions) == [made[1].id, made[2].id]


def test_many_workers_settle_each_transaction_once(storage: Storage) -> None:
    made = fill(storage, 60)
    done: list[object] = []
    start = threading.Barrier(6)

    def work(_: int) -> None:
        start.wait()
        while True:
            with storage.claim(4) as claim:
                for transaction in claim.transactions:
                    claim.settle(transaction, Status.COMPLETED)
                    done.append(transaction.id)
            if not claim.transactions:
                return

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))
    assert len(done) == 60
    assert set(done) == set(ids(made))
    assert storage.backlog().count == 0


def test_an_exception_frees_the_claim_and_forgets_what_was_settled(storage: Storage) -> None:
    made = fill(storage, 2)

    def fail() -> None:
        with storage.claim(2) as claim:
            claim.settle(claim.transactions[0], Status.COMPLETED)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with storage.claim(5) as again:
        assert ids(again.transactions) == ids(made)


WORKER = """
import sys, time
from fleetwatch.common import health
from fleetwatch.demo.metrics import PoolMetrics
from fleetwatch.demo.models import Status
from fleetwatch.demo.settings import Settings
from fleetwatch.demo.storage import Storage

storage = Storage(Settings(database_url=sys.argv[1]), PoolMetrics(health.registry()), "dies")
with storage.claim(1) as claim:
    claim.settle(claim.transactions[0], Status.COMPLETED)
    print("claimed", flush=True)
    time.sleep(600)
"""


def test_what_a_dead_worker_held_is_free_again(storage: Storage, transactions_database: str) -> None:
    (made,) = fill(storage, 1)
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", WORKER, transactions_database],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"claimed\n"
        with storage.claim() as claim:
            assert claim.transactions == []
        worker.kill()

    def free() -> bool:
        with storage.claim() as claim:
            return ids(claim.transactions) == [made.id]

    wait_until(free, LIMIT)


def test_the_backlog_is_how_many_wait_and_since_when(storage: Storage, transactions_database: str) -> None:
    assert storage.backlog() == module.Backlog(0, 0.0)
    fill(storage, 3)
    with psycopg.connect(transactions_database) as connection:
        connection.execute("UPDATE transactions SET created_at = now() - interval '1 hour' WHERE amount = 1")
    found = storage.backlog()
    assert found.count == 3
    assert 3600 <= found.oldest_age < 3600 + LIMIT


def test_only_old_finished_transactions_are_deleted_and_not_all_at_once(
    storage: Storage, transactions_database: str
) -> None:
    fill(storage, 6)
    with storage.claim(5) as claim:
        for transaction in claim.transactions:
            claim.settle(transaction, Status.COMPLETED)
    with psycopg.connect(transactions_database) as connection:
        connection.execute("UPDATE transactions SET created_at = now() - interval '8 days' WHERE amount != 1")
        connection.execute("UPDATE transactions SET finished_at = created_at WHERE status != 'pending'")
    week = timedelta(days=7)
    assert [storage.delete_finished(week, 3), storage.delete_finished(week, 3)] == [3, 1]
    assert {found.status for found in storage.page(9)} == {Status.PENDING, Status.COMPLETED}
    assert len(storage.page(9)) == 2


def test_one_that_was_made_long_ago_but_finished_just_now_is_kept(
    storage: Storage, transactions_database: str
) -> None:
    fill(storage, 1)
    with psycopg.connect(transactions_database) as connection:
        connection.execute("UPDATE transactions SET created_at = now() - interval '8 days'")
    with storage.claim(1) as claim:
        claim.settle(claim.transactions[0], Status.COMPLETED)
    assert storage.delete_finished(timedelta(days=7)) == 0
    assert storage.delete_finished(timedelta(0)) == 1


def test_many_processes_may_make_the_table_at_once(configure: Configure) -> None:
    storages = [Storage(configure(), PoolMetrics(health.registry()), "tests") for _ in range(6)]
    start = threading.Barrier(6)

    def ping(storage: Storage) -> None:
        start.wait()
        storage.ping()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(ping, storages))
    for storage in storages:
        storage.close()


def test_the_table_refuses_what_makes_no_sense(storage: Storage, transactions_database: str) -> None:
    fill(storage, 1)
    for nonsense in ("amount = -1", "status = 'lost'", "status = 'completed'", "finished_at = now()"):
        with psycopg.connect(transactions_database) as connection:  # noqa: SIM117 - the error ends it
            with pytest.raises(psycopg.errors.CheckViolation):
                connection.execute(f"UPDATE transactions SET {nonsense}".encode())  # noqa: S608


def test_an_exhausted_pool_is_told_in_time_counted_and_gone_again(configure: Configure) -> None:
    registry = health.registry()
    settings = configure(database_pool_size=1, database_max_overflow=1, database_pool_timeout=0.2)
    storage = Storage(settings, PoolMetrics(registry), "tests")
    assert value(registry, "overflow") == 0  # though no connection is open yet
    fill(storage, 2)
    assert [value(registry, name) for name in ("size", "max_overflow", "in_use")] == [1, 1, 0]
    with storage.claim(1), storage.claim(1):
        assert [value(registry, name) for name in ("in_use", "overflow")] == [2, 1]
        with pytest.raises(UnavailableError, match="all 2 connections"):
            storage.ping()
    assert [value(registry, name) for name in ("in_use", "overflow")] == [0, 0]
    assert [value(registry, name) for name in ("waits_total", "timeouts_total")] == [1, 1]
    assert value(registry, "wait_seconds_sum") >= 0.2
    storage.ping()
    assert value(registry, "timeouts_total") == 1
    storage.close()


def test_who_waits_for_a_connection_gets_the_next_free_one(configure: Configure) -> None:
    registry = health.registry()
    settings = configure(database_pool_size=1, database_max_overflow=0, database_pool_timeout=60)
    storage = Storage(settings, PoolMetrics(registry), "tests")
    with ThreadPoolExecutor(1) as threads:
        with storage.claim():
            waiting = threads.submit(storage.ping)
            wait_until(lambda: value(registry, "waits_total") == 1, LIMIT)
        waiting.result(LIMIT)
    assert value(registry, "timeouts_total") == 0
    storage.close()


def test_a_database_that_is_not_there_is_told_at_once(configure: Configure) -> None:
    storage = Storage(
        configure(database_url=f"postgresql://shop@127.0.0.1:{free_port()}/shop"),
        PoolMetrics(health.registry()),
        "tests",
    )
    with pytest.raises(UnavailableError, match="refused"):
        storage.ping()


def test_a_user_who_may_not_make_the_table_is_told_so_until_it_may(
    postgres_server: PostgresServer, configure: Configure
) -> None:
    with fresh_database(postgres_server) as url:
        login = f"{LOCKED_USER}:{PASSWORD}"
        storage = Storage(
            configure(database_url=url.replace("fleetwatch@", f"{login}@")),
            PoolMetrics(health.registry()),
            "tests",
        )
        with pytest.raises(UnavailableError, match="the table cannot be made: permission denied") as caught:
            storage.ping()
        assert PASSWORD not in f"{caught.value} {caught.value.__cause__}"
        with psycopg.connect(url) as connection:
            connection.execute(f"GRANT CREATE ON SCHEMA public TO {LOCKED_USER}".encode())
        fill(storage, 1)
        storage.close()


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """Run a server that a test may stop."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_database_that_comes_back_is_used_again(
    how: str, own_server: PostgresServer, configure: Configure
) -> None:
    with fresh_database(own_server) as url:
        registry = health.registry()
        storage = Storage(configure(database_url=url), PoolMetrics(registry), "tests")
        (made,) = fill(storage, 1)

        def work() -> None:
            with storage.claim() as claim:
                getattr(own_server, how)()
                claim.settle(claim.transactions[0], Status.COMPLETED)

        with pytest.raises(UnavailableError):
            work()
        for _ in range(20):  # none of the pool's connections gets lost
            with pytest.raises(UnavailableError):
                storage.ping()
        assert value(registry, "in_use") == 0
        own_server.start()
        with storage.claim() as claim:
            assert ids(claim.transactions) == [made.id]
        storage.close()


@pytest.mark.slow
def test_a_database_that_hangs_is_given_up(
    own_server: PostgresServer, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST_SILENCE", 1.0)
    with fresh_database(own_server) as url:
        storage = Storage(configure(database_url=url), PoolMetrics(health.registry()), "tests")
        storage.ping()
        server, backend = _processes(own_server)
        with _frozen(backend):
            storage.ping()  # over another connection
        _, backend = _processes(own_server)
        with _frozen(backend, server), pytest.raises(UnavailableError):
            storage.ping()
        storage.ping()
        storage.close()


def test_a_statement_that_takes_too_long_is_ended(
    configure: Configure, transactions_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(configure(), PoolMetrics(health.registry()), "tests")
    fill(storage, 1)
    with psycopg.connect(transactions_database) as connection:
        connection.execute("LOCK TABLE transactions")
        with pytest.raises(UnavailableError, match="lock timeout"):
            storage.create(new())
    assert storage.create(new())[1]
    storage.close()


@contextmanager
def _frozen(*processes: int) -> Iterator[None]:
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def _processes(server: PostgresServer) -> tuple[int, int]:
    """Return the server's own process and, as soon as there is but one, that of the pool's connection."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'tests'"

    def backends() -> list[tuple[int]] | None:
        with psycopg.connect(server.url("postgres")) as connection:
            found = connection.execute(query).fetchall()
        return found if len(found) == 1 else None

    found = wait_until(backends, LIMIT)
    assert found is not None
    pid_file = server.directory / "data" / "postmaster.pid"
    return int(pid_file.read_text().splitlines()[0]), found[0][0]


def test_nothing_that_goes_wrong_shows_the_password(configure: Configure, tmp_path: Path) -> None:
    url = f"postgresql://shop:s3cret@127.0.0.1:{free_port()}/shop"
    storage = Storage(configure(database_url=url), PoolMetrics(health.registry()), "tests")
    with pytest.raises(UnavailableError) as caught:
        storage.ping()
    chain = [caught.value, caught.value.__cause__]
    assert not any("s3cret" in str(error) for error in chain)
