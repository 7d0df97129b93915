"""The usage API on a real host, in front of the fleet's own Prometheus."""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from support import SETTINGS, Fleet, wait_for

from lab.alert import ApiError, call

HOST, PORT = "monitor", 5000
UNIT = "metrics_api.service"
TOKEN = SETTINGS["alert_receiver_webhook_token"]


def ask(fleet: Fleet, path: str, **query: str) -> Any:
    return call("GET", f"{fleet.url(HOST, PORT)}/{path}?{urlencode(query)}")


@pytest.mark.parametrize("resource", ["cpu", "mem", "disk"])
def test_every_watched_host_has_an_average(fleet: Fleet, resource: str) -> None:
    watched = {series["metric"]["host"] for series in fleet.query('up{job="node_exporter"}')}

    def average() -> Any:
        found = ask(fleet, "avg_usage", resource=resource, range="5m")
        return found if watched <= {host["host"] for host in found["hosts"]} else None

    found = wait_for(average, 120)
    sources = {host["host"]: host["sources"] for host in found["hosts"]}
    assert "metrics_collector" in sources["receiver"], "it runs there, and is preferred"
    assert sources["simulator"] == ["node_exporter"]
    assert 0 <= found[f"average_{resource}_usage"] <= 100
    total = sum(host["average"] * host["points"] for host in found["hosts"])
    assert found[f"average_{resource}_usage"] == pytest.approx(total / found["points"], abs=0.01)


def test_points_agree_with_prometheus(fleet: Fleet) -> None:
    found = wait_for(
        lambda: ask(fleet, "metrics_usage", resource="mem", range="1m", host="receiver", step="5")
    )
    point = found["mem_usage"][0]  # not the newest: a scrape may still be under way
    at = f"gauge_mem_usage{{host='receiver'}} @ {_seconds(point['time'])}"
    [series] = fleet.query(at)
    assert point["value"] == pytest.approx(float(series["value"][1]), abs=0.001)


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def test_groups_are_those_of_the_inventory(fleet: Fleet) -> None:
    found = wait_for(lambda: ask(fleet, "avg_usage", resource="cpu", range="5m", group="alert_receiver"))
    assert [host["host"] for host in found["hosts"]] == ["receiver"]
    with pytest.raises(ApiError, match="no group"):
        ask(fleet, "avg_usage", resource="cpu", range="5m", group="nobody")


def test_an_alert_passes_through_to_the_mailbox(fleet: Fleet) -> None:
    name = f"Test{uuid.uuid4().hex[:12]}"
    alert = {"status": "firing", "labels": {"alertname": name, "severity": "critical", "host": "node1"}}
    with pytest.raises(ApiError):
        call("POST", f"{fleet.url(HOST, PORT)}/alert", {"alerts": [alert]}, "not-the-token")
    call("POST", f"{fleet.url(HOST, PORT)}/alert", {"alerts": [alert]}, TOKEN)
    wait_for(lambda: fleet.mails(name))
    call("POST", f"{fleet.url(HOST, PORT)}/alert", {"alerts": [alert | {"status": "resolved"}]}, TOKEN)


def test_the_page_is_served(fleet: Fleet) -> None:
    page = fleet.host(HOST).check_output(f"curl --silent --fail '{fleet.url(HOST, PORT)}/?range=15m'")
    assert "CPU usage of" in page
    assert "<svg" in page


def test_prometheus_away_is_told_and_over_when_it_is_back(fleet: Fleet) -> None:
    host = fleet.host(HOST)
    host.check_output("systemctl stop prometheus.service")
    try:
        query = urlencode({"resource": "cpu", "range": "5m"})
        answer = host.run(
            f"curl --silent --write-out ' %{{http_code}}' '{fleet.url(HOST, PORT)}/avg_usage?{query}'"
        )
        body, _, status = answer.stdout.rpartition(" ")
        assert status == "502"
        assert "Prometheus does not answer" in json.loads(body)["error"]
    finally:
        host.check_output("systemctl start prometheus.service")
    wait_for(lambda: ask(fleet, "avg_usage", resource="cpu", range="5m"), 120)
    assert "Traceback" not in host.check_output(f"journalctl --unit={UNIT} --no-pager --output=cat")
