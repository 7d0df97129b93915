"""The alert rules of every component, with the thresholds that the roles have by default.

promtool runs the unit tests that lie beside the rules. As a test that cannot fail is worth nothing, the rules
are then broken on purpose, and promtool must notice.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.splitter import parse_kv
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.rules import render_rules, rules_variables
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.slo import ALERTS as SLO_ALERTS

from fleetwatch.store import heartbeats
from tests.rules.conftest import RunPromtool

ROOT = Path(__file__).parents[2]
ROLES = ROOT / "roles"
RUNBOOKS = ROOT / "docs" / "runbooks"
COMPONENTS = sorted(path.parents[1].name for path in ROLES.glob("*/monitoring/rules.yml"))
JOBS = ["node_exporter", "prometheus"]  # what the tests of TargetAbsent expect
ALWAYS_FIRES = "Watchdog"
WITHOUT_DATA = {ALWAYS_FIRES, "TargetAbsent"}  # the absence of data is what these are about
WITHOUT_HOST = {
    ALWAYS_FIRES,
    "TargetDown",
    "TargetAbsent",
    "AlertmanagerClusterDown",
    "AlertmanagerConfigsDiffer",
}
RAISED_BY_THE_RECEIVER = heartbeats.ALERT  # not by a rule: it says that none is evaluated
SECTIONS = ["Meaning", "Impact", "Check", "Fix", "Silence", "Threshold"]
NEVER_SILENCED = {ALWAYS_FIRES, "AlertReceiverNotificationsParked", "PrometheusNotConnectedToAlertmanager"}
SILENCE_PLAYBOOK = ROOT / "playbooks" / "silence.yml"

Rule = dict[str, Any]
each_component = pytest.mark.parametrize("component", COMPONENTS)


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@cache
def defaults(component: str) -> dict[str, Any]:
    """The variables that a rule file may use; for the alerts these are plain values."""
    common: dict[str, Any] = load(ROLES / "common/defaults/main.yml")
    own: dict[str, Any] = load(ROLES / component / "defaults/main.yml")
    return common | own | {"fleetwatch_jobs": JOBS}


def alert_variables(component: str) -> set[str]:
    return {name for name in defaults(component) if name.startswith(f"{component}_alert_")}


def rules_file(component: str) -> Path:
    return ROLES / component / "monitoring" / "rules.yml"


def render(component: str, **changes: Any) -> Any:
    return yaml.safe_load(render_rules(rules_file(component), defaults(component) | changes))


def alerts(component: str, **changes: Any) -> dict[str, Rule]:
    groups = render(component, **changes)["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def all_alerts() -> dict[str, str]:
    """Every alert, with its component."""
    return {alert: component for component in COMPONENTS for alert in alerts(component)}


def stem(component: str, alert: str) -> str:
    """``PrometheusTSDBReloadsFailing`` of prometheus gives ``prometheus_alert_tsdb_reloads_failing``."""
    words = alert.replace("PostgreSQL", "Postgresql")  # one word
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", words).lower()
    return f"{component}_alert_{snake.removeprefix(component + '_')}"


def owned_by(variable: str) -> str:
    """The stem of the alert that a variable is for."""
    return re.sub(r"_(for|threshold|window|jobs)$", "", variable)


@each_component
def test_rules_pass_the_checker(component: str, run_promtool: RunPromtool) -> None:
    code, output = run_promtool(
        rules_file(component), render(component), "check", "rules", "--lint=all", "--lint-fatal", "rules.yml"
    )
    assert code == 0, output


@each_component
def test_alerts_fire_when_they_should(component: str, run_promtool: RunPromtool) -> None:
    code, output = run_promtool(rules_file(component), render(component), "test", "rules", "rules_test.yml")
    assert code == 0, output


def without_waiting(rule: Rule) -> Rule:
    return rule | {"for": "0s"} if "for" in rule else rule


def with_comparisons_moved(rule: Rule) -> Rule:
    """Move each comparison by the smallest step, so that the boundary falls on the other side."""
    steps = {">": ">=", "<": "<=", ">=": ">", "<=": "<", "== 0": ">= 0", "== 1": "<= 1"}
    expression = re.sub(r"(?<![=!<>])(== [01]|[<>]=?)(?!=)", lambda found: steps[found[1]], rule["expr"])
    return rule | {"expr": expression}


def without_label_matchers(rule: Rule) -> Rule:
    return rule | {"expr": re.sub(r'\{(?!job=~"\.\+")[^}]*\}', "", rule["expr"])}


@pytest.mark.slow
@each_component
@pytest.mark.parametrize(
    "broken",
    [without_waiting, with_comparisons_moved, without_label_matchers],
    ids=lambda broken: broken.__name__,
)
def test_broken_rules_are_noticed(
    component: str, broken: Callable[[Rule], Rule], run_promtool: RunPromtool
) -> None:
    rules = render(component)
    expected = set()
    for group in rules["groups"]:
        changed = [broken(rule) for rule in group["rules"]]
        expected |= {rule["alert"] for rule in changed if rule not in group["rules"]}
        group["rules"] = changed
    _, output = run_promtool(rules_file(component), rules, "test", "rules", "rules_test.yml")
    noticed = set(re.findall(r"alertname: (\w+), time:", output))
    assert noticed == expected, output


@each_component
def test_each_alert_is_tested_firing_silent_and_without_data(component: str) -> None:
    tests = load(rules_file(component).with_name("rules_test.yml"))["tests"]
    known = set(alerts(component))
    firing: set[str] = set()
    silent: set[str] = set()
    no_data: set[str] = set()
    for test in tests:
        for case in test["alert_rule_test"]:
            quiet = silent if test["input_series"] else no_data
            (firing if case.get("exp_alerts") else quiet).add(case["alertname"])
    assert firing | silent | no_data <= known, "a test names an alert that does not exist"
    assert known - firing == set(), "never seen firing"
    assert known - silent == {ALWAYS_FIRES} & known, "never seen silent"
    assert known - no_data == WITHOUT_DATA & known, "not tried without data"


@each_component
def test_each_alert_says_what_a_reader_needs(component: str) -> None:
    for alert, rule in alerts(component).items():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}, alert
        assert ("for" in rule) is (alert != ALWAYS_FIRES), alert
        annotations = rule["annotations"]
        assert annotations.keys() == {"summary", "description", "runbook_url"}, alert
        assert len(annotations["summary"]) < 100, f"{alert}: the summary is the subject of a mail"
        assert ("$labels.host" in annotations["summary"]) is (alert not in WITHOUT_HOST), alert
        assert len(annotations["description"]) > len(annotations["summary"]), alert
        assert annotations["runbook_url"] == f"{defaults(component)['fleetwatch_runbook_url']}/{alert}.md"


def test_names_of_alerts_and_groups_are_unique() -> None:
    groups = [group["name"] for component in COMPONENTS for group in render(component)["groups"]]
    assert len(groups) == len(set(groups))
    assert len(all_alerts()) == sum(len(alerts(component)) for component in COMPONENTS)


@each_component
def test_variables_of_the_rules_are_declared_and_used(component: str) -> None:
    used = rules_variables(rules_file(component)) - {"fleetwatch_runbook_url", "fleetwatch_jobs"}
    assert used == alert_variables(component)
    options = load(ROLES / component / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    for name in used:
        value = defaults(component)[name]
        assert options[name]["type"] == ("float" if name.endswith("_threshold") else "str"), name
        assert isinstance(value, (int, float) if name.endswith("_threshold") else str), name
        assert options[name]["description"].endswith("."), name


@each_component
def test_each_alert_has_variables_of_its_own(component: str) -> None:
    unchanged = alerts(component)
    owners = {stem(component, alert): alert for alert in unchanged}
    for name in alert_variables(component):
        changed = alerts(component, **{name: 7654 if name.endswith("_threshold") else "7654m"})
        owner = owners[owned_by(name)]
        assert [alert for alert, rule in changed.items() if rule != unchanged[alert]] == [owner]
        field = "for" if name.endswith("_for") else "expr"
        assert "7654" in changed[owner][field], f"{name} does not change `{field}` of {owner}"
    for prefix, alert in owners.items():
        assert (f"{prefix}_for" in defaults(component)) is (alert != ALWAYS_FIRES), alert


def test_each_alert_has_a_runbook_page_and_no_page_is_orphaned() -> None:
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == {*all_alerts(), *SLO_ALERTS, RAISED_BY_THE_RECEIVER}


def test_the_page_of_the_receivers_own_alert_is_complete() -> None:
    page = (RUNBOOKS / f"{RAISED_BY_THE_RECEIVER}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {RAISED_BY_THE_RECEIVER}\n")
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == SECTIONS
    timeout = defaults("alert_receiver")["alert_receiver_watchdog_timeout"]
    assert f"`alert_receiver_watchdog_timeout` (default `{timeout}`)" in page
    interval = defaults("alertmanager")["alertmanager_watchdog_interval"]
    assert f"`alertmanager_watchdog_interval` (default `{interval}`)" in page
    assert timeout >= 5 * interval, "one heartbeat that is late must make no alarm"


@each_component
def test_runbook_pages_are_complete(component: str) -> None:
    for alert in alerts(component):
        page = (RUNBOOKS / f"{alert}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {alert}\n"), alert
        assert re.findall(r"^## (.*)$", page, re.MULTILINE) == SECTIONS, alert
        prefix = stem(component, alert)
        variables = {name for name in alert_variables(component) if owned_by(name) == prefix}
        assert set(re.findall(rf"`({prefix}_\w+)[`:]", page)) == variables, f"{alert}: variables in the page"


def silence_variables(section: str) -> list[dict[str, str]]:
    """Return the variables of each command in a page's section Silence, as Ansible reads them."""
    commands = []
    for block in re.findall(r"^```bash\n(.*?)^```", section, re.MULTILINE | re.DOTALL):
        program, *words = shlex.split(block.replace("\\\n", " "))
        assert program == "ansible-playbook"
        assert words[:3] == ["-i", "inventory/production", "playbooks/silence.yml"]
        values = [word for option, word in pairwise(words) if option == "-e"]
        commands.append({name: text for value in values for name, text in parse_kv(value).items()})
    return commands


