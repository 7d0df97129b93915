"""Reconciliation with the real Alertmanager."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import update

from fleetwatch.dispatcher import reconcile
from fleetwatch.dispatcher.metrics import ReconciliationMetrics
from fleetwatch.dispatcher.reconcile import Reconciler
from fleetwatch.store import Incident, Status
from tests.common.services import alert, free_port
from tests.dispatcher.alertmanager import Alertmanager, run_alertmanager
from tests.dispatcher.conftest import Post

GRACE = 0.3
AGO = "2026-01-02T03:04:05.678901234Z"
LATER = "2026-01-02T04:04:05.678901234Z"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    with run_alertmanager(tmp_path_factory.mktemp("alertmanager")) as server:
        time.sleep(GRACE)
        yield server


@pytest.fixture
def alertmanager(running: Alertmanager) -> Iterator[Alertmanager]:
    yield running
    past = datetime.now(UTC).isoformat()
    for known in running.alerts():
        running.post(known["labels"]["alertname"], known["startsAt"], past)


@pytest.fixture
def reconciliation(post: Post, alertmanager: Alertmanager) -> Callable[..., CollectorRegistry]:
    def run(*alertmanagers: str, grace: float = GRACE) -> CollectorRegistry:
        registry = CollectorRegistry()
        urls = list(alertmanagers) or [alertmanager.url + "/"]
        model = post.model(alertmanagers=urls, reconcile_grace=grace)
        Reconciler(model, post.store, ReconciliationMetrics(registry)).run_once()
        return registry

    return run


Reconciliation = Callable[..., CollectorRegistry]


def _value(registry: CollectorRegistry, name: str) -> float | None:
    return registry.get_sample_value(f"alert_dispatcher_reconciliation_{name}")


def _fire(post: Post, alertmanager: Alertmanager, name: str = "A", starts_at: str = AGO) -> None:
    """Let an alert fire in Alertmanager, and its webhook arrive."""
    alertmanager.post(name, starts_at)
    _receive(post, alertmanager, name, startsAt=starts_at)


def _receive(post: Post, alertmanager: Alertmanager, name: str = "A", **fields: str) -> None:
    fingerprint = alertmanager.alert(name)["fingerprint"]
    post.accept(
        alert(name, fingerprint=fingerprint, **fields), externalURL=alertmanager.url, receiver="nobody"
    )


def _end(alertmanager: Alertmanager, name: str = "A", starts_at: str = AGO) -> None:
    """Let an alert end in Alertmanager; its webhook never comes."""
    alertmanager.post(name, starts_at, datetime.now(UTC).isoformat())


def _kinds(incident: Incident) -> list[str]:
    return [event.kind for event in incident.events]


def test_what_fires_stays_open(
    post: Post, alertmanager: Alertmanager, reconciliation: Reconciliation
) -> None:
    _fire(post, alertmanager)
    with post.store.write() as session:
        session.execute(update(Incident).values(missing_since=datetime.now(UTC) - timedelta(hours=1)))
    registry = reconciliation()
    (incident,) = post.incidents()
    assert (incident.status, incident.missing_since) == (Status.FIRING, None)
    assert (_value(registry, "closed_total"), _value(registry, "failures_total")) == (0, 0)
    assert abs((_value(registry, "last_success_timestamp_seconds") or 0) - time.time()) < 5


def test_an_answer_of_many_parts(
    post: Post, alertmanager: Alertmanager, reconciliation: Reconciliation
) -> None:
    names = [f"Many{number}" for number in range(400)]
    for name in names:
        alertmanager.post(name, AGO)
    _receive(post, alertmanager, names[0], startsAt=AGO)
    _receive(post, alertmanager, names[-1], startsAt=AGO)
    reconciliation()
    assert [incident.missing_since for incident in post.incidents()] == [None, None]


def test_what_no_alertmanager_knows_is_closed_after_the_grace(
    post: Post, alertmanager: Alertmanager, reconciliation: Reconciliation
) -> None:
    _fire(post, alertmanager)
    post.accept(alert("ByHand"))
    _end(alertmanager)
    reconciliation()
    lost, by_hand = post.incidents()
    assert lost.status == Status.FIRING
    assert lost.missing_since is not None
    reconciliation()
    assert post.incidents()[0].status == Status.FIRING, "the grace is not over"
    time.sleep(GRACE)
    registry = reconciliation()
    lost, by_hand = post.incidents()
    assert (lost.status, lost.resolved_by) == (Status.RESOLVED, "reconciliation")
    assert [row.transition for row in lost.notifications] == ["firing", "resolved"]
    assert _kinds(lost) == ["resolved"]
    assert _value(registry, "closed_total") == 1
    assert (by_hand.status, by_hand.missing_since) == (Status.FIRING, None)


def test_what_comes_back_within_the_grace_stays(
    post: Post, alertmanager: Alertmanager, reconciliation: Reconciliation
) -> None:
    _fire(post, alertmanager)
    _end(alertmanager)
    reconciliation()
    alertmanager.post("A", AGO)
    time.sleep(GRACE)
    reconciliation()
    (incident,) = post.incidents()
    assert (incident.status, incident.missing_since) == (Status.FIRING, None)


def test_an_alertmanager_that_has_just_started_closes_nothing(
    post: Post, alertmanager: Alertmanager, reconciliation: Reconciliation
) -> None:
    _fire(post, alertmanager)
    _end(alertmanager)
    with post.store.write() as session:
        session.execute(update(Incident).values(missing_since=datetime.now(UTC) - timedelta(days=1)))
    assert _value(reconciliation(grace=3600), "failures_total") == 0
    assert post.incidents()[0].status == Status.FIRING


def test_nothing_changes_unless_all_answer(
    post: Post, alertmanager: Alertmanager, reconciliation: Reconciliation
) -> None:
    _fire(post, alertmanager)
    _end(alertmanager)
    registry = reconciliation(alertmanager.url, f"http://127.0.0.1:{free_port()}")
    assert (_value(registry, "failures_total"), _value(registry, "last_success_timestamp_seconds")) == (1, 0)
    assert post.incidents()[0].missing_since is None


def test_one_of_two_knows_it(
    post: Post,
    alertmanager: Alertmanager,
    reconciliation: Reconciliation,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    _fire(post, alertmanager)
    with run_alertmanager(tmp_path_factory.mktemp("second")) as second:
        time.sleep(GRACE)
        reconciliation(second.url, alertmanager.url)
    assert post.incidents()[0].missing_since is None


def _again(post: Post, alertmanager: Alertmanager) -> str:
    """Let an alert end and fire again in Alertmanager, of which it does not tell; return its new start."""
    _fire(post, alertmanager)
    _end(alertmanager)
    starts_at = datetime.now(UTC).isoformat()
    alertmanager.post("A", starts_at, summary="A again\0")
    return starts_at


def _states(post: Post) -> list[tuple[str, str | None]]:
    return [(incident.status, incident.resolved_by) for incident in post.incidents()]


def test_a_later_occurrence_ends_this_one(
    post: Post, alertmanager: Alertmanager, reconciliation: Reconciliation
) -> None:
    _receive(post, alertmanager, startsAt=_again(post, alertmanager))
    reconciliation()
    assert _states(post) == [("resolved", "reconciliation"), ("firing", None)]
    time.sleep(GRACE)
    assert _value(reconciliation(), "opened_total") == 0


def test_a_later_occurrence_that_alertmanager_takes_for_told_is_told(
    post: Post, alertmanager: Alertmanager, reconciliation: Reconciliation
) -> None:
    starts_at = _again(post, alertmanager)
    reconciliation()
    assert _states(post) == [("firing", None)], "Alertmanager may still tell of it; it is no all-clear"
    time.sleep(GRACE)
    registry = reconciliation()
    assert _states(post) == [("resolved", "reconciliation"), ("firing", None)]
    assert (_value(registry, "opened_total"), _value(registry, "closed_total")) == (1, 1)
    before, after = post.incidents()
    assert [row.transition for row in after.notifications] == ["firing"]
    assert before.notifications[-1].id < after.notifications[0].id, "the last message would be an all-clear"
    assert after.annotations == {"summary": "A again\ufffd"}, "no database can hold a NUL"
    assert (after.labels, after.external_url) == (before.labels, before.external_url)
    # Alertmanager repeats it in the end, with more digits of the time than its API gives.
    _receive(post, alertmanager, startsAt=starts_at)
    reconciliation()
    assert len(post.incidents()) == 2
    _receive(post, alertmanager, startsAt=starts_at, status="resolved", endsAt=starts_at)
    assert _states(post) == [("resolved", "reconciliation"), ("resolved", None)]


def test_what_fires_anew_after_reconciliation_closed_it_is_told(
    post: Post, alertmanager: Alertmanager, reconciliation: Reconciliation
) -> None:
    """Alertmanager's notification log outlives a restart, so it takes this for told too."""
    _fire(post, alertmanager)
    _end(alertmanager)
    reconciliation()
    time.sleep(GRACE)
    reconciliation()
    assert _states(post) == [("resolved", "reconciliation")]
    alertmanager.post("A", datetime.now(UTC).isoformat())
    time.sleep(GRACE)
    reconciliation()
    assert _states(post) == [("resolved", "reconciliation"), ("firing", None)]


