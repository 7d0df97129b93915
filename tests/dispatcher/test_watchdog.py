"""The dispatcher tells when heartbeats are missing, and when they come again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from fleetwatch.dispatcher.settings import DispatcherSettings
from fleetwatch.store import Incident, Notification, Store
from tests.common.services import MailboxServer, alert, free_port, wait_until
from tests.dispatcher.conftest import Post

pytestmark = pytest.mark.slow

TIMEOUT = 0.4


def _beat(post: Post) -> None:
    labels = {"alertname": "Watchdog", "severity": "info"}
    post.accept(alert() | {"labels": labels}, receiver="fleetwatch-watchdog")


def _wait_incident(post: Post, transition: str) -> Incident:
    """Wait until the newest incident was told of, so far."""

    def told() -> Incident | None:
        for incident in post.incidents()[-1:]:
            if [(row.transition, row.state) for row in incident.notifications[-1:]] == [(transition, "sent")]:
                return incident
        return None

    found = wait_until(told, what=transition)
    assert found is not None
    return found


def test_what_stays_out_is_told_and_so_is_its_return(post: Post) -> None:
    _beat(post)
    with post.dispatcher(watchdog_timeout=TIMEOUT, runbook_url="https://wiki/runbooks/"):
        incident = _wait_incident(post, "firing")
        assert incident.labels["alertname"] == "WatchdogMissing"
        assert incident.annotations["runbook_url"] == "https://wiki/runbooks/WatchdogMissing.md"
        _beat(post)
        assert _wait_incident(post, "resolved").id == incident.id
        # And the next time.
        assert _wait_incident(post, "firing").id == incident.id + 1


def test_the_message_says_what_and_since_when(post: Post, mailbox: MailboxServer) -> None:
    _beat(post)
    with post.dispatcher(watchdog_timeout=TIMEOUT):
        incident = _wait_incident(post, "firing")
    (message,) = mailbox.messages()
    assert message["subject"] == "[CRITICAL] No heartbeat from Prometheus"
    assert incident.annotations["description"].startswith("The Watchdog of Prometheus came last at ")


def test_one_that_never_comes_is_told_only_if_it_is_expected(post: Post) -> None:
    with post.dispatcher(watchdog_timeout=TIMEOUT), pytest.raises(AssertionError):
        wait_until(post.incidents, TIMEOUT * 4)
    with post.dispatcher(watchdog_timeout=TIMEOUT, watchdog_expected=True):
        _wait_incident(post, "firing")


def test_zero_turns_it_off(post: Post) -> None:
    _beat(post)
    with post.dispatcher(watchdog_timeout=0, watchdog_expected=True), pytest.raises(AssertionError):
        wait_until(post.incidents, TIMEOUT * 3)
    assert len(post.store.watchdogs()) == 1


def test_one_that_was_resolved_by_hand_is_expected_again_after_a_restart_only(post: Post) -> None:
    with post.dispatcher(watchdog_timeout=TIMEOUT, watchdog_expected=True):
        incident = _wait_incident(post, "firing")
        post.store.resolve(incident.id, "ops", post.model().router, "")
        with pytest.raises(AssertionError):
            wait_until(lambda: len(post.incidents()) > 1, TIMEOUT * 4)
    with post.dispatcher(watchdog_timeout=TIMEOUT, watchdog_expected=True):
        wait_until(lambda: len(post.incidents()) > 1)


def test_a_store_that_fails_is_counted_and_tried_again(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    _beat(post)
    watch = Store.watch
    calls = []

    def fail_first(self: Store, *arguments: Any) -> list[str]:
        calls.append(arguments)
        if len(calls) == 1:
            raise OperationalError("", {}, Exception("disk"))
        return watch(self, *arguments)

    monkeypatch.setattr(Store, "watch", fail_first)
    with post.dispatcher(watchdog_timeout=TIMEOUT) as registry:
        _wait_incident(post, "firing")
        assert registry.get_sample_value("alert_dispatcher_store_failures_total") == 1


@pytest.mark.parametrize("value", [-1, "soon", float("inf")])
def test_a_wrong_timeout_is_refused(post: Post, value: object) -> None:
    with pytest.raises(ValueError, match="watchdog_timeout"):
        DispatcherSettings.model_validate(post.settings | {"watchdog_timeout": value})


# To a dead man's switch outside

URL = "/hooks/only-for-this-switch"


@pytest.fixture
def outside(mailbox: MailboxServer) -> dict[str, Any]:
    """Return settings with the mailbox as such a service."""
    return {
        "heartbeat_urls": {"0": mailbox.url + URL},
        "heartbeat_interval": 0.1,
        "watchdog_timeout": TIMEOUT,
    }


def _heard(mailbox: MailboxServer) -> int:
    return len([message for message in mailbox.messages() if message["via"] == "webhook"])


def _stays(value: Callable[[], int]) -> bool:
    before = value()
    time.sleep(0.5)
    return value() == before


def test_the_switch_outside_hears_while_all_is_well(
    post: Post, mailbox: MailboxServer, outside: dict[str, Any]
) -> None:
    with post.dispatcher(**outside) as registry:
        assert _stays(lambda: _heard(mailbox)), "nobody has beaten yet"
        assert registry.get_sample_value("alert_dispatcher_heartbeats_withheld_total")
        _beat(post)
        wait_until(lambda: _heard(mailbox) >= 2)
        _wait_incident(post, "firing")  # no more heartbeats come
        time.sleep(0.2)
        assert _stays(lambda: _heard(mailbox)), "it hears though the Watchdog is missing"
        _beat(post)
        heard = _heard(mailbox)
        wait_until(lambda: _heard(mailbox) > heard)
        assert (registry.get_sample_value("alert_dispatcher_heartbeats_sent_total") or 0) >= 3


def test_a_message_that_is_stuck_keeps_it_from_hearing(
    post: Post, mailbox: MailboxServer, outside: dict[str, Any]
) -> None:
    _beat(post)
    with post.store.write() as session:
        session.add(_stuck(datetime.now(UTC) - timedelta(hours=1)))
    with post.dispatcher(**outside | {"watchdog_timeout": 60}) as registry:
        name = "alert_dispatcher_heartbeats_withheld_total"
        wait_until(lambda: (registry.get_sample_value(name) or 0) >= 2)
    assert _heard(mailbox) == 0


def _stuck(since: datetime) -> Incident:
    """Return an incident with a message that should have gone out, and whose next attempt is far off."""
    due = datetime.now(UTC) + timedelta(hours=1)
    row = Notification(
        transition="firing", channel="mail", queued_at=since, wanted_at=since, due_at=due, attempts=9
    )
    return Incident(
        fingerprint="f1",
        starts_at=since,
        status="firing",
        severity="critical",
        summary="A",
        labels={"alertname": "A"},
        annotations={},
        generator_url="",
        external_url="",
        receiver="fleetwatch",
        received_at=since,
        notifications=[row],
    )


def test_a_switch_that_refuses_is_counted_and_its_url_is_not_logged(
    post: Post, outside: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    _beat(post)
    caplog.set_level(logging.DEBUG)
    urls = {
        "0": f"http://127.0.0.1:{free_port()}{URL}",
        "1": outside["heartbeat_urls"]["0"].replace("hooks", "no"),
    }
    with post.dispatcher(**outside | {"heartbeat_urls": urls, "watchdog_timeout": 60}) as registry:
        name = "alert_dispatcher_heartbeat_failures_total"
        wait_until(lambda: (registry.get_sample_value(name) or 0) >= 4)
    records = [record for record in caplog.records if record.getMessage() == "heartbeat not taken"]
    assert {vars(record)["switch"] for record in records} == {"0", "1"}
    assert {vars(record)["reason"].partition(":")[0] for record in records} == {
        "dead man's switch 0 cannot be reached",
        "dead man's switch 1 answered 404",
    }
    assert not [record for record in caplog.records if "only-for-this-switch" in str(vars(record))]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"heartbeat_urls": {"0": "hc-ping.com/secret"}}, 'secret "heartbeat.0" is not a URL'),
        (
            {"heartbeat_urls": {"0": "https://hc-ping.com/x"}, "watchdog_timeout": 0},
            "though Prometheus is dead",
        ),
    ],
)
def test_heartbeats_that_cannot_work_are_refused(post: Post, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        DispatcherSettings.model_validate(post.settings | settings)
    assert "hc-ping.com/secret" not in str(refused.value)
