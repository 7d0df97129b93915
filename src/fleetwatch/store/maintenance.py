"""Keeping the database small and safe: retention, vacuum, backup."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from sqlalchemy import Connection


def copy_sqlite(connection: Connection, target: Path) -> None:
    """Write a copy of an SQLite database that others may be using; whole or not at all, mode 0600.

    connection: outside of a transaction.
    Raises OSError or SQLAlchemyError.
    """
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(descriptor)
    try:
        connection.exec_driver_sql("VACUUM INTO ?", (name,))
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)
