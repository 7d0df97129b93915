"""The modules and the program of the role postgresql, with a real PostgreSQL laid out as Debian does it.

systemd is played: what it would start, stop and reload is done with pg_ctl.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from ansible_collections.fleetwatch.monitoring.plugins.module_utils import postgresql
from ansible_collections.fleetwatch.monitoring.plugins.module_utils.managed_file import NotAFileError
from ansible_collections.fleetwatch.monitoring.plugins.module_utils.postgresql import (
    Cluster,
    PostgresError,
    Session,
    find_cluster,
)
from ansible_collections.fleetwatch.monitoring.plugins.modules import postgresql_cluster
from ansible_collections.fleetwatch.monitoring.plugins.modules.postgresql_cluster import (
    Configuration,
    hba_text,
    settings_text,
    tuned,
)
from ansible_collections.fleetwatch.monitoring.plugins.modules.postgresql_objects import (
    Objects,
    is_verifier_of,
    refuse_bad_passwords,
    verifier,
)

from tests.databases import LOCKED_USER, PASSWORD, PostgresServer

DUMP = Path(__file__).parents[2] / "roles/postgresql/files/dump.py"
TABLE = """
CREATE TABLE IF NOT EXISTS dumps (datname name PRIMARY KEY, finished timestamptz NOT NULL,
  seconds double precision NOT NULL, bytes bigint NOT NULL);
