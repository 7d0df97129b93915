from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from fleetwatch.alerting.routes import Planned, QuietHours, Route, Router

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


def _router(*routes: dict[str, Any]) -> Router:
    return Router(
        [Route.model_validate({"name": f"r{n}", **route}) for n, route in enumerate(routes)], ["all"]
    )


def _told(router: Router, receiver: str = "fleetwatch", **labels: str) -> list[tuple[str, str]]:
    planned = router.firing(receiver, labels, labels.get("severity", "none"), NOW)
    return [(each.route, each.channel) for each in planned]


def test_without_routes_every_channel_is_told() -> None:
    assert _told(Router([], ["mail", "sms"])) == [("default", "mail"), ("default", "sms")]


def test_the_first_that_matches_is_taken() -> None:
    router = _router(
        {"receivers": ["noc", "other"], "channels": ["a"]},
        {"matchers": ['severity="critical"', "team=db"], "channels": ["b"]},
        {"channels": []},
        {"channels": ["never"]},
    )
    assert _told(router, "noc", severity="critical", team="db") == [("r0", "a")]
    assert _told(router, severity="critical", team="db") == [("r1", "b")]
    assert _told(router, severity="critical") == []


def test_routes_that_no_alert_takes_tell_nobody() -> None:
    assert _told(_router({"matchers": ["team=db"], "channels": ["a"]})) == []


def test_continue_goes_on_and_a_channel_is_told_once() -> None:
    router = _router(
        {"channels": ["a", "b"], "continue": True}, {"channels": ["b", "c"]}, {"channels": ["never"]}
    )
    assert _told(router) == [("r0", "a"), ("r0", "b"), ("r1", "c")]


def test_escalations_are_planned_for_later() -> None:
    steps = [{"after": 600, "channels": ["sms"]}, {"after": 3600, "channels": ["sms", "boss"]}]
    planned = _router({"channels": ["mail"], "escalations": steps}).firing("x", {}, "critical", NOW)
    assert planned == [
        Planned("firing", "mail", "r0", NOW),
        Planned("escalation", "sms", "r0", NOW + timedelta(minutes=10), 0),
        Planned("escalation", "sms", "r0", NOW + timedelta(hours=1), 1),
        Planned("escalation", "boss", "r0", NOW + timedelta(hours=1), 1),
    ]


def test_an_end_without_a_beginning() -> None:
    router = _router({"channels": ["a"], "continue": True}, {"channels": ["b"], "send_resolved": False})
    assert [each.channel for each in router.resolved("x", {}, "critical", NOW)] == ["a"]


@pytest.mark.parametrize(
    ("quiet", "now", "until"),
    [
        # Over midnight, in summer time: 22:00 to 07:00 in Berlin is 20:00 to 05:00 UTC.
        ({}, "2026-06-01T19:59", None),
        ({}, "2026-06-01T20:00", "2026-06-02T05:00"),
        ({}, "2026-06-02T04:59", "2026-06-02T05:00"),
        ({}, "2026-06-02T05:00", None),
        ({"start": "12:00", "end": "13:00"}, "2026-06-01T10:30", "2026-06-01T11:00"),
        ({"start": "12:00", "end": "13:00"}, "2026-06-01T11:00", None),
        # Monday's quiet time ends on Tuesday, and Tuesday has none of its own.
        ({"days": ["monday"]}, "2026-06-02T04:00", "2026-06-02T05:00"),
        ({"days": ["monday"]}, "2026-06-02T20:30", None),
        # The night of the change to winter time is an hour longer.
        ({}, "2026-10-25T05:30", "2026-10-25T06:00"),
        # and that to summer time an hour shorter.
        ({}, "2026-03-29T04:30", "2026-03-29T05:00"),
        ({}, "2026-03-29T05:00", None),
    ],
)
def test_quiet_hours(quiet: dict[str, Any], now: str, until: str | None) -> None:
    hours = QuietHours.model_validate({"start": "22:00", "end": "07:00", "timezone": "Europe/Berlin"} | quiet)
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
    expected = datetime.fromisoformat(until).replace(tzinfo=UTC) if until else moment
    assert hours.over(moment) == expected


def test_urgent_messages_do_not_wait() -> None:
    quiet = {"start": "00:00", "end": "23:59", "except_severities": ["critical", "page"]}
    router = _router({"channels": ["a"], "quiet_hours": quiet})
    for severity, waits in (("critical", False), ("page", False), ("warning", True), ("none", True)):
        (planned,) = router.firing("x", {}, severity, NOW)
        assert (planned.due_at > NOW) is waits


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        ({"channels": ["a"], "matchers": ["severity"]}, "is not a matcher"),
        ({"channels": ["a"], "quiet_hours": {"start": "7:00", "end": "08:00"}}, "pattern"),
        ({"channels": ["a"], "quiet_hours": {"start": "07:00", "end": "07:00"}}, "the same time"),
        (
            {"channels": ["a"], "quiet_hours": {"start": "07:00", "end": "08:00", "timezone": "Mars"}},
            "not a time zone",
        ),
        ({"channels": ["a"], "reminder_interval": 5}, "greater than or equal to 60"),
        ({"channels": ["a"], "escalations": [{"after": 60, "channels": []}]}, "at least 1 item"),
        ({"channels": ["a"], "escalation": []}, "Extra inputs"),
    ],
)
def test_wrong_routes(route: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Route.model_validate({"name": "r", **route})
