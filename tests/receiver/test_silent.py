"""Alerts that are recorded but announced to nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fleetwatch.receiver.app import create_app
from fleetwatch.receiver.settings import AlertReceiverSettings


def test_a_test_alert_is_recorded_but_announced_on_no_channel(tmp_path: Path) -> None:
    settings = AlertReceiverSettings.model_validate(
        {
            "sender": "a@example.org",
            "recipients": ["b@example.org"],
            "database_url": f"sqlite:///{tmp_path}/alerts.db",
        }
    )
    client = create_app(settings).test_client()

    def report(receiver: str, status: str, name: str) -> None:
        alert = {"labels": {"alertname": name}, "status": status, "startsAt": "2026-01-02T03:04:05Z"}
        assert client.post("/alerts", json={"receiver": receiver, "alerts": [alert]}).status_code == 200

    def incident(name: str) -> dict[str, Any]:
        (found,) = client.get(f"/api/v1/incidents?label=alertname={name}").get_json()["incidents"]
        return dict(found)

    for receiver, name in (("fleetwatch-verify", "Silent"), ("fleetwatch", "Loud")):
        report(receiver, "firing", name)
        report(receiver, "resolved", name)

    assert incident("Silent")["status"] == "resolved"
    assert incident("Silent")["notifications"] == []
    assert len(incident("Loud")["notifications"]) == 2
