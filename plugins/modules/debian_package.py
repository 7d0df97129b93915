#!/usr/bin/python
"""Documentation of the action plugin of the same name; nothing here runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: debian_package
short_description: Have a Debian package installed, without starting what it brings along
description:
  - Asks dpkg first. A package that is there costs one short command; the network is not touched.
  - Installs with M(ansible.builtin.apt) otherwise, after refreshing a package index older than a day, and
    keeps the package from starting its services, since they are configured by a later task.
  - In check mode it works on a host whose package index was never fetched.
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  name:
    description: Name of the package.
    type: str
    required: true
author:
  - Fleetwatch
"""

EXAMPLES = r"""
- name: Install node_exporter
  fleetwatch.monitoring.debian_package:
    name: prometheus-node-exporter
"""

RETURN = r""" # """