def test_after_an_end_that_was_told_alertmanager_tells_of_the_next_itself(
    post: Post, alertmanager: Alertmanager, reconciliation: Reconciliation
) -> None:
    """In its own time: a route of it may be mute for hours."""
    _again(post, alertmanager)
    _receive(post, alertmanager, startsAt=AGO, status="resolved", endsAt=LATER)
    time.sleep(GRACE)
    assert _value(reconciliation(), "opened_total") == 0
    assert _states(post) == [("resolved", None)]


def test_a_later_occurrence_that_is_silenced_is_told_of_after_the_silence(
    post: Post, alertmanager: Alertmanager, reconciliation: Reconciliation
) -> None:
    _again(post, alertmanager)
    silence = alertmanager.silence("A")
    time.sleep(GRACE)
    reconciliation()
    (incident,) = post.incidents()
    assert (incident.status, incident.silenced) == (Status.FIRING, "silenced")
    alertmanager.unsilence("A", silence)
    reconciliation()
    assert _states(post) == [("resolved", "reconciliation"), ("firing", None)]


def test_a_later_occurrence_that_goes_to_others_is_none_of_ours(
    post: Post, alertmanager: Alertmanager, reconciliation: Reconciliation
) -> None:
    _again(post, alertmanager)
    with post.store.write() as session:
        session.execute(update(Incident).values(receiver="somebody"))
    reconciliation()
    time.sleep(GRACE)
    reconciliation()
    assert _states(post) == [("resolved", "reconciliation")]


