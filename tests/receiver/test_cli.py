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

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config = directory / "receiver.yml"
        self._capsys = capsys
        self.use(f"sqlite:///{directory}/alerts.db")

    def use(self, url: str) -> None:
        settings = {
            "database_url": url,
            "channels": [{"name": "hook", "type": "webhook", "url": "https://example.org"}],
            "users": [{"name": "anna", "roles": ["act"]}],  # whose secret is not needed
        }
        self.config.write_text(yaml.safe_dump(settings))

    def ok(self, *arguments: str) -> str:
        code = cli.main(["--config", str(self.config), *arguments])
        stdout, stderr = self._capsys.readouterr()
        assert (code, stderr) == (0, "")
        return stdout

    def fails(self, expected: int, *arguments: str) -> str:
        """Return its one line."""
        code = cli.main(["--config", str(self.config), *arguments])
        stdout, stderr = self._capsys.readouterr()
        assert (code, stdout, stderr.count("\n")) == (expected, "", 1)
        assert stderr.startswith("fleetwatch-receiver: ")
        return stderr


@pytest.fixture
def program(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Program:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    return Program(tmp_path, capsys)


def test_migrate_backup_and_prune(program: Program, tmp_path: Path) -> None:
    assert "alerts.db does not exist: run fleetwatch-receiver migrate" in program.fails(1, "prune")
    assert program.ok("migrate") == "tables made: schema revision 0003\n"
    assert program.ok("migrate") == "nothing to do: the database has schema revision 0003\n"
    assert program.ok("prune") == "incidents deleted: 0\n"
    backup = tmp_path / "backup.db"
    assert program.ok("backup", str(backup)) == f"{backup}: {backup.stat().st_size} bytes\n"
    assert "replace it with --force" in program.fails(1, "backup", str(backup))
    program.ok("backup", str(backup), "--force")
    Store(f"sqlite:///{backup}").close()


def test_postgresql_with_a_password(
    program: Program, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    postgres_server.execute("DROP DATABASE IF EXISTS locked WITH (FORCE)")
    postgres_server.execute(f"CREATE DATABASE locked OWNER {LOCKED_USER}")
    program.use(postgres_server.url("locked", LOCKED_USER))
    secret = tmp_path / "database_password"
    secret.write_text("wr0ng\n")
    refused = program.fails(1, "migrate")
    assert "password authentication failed" in refused
    assert "wr0ng" not in refused
    secret.write_text(PASSWORD + "\n")
    assert program.ok("migrate") == "tables made: schema revision 0003\n"
    assert program.ok("prune") == "incidents deleted: 0\n"
    program.ok("backup", str(tmp_path / "backup"))
    assert (tmp_path / "backup").read_bytes().startswith(b"PGDMP")


def test_a_server_that_is_not_there(program: Program) -> None:
    program.use("postgresql://somebody@127.0.0.1:1/alerts")
    assert "Connection refused" in program.fails(1, "migrate")


def test_a_folder_that_is_not_there(program: Program, tmp_path: Path) -> None:
    program.use(f"sqlite:///{tmp_path}/nowhere/alerts.db")
    assert f"{tmp_path}/nowhere" in program.fails(1, "migrate")


def test_wrong_settings(program: Program) -> None:
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


def test_the_settings_file_may_follow_the_command(program: Program, tmp_path: Path) -> None:
    assert cli.main(["migrate", "--config", str(program.config)]) == 0
    assert cli.main([f"--config={tmp_path}/other.yml", "migrate"]) == 2


def test_help_imports_nothing_heavy() -> None:
    heavy = ("sqlalchemy", "alembic", "jinja2", "flask")
    code = (
        "import contextlib, sys; from fleetwatch.receiver import cli\n"
        "with contextlib.suppress(SystemExit): cli.main(['--help'])\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    assert _python("-c", code).stdout.endswith("[]\n")


def test_it_can_be_started_as_a_module() -> None:
    assert _python("-m", "fleetwatch.receiver.cli", "mirgate").returncode == 2


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