"""
OTHER_PASSWORD = "another's"  # noqa: S105 - of a test
ODD_NAME = "a \"b'c/d"


class Exit(Exception):  # noqa: N818 - a module's good end
    """The module left with a result."""


class Fail(Exception):  # noqa: N818 - a module's bad end
    """The module left with a message."""


def load_dump() -> Any:
    spec = importlib.util.spec_from_file_location("dump", DUMP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Texts


def test_memory_is_shared_out_within_bounds() -> None:
    assert tuned(8192, 100) == {
        "shared_buffers": "2048MB",
        "effective_cache_size": "4096MB",
        "maintenance_work_mem": "512MB",
        "work_mem": "15MB",
    }
    assert tuned(128, 100) == {
        "shared_buffers": "64MB",
        "effective_cache_size": "64MB",
        "maintenance_work_mem": "16MB",
        "work_mem": "4MB",
    }
    assert tuned(1024 * 1024, 10)["shared_buffers"] == "16384MB"
    assert tuned(1024 * 1024, 10)["work_mem"] == "64MB"


@pytest.mark.parametrize(
    ("mib", "rounded"),
    [(40, 0), (500, 448), (1962, 1920), (1968, 1920), (7946, 7680), (7951, 7680), (128_000, 122_880)],
)
def test_some_memory_more_or_less_makes_no_difference(
    monkeypatch: pytest.MonkeyPatch, mib: int, rounded: int
) -> None:
    monkeypatch.setattr(
        Path, "read_text", lambda *_, **__: f"MemTotal:  {mib * 1024 + 512} kB\nMemFree: 1 kB\n"
    )
    assert postgresql_cluster.host_memory() == rounded


def test_settings_win_over_what_is_derived_and_null_drops() -> None:
    text = settings_text(
        {
            "work_mem": "9MB",
            "shared_buffers": None,
            "jit": False,
            "port": 5433,
            "a.b": r"it's c:\d",
            "l": [1, "x"],
        },
        1024,
    )
    lines = set(text.splitlines()[1:])
    assert {"work_mem = '9MB'", "jit = off", "port = 5433", r"a.b = 'it''s c:\\d'", "l = '1, x'"} <= lines
    assert not any(line.startswith("shared_buffers") for line in lines)


def test_more_connections_get_less_memory_each() -> None:
    assert "work_mem = '7MB'" in settings_text({"max_connections": 100}, 4096).splitlines()
    assert "work_mem = '30MB'" in settings_text({"max_connections": 25}, 4096).splitlines()


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"work mem": 1}, "'work mem'"),
        ({"work_mem": "1\ninclude 'x'"}, "work_mem"),
        ({"work_mem": {"a": 1}}, "work_mem"),
        ({"max_connections": "many"}, "max_connections"),
    ],
)
def test_settings_that_the_file_cannot_hold_are_refused(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(PostgresError, match=r"^postgresql_settings: .*") as caught:
        settings_text(settings, 1024)
    assert word in str(caught.value)


def entry(**changes: str) -> dict[str, str]:
    given = {"type": "host", "database": "shop", "user": "shop", "address": "10.0.0.0/8"}
    return {**given, "method": "scram-sha-256", **changes}


def test_hba_has_the_socket_first_then_the_entries_in_order() -> None:
    lines = [line for line in hba_text([entry(), entry(method="reject")]).splitlines() if line[0] != "#"]
    assert lines == [
        "local all all peer",
        "local replication all peer",
        "host shop shop 10.0.0.0/8 scram-sha-256",
        "host shop shop 10.0.0.0/8 reject",
    ]


def test_hba_refuses_what_would_be_more_than_one_word() -> None:
    with pytest.raises(PostgresError, match="postgresql_hba: user 'a b'"):
        hba_text([entry(user="a b")])


def test_the_cluster_is_found_and_two_are_not_guessed_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "CONFIG_ROOT", tmp_path)
    with pytest.raises(PostgresError, match="pg_createcluster VERSION main"):
        find_cluster("main")
    for version in ("9.6", "15"):
        (tmp_path / version / "main").mkdir(parents=True)
        (tmp_path / version / "main/postgresql.conf").touch()
    with pytest.raises(PostgresError, match=r"9\.6 and 15; set postgresql_version"):
        find_cluster("main")
    assert find_cluster("main", "15").unit == "postgresql@15-main.service"
    shutil.rmtree(tmp_path / "9.6")
    assert find_cluster("main") == Cluster("15", "main")


def test_verifier_is_the_one_of_the_standard() -> None:
    # RFC 7677 has user, password, salt and iterations; the two keys follow from them.
    salt = bytes.fromhex("5b6d99689d12358e eca04b1412 36fa81".replace(" ", ""))
    made = verifier("pencil", salt, 4096)
    assert made == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
        "$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )
    assert is_verifier_of(made, "pencil")
    assert not is_verifier_of(made, "Pencil")
    assert not is_verifier_of(None, "pencil")


def test_passwords_that_clients_may_send_otherwise_are_refused() -> None:
    refuse_bad_passwords([{"name": "a", "password": None}, {"name": "b", "password": "ok ~!"}])
    with pytest.raises(PostgresError, match="password of c has other characters") as caught:
        refuse_bad_passwords([{"name": "c", "password": "geheim\u00e4"}])
    assert "geheim" not in str(caught.value)


def test_old_dumps_go_but_never_the_newest_of_a_database() -> None:
    dumps = [
        ("shop_20261101T020000Z.dump", 1.0),
        ("shop_20261102T020000Z.dump", 2.0),
        ("shop_20261109T020000Z.dump", 9.0),
        ("old_20261101T020000Z.dump", 1.0),
        ("globals_20261101T020000Z.sql", 1.0),
        ("globals_20261109T020000Z.sql", 9.0),
        ("notes.txt", 0.0),
        ("shop_20261101T020000Z.dump.part", 0.0),
    ]
    assert load_dump().expired(dumps, 5.0) == [dumps[0][0], dumps[1][0], dumps[4][0]]


# Users, databases, dumps: with a real server


def session(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Session:
    """Return a session in which the test's administrator stands for the user postgres."""
    monkeypatch.setattr(Cluster, "socket", lambda _: (str(server.directory), str(server.port)))

    def run_command(
        argv: list[str], *, data: str, cwd: str, environ_update: dict[str, str]
    ) -> tuple[int, str, str]:
        assert argv[:4] == ["runuser", "-u", "postgres", "--"]
        environment = {**os.environ, **environ_update, "PGUSER": "fleetwatch"}
        done = subprocess.run(  # noqa: S603
            argv[4:], input=data, capture_output=True, text=True, check=False, cwd=cwd, env=environment
        )
        return done.returncode, done.stdout, done.stderr

    return Session(run_command, Cluster("15", "main"))


def user(name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "password": None, "groups": None, "replication": False, **changes}


def database(name: str, owner: str, *extensions: str) -> dict[str, Any]:
    return {"name": name, "owner": owner, "extensions": list(extensions)}


