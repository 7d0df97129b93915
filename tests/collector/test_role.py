"""The role and the program agree on settings and defaults."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml
from prometheus_client import CollectorRegistry, Metric, ProcessCollector

from fleetwatch.collector.collectors import build
from fleetwatch.collector.plan import COLLECTORS
from fleetwatch.collector.rounds import Rounds
from fleetwatch.collector.settings import Settings
from fleetwatch.dashboards.lint import metrics
from fleetwatch.dashboards.queries import queries
from tests.collector.conftest import Host, counted
from tests.common.services import wait_until

ROLE = Path(__file__).parents[2] / "roles" / "metrics_collector"


def load(file: str) -> Any:
    return yaml.safe_load((ROLE / file).read_text(encoding="utf-8"))


def test_defaults_are_those_of_the_program() -> None:
    defaults = load("defaults/main.yml")
    fields = {name: field.default for name, field in Settings.model_fields.items() if name != "log_level"}
    assert {name: defaults[f"metrics_collector_{name}"] for name in fields} == fields


def test_the_role_hands_on_every_setting() -> None:
    handed_on = load("vars/main.yml")["metrics_collector_settings"]
    assert handed_on == {
        name: f"{{{{ metrics_collector_{name} }}}}" for name in Settings.model_fields if name != "log_level"
    }


def test_the_collectors_that_may_be_chosen_are_those_there_are() -> None:
    options = load("meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert tuple(options["metrics_collector_collectors"]["choices"]) == COLLECTORS


def test_dashboards_and_alerts_ask_for_metrics_that_exist(
    monkeypatch: pytest.MonkeyPatch, host: Host
) -> None:
    counted(host.unified() / "system.slice/web.service")
    battery = SimpleNamespace(percent=50, secsleft=60, power_plugged=True)
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery)
    registry = CollectorRegistry()
    rounds = Rounds(build(Settings.model_validate({}).plan()), lambda _: 60, 60)
    rounds.run()
    known = wait_until(lambda: names_with_use(rounds))
    ProcessCollector(registry=registry)
    known |= {name for metric in registry.collect() for name in names(metric)}
    known |= {"up", "node_systemd_unit_state", "node_systemd_service_restart_total"}
    dashboards = [json.loads(path.read_text()) for path in ROLE.glob("monitoring/dashboards/*.json")]
    assert len(dashboards) == 2
    rules = load("monitoring/rules.yml")["groups"][0]["rules"]
    asked = {
        name for dashboard in dashboards for target in queries(dashboard) for name in metrics(target.expr)
    }
    asked |= {
        name
        for rule in rules
        for name in metrics(re.sub(r"\[\[.*?\]\]", "1", re.sub(r"\[ \[\[.*?\]\]\]", "[1m]", rule["expr"])))
    }
    assert len(asked) > 40
    assert asked <= known


def names(metric: Metric) -> set[str]:
    return {metric.name, f"{metric.name}_total"} if metric.type == "counter" else {metric.name}


def names_with_use(rounds: Rounds) -> set[str]:
    found = {name for metric in rounds.collect() for name in names(metric)}
    return found if "gauge_cpu_usage" in found else set()