def test_an_earlier_start_is_the_same_alert(
    post: Post, alertmanager: Alertmanager, reconciliation: Reconciliation
) -> None:
    alertmanager.post("A", AGO)
    _receive(post, alertmanager, startsAt=LATER)
    reconciliation()
    assert post.incidents()[0].status == Status.FIRING


def test_silenced_and_told_again(
    post: Post, alertmanager: Alertmanager, reconciliation: Reconciliation
) -> None:
    _fire(post, alertmanager)
    silence = alertmanager.silence("A")
    reconciliation()
    reconciliation()
    (incident,) = post.incidents()
    assert (incident.silenced, _kinds(incident)) == ("silenced", ["silenced"])
    alertmanager.unsilence("A", silence)
    reconciliation()
    (incident,) = post.incidents()
    assert (incident.silenced, _kinds(incident)) == (None, ["silenced", "unsilenced"])
    assert incident.status == Status.FIRING


def test_what_fires_again_after_its_end_was_told_is_reopened(
    post: Post, alertmanager: Alertmanager, reconciliation: Reconciliation
) -> None:
    _fire(post, alertmanager)
    _receive(post, alertmanager, startsAt=AGO, status="resolved", endsAt=LATER)
    reconciliation()
    assert post.incidents()[0].status == Status.RESOLVED, "the grace is not over"
    time.sleep(GRACE)
    silence = alertmanager.silence("A")
    reconciliation()
    assert post.incidents()[0].status == Status.RESOLVED, "it is silenced"
    alertmanager.unsilence("A", silence)
    registry = reconciliation()
    (incident,) = post.incidents()
    assert (incident.status, incident.reopened, incident.resolved_by) == (Status.FIRING, 1, None)
    assert [(row.transition, row.episode) for row in incident.notifications] == [
        ("firing", 0),
        ("resolved", 0),
        ("firing", 1),
    ]
    assert _value(registry, "reopened_total") == 1


