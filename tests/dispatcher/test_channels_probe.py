"""``fleetwatch-receiver test-channels``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from fleetwatch.dispatcher import probe
from fleetwatch.receiver import cli
from tests.common.services import API_KEY, MailboxServer, run_mailbox, run_smtp

ACCOUNT = "AC" + "0" * 32


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[MailboxServer]:
    with run_mailbox(tmp_path) as server:
        yield server


@pytest.fixture
def config(tmp_path: Path, mailbox: MailboxServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("fleetwatch.common.logs.setup", lambda *_: None)  # it is for a whole process
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    secrets = {"mail.api_key": API_KEY, "chat.url": f"{mailbox.url}/services/T/B/s", "sms.auth_token": "x"}
    for name, value in secrets.items():
        (credentials / f"channel.{name}").write_text(value)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    mail = {"sender": "fleetwatch@example.org", "recipients": ["ops@example.org"]}
    loopback = {"allowed_networks": ["127.0.0.0/8"]}
    with run_smtp(mailbox) as port:
        channels = [
            {"name": "mail", "type": "sendgrid", "host": mailbox.url, **mail},
            {"name": "relay", "type": "smtp", "host": "127.0.0.1", "port": port, "security": "none", **mail},
            {"name": "chat", "type": "slack", **loopback},
            {"name": "hook", "type": "webhook", "url": f"{mailbox.url}/hooks/x", **loopback},
            {"name": "sms", "type": "twilio", "account_sid": ACCOUNT, "sender": "+15005550006",
             "recipients": ["+4930111111"], "host": mailbox.url},
        ]  # fmt: skip
        file = tmp_path / "receiver.yml"
        file.write_text(yaml.safe_dump({"channels": channels}))
        yield str(file)


def test_each_channel_gets_a_test_message(
    config: str, mailbox: MailboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--config", config, "test-channels"]) == 0
    messages = mailbox.messages()
    assert [message["via"] for message in messages] == ["sendgrid", "smtp", "slack", "webhook", "twilio"]
    assert all(
        probe.SUMMARY in message["text"] or probe.SUMMARY in message["subject"] for message in messages
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"mail   ok {messages[0]['message_id']}"
    assert lines[2:4] == ["chat   ok", "hook   ok"]
    assert lines[4] == f"sms    ok {messages[4]['message_id']}"


def test_one_fails_and_the_others_are_tested_all_the_same(
    config: str, mailbox: MailboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    mailbox.fail("500", count=1)
    assert cli.main(["--config", config, "test-channels", "--json", "chat", "hook"]) == 1
    chat, hook = json.loads(capsys.readouterr().out)["channels"]
    assert chat == {"channel": "chat", "provider_id": None, "error": "Slack answered 500: rollup_error"}
    assert hook == {"channel": "hook", "provider_id": None, "error": None}
    assert [message["via"] for message in mailbox.messages()] == ["webhook"]
    mailbox.fail("500", count=1)
    assert cli.main(["--config", config, "test-channels", "chat"]) == 1
    assert capsys.readouterr().out == "chat  failed: Slack answered 500: rollup_error\n"


def test_an_unknown_channel(config: str, mailbox: MailboxServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--config", config, "test-channels", "pigeon"]) == 2
    assert "use one of chat, hook, mail, relay, sms" in capsys.readouterr().err
    assert mailbox.messages() == []


def test_each_test_is_another_message(config: str, mailbox: MailboxServer) -> None:
    for _ in range(2):
        assert cli.main(["--config", config, "test-channels", "relay"]) == 0
    first, second = mailbox.messages()
    assert first["headers"]["Message-ID"] != second["headers"]["Message-ID"]
