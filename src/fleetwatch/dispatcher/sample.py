"""Made-up notifications: what templates are tried with, and what a preview shows."""

from __future__ import annotations

from datetime import datetime, timedelta

from fleetwatch.store import Incident, Notification, Status
from fleetwatch.store.models import Transition

_ALERTS = (
    # name, severity, what happened, description, value
    ("HostDown", "critical", "is down", "Prometheus has had no answer from it for 2 minutes.", ""),
    ("HighCPUUsage", "warning", "uses 93 % of its CPU", "It has been above 85 % for 10 minutes.", "93 %"),
    ("LowDiskSpace", "warning", "has 4 % of / left", "At this rate it is full in 3 hours.", "4 %"),
    ("PushgatewayPushStale", "info", "has not pushed for a day", "The nightly job may not have run.", ""),
)
_MANY = len(_ALERTS)


def sample(transition: str, count: int, now: datetime) -> list[Notification]:
    """Return notifications of ``count`` different incidents; nothing of them is in a database."""
    return [_notification(transition, number, now) for number in range(count)]


def _notification(transition: str, number: int, now: datetime) -> Notification:
    # One alone is the one that says most; of many, most are of one kind, as in real storms.
    name, severity, what, description, value = _ALERTS[
        1 if number == 0 else number % 40 % _MANY if number % 7 == 0 else 0
    ]
    host = f"web-{number + 1:02}"
    resolved = transition == Transition.RESOLVED
    starts_at = now.replace(microsecond=0) - timedelta(minutes=32, seconds=7 * number)
    labels = {
        "alertname": name,
        "severity": severity,
        "host": host,
        "instance": f"{host}:9100",
        "job": "node_exporter",
    }
    annotations = {
        "summary": f"{host} {what}",
        "description": description,
        "runbook_url": f"https://runbooks.example.org/{name}",
        "dashboard_url": f"https://grafana.example.org/d/node?var-host={host}",
    }
    incident = Incident(
        id=4711 + number,
        fingerprint=f"{number:016x}",
        starts_at=starts_at,
        status=Status.RESOLVED if resolved else Status.FIRING,
        severity=severity,
        summary=annotations["summary"],
        labels=labels,
        annotations=annotations | ({"value": value} if value else {}),
        generator_url="https://prometheus.example.org/graph?g0.expr=up+%3D%3D+0&g0.tab=1",
        external_url="https://alertmanager.example.org",
        receiver="fleetwatch",
        received_at=starts_at + timedelta(seconds=15),
        ends_at=now - timedelta(seconds=20) if resolved else None,
    )
    return Notification(
        incident=incident,
        transition=transition,
        channel="mail",
        route="default",
        sequence=1 if transition == Transition.REMINDER else 0,
        episode=0,
    )
