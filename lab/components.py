"""What the lab serves on 127.0.0.1, and how to tell whether it is alive."""

from __future__ import annotations

import json
import smtplib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab.console import LabError

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the lab is here: no proxy

TIMEOUT = 5
"""Seconds an endpoint has to answer."""


class NotYetError(Exception):
    """Why something is not ready, in a few words."""


def fetch(url: str) -> str:
    """Return what a local URL answers.

    Raises:
        NotYetError: it does not, or not with success.

    """
    try:
        with _opener.open(url, timeout=TIMEOUT) as response:
            body: bytes = response.read()
            return body.decode()
    except urllib.error.HTTPError as error:
        raise NotYetError(
            f"answers {error.code}: {error.read(200).decode(errors='replace').strip()}"
        ) from error
    except (OSError, ValueError) as error:
        raise NotYetError("does not answer") from error


def _ready(path: str) -> Callable[[str], str]:
    def check(url: str) -> str:
        fetch(url + path)
        return "ready"

    return check


def _smtp(url: str) -> str:
    address = urllib.parse.urlsplit(url)
    try:
        with smtplib.SMTP(str(address.hostname), int(address.port or 0), timeout=TIMEOUT):
            return "ready"
    except OSError as error:
        raise NotYetError("does not answer") from error


def targets(url: str, hosts: set[str]) -> str:
    """Prometheus scrapes these hosts and no others, and every target is up."""
    active = [
        (target["labels"]["job"], target["labels"].get("host", ""), target["health"])
        for target in _query(url, "/api/v1/targets?state=active")["activeTargets"]
    ]
    known = {host for job, host, _ in active if job == "node_exporter"}
    for difference, what in ((hosts - known, "not yet"), (known - hosts, "still")):
        if difference:
            raise NotYetError(f"{what} a target: {', '.join(sorted(difference))}")
    down = sorted({f"{job} of {host}" for job, host, health in active if health != "up"})
    if down:
        raise NotYetError(f"targets not up: {', '.join(down)}")
    return f"all {len(active)} are up"


def simulated(url: str) -> str:
    """Prometheus has the simulated hosts' metrics."""
    found = _query(url, "/api/v1/query?" + urllib.parse.urlencode({"query": "count(custom_cpu_usage)"}))
    if not found["result"]:
        raise NotYetError("no simulated metrics in Prometheus yet")
    return f"{found['result'][0]['value'][1]} simulated hosts"


def _query(url: str, path: str) -> Any:
    return json.loads(fetch(url + path))["data"]


@dataclass(frozen=True)
class Endpoint:
    """A port that the lab publishes.

    Attributes:
        title: what the user calls it.
        group: inventory group whose host serves it.
        variable: inventory variable with its port.
        default: that port, unless the inventory says otherwise.
        check: looks at it, given its URL, and returns its state or raises NotYetError.
        scheme: of its URL.

    """

    title: str
    group: str
    variable: str
    default: int
    check: Callable[[str], str]
    scheme: str = "http"

    def port(self, variables: dict[str, Any]) -> int:
        """Return the port on a host with these inventory variables.

        Raises:
            LabError: the inventory's value is no number.

        """
        value = variables.get(self.variable, self.default)
        try:
            return int(value)
        except (TypeError, ValueError) as error:
            raise LabError(f"inventory/lab: {self.variable} is {value!r}: it must be a number") from error


ENDPOINTS = (
    Endpoint("Prometheus", "prometheus", "prometheus_port", 9090, _ready("/-/ready")),
    Endpoint("Alertmanager", "alertmanager", "alertmanager_port", 9093, _ready("/-/ready")),
    Endpoint("Pushgateway", "pushgateway", "pushgateway_port", 9091, _ready("/-/ready")),
    Endpoint("Grafana", "grafana", "grafana_port", 3000, _ready("/api/health")),
    Endpoint("alert receiver", "alert_receiver", "alert_receiver_port", 5001, _ready("/readyz")),
    Endpoint("alert dispatcher", "alert_receiver", "alert_dispatcher_port", 5002, _ready("/readyz")),
    Endpoint("metrics simulator", "metrics_simulator", "metrics_simulator_port", 9101, _ready("/readyz")),
    Endpoint("metrics collector", "metrics_collector", "metrics_collector_port", 8080, _ready("/readyz")),
    Endpoint("usage API", "metrics_api", "metrics_api_port", 5000, _ready("/readyz")),
    Endpoint("transactions", "transactions", "transactions_port", 8000, _ready("/health")),
    Endpoint("mailbox", "lab_mailbox", "lab_mailbox_port", 8025, _ready("/readyz")),
    Endpoint("mailbox, SMTP", "lab_mailbox", "lab_mailbox_smtp_port", 1025, _smtp, scheme="smtp"),
)
