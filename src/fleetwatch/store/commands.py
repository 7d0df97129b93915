"""The subcommands of ``fleetwatch-receiver`` that look after the database.

They need the settings file and the secret ``database_password``, but no other secret.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleetwatch.alerting.settings import AlertingSettings
from fleetwatch.common.settings import read
from fleetwatch.store import Store

_RESTORE = """
to restore:
  Stop receiver and dispatcher, on every host that uses the database.
  SQLite: remove alerts.db-wal and alerts.db-shm beside the database, then put the file in its place, owned
  by the services' user:
    install --owner=alert_receiver --mode=0600 FILE /var/lib/alert_receiver/alerts.db
  PostgreSQL: pg_restore --clean --if-exists --no-owner --single-transaction --dbname=URL FILE
  Then run "fleetwatch-receiver migrate", since the backup may be older than the program, and start them.
"""


class Migrate:
    """``migrate``."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Describe what it does."""
        parser.epilog = (
            "Run it before a new version starts. It does all or nothing, and nothing twice.\n"
            "An SQLite database is first copied to alerts.db.before-REVISION; make a backup of a\n"
            "PostgreSQL database yourself."
        )

    @staticmethod
    def run(options: argparse.Namespace) -> int:
        """Make or change the tables."""
        from fleetwatch.store import database, migrations  # noqa: PLC0415 - Alembic is needed here alone

        settings = _settings(options)
        before = migrations.upgrade(settings.database_url, settings.database_password)
        if before == database.HEAD:
            _say(f"nothing to do: the database has schema revision {before}")
        elif before is None:
            _say(f"tables made: schema revision {database.HEAD}")
        else:
            _say(f"tables changed: schema revision {before} to {database.HEAD}")
        return 0


class Backup:
    """``backup FILE``."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument("file", type=Path, metavar="FILE", help="where to write it, with mode 0600")
        parser.add_argument("--force", action="store_true", help="replace FILE if there is one")
        parser.epilog = _RESTORE

    @staticmethod
    def run(options: argparse.Namespace) -> int:
        """Write the file."""
        with _store(_settings(options)) as store:
            store.backup(options.file, force=options.force)
        _say(f"{options.file}: {options.file.stat().st_size} bytes")
        return 0


class Prune:
    """``prune``."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Describe what it does."""
        parser.epilog = (
            "The dispatcher does the same every hour. An incident stays while it fires or has a message\n"
            "that is still to go out."
        )

    @staticmethod
    def run(options: argparse.Namespace) -> int:
        """Delete."""
        settings = _settings(options)
        with _store(settings) as store:
            _say(f"incidents deleted: {store.prune(settings.retention)}")
        return 0


def _settings(options: argparse.Namespace) -> AlertingSettings:
    return read(AlertingSettings, options.config)


@contextmanager
def _store(settings: AlertingSettings) -> Iterator[Store]:
    store = Store(settings.database_url, settings.database_password)
    try:
        yield store
    finally:
        store.close()


def _say(text: str) -> None:
    print(text)  # noqa: T201 - the command's output
