# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Documentation of the action plugin of this name, which does all the work on the controller."""

from __future__ import annotations

DOCUMENTATION = """
module: check_inventory
short_description: Find every mistake in the inventory before any host is touched
description:
  - Checks the variables of all hosts, whatever the limit of the run, and fails once with a list of all
    problems, one line each, which names the setting, the hosts, the file, and the cure.
  - Found are a wrong type or an unknown choice (against C(meta/argument_specs.yml) of the roles whose groups
    the host is in), a variable C(<component>_...) or C(fleetwatch_...) that does not exist, a required
    variable that is missing, an unusable port, path, scheme or address, two hosts with one address, a host of
    any component that is not in the group C(node_exporter), and invalid C(fleetwatch_target_labels).
  - Names of groups and variables that closely resemble those of a component give a warning.
  - Variables that a play sets with C(vars) are not seen; those of C(--extra-vars) are.
  - Facts are not known to it. A value that needs facts is not judged.
  - No value of a variable but an address is ever shown, because it might be a secret.
author: [The Fleetwatch authors]
options:
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
# With hosts: all and run_once it also runs under --limit, which would leave out a play for localhost.
- name: Check the inventory
  hosts: all
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - name: Find mistakes in the inventory
      fleetwatch.monitoring.check_inventory:
      run_once: true
"""

RETURN = """
problems:
  description: One line for each problem.
  returned: always
  type: list
  elements: str
  sample:
    - "node_exporter_prot is not a setting; did you mean node_exporter_port? (host web1, hosts.yml:7)"
"""
