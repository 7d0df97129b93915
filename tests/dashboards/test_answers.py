"""What panels show is right: promtool answers their queries from series that are made up.

That a query is PromQL and finds data does not say that it tells the truth. So here are those that combine
series, and the panels whose colours and names are agreed upon.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.slo import ALERTS, slo_rules

from fleetwatch.dashboards.files import ROOT
from fleetwatch.dashboards.lint import metrics
from fleetwatch.dashboards.queries import panels, queries, substitute
from tests.dashboards.conftest import read

Json = dict[str, Any]
PROMTOOL = ROOT / ".cache" / "tools" / "bin" / "promtool"
MINUTES = 10
GREEN, ORANGE, RED = "green", "orange", "red"


def _expr(uid: str, panel: str, number: int = 0) -> str:
    found = [target for target in queries(read(uid)) if target.panel == panel]
    return substitute(found[number].expr, {"__range": f"{MINUTES}m"})


def _check(path: Path, series: dict[str, str], expr: str, samples: dict[str, float]) -> str:
    """Return what promtool says against the samples; empty if the expression's answer is these."""
    test = {
        "rule_files": [],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": expr,
                        "eval_time": f"{MINUTES}m",
                        "exp_samples": [{"labels": name, "value": value} for name, value in samples.items()],
                    }
                ],
            }
        ],
    }
    file = path / "test.yml"
    file.write_text(yaml.safe_dump(test))
    done = subprocess.run(  # noqa: S603 - our own promtool
        [PROMTOOL, "test", "rules", file], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr if done.returncode else ""


FIRING = 'alertname="Disk",host="a",instance="a:1",job="n",severity="warning"'
CASES: dict[str, tuple[str, str, int, dict[str, str], dict[str, float]]] = {
    "jobs without a target that is down have 0": (
        "fleetwatch-prometheus",
        "Jobs",
        1,
        {'up{job="a",host="x"}': "0x10", 'up{job="a",host="y"}': "1x10", 'up{job="b",host="x"}': "1x10"},
        {'{job="a"}': 1, '{job="b"}': 0},
    ),
    "a target that is up again is among those that were down": (
        "fleetwatch-prometheus",
        "Targets that were down",
        0,
        {
            'up{job="a",host="x",instance="x:1"}': "1x3 0 1x6",
            'up{job="a",host="y",instance="y:1"}': "1x10",
        },
        {'{job="a",host="x",instance="x:1"}': 1},
    ),
    "alerts that fire, and for how long": (
        "fleetwatch-alerts",
        "Firing alerts",
        0,
        {
            f'ALERTS{{alertstate="firing",{FIRING}}}': "1x10",
            f"ALERTS_FOR_STATE{{{FIRING}}}": "60x10",
            'ALERTS{alertstate="pending",alertname="Load",host="a",severity="info"}': "1x10",
            'ALERTS_FOR_STATE{alertname="Load",host="a",severity="info"}': "120x10",
            'ALERTS{alertstate="firing",alertname="Watchdog",severity="info"}': "1x10",
            'ALERTS_FOR_STATE{alertname="Watchdog",severity="info"}': "0x10",
        },
        {f"{{{FIRING}}}": 540},
    ),
    "an alert of a whole job counts, though it has no host": (
        "fleetwatch-alerts",
        "Critical",
        0,
        {'ALERTS{alertstate="firing",alertname="TargetAbsent",job="a",severity="critical"}': "1x10"},
        {"{}": 1},
    ),
    "nothing fires": ("fleetwatch-alerts", "Critical", 0, {"up": "1x10"}, {"{}": 0}),
    "two receivers that share a store count an incident once": (
        "fleetwatch-alerts",
        "Not acknowledged",
        0,
        {
            f'alert_receiver_{what}_incidents{{job="alert_receiver",host="{host}",severity="{severity}"}}': (
                f"{value}x10"
            )
            for host in ("r1", "r2")
            for what, severity, value in (
                ("open", "critical", 3),
                ("open", "warning", 2),
                ("acknowledged", "critical", 1),
                ("acknowledged", "warning", 0),
            )
        },
        {"{}": 4},
    ),
    "integrations that were never used are left out": (
        "fleetwatch-alertmanager",
        "Sent",
        0,
        {
            'alertmanager_notifications_total{job="a",host="x",integration="webhook"}': "60+60x10",
            'alertmanager_notifications_total{job="a",host="x",integration="email"}': "0x10",
        },
        {'{integration="webhook"}': 1},
    ),
    "members are counted where there is no cluster": (
        "fleetwatch-alertmanager",
        "Members",
        0,
        {'alertmanager_build_info{job="a",host="x"}': "1x10"},
        {"{}": 1},
    ),
    "the member that sees the fewest counts": (
        "fleetwatch-alertmanager",
        "Members",
        0,
        {
            f'alertmanager_{name}{{job="a",host="{host}"}}': f"{value}x10"
            for host, members in (("x", 1), ("y", 2))
            for name, value in (("cluster_members", members), ("build_info", 1))
        },
        {"{}": 1},
    ),
    "a push that failed after the last good one": (
        "fleetwatch-pushgateway",
        "Groups that failed",
        0,
        {
            'push_time_seconds{job="a",host="x"}': "100x10",
            'push_failure_time_seconds{job="a",host="x"}': "200x10",
            'push_time_seconds{job="a",host="y"}': "300x10",
            'push_failure_time_seconds{job="a",host="y"}': "200x10",
        },
        {"{}": 1},
    ),
    "burn rate is errors by budget": (
        "fleetwatch-slo",
        "Fast: 2 % of the budget in an hour",
        0,
        {
            'slo:sli_error:ratio_rate1h{service="shop",slo="answers"}': "0.5x10",
            'slo:error_budget:ratio{service="shop",slo="answers"}': "0.25x10",
        },
        {'{service="shop",slo="answers"}': 2},
    ),
    "disk space is a percentage of the root file system": (
        "fleetwatch-first-system",
        "Disk available %",
        0,
        {
            'node_filesystem_avail_bytes{host="a",mountpoint="/"}': "25x10",
            'node_filesystem_size_bytes{host="a",mountpoint="/"}': "200x10",
            'node_filesystem_avail_bytes{host="a",mountpoint="/boot"}': "1x10",
            'node_filesystem_size_bytes{host="a",mountpoint="/boot"}': "2x10",
        },
        {'{host="a",mountpoint="/"}': 12.5},
    ),
    "the busiest interface of a host": (
        "fleetwatch-first-system",
        "Network inbound",
        0,
        {
            'node_network_receive_bytes_total{host="a",device="eth0"}': "0+60x10",
            'node_network_receive_bytes_total{host="a",device="eth1"}': "0+600x10",
        },
        {'{host="a"}': 10},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_panel_tells_the_truth(case: str, tmp_path: Path) -> None:
    uid, panel, number, series, samples = CASES[case]
    assert _check(tmp_path, series, _expr(uid, panel, number), samples) == ""


def test_promtool_would_say_so(tmp_path: Path) -> None:
    assert "exp:" in _check(tmp_path, {"up": "1x10"}, "sum(up)", {"{}": 2})


def test_the_first_system_has_exactly_its_six_panels() -> None:
    """The table in the notes about the first system."""
    expected = {
        "CPU usage %": [(GREEN, None), (ORANGE, 70), (RED, 90)],
        "Memory usage %": [(GREEN, None), (ORANGE, 50), (RED, 90)],
        "Disk available %": [(RED, None), (ORANGE, 15), (GREEN, 30)],
        "Node exporter status": [(RED, None), (GREEN, 1)],
        "Load average, 1 min": [(GREEN, None), (ORANGE, 1), (RED, 2)],
        "Network inbound": [(GREEN, None), (ORANGE, 50e6), (RED, 100e6)],
    }
    found = {
        panel["title"]: [
            (step["color"], step["value"]) for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        ]
        for panel in panels(read("fleetwatch-first-system"))
    }
    assert found == expected
    assert list(found) == list(expected)


def _slo_series() -> set[str]:
    """Return the names that are recorded for an objective."""
    slo = {
        "name": "answers",
        "service": "shop",
        "objective": 99.9,
        "errors": 'rate(requests_total{code=~"5.."}[$window])',
        "total": "rate(requests_total[$window])",
    }
    rules = yaml.safe_load(slo_rules([slo], "https://example.org"))["groups"][0]["rules"]
    return {rule["record"] for rule in rules if "record" in rule}


def test_series_of_objectives_are_recorded() -> None:
    asked = {name for target in queries(read("fleetwatch-slo")) for name in metrics(target.expr)}
    assert asked - {"ALERTS"} <= _slo_series()


def test_burn_rates_are_those_of_the_alerts() -> None:
    """Each pair of windows that an alert looks at has a panel, with the line where it fires."""
    wanted = {
        (long, short, float(rate), {"critical": RED, "warning": ORANGE}[burn.severity])
        for burn in ALERTS.values()
        for long, short, rate in burn.windows
    }
    drawn = set()
    for panel in panels(read("fleetwatch-slo")):
        windows = [
            re.findall(r"ratio_rate(\w+)\{.* / on", target["expr"]) for target in panel.get("targets", [])
        ]
        if len(windows) == 2 and all(windows):
            step = panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1]
            drawn.add((windows[0][0], windows[1][0], step["value"], step["color"]))
    assert drawn == wanted
