"""Opening the database, and the guarantees that the rest relies on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from threading import Lock
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Connection, Engine, column, create_engine, event, func, inspect, select, table
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import TimeoutError  # noqa: A004 - SQLAlchemy's own, unlike the built-in one
from sqlalchemy.orm import Session, sessionmaker

from fleetwatch.store.models import Heartbeat

HEAD = "0003"
"""The revision of the tables that this program works with: the last one in ``migrations/versions``."""

WRITER_LOCK = 0x666C6565  # "flee": any constant that nobody else uses in this database
"""Key of PostgreSQL's advisory lock that the one writer holds."""

# Seconds to wait for the other threads, and as much again for the other process. Alertmanager gives up
# after about 10 seconds.
_BUSY_TIMEOUT = 4.0

# Whoever hangs, even stopped in the middle of a transaction, keeps the others waiting for so long at most.
_POSTGRESQL_SESSION = {
    "synchronous_commit": "on",
    "lock_timeout": f"{_BUSY_TIMEOUT}s",
    "statement_timeout": "10s",
    "idle_in_transaction_session_timeout": "10s",
}
_POSTGRESQL_CONNECT = {
    "connect_timeout": 4,  # seconds, as all but the last
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
    "application_name": "fleetwatch",
    "options": " ".join(f"-c {name}={value}" for name, value in _POSTGRESQL_SESSION.items()),
}
# Few connections serve the threads: commits are collected by one of them, reads are short.
_POOL = {"pool_size": 4, "max_overflow": 8, "pool_timeout": _BUSY_TIMEOUT}

# A reader sees one snapshot. SQLite's writer takes the lock first, so that what it reads cannot change
# before it writes.
_MODES: dict[str, dict[str, dict[str, Any]]] = {
    "sqlite": {
        "read": {"begin": "BEGIN"},
        "write": {"begin": "BEGIN IMMEDIATE"},
        "autocommit": {"begin": None},
    },
    "postgresql": {
        "read": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
        "write": {"isolation_level": "READ COMMITTED"},
        "autocommit": {"isolation_level": "AUTOCOMMIT"},
    },
}


class SchemaError(Exception):
    """The database has not the tables that this program works with; the text says the cure."""


class SchemaTooNewError(SchemaError):
    """The database was written by a newer version of the program."""


class Database:
    """An open database with the right tables. Safe to use from several threads and processes."""

    def __init__(self, url: str, password: SecretStr | None = None) -> None:
        """Open the database.

        url: ``sqlite:////path/of/file`` or ``postgresql://user@host:port/name``.
        password: of the PostgreSQL user; it is in no error and no ``repr``.
        Raises SchemaError when its tables are missing, older or newer (``migrations.upgrade`` makes them),
        and OperationalError when it cannot be opened.
        """
        location = make_url(url)
        if location.get_backend_name() == "sqlite" and not Path(location.database or "").is_file():
            raise SchemaError(f"{location.database} does not exist: run fleetwatch-receiver migrate")
        self._password = password
        self._engine = open_engine(location, password)
        modes = _MODES[self.dialect]
        self._reader = sessionmaker(self._engine.execution_options(**modes["read"]), expire_on_commit=False)
        self._writer = sessionmaker(self._engine.execution_options(**modes["write"]), expire_on_commit=False)
        self._one_writer = Lock()
        try:
            with self.read() as session:
                check_revision(session.connection())
        except BaseException:
            self.close()
            raise

    @property
    def dialect(self) -> str:
        """Return ``sqlite`` or ``postgresql``."""
        return self._engine.dialect.name

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a session on one consistent snapshot, which is thrown away at the end."""
        with self._reader() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a session that is alone in changing incidents; on leaving, what it wrote is durable on disk.

        Raises SQLAlchemyError when that cannot be had; nothing is changed then, unless the connection
        broke just while committing.
        """
        # SQLite lets a second writer poll for the lock with growing pauses, and PostgreSQL's would each
        # occupy a connection. Threads of one process had better queue here.
        if not self._one_writer.acquire(timeout=_BUSY_TIMEOUT):
            raise TimeoutError("another thread of this process keeps the database locked")
        try:
            with self._writer.begin() as session:
                lock_writers(session.connection())
                yield session
        finally:
            self._one_writer.release()

    @contextmanager
    def work(self) -> Iterator[Session]:
        """Open a session that changes rows it has locked itself (``FOR UPDATE``); durable like ``write``.

        PostgreSQL lets many do so at once, beside the one that writes incidents. SQLite has one writer.
        """
        if self.dialect == "sqlite":
            with self.write() as session:
                yield session
        else:
            with self._writer.begin() as session:
                yield session

    @contextmanager
    def autocommit(self) -> Iterator[Connection]:
        """Open a connection outside of any transaction, for ``VACUUM`` and the like."""
        with autocommit(self._engine) as connection:
            yield connection

    def check_writable(self) -> None:
        """Commit something; raise SQLAlchemyError when the database does not take it."""
        with self.work() as session:
            session.merge(Heartbeat(id=1, beat_at=datetime.now(UTC)))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def open_engine(url: URL | str, password: SecretStr | None = None) -> Engine:
    """Return an engine with this module's guarantees, whatever the tables.

    Used with the execution options of ``_MODES``; without any, it reads.
    """
    url = make_url(url)
    if url.get_backend_name() == "postgresql":
        arguments = dict(_POSTGRESQL_CONNECT)
        if password is not None:  # not in the URL, which others may show
            arguments["password"] = password.get_secret_value()
        # A connection that died with the server is replaced before it is used.
        return create_engine(
            url.set(drivername="postgresql+psycopg"), connect_args=arguments, pool_pre_ping=True, **_POOL
        )
    engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT, "isolation_level": None}, **_POOL)

    @event.listens_for(engine, "connect")
    def _configure(connection: SqliteConnection, _record: object) -> None:
        # WAL lets readers and the one writer work side by side; FULL makes each commit wait for the disk.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if begin := connection.get_execution_options().get("begin", "BEGIN"):
            connection.exec_driver_sql(begin)

    return engine


@contextmanager
def autocommit(engine: Engine) -> Iterator[Connection]:
    """Open a connection outside of any transaction."""
    with engine.execution_options(**_MODES[engine.dialect.name]["autocommit"]).connect() as connection:
        yield connection


def lock_writers(connection: Connection) -> None:
    """Wait until nobody else writes incidents, and keep it so until the end of the transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(WRITER_LOCK)))


def revision(connection: Connection) -> str | None:
    """Return the revision of the tables, ``None`` when there are none.

    Revisions are numbers with leading zeros, so they compare like text.
    """
    tables = inspect(connection).get_table_names()
    if "alembic_version" in tables:
        return connection.scalar(select(column("version_num")).select_from(table("alembic_version")))
    return "0001" if "schema_version" in tables else None  # before there were migrations


def check_revision(connection: Connection) -> None:
    """Raise SchemaError unless the tables are those of ``HEAD``."""
    found = revision(connection)
    if found is None or found < HEAD:
        state = "has no tables yet" if found is None else f"has schema revision {found}"
        raise SchemaError(f"the database {state}, this program needs {HEAD}: run fleetwatch-receiver migrate")
    if found > HEAD:
        raise SchemaTooNewError(
            f"the database has schema revision {found}, this program knows {HEAD}: "
            "install the newer program again, or restore a backup made before the upgrade"
        )
