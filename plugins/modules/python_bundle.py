#!/usr/bin/python
# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Documentation of python_bundle; the work is done on the controller, by the action plugin of this name."""

DOCUMENTATION = r"""
module: python_bundle
short_description: Build the bundle of the Python services for a target's Python
description:
  - Collects the Python services of Fleetwatch and all their dependencies, hash-locked by
    C(requirements/services.txt), into one archive for one Python version and architecture. A target
    then needs no access to a package index, nor pip.
  - Runs on the controller, in the Python that runs Ansible, whatever host the task is for. It never connects
    to the host, so it takes neither C(delegate_to) nor C(become).
  - The archive is called C(fleetwatch-<version>+<digits>.linux-<arch>-py<X.Y>.tar.gz), where the digits stand
    for lock file and sources, and holds the directory C(lib), to be named in E(PYTHONPATH). The same inputs
    give the same bytes.
  - When it is in the cache, nothing is built and no network is used. Runs at the same time build once.
  - Wheels come from where pip takes them (index, proxy and certificates as configured for pip on the
    controller), or from O(wheel_dir).
options:
  python_version:
    description: The target's Python, as X.Y. Quote it, for YAML reads C(3.10) as a number.
    type: str
    required: true
  machine:
    description: The target's architecture, as C(uname -m) and RV(ignore:ansible_facts.architecture) name it.
    type: str
    required: true
  cache_dir:
    description: Where the controller keeps bundles and wheels. The last five of each target stay.
    type: path
    default: ~/.cache/fleetwatch
  wheel_dir:
    description:
      - A directory of wheels on the controller, to be used instead of a package index, for sites without
        internet.
    type: path
  source:
    description: >-
      The tree that holds C(pyproject.toml), C(requirements/services.txt) and C(src). The default is the one
      this plugin is in.
    type: path
attributes:
  check_mode:
    description: >-
      Builds in check mode too, so that the tasks after it can show their changes. A file in the controller's
      cache is no change of a host, so RV(ignore:changed) is always false.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author: The Fleetwatch authors (@fleetwatch)
"""

EXAMPLES = r"""
- name: Build the bundle of the Python services
  fleetwatch.monitoring.python_bundle:
    python_version: "{{ ansible_facts.python.version.major }}.{{ ansible_facts.python.version.minor }}"
    machine: "{{ ansible_facts.architecture }}"
  register: fleetwatch_bundle

- name: Install the Python services
  fleetwatch.monitoring.release_archive:
    name: fleetwatch
    version: "{{ fleetwatch_bundle.version }}"
    url: "{{ fleetwatch_bundle.path }}"
    download: controller
    checksums: "{{ {fleetwatch_bundle.arch: fleetwatch_bundle.sha256} }}"
    strip: false
"""

RETURN = r"""
path:
  description: The bundle, on the controller.
  returned: success
  type: str
  sample: /home/ops/.cache/fleetwatch/bundles/fleetwatch-0.1.0+5f3a9c01.linux-amd64-py3.13.tar.gz
sha256:
  description: Its SHA-256.
  returned: success
  type: str
version:
  description: The package's version, with digits that stand for lock file and sources.
  returned: success
  type: str
  sample: 0.1.0+5f3a9c01
arch:
  description: Go's name of the architecture, as release archives use it.
  returned: success
  type: str
  sample: amd64
built:
  description: Whether the bundle was built in this run, rather than found in the cache.
  returned: success
  type: bool
"""
