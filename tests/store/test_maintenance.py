from __future__ import annotations

import os
import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, text

from fleetwatch.store import Incident, Notification, State, Status, Store, maintenance
from fleetwatch.store.maintenance import BackupError
from fleetwatch.store.models import Event
from tests.databases import LOCKED_USER, PASSWORD, PostgresServer

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
DAY = 86400.0


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "_BATCH", 3)
    monkeypatch.setattr(maintenance, "_PAGES", 5)
    monkeypatch.setattr(maintenance, "_PAUSE", 0.001)


def _add(store: Store, name: str, age: float | None, state: str = State.SENT, *, long: bool = False) -> None:
    """Add an incident that was resolved ``age`` seconds before NOW, or fires; with a message and an event."""
    resolved = None if age is None else NOW - timedelta(seconds=age)
    incident = Incident(
        fingerprint=name,
        starts_at=NOW - timedelta(days=100),
        received_at=NOW - timedelta(days=100),
        resolved_received_at=resolved,
        status=Status.RESOLVED if resolved else Status.FIRING,
        labels={"alertname": "A"},
        annotations={"description": "x" * 4000 if long else ""},
        **dict.fromkeys(("severity", "summary", "generator_url", "external_url", "receiver"), ""),
    )
    incident.events = [Event(at=NOW, kind="note", text="seen")]
    incident.notifications = [
        Notification(
            transition="firing",
            channel="mail",
            state=state,
            **dict.fromkeys(("queued_at", "wanted_at", "due_at"), NOW),
        )
    ]
    with store.write() as session:
        session.add(incident)


def _left(store: Store) -> list[str]:
    with store.read() as session:
        return sorted(session.scalars(select(Incident.fingerprint)))


def test_only_what_was_resolved_long_ago_goes(store: Store) -> None:
    _add(store, "fires", None)
    _add(store, "recent", DAY - 1)
    _add(store, "old", DAY + 1)
    _add(store, "dead letter", 2 * DAY, State.PARKED)
    _add(store, "still to be told", 3 * DAY, State.QUEUED)
    assert store.prune(DAY, NOW) == 2
    assert _left(store) == ["fires", "recent", "still to be told"]
    with store.read() as session:
        assert session.scalar(select(func.count(Notification.id))) == 3
        assert session.scalar(select(func.count(Event.id))) == 3


def test_many_go_in_small_steps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        _add(store, f"old{number}", 2 * DAY)
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    assert store.prune(DAY, NOW) == 10
    assert len(pauses) >= 3
    assert store.prune(DAY, NOW) == 0


def test_the_current_time_is_the_default(store: Store) -> None:
    _add(store, "old", 0)
    assert store.prune((datetime.now(UTC) - NOW).total_seconds() + 60) == 0
    assert store.prune((datetime.now(UTC) - NOW).total_seconds() - 60) == 1


def test_the_file_of_sqlite_shrinks(sqlite_database: str, tmp_path: Path) -> None:
    store = Store(sqlite_database)
    for number in range(50):
        _add(store, f"old{number}", 2 * DAY, long=True)
    with store.autocommit() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    file = tmp_path / "alerts.db"
    before = file.stat().st_size
    assert store.prune(DAY, NOW) == 50
    assert file.stat().st_size < before - 50 * 4000
    assert (tmp_path / "alerts.db-wal").stat().st_size == 0
    store.close()


def test_postgresql_is_vacuumed(postgresql_database: str) -> None:
    store = Store(postgresql_database)
    _add(store, "old", 2 * DAY)
    store.prune(DAY, NOW)
    counts = text("SELECT relname, vacuum_count, analyze_count FROM pg_stat_user_tables ORDER BY 1")
    with store.read() as session:
        session.execute(text("SELECT pg_stat_clear_snapshot()"))
        found = {name: (vacuumed, analyzed) for name, vacuumed, analyzed in session.execute(counts)}
    tables = ("events", "heartbeat", "incidents", "notifications")
    assert {name: found[name] for name in tables} == dict.fromkeys(tables, (1, 1))
    with store.write() as session:  # the connections are as before
        assert session.scalar(text("SHOW statement_timeout")) == "10s"
    store.close()


