from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fleetwatch.common.settings import SettingsError, read
from fleetwatch.demo.cli import main
from fleetwatch.demo.settings import Settings


def write(directory: Path, **settings: object) -> Path:
    file = directory / "transactions.yml"
    file.write_text(yaml.safe_dump(settings))
    return file


def test_defaults_need_no_file() -> None:
    settings = read(Settings)
    assert settings.database_url.get_secret_value() == "postgresql+psycopg:///transactions"
    assert (settings.error_rate, settings.otlp_endpoint, settings.log_level) == (0.05, None, "INFO")


def test_a_file_may_hold_urls_with_passwords_and_no_repr_shows_them(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        database_url="postgresql+psycopg://shop:s3cret@db1/shop",
        redis_url="redis://:s3cret@cache1/0",
        queue_url="amqp://shop:s3cret@queue1/",
        log_level="debug",
        otlp_endpoint="",
    )
    settings = read(Settings, file)
    assert "s3cret" in settings.database_url.get_secret_value()
    assert "s3cret" not in repr(settings)
    assert (settings.log_level, settings.otlp_endpoint) == ("DEBUG", None)


def test_credentials_win_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "redis_url").write_text("redis://:s3cret@cache1/0\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    settings = read(Settings, write(tmp_path, redis_url="redis://cache2/0"))
    assert settings.redis_url.get_secret_value() == "redis://:s3cret@cache1/0"


def test_the_token_is_not_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="must not be in the settings file"):
        read(Settings, write(tmp_path, control_token="s3cret-of-sixteen"))  # noqa: S106 - of this test alone
    (tmp_path / "control_token").write_text("s3cret-of-sixteen\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read(Settings).control_token.get_secret_value() == "s3cret-of-sixteen"
    (tmp_path / "control_token").write_text("s3cret\n")
    with pytest.raises(SettingsError, match='"control_token": must be empty or have at least 16') as caught:
        read(Settings)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("database_url", "mysql://db1/shop-s3cret"),
        ("database_url", "postgresql+psycopg://"),
        ("database_url", "s3cret"),
        ("database_url", "postgresql://shop:pa@ss:w0rds3cret@db1/shop"),
        ("redis_url", "http://s3cret"),
        ("redis_url", "redis://cache1:s3cret/0"),
        ("redis_url", "redis://cache1/0?socket_timeout=s3cret"),
        ("redis_url", "redis://:s3cret\N{ACCOUNT OF}w@cache1/0"),
        ("redis_url", "redis://:[s3cret@cache1/0"),
        ("queue_url", "amqp://"),
        ("queue_url", "amqp://queue1:99999/s3cret"),
        ("error_rate", 1.1),
        ("error_rate", -0.1),
        ("error_rate", float("nan")),
        ("latency", 11),
        ("latency_spread", -1),
        ("payment_decline_rate", 2),
        ("worker_batch", 0),
        ("database_pool_size", 0),
        ("database_pool_timeout", 0),
        ("retention_days", 0),
        ("threads", 0),
        ("otlp_endpoint", "tempo:4318"),
        ("api_port", 65500),
        ("worker_port", 8130),
        ("log_level", "loud"),
        ("eror_rate", 0.5),
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not_shown(
    setting: str, value: object, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError) as caught:
        read(Settings, write(tmp_path, **{setting: value}))
    assert f'"{setting}"' in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_check_is_silent_about_good_settings_and_names_the_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--config", str(write(tmp_path, error_rate=0.1))]) == 0
    assert capsys.readouterr() == ("", "")
    with pytest.raises(SystemExit) as caught:
        main(["check", "--config", str(write(tmp_path, eror_rate=0.1))])
    assert caught.value.code == 2
    assert 'did you mean "error_rate"' in capsys.readouterr().err


@pytest.mark.parametrize("instance", ["0", "65", "-1", "one", "1.5"])
def test_an_instance_has_a_number(instance: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["api", "--instance", instance])
    assert caught.value.code == 2
    assert "from 1 to 64" in capsys.readouterr().err
