# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Lookup of the scrape jobs and their targets."""

from __future__ import annotations

from typing import Any

from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.lookup import FleetLookup

DOCUMENTATION = """
name: scrape_jobs
short_description: Scrape jobs of Prometheus and their targets, from the inventory
description:
  - Reads the file C(monitoring/scrape.yml) of every component and the inventory, and returns each scrape job
    that has targets. A job whose group is empty, or whose hosts all opted out, is not returned.
  - A job that a host runs several times names, with the key C(instances), the variable that says how often.
    Each instance is a target, at C(<job>_port) plus its number, which is counted from 1.
  - A job that its hosts ask others for names, with the key C(prober), the job by which they are reached. Each
    target is then a probe by one of them. What is probed is C(<job>_probes) of every host, C(<prober>_probes)
    and C(<prober>_probe_hosts) of those that ask, with the modules of C(<prober>_modules).
  - Hosts outside of C(--limit) count too, so a limited run never removes targets.
  - Every target carries the labels C(host) (its name in the inventory) and those that
    C(fleetwatch_target_labels) takes from its groups. The labels C(__scheme__) and C(__metrics_path__) are
    set where a host differs from its job.
author: [The Fleetwatch authors]
options:
  _terms:
    description: None are taken.
  roles_path:
    description: Folders of roles. The default are the roles of this collection and those beside the playbook.
    type: list
    elements: path
notes:
  - Each host may set C(<job>_port), C(<job>_scheme), C(<job>_metrics_path), C(<job>_scrape) and
    C(fleetwatch_address).
seealso:
  - plugin: fleetwatch.monitoring.endpoints
    plugin_type: lookup
"""

EXAMPLES = """
- name: Write one target file for each job
  ansible.builtin.copy:
    content: "{{ item.file_sd }}"
    dest: "/etc/prometheus/targets/{{ item.job }}.json"
    owner: root
    group: prometheus
    mode: "0640"
  loop: "{{ query('fleetwatch.monitoring.scrape_jobs') }}"
  loop_control:
    label: "{{ item.job }}"
"""

RETURN = """
_raw:
  description: The jobs, sorted by name.
  type: list
  elements: dict
  contains:
    job:
      description: Name of the job.
      type: str
      sample: node_exporter
    config:
      description: Further keys for the C(scrape_config), as the component wrote them.
      type: dict
      sample: {honor_labels: true}
    file_sd:
      description:
        - Text of the file for C(file_sd_configs), in JSON, one line a target, sorted by host and instance.
          The same inventory gives the same text. It is text and not data because Ansible takes seconds to
          pass on the data of ten thousand targets; C(from_json) turns it into data.
      type: str
"""


class LookupModule(FleetLookup):
    """Yield one item for each scrape job that has targets."""

    def run(
        self,
        terms: list[Any],  # noqa: ARG002 - part of Ansible's interface
        variables: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[dict[str, Any]]:
        """Return the jobs, sorted by name."""
        variables = variables or {}
        fleet = self.fleet(variables, kwargs)
        jobs = fleet.scrape_jobs_of(variables, self._templar)
        return [{"job": job.name, "config": job.config, "file_sd": job.file_sd()} for job in jobs]
