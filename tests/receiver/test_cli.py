from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fleetwatch.receiver import cli
from fleetwatch.store import Store
from tests.common.services import SOURCE
from tests.databases import LOCKED_USER, PASSWORD, PostgresServer


class Program:
    """The program with a settings file."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.config = directory / "receiver.yml"
        channel = {"name": "hook", "type": "webhook", "url": "https://example.org"}
        settings = {
            "database_url": url,
            "channels": [channel],
            "users": [{"name": "anna", "roles": ["act"]}],  # whose secret is not needed
        }
        self.config.write_text(yaml.safe_dump(settings))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "fleetwatch.receiver.cli", "--config", str(self.config), *arguments],
            env=os.environ | {"PYTHONPATH": str(SOURCE), "CREDENTIALS_DIRECTORY": str(self.directory)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def ok(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def fails(self, code: int, *arguments: str) -> str:
        """Return its one line."""
        done = self.run(*arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
        assert done.stderr.startswith("fleetwatch-receiver: ")
        return done.stderr


def test_migrate_backup_and_prune(tmp_path: Path) -> None:
    program = Program(tmp_path, f"sqlite:///{tmp_path}/alerts.db")
    assert "alerts.db does not exist: run fleetwatch-receiver migrate" in program.fails(1, "prune")
    assert program.ok("migrate") == "tables made: schema revision 0002\n"
    assert program.ok("migrate") == "nothing to do: the database has schema revision 0002\n"
    assert program.ok("prune") == "incidents deleted: 0\n"
    backup = tmp_path / "backup.db"
    assert program.ok("backup", str(backup)) == f"{backup}: {backup.stat().st_size} bytes\n"
    assert "replace it with --force" in program.fails(1, "backup", str(backup))
    program.ok("backup", str(backup), "--force")
    Store(f"sqlite:///{backup}").close()


def test_postgresql_with_a_password(postgres_server: PostgresServer, tmp_path: Path) -> None:
    postgres_server.execute("DROP DATABASE IF EXISTS locked WITH (FORCE)")
    postgres_server.execute(f"CREATE DATABASE locked OWNER {LOCKED_USER}")
    program = Program(tmp_path, postgres_server.url("locked", LOCKED_USER))
    secret = tmp_path / "database_password"
    secret.write_text("wr0ng\n")
    refused = program.fails(1, "migrate")
    assert "password authentication failed" in refused
    assert "wr0ng" not in refused
    secret.write_text(PASSWORD + "\n")
    assert program.ok("migrate") == "tables made: schema revision 0002\n"
    assert program.ok("prune") == "incidents deleted: 0\n"
    program.ok("backup", str(tmp_path / "backup"))
    assert (tmp_path / "backup").read_bytes().startswith(b"PGDMP")


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    program = Program(tmp_path, "postgresql://somebody@127.0.0.1:1/alerts")
    assert "Connection refused" in program.fails(1, "migrate")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    program = Program(tmp_path, f"sqlite:///{tmp_path}/nowhere/alerts.db")
    assert f"{tmp_path}/nowhere" in program.fails(1, "migrate")


def test_wrong_settings(tmp_path: Path) -> None:
    program = Program(tmp_path, f"sqlite:///{tmp_path}/alerts.db")
    program.config.write_text("prot: 1")
    assert 'unknown setting "prot": did you mean "port"?' in program.fails(2, "prune")


@pytest.mark.parametrize("arguments", [[], ["mirgate"], ["backup"], ["prune", "now"]])
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: fleetwatch-receiver {command}" in capsys.readouterr().out


def test_the_settings_file_may_follow_the_command(tmp_path: Path) -> None:
    program = Program(tmp_path, f"sqlite:///{tmp_path}/alerts.db")
    assert cli.main(["migrate", "--config", str(program.config)]) == 0
    assert cli.main([f"--config={tmp_path}/other.yml", "migrate"]) == 2


def test_help_imports_nothing_heavy() -> None:
    heavy = ("sqlalchemy", "alembic", "jinja2", "flask")
    program = (
        "import contextlib, sys; from fleetwatch.receiver import cli\n"
        "with contextlib.suppress(SystemExit): cli.main(['--help'])\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(  # noqa: S603 - as above
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("[]\n")
