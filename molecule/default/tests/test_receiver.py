"""The alert receiver: who may call it, every channel, and the command for administrators."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request

import pytest
from support import READER, SETTINGS, Fleet, wait_for

from lab.alert import ApiError, call

WAYS = {"mail": "sendgrid", "office": "smtp", "team": "slack", "sms": "twilio", "ticket": "webhook"}
"""Channel to what the mailbox calls the way by which its messages come."""
BACKUPS = "/var/backups/alert_receiver"


def status(url: str, authorization: str = "") -> tuple[int, str]:
    """Return the status that a page answers, and its type."""
    headers = {"Authorization": authorization} if authorization else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - a host of this scenario
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
            return response.status, response.headers.get_content_type()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get_content_type()


def test_an_alert_reaches_every_channel(fleet: Fleet) -> None:
    name = fleet.post_alert()
    messages = wait_for(lambda: found if len(found := fleet.messages(name)) == len(WAYS) else [], 60)
    assert {message["via"] for message in messages} == set(WAYS.values())
    (ticket,) = [message for message in messages if message["via"] == "webhook"]
    assert any(header.lower() == "x-fleetwatch-signature" for header in ticket["headers"])


@pytest.mark.parametrize(
    ("token", "code"), [("", 401), ("wrong", 401), (READER["password"], 403)], ids=["none", "wrong", "reader"]
)
def test_only_alertmanager_may_send(fleet: Fleet, token: str, code: int) -> None:
    alert = {"status": "firing", "labels": {"alertname": "Intruder"}}
    with pytest.raises(ApiError, match=f"answers {code}"):
        call("POST", f"{fleet.urls.receiver}/alerts", {"alerts": [alert]}, token)
    url = f"{fleet.urls.receiver}/api/v1/incidents?label=alertname=Intruder"
    assert call("GET", url, token=READER["password"])["incidents"] == []


def test_who_may_send_may_not_read(fleet: Fleet) -> None:
    with pytest.raises(ApiError, match="answers 403"):
        call("GET", f"{fleet.urls.receiver}/api/v1/incidents", token=SETTINGS["alert_receiver_webhook_token"])


def test_the_page_needs_a_login(fleet: Fleet) -> None:
    assert status(f"{fleet.urls.receiver}/")[0] == 401
    login = base64.b64encode(f"{READER['name']}:{READER['password']}".encode()).decode()
    assert status(f"{fleet.urls.receiver}/", f"Basic {login}") == (200, "text/html")


def test_every_channel_takes_a_test_message(fleet: Fleet) -> None:
    answer = json.loads(fleet.host("receiver").check_output("fleetwatch-receiver test-channels --json"))
    assert {result["channel"]: result["error"] for result in answer["channels"]} == dict.fromkeys(WAYS)


def test_verify_tests_the_channels_when_asked(fleet: Fleet) -> None:
    call("PUT", f"{fleet.urls.mailbox}/api/failure", {"mode": "refuse", "count": 1})
    run = fleet.play("-e", "verify_channels=true", playbook="playbooks/verify.yml")
    assert run.code != 0
    assert [line.split()[0] for line in run.output.splitlines() if " channel " in line].count("FAILED") == 1
    run = fleet.play("-e", "verify_channels=true", playbook="playbooks/verify.yml")
    assert run.code == 0, run.output
    for channel in WAYS:
        assert f"channel {channel}" in run.output
    assert not [secret for secret in (READER["password"], "only-for-") if secret in run.output]


def test_backup_is_a_database_for_its_owner_only(fleet: Fleet) -> None:
    host = fleet.host("receiver")
    host.check_output(f"install -d -o alert_receiver -g alert_receiver -m 0700 {BACKUPS}")
    host.check_output(f"fleetwatch-receiver backup --force {BACKUPS}/test.backup")
    file = host.file(f"{BACKUPS}/test.backup")
    assert (file.user, file.mode) == ("alert_receiver", 0o600)
    query = "select count(*) from incidents"
    count = f"import sqlite3; print(*sqlite3.connect('{BACKUPS}/test.backup').execute('{query}').fetchone())"
    assert int(host.check_output(f'python3 -c "{count}"')) > 0


def test_migrate_does_nothing_twice(fleet: Fleet) -> None:
    assert "nothing to do" in fleet.host("receiver").check_output("fleetwatch-receiver migrate")


def test_the_command_is_for_root_and_shows_no_secret(fleet: Fleet) -> None:
    host = fleet.host("receiver")
    refused = host.run("runuser -u nobody -- fleetwatch-receiver --help")
    assert (refused.rc, refused.stdout) == (1, "")
    assert "as root" in refused.stderr
    command = host.file("/usr/local/bin/fleetwatch-receiver")
    assert (command.user, command.mode) == ("root", 0o755)
    assert "only-for-" not in command.content_string


def test_settings_that_cannot_work_are_refused_before_anything_changes(fleet: Fleet) -> None:
    host = fleet.host("receiver")
    units = "alert_receiver alert_dispatcher"
    look = f"sha256sum /etc/alert_receiver/receiver.yml; systemctl show -p MainPID {units}"
    before = host.check_output(look)
    run = fleet.play_with(
        {"alert_receiver_routes": [{"name": "all", "channels": ["pager"]}]}, "--limit", "receiver"
    )
    assert run.code != 0
    assert 'route "all" names the channel "pager"' in run.output
    assert "nothing was changed" in run.output
    assert host.check_output(look) == before


def test_a_template_that_cannot_work_is_refused_before_anything_changes(fleet: Fleet) -> None:
    template = {"mail.subject.j2": "{{ '{{ word' }}"}
    run = fleet.play_with({"alert_receiver_templates": template}, "--limit", "receiver")
    assert run.code != 0
    assert "mail.subject" in run.error
    assert "nothing was changed" in run.output
