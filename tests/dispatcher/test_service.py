"""The dispatcher as a process of its own."""

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
    wait_until,
)
from tests.dispatcher.conftest import Post

pytestmark = pytest.mark.slow


@pytest.fixture
def service(tmp_path: Path, database: str, post: Post) -> Iterator[Service]:
    settings = {
        name: value for name, value in post.settings.items() if name not in ("channel_secrets", "channels")
    }
    channels = [{**channel, "timeout": 1} for channel in post.settings["channels"]]
    config = {"dispatcher_port": free_port(), "database_url": database, "lease": 2, "channels": channels}
    service = Service("dispatcher", settings | config, tmp_path, {"channel.mail.api_key": API_KEY})
    yield service
    service.kill()


def _url(service: Service, path: str) -> str:
    return f"http://127.0.0.1:{service.config['dispatcher_port']}{path}"


def test_sigkill_while_sending_leads_to_redelivery(
    service: Service, post: Post, mailbox: MailboxServer
) -> None:
    service.start(_url(service, "/readyz"))
    mailbox.fail("timeout", seconds=5, count=1)
    post.accept(alert())
    wait_until(lambda: mailbox.mailbox.failures.get().mode == "ok", what="the attempt reached the mailbox")
    service.kill()
    held = post.notification()
    assert (held.state, held.attempts) == ("queued", 1)
    assert mailbox.subjects() == []

    service.start(_url(service, "/readyz"))
    wait_until(lambda: mailbox.subjects() == ["[CRITICAL] HighCpu on node1"], what="redelivery")
    sent = post.wait_sent()
    assert (sent.attempts, sent.provider_id) == (2, mailbox.messages()[0]["message_id"])
    metrics = call("GET", _url(service, "/metrics")).text
    assert 'alert_dispatcher_deliveries_total{channel="mail",outcome="sent"} 1.0' in metrics
    began = time.monotonic()
    assert service.terminate() == 0
    assert time.monotonic() - began < 3
    assert API_KEY not in service.log.read_text()
    assert service.events()[-1]["event"] == "stopped"


def test_sigterm_lets_the_attempt_under_way_finish(
    service: Service, post: Post, mailbox: MailboxServer
) -> None:
    service.start(_url(service, "/readyz"))
    mailbox.fail("timeout", seconds=0.5, count=1)  # it answers after all, with an error
    post.accept(alert())
    wait_until(lambda: mailbox.mailbox.failures.get().mode == "ok", what="the attempt reached the mailbox")
    assert service.terminate() == 0
    row = post.notification()
    assert (row.attempts, row.claimed_by) == (1, None)
    assert row.last_error


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("key", "change", "expected"),
    [
        ("", {}, 'secret "channel.mail.api_key" is missing'),
        ("SG.two\nlines", {}, 'secret "channel.mail.api_key" is not one word of printable ASCII'),
        (API_KEY, {"dispatcher_port": None}, 'setting "dispatcher_port": cannot listen'),
        (API_KEY, {"database_url": "sqlite:////nowhere/alerts.db"}, "does not exist"),
        (API_KEY, {"links": {"Wiki": "https://wiki/{{ oops"}}, 'setting "links": the URL of "Wiki"'),
    ],
)
def test_wrong_settings_end_it_with_one_line(
    service: Service, key: str, change: dict[str, Any], expected: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service.config |= {name: port if value is None else value for name, value in change.items()}
        service.secrets["channel.mail.api_key"] = key
        ended = service.run()
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("alert_dispatcher: ")
    assert expected in ended.stderr
    assert "SG." not in ended.stderr
