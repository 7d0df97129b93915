"""The role and the program agree on settings, defaults and metrics."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from fleetwatch.collector.usage.context import Usage
from fleetwatch.collector.usage.settings import Expressions, UsageSettings
from fleetwatch.dashboards.lint import metrics
from fleetwatch.dashboards.queries import queries
from tests.collector.usage.conftest import settings

ROLES = Path(__file__).parents[3] / "roles"
ROLE = ROLES / "metrics_api"
OF_THE_INVENTORY = {"external_url", "groups", "prometheus_urls", "receiver_urls"}
SHARED = {"process_", "python_", "up"}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_defaults_are_those_of_the_program() -> None:
    defaults = load(ROLE / "defaults/main.yml")
    program = settings("http://prometheus:9090").model_dump(mode="json")
    for name in set(UsageSettings.model_fields) - OF_THE_INVENTORY:
        assert defaults[f"metrics_api_{name}"] == (program[name] or ""), name


def test_the_role_hands_on_every_setting() -> None:
    handed_on = load(ROLE / "vars/main.yml")["metrics_api_settings"]
    assert handed_on == {
        name: f"{{{{ metrics_api_{name} }}}}" for name in UsageSettings.model_fields if name != "read_token"
    }


def test_what_is_asked_for_is_recorded_or_collected() -> None:
    rules = load(ROLES / "node_exporter/monitoring/recording_rules.yml")["groups"]
    recorded = {rule["record"] for group in rules for rule in group["rules"]}
    sources = Expressions.model_validate({})
    for resource, gauge in (("cpu", "cpu"), ("mem", "mem"), ("disk", "disk")):
        collector, exporter = sources.of(resource)  # type: ignore[arg-type]
        assert collector.expression.startswith(f"gauge_{gauge}_usage{{type=")
        assert re.findall(r"[\w:]*:[\w:]+", exporter.expression)[0] in recorded


def test_dashboard_and_alerts_ask_for_metrics_that_exist() -> None:
    usage = Usage(settings("http://127.0.0.1:1"))
    usage.prometheus.probe()
    known = {sample.name for family in usage.registry.collect() for sample in family.samples}
    usage.close()
    dashboard = load_json(ROLE / "monitoring/dashboards/fleetwatch-metrics-api.json")
    asked = {name for target in queries(dashboard) for name in metrics(target.expr)}
    rules = load(ROLE / "monitoring/rules.yml")["groups"][0]["rules"]
    asked |= {name for rule in rules for name in re.findall(r"metrics_api_\w+(?=\{| ==)", rule["expr"])}
    own = {name for name in asked if name.startswith("metrics_api_")}
    assert len(own) > 5
    assert own <= known


def load_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
