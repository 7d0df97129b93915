from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fleetwatch.common.settings import SettingsError, read
from fleetwatch.receiver.settings import AlertReceiverSettings

GOOD: dict[str, Any] = {"sender": "fleetwatch@example.org", "recipients": ["ops@example.org"]}


def _read(directory: Path, **changes: object) -> AlertReceiverSettings:
    config = directory / "receiver.yml"
    config.write_text(yaml.safe_dump(GOOD | changes))
    return read(AlertReceiverSettings, config)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"recipients": []}, 'setting "recipients": List should have at least 1 item'),
        ({"recipients": ["ops"]}, "not an e-mail address"),
        ({"recipients": ["a@b\nBcc: c@d"]}, "not an e-mail address"),
        ({"sender": "Ops <ops@example.org>"}, 'setting "sender": not an e-mail address'),
        ({"sendgrid_host": "ftp://x"}, "not a URL that starts with http:// or https://"),
        ({"links": {"Wiki": "javascript:x"}}, 'setting "links.Wiki": not a URL'),
        ({"database_url": "mysql://x"}, "not the URL of an SQLite file"),
        ({"database_url": "sqlite://"}, "not the URL of an SQLite file"),
        ({"database_url": "sqlite:///:memory:"}, "not the URL of an SQLite file"),
        ({"lease": 5}, 'setting "lease" must be at least twice "sendgrid_timeout"'),
        ({"sendgrid_api_key": "SG.x"}, 'secret "sendgrid_api_key" must not be in the settings file'),
    ],
)
def test_wrong_settings(tmp_path: Path, wrong: dict[str, object], expected: str) -> None:
    with pytest.raises(SettingsError) as refused:
        _read(tmp_path, **wrong)
    assert expected in str(refused.value)
    assert "SG.x" not in str(refused.value)


def test_the_least_that_is_needed(tmp_path: Path) -> None:
    settings = _read(tmp_path)
    assert settings.sendgrid_api_key is None
    assert settings.database_url == "sqlite:////var/lib/alert_receiver/alerts.db"


def test_a_recipient_named_twice_counts_once(tmp_path: Path) -> None:
    settings = _read(tmp_path, recipients=["ops@example.org", "OPS@example.org", "b@example.org"])
    assert len(settings.recipients) == 2


def test_recipients_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALERT_RECEIVER_RECIPIENTS", "a@example.org, b@example.org")
    assert _read(tmp_path).recipients == ["a@example.org", "b@example.org"]
