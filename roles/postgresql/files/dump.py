#!/usr/bin/python3
"""Dump every database of a PostgreSQL server, and the users that they belong to, as its administrator.

    dump.py --directory FOLDER --keep-days DAYS [--port PORT] [--socket FOLDER]

Each database becomes ``<name>_<time>.dump`` (pg_dump's custom format, for pg_restore), the users and their
settings ``globals_<time>.sql`` (for psql). A dump has another name until it is whole, was read back by
pg_restore and is on disk. Then the table ``fleetwatch.dumps`` of the database ``postgres`` is told, which
postgres_exporter reads. A database that cannot be dumped does not keep the others from it, and the program
ends with status 1.

What is older than DAYS is removed, but never the newest of a database. On a standby nothing is done: dumps
are taken, and written down, where the databases can be written to.

Only Python's standard library is used, so that nothing has to be installed on a watched host.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

DAY = 86400
MODE = 0o600
PART = ".part"
"""Ends the name of a dump that is not whole."""
GLOBALS = "globals"
_DUMP = re.compile(r"(?P<name>.+)_\d{8}T\d{6}Z\.(?:dump|sql)")


class DumpError(Exception):
    """A program failed; its words."""


class Server:
    """The server, through its own programs."""

    def __init__(self, port: int, socket: str) -> None:
        """Take the port and the folder of the local socket."""
        self.options = [f"--port={port}", f"--host={socket}", "--no-password"]

    def run(self, program: str, *arguments: str, sql: str | None = None) -> str:
        """Run one of PostgreSQL's programs and return what it prints.

        :raises DumpError: it fails.
        """
        done = subprocess.run(  # noqa: S603 - PostgreSQL's own programs
            [program, *arguments], input=sql, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise DumpError(f"{program}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def sql(self, statement: str) -> str:
        """Return what a statement answers, in the database ``postgres``.

        :raises DumpError: it fails.
        """
        options = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "--dbname=postgres", *self.options]
        return self.run("psql", *options, sql=statement).strip()

    def databases(self) -> list[str]:
        """Return the names of the databases that can be dumped."""
        wanted = "FROM pg_database WHERE datallowconn AND NOT datistemplate"
        return list(json.loads(self.sql(f"SELECT json_agg(datname ORDER BY datname) {wanted}")))

    def dump(self, database: str, path: Path) -> None:
        """Dump a database, and read back what is in the file."""
        target = [f"--file={path}", "--format=custom", "--lock-wait-timeout=10min"]
        self.run("pg_dump", *target, *self.options, f"--dbname={connection(database)}")
        self.run("pg_restore", "--list", str(path))

    def dump_globals(self, path: Path) -> None:
        """Dump users, their passwords' verifiers and tablespaces."""
        self.run("pg_dumpall", "--globals-only", f"--file={path}", *self.options)

    def note(self, database: str, seconds: float, size: int) -> None:
        """Write down that a database was dumped."""
        name = "'" + database.replace("'", "''") + "'"
        new = "(EXCLUDED.finished, EXCLUDED.seconds, EXCLUDED.bytes)"
        self.sql(
            f"INSERT INTO fleetwatch.dumps VALUES ({name}, now(), {seconds:.3f}, {size}) "  # noqa: S608
            f"ON CONFLICT (datname) DO UPDATE SET (finished, seconds, bytes) = {new}"
        )

    def forget_dropped(self) -> None:
        """Remove what is written down of databases that are gone."""
        self.sql("DELETE FROM fleetwatch.dumps WHERE datname NOT IN (SELECT datname FROM pg_database)")


def connection(database: str) -> str:
    """Return a connection string that means the database of this name, whatever is in it."""
    return "dbname='" + database.replace("\\", "\\\\").replace("'", "\\'") + "'"


def complete(part: Path) -> int:
    """Give a dump that is whole its name, durably, and return its size in bytes."""
    with part.open("rb") as stream:
        os.fchmod(stream.fileno(), MODE)
        os.fsync(stream.fileno())
        size = os.fstat(stream.fileno()).st_size
    part.rename(part.with_name(part.name.removesuffix(PART)))
    folder = os.open(part.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return size


def dump_all(server: Server, directory: Path, stamp: str) -> list[str]:
    """Dump everything and return what went wrong."""
    problems = []
    part = directory / f"{GLOBALS}_{stamp}.sql{PART}"
    try:
        server.dump_globals(part)
        complete(part)
    except (DumpError, OSError) as error:
        problems.append(f"users: {error}")
        part.unlink(missing_ok=True)
    for database in server.databases():
        start = time.monotonic()
        part = directory / f"{quote(database, safe=' ')}_{stamp}.dump{PART}"
        try:
            server.dump(database, part)
            server.note(database, time.monotonic() - start, complete(part))
        except (DumpError, OSError) as error:
            problems.append(f"database {database}: {error}")
            part.unlink(missing_ok=True)
    return problems


def expired(names: list[tuple[str, float]], before: float) -> list[str]:
    """Return the dumps to remove.

    :param names: name and time (Unix) of each file.
    :param before: what is older goes, but for the newest of each database.
    """
    newest: dict[str, tuple[float, str]] = {}
    dumps = [(found["name"], when, name) for name, when in names if (found := _DUMP.fullmatch(name))]
    for database, when, name in dumps:
        newest[database] = max(newest.get(database, (0.0, "")), (when, name))
    return [name for database, when, name in dumps if when < before and newest[database] != (when, name)]


def clean(directory: Path, before: float) -> None:
    """Remove old dumps, and what an interrupted run left."""
    files = [path for path in directory.iterdir() if path.is_file()]
    for name in expired([(path.name, path.stat().st_mtime) for path in files], before):
        (directory / name).unlink()
    for path in files:
        if path.name.endswith(PART):
            path.unlink()


def main() -> int:
    """Run the program and return its exit status."""
    parser = argparse.ArgumentParser(description="Dump every database of a PostgreSQL server.")
    parser.add_argument("--directory", type=Path, required=True, help="folder of the dumps")
    parser.add_argument("--keep-days", type=int, required=True, help="days that a dump is kept")
    parser.add_argument("--port", type=int, default=5432, help="port of the server")
    parser.add_argument("--socket", default="/run/postgresql", help="folder of the server's local socket")
    arguments = parser.parse_args()
    os.umask(0o077)
    server = Server(arguments.port, arguments.socket)
    try:
        if server.sql("SELECT pg_is_in_recovery()") == "t":
            print("This server is a standby; its primary is the one to dump.")  # noqa: T201
            return 0
        clean(arguments.directory, time.time() - arguments.keep_days * DAY)
        problems = dump_all(server, arguments.directory, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
        server.forget_dropped()
    except (DumpError, OSError) as error:
        problems = [str(error)]
    for problem in problems:
        print(problem, file=sys.stderr)  # noqa: T201
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
