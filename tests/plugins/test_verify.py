"""What playbooks/verify.yml makes of units, APIs, clocks and the inventory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.fleetwatch.monitoring.plugins.action.verify_host import plan_of
from ansible_collections.fleetwatch.monitoring.plugins.modules import verify_host
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.fleet import FleetError
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.verify import (
    FAILED,
    HOST,
    OK,
    Line,
    Offset,
    clock_lines,
    merge,
    table,
)

from .conftest import INVENTORY, ROOT, MakeFleet, write

Answer = Callable[[str, str, bytes], Any]


@contextmanager
def serve(answer: Answer) -> Iterator[str]:
    """Serve what ``answer`` returns for method, path and body as JSON; None is a 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            content = answer(self.command, self.path, body)
            self.send_response(404 if content is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        do_POST = do_GET  # noqa: N815 - the base class's name

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


# Units

RUNNING = {
    "Id": "a.service",
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "UnitFileState": "enabled",
    "NRestarts": "0",
    "ActiveEnterTimestampMonotonic": "100000000",
}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, ""),
        ({"NRestarts": "1"}, ""),  # came back from a crash, as it should
        ({"NRestarts": "9", "ActiveEnterTimestampMonotonic": "500000000"}, "keeps crashing: 9 restarts"),
        ({"NRestarts": "9"}, ""),  # long ago
        ({"ActiveState": "activating", "SubState": "auto-restart", "NRestarts": "3"}, "after 3 restarts"),
        ({"ActiveState": "failed", "SubState": "failed"}, "journalctl -u a.service"),
        ({"LoadState": "not-found", "ActiveState": "inactive"}, "not installed"),
        ({"LoadState": "masked", "ActiveState": "inactive"}, "masked"),
        ({"UnitFileState": "disabled"}, "would not start with the host"),
    ],
)
def test_a_unit_must_run_and_stay_up(change: dict[str, str], problem: str) -> None:
    found = verify_host.unit_problem(RUNNING | change, uptime=510)
    assert problem in found if problem else not found


def test_units_are_told_apart_in_the_answer_of_systemctl() -> None:
    other = RUNNING | {"Id": "b.service", "ActiveState": "failed"}
    text = "\n\n".join("\n".join(f"{k}={v}" for k, v in state.items()) for state in (other, RUNNING))
    units = [{"component": "c", "unit": name} for name in ("a.service", "b.service", "c.service")]
    rows = verify_host.unit_rows(units, lambda _: text, 500)
    assert [row["state"] for row in rows] == [OK, FAILED, FAILED]


# Prometheus


def target(host: str, address: str = "", *, age: float = 0, **other: str) -> dict[str, Any]:
    """Return a target as Prometheus shows it; ``age``: seconds since it was scraped."""
    scraped = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - age))
    return {
        "discoveredLabels": {"__address__": address or f"{host}:9100", "host": host},
        "scrapePool": "node",
        "health": "up",
        "lastError": "",
        "lastScrape": f"{scraped}.123456789Z",
        **other,
    }


def judge(targets: list[dict[str, Any]], own: set[str] | None = None) -> dict[str, tuple[str, str]]:
    expected = {"node": [["a:9100", "a"], ["b:9100", "b"]]}
    findings = verify_host.judge_targets(targets, expected, own or set())
    return {job: (" ".join(problems), detail) for job, problems, detail in findings}


def test_the_targets_must_be_those_of_the_inventory() -> None:
    assert judge([target("a"), target("b")]) == {"node": ("", "2 of 2 up")}

    problem, detail = judge([target("a"), target("z")])["node"]
    assert "Missing in Prometheus: b at b:9100." in problem
    assert "Extra, not in the inventory: z at z:9100." in problem
    assert detail == "1 of 2 up"

    # The host has moved: its name alone is not enough.
    assert "Missing" in judge([target("a"), target("b", "b:9999")])["node"][0]


