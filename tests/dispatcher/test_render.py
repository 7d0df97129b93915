from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from fleetwatch.dispatcher.channels import Message
from fleetwatch.dispatcher.render import MAX_SUBJECT, Renderer, clickable, one_line
from fleetwatch.store import Incident, Notification


def _render(transition: str = "firing", links: dict[str, str] | None = None, **fields: Any) -> Message:
    values = {
        "fingerprint": "f1",
        "starts_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "received_at": datetime(2026, 1, 2, 3, 4, 20, tzinfo=UTC),
        "ends_at": None,
        "status": transition,
        "severity": "warning",
        "summary": "Disk full",
        "labels": {"alertname": "DiskFull", "host": "node1"},
        "annotations": {},
        "generator_url": "",
        "external_url": "",
    }
    incident = Incident(**values | fields)
    return Renderer(links or {}).message(Notification(incident=incident, transition=transition))


def test_a_plain_mail() -> None:
    message = _render(annotations={"description": "Two\nlines", "value": "97 %"})
    assert message.subject == "[WARNING] Disk full"
    assert message.text == (
        "WARNING: Disk full\n"
        "\n"
        "Two\nlines\n"
        "\n"
        "Began:    Friday, 2 January 2026, 03:04:05 UTC (2026-01-02T03:04:05Z)\n"
        "Received: Friday, 2 January 2026, 03:04:20 UTC (2026-01-02T03:04:20Z)\n"
        "\n"
        "Labels\n"
        "  alertname = DiskFull\n"
        "  host = node1\n"
        "\n"
        "Annotations\n"
        "  value = 97 %\n"
    )
    assert 'datetime="2026-01-02T03:04:05Z"' in message.html
    assert "Links" not in message.text


def test_a_resolved_mail_says_how_long_it_lasted() -> None:
    message = _render("resolved", ends_at=datetime(2026, 1, 2, 4, 9, 6, tzinfo=UTC))
    assert message.subject == "[RESOLVED] Disk full"
    assert "Lasted:   1 h 5 min\n" in message.text
    assert "1 h 5 min" in message.html


def test_no_severity_is_an_alert() -> None:
    assert _render(severity="none").subject == "[ALERT] Disk full"


def test_a_long_summary_is_cut_in_the_subject_only() -> None:
    message = _render(summary="x" * 5000)
    assert len(message.subject) == MAX_SUBJECT
    assert "x" * 5000 in message.text


def test_the_key_is_the_same_each_time_and_differs_by_transition() -> None:
    assert _render().key == _render().key
    assert _render().key != _render("resolved").key


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.org/a?b=c#d", True),
        ("HTTP://example.org", True),
        ("javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("//example.org", False),
        ("http:example.org", False),
        ("https://", False),
        ("https://exa mple.org", False),
        (" https://example.org", False),
        ("java\nscript:alert(1)", False),
        ("https://[broken", False),
        ("", False),
    ],
)
def test_clickable(url: str, expected: bool) -> None:
    assert clickable(url) is expected


def test_one_line() -> None:
    assert one_line(" a\r\n\tb\x00\u2028c\u202ed\u200b ") == "a b c d"
