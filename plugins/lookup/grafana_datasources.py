# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Lookup of the datasources that Grafana gets from the inventory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils import grafana
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.fleet import FleetError
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.lookup import FleetLookup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.fleet import Fleet

DOCUMENTATION = """
name: grafana_datasources
short_description: Datasources of Grafana, from the inventory
description:
  - Returns what Grafana's provisioning file of datasources holds. Each host of the groups C(prometheus),
    C(alertmanager), C(loki) and C(tempo) is a datasource; they link to one another (from metrics to traces,
    from logs to traces and back). The first Prometheus is the default.
  - Datasources that are in the file no more are deleted by Grafana (C(prune), since Grafana 11).
author: [The Fleetwatch authors]
options:
  _terms:
    description: None are taken.
  settings:
    description: Component to what is changed in each datasource of it; dictionaries are merged.
    type: dict
    default: {}
  extra:
    description: The site's own datasources, as Grafana takes them. Their values are literal; C($) needs no
      escape.
    type: list
    elements: dict
    default: []
  roles_path:
    description: Folders of roles. The default are the roles of this collection and those beside the playbook.
    type: list
    elements: path
"""

EXAMPLES = """
- name: Show the names of the datasources
  ansible.builtin.debug:
    msg: "{{ lookup('fleetwatch.monitoring.grafana_datasources').datasources | map(attribute='name') }}"
"""

RETURN = """
_raw:
  description: One item, the content of the file.
  type: list
  elements: dict
"""


class LookupModule(FleetLookup):
    """Yield the content of one provisioning file."""

    def run(
        self,
        terms: list[Any],  # noqa: ARG002 - part of Ansible's interface
        variables: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[dict[str, Any]]:
        """Return the file."""
        fleet = self.fleet(variables or {}, kwargs)
        sources = list(_sources(fleet))
        try:
            entries = grafana.datasources(
                sources, self.get_option("settings") or {}, self.get_option("extra") or []
            )
        except grafana.GrafanaError as error:
            raise FleetError(str(error)) from error
        return [grafana.datasource_file(entries)]


def _sources(fleet: Fleet) -> Iterator[grafana.Source]:
    for kind in grafana.NAMES:
        if kind not in fleet.roles and kind not in fleet.jobs:
            continue
        for endpoint in fleet.endpoints(kind):
            interval = fleet.variables(endpoint.host).get(f"{kind}_scrape_interval", "")
            yield grafana.Source(kind, endpoint.host, endpoint.url, str(interval or ""))