def wanted(**changes: Any) -> dict[str, Any]:
    return {"users": [], "databases": [], "extensions": [], "schemas": [], **changes}


@pytest.fixture
def server(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """Return the server, and remove afterwards what these tests made in it."""
    yield postgres_server
    for name in ("shop", ODD_NAME):
        postgres_server.execute(f"DROP DATABASE IF EXISTS {postgresql.identifier(name)} WITH (FORCE)")
    postgres_server.execute("DROP SCHEMA IF EXISTS fleetwatch CASCADE")
    postgres_server.execute("DROP EXTENSION IF EXISTS pg_stat_statements")
    for name in ("shop", "watcher", ODD_NAME):
        postgres_server.execute(f"DROP ROLE IF EXISTS {postgresql.identifier(name)}")
    postgres_server.execute(f"ALTER ROLE {LOCKED_USER} PASSWORD '{PASSWORD}'")


def test_users_and_databases_are_made_once(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    there = session(server, monkeypatch)
    params = wanted(
        users=[user("shop"), user("watcher", groups=["pg_monitor"]), user(ODD_NAME)],
        databases=[database("shop", "shop", "pg_trgm"), database(ODD_NAME, ODD_NAME)],
        extensions=["pg_stat_statements"],
        schemas=[{"name": "fleetwatch", "database": "postgres", "sql": TABLE}],
    )
    planned = Objects(there, params, check_mode=True).run()
    assert "create database shop" in planned
    assert there.rows("SELECT 1 AS there FROM pg_database WHERE datname = 'shop'") == []
    Objects(there, params, check_mode=False).run()
    assert Objects(there, params, check_mode=False).run() == []
    found = there.rows("SELECT extname FROM pg_extension ORDER BY extname", "shop")
    assert [row["extname"] for row in found] == ["pg_stat_statements", "pg_trgm", "plpgsql"]
    access = "SELECT has_database_privilege('{}', 'shop', 'CONNECT') AS may"
    may = {name: there.rows(access.format(name))[0]["may"] for name in ("shop", "watcher", LOCKED_USER)}
    assert may == {"shop": True, "watcher": True, LOCKED_USER: False}
    encoding = (
        "SELECT pg_encoding_to_char(encoding) AS e, datcollate AS c FROM pg_database WHERE datname = 'shop'"
    )
    assert there.rows(encoding) == [{"e": "UTF8", "c": "C.UTF-8"}]


def test_what_differs_is_changed_and_nothing_else(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = session(server, monkeypatch)
    first = wanted(
        users=[user("shop"), user("watcher", groups=["pg_monitor"])], databases=[database("shop", "shop")]
    )
    Objects(there, first, check_mode=False).run()
    there.execute("GRANT CONNECT ON DATABASE shop TO PUBLIC")
    second = wanted(
        users=[user("shop", replication=True), user("watcher", groups=["pg_read_all_data"])],
        databases=[database("shop", "watcher")],
    )
    assert Objects(there, second, check_mode=False).run() == [
        "make user shop REPLICATION",
        "add user watcher to pg_read_all_data",
        "take user watcher out of pg_monitor",
        "give database shop to watcher",
        "close database shop to others",
        "let pg_monitor into shop",
    ]
    assert Objects(there, second, check_mode=False).run() == []


def test_password_is_kept_changed_and_taken_away(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = session(server, monkeypatch)

    def login(password: str) -> bool:
        address = f"host=127.0.0.1 port={server.port} user={LOCKED_USER} dbname=postgres"
        environment = {**os.environ, "PGPASSWORD": password}
        command = ["psql", "-X", "-w", "-c", "SELECT 1", address]
        return not subprocess.run(command, env=environment, capture_output=True, check=False).returncode  # noqa: S603

    same = wanted(users=[user(LOCKED_USER, password=PASSWORD)])
    assert Objects(there, same, check_mode=False).run() == []  # PostgreSQL made that verifier
    new = wanted(users=[user(LOCKED_USER, password=OTHER_PASSWORD)])
    assert Objects(there, new, check_mode=False).run() == [f"set the password of user {LOCKED_USER}"]
    assert login(OTHER_PASSWORD)
    assert not login(PASSWORD)
    assert Objects(there, new, check_mode=False).run() == []
    none = wanted(users=[user(LOCKED_USER)])
    assert Objects(there, none, check_mode=False).run() == [f"take the password from user {LOCKED_USER}"]
    assert not login(OTHER_PASSWORD)


def test_schema_follows_its_statements(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    there = session(server, monkeypatch)
    schema = {"name": "fleetwatch", "database": "postgres", "sql": TABLE}
    assert Objects(there, wanted(schemas=[schema]), check_mode=False).run() == [
        "make schema fleetwatch in postgres"
    ]
    changed = {**schema, "sql": f"{TABLE}CREATE TABLE more (n int) -- the last"}
    Objects(there, wanted(schemas=[changed]), check_mode=False).run()
    there.execute("SELECT n FROM fleetwatch.more")
    wrong = {**schema, "sql": "CREATE TABLE half (n int); CREATE TABEL other (n int)"}
    with pytest.raises(PostgresError, match=r"cannot make schema fleetwatch in postgres: .*syntax error"):
        Objects(there, wanted(schemas=[wrong]), check_mode=False).run()
    assert there.rows("SELECT to_regclass('fleetwatch.half')::text AS half") == [{"half": None}]


def test_refusal_has_the_servers_words_but_not_the_statement(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = session(server, monkeypatch)
    with pytest.raises(PostgresError) as caught:
        there.execute("SELECT 'a secret' FROM nowhere")
    assert 'relation "nowhere" does not exist' in str(caught.value)
    assert "secret" not in str(caught.value)


def dump(server: PostgresServer, folder: Path) -> tuple[int, str]:
    command = ["python3", "-I", str(DUMP), f"--directory={folder}", "--keep-days=7"]
    command += [f"--port={server.port}", f"--socket={server.directory}"]
    environment = {**os.environ, "PGUSER": "fleetwatch"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    return done.returncode, done.stderr


def test_dump_can_be_restored_and_is_written_down(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = session(server, monkeypatch)
    params = wanted(
        users=[user("shop")],
        databases=[database("shop", "shop"), database(ODD_NAME, "shop")],
        schemas=[{"name": "fleetwatch", "database": "postgres", "sql": TABLE}],
    )
    Objects(there, params, check_mode=False).run()
    there.execute("CREATE TABLE orders AS SELECT g AS id FROM generate_series(1, 1000) g", "shop")
    there.execute("INSERT INTO fleetwatch.dumps VALUES ('dropped', now(), 1, 1)")
    (tmp_path / "shop_20200101T000000Z.dump.part").write_text("interrupted")
    assert dump(server, tmp_path) == (0, "")
    dumps = sorted(path.name.rpartition("_")[0] for path in tmp_path.iterdir())
    assert {"a %22b%27c%2Fd", "globals", "postgres", "shop"} <= set(dumps)
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())
    assert not list(tmp_path.glob("*.part"))
    rows = there.rows("SELECT datname, now() - finished < '10 min' AS new, bytes FROM fleetwatch.dumps")
    noted = {row["datname"]: row for row in rows}
    assert {"shop", ODD_NAME} <= noted.keys()
    assert "dropped" not in noted
    file = next(tmp_path.glob("shop_*.dump"))
    assert (noted["shop"]["new"], noted["shop"]["bytes"]) == (True, file.stat().st_size)
    there.execute("DROP TABLE orders", "shop")
    target = f"host={server.directory} port={server.port} user=fleetwatch dbname=shop"
    restore = ["pg_restore", "--exit-on-error", f"--dbname={target}", str(file)]
    subprocess.run(restore, check=True)  # noqa: S603
    assert there.rows("SELECT count(*) AS n FROM orders", "shop") == [{"n": 1000}]


def test_one_database_that_cannot_be_dumped_does_not_keep_the_others_from_it(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = session(server, monkeypatch)
    params = wanted(
        users=[user("shop")],
        databases=[database("shop", "shop")],
        schemas=[{"name": "fleetwatch", "database": "postgres", "sql": TABLE}],
    )
    Objects(there, params, check_mode=False).run()
    # A table in a schema that there is not.
    there.execute("CREATE TABLE t ()", "shop")
    there.execute("UPDATE pg_class SET relnamespace = 1 WHERE relname = 't'", "shop")
    code, said = dump(server, tmp_path)
    assert code == 1
    assert "database shop: pg_dump: " in said
    names = {path.name.rpartition("_")[0] for path in tmp_path.iterdir()}
    assert "postgres" in names
    assert "shop" not in names
    assert there.rows("SELECT datname FROM fleetwatch.dumps WHERE datname = 'shop'") == []


# The configuration: a cluster of its own


class Debian:
    """A cluster as Debian lays it out, in a folder; systemctl is played with pg_ctl."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = sorted(
            Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[4])
        )
        self.programs, version = found[-1].parent, found[-1].parts[4]
        self.folder = folder
        self.config = folder / "etc" / version / "main"
        self.data = folder / "data"
        self.units = folder / "units"
        self.log = folder / "log" / f"postgresql-{version}-main.log"
        for made in (self.config / "conf.d", self.log.parent, self.units):
            made.mkdir(parents=True)
        shutil.chown(folder, "postgres", "postgres")
        shutil.chown(self.log.parent, "postgres", "postgres")
        folder.chmod(0o755)
        options = ["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--pgdata", str(self.data)]
        assert self.run_command([*self.user(), str(self.programs / "initdb"), *options])[0] == 0
        (self.config / "postgresql.conf").write_text(
            f"data_directory = '{self.data}'\nhba_file = '{self.config}/pg_hba.conf'\n"
            f"ident_file = '{folder}/pg_ident.conf'\nunix_socket_directories = '{folder}'\n"
            "fsync = off\ninclude_dir = 'conf.d'\n"
        )
        (folder / "pg_ident.conf").touch()
        (self.config / "pg_hba.conf").write_text("local all all trust\n")
        monkeypatch.setattr(postgresql, "CONFIG_ROOT", folder / "etc")
        monkeypatch.setattr(postgresql, "LOGS", self.log.parent)
        monkeypatch.setattr(postgresql_cluster, "UNIT_DIR", self.units)
        monkeypatch.setattr(postgresql_cluster, "PENDING_DIR", folder / "run")
        self.calls: list[str] = []
        self.warnings: list[str] = []
        self.check_mode = False

    @staticmethod
    def user() -> list[str]:
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]

    def run_command(self, argv: list[str], **options: Any) -> tuple[int, str, str]:
        """Do what AnsibleModule.run_command would."""
        if argv[0] == "systemctl":
            return self.systemctl(*argv[1:])
        if argv[:4] == ["runuser", "-u", "postgres", "--"]:
            argv = [*self.user(), *argv[4:]]
        environment = {**os.environ, **options.get("environ_update", {})}
        done = subprocess.run(  # noqa: S603
            argv,
            input=options.get("data", ""),
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env=environment,
        )
        return done.returncode, done.stdout, done.stderr

    def running(self) -> bool:
        status = [str(self.programs / "pg_ctl"), "--pgdata", str(self.data), "status"]
        return self.run_command([*self.user(), *status])[0] == 0

    def systemctl(self, *arguments: str) -> tuple[int, str, str]:
        """Play systemd for the one cluster and the unit that starts all."""
        verb, unit = arguments[0], arguments[-1]
        if verb == "show":
            state = "active" if self.running() else "inactive"
            return 0, f"ActiveState={state}\nUnitFileState=enabled\nNRestarts=0\nNeedDaemonReload=no\n", ""
        if unit != "postgresql.service" and verb in {"restart", "reload"}:
            self.calls.append(verb)
            options = ["--mode=fast", "--wait", f"--log={self.log}"]
            options += [f"--options=-c config_file={self.config}/postgresql.conf -c port={self.port()}"]
            if verb == "reload":
                options = []
            command = [str(self.programs / "pg_ctl"), verb, "--silent", "--pgdata", str(self.data), *options]
            # pg_ctl's server would hold the pipes open, as its children do.
            done = subprocess.run(  # noqa: S603
                [*self.user(), *command],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
                cwd="/",
            )
            return done.returncode, "", "the job failed" if done.returncode else ""
        return 0, "", ""

    @staticmethod
    def port() -> int:
        return 54321  # only names the socket: it does not listen to TCP

    def run(self, settings: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
        """Run the module and return its result."""
        self.calls, self.warnings = [], []
        given = {"listen_addresses": "", **(settings or {})}
        defaults = {
            "settings": given,
            "memory": 512,
            "hba": [],
            "drop_in": "[Service]\n",
            "restart": True,
            "timeout": 60,
        }

        def leave(**result: Any) -> NoReturn:
            raise Exit(result)

        def fail(msg: str) -> NoReturn:
            raise Fail(msg)

        module = SimpleNamespace(
            params={**defaults, **params},
            check_mode=self.check_mode,
            run_command=self.run_command,
            warn=self.warnings.append,
            exit_json=leave,
            fail_json=fail,
        )
        with pytest.raises(Exit) as left:
            attempt(module)
        result: dict[str, Any] = left.value.args[0]
        return result

    def fail(self, settings: dict[str, Any] | None = None, **params: Any) -> str:
        """Run the module and return why it failed."""
        with pytest.raises(Fail) as failed:
            self.run(settings, **params)
        return str(failed.value)

    def show(self, setting: str) -> str:
        """Return a setting of the running server."""
        return Session(self.run_command, find_cluster("main")).execute(f"SHOW {setting}").strip()

    def files(self) -> dict[str, str]:
        """Return all that the module may change."""
        folders = (self.config, self.units, self.folder / "run")
        paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        return {str(path): path.read_text() for path in paths}

    def stop(self) -> None:
        command = [str(self.programs / "pg_ctl"), "stop", "--mode=immediate", "--pgdata", str(self.data)]
        self.run_command([*self.user(), *command])


def attempt(module: Any) -> None:
    """Do as the module's main does."""
    try:
        Configuration(module, find_cluster("main")).run()
    except PostgresError as error:
        module.fail_json(msg=str(error))


@pytest.fixture
def debian(monkeypatch: pytest.MonkeyPatch) -> Iterator[Debian]:
    """Return a cluster that has never run."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files to root and run programs as postgres")
    folder = Path(tempfile.mkdtemp(prefix="fleetwatch-cluster-"))
    host = Debian(folder, monkeypatch)
    try:
        yield host
    finally:
        host.stop()
        shutil.rmtree(folder)


@pytest.mark.slow
def test_server_is_started_once_reloaded_or_restarted_as_it_needs(debian: Debian) -> None:
    debian.check_mode = True
    before = debian.files()
    assert debian.run()["activated"] == "start"
    assert (debian.files(), debian.calls) == (before, [])
    debian.check_mode = False
    assert debian.run()["activated"] == "start"
    assert debian.show("shared_buffers") == "128MB"
    assert debian.run()["changed"] is False

    assert debian.run({"work_mem": "5MB"})["activated"] == "reload"
    assert (debian.calls, debian.show("work_mem")) == (["reload"], "5MB")
    assert debian.run({"work_mem": "5MB"})["changed"] is False

    assert debian.run({"max_connections": 40})["activated"] == "restart"
    assert (debian.calls, debian.show("max_connections")) == (["reload", "restart"], "40")
    assert debian.run({"max_connections": 40})["changed"] is False

    assert debian.run({"max_connections": 40}, drop_in="[Service]\nNice=5\n")["activated"] == "restart"
    assert debian.calls == ["restart"]


@pytest.mark.slow
def test_restart_waits_when_it_is_not_allowed(debian: Debian) -> None:
    debian.run()
    assert debian.run({"max_connections": 40}, restart=False)["activated"] == "reload"
    assert (debian.calls, debian.show("max_connections")) == (["reload"], "100")
    assert "max_connections" in debian.warnings[0]
    assert debian.run({"max_connections": 40}, restart=False)["changed"] is False
    assert debian.run({"max_connections": 40})["activated"] == "restart"
    assert debian.show("max_connections") == "40"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words", "calls"),
    [
        ({"settings": {"work_memm": "1MB"}}, 'unrecognized configuration parameter "work_memm"', []),
        ({"settings": {"work_mem": "much"}}, 'invalid value for parameter "work_mem"', []),
        ({"hba": [entry(address="10.0.0.0/99")]}, "10.0.0.0/99 scram-sha-256: invalid CIDR mask", []),
        ({"settings": {"shared_preload_libraries": "nonsuch"}}, "nonsuch", ["reload", "restart", "restart"]),
    ],
    ids=["name", "value", "hba", "start"],
)
def test_bad_change_fails_and_the_server_keeps_the_settings_from_before(
    debian: Debian, change: dict[str, Any], words: str, calls: list[str]
) -> None:
    debian.run({"work_mem": "5MB"})
    before = debian.files()
    said = debian.fail(**{"settings": {"work_mem": "5MB"}, **change})
    assert words in said
    assert str(debian.folder / "postgresql-") not in said  # the folder of the check
    assert debian.files() == before
    assert [call for call in debian.calls if call != "reload"] == [call for call in calls if call != "reload"]
    assert (debian.running(), debian.show("work_mem")) == (True, "5MB")
    assert debian.run({"work_mem": "5MB"})["changed"] is False


@pytest.mark.slow
def test_interrupted_run_is_completed_and_alter_system_is_named(debian: Debian) -> None:
    debian.run()
    (debian.folder / "run" / f"postgresql-{debian.config.parent.name}-main.pending").touch()
    assert debian.run()["activated"] == "reload"
    assert debian.run()["changed"] is False
    Session(debian.run_command, find_cluster("main")).execute("ALTER SYSTEM SET work_mem = '6MB'")
    debian.run({"work_mem": "7MB"})
    assert len(debian.warnings) == 1
    assert debian.warnings[0].startswith("work_mem is overridden")


@pytest.mark.slow
def test_what_could_not_be_put_back_is_completed_by_the_next_run(
    debian: Debian, monkeypatch: pytest.MonkeyPatch
) -> None:
    debian.run()

    def refuse(*_: Any) -> NoReturn:
        raise PostgresError("not now")

    with monkeypatch.context() as patch:
        patch.setattr(Configuration, "_activate", refuse)
        assert "the server is still not well" in debian.fail({"work_mem": "5MB"})
    assert debian.run()["activated"] == "reload"
    assert debian.run()["changed"] is False


@pytest.mark.slow
def test_check_does_not_read_for_postgres_what_postgres_may_not(debian: Debian) -> None:
    debian.run()
    secret = debian.folder / "secret"
    secret.write_text("of root")
    secret.chmod(0o600)
    (debian.config / "conf.d/leak").symlink_to(secret)
    more = debian.folder / "more.conf"
    more.write_text("cpu_tuple_cost = 0.02\n")
    (debian.config / "conf.d/more.conf").symlink_to("../../../../more.conf")
    seen: list[tuple[int, set[str]]] = []
    run_command = debian.run_command

    def spy(argv: list[str], **options: Any) -> tuple[int, str, str]:
        if "-C" in argv:
            staging = Path(argv[-1].removeprefix("config_file=")).parent
            seen.append((staging.stat().st_mode & 0o777, {file.name for file in staging.rglob("*")}))
        return run_command(argv, **options)

    debian.run_command = spy  # type: ignore[method-assign]
    assert debian.run({"work_mem": "5MB"})["activated"] == "reload"
    assert seen == [(0o700, {"postgresql.conf", "conf.d", "more.conf", "fleetwatch.conf"})]
    assert debian.show("cpu_tuple_cost") == "0.02"

    settings = debian.config / "conf.d/fleetwatch.conf"
    settings.unlink()
    settings.symlink_to(secret)
    with pytest.raises(NotAFileError, match=r"fleetwatch\.conf is no regular file"):
        debian.run()


@pytest.mark.slow
@pytest.mark.parametrize("line", ["", "# see include_dir = 'conf.d'\n", "include_dir = 'other'\n"])
def test_settings_that_would_not_be_read_are_refused(debian: Debian, line: str) -> None:
    file = debian.config / "postgresql.conf"
    file.write_text(file.read_text().replace("include_dir = 'conf.d'\n", line))
    assert "lacks the line include_dir = 'conf.d'" in debian.fail()


@pytest.mark.slow
def test_password_of_a_standby_is_not_shown(debian: Debian) -> None:
    debian.check_mode = True
    shown = str(debian.run({"primary_conninfo": "host=db1 user=standby password=geheim"})["diff"])
    assert "geheim" not in shown
    assert "work_mem" in str(debian.run()["diff"])
