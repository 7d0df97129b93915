from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command, op
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import select, text
from sqlalchemy.orm import selectinload

from fleetwatch.store import Incident, SchemaError, SchemaTooNewError, State, Store, database, migrations
from fleetwatch.store.models import Base
from tests.common.services import SOURCE
from tests.databases import PostgresServer

VERSION_1 = Path(__file__).with_name("version1.sql").read_text()
"""What the program wrote that had no migrations."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database of version 1, with alerts in it."""
    file = tmp_path / "alerts.db"
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("PRAGMA journal_mode=WAL")
        raw.executescript(VERSION_1)
    return file


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/alerts.db"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    server.execute("DROP DATABASE IF EXISTS bare WITH (FORCE)")
    server.execute("CREATE DATABASE bare")
    return server.url("bare")


def _python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - a program of this file
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )


def _dump(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as raw:
        return list(raw.iterdump())


def _pragma(file: Path, name: str) -> Any:
    with closing(sqlite3.connect(file)) as raw:
        return raw.execute(f"PRAGMA {name}").fetchone()[0]


def _set_revision(url: str, revision: str) -> None:
    engine = database.open_engine(url)
    with database.autocommit(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :new"), {"new": revision})
    engine.dispose()


def test_the_constant_is_the_last_revision() -> None:
    assert ScriptDirectory.from_config(migrations.config()).get_heads() == [database.HEAD]


def test_the_migrations_make_exactly_the_models(store: Store) -> None:
    # Alembic takes SQLite's empty default for none; the next test looks at SQLite more closely.
    options = {"compare_type": True, "compare_server_default": store.dialect == "postgresql"}
    with store.autocommit() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []


def test_the_migrations_make_exactly_the_models_in_sqlite(sqlite_database: str, tmp_path: Path) -> None:
    engine = database.open_engine(f"sqlite:///{tmp_path}/models.db")
    with database.autocommit(engine) as connection:
        Base.metadata.create_all(connection)
    engine.dispose()
    assert _definitions(tmp_path / "alerts.db") == _definitions(tmp_path / "models.db")


def _definitions(file: Path) -> dict[str, set[str]]:
    """Return what defines each table and index, without the order of the columns."""
    with closing(sqlite3.connect(file)) as raw:
        found = raw.execute("SELECT name, sql FROM sqlite_master WHERE sql NOT NULL").fetchall()
    return {
        name: {line.strip().rstrip(",") for line in sql.replace('"', "").splitlines()}
        for name, sql in found
        if name != "alembic_version"
    }


def test_the_first_revision_is_version_1(tmp_path: Path) -> None:
    engine = database.open_engine(f"sqlite:///{tmp_path}/new.db")
    with database.autocommit(engine) as connection:
        command.upgrade(migrations.config(connection), "0001")
    engine.dispose()
    made = [line for line in _dump(tmp_path / "new.db") if "alembic" not in line]
    version_1 = re.sub(r'^INSERT INTO "(?:.|\n)*?\);\n', "", VERSION_1, flags=re.MULTILINE)
    assert "\n".join(made) == version_1.strip()


def test_an_empty_database_gets_its_tables(empty: str) -> None:
    assert migrations.upgrade(empty) is None
    store = Store(empty)
    store.check_writable()
    store.close()
    assert migrations.upgrade(empty) == database.HEAD


def test_a_database_of_version_1_keeps_all_it_has(file: Path) -> None:
    before = _dump(file)
    assert migrations.upgrade(f"sqlite:///{file}") == "0001"
    store = Store(f"sqlite:///{file}")
    with store.read() as session:
        query = select(Incident).options(selectinload(Incident.notifications)).order_by(Incident.id)
        incidents = list(session.scalars(query))
    assert [(i.id, i.fingerprint, i.status, i.reopened) for i in incidents] == [
        (1, "f1", "resolved", 0),
        (2, "f2", "firing", 0),
        (3, "f3", "firing", 0),
    ]
    assert incidents[0].annotations == {"summary": 'it\'s "odd"'}
    assert incidents[0].starts_at.isoformat() == "2026-01-02T03:04:05.678901+00:00"
    rows = [row for incident in incidents for row in incident.notifications]
    assert [(row.id, row.state, row.provider_id, row.last_error) for row in rows] == [
        (1, State.SENT, "name", None),
        (4, State.QUEUED, None, None),
        (2, State.PARKED, None, "no"),
        (3, State.QUEUED, None, None),
    ]
    assert all(row.wanted_at == row.queued_at and row.route == "" for row in rows)
    store.close()
    # Without the version's own table, each row begins with what it was.
    rows_before = [line.removesuffix(");") for line in before if re.match('INSERT INTO "[in]', line)]
    after = _dump(file)
    assert len(rows_before) == 7
    assert all(any(line.startswith(row) for line in after) for row in rows_before)
    assert not any("schema_version" in line for line in after)
    assert _pragma(file, "auto_vacuum") == 2  # incremental
    assert _pragma(file, "integrity_check") == "ok"


def test_a_database_of_0002_keeps_all_it_has(empty: str) -> None:
    engine = database.open_engine(empty)
    with database.autocommit(engine) as connection:
        command.upgrade(migrations.config(connection), "0002")
        connection.execute(
            text(
                "INSERT INTO incidents (fingerprint, starts_at, status, severity, summary, labels, "
                "annotations, generator_url, external_url, receiver, received_at) VALUES "
                "('f1', CURRENT_TIMESTAMP, 'firing', 'critical', 'A', '{}', "
                "'{}', '', '', 'fleetwatch', CURRENT_TIMESTAMP)"
            )
        )
    engine.dispose()
    assert migrations.upgrade(empty) == "0002"
    store = Store(empty)
    with store.read() as session:
        (incident,) = session.scalars(select(Incident))
    assert (incident.fingerprint, incident.status, incident.labels) == ("f1", "firing", {})
    assert store.watchdogs() == []
    store.close()


def test_a_copy_is_made_before_an_upgrade(file: Path) -> None:
    before = _dump(file)
    migrations.upgrade(f"sqlite:///{file}")
    copy = file.with_name(f"alerts.db.before-{database.HEAD}")
    assert _dump(copy) == before
    assert copy.stat().st_mode & 0o777 == 0o600
    assert not list(file.parent.glob(".*"))


def test_no_copy_without_need(tmp_path: Path) -> None:
    for _ in range(2):
        migrations.upgrade(f"sqlite:///{tmp_path}/alerts.db")
    assert not list(tmp_path.glob("*before*"))


def test_a_failure_changes_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _dump(file)

    def fail(_name: str) -> None:
        changed = "SELECT name FROM sqlite_master WHERE sql LIKE '%reopened%'"
        assert op.get_bind().exec_driver_sql(changed).scalar() == "incidents"
        raise RuntimeError("in the middle")

    monkeypatch.setattr(op, "drop_table", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        migrations.upgrade(f"sqlite:///{file}")
    assert _dump(file) == before
    monkeypatch.undo()
    assert migrations.upgrade(f"sqlite:///{file}") == "0001"


@pytest.mark.slow
def test_a_kill_changes_nothing(file: Path) -> None:
    before = _dump(file)
    program = (
        "import os, signal; from alembic import op; from fleetwatch.store import migrations\n"
        "op.drop_table = lambda name: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"migrations.upgrade('sqlite:///{file}')"
    )
    assert _python(program).returncode == -9
    assert _dump(file) == before
    assert migrations.upgrade(f"sqlite:///{file}") == "0001"


def test_a_failure_on_postgresql_leaves_no_table(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres_server.execute("DROP DATABASE IF EXISTS bare WITH (FORCE)")
    postgres_server.execute("CREATE DATABASE bare")

    def fail(_name: str) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(op, "drop_table", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        migrations.upgrade(postgres_server.url("bare"))
    with pytest.raises(SchemaError, match="has no tables yet"):
        Store(postgres_server.url("bare"))


@pytest.mark.slow
def test_several_processes_at_once(empty: str) -> None:
    program = f"from fleetwatch.store import migrations; print(migrations.upgrade({empty!r}))"

    def migrate(_: int) -> str:
        return _python(program).stdout.strip()

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(migrate, range(3))) == [database.HEAD, database.HEAD, "None"]


def test_an_upgrade_waits_for_another_in_the_same_folder(file: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        descriptor = os.open(file.parent, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        waits = pool.submit(migrations.upgrade, f"sqlite:///{file}")
        with pytest.raises(TimeoutError):
            waits.result(0.5)
        os.close(descriptor)
        assert waits.result(10) == "0001"


def test_a_row_that_refers_to_nothing_stops_it(file: Path) -> None:
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("DELETE FROM incidents WHERE id = 3")
        raw.commit()
    before = _dump(file)
    with pytest.raises(SchemaError, match="row 3 of table notifications refers to one that is not there"):
        migrations.upgrade(f"sqlite:///{file}")
    assert _dump(file) == before


@pytest.mark.parametrize("call", [Store, migrations.upgrade])
def test_an_older_program_leaves_a_newer_database_alone(database: str, call: Callable[[str], object]) -> None:
    _set_revision(database, "9999")
    with pytest.raises(SchemaTooNewError, match="schema revision 9999, this program knows 0003"):
        call(database)
    _set_revision(database, "0003")
    Store(database).close()


def test_an_older_database_is_not_opened(database: str) -> None:
    _set_revision(database, "0001")
    with pytest.raises(SchemaError, match=r"revision 0001, .* needs 0003: run fleetwatch-receiver migrate"):
        Store(database)


def test_a_database_of_version_1_is_not_opened(file: Path) -> None:
    with pytest.raises(SchemaError, match=r"revision 0001, .* needs 0003: run fleetwatch-receiver migrate"):
        Store(f"sqlite:///{file}")


def test_a_missing_file_is_not_made_by_opening(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"alerts.db does not exist: run fleetwatch-receiver migrate"):
        Store(f"sqlite:///{tmp_path}/alerts.db")
    assert not list(tmp_path.iterdir())


def test_opening_needs_no_alembic(sqlite_database: str) -> None:
    program = (
        f"import sys; from fleetwatch.store import Store; Store({sqlite_database!r}).check_writable()\n"
        "print([name for name in ('alembic', 'mako', 'psycopg') if name in sys.modules])"
    )
    assert _python(program).stdout == "[]\n"