def test_probes_share_the_address_of_their_prober() -> None:
    def probe(host: str, name: str, health: str = "up") -> dict[str, Any]:
        labels = {"__address__": "m:9115", "host": host, "name": name, "prober": "m"}
        return target(host, health=health) | {"discoveredLabels": labels, "scrapePool": "blackbox"}

    expected = {"blackbox": [[f"m:9115 (probe {name})", host] for name in ("ping", "ssh") for host in "ab"]}
    probes = [probe("a", "ping"), probe("b", "ping"), probe("a", "ssh"), probe("b", "ssh", "down")]
    ((_, (problem,), detail),) = verify_host.judge_targets(probes, expected, set())
    assert "Down: b at m:9115 (probe ssh)" in problem
    assert detail == "3 of 4 up"
    ((_, (problem,), _),) = verify_host.judge_targets(probes[:3], expected, set())
    assert "Missing in Prometheus: b at m:9115 (probe ssh)" in problem


def test_a_target_that_is_down_is_named_with_the_reason() -> None:
    error = 'Get "http://b:9100/metrics": dial tcp 10.0.0.5:9100: connect: connection refused'
    problem, detail = judge([target("a"), target("b", health="down", lastError=error)])["node"]
    assert "Down: b at b:9100 (dial tcp 10.0.0.5:9100: connect: connection refused)." in problem
    assert detail == "1 of 2 up"


def test_a_job_that_the_inventory_does_not_give_is_extra_unless_it_is_the_sites_own() -> None:
    targets = [target("a"), target("b"), target("", "router:161", scrapePool="snmp", health="down")]
    assert "Extra" in judge(targets)["snmp"][0]
    problem, detail = judge(targets, own={"snmp"})["snmp"]
    assert "Extra" not in problem
    assert "Down: router:161" in problem
    assert detail == "0 of 1 up"


def test_a_service_that_was_just_started_gets_a_scrape_to_come_up() -> None:
    answers = [target("a", health="down", age=9), target("a", health="unknown", age=9), target("a")]

    def answer(method: str, path: str, body: bytes) -> Any:
        return {"data": {"activeTargets": [answers.pop(0) if len(answers) > 1 else answers[0]]}}

    with serve(answer) as url:
        findings = verify_host.target_findings(url, {"node": [["a:9100", "a"]]}, set(), timeout=10)
    assert findings == [("node", [], "1 of 1 up")]


def test_a_target_that_is_down_by_a_new_scrape_is_not_waited_for() -> None:
    def answer(method: str, path: str, body: bytes) -> Any:
        return {"data": {"activeTargets": [target("a", health="down", age=-5, lastError="refused")]}}

    began = time.monotonic()
    with serve(answer) as url:
        ((_, problems, _),) = verify_host.target_findings(url, {"node": [["a:9100", "a"]]}, set(), timeout=60)
    assert "refused" in problems[0]
    assert time.monotonic() - began < 5


def test_the_rules_must_be_those_of_the_components_and_healthy() -> None:
    expected = {"node.yml": {"node": ["Down", "Full"]}, "shop.yml": {"shop": ["Closed"]}}

    def group(file: str, name: str, *rules: str, **more: str) -> dict[str, Any]:
        entries = [{"name": rule, "health": "ok", **more} for rule in rules]
        return {"file": f"/etc/prometheus/rules/{file}", "name": name, "rules": entries}

    good = [group("node.yml", "node", "Down", "Full"), group("shop.yml", "shop", "Closed")]
    problems, detail = verify_host.judge_rules(good, expected)
    assert not any(problems)
    assert detail == "3 rules in 2 groups"

    bad = [
        group("node.yml", "node", "Down"),
        group("old.yml", "old", "Old", health="err", lastError="many-to-many"),
    ]
    text = " ".join(verify_host.judge_rules(bad, expected)[0])
    assert "Not loaded: shop.yml: shop." in text
    assert "not expected: old.yml: old." in text
    assert "with other rules: node.yml: node." in text
    assert "Old (many-to-many)" in text


