# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Documentation of the action plugin of this name, which does all the work on the controller."""

from __future__ import annotations

DOCUMENTATION = """
module: verify_report
short_description: Show what the hosts found as one table, and fail if something does not work
description:
  - Gathers what M(fleetwatch.monitoring.verify_host) registered on the hosts of the play, judges their clocks
    and prints one table. Equal lines of several hosts are one.
  - Fails when one of the lines failed. A host that could not be reached is such a line.
author: [The Fleetwatch authors]
options:
  results:
    description: Name of the variable that M(fleetwatch.monitoring.verify_host) was registered as.
    type: str
    required: true
  clock_tolerance:
    description:
      - Seconds that the clock of a host may differ from the controller's and from those of the other hosts.
        What could be due to the time that the connection takes is not counted as a difference.
    type: float
    default: 1
  roles_path:
    description: Folders of roles. The default are the roles of this collection and those beside the playbook.
    type: list
    elements: path
attributes:
  check_mode:
    description: It changes nothing.
    support: full
"""

EXAMPLES = """
- name: Show what was found
  fleetwatch.monitoring.verify_report:
    results: verify_result
  run_once: true
"""

RETURN = """
failures:
  description: Component and check of each line that failed.
  returned: always
  type: list
  elements: str
  sample: ["prometheus: targets of node_exporter"]
"""
