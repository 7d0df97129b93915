# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Lookup of where the hosts of a component serve it."""

from __future__ import annotations

from typing import Any

from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.lookup import FleetLookup

DOCUMENTATION = """
name: endpoints
short_description: Where the hosts of a component serve it
description:
  - Returns the address, port and URL of a component on each host of its group. Every URL between components
    comes from here, so that a port or the scheme is changed in one place.
  - A job with instances has one endpoint for each of them.
  - Hosts outside of C(--limit) count too.
author: [The Fleetwatch authors]
options:
  _terms:
    description: Names of components or of scrape jobs.
    type: list
    elements: str
    required: true
  roles_path:
    description: Folders of roles. The default are the roles of this collection and those beside the playbook.
    type: list
    elements: path
notes:
  - Call it with C(query); C(lookup) returns a bare item instead of a list when there is only one.
  - Each host may set C(<job>_port), C(<job>_scheme), C(<job>_metrics_path) and C(fleetwatch_address).
seealso:
  - plugin: fleetwatch.monitoring.scrape_jobs
    plugin_type: lookup
"""

EXAMPLES = """
- name: Show the URLs of all Alertmanagers
  ansible.builtin.debug:
    msg: "{{ query('fleetwatch.monitoring.endpoints', 'alertmanager') | map(attribute='url') }}"
"""

RETURN = """
_raw:
  description: The endpoints, in the order of the names and of the inventory; none when the group is empty.
  type: list
  elements: dict
  contains:
    host:
      description: Name of the host in the inventory.
      type: str
      sample: monitor
    address:
      description: Host name or IP address, without brackets.
      type: str
      sample: 10.0.0.5
    port:
      description: TCP port.
      type: int
      sample: 9093
    netloc:
      description: Address and port; an IPv6 address has brackets.
      type: str
      sample: 10.0.0.5:9093
    scheme:
      description: C(http) or C(https).
      type: str
      sample: http
    url:
      description: URL without a path.
      type: str
      sample: http://10.0.0.5:9093
    path:
      description: Path of its metrics.
      type: str
      sample: /metrics
"""


class LookupModule(FleetLookup):
    """Yield one item for each place where one of the named components is served."""

    def run(
        self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """Return the endpoints."""
        variables = variables or {}
        fleet = self.fleet(variables, kwargs)
        return [endpoint.as_dict() for name in terms for endpoint in fleet.endpoints(name)]