def test_rules_that_were_just_loaded_get_time_for_their_first_evaluation() -> None:
    health = ["unknown", "ok"]

    def answer(method: str, path: str, body: bytes) -> Any:
        rule = {"name": "Down", "health": health.pop(0) if len(health) > 1 else health[0]}
        return {"data": {"groups": [{"file": "/rules/node.yml", "name": "node", "rules": [rule]}]}}

    with serve(answer) as url:
        row = verify_host.rules_row(url, {"node.yml": {"node": ["Down"]}}, timeout=10)
    assert row["state"] == OK


def test_prometheus_must_use_every_alertmanager_and_reach_it() -> None:
    def answer(method: str, path: str, body: bytes) -> Any:
        return {"data": {"activeAlertmanagers": [{"url": "http://127.0.0.1:1/api/v2/alerts"}]}}

    with serve(answer) as url:
        row = verify_host.alertmanagers_row(url, {"m1": "http://127.0.0.1:1", "m2": url})
    assert row["state"] == FAILED
    assert "does not use: m2." in row["detail"]
    assert "http://127.0.0.1:1/-/ready does not answer" in row["detail"]


# Alertmanager


class Alertmanager:
    """Alertmanager and a receiver in one: what is posted arrives, unless it is silenced."""

    def __init__(self, silenced_by: list[str] | None = None) -> None:
        self.silenced_by = silenced_by or []
        self.posted: list[dict[str, Any]] = []

    def __call__(self, method: str, path: str, body: bytes) -> Any:
        if method == "POST":
            self.posted += json.loads(body)
            return {}
        if path.startswith("/api/v1/incidents"):
            wanted = {f"verify_id%3D{alert['labels']['verify_id']}" for alert in self.posted}
            found = any(label in path for label in wanted) and not self.silenced_by
            return {"incidents": [{}] if found else []}
        if path.startswith("/api/v2/alerts"):
            status = {"silencedBy": self.silenced_by, "inhibitedBy": []}
            return [{"status": status, "receivers": [{"name": "fleetwatch-verify"}]}]
        return None


def test_the_test_alert_must_reach_each_receiver_and_is_ended() -> None:
    alertmanager = Alertmanager()
    with serve(alertmanager) as url:
        plan = {
            "url": url,
            "members": 1,
            "watchdog": False,
            "verify_id": "x1",
            "receivers": {"r1": url, "r2": url},
        }
        rows = list(verify_host.alertmanager_rows(plan, 5, {"r1": "secret", "r2": ""}, send=True))
    assert [(row["check"], row["state"]) for row in rows] == [
        ("test alert to r1", OK),
        ("test alert to r2", OK),
    ]
    first, last = alertmanager.posted
    assert first["labels"] == {"alertname": "FleetwatchVerify", "severity": "info", "verify_id": "x1"}
    assert first["labels"] == last["labels"]
    lasted = datetime.fromisoformat(last["endsAt"]) - datetime.fromisoformat(last["startsAt"])
    assert timedelta(0) < lasted < timedelta(seconds=0.1), "an end in Alertmanager's future is ignored"


def test_a_test_alert_that_does_not_arrive_fails_with_the_reason() -> None:
    with serve(Alertmanager(silenced_by=["s1"])) as url:
        (row,) = verify_host.alert_rows(url, {"r1": (url, "")}, "x1", limit=0.3)
    assert row["state"] == FAILED
    assert "A silence holds it back: s1." in row["detail"]


def test_a_receiver_that_nobody_may_read_fails_with_the_cure() -> None:
    alertmanager = Alertmanager()
    with serve(alertmanager) as url:
        plan = {"url": url, "members": 1, "watchdog": False, "verify_id": "x1", "receivers": {"r1": url}}
        (row,) = verify_host.alertmanager_rows(plan, 5, {}, send=True)
    assert (row["check"], row["state"]) == ("test alert to r1", FAILED)
    assert "alert_receiver_users" in row["detail"]
    assert not alertmanager.posted