def test_others_write_while_old_ones_go(store: Store, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Store(database)
    for number in range(7):
        _add(store, f"old{number}", 2 * DAY)
    monkeypatch.setattr(time, "sleep", lambda _: other.check_writable())
    assert store.prune(DAY, NOW) == 7
    other.close()


def test_a_backup_of_sqlite_holds_everything(sqlite_database: str, tmp_path: Path) -> None:
    store = Store(sqlite_database)
    _add(store, "kept", None)
    target = tmp_path / "backup.db"
    with store.write():  # others go on
        store.backup(target)
    store.close()
    assert target.stat().st_mode & 0o777 == 0o600
    restored = Store(f"sqlite:///{shutil.copy(target, tmp_path / 'restored.db')}")
    assert _left(restored) == ["kept"]
    restored.check_writable()
    restored.close()
    assert [path.name for path in tmp_path.glob("*backup*")] == ["backup.db"]


def test_a_backup_of_postgresql_can_be_restored(
    postgres_server: PostgresServer, postgresql_database: str, tmp_path: Path
) -> None:
    store = Store(postgresql_database)
    _add(store, "kept", None)
    target = tmp_path / "backup.dump"
    store.backup(target)
    store.close()
    assert target.stat().st_mode & 0o777 == 0o600
    postgres_server.execute("DROP DATABASE IF EXISTS restored WITH (FORCE)")
    postgres_server.execute("CREATE DATABASE restored")
    url = postgres_server.url("restored")
    for _ in range(2):  # into an empty database, and over one in use, as the help says
        command = ["pg_restore", "--clean", "--if-exists", "--no-owner", "--single-transaction"]
        subprocess.run([*command, f"--dbname={url}", target], check=True)  # noqa: S603 - a fixed program
        restored = Store(url)
        assert _left(restored) == ["kept"]
        _add(restored, "afterwards", None)
        restored.close()


def test_the_password_goes_to_pg_dump_unseen(
    postgres_server: PostgresServer, postgresql_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = postgresql_database.rsplit("/", 1)[1]
    for what in ("TABLES", "SEQUENCES"):
        postgres_server.execute(f"GRANT ALL ON ALL {what} IN SCHEMA public TO {LOCKED_USER}", name)
    seen: list[str] = []
    run = subprocess.run

    def spy(command: list[str], **options: object) -> object:
        seen.extend(command)
        return run(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", spy)
    store = Store(postgres_server.url(name, LOCKED_USER), SecretStr(PASSWORD))
    store.backup(tmp_path / "backup.dump")
    store.close()
    assert "pg_dump" in seen
    assert not any(PASSWORD in word for word in seen)
    assert PASSWORD not in os.environ.values()


def test_a_backup_replaces_nothing_unasked(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    target.write_text("dear")
    with pytest.raises(BackupError, match="exists: choose another name, or replace it with --force"):
        store.backup(target)
    assert target.read_text() == "dear"
    store.backup(target, force=True)
    assert target.stat().st_size > 1000


def test_a_failed_backup_leaves_what_was_there(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "backup"
    target.write_text("dear")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        store.backup(target, force=True)
    assert target.read_text() == "dear"
    assert not list(tmp_path.glob(".backup*"))


def test_a_damaged_database_gives_no_backup(sqlite_database: str, tmp_path: Path) -> None:
    store = Store(sqlite_database)
    with store.autocommit() as connection:  # a row that breaks a rule, which a copy takes over as it is
        connection.exec_driver_sql("PRAGMA ignore_check_constraints=ON")
        connection.exec_driver_sql("CREATE TABLE damaged (id INTEGER CHECK (id > 0))")
        connection.exec_driver_sql("INSERT INTO damaged VALUES (-1)")
        connection.exec_driver_sql("PRAGMA ignore_check_constraints=OFF")
    with pytest.raises(BackupError, match="CHECK constraint failed in damaged"):
        store.backup(tmp_path / "backup.db")
    store.close()
    assert not list(tmp_path.glob("*backup*"))


def test_a_folder_that_is_not_there(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="nowhere is not a folder"):
        store.backup(tmp_path / "nowhere" / "backup")


def test_without_pg_dump(postgresql_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(postgresql_database)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackupError, match="install the package postgresql-client"):
        store.backup(tmp_path / "backup")
    store.close()
