"""Receiver, dispatcher and mailbox as processes of their own."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.common.services import (
    API_KEY,
    MailboxServer,
    Service,
    alert,
    call,
    free_port,
    run_mailbox,
    wait_until,
)


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[MailboxServer]:
    with run_mailbox(tmp_path) as server:
        yield server


@pytest.fixture
def config(tmp_path: Path, mailbox: MailboxServer) -> dict[str, Any]:
    return {
        "port": free_port(),
        "dispatcher_port": free_port(),
        "database_url": f"sqlite:///{tmp_path}/alerts.db",
        "sender": "fleetwatch@example.org",
        "recipients": ["ops@example.org"],
        "sendgrid_host": mailbox.url,
        "sendgrid_timeout": 1,
        "lease": 2,
    }


@pytest.fixture
def receiver(tmp_path: Path, config: dict[str, Any]) -> Iterator[Service]:
    service = Service("receiver", config, tmp_path)
    service.start(f"http://127.0.0.1:{config['port']}/readyz")
    yield service
    service.kill()


@pytest.fixture
def dispatcher(tmp_path: Path, config: dict[str, Any]) -> Iterator[Service]:
    service = Service("dispatcher", config, tmp_path, {"sendgrid_api_key": API_KEY})
    yield service
    service.kill()


def _notification(config: dict[str, Any]) -> dict[str, Any]:
    (incident,) = call("GET", f"http://127.0.0.1:{config['port']}/api/v1/incidents").json["incidents"]
    (notification,) = incident["notifications"]
    return dict(notification)


def test_sigkill_while_sending_leads_to_redelivery(
    config: dict[str, Any], receiver: Service, dispatcher: Service, mailbox: MailboxServer
) -> None:
    health = f"http://127.0.0.1:{config['dispatcher_port']}/readyz"
    dispatcher.start(health)
    mailbox.fail("timeout", seconds=5, count=1)
    assert call("POST", f"http://127.0.0.1:{config['port']}/alerts", {"alerts": [alert()]}).status == 200
    wait_until(lambda: mailbox.mailbox.failures.get().mode == "ok", what="the attempt reached the mailbox")
    dispatcher.kill()
    held = _notification(config)
    assert (held["state"], held["attempts"]) == ("queued", 1)
    assert mailbox.subjects() == []

    dispatcher.start(health)
    wait_until(lambda: mailbox.subjects() == ["[CRITICAL] HighCpu on node1"], what="redelivery")
    sent = wait_until(lambda: (row := _notification(config))["state"] == "sent" and row)
    assert isinstance(sent, dict)
    assert (sent["attempts"], sent["provider_id"]) == (2, mailbox.messages()[0]["message_id"])
    metrics = call("GET", f"http://127.0.0.1:{config['dispatcher_port']}/metrics").text
    assert 'alert_dispatcher_deliveries_total{channel="sendgrid",outcome="sent"} 1.0' in metrics
    began = time.monotonic()
    assert dispatcher.terminate() == 0
    assert time.monotonic() - began < 3
    assert API_KEY not in dispatcher.log.read_text()
    assert dispatcher.events()[-1]["event"] == "stopped"


@pytest.mark.parametrize(
    ("key", "changes", "expected"),
    [
        ("", {}, 'secret "sendgrid_api_key" is missing'),
        ("SG.two\nlines", {}, 'setting "sendgrid_api_key": not one word of printable ASCII'),
        (API_KEY, {"dispatcher_port": None}, 'setting "dispatcher_port": cannot listen'),
    ],
)
def test_wrong_settings_end_it_with_one_line(
    config: dict[str, Any], dispatcher: Service, key: str, changes: dict[str, Any], expected: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config |= {name: port if value is None else value for name, value in changes.items()}
        dispatcher.secrets["sendgrid_api_key"] = key
        ended = dispatcher.run()
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("alert_dispatcher: ")
    assert expected in ended.stderr
    assert "SG." not in ended.stderr
