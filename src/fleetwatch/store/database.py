"""Opening the database, and the guarantees that the rest relies on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from sqlite3 import Connection as SqliteConnection
from threading import Lock

from sqlalchemy import Connection, Engine, create_engine, event, inspect, select, update
from sqlalchemy.exc import OperationalError, TimeoutError  # noqa: A004 - SQLAlchemy's own, unlike the built-in one
from sqlalchemy.orm import Session, sessionmaker

from fleetwatch.store.models import SCHEMA_VERSION, Base, SchemaVersion

# Seconds to wait for the other threads, and as much again for the other process. Alertmanager gives up
# after about 10 seconds.
_BUSY_TIMEOUT = 4.0
_OPEN_ATTEMPTS = 50
_OPEN_PAUSE = 0.1  # seconds


class SchemaTooNewError(Exception):
    """The database was written by a newer version of the program."""


class Database:
    """An open database with the right tables. Safe to use from several threads and processes."""

    def __init__(self, url: str) -> None:
        """Open the database and create the tables in an empty one.

        url: an SQLAlchemy URL of an SQLite file.
        Raises SchemaTooNewError, or OperationalError when the file cannot be opened.
        """
        self._engine = _engine(url)
        reader = sessionmaker(self._engine, expire_on_commit=False)
        writer = sessionmaker(self._engine.execution_options(write=True), expire_on_commit=False)
        self._reader, self._writer = reader, writer
        self._one_writer = Lock()
        self._create_or_check_schema()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a session on one consistent snapshot, which is thrown away at the end."""
        with self._reader() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a session that is alone in writing; on leaving, what it wrote is durable on disk.

        Raises SQLAlchemyError when that cannot be had; nothing is changed then.
        """
        # SQLite lets a second writer poll for the lock with growing pauses. Threads of one process had
        # better queue here; only the other process then has to poll.
        if not self._one_writer.acquire(timeout=_BUSY_TIMEOUT):
            raise TimeoutError("another thread of this process keeps the database locked")
        try:
            with self._writer.begin() as session:
                yield session
        finally:
            self._one_writer.release()

    def check_writable(self) -> None:
        """Commit something; raise SQLAlchemyError when the database does not take it."""
        with self.write() as session:
            session.execute(update(SchemaVersion).values(checked_at=datetime.now(UTC)))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _create_or_check_schema(self) -> None:
        for attempt in range(1, _OPEN_ATTEMPTS + 1):
            try:
                with self.write() as session:
                    self._create_tables(session.connection())
                    version = session.scalar(select(SchemaVersion.version))
                    if version is None:
                        session.add(SchemaVersion(id=1, version=SCHEMA_VERSION))
            except OperationalError as error:
                # Receiver and dispatcher may both find an empty file; the switch to WAL then excludes
                # one of them, and SQLite does not wait in that case.
                if "locked" not in str(error) or attempt == _OPEN_ATTEMPTS:
                    raise
                time.sleep(_OPEN_PAUSE)
            else:
                break
        if version is not None and version > SCHEMA_VERSION:
            raise SchemaTooNewError(
                f"the database has schema version {version}, this program knows {SCHEMA_VERSION}: "
                "install the newer program again, or restore a backup made before the upgrade"
            )

    @staticmethod
    def _create_tables(connection: Connection) -> None:
        # An existing database is left alone: a newer one must not be touched by an older program.
        if not inspect(connection).has_table(SchemaVersion.__tablename__):
            Base.metadata.create_all(connection)


def _engine(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT, "isolation_level": None})

    @event.listens_for(engine, "connect")
    def _configure(connection: SqliteConnection, _record: object) -> None:
        # WAL lets readers and the one writer work side by side; FULL makes each commit wait for the disk.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer takes the lock first, so that what it reads cannot change before it writes.
        write = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine
