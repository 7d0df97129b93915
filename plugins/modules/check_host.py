#!/usr/bin/python
"""Documentation of the action plugin of the same name; nothing here runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_host
short_description: Learn what a host is, and refuse one that is not supported
description:
  - Asks the host for its distribution, architecture and Python in one short command, and returns them as
    facts of the usual names.
  - Fails for a distribution that is not in O(supported), before anything is changed.
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  supported:
    description: Name of the distribution to its supported major versions.
    type: dict
    required: true
author:
  - Fleetwatch
"""

EXAMPLES = r"""
- name: Check that the hosts are supported
  fleetwatch.monitoring.check_host:
    supported: {Debian: ["12", "13"]}
"""

RETURN = r"""
ansible_facts:
  description:
    - C(architecture), C(distribution), C(distribution_version), C(distribution_major_version) and
      C(python_version).
  returned: success
  type: dict
"""
