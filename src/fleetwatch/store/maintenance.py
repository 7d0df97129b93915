"""Keeping the database small and safe: retention, vacuum, backup."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, delete, exists, select

from fleetwatch.store.database import Database
from fleetwatch.store.models import Base, Incident, Notification, State, Status

_BATCH = 500  # incidents deleted in one transaction: some 50 ms
_PAGES = 1000  # given back in one transaction: 4 MB
_PAUSE = 0.2  # seconds for the other writers, of whom SQLite's look every 0.1 s


class BackupError(Exception):
    """No backup was written; the text says why and the cure."""


class Maintenance(Database):
    """The part of the store that looks after the database itself."""

    def prune(self, retention: float, now: datetime | None = None) -> int:
        """Delete incidents that were resolved long ago, with all that belongs to them; give back the space.

        Others can write meanwhile. A firing incident stays, and one with a message that is still to go out.

        retention: seconds since the resolve was committed.
        now: the end of that time; default the current time.
        Returns how many incidents were deleted. Raises SQLAlchemyError; what was deleted until then is gone.
        """
        waits = exists().where(Notification.incident_id == Incident.id, Notification.state == State.QUEUED)
        batch = (
            select(Incident.id)
            .where(
                Incident.status == Status.RESOLVED,
                Incident.resolved_received_at < (now or datetime.now(UTC)) - timedelta(seconds=retention),
                ~waits,
            )
            .order_by(Incident.resolved_received_at)
            .limit(_BATCH)
        )
        total = 0
        while True:
            with self.write() as session:
                deleted = list(session.scalars(batch))
                session.execute(delete(Incident).where(Incident.id.in_(deleted)))
            total += len(deleted)
            if len(deleted) < _BATCH:
                break
            time.sleep(_PAUSE)
        self._vacuum_sqlite() if self.dialect == "sqlite" else self._vacuum_postgresql()
        return total

    def backup(self, target: Path, *, force: bool = False) -> None:
        """Write all of the database into one file, while it is in use; whole or not at all, mode 0600.

        SQLite gives a database file, PostgreSQL an archive for ``pg_restore``. It is read back once.

        target: the file; its folder must exist.
        force: replace the file if there is one.
        Raises BackupError, OSError or SQLAlchemyError.
        """
        if target.exists() and not force:
            raise BackupError(f"{target} exists: choose another name, or replace it with --force")
        if not target.parent.is_dir():
            raise BackupError(f"{target.parent} is not a folder: make it first")
        if self.dialect == "sqlite":
            with self.autocommit() as connection:
                copy_sqlite(connection, target)
        else:
            with _written_aside(target) as file:
                self._dump(file)

    def _vacuum_sqlite(self) -> None:
        before = None
        while before is None or 0 < self._free_pages() < before:
            before = self._free_pages()
            with self.write() as session:
                # Each step frees one page, so the driver's cursor has to go through all of them.
                driver = session.connection().connection.cursor()
                driver.execute(f"PRAGMA incremental_vacuum({_PAGES})")
                driver.fetchall()
            time.sleep(_PAUSE)
        with self.write() as session:
            session.connection().exec_driver_sql("PRAGMA optimize")
        with self.autocommit() as connection:
            timeout = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
            try:
                # Writers wait while this one waits for readers; it is no loss to do it another time.
                connection.exec_driver_sql("PRAGMA busy_timeout=100")
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                connection.exec_driver_sql(f"PRAGMA busy_timeout={timeout}")

    def _free_pages(self) -> int:
        with self.read() as session:
            return int(session.connection().exec_driver_sql("PRAGMA freelist_count").scalar_one())

    def _vacuum_postgresql(self) -> None:
        with self.autocommit() as connection:
            try:
                connection.exec_driver_sql("SET statement_timeout = 0")
                for table in Base.metadata.sorted_tables:
                    connection.exec_driver_sql(f"VACUUM (ANALYZE, SKIP_LOCKED) {table.name}")
            finally:
                connection.exec_driver_sql("RESET statement_timeout")

    def _dump(self, file: Path) -> None:
        from psycopg.conninfo import make_conninfo  # noqa: PLC0415 - only for PostgreSQL

        # Not what the driver's own libpq says, whose options may be too new for pg_dump.
        _, arguments = self._engine.dialect.create_connect_args(self._engine.url)
        arguments.pop("context", None)  # psycopg's own
        where = make_conninfo(**arguments)
        options = ["--format=custom", "--no-password", "--lock-wait-timeout=60s"]
        password = {"PGPASSWORD": self._password.get_secret_value()} if self._password else {}
        _run(["pg_dump", *options, "--file", str(file), "--dbname", where], password)
        _run(["pg_restore", "--file=/dev/null", str(file)])  # reads all of it


def copy_sqlite(connection: Connection, target: Path) -> None:
    """Write a copy of an SQLite database that others may be using; whole or not at all, mode 0600.

    connection: outside of a transaction.
    Raises BackupError, OSError or SQLAlchemyError.
    """
    with _written_aside(target) as file:
        connection.exec_driver_sql("VACUUM INTO ?", (str(file),))
        with closing(sqlite3.connect(file)) as copy:
            # Restored, it may be opened by two services at once, which must not both have to switch.
            copy.execute("PRAGMA journal_mode=WAL")
            if (found := copy.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
                raise BackupError(f"the copy is damaged, and so is the database, it seems: {found}")


@contextmanager
def _written_aside(target: Path) -> Iterator[Path]:
    """Give an empty file in the same folder; on leaving it is made durable and takes the target's name."""
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    file = Path(name)
    try:
        yield file
        os.fsync(descriptor)
        file.replace(target)
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        os.close(descriptor)
        file.unlink(missing_ok=True)


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed programs, no shell
            command, env=os.environ | (environment or {}), capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise BackupError(f"{command[0]} is not installed: install the package postgresql-client") from None
    if done.returncode:
        raise BackupError(f"{command[0]} failed: {' '.join(done.stderr.split())}")
