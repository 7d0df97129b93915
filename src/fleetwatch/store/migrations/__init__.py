"""Makes the tables, and brings those of an older version up to date, with Alembic.

Each step is a file in ``versions``; the constant ``HEAD`` of ``fleetwatch.store.database`` names the last.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import make_url

from fleetwatch.store import database
from fleetwatch.store.maintenance import copy_sqlite


def config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration; there is no alembic.ini."""
    found = Config(attributes={"connection": connection})
    found.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    found.set_main_option("path_separator", "os")
    return found


def upgrade(url: str, password: SecretStr | None = None) -> str | None:
    """Make the tables in an empty database, or bring older ones up to date; all or nothing.

    Only one process does it, others wait. An SQLite file that holds something is first copied to
    ``<file>.before-<revision>``.

    url, password: as for ``Database``.
    Returns the revision from before; ``None`` for a database that was empty.
    Raises SchemaTooNewError, and SQLAlchemyError when the database cannot be opened or changed.
    """
    engine = database.open_engine(url, password)
    try:
        if engine.dialect.name == "sqlite":
            return _upgrade_sqlite(engine, Path(make_url(url).database or ""))
        with engine.begin() as connection:
            # Others hold their locks for seconds; the change itself may take its time.
            connection.execute(text("SET LOCAL lock_timeout = '60s'"))
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            database.lock_writers(connection)
            return _upgrade(connection)
    finally:
        engine.dispose()


def _upgrade_sqlite(engine: Engine, file: Path) -> str | None:
    with _alone_in(file.parent), database.autocommit(engine) as connection:
        found = database.revision(connection)
        if found is not None and found < database.HEAD:
            copy_sqlite(connection, file.with_name(f"{file.name}.before-{database.HEAD}"))
        # A table that others refer to is replaced; the references are checked in the end.
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            found = _upgrade(connection)
            _check_references(connection)
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")
        incremental = 2
        if connection.exec_driver_sql("PRAGMA auto_vacuum").scalar() != incremental:
            # So that retention can give space back in small steps. VACUUM makes the change.
            connection.exec_driver_sql("PRAGMA auto_vacuum=INCREMENTAL")
            connection.exec_driver_sql("VACUUM")
        return found


def _upgrade(connection: Connection) -> str | None:
    found = database.revision(connection)
    if found is None or found < database.HEAD:
        if found == "0001":  # for version 1 of the program, which had no migrations
            command.stamp(config(connection), found)
        command.upgrade(config(connection), "head")
    database.check_revision(connection)
    return found


def _check_references(connection: Connection) -> None:
    if row := connection.exec_driver_sql("PRAGMA foreign_key_check").first():
        raise database.SchemaError(f"row {row[1]} of table {row[0]} refers to one that is not there")


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Wait for other processes that do the same in this directory.

    SQLite's own lock does not do: the switch to WAL and VACUUM are outside of a transaction.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
