"""The recording rules of every component, with the variables that the roles have by default.

promtool runs the unit tests that lie beside the rules. Then the rules are broken on purpose, and promtool
must notice each.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.rules import render_rules

from tests.rules.conftest import RunPromtool

ROOT = Path(__file__).parents[2]
ROLES = ROOT / "roles"
COMPONENTS = sorted(path.parents[1].name for path in ROLES.glob("*/monitoring/recording_rules.yml"))
NODE_SERIES = {
    "instance:node_cpu_utilisation:rate5m",
    "instance:node_memory_utilisation:ratio",
    "instance:node_load1_per_cpu:ratio",
    "instance:node_filesystem_utilisation:max",
    "instance:node_network_receive_bytes:rate5m",
    "instance:node_network_transmit_bytes:rate5m",
}
"""What dashboards read; a renamed series would leave them empty."""

Rule = dict[str, Any]
each_component = pytest.mark.parametrize("component", COMPONENTS)


def rules_file(component: str) -> Path:
    return ROLES / component / "monitoring" / "recording_rules.yml"


def render(component: str) -> Any:
    variables: dict[str, Any] = {}
    for role in ("common", component):
        variables |= yaml.safe_load((ROLES / role / "defaults/main.yml").read_text(encoding="utf-8"))
    return yaml.safe_load(render_rules(rules_file(component), variables))


def records(component: str) -> set[str]:
    return {rule["record"] for group in render(component)["groups"] for rule in group["rules"]}


@each_component
def test_rules_pass_the_checker(component: str, run_promtool: RunPromtool) -> None:
    code, output = run_promtool(
        rules_file(component),
        render(component),
        "check",
        "rules",
        "--lint=all",
        "--lint-fatal",
        "recording_rules.yml",
    )
    assert code == 0, output


@each_component
def test_series_are_as_they_should_be(component: str, run_promtool: RunPromtool) -> None:
    code, output = run_promtool(
        rules_file(component), render(component), "test", "rules", "recording_rules_test.yml"
    )
    assert code == 0, output


def with_another_value(rule: Rule) -> Rule:
    return rule | {"expr": f"({rule['expr']}) + 0.001"}


def without_host(rule: Rule) -> Rule:
    return rule | {"expr": f"max without (host) ({rule['expr']})"}


def without_label_matchers(rule: Rule) -> Rule:
    return rule | {"expr": re.sub(r"\{[^}]*\}", "", rule["expr"])}


def without_a_guard(rule: Rule) -> Rule:
    return rule | {"expr": rule["expr"].replace("> 0", "")}


@each_component
@pytest.mark.parametrize(
    "broken",
    [with_another_value, without_host, without_label_matchers, without_a_guard],
    ids=lambda broken: broken.__name__,
)
def test_broken_rules_are_noticed(
    component: str, broken: Callable[[Rule], Rule], run_promtool: RunPromtool
) -> None:
    rules = render(component)
    expected = set()
    for group in rules["groups"]:
        changed = [broken(rule) for rule in group["rules"]]
        expected |= {rule["record"] for rule in changed if rule not in group["rules"]}
        group["rules"] = changed
    _, output = run_promtool(rules_file(component), rules, "test", "rules", "recording_rules_test.yml")
    noticed = set(re.findall(r'expr: "([^"]+)", time:', output))
    assert noticed == expected, output


@each_component
def test_each_series_is_tested_with_and_without_data(component: str) -> None:
    tests = yaml.safe_load(rules_file(component).with_name("recording_rules_test.yml").read_text())["tests"]
    with_data: set[str] = set()
    without_data: set[str] = set()
    for test in tests:
        for case in test["promql_expr_test"]:
            (with_data if case.get("exp_samples") else without_data).add(case["expr"])
    assert with_data == without_data == records(component)


def test_node_exporter_has_the_series_that_dashboards_read() -> None:
    assert records("node_exporter") == NODE_SERIES
