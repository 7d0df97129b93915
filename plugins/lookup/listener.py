# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Lookup of where the current host itself serves a job."""

from __future__ import annotations

from typing import Any

from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.lookup import FleetLookup

DOCUMENTATION = """
name: listener
short_description: Where the current host listens for a job, and how it reaches itself
description:
  - Returns the listen address of a component on the current host, and the URL by which the host itself
    reaches it.
  - A job with instances has one item for each of them; call it with C(query).
  - M(fleetwatch.monitoring.endpoints#lookup) tells how the other hosts reach it.
author: [The Fleetwatch authors]
options:
  _terms:
    description: Name of the component or of the scrape job; exactly one.
    type: list
    elements: str
    required: true
  roles_path:
    description: Folders of roles. The default are the roles of this collection and those beside the playbook.
    type: list
    elements: path
notes:
  - Each host may set C(<job>_listen_address), C(<job>_port) and C(<job>_scheme).
seealso:
  - plugin: fleetwatch.monitoring.endpoints
    plugin_type: lookup
"""

EXAMPLES = """
- name: Wait until Prometheus is ready
  ansible.builtin.uri:
    url: "{{ lookup('fleetwatch.monitoring.listener', 'prometheus').url }}/-/ready"
"""

RETURN = """
_raw:
  description: Where the host listens.
  type: list
  elements: dict
  contains:
    address:
      description: Listen address and port.
      type: str
      sample: 0.0.0.0:9090
    url:
      description: URL without a path; an address that stands for all is replaced by the loopback address.
      type: str
      sample: http://127.0.0.1:9090
"""


class LookupModule(FleetLookup):
    """Yield where the current host listens."""

    def run(
        self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[dict[str, str]]:
        """Return one item for each term, or for each of its instances."""
        variables = variables or {}
        fleet = self.fleet(variables, kwargs)
        own = fleet.variables(variables["inventory_hostname"])
        endpoints = [endpoint for term in terms for endpoint in fleet.endpoints_of(fleet.job(term), own)]
        return [{"address": endpoint.listener, "url": endpoint.local_url} for endpoint in endpoints]
