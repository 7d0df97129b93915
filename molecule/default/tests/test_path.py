"""The whole path: a metric crosses its threshold, a mail arrives; it falls back, another one arrives."""

from __future__ import annotations

from support import SETTINGS, TOKENS, Fleet, wait_for

from lab.alert import Plan, call, follow


def test_incident_reaches_the_mailbox_and_so_does_its_end(fleet: Fleet) -> None:
    host = "sim-web-01"
    stations = follow(fleet.urls, TOKENS, Plan(host=host, patience=4))
    names = [station.name for station in stations]
    assert names.index("receiver committed") < names.index("message in the mailbox")
    assert names[-1] == "resolved message in the mailbox"
    fired = [mail for mail in fleet.mails("[CRITICAL]") if host in mail["subject"]]
    resolved = [mail for mail in fleet.mails("[RESOLVED]") if host in mail["subject"]]
    assert (len(fired), len(resolved)) == (1, 1)
    message = call("GET", f"{fleet.urls.mailbox}/api/messages/{fired[0]['id']}")
    assert "HighCPUUsage" in message["text"]
    assert "HighCPUUsage" in message["html"]
    assert message["recipients"] == SETTINGS["alert_receiver_recipients"]


def test_watchdog_always_fires_and_mails_nobody(fleet: Fleet) -> None:
    assert fleet.query('ALERTS{alertname="Watchdog",alertstate="firing"}')
    assert fleet.mails("Watchdog") == []


def test_simulator_can_serve_instead_of_push(fleet: Fleet) -> None:
    series = 'custom_cpu_usage{host="sim-web-01"}'
    assert fleet.play_with({"metrics_simulator_mode": "serve"}, "--limit", "simulator").code == 0
    wait_for(
        lambda: [sample["metric"]["job"] for sample in fleet.query(series)] == ["metrics_simulator"], 400
    )
    assert fleet.play("--limit", "simulator").code == 0
    wait_for(lambda: fleet.query('push_time_seconds{host="sim-web-01"}'))
