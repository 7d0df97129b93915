"""The rules as Prometheus runs them: none fails, and none goes by a metric that nothing has."""

from __future__ import annotations

import re
from typing import Any

from support import Fleet, wait_for

from fleetwatch.dashboards.lint import metrics
from lab.alert import call

ABSENT = {
    "alertmanager_cluster_members": "one Alertmanager alone is no cluster",
    "alertmanager_.*_maintenance_errors_total": "newer than that of Debian 12",
    "host_unit_(cpu_limit|memory_limit|oom_kills)_.*": "containers have no control groups of their own",
    "node_bonding_.*|node_md_.*|node_hwmon_.*": "containers have no such devices",
    "node_certificate_.*": "no certificate is named in node_exporter's variables",
    "node_load.*": "containers show the load of their machine: not collected",
    "pg_stat_replication_.*|pg_replication_.*": "there is no standby",
    "probe_ssl_.*": "no probe is by TLS",
    "prometheus_remote_storage_.*": "nothing is written to elsewhere",
    "prometheus_sd_refresh_failures_total": "all targets come from files",
    "prometheus_target_scrapes_exceeded_native_histogram_.*": "newer than that of Debian 12",
}
"""Metrics that the fleet may be without, with the reason."""


def rules(fleet: Fleet) -> list[dict[str, Any]]:
    groups = call("GET", f"{fleet.url('monitor', 9090)}/api/v1/rules")["data"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_rule_is_evaluated_without_an_error(fleet: Fleet) -> None:
    found = rules(fleet)
    assert len(found) > 60, "nothing to look at"

    def well() -> bool:
        wrong = {rule["name"]: rule.get("lastError") for rule in rules(fleet) if rule["health"] != "ok"}
        assert not wrong, f"{wrong}"
        return True

    wait_for(well, 60)


def test_every_metric_that_rules_go_by_exists(fleet: Fleet) -> None:
    """Otherwise the alert would be dead, and nobody would notice."""

    def all_there() -> bool:
        fleet.visit_shop()  # an objective has no numbers before there are requests
        known = set(call("GET", f"{fleet.url('monitor', 9090)}/api/v1/label/__name__/values")["data"])
        dead = {
            metric: rule["name"]
            for rule in rules(fleet)
            for metric in metrics(rule["query"]) - known
            if not any(re.fullmatch(pattern, metric) for pattern in ABSENT)
        }
        assert not dead, f"{dead}"
        return True

    wait_for(all_there, 120)  # some exist only after the first push, notification or housekeeping
