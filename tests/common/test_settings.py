from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from fleetwatch.common.settings import (
    Port,
    Seconds,
    ServiceSettings,
    SettingsError,
    StringList,
    load,
    read,
)

SECRET = "hunter2-is-secret"  # noqa: S105 - a test


class Example(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="EXAMPLE_")

    port: Port = Field(9000, description="TCP port")
    wait: Seconds = 1.5
    names: StringList = Field(["a"])
    token: SecretStr = Field(description="Token of the API")
    nested: dict[str, int] = Field(default_factory=dict)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "example.yml"


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "credentials"
    directory.mkdir()
    (directory / "token").write_text(SECRET + "\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(directory))
    return directory


@pytest.mark.usefixtures("credentials")
def test_environment_wins_over_file_and_file_over_default(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("port: 9001\nwait: 3\n")
    monkeypatch.setenv("EXAMPLE_PORT", "9002")
    monkeypatch.setenv("EXAMPLE_NAMES", "x, y")
    settings = read(Example, config)
    assert (settings.port, settings.wait, settings.names) == (9002, 3.0, ["x", "y"])
    assert settings.token.get_secret_value() == SECRET


@pytest.mark.usefixtures("credentials")
def test_secret_in_the_environment_wins_over_the_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_TOKEN", "other")
    assert read(Example).token.get_secret_value() == "other"


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prot: 1", 'unknown setting "prot": did you mean "port"?'),
        ("entirely_else: 1", 'unknown setting "entirely_else": remove it'),
        ("port: many", 'setting "port": Input should be a valid integer'),
        ("port: 70000", 'setting "port": Input should be less than or equal to 65535'),
        ("wait: .inf", 'setting "wait": Input should be a finite number'),
        ("nested: {a: x}", 'setting "nested.a": Input should be a valid integer'),
        ("log_level: LOUD", 'setting "log_level": String should match'),
        ("- port", "must be a YAML mapping"),
        ("port: [", "line 1 is not valid YAML"),
        ("token: plain", 'secret "token" must not be in the settings file'),
    ],
)
def test_wrong_file_is_one_line_that_names_setting_and_cure(
    config: Path, capsys: pytest.CaptureFixture[str], text: str, expected: str
) -> None:
    config.write_text(text)
    with pytest.raises(SystemExit) as stopped:
        load(Example, "example", ["--config", str(config)])
    assert stopped.value.code == 2
    output = capsys.readouterr()
    assert output.err.startswith("example: ")
    assert output.err.count("\n") == 1
    assert expected in output.err
    assert str(config) in output.err
    assert output.out == ""


def test_missing_secret_names_the_credential_and_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(SettingsError) as refused:
        read(Example)
    assert 'secret "token" is missing (Token of the API)' in str(refused.value)
    assert "LoadCredential=token:PATH" in str(refused.value)
    assert "EXAMPLE_TOKEN" in str(refused.value)


def test_empty_secret_is_missing(credentials: Path) -> None:
    (credentials / "token").write_text("\n")
    with pytest.raises(SettingsError, match='secret "token" is missing'):
        read(Example)


def test_unreadable_secret_is_said(credentials: Path) -> None:
    (credentials / "token").unlink()
    (credentials / "token").mkdir()
    with pytest.raises(SettingsError, match="Is a directory"):
        read(Example)


@pytest.mark.usefixtures("credentials")
def test_unknown_variable_with_the_prefix_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_PROT", "1")
    with pytest.raises(SettingsError, match='"EXAMPLE_PROT": did you mean "EXAMPLE_PORT"'):
        read(Example)


@pytest.mark.usefixtures("credentials")
def test_variable_that_is_not_json_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_NESTED", "{")
    with pytest.raises(SettingsError, match='"nested"'):
        read(Example)


def test_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read the settings file .*: No such file"):
        read(Example, tmp_path / "absent.yml")


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("text", [f"token: {SECRET}", f"token: [{SECRET}", f"port: {SECRET}", f"{SECRET}"])
def test_no_message_shows_a_value(config: Path, text: str) -> None:
    config.write_text(text)
    with pytest.raises(SettingsError) as refused:
        read(Example, config)
    assert SECRET not in str(refused.value)


@pytest.mark.usefixtures("credentials")
def test_settings_do_not_show_secrets() -> None:
    settings = read(Example)
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump_json()}"


@pytest.mark.usefixtures("credentials")
def test_check_ends_the_program_with_success() -> None:
    with pytest.raises(SystemExit) as stopped:
        load(Example, "example", ["--check"])
    assert stopped.value.code == 0