def test_the_token_is_shown_to_the_receiver_only_and_never_told() -> None:
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_response(401)
            self.end_headers()
            self.wfile.write(b"who are you?")

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    with serve(Alertmanager()) as alertmanager, ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        receiver = f"http://127.0.0.1:{server.server_port}"
        (row,) = verify_host.alert_rows(alertmanager, {"r1": (receiver, "s3cret")}, "x1", limit=0.3)
        server.shutdown()
    assert set(seen) == {"Bearer s3cret"}
    assert "answers 401: who are you?" in row["detail"]
    assert "s3cret" not in row["detail"]


# Alert receiver

TEST_CHANNELS = {"test_channels": ["fleetwatch-receiver", "test-channels", "--json"]}


def channels(out: str, err: str = "") -> list[tuple[str, str, str]]:
    def run(command: list[str]) -> tuple[int, str, str]:
        assert command == TEST_CHANNELS["test_channels"]
        return 1, out, err

    rows = verify_host.api_rows("alert_receiver", "channels", verify_host.channel_rows(TEST_CHANNELS, run))
    return [(row["check"], row["state"], row["detail"]) for row in rows]


def test_each_channel_has_a_line_and_a_broken_one_fails() -> None:
    results = [
        {"channel": "mail", "provider_id": "m-1", "error": None},
        {"channel": "hook", "provider_id": None, "error": None},
        {"channel": "team", "provider_id": None, "error": "Slack answers 404"},
    ]
    assert channels(json.dumps({"channels": results})) == [
        ("channel mail", OK, "taken as m-1"),
        ("channel hook", OK, "taken"),
        ("channel team", FAILED, "Slack answers 404"),
    ]


@pytest.mark.parametrize(("out", "err"), [("", "a\nbad settings\n"), ("{", "bad settings"), ("", "")])
def test_a_command_that_does_not_work_is_a_line_with_its_words(out: str, err: str) -> None:
    ((check, state, detail),) = channels(out, err)
    assert (check, state) == ("channels", FAILED)
    assert (err.splitlines() or ["it said nothing"])[-1] in detail


def test_no_test_alert_is_sent_in_check_mode() -> None:
    alertmanager = Alertmanager()
    with serve(alertmanager) as url:
        plan = {"url": url, "members": 1, "watchdog": False, "verify_id": "x1", "receivers": {"r1": url}}
        (row,) = verify_host.alertmanager_rows(plan, 5, {"r1": ""}, send=False)
    assert row["state"] == "skipped"
    assert not alertmanager.posted


@pytest.mark.parametrize(
    ("age", "watchdogs", "state"), [(500, [[{}]], OK), (500, [[]], FAILED), (5, [[], [{}]], OK)]
)
def test_watchdog_must_be_there_soon_after_the_start(age: float, watchdogs: list[Any], state: str) -> None:
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - age))

    def answer(method: str, path: str, body: bytes) -> Any:
        if path.startswith("/api/v2/status"):
            return {"uptime": started}
        return watchdogs.pop(0) if len(watchdogs) > 1 else watchdogs[0]

    with serve(answer) as url:
        assert verify_host.watchdog_row(url)["state"] == state


BEAT = {"labels": {}, "last_heartbeat": "2026-01-02T03:04:05.678Z", "missing": False}


@pytest.mark.parametrize(
    ("age", "answers", "problem"),
    [
        (500, [[BEAT]], ""),
        (500, [[]], "never got the Watchdog"),
        (500, [[BEAT | {"last_heartbeat": None}]], "never got the Watchdog"),
        (500, [[BEAT, BEAT | {"missing": True}]], "came last at 2026-01-02T03:04:05.678Z"),
        (500, [None], "answers 404"),
        (5, [[], [BEAT | {"missing": True}], [BEAT]], ""),
    ],
)
def test_the_heartbeat_must_reach_each_receiver(age: float, answers: list[Any], problem: str) -> None:
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - age))

    def answer(method: str, path: str, body: bytes) -> Any:
        if path.startswith("/api/v2/status"):
            return {"uptime": started}
        assert path == "/api/v1/heartbeats"
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return None if found is None else {"heartbeats": found}

    with serve(answer) as url:
        row = verify_host.heartbeat_row(url, "r1", (url, "s3cret"))
    assert (row["check"], row["state"]) == ("heartbeat at r1", FAILED if problem else OK)
    assert problem in row["detail"]


