"""Hosts with alert thresholds of their own: the rules that come of it, as promtool sees them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils import overrides
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.overrides import (
    OverrideError,
    render_with_overrides,
)
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.rules import render_rules

from tests.rules.test_alerts import (
    COMPONENTS,
    WITHOUT_HOST,
    alert_variables,
    defaults,
    rules_file,
    stem,
)

ROOT = Path(__file__).parents[2]
RULES = """\
groups:
  - name: web
    rules:
      - {record: "instance:free:ratio", expr: free}
      - alert: Low
        expr: free < [[ web_alert_low_threshold ]] or free > 1
        for: [[ web_alert_low_for ]]
        labels: {severity: warning}
        annotations: {summary: "Only {{ $value }} on {{ $labels.host }}, below [[ web_alert_low_threshold ]]"}
      - alert: Down
        expr: up == 0
        for: [[ web_alert_down_for ]]
        labels: {severity: critical}
        annotations: {summary: "{{ $labels.host }} is down"}
      - alert: ManyDown
        expr: count(up == 0) > [[ web_alert_many_down_threshold ]]
        annotations: {summary: "{{ $value }} are down"}
"""
Settings = dict[str, dict[str, Any]]
DEFAULTS = {
    "web_alert_low_threshold": 0.1,
    "web_alert_low_for": "1m",
    "web_alert_down_for": "2m",
    "web_alert_many_down_threshold": 3,
}


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yml"
    path.write_text(RULES)
    return path


def parsed(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(text)["groups"][0]["rules"]
    return found


def test_a_host_without_other_values_changes_nothing(rules: Path) -> None:
    same: Settings = {"db1": {"web_alert_low_threshold": "0.1", "other_alert_x_for": "9m"}, "db2": {}}
    assert render_with_overrides(rules, DEFAULTS, same) == render_rules(rules, DEFAULTS)


def test_only_the_alert_that_uses_the_value_is_split(rules: Path) -> None:
    settings: Settings = {
        "db2": {"web_alert_low_threshold": 0.05},
        "db1": {"web_alert_low_threshold": 0.05},
        "db.3": {"web_alert_low_threshold": 0.05, "web_alert_low_for": "5m"},
        "web1": {"web_alert_low_for": "1m"},
    }
    text = render_with_overrides(rules, DEFAULTS, settings)
    series = "host:alert_override:group"
    low = {"alert": "Low"}
    rest = parsed(render_rules(rules, DEFAULTS))
    assert parsed(text) == [
        rest[0],
        {
            "record": series,
            "expr": 'group by (host) (up{host=~"db\\\\.3"})',
            "labels": low | {"set": "1"},
        },
        {"record": series, "expr": 'group by (host) (up{host=~"db1|db2"})', "labels": low | {"set": "2"}},
        rest[1]
        | {"expr": '(free < 0.1 or free > 1) unless on (host) host:alert_override:group{alert="Low"}'},
        {
            "alert": "Low",
            "expr": '(free < 0.05 or free > 1) and on (host) host:alert_override:group{alert="Low", set="1"}',
            "for": "5m",
            "labels": {"severity": "warning"},
            "annotations": {"summary": "Only {{ $value }} on {{ $labels.host }}, below 0.05"},
        },
        {
            "alert": "Low",
            "expr": '(free < 0.05 or free > 1) and on (host) host:alert_override:group{alert="Low", set="2"}',
            "for": "1m",
            "labels": {"severity": "warning"},
            "annotations": {"summary": "Only {{ $value }} on {{ $labels.host }}, below 0.05"},
        },
        *rest[2:],
    ]
    turned = dict(reversed(settings.items()))
    assert render_with_overrides(rules, DEFAULTS, turned) == text


def test_an_expression_may_end_with_a_comment(tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    path.write_text(RULES.replace("expr: free <", 'expr: "free <').replace("free > 1", 'free > 1 # wrong"'))
    text = render_with_overrides(path, DEFAULTS, {"db1": {"web_alert_low_threshold": 0.05}})
    assert "# wrong\n) unless on (host)" in parsed(text)[2]["expr"]


TEST = """
rule_files: [rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'up{host="db1", job="web"}', values: 1x20}
      - {series: 'up{host="db1", job="other"}', values: 1x20}
      - {series: 'up{host="db2", job="web"}', values: 0x20}
      - {series: 'up{host="dbx3", job="web"}', values: 1x20}
      - {series: 'up{host="db.3", job="web"}', values: 1x20}
      - {series: 'up{host="web1", job="web"}', values: 1x20}
      - {series: 'free{host="db1", disk="a"}', values: 0.04x20}
      - {series: 'free{host="db1", disk="b"}', values: 0.07x20}
      - {series: 'free{host="db2"}', values: 0.05x20}
      - {series: 'free{host="db.3"}', values: 0.04x20}
      - {series: 'free{host="dbx3"}', values: 0.09x20}
      - {series: 'free{host="web1"}', values: 0.07x20}
      - {series: 'free{host="web2"}', values: 0.1x20}
      - {series: 'free{host="sim1"}', values: 0.09x20}
      - {series: 'free', values: 0.08x20}
    alert_rule_test:
      - {alertname: Low, eval_time: 0m}
      - alertname: Low
        eval_time: 4m
        exp_alerts: &usual
          - exp_labels: {host: db1, disk: a, severity: warning}
            exp_annotations: {summary: "Only 0.04 on db1, below 0.05"}
          - exp_labels: {host: dbx3, severity: warning}
            exp_annotations: {summary: "Only 0.09 on dbx3, below 0.1"}
          - exp_labels: {host: web1, severity: warning}
            exp_annotations: {summary: "Only 0.07 on web1, below 0.1"}
          - exp_labels: {host: sim1, severity: warning}
            exp_annotations: {summary: "Only 0.09 on sim1, below 0.1"}
          - exp_labels: {severity: warning}
            exp_annotations: {summary: "Only 0.08 on , below 0.1"}
      - alertname: Low
        eval_time: 5m
        exp_alerts:
          - exp_labels: {host: db.3, severity: warning}
            exp_annotations: {summary: "Only 0.04 on db.3, below 0.05"}
          - exp_labels: {host: db1, disk: a, severity: warning}
            exp_annotations: {summary: "Only 0.04 on db1, below 0.05"}
          - exp_labels: {host: dbx3, severity: warning}
            exp_annotations: {summary: "Only 0.09 on dbx3, below 0.1"}
          - exp_labels: {host: web1, severity: warning}
            exp_annotations: {summary: "Only 0.07 on web1, below 0.1"}
          - exp_labels: {host: sim1, severity: warning}
            exp_annotations: {summary: "Only 0.09 on sim1, below 0.1"}
          - exp_labels: {severity: warning}
            exp_annotations: {summary: "Only 0.08 on , below 0.1"}
      - {alertname: Down, eval_time: 3m}
      - alertname: Down
        eval_time: 4m
        exp_alerts:
          - exp_labels: {host: db2, job: web, severity: critical}
            exp_annotations: {summary: "db2 is down"}
