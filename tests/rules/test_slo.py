"""The rules of service level objectives, as promtool evaluates them.

Two gauges take the place of counters in most tests, because their averages are exact: 10 of 1,000 events are
the whole budget of an objective of 99 %.
"""

from __future__ import annotations

import re
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.rules import render_rules, rules_variables
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.slo import (
    ALERTS,
    slo_problems,
    slo_rules,
)

from tests.rules.test_alerts import ROLES, SECTIONS, defaults, silence_variables
from tests.rules.test_alerts import RUNBOOKS as PAGES

RUNBOOKS = "https://runbooks.example.com"
BRINGING = sorted(path.parents[1].name for path in ROLES.glob("*/monitoring/slos.yml"))
SHOP = {
    "name": "availability",
    "service": "shop",
    "objective": 99,
    "errors": "avg_over_time(bad[$window]) # of all shops",
    "total": "avg_over_time(all[$window])",
    "description": "Customers cannot buy.",
    "labels": {"team": "shop"},
}
BANK = {
    "name": "availability",
    "service": "bank",
    "objective": 99.5,
    "errors": 'rate(requests_total{code=~"5.."}[$window])',
    "total": "rate(requests_total[$window])",
}
FAST, SLOW = "ErrorBudgetBurnFast", "ErrorBudgetBurnSlow"
MINUTE, HOUR, DAY = 1, 60, 1440


