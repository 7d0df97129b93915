"""Databases for the tests: SQLite files and a real PostgreSQL server, fresh and with all tables.

The fixture ``database`` is the URL of one; every test that uses it runs on both.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import psycopg
import pytest

from fleetwatch.store import Store, migrations

_USER = "fleetwatch"
LOCKED_USER = "locked"
PASSWORD = "s3cret"  # noqa: S105 - of LOCKED_USER
_TEMPLATE = "empty"
_START_TIMEOUT = 30.0


class PostgresServer:
    """A private PostgreSQL server on loopback, in a folder of its own.

    Everybody may be ``fleetwatch``; the user ``LOCKED_USER`` needs ``PASSWORD``.
    """

    def __init__(self, *, fsync: bool = False) -> None:
        """Make the server's files. fsync: as in production; slower."""
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        if not found:
            pytest.fail("PostgreSQL is not installed: `make prepare` installs it", pytrace=False)
        self._bin = found[-1]
        self._fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None
        self._command = ["setpriv", "--pdeathsig=QUIT"]  # ends with the tests, however they end
        self.directory = Path(tempfile.mkdtemp(prefix="fleetwatch-pg-"))
        if os.geteuid() == 0:  # as whom PostgreSQL refuses to run
            self._command += ["--reuid=postgres", "--regid=postgres", "--init-groups"]
            shutil.chown(self.directory, "postgres", "postgres")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._run(
            "initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", f"--username={_USER}"
        )
        hba = self.directory / "data" / "pg_hba.conf"
        hba.write_text(f"host all {LOCKED_USER} 127.0.0.1/32 scram-sha-256\n{hba.read_text()}")

    def url(self, database: str, user: str = _USER) -> str:
        """Return the URL of a database, as in the settings."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start the server and wait until it answers, after ``kill`` too."""
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            if self._process is None or self._process.poll() is not None:
                # After a kill, the last of the old processes may still hold the shared memory.
                self._process = self._spawn()
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=2).close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    log = (self.directory / "log").read_text()
                    raise TimeoutError(f"PostgreSQL does not start:\n{log[-2000:]}") from None
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Stop the server in order; open connections are cut."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill all of the server's processes with SIGKILL, as a crash of the machine would."""
        self._end(signal.SIGKILL)

    def remove(self) -> None:
        """Kill the server and remove its files."""
        self.kill()
        shutil.rmtree(self.directory)

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Execute one statement as the server's owner."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _spawn(self) -> subprocess.Popen[bytes]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.directory,
            "fsync": "on" if self._fsync else "off",
            "full_page_writes": "on" if self._fsync else "off",
        }
        arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - a program found above
                [*self._command, self._bin / "postgres", "-D", self.directory / "data", *arguments],
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
            )

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(number)
        if number == signal.SIGKILL:
            for child in children:
                with suppress(ProcessLookupError):
                    os.kill(int(child), number)
        process.wait(_START_TIMEOUT)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(  # noqa: S603 - the same
            [*self._command, self._bin / program, "--pgdata", self.directory / "data", *arguments],
            check=True,
            capture_output=True,
            cwd=self.directory,
        )


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Run one server for the whole session; it holds the database that the others are copies of."""
    server = PostgresServer()
    try:
        server.start()
        server.execute(f"CREATE DATABASE {_TEMPLATE}")
        server.execute(f"CREATE USER {LOCKED_USER} PASSWORD '{PASSWORD}'")
        migrations.upgrade(server.url(_TEMPLATE))
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an SQLite file with all tables, to be copied."""
    file = tmp_path_factory.mktemp("template") / "alerts.db"
    migrations.upgrade(f"sqlite:///{file}")
    return file


@pytest.hookimpl(tryfirst=True)  # before those are left out that are not wanted
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Count what needs PostgreSQL among the slow tests; the quick ones have SQLite alone."""
    for item in items:
        if "postgres_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


_numbers = count()


@contextmanager
def fresh_database(server: PostgresServer, template: str = "template1") -> Iterator[str]:
    """Yield the URL of a new database, a copy of the template."""
    name = f"test{next(_numbers)}"
    server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield server.url(name)
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgresql_database(postgres_server: PostgresServer) -> Iterator[str]:
    """Return the URL of a fresh PostgreSQL database with all tables."""
    with fresh_database(postgres_server, _TEMPLATE) as url:
        yield url


@pytest.fixture
def sqlite_database(tmp_path: Path, sqlite_template: Path) -> str:
    """Return the URL of a fresh SQLite file ``alerts.db`` in ``tmp_path`` with all tables."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'alerts.db')}"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest) -> str:
    """Return the URL of a fresh database with all tables, on both systems in turn."""
    return str(request.getfixturevalue(f"{request.param}_database"))


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """Return an open store on ``database``."""
    store = Store(database)
    yield store
    store.close()
