"""The dispatcher's loop, with channels that do as the test says."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Lock
from typing import Any, ClassVar

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from fleetwatch.common import tracing
from fleetwatch.dispatcher import dispatcher as module
from fleetwatch.dispatcher.channels import DeliveryError, Message
from fleetwatch.dispatcher.dispatcher import Dispatcher
from fleetwatch.store import Incident, Notification, State
from tests.common.collector import run_collector
from tests.common.services import alert, wait_until
from tests.dispatcher.conftest import Post


class Provider:
    """A channel that keeps what it is given."""

    templates: ClassVar[tuple[str, ...]] = ("sms.txt",)

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self.act = act
        self.messages: list[Message] = []
        self.most_at_once = self._at_once = 0
        self._lock = Lock()

    def send(self, message: Message) -> str | None:
        with self._lock:
            self.messages.append(message)
            number = len(self.messages)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            self.act()
        finally:
            with self._lock:
                self._at_once -= 1
        return str(number)


def fail(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def _alerts(count: int) -> list[dict[str, Any]]:
    return [alert(f"A{number}") for number in range(count)]


def _two_channels(post: Post) -> list[dict[str, Any]]:
    (mail,) = post.settings["channels"]
    return [mail, {**mail, "name": "other"}]


def _value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"alert_dispatcher_{name}", {"channel": "mail", **labels})


@pytest.mark.slow
def test_a_channel_that_hangs_does_not_hold_up_the_others(post: Post) -> None:
    go_on = Event()
    slow, quick = Provider(lambda: go_on.wait(10)), Provider()
    post.settings["channels"] = _two_channels(post)
    post.settings["channel_secrets"]["other.api_key"] = "SG.x"
    post.accept(*_alerts(12))
    with post.dispatcher({"mail": slow, "other": quick}):
        wait_until(lambda: len(quick.messages) == 12)
        hanging = len(slow.messages)
        go_on.set()
        wait_until(lambda: all(row.state == State.SENT for row in post.notifications()))
    assert hanging == 2
    assert (len(slow.messages), slow.most_at_once) == (12, 2)


def test_the_breaker_leaves_a_dead_provider_alone_and_then_tries_one_message(post: Post) -> None:
    provider = Provider(fail(DeliveryError("no answer")))
    post.accept(*_alerts(10))
    channel = {"breaker_failures": 3, "breaker_pause": 0.5, "concurrency": 1}
    with post.dispatcher({"mail": provider}, channel=channel) as registry:
        wait_until(lambda: _value(registry, "breaker_trips_total") == 1)
        time.sleep(0.3)
        assert len(provider.messages) == 3
        assert (_value(registry, "channel_paused"), _value(registry, "breaker_open")) == (1, 1)
        # What waits is not claimed, and no attempt of it is counted.
        assert sorted(row.attempts for row in post.notifications()) == [0] * 7 + [1] * 3
        wait_until(lambda: len(provider.messages) == 4, what="one tries after the pause")
        time.sleep(0.2)
        assert len(provider.messages) == 4
        provider.act = lambda: None
        wait_until(lambda: all(row.state == State.SENT for row in post.notifications()))
        assert (_value(registry, "channel_paused"), _value(registry, "breaker_open")) == (0, 0)


def test_a_refusal_of_single_messages_does_not_open_the_breaker(post: Post) -> None:
    provider = Provider(fail(DeliveryError("bad address", permanent=True)))
    post.accept(*_alerts(6))
    with post.dispatcher({"mail": provider}, channel={"breaker_failures": 2, "breaker_pause": 60}):
        wait_until(lambda: all(row.state == State.PARKED for row in post.notifications()))


def test_what_a_provider_asks_for_holds_for_the_whole_channel(post: Post) -> None:
    provider = Provider(fail(DeliveryError("too many", retry_after=30)))
    post.accept(*_alerts(5))
    with post.dispatcher({"mail": provider}, channel={"concurrency": 1}, retry_max=60) as registry:
        wait_until(lambda: provider.messages)
        time.sleep(0.3)
        assert _value(registry, "channel_paused") == 1
        assert _value(registry, "breaker_open") == 0
    assert len(provider.messages) == 1


def test_the_rate_limit_leaves_the_rest_in_the_outbox(post: Post) -> None:
    provider = Provider()
    post.accept(*_alerts(6))
    began = time.monotonic()
    with post.dispatcher({"mail": provider}, channel={"rate_limit": 240, "rate_burst": 2}):
        wait_until(lambda: len(provider.messages) == 6)
        took = time.monotonic() - began
        wait_until(lambda: all(row.state == State.SENT for row in post.notifications()))
    assert took > 0.9, "four of them had to wait a quarter of a second each"
    assert {row.attempts for row in post.notifications()} == {1}, "waiting is no attempt"


def test_a_burst_goes_out_as_one_message(post: Post) -> None:
    provider = Provider()
    post.accept(*_alerts(30))
    with post.dispatcher({"mail": provider}, channel={"group_above": 10, "group_wait": 0.2}) as registry:
        wait_until(lambda: all(row.state == State.SENT for row in post.notifications()))
        assert _value(registry, "messages_total") == 1
        assert _value(registry, "deliveries_total", outcome="sent") == 30
    assert len(provider.messages) == 1


def test_of_a_burst_that_fails_only_what_is_old_is_given_up(post: Post) -> None:
    provider = Provider(fail(DeliveryError("no answer")))
    post.accept(*_alerts(12))
    with post.store.write() as session:
        long_ago = datetime.now(UTC) - timedelta(days=4)
        session.execute(update(Notification).where(Notification.id <= 4).values(wanted_at=long_ago))
    settings = {"channel": {"group_above": 10, "group_wait": 0.2}, "retry_base": 60, "retry_max": 60}
    with post.dispatcher({"mail": provider}, **settings):
        wait_until(lambda: [row.state for row in post.notifications()].count(State.PARKED) == 4)
        wait_until(lambda: all(row.last_error for row in post.notifications()))
    assert len(provider.messages) == 1
    assert {row.last_error for row in post.notifications() if row.state == State.QUEUED} == {"no answer"}


def test_stopping_lets_the_attempt_under_way_finish(post: Post) -> None:
    provider = Provider(lambda: time.sleep(0.5))
    post.accept(alert())
    with post.dispatcher({"mail": provider}):
        wait_until(lambda: provider.messages)
    assert (post.notification().state, post.notification().provider_id) == (State.SENT, "1")


def test_systemd_hears_from_it_as_long_as_its_loop_turns(
    post: Post, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hangs = Event()
    claim = post.store.claim
    monkeypatch.setattr(post.store, "claim", lambda *args, **kwargs: hangs.wait(5) and claim(*args, **kwargs))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(0.5)
        with post.dispatcher({"mail": Provider()}):
            assert systemd.recv(100) == b"WATCHDOG=1"
            with pytest.raises(TimeoutError):
                systemd.recv(100)
            hangs.set()
            assert [systemd.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3


@pytest.mark.slow
def test_stopping_does_not_wait_for_ever(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STOP_GRACE", 0.2)
    go_on = Event()
    provider = Provider(lambda: go_on.wait(10))
    post.accept(alert())
    with post.dispatcher({"mail": provider}):
        wait_until(lambda: provider.messages)
        began = time.monotonic()
    assert time.monotonic() - began < 2
    assert post.notification().claimed_by is not None
    go_on.set()
    post.wait_sent()


def test_what_was_claimed_and_not_begun_is_given_back(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    provider, claim = Provider(), post.store.claim
    dispatcher = Dispatcher(post.model(), post.store, {"mail": provider}, CollectorRegistry())

    def claim_and_stop(*args: Any, **kwargs: Any) -> Any:
        rows = claim(*args, **kwargs)
        dispatcher.stop()
        return rows

    monkeypatch.setattr(post.store, "claim", claim_and_stop)
    post.accept(alert())
    dispatcher.run()
    row = post.notification()
    assert (row.state, row.attempts, row.claimed_by, row.claimed_until) == (State.QUEUED, 0, None, None)
    assert provider.messages == []


def test_the_claim_of_a_dead_dispatcher_is_taken_up_again(post: Post) -> None:
    post.accept(alert())
    claimed_at = datetime.now(UTC)
    (rows,) = post.store.claim("dead", "mail", 1, lease=1)
    with post.dispatcher({"mail": Provider()}):
        row = post.wait_sent()
    assert row.sent_at is not None
    assert row.sent_at - claimed_at >= timedelta(seconds=1)
    assert row.attempts == 2
    assert not post.store.mark_sent(rows, "late")


def test_a_clock_that_was_set_back_wedges_nothing(post: Post) -> None:
    hours = timedelta(hours=5)
    post.accept(alert("Queued"), alert("Retried"), alert("Claimed"))
    with post.store.write() as session:
        later = {"queued_at": Notification.queued_at, "due_at": datetime.now(UTC) + hours}
        for number, values in enumerate(
            (
                {"queued_at": datetime.now(UTC) + hours, "wanted_at": datetime.now(UTC) + hours} | later,
                later | {"attempts": 1},
                {"claimed_by": "x", "claimed_until": datetime.now(UTC) + hours, "attempts": 1},
            )
        ):
            session.execute(update(Notification).where(Notification.id == number + 1).values(values))
        session.execute(
            update(Notification).where(Notification.id == 1).values(queued_at=datetime.now(UTC) + hours)
        )
    with post.dispatcher({"mail": Provider()}):
        wait_until(lambda: all(row.state == State.SENT for row in post.notifications()))


def test_after_a_clock_was_set_back_retries_still_wait(post: Post) -> None:
    provider = Provider(fail(DeliveryError("no answer")))
    post.accept(alert())
    with post.store.write() as session:
        ahead = datetime.now(UTC) + timedelta(hours=5)
        session.execute(update(Notification).values(queued_at=ahead, wanted_at=ahead, due_at=ahead))
    with post.dispatcher({"mail": provider}, retry_base=30, retry_max=30):
        post.wait(lambda row: row.last_error)
        time.sleep(0.3)
    assert len(provider.messages) == 1


@pytest.mark.parametrize("quiet", [False, True])
def test_a_reminder_is_planned(post: Post, quiet: bool) -> None:
    now = datetime.now(UTC)
    route: dict[str, Any] = {"name": "all", "channels": ["mail"], "reminder_interval": 60}
    ends = (now + timedelta(hours=3)).replace(second=0, microsecond=0)
    if quiet:
        start = now - timedelta(hours=1)
        route["quiet_hours"] = {
            "start": f"{start:%H:%M}",
            "end": f"{ends:%H:%M}",
            "except_severities": [],
        }
    post.settings["routes"] = [route]
    post.accept(alert())
    with post.store.write() as session:
        session.execute(update(Notification).values(due_at=now))
    with post.dispatcher({"mail": Provider()}):
        row = post.wait(lambda row: row.transition == "reminder")
    expected = ends if quiet else now + timedelta(seconds=60)
    assert abs((row.due_at - expected).total_seconds()) < 5


def test_a_follow_up_of_a_silenced_incident_waits_and_of_an_acknowledged_one_is_dropped(post: Post) -> None:
    steps = [{"after": 3600, "channels": ["mail"]}]
    post.settings["routes"] = [{"name": "all", "channels": [], "escalations": steps}]
    post.accept(*_alerts(3))
    now = datetime.now(UTC)
    with post.store.write() as session:
        session.execute(update(Notification).values(due_at=now, wanted_at=now))
        session.execute(update(Incident).where(Incident.id == 1).values(silenced="silenced"))
        session.execute(update(Incident).where(Incident.id == 2).values(acknowledged_at=now))
    provider = Provider()
    with post.dispatcher({"mail": provider}):
        wait_until(lambda: post.notifications()[2].state == State.SENT)
        wait_until(lambda: post.notifications()[1].state == State.CANCELLED)
        time.sleep(0.2)
    waits = post.notifications()[0]
    assert (waits.state, waits.attempts) == (State.QUEUED, 0)
    assert waits.due_at > now + timedelta(seconds=30)
    assert len(provider.messages) == 1


@pytest.mark.slow
def test_an_outcome_is_recorded_even_when_the_store_fails_for_a_moment(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STORE_PAUSE", 0.05)
    mark_sent, claim, failures = post.store.mark_sent, post.store.claim, [True, True, True]

    def broken(call: Any) -> Any:
        def wrapper(*args: object, **kwargs: object) -> object:
            with suppress(IndexError):
                failures.pop()
                raise OperationalError("UPDATE", {}, Exception("disk I/O error"))
            return call(*args, **kwargs)

        return wrapper

    provider = Provider()
    post.accept(alert())
    monkeypatch.setattr(post.store, "mark_sent", broken(mark_sent))
    with post.dispatcher({"mail": provider}) as registry:
        post.wait_sent()
    assert len(provider.messages) == 1
    assert registry.get_sample_value("alert_dispatcher_store_failures_total") == 3

    failures[:] = [True]
    monkeypatch.setattr(post.store, "claim", broken(claim))
    post.accept(alert("Later"))
    with post.dispatcher({"mail": provider}):
        wait_until(lambda: len(provider.messages) == 2)


def test_a_delivery_belongs_to_the_trace_of_its_alert(post: Post) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    provider = Provider(fail(DeliveryError("no answer")))
    post.accept(alert(), traceparent=f"00-{trace}-b7ad6b7169203331-01")
    with run_collector() as collector:
        tracing.setup("alert_dispatcher", collector.url)
        try:
            with post.dispatcher({"mail": provider}):
                post.wait(lambda row: row.attempts and row.last_error)
                provider.act = lambda: None
                post.wait_sent()
        finally:
            tracing.shutdown()
    spans = [span for span in collector.spans if span.name == "deliver"]
    assert {(span.trace, span.parent) for span in spans} == {(trace, "b7ad6b7169203331")}
    assert spans[0].attributes == {"channel": "mail", "attempt": 1, "notifications": 1, "outcome": "retried"}
    assert spans[-1].attributes["outcome"] == "sent"
    assert all((message.traceparent or "").startswith(f"00-{trace}-") for message in provider.messages)


def test_without_tracing_the_context_is_still_handed_on(post: Post) -> None:
    provider = Provider()
    post.accept(alert(), traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    with post.dispatcher({"mail": provider}):
        post.wait_sent()
    assert provider.messages[0].traceparent == post.notification().traceparent is not None