def test_a_watchdog_is_looked_for_on_its_whole_way() -> None:
    def answer(method: str, path: str, body: bytes) -> Any:
        if path.startswith("/api/v2/status"):
            return {"uptime": "2026-01-02T03:04:05Z"}
        return [{}] if path.startswith("/api/v2/alerts") else {"heartbeats": [BEAT]}

    with serve(answer) as url:
        plan = {
            "url": url,
            "members": 1,
            "watchdog": True,
            "verify_id": "x1",
            "receivers": {"r1": url, "r2": url},
        }
        rows = list(verify_host.alertmanager_rows(plan, 5, {"r1": ""}, send=False))
    assert [(row["check"], row["state"]) for row in rows] == [
        ("test alert", "skipped"),
        ("alerts from Prometheus", OK),
        ("heartbeat at r1", OK),
    ]


@pytest.mark.parametrize(("peers", "state"), [(2, OK), (1, FAILED)])
def test_the_cluster_must_be_complete(peers: int, state: str) -> None:
    assert verify_host.cluster_row({"status": "ready", "peers": [{}] * peers}, 2)["state"] == state


def test_an_api_that_gives_up_is_a_line() -> None:
    with serve(lambda *_: None) as url:
        plan = {"url": url, "targets": {}, "own_jobs": [], "rules": {}, "alertmanagers": {}}
        (row,) = verify_host.api_rows("prometheus", "targets", verify_host.prometheus_rows(plan, 1))
    assert row["state"] == FAILED
    assert "answers 404" in row["detail"]


# Clocks and table


def states(offsets: dict[str, tuple[float, float]]) -> list[tuple[str, str, tuple[str, ...]]]:
    lines = clock_lines({host: Offset(*bounds) for host, bounds in offsets.items()}, tolerance=1)
    return [(line.check, line.state, line.hosts) for line in lines]


def test_clocks_may_differ_by_the_tolerance_and_by_what_the_round_trip_hides() -> None:
    assert states({"a": (-0.1, 0.1), "b": (0.8, 3)}) == [
        ("clock", OK, ("a", "b")),
        ("clocks between hosts", OK, ("a", "b")),
    ]
    assert ("clock", FAILED, ("b",)) in states({"a": (-0.1, 0.1), "b": (1.1, 3)})
    assert ("clock", FAILED, ("b",)) in states({"a": (-0.1, 0.1), "b": (-3, -1.1)})


def test_two_hosts_can_be_out_of_step_though_each_is_near_the_controller() -> None:
    assert ("clocks between hosts", FAILED, ("b", "a")) in states({"a": (-0.9, -0.8), "b": (0.8, 0.9)})


def test_when_only_the_controller_is_wrong_the_cure_says_so() -> None:
    lines = clock_lines({"a": Offset(5, 5.1), "b": Offset(5, 5.1)}, 1)
    assert "mend the controller's" in lines[0].detail
    assert lines[-1].state == OK


def test_equal_lines_are_one_and_failures_keep_their_detail() -> None:
    lines = [Line("node", "ready", OK, (f"h{number}",)) for number in range(9)]
    lines.append(Line("node", "ready", FAILED, ("h9",), "word " * 40))
    lines.append(Line(HOST, "reachable", FAILED, ("h8",), "gone"))
    merged = merge(lines)
    assert [(line.component, line.state, len(line.hosts)) for line in merged] == [
        (HOST, FAILED, 1),
        ("node", OK, 9),
        ("node", FAILED, 1),
    ]
    drawn = table(merged, 80)
    text = "\n".join(line for _, line in drawn)
    assert "9 hosts" in text
    assert text.count("word") == 40
    assert max(len(line) for _, line in drawn) <= 80
    assert drawn[1] == (FAILED, "FAILED  host       reachable  h8")


# Inventory

