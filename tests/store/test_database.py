from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError, TimeoutError  # noqa: A004 - SQLAlchemy's own
from sqlalchemy.orm import Session

from fleetwatch.store import Store, database, migrations
from fleetwatch.store.models import Heartbeat
from tests.databases import LOCKED_USER, PASSWORD, PostgresServer

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all that waits for others give up soon, on the same ways as in earnest."""
    limits = {"lock_timeout": "300ms", "idle_in_transaction_session_timeout": "1s"}
    options = " ".join(
        f"-c {name}={value}" for name, value in (database._POSTGRESQL_SESSION | limits).items()
    )
    monkeypatch.setitem(database._POSTGRESQL_CONNECT, "options", options)
    monkeypatch.setattr(database, "_BUSY_TIMEOUT", 0.3)


@pytest.fixture
def other(impatient: None, database: str) -> Iterator[Store]:
    """The store as another process has it open; give up soon."""
    other = Store(database)
    yield other
    other.close()


def _beat(session: Session, at: datetime = NOON) -> None:
    session.merge(Heartbeat(id=1, beat_at=at))


def _beaten(store: Store) -> datetime:
    with store.read() as session:
        return session.get_one(Heartbeat, 1).beat_at


def _show(store: Store, *names: str) -> list[Any]:
    show = "PRAGMA" if store.dialect == "sqlite" else "SHOW"
    with store.write() as session:
        return [session.scalar(text(f"{show} {name}")) for name in names]


def test_every_commit_is_synchronous(store: Store) -> None:
    if store.dialect == "sqlite":
        full = 2
        assert _show(store, "synchronous", "journal_mode", "foreign_keys") == [full, "wal", 1]
    else:
        assert _show(store, "synchronous_commit") == ["on"]


def test_nobody_waits_for_ever_on_postgresql(postgresql_database: str) -> None:
    store = Store(postgresql_database)
    limits = _show(store, "lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    assert limits == ["4s", "10s", "10s"]
    store.close()


def test_the_readiness_check_writes(store: Store) -> None:
    with store.write() as session:
        _beat(session)
    store.check_writable()
    assert _beaten(store) > NOON


def test_the_readiness_check_makes_its_row(store: Store) -> None:
    with store.write() as session:
        session.execute(text("DELETE FROM heartbeat"))
    store.check_writable()
    assert _beaten(store) > NOON


def test_a_reader_sees_one_snapshot(store: Store, other: Store) -> None:
    with store.write() as session:
        _beat(session)
    with store.read() as session:
        assert session.get_one(Heartbeat, 1).beat_at == NOON
        with other.write() as writer:
            _beat(writer, NOON + timedelta(hours=1))
        session.expire_all()
        assert session.get_one(Heartbeat, 1).beat_at == NOON
    assert _beaten(store) == NOON + timedelta(hours=1)


def test_opening_and_reading_do_not_wait_for_a_writer(store: Store, impatient: None, database: str) -> None:
    with store.write() as session:
        _beat(session)
        session.flush()
        other = Store(database)
        assert _beaten(other) != NOON
        other.close()


def test_writers_take_turns(store: Store, database: str) -> None:
    """Also those who read first and then write what follows from it."""
    other = Store(database)
    with store.write() as session:
        _beat(session)

    def add(number: int) -> None:
        with (store, other)[number % 2].write() as session:
            row = session.get_one(Heartbeat, 1)
            row.beat_at += timedelta(seconds=1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(40)))
    assert _beaten(store) == NOON + timedelta(seconds=40)
    other.close()


def test_what_fails_changes_nothing(store: Store) -> None:
    with store.write() as session:
        _beat(session)

    def fail(session: Session) -> None:
        _beat(session, NOON + timedelta(hours=1))
        session.flush()
        raise RuntimeError

    for begin in (store.write, store.work):
        with pytest.raises(RuntimeError), begin() as session:
            fail(session)
    assert _beaten(store) == NOON


def test_a_writer_waits_for_another_process_but_not_long(store: Store, other: Store) -> None:
    with store.write() as session:
        _beat(session)
        session.flush()
        began = time.monotonic()
        with pytest.raises(SQLAlchemyError, match="lock"), other.write() as second:
            _beat(second)
        assert 0.2 < time.monotonic() - began < 3
    with other.write() as session:
        _beat(session)


def test_a_writer_waits_for_another_thread_but_not_long(other: Store) -> None:
    with other.write(), ThreadPoolExecutor(1) as pool:

        def write() -> None:
            with other.write():
                pass

        with pytest.raises(TimeoutError, match="another thread"):
            pool.submit(write).result()


def test_work_goes_on_beside_the_writer_on_postgresql(postgresql_database: str, impatient: None) -> None:
    store = Store(postgresql_database)
    with store.write(), store.work() as session:
        _beat(session)
    assert _beaten(store) == NOON
    store.close()


def test_a_writer_that_hangs_is_thrown_out_on_postgresql(postgresql_database: str, impatient: None) -> None:
    hung, store = Store(postgresql_database), Store(postgresql_database)

    def hang(session: Session) -> None:
        _beat(session)
        session.flush()
        time.sleep(1.3)  # as if it were stopped
        with store.write() as second:
            _beat(second, NOON + timedelta(hours=1))
        session.execute(text("SELECT 1"))

    with pytest.raises(SQLAlchemyError, match="idle-in-transaction"), hung.write() as session:
        hang(session)
    assert _beaten(store) == NOON + timedelta(hours=1)
    hung.close()
    store.close()


@pytest.mark.slow
def test_postgresql_may_be_killed_and_restarted() -> None:
    server = PostgresServer(fsync=True)
    try:
        server.start()
        server.execute("CREATE DATABASE alerts")
        migrations.upgrade(server.url("alerts"))
        store = Store(server.url("alerts"))
        with ThreadPoolExecutor(4) as pool:  # so that several connections are left over
            list(pool.map(lambda _: _beaten(store), range(8)))
        with store.write() as session:
            _beat(session)
        server.kill()
        server.start()
        assert _beaten(store) == NOON  # the dead connections are replaced without an error
        store.check_writable()
        server.kill()
        with pytest.raises(SQLAlchemyError):
            store.check_writable()
        server.start()
        store.check_writable()
        store.close()
        server.stop()
    finally:
        server.remove()


def test_a_password_works_and_is_never_shown(
    postgres_server: PostgresServer, postgresql_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = postgresql_database.rsplit("/", 1)[1]
    postgres_server.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {LOCKED_USER}", name)
    url = postgres_server.url(name, LOCKED_USER)
    store = Store(url, SecretStr(PASSWORD))
    store.check_writable()
    shown = f"{store._engine!r} {store._engine.url!r} {store._engine.url} {vars(store)}"
    assert PASSWORD not in shown
    store.close()
    for wrong in (SecretStr("wr0ng"), None):
        with pytest.raises(SQLAlchemyError, match="password") as failed:
            Store(url, wrong)
        assert "wr0ng" not in f"{failed.value!r} {failed.value} {caplog.text}"


def test_threads_share_few_connections(postgresql_database: str) -> None:
    store = Store(postgresql_database)
    barrier = threading.Barrier(32)

    def read(_: int) -> None:
        barrier.wait()
        _beaten(store)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(read, range(32)))
    with store.read() as session:
        count = session.scalar(
            text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        )
    assert count <= 12
    store.close()
