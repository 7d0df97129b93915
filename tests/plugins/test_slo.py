"""The list ``fleetwatch_slos``: what is refused, and the numbers that come of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.slo import (
    SloError,
    is_objective,
    slo_problems,
    slo_rules,
    with_brought,
)

from tests.plugins.conftest import INVENTORY, write
from tests.plugins.test_lookups import PLAY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugins.conftest import RunPlaybook

SLO: dict[str, Any] = {
    "name": "availability",
    "service": "shop",
    "objective": 99.9,
    "errors": 'rate(http_requests_total{code=~"5.."}[$window])',
    "total": "rate(http_requests_total[$window])",
}
MISSING = object()


def changed(**fields: Any) -> dict[str, Any]:
    return {field: value for field, value in (SLO | fields).items() if value is not MISSING}


def rules(slo: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(slo_rules([slo], "https://runbooks"))["groups"][0]["rules"]
    return found


def recorded(slo: dict[str, Any], name: str) -> str:
    return next(str(rule["expr"]) for rule in rules(slo) if rule.get("record") == name)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"total": MISSING}, "entry 1 (availability): total missing"),
        ({"name": MISSING, "errors": ""}, "entry 1: name, errors missing"),
        (
            {"goal": 3},
            "entry 1 (availability): goal not known; there are name, service, objective, errors, total,",
        ),
        (
            {"name": 'a"b'},
            'entry 1 (a"b): name must be of letters, digits, spaces, hyphens, dots and underscores',
        ),
        ({"service": ["a"]}, "entry 1 (availability): service must be of letters, digits,"),
        ({"objective": 100}, "entry 1 (availability): objective must be a percentage above 0 and below 100"),
        ({"objective": 0}, "entry 1 (availability): objective must be a percentage above 0 and below 100"),
        ({"objective": 0.0}, "entry 1 (availability): objective must be a percentage above 0 and below 100"),
        ({"objective": -1}, "entry 1 (availability): objective must be a percentage above 0 and below 100"),
        ({"objective": True}, "entry 1 (availability): objective must be a percentage above 0 and below 100"),
        (
            {"objective": "99.9%"},
            "entry 1 (availability): objective must be a percentage above 0 and below 100",
        ),
        (
            {"total": "rate(x[5m])"},
            "entry 1 (availability): total must have [$window] as its time range, as in",
        ),
        (
            {"errors": "rate(x[$windows])"},
            "entry 1 (availability): errors must have [$window] as its time range",
        ),
        (
            {"errors": "rate(x$window)"},
            "entry 1 (availability): errors must have [$window] as its time range",
        ),
        ({"alerting": "no"}, "entry 1 (availability): alerting must be true or false"),
        ({"labels": ["team"]}, "entry 1 (availability): labels must be a dictionary"),
        ({"labels": {"severity": "info"}}, "entry 1 (availability): labels: severity cannot be used; take"),
        ({"labels": {"te am": "x"}}, "entry 1 (availability): labels: te am cannot be used; take"),
    ],
)
def test_mistakes_name_the_entry_and_the_cure(fields: dict[str, Any], problem: str) -> None:
    (found,) = slo_problems([changed(**fields)])
    assert found.startswith(problem)
    with pytest.raises(SloError, match=r"^fleetwatch_slos: entry 1"):
        slo_rules([changed(**fields)], "https://runbooks")


def test_one_name_twice_in_a_service() -> None:
    assert slo_problems([SLO, changed(service="bank"), SLO]) == [
        "entry 3 (availability): the service shop has two of that name; give one another name"
    ]


@pytest.mark.parametrize("slos", ["shop", {"name": "x"}, [3]])
def test_something_else_than_a_list_of_dictionaries(slos: object) -> None:
    assert slo_problems(slos) == ["must be a list in which each item is a dictionary"]


@pytest.mark.parametrize(
    ("objective", "ratio", "budget", "fast"),
    [
        (99.9, "0.999", "0.001", "> 0.0144 and"),
        (99, "0.99", "0.01", "> 0.144 and"),
        ("99.95", "0.9995", "0.0005", "> 0.0072 and"),
        (99.999, "0.99999", "0.00001", "> 0.000144 and"),
        (50, "0.5", "0.5", "> 7.2 and"),
        (0.1, "0.001", "0.999", "> 14.3856 and"),
    ],
)
def test_numbers_are_exact(objective: object, ratio: str, budget: str, fast: str) -> None:
    slo = changed(objective=objective)
    assert recorded(slo, "slo:objective:ratio") == f"vector({ratio})"
    assert recorded(slo, "slo:error_budget:ratio") == f"vector({budget})"
    assert recorded(slo, "slo:current_burn_rate:ratio").endswith(f" / {budget}")
    assert fast in next(rule["expr"] for rule in rules(slo) if rule.get("alert") == "ErrorBudgetBurnFast")


def test_the_window_is_filled_in_everywhere() -> None:
    slo = changed(errors="sum(rate(a[ $window ])) + sum(max_over_time(b[$window:1m]))")
    assert "sum(sum(rate(a[ 2h ])) + sum(max_over_time(b[2h:1m])))" in recorded(
        slo, "slo:sli_error:ratio_rate2h"
    )
    windows = {
        rule["record"].rpartition("rate")[2] for rule in rules(slo) if "ratio_rate" in str(rule.get("record"))
    }
    assert windows == {"5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d"}
    assert "$window" not in slo_rules([slo], "https://runbooks")


def test_what_can_be_chosen_for_the_alerts() -> None:
    slo = changed(labels={"team": "a"}, runbook_url="https://wiki/shop", description="Call them. ")
    alerts = [rule for rule in rules(slo) if "alert" in rule]
    assert [rule["labels"] for rule in alerts] == [
        {"team": "a", "service": "shop", "slo": "availability", "severity": severity}
        for severity in ("critical", "warning")
    ]
    assert {rule["annotations"]["runbook_url"] for rule in alerts} == {"https://wiki/shop"}
    assert all(rule["annotations"]["description"].endswith(" Call them.") for rule in alerts)
    assert not [rule for rule in rules(changed(alerting=False)) if "alert" in rule]


@pytest.mark.slow
def test_lookup_writes_the_file(tmp_path: Path, run_playbook: RunPlaybook) -> None:
    lines = """
        fleetwatch_runbook_url: https://runbooks
        goal: 99.5
        fleetwatch_slos:
          - name: availability
            service: shop
            objective: "{{ goal }}"
            errors: rate(errors_total[$window])
            total: rate(requests_total[$window])
            description: Call them.
            labels: {team: shop}
          - name: speed
            service: shop
            objective: 90
            errors: rate(errors_total[$window])
            total: rate(requests_total[$window])
            runbook_url: https://wiki/shop
        """
    write(
        tmp_path, {"play.yml": PLAY, "inventory/hosts.yml": INVENTORY, "inventory/group_vars/all.yml": lines}
    )
    run = run_playbook("play.yml")
    assert run.returncode == 0, run.stdout
    result = yaml.safe_load((tmp_path / "result.json").read_text())
    content = yaml.safe_load(result["rules"]["slo.yml"])
    assert content["groups"][0]["rules"][0]["expr"] == "vector(0.995)"
    assert content["groups"][0]["rules"][-1]["annotations"]["runbook_url"].startswith(
        "https://runbooks/Error"
    )

    write(tmp_path, {"inventory/group_vars/all.yml": lines.replace("99.5", "101")})
    run = run_playbook("play.yml")
    assert run.returncode == 2
    assert "fleetwatch_slos: entry 1 (availability): objective must be a percentage" in run.stdout


BROUGHT = """
    - name: availability
      service: bank
      objective: "[[ shop_goal ]]"
      errors: rate(errors_total[$window])
      total: rate(requests_total[$window])
    - name: latency
      service: bank
      objective: 95
      errors: rate(slow_total[$window])
      total: rate(requests_total[$window])
    """


def test_the_sites_own_objective_counts_more_than_a_components() -> None:
    theirs = changed(objective=95)
    assert with_brought([SLO], [theirs, changed(name="latency")]) == [SLO, changed(name="latency")]
    assert with_brought([], [theirs]) == [theirs]
    assert with_brought("shop", [theirs]) == "shop"
    assert [value for value in (99.9, "94", 0, 100, "x", True) if is_objective(value)] == [99.9, "94"]


@pytest.mark.slow
def test_components_bring_objectives(tmp_path: Path, run_playbook: RunPlaybook) -> None:
    own = {**SLO, "service": "bank", "name": "latency", "objective": 99}
    files = {
        "play.yml": PLAY,
        "inventory/hosts.yml": INVENTORY + "shop: {hosts: {web1: {}}}\n",
        "inventory/group_vars/all.yml": "fleetwatch_runbook_url: https://runbooks\n",
        "roles/shop/monitoring/slos.yml": BROUGHT,
        "roles/shop/defaults/main.yml": "{shop_port: 8000, shop_worker_port: 8001, shop_goal: 94}",
    }

    def objectives(**changes: str) -> dict[str, str]:
        write(tmp_path, files | {name.replace("__", "/") + ".yml": text for name, text in changes.items()})
        run = run_playbook("play.yml")
        assert run.returncode == 0, run.stdout
        rules = yaml.safe_load((tmp_path / "result.json").read_text())["rules"]
        return {
            rule["labels"]["slo"]: rule["expr"]
            for group in yaml.safe_load(rules.get("slo.yml", "groups: []"))["groups"]
            for rule in group["rules"]
            if rule.get("record") == "slo:objective:ratio"
        }

    assert objectives() == {"availability": "vector(0.94)", "latency": "vector(0.95)"}
    assert objectives(inventory__group_vars__prometheus="shop_goal: 80") == {
        "availability": "vector(0.8)",
        "latency": "vector(0.95)",
    }
    site = yaml.safe_dump({"fleetwatch_slos": [own]})
    assert objectives(inventory__group_vars__prometheus=site) == {
        "availability": "vector(0.94)",
        "latency": "vector(0.99)",
    }
    write(tmp_path, files | {"inventory/group_vars/prometheus.yml": "shop_goal: 101"})
    run = run_playbook("play.yml")
    assert run.returncode == 2
    assert "shop/monitoring/slos.yml: entry 1 (availability): objective must be a percentage" in run.stdout
    (tmp_path / "inventory/group_vars/prometheus.yml").unlink()
    assert objectives(inventory__hosts=INVENTORY) == {}, "a component without hosts brings none"