VERIFY = {
    "node_exporter/monitoring/verify.yml": "- {unit: node_exporter.service, job: node_exporter}\n",
    "prometheus/monitoring/verify.yml": """
        - {unit: prometheus.service, job: prometheus, ready: /-/ready, api: prometheus}
        """,
    "shop/monitoring/verify.yml": "- {unit: shop.service, job: shop_worker, ready: /healthz}\n",
    "alertmanager/defaults/main.yml": "alertmanager_port: 9093\n",
    "alert_receiver/defaults/main.yml": "alert_receiver_port: 5001\n",
    "alertmanager/monitoring/verify.yml": "- {unit: a.service, job: alertmanager, api: alertmanager}\n",
    "alert_receiver/monitoring/verify.yml": "- {unit: r.service, job: alert_receiver, api: alert_receiver}\n",
}


def test_a_host_looks_at_what_its_groups_give_it(make_fleet: MakeFleet, roles: Path) -> None:
    write(roles, VERIFY)
    inventory = (
        INVENTORY + "shop_workers: {hosts: {web1: {shop_worker_port: 81, node_exporter_port: 9200}}}\n"
    )
    fleet = make_fleet(inventory)
    plan = plan_of(fleet, "web1", dict)
    assert plan["units"] == [
        {"component": "node_exporter", "unit": "node_exporter.service"},
        {"component": "shop", "unit": "shop.service"},
    ]
    assert [item["url"] for item in plan["ready"]] == [
        "http://127.0.0.1:9200/metrics",
        "http://127.0.0.1:81/healthz",
    ]
    assert "prometheus" not in plan


def test_each_instance_is_looked_at(make_fleet: MakeFleet, roles: Path) -> None:
    write(
        roles,
        {
            "mill/defaults/main.yml": "mill_port: 8100\n",
            "mill/monitoring/scrape.yml": "- {job: mill, instances: mill_wheels}\n",
            "mill/monitoring/verify.yml": "- {unit: mill@.service, job: mill, ready: /readyz}\n",
        },
    )
    plan = plan_of(make_fleet("mill: {hosts: {a: {mill_wheels: 2}}}\n"), "a", dict)
    assert [unit["unit"] for unit in plan["units"]] == ["mill@1.service", "mill@2.service"]
    assert [(item["job"], item["url"]) for item in plan["ready"]] == [
        ("mill 1", "http://127.0.0.1:8101/readyz"),
        ("mill 2", "http://127.0.0.1:8102/readyz"),
    ]


def test_prometheus_is_to_scrape_what_the_inventory_says(make_fleet: MakeFleet, roles: Path) -> None:
    write(roles, VERIFY)
    fleet = make_fleet(
        INVENTORY + "alertmanager: {hosts: {am: {ansible_host: 10.0.0.9}}}\n",
        host_vars_web2="node_exporter_scrape: false\n",
        group_vars_prometheus="prometheus_extra_rules: {own: {groups: [{name: g, rules: [{record: r}]}]}}\n",
    )
    rules = {"node_exporter.yml": "groups: [{name: n, rules: [{alert: Down, expr: up}]}]"}
    plan = plan_of(fleet, "monitor", lambda: rules)["prometheus"]
    assert plan["targets"]["node_exporter"] == [("10.0.0.1:9100", "monitor"), ("10.0.0.2:9100", "web1")]
    assert plan["rules"] == {"node_exporter.yml": {"n": ["Down"]}, "own.yml": {"g": ["r"]}}
    assert plan["alertmanagers"] == {"am": "http://10.0.0.9:9093"}


RECEIVERS = INVENTORY + "alertmanager: {hosts: {am: {}}}\nalert_receiver: {hosts: {r1: {}, r2: {}, r3: {}}}\n"


def test_the_test_alert_is_looked_for_as_a_user_who_may_read(make_fleet: MakeFleet, roles: Path) -> None:
    write(roles, VERIFY)
    fleet = make_fleet(
        RECEIVERS,
        host_vars_r1="""
            alert_receiver_users:
              - {name: other, password: a, roles: [send]}
              - {name: ops, password: '{{ vault }}', roles: [act]}
              - {name: last, password: c, roles: [read]}
            vault: b
            """,
        host_vars_r2="alert_receiver_anonymous_roles: [read]\n",
        host_vars_r3="alert_receiver_users: [{name: other, password: a, roles: [send]}]\n",
    )
    plan = plan_of(fleet, "am", dict)
    assert plan["tokens"] == {"r1": "b", "r2": ""}
    assert set(plan["alertmanager"]["receivers"]) == {"r1", "r2", "r3"}