@each_component
def test_runbook_pages_tell_how_to_silence(component: str) -> None:
    settings = {f"silence_{setting}" for setting in load(SILENCE_PLAYBOOK)[0]["vars"]["settings"]}
    for alert in alerts(component):
        page = (RUNBOOKS / f"{alert}.md").read_text(encoding="utf-8")
        section = page.partition("## Silence\n")[2].partition("## ")[0].strip()
        commands = silence_variables(section)
        assert section.startswith("Never") is (alert in NEVER_SILENCED), alert
        assert bool(commands) is (alert not in NEVER_SILENCED), alert
        for variables in commands:
            assert variables.keys() <= settings, f"{alert}: a comment with spaces needs two quotes"
            assert alert in variables["silence_alert"].split(","), alert
            assert all(variables[name] for name in ("silence_duration", "silence_comment")), alert
            assert not (alert in WITHOUT_HOST and "silence_hosts" in variables), f"{alert} has no label host"


def test_links_between_runbook_pages_work() -> None:
    for path in RUNBOOKS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
            assert (RUNBOOKS / target).is_file(), f"{path.name} links to {target}"


def test_runbook_index_lists_every_alert() -> None:
    expected = [
        f"| [{alert}]({alert}.md) | {rule['labels']['severity']} | {rule.get('for', '')} | {component} |"
        for component in COMPONENTS
        for alert, rule in sorted(alerts(component).items())
    ] + [
        f"| [{alert}]({alert}.md) | {burn.severity} | {burn.wait} | fleetwatch_slos |"
        for alert, burn in SLO_ALERTS.items()
    ]
    rows = re.findall(r"^\| \[.*$", (RUNBOOKS / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == expected, "the rows should be:\n" + "\n".join(expected)