def test_what_was_resolved_by_hand_stays_resolved(
    post: Post, alertmanager: Alertmanager, reconciliation: Reconciliation
) -> None:
    _fire(post, alertmanager)
    _receive(post, alertmanager, startsAt=AGO, status="resolved", endsAt=LATER)
    with post.store.write() as session:
        session.execute(update(Incident).values(resolved_by="anna"))
    time.sleep(GRACE)
    reconciliation()
    assert post.incidents()[0].status == Status.RESOLVED


def test_a_clock_that_was_set_back(
    post: Post, alertmanager: Alertmanager, reconciliation: Reconciliation
) -> None:
    _fire(post, alertmanager)
    _end(alertmanager)
    with post.store.write() as session:
        session.execute(update(Incident).values(missing_since=datetime.now(UTC) + timedelta(hours=5)))
    reconciliation()
    time.sleep(GRACE)
    reconciliation()
    assert post.incidents()[0].status == Status.RESOLVED


def test_only_one_reconciles_at_a_time(
    post: Post, alertmanager: Alertmanager, reconciliation: Reconciliation
) -> None:
    with post.store.reconciler() as alone:
        assert alone
        if post.store.dialect == "postgresql":
            registry = reconciliation()
            assert (
                _value(registry, "last_success_timestamp_seconds"),
                _value(registry, "failures_total"),
            ) == (0, 0)
    assert _value(reconciliation(), "last_success_timestamp_seconds")


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (302, b"[]", "answered 302"),
        (500, b"[]", "answered 500"),
        (200, b"<html>", "did not answer as Alertmanager's API v2 does"),
        (200, b"null", "did not answer as Alertmanager's API v2 does"),
        (200, b'[{"fingerprint": "x", "startsAt": "soon", "status": {}}]', "did not answer as"),
        (200, b"[" + b" " * 3000 + b"]", "answered more than 2000 bytes"),
        (200, b"slow", "took more than"),
    ],
)
def test_a_useless_answer_changes_nothing(  # noqa: PLR0913, PLR0917 - fixtures
    post: Post,
    alertmanager: Alertmanager,
    reconciliation: Reconciliation,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: int,
    body: bytes,
    reason: str,
) -> None:
    monkeypatch.setattr(reconcile, "_MAX_BYTES", 2000)
    monkeypatch.setattr(reconcile, "_DEADLINE", 0.3)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Location", alertmanager.url)
            self.end_headers()
            for byte in body if body == b"slow" else [body]:
                self.wfile.write(bytes([byte]) if isinstance(byte, int) else byte)
                time.sleep(0.2 if body == b"slow" else 0)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base's
            pass

    _fire(post, alertmanager)
    _end(alertmanager)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        began = time.monotonic()
        registry = reconciliation(f"http://127.0.0.1:{server.server_port}")
        assert time.monotonic() - began < 0.7
        server.shutdown()
    assert _value(registry, "failures_total") == 1
    assert reason in caplog.records[-1].reason  # type: ignore[attr-defined]
    assert post.incidents()[0].missing_since is None