def test_channels_are_tested_only_on_demand_and_on_hosts_of_the_receiver(
    make_fleet: MakeFleet, roles: Path
) -> None:
    write(roles, VERIFY)
    fleet = make_fleet(RECEIVERS)
    assert "alert_receiver" not in plan_of(fleet, "r1", dict)
    assert "alert_receiver" not in plan_of(fleet, "am", dict, channels=True)
    command = plan_of(fleet, "r1", dict, channels=True)["alert_receiver"]["test_channels"]
    assert command == ["/usr/local/bin/fleetwatch-receiver", "test-channels", "--json"]


def test_a_host_without_components_has_nothing_to_look_at(make_fleet: MakeFleet, roles: Path) -> None:
    write(roles, VERIFY)
    assert plan_of(make_fleet(INVENTORY + "printers: {hosts: {p1: }}\n"), "p1", dict) == {}


def test_a_unit_without_http_must_only_run(make_fleet: MakeFleet, roles: Path) -> None:
    write(roles, {"shop/monitoring/verify.yml": "- unit: shop.service\n"})
    fleet = make_fleet("shop: {hosts: {a: {}}}\nnode_exporter: {hosts: {b: {}}}\n")
    assert plan_of(fleet, "a", dict) == {"units": [{"component": "shop", "unit": "shop.service"}]}
    assert plan_of(fleet, "b", dict) == {}


@pytest.mark.parametrize(
    "entry", ["unit: a, job: node_exporter, redy: /", "unit: a, ready: /", "job: node_exporter"]
)
def test_a_wrong_entry_is_named(make_fleet: MakeFleet, roles: Path, entry: str) -> None:
    write(roles, {"node_exporter/monitoring/verify.yml": f"- {{{entry}}}\n"})
    with pytest.raises(FleetError, match=r"node_exporter/monitoring/verify\.yml"):
        plan_of(make_fleet(), "web1", dict)


def test_every_job_of_every_component_is_looked_at() -> None:
    for scrape in (ROOT / "roles").glob("*/monitoring/scrape.yml"):
        jobs = {job["job"] for job in yaml.safe_load(scrape.read_text()) if "prober" not in job}
        entries = yaml.safe_load(scrape.with_name("verify.yml").read_text())
        assert {entry.get("job") for entry in entries} >= jobs, scrape


@pytest.mark.slow
def test_a_host_that_cannot_be_reached_is_a_line_and_the_others_are_still_looked_at(tmp_path: Path) -> None:
    inventory = f"""
        all: {{vars: {{ansible_python_interpreter: "{sys.executable}"}}}}
        node_exporter:
          hosts:
            gone: {{ansible_host: 127.0.0.1, ansible_port: 1}}
            here: {{ansible_connection: local, node_exporter_port: 1}}
        printers: {{hosts: {{p1: {{ansible_host: 127.0.0.1, ansible_port: 1}}}}}}
        """
    write(tmp_path, {"hosts.yml": inventory})
    command = ["ansible-playbook", "-i", f"{tmp_path}/hosts.yml", f"{ROOT}/playbooks/verify.yml"]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ANSIBLE_COLLECTIONS_PATH": f"{ROOT}/collections",
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(  # noqa: S603 - the command is ours
        command, capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert done.returncode == 2, done.stdout + done.stderr
    assert ["FAILED", "host", "reachable", "gone"] in lines
    assert ["FAILED", "node_exporter", "node_exporter", "ready", "here"] in lines
    assert "p1" not in done.stdout.partition("STATE")[2].partition("PLAY RECAP")[0]
    assert "Skipped, because their groups are empty: alert_receiver, alertmanager" in done.stdout
