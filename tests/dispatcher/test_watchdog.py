"""The dispatcher tells when heartbeats are missing, and when they come again."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from fleetwatch.dispatcher.settings import DispatcherSettings
from fleetwatch.store import Incident, Store
from tests.common.services import alert, wait_until
from tests.dispatcher.conftest import Post

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

    found = wait_until(told, 10, transition)
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


def test_the_message_says_what_and_since_when(post: Post, mailbox: Any) -> None:
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
        wait_until(lambda: len(post.incidents()) > 1, 10)


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