def run(promtool: str, folder: Path, *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 - all arguments are ours
        [promtool, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def values(step: int, *phases: tuple[int, float]) -> str:
    """Return what promtool calls values: for each phase its minutes and its value."""
    return " ".join(f"{value}x{minutes // step - 1}" for minutes, value in phases)


def case(step: int, bad: str | None, total: str | None, *tests: tuple[int, str, list[Any]]) -> dict[str, Any]:
    """Return a test of promtool.

    :param tests: minute, expression, and the values that are expected in the order of their series.
    """
    series = [("bad", bad), ("all", total)]
    return {
        "interval": f"{step}m",
        "input_series": [
            {"series": f'{name}{{host="web1"}}', "values": text} for name, text in series if text
        ],
        "promql_expr_test": [
            {"expr": expression, "eval_time": f"{minute}m", "exp_samples": samples}
            for minute, expression, samples in tests
        ],
    }


def firing(minute: int, *alerts: str) -> tuple[int, str, list[Any]]:
    """Expect that just these alerts of the shop fire."""
    names = "|".join((FAST, SLOW))
    expression = f'count by (alertname, service) (ALERTS{{alertstate="firing", alertname=~"{names}"}})'
    samples = [{"labels": f'{{alertname="{alert}", service="shop"}}', "value": 1} for alert in alerts]
    return minute, expression, samples


def value(minute: int, series: str, *expected: float) -> tuple[int, str, list[Any]]:
    """Expect a value of a series of the shop."""
    labels = f'{series}{{service="shop", slo="availability"}}'
    return minute, labels, [{"labels": labels, "value": number} for number in expected]


def ten_hours(total: float = 1000) -> str:
    return values(1, (10 * HOUR, total))


QUIET = (7 * HOUR, 0)
SHORT = {
    "one hour just at 14.4 times the budget": case(
        1, values(1, QUIET, (65, 144)), ten_hours(), firing(8 * HOUR + 4, SLOW)
    ),
    "one hour above 14.4 times the budget": case(
        1,
        values(1, QUIET, (70, 145)),
        ten_hours(),
        firing(8 * HOUR, SLOW),
        firing(8 * HOUR + 3, FAST, SLOW),
        value(8 * HOUR + 3, "slo:sli_error:ratio_rate1h", 0.145),
        value(8 * HOUR + 3, "slo:current_burn_rate:ratio", 0.145 / 0.01),
    ),
    "one hour above, the last five minutes are well": case(
        1,
        values(1, QUIET, (33, 300), (30, 0)),
        ten_hours(),
        firing(7 * HOUR + 30),
        firing(7 * HOUR + 31, FAST),
        firing(7 * HOUR + 38, SLOW),
    ),
    "five minutes above, the hour is not": case(
        1, values(1, QUIET, (15, 300)), ten_hours(), firing(7 * HOUR + 14)
    ),
    "six hours just at 6 times the budget": case(
        1, values(1, (9 * HOUR, 60)), ten_hours(), firing(8 * HOUR, SLOW)
    ),
    "six hours above 6 times the budget": case(
        1, values(1, (9 * HOUR, 61)), ten_hours(), firing(1), firing(8 * HOUR, FAST, SLOW)
    ),
    "six hours above, the last half hour is well": case(
        1, values(1, (8 * HOUR, 90), (HOUR, 0)), ten_hours(), firing(8 * HOUR + 35, SLOW)
    ),
    "no traffic": case(
        1,
        values(1, (9 * HOUR, 500)),
        ten_hours(0),
        firing(9 * HOUR),
        value(9 * HOUR, "slo:sli_error:ratio_rate5m"),
        value(9 * HOUR, "slo:sli_error:ratio_rate1h"),
        value(9 * HOUR, "slo:sli_error:ratio_rate30d"),
        value(9 * HOUR, "slo:period_error_budget_remaining:ratio"),
    ),
    "no data": case(
        1,
        None,
        None,
        firing(2 * HOUR),
        value(2 * HOUR, "slo:sli_error:ratio_rate5m"),
        value(2 * HOUR, "slo:sli_error:ratio_rate1h"),
        value(2 * HOUR, "slo:period_error_budget_remaining:ratio"),
        value(2 * HOUR, "slo:objective:ratio", 0.99),
        value(2 * HOUR, "slo:error_budget:ratio", 0.01),
    ),
    "the counter of errors does not exist yet": case(
        1,
        None,
        ten_hours(),
        firing(2 * HOUR),
        value(2 * HOUR, "slo:sli_error:ratio_rate5m", 0),
        value(2 * HOUR, "slo:sli_error:ratio_rate1h", 0),
        value(2 * HOUR, "slo:period_error_budget_remaining:ratio", 1),
    ),
}
LONG = {
    "three days just at the budget": case(
        5,
        values(5, (4 * DAY, 10)),
        values(5, (4 * DAY, 1000)),
        firing(4 * DAY - HOUR),
        value(4 * DAY - HOUR, "slo:period_error_budget_remaining:ratio", 0),
    ),
    "three days above the budget": case(
        5,
        values(5, (4 * DAY, 11)),
        values(5, (4 * DAY, 1000)),
        firing(10),
        firing(4 * DAY - HOUR, SLOW),
        value(4 * DAY - HOUR, "slo:sli_error:ratio_rate3d", 0.011),
    ),
    "three days above, the last six hours are well": case(
        5, values(5, (3 * DAY, 20), (8 * HOUR, 0)), values(5, (4 * DAY, 1000)), firing(3 * DAY + 7 * HOUR)
    ),
    "one day above three times the budget, after days with much more traffic": case(
        5,
        values(5, (3 * DAY, 0), (30 * HOUR, 31)),
        values(5, (3 * DAY, 1_000_000), (30 * HOUR, 1000)),
        firing(4 * DAY + 4 * HOUR, SLOW),
    ),
    "one day just at three times the budget, after days with much more traffic": case(
        5,
        values(5, (3 * DAY, 0), (30 * HOUR, 30)),
        values(5, (3 * DAY, 1_000_000), (30 * HOUR, 1000)),
        firing(4 * DAY + 4 * HOUR),
    ),
    "half the budget is left, and busy days count for more": case(
        5,
        values(5, (DAY, 18), (DAY, 2)),
        values(5, (DAY, 3000), (DAY, 1000)),
        (
            2 * DAY - 5,
            "round(slo:period_error_budget_remaining:ratio, 0.01)",
            [{"labels": '{service="shop", slo="availability"}', "value": 0.5}],
        ),
        value(2 * DAY - 5, "slo:sli_error:ratio_rate5m", 0.002),
    ),
}
MESSAGE = {
    "interval": "1m",
    "input_series": [
        {"series": 'bad{host="web1"}', "values": "200x30"},
        {"series": 'bad{host="web2"}', "values": "100x30"},
        {"series": 'all{host="web1"}', "values": "1000x30"},
        {"series": 'all{host="web2"}', "values": "1000x30"},
        {"series": 'requests_total{code="200", host="bank1"}', "values": "1e6+990x30"},
        {"series": 'requests_total{code="500", host="bank1"}', "values": "1e6+10x30"},
    ],
    "promql_expr_test": [
        {
            "expr": "slo:current_burn_rate:ratio",
            "eval_time": "10m",
            "exp_samples": [
                {"labels": labels.format("bank", "availability"), "value": 2},
                {"labels": labels.format("shop", "availability"), "value": 15},
            ],
        }
        for labels in ['slo:current_burn_rate:ratio{{service="{}", slo="{}"}}']
    ],
    "alert_rule_test": [
        {
            "alertname": FAST,
            "eval_time": "5m",
            "exp_alerts": [
                {
                    "exp_labels": {
                        "service": "shop",
                        "slo": "availability",
                        "severity": "critical",
                        "team": "shop",
                    },
                    "exp_annotations": {
                        "summary": "Error budget of shop, availability, burns fast",
                        "description": (
                            "15% failed within 1h or 6h; the objective of 99% allows 1%. -1400% of the budget"
                            " of 30 days is left. Customers cannot buy."
                        ),
                        "runbook_url": f"{RUNBOOKS}/{FAST}.md",
                    },
                }
            ],
        }
    ],
}


CASES = {title: (step, test) for step, cases in ((1, SHORT), (5, LONG)) for title, test in cases.items()}


def failures(promtool: str, folder: Path, rules: str, step: int, test: dict[str, Any]) -> str:
    """Return what promtool finds wrong with the rules."""
    (folder / "slo.yml").write_text(rules)
    tests = {"rule_files": ["slo.yml"], "evaluation_interval": f"{step}m", "tests": [test]}
    (folder / "test.yml").write_text(yaml.safe_dump(tests))
    return run(promtool, folder, "test", "rules", "test.yml")


def test_rules_pass_the_checker(promtool: str, tmp_path: Path) -> None:
    (tmp_path / "slo.yml").write_text(slo_rules([SHOP, BANK], RUNBOOKS))
    assert run(promtool, tmp_path, "check", "rules", "--lint=all", "--lint-fatal", "slo.yml") == ""


@pytest.mark.parametrize("component", BRINGING)
def test_objectives_of_components_pass_the_checker(component: str, promtool: str, tmp_path: Path) -> None:
    path = ROLES / component / "monitoring" / "slos.yml"
    slos = yaml.safe_load(render_rules(path, defaults(component)))
    assert slo_problems(slos) == []
    assert {slo["service"] for slo in slos} == {component}
    (tmp_path / "slo.yml").write_text(slo_rules(slos, RUNBOOKS))
    assert run(promtool, tmp_path, "check", "rules", "--lint=all", "--lint-fatal", "slo.yml") == ""
    options = yaml.safe_load((ROLES / component / "meta/argument_specs.yml").read_text())
    assert rules_variables(path) <= options["argument_specs"]["main"]["options"].keys()


def test_alert_says_what_its_reader_needs_and_objectives_do_not_mix(promtool: str, tmp_path: Path) -> None:
    assert failures(promtool, tmp_path, slo_rules([SHOP, BANK], RUNBOOKS), 1, MESSAGE) == ""


@pytest.mark.slow
@pytest.mark.parametrize("title", CASES)
def test_budget_and_alerts(title: str, promtool: str, tmp_path: Path) -> None:
    assert failures(promtool, tmp_path, slo_rules([SHOP], RUNBOOKS), *CASES[title]) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("title", "right", "wrong"),
    [
        ("one hour just at 14.4 times the budget", "> 0.144", ">= 0.144"),
        ("one hour above, the last five minutes are well", "ratio_rate5m", "ratio_rate1h"),
        ("six hours just at 6 times the budget", "> 0.06", ">= 0.06"),
        ("six hours above, the last half hour is well", "ratio_rate30m", "ratio_rate6h"),
        ("no traffic", " > 0)", ")"),
        ("the counter of errors does not exist yet", "or 0 * sum", "and sum"),
        ("the counter of errors does not exist yet", "or vector(0)", ""),
        ("three days just at the budget", "> 0.01", ">= 0.01"),
        ("three days above, the last six hours are well", "ratio_rate6h", "ratio_rate3d"),
        ("one day just at three times the budget, after days with much more traffic", "> 0.03", ">= 0.03"),
    ],
)
def test_broken_rules_are_noticed(title: str, right: str, wrong: str, promtool: str, tmp_path: Path) -> None:
    content = yaml.safe_load(slo_rules([SHOP], RUNBOOKS))
    rules = content["groups"][0]["rules"]
    for rule in rules:
        rule["expr"] = rule["expr"].replace(right, wrong)
    assert failures(promtool, tmp_path, yaml.safe_dump(content), *CASES[title]) != ""


@pytest.mark.parametrize("alert", ALERTS)
def test_runbook_pages_are_complete(alert: str) -> None:
    page = (PAGES / f"{alert}.md").read_text()
    assert page.startswith(f"# {alert}\n")
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == SECTIONS
    section = page.partition("## Silence\n")[2].partition("## ")[0]
    (variables,) = silence_variables(section)
    assert variables.keys() == {"silence_alert", "silence_matchers", "silence_duration", "silence_comment"}
    assert variables["silence_alert"] == alert
    threshold = page.partition("## Threshold\n")[2]
    for _, _, rate in ALERTS[alert].windows:
        percent = f"{rate * Decimal('0.1'):f}".rstrip("0").rstrip(".") if rate != 1 else "0.1"
        assert f"{percent} %" in threshold, "what an objective of 99.9 % gives"
