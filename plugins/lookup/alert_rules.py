# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Lookup of the alert and recording rules of all components that have hosts."""

from __future__ import annotations

from collections import ChainMap
from typing import TYPE_CHECKING, Any

import yaml
from ansible.errors import AnsibleError
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.fleet import FleetError
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.lookup import FleetLookup
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.overrides import render_with_overrides
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.rules import (
    JOBS,
    RulesError,
    rules_variables,
)
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.slo import FILE as SLO_FILE
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.slo import (
    SLOS,
    SloError,
    slo_problems,
    slo_rules,
    with_brought,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ansible.template import Templar

DOCUMENTATION = """
name: alert_rules
short_description: Alert and recording rules of the components that have hosts
description:
  - Renders the files C(monitoring/rules.yml) and C(monitoring/recording_rules.yml) of every component whose
    group has hosts; they become C(<component>.yml) and C(<component>_recording.yml).
  - Such a file is a Prometheus rule file and a Jinja template at once. It uses C([[ name ]]) for variables
    and C([% if … %]) for blocks, so that C({{ $labels.host }}) stays as it is.
  - Variables have the value that the current host (the one that runs Prometheus) gives them, or else the
    default of the role. C(fleetwatch_jobs) is the list of the scrape jobs that have targets.
  - A scraped host that the inventory gives another value of a variable C(<component>_alert_…) has its alerts
    from rules of its own, with that value; those for all hosts leave it out.
  - The list C(fleetwatch_slos) becomes C(slo.yml), with recordings and alerts for each objective. So do the
    lists C(monitoring/slos.yml) of the components, templates as above; of two objectives of one service and
    name, that of C(fleetwatch_slos) counts.
author: [The Fleetwatch authors]
options:
  _terms:
    description: None are taken.
  roles_path:
    description: Folders of roles. The default are the roles of this collection and those beside the playbook.
    type: list
    elements: path
"""

EXAMPLES = """
- name: Write the rule files
  ansible.builtin.copy:
    content: "{{ item.value }}"
    dest: "/etc/prometheus/rules/{{ item.key }}"
    owner: root
    group: prometheus
    mode: "0640"
  loop: "{{ lookup('fleetwatch.monitoring.alert_rules') | dict2items }}"
  loop_control:
    label: "{{ item.key }}"
"""

RETURN = """
_raw:
  description: One item, which maps the names of the rule files to their texts.
  type: list
  elements: dict
  sample:
    - node_exporter.yml: "groups: []"
"""

RUNBOOK_URL = "fleetwatch_runbook_url"


class LookupModule(FleetLookup):
    """Yield one dictionary of all rule files."""

    def run(
        self,
        terms: list[Any],  # noqa: ARG002 - part of Ansible's interface
        variables: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[dict[str, str]]:
        """Return the rule files."""
        variables = variables or {}
        fleet = self.fleet(variables, kwargs)
        jobs = {JOBS: [job.name for job in fleet.scrape_jobs_of(variables, self._templar)]}
        settings = fleet.alert_settings()
        templar = self._templar.copy_with_new_env(
            available_variables=ChainMap(jobs, variables, fleet.defaults)
        )
        files: dict[str, str] = {}
        brought: list[dict[str, Any]] = []
        for component in fleet.components.values():
            if fleet.hosts(component.name):
                if component.rules:
                    files[f"{component.name}.yml"] = _render(component.rules, templar, settings)
                if component.recording_rules:
                    files[f"{component.name}_recording.yml"] = _render(component.recording_rules, templar, {})
                if component.slos:
                    brought += _slos(component.slos, templar)
        if slos := with_brought(_value(SLOS, templar) or [], brought):
            try:
                files[SLO_FILE] = slo_rules(slos, str(_value(RUNBOOK_URL, templar)))
            except SloError as error:
                raise FleetError(str(error)) from error
        return [files]


def _slos(path: Path, templar: Templar) -> list[dict[str, Any]]:
    slos: list[dict[str, Any]] = yaml.safe_load(_render(path, templar, {}))
    if problems := slo_problems(slos):
        raise FleetError(f"{path}: {problems[0]}")
    return slos


def _value(name: str, templar: Templar) -> Any:
    return templar.template(templar.available_variables.get(name))


def _render(path: Path, templar: Templar, settings: Mapping[str, Mapping[str, Any]]) -> str:
    known = templar.available_variables
    values = {}
    try:
        for name in sorted(rules_variables(path) & known.keys()):
            try:
                values[name] = templar.template(known[name])
            except AnsibleError as error:
                raise FleetError(f"{path}: the value of {name}: {error}") from error
        return render_with_overrides(path, values, settings)
    except RulesError as error:
        raise FleetError(str(error)) from error
