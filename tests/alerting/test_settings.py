from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fleetwatch.alerting.settings import AlertingSettings
from fleetwatch.common.settings import SettingsError, read
from fleetwatch.dispatcher.settings import DispatcherSettings
from fleetwatch.receiver.settings import ReceiverSettings

MAIL: dict[str, Any] = {
    "name": "mail",
    "type": "sendgrid",
    "sender": "fleetwatch@example.org",
    "recipients": ["ops@example.org"],
}
SMTP = {**MAIL, "type": "smtp", "host": "mail.example.org"}
SMS = {
    "name": "sms",
    "type": "twilio",
    "account_sid": "AC" + "0" * 32,
    "sender": "+15005550006",
    "recipients": ["+4915112345678"],
}
GOOD: dict[str, Any] = {"channels": [MAIL], "users": [{"name": "alertmanager", "roles": ["send"]}]}


@pytest.fixture(autouse=True)
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "channel.mail.api_key").write_text("SG.secret\n")
    (folder / "user.alertmanager").write_text("token-of-alertmanager\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder


def _read(directory: Path, model: type[AlertingSettings] = AlertingSettings, **changes: object) -> Any:
    config = directory / "receiver.yml"
    config.write_text(yaml.safe_dump(GOOD | changes))
    return read(model, config)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"channels": []}, 'setting "channels": List should have at least 1 item'),
        ({"channels": [MAIL, MAIL]}, 'the name "mail" is used twice'),
        ({"channels": [{**MAIL, "type": "pigeon"}]}, "'pigeon' found using 'type' does not match"),
        ({"channels": [{**MAIL, "name": "No Spaces"}]}, "String should match pattern"),
        ({"channels": [{**MAIL, "recipients": []}]}, "channels.0.sendgrid.recipients"),
        ({"channels": [{**MAIL, "recipients": ["ops"]}]}, "not an e-mail address"),
        ({"channels": [{**MAIL, "recipients": ["a@b\nBcc: c@d"]}]}, "not an e-mail address"),
        ({"channels": [{**MAIL, "sender": "Ops <ops@example.org>"}]}, "not an e-mail address"),
        ({"channels": [{**MAIL, "host": "ftp://x"}]}, "not a URL that starts with http:// or https://"),
        ({"channels": [{**MAIL, "api_key": "SG.x"}]}, "channels.0.sendgrid.api_key"),
        ({"channels": [{**SMTP, "security": "none", "username": "u"}]}, "cross the network in clear"),
        ({"channels": [{**SMS, "recipients": ["0151"]}]}, "String should match pattern"),
        ({"channels": [{**SMS, "sender": "me"}]}, "neither a number"),
        (
            {"channels": [{"name": "w", "type": "webhook", "url": "http://x", "headers": {"Host": "y"}}]},
            'the header "Host" is set by the program',
        ),
        ({"channels": [{**MAIL, "timeout": 60}], "lease": 100}, 'the timeout of channel "mail"'),
        ({"routes": [{"name": "r", "channels": ["sms"]}]}, 'route "r" names the channel "sms"'),
        ({"links": {"Wiki": "javascript:x"}}, 'setting "links.Wiki": not a URL'),
        ({"database_url": "mysql://x"}, "not the URL of an SQLite file"),
        ({"database_url": "sqlite://"}, "not the URL of an SQLite file"),
        ({"database_url": "sqlite:///:memory:"}, "not the URL of an SQLite file"),
        ({"database_url": "postgresql://u:geheim@db/alerts"}, "use the secret database_password"),
        ({"database_url": "postgresql://u@db/alerts?password=geheim"}, "use the secret database_password"),
        ({"users": [{"name": "a", "roles": ["admin"]}]}, 'setting "users.0.roles.0"'),
        ({"retention": 60}, 'setting "retention": Input should be greater than or equal to 3600'),
    ],
)
def test_wrong_settings(tmp_path: Path, wrong: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError) as refused:
        _read(tmp_path, **wrong)
    assert expected in str(refused.value)
    for secret in ("SG.x", "geheim"):
        assert secret not in str(refused.value)


@pytest.mark.parametrize(
    ("model", "changes", "expected"),
    [
        (
            DispatcherSettings,
            {"channels": [{**MAIL, "name": "post"}]},
            'secret "channel.post.api_key" is missing',
        ),
        (
            DispatcherSettings,
            {"channels": [{**SMTP, "username": "u"}]},
            'secret "channel.mail.password" is missing',
        ),
        (ReceiverSettings, {"users": []}, 'setting "users" is missing'),
        (ReceiverSettings, {"users": [{"name": "anna", "roles": ["act"]}]}, 'secret "user.anna" is missing'),
    ],
)
def test_missing_secrets(
    tmp_path: Path, model: type[AlertingSettings], changes: dict[str, object], expected: str
) -> None:
    with pytest.raises(SettingsError, match=expected):
        _read(tmp_path, model, **changes)


def test_two_users_need_two_secrets(tmp_path: Path, credentials: Path) -> None:
    (credentials / "user.anna").write_text("token-of-alertmanager")
    users = [{"name": "alertmanager", "roles": ["send"]}, {"name": "anna", "roles": ["act"]}]
    with pytest.raises(SettingsError, match="have the same secret") as refused:
        _read(tmp_path, ReceiverSettings, users=users)
    assert "token-of-alertmanager" not in str(refused.value)


def test_a_key_that_no_header_can_carry(tmp_path: Path, credentials: Path) -> None:
    (credentials / "channel.mail.api_key").write_text("SG.secret\nX-Evil: 1")
    with pytest.raises(SettingsError, match="not one word of printable ASCII") as refused:
        _read(tmp_path, DispatcherSettings)
    assert "SG.secret" not in str(refused.value)


def test_each_service_has_only_its_own_secrets(tmp_path: Path) -> None:
    receiver, dispatcher = _read(tmp_path, ReceiverSettings), _read(tmp_path, DispatcherSettings)
    assert receiver.user_secrets["alertmanager"].get_secret_value() == "token-of-alertmanager"
    assert dispatcher.secret("mail", "api_key") == "SG.secret"
    assert not hasattr(receiver, "channel_secrets")
    assert not hasattr(dispatcher, "user_secrets")
    for settings in (receiver, dispatcher):
        assert "secret" not in repr(settings).replace("_secrets", "").replace("SecretStr", "")


def test_secrets_do_not_belong_into_the_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match='secret "channel_secrets" must not be in the settings file'):
        _read(tmp_path, DispatcherSettings, channel_secrets={"mail.api_key": "SG.x"})


def test_everyone_may_be_let_in_on_purpose(tmp_path: Path) -> None:
    settings = _read(tmp_path, ReceiverSettings, users=[], anonymous_roles=["send"])
    assert settings.anonymous_roles == ["send"]


def test_a_recipient_named_twice_counts_once(tmp_path: Path) -> None:
    recipients = ["ops@example.org", "OPS@example.org", "b@example.org"]
    (channel,) = _read(tmp_path, channels=[{**MAIL, "recipients": recipients}]).channels
    assert channel.recipients == ["OPS@example.org", "b@example.org"]


def test_lists_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALERT_RECEIVER_ALERTMANAGERS", "http://a:9093, http://b:9093")
    assert _read(tmp_path).alertmanagers == ["http://a:9093", "http://b:9093"]