"""
SETTINGS: Settings = {
    "db1": {"web_alert_low_threshold": 0.05},
    "db2": {"web_alert_low_threshold": 0.05, "web_alert_down_for": "4m"},
    "db.3": {"web_alert_low_threshold": 0.05, "web_alert_low_for": "5m"},
}


def promtool_says(promtool: str, folder: Path, rules: str) -> subprocess.CompletedProcess[str]:
    (folder / "rules.yml").write_text(rules)
    (folder / "test.yml").write_text(TEST)
    return subprocess.run(  # noqa: S603 (our own command)
        [promtool, "test", "rules", "test.yml"], cwd=folder, capture_output=True, text=True, check=False
    )


def test_alerts_fire_by_the_values_of_each_host(rules: Path, promtool: str, tmp_path: Path) -> None:
    text = render_with_overrides(rules, DEFAULTS, SETTINGS)
    done = promtool_says(promtool, tmp_path, text)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('unless on (host) host:alert_override:group{alert="Low"}', ""),
        ('and on (host) host:alert_override:group{alert="Low", set="1"}', ""),
        ("db\\\\.3", "db.3"),
        ("group by (host) (up{", "group by (host) (0 < up{"),
        ('unless on (host) host:alert_override:group{alert="Down"}', ""),
    ],
)
def test_the_test_above_notices(right: str, wrong: str, rules: Path, promtool: str, tmp_path: Path) -> None:
    content = yaml.safe_load(render_with_overrides(rules, DEFAULTS, SETTINGS))
    text = json.dumps(content)
    broken = text.replace(json.dumps(right)[1:-1], json.dumps(wrong)[1:-1])
    assert broken != text
    assert promtool_says(promtool, tmp_path, broken).returncode != 0


def test_alert_that_is_not_about_a_host_is_refused(rules: Path) -> None:
    settings: Settings = {"db1": {"web_alert_low_for": "5m", "web_alert_many_down_threshold": 9}}
    with pytest.raises(OverrideError) as caught:
        render_with_overrides(rules, DEFAULTS, settings)
    assert str(caught.value) == (
        "web_alert_many_down_threshold of host db1 cannot have an effect, because the alert ManyDown is not"
        " about one host; set it for the hosts of the group prometheus"
    )


def test_too_many_different_values(rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overrides, "MAX_SETS", 2)
    settings = {f"db{number}": {"web_alert_low_threshold": number} for number in range(3)}
    with pytest.raises(OverrideError, match="of host db0 and others have 3 different sets of values"):
        render_with_overrides(rules, DEFAULTS, settings)
    settings.pop("db2")
    assert "below 1" in render_with_overrides(rules, DEFAULTS, settings)


def test_which_alerts_there_are_cannot_differ(tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    path.write_text(
        "groups:\n- name: web\n  rules:\n"
        "[% if web_alert_low_threshold %]\n  - {alert: Low, expr: up}\n[% endif %]\n"
    )
    with pytest.raises(OverrideError, match="must not change which alerts there are"):
        render_with_overrides(path, DEFAULTS, {"db1": {"web_alert_low_threshold": 0}})


@pytest.mark.slow
@pytest.mark.parametrize("component", COMPONENTS)
def test_every_alert_about_a_host_can_differ(component: str, promtool: str, tmp_path: Path) -> None:
    path, variables = rules_file(component), defaults(component)
    settings: Settings = {}
    refused = set()
    for number, name in enumerate(sorted(alert_variables(component))):
        own = {f"host{number}": {name: 7654 if isinstance(variables[name], (int, float)) else "7654m"}}
        try:
            assert render_with_overrides(path, variables, own) != render_rules(path, variables), name
        except OverrideError:
            refused.add(name)
        else:
            settings |= own
    without_host = {
        name for alert in WITHOUT_HOST for name in variables if name.startswith(f"{stem(component, alert)}_")
    }
    assert refused == without_host & alert_variables(component)
    (tmp_path / "rules.yml").write_text(render_with_overrides(path, variables, settings))
    done = subprocess.run(  # noqa: S603 (our own command)
        [promtool, "check", "rules", "--lint=none", "--lint-fatal", tmp_path / "rules.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
