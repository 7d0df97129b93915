#!/usr/bin/python
# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""The module release_archive: one task has a version of a program present, verified and in use."""

DOCUMENTATION = r"""
module: release_archive
short_description: Install one version of a program from its release archive
description:
  - Has the archive's SHA-256 verified, unpacks it to C(<root>/<name>/<version>) and switches the symbolic
    link C(<root>/<name>/current) to it in one step.
  - A version's directory is complete or absent, whenever the run is interrupted, and what an interrupted run
    left is removed by the next. Runs for the same O(name) wait for each other.
  - When the version is present, made from the archive with the same SHA-256, nothing is fetched. So going
    back to an older version that is still there needs no network either.
  - The programs in the archive must be built for the host's architecture.
  - Everything is owned by root, directories and programs have mode 0755 and other files 0644.
options:
  name:
    description: Name of the program, and of its directory.
    type: str
    required: true
  state:
    description: V(absent) removes all versions and the links to their programs.
    type: str
    choices: [present, absent]
    default: present
  version:
    description:
      - The version to have, and the name of its directory.
      - Required with O(state=present).
    type: str
  url:
    description:
      - "The archive: an C(http://) or C(https://) address, C(file:///path) or an absolute path.
        A tar archive (gzip, bzip2 or xz) or a zip archive."
      - C({version}) and C({arch}) in it are filled in; the latter is Go's name of the host's architecture
        (C(amd64), C(arm64), C(armv7), C(386), C(ppc64le), C(s390x), C(riscv64)).
      - A user name and password for the server may be in the address or in C(~/.netrc). Proxies are taken
        from the environment.
      - Required with O(state=present).
    type: str
  checksums:
    description:
      - Architecture, named as in C({arch}), to the SHA-256 of its archive. Never skipped, wherever the
        archive comes from.
      - Required with O(state=present).
    type: dict
  download:
    description:
      - Who fetches the archive. V(controller) is for hosts that cannot reach O(url). It is fetched once
        into O(cache_dir) however many hosts there are, and copied to those that need it.
      - With V(controller), a path in O(url) is a path on the controller; a relative one is looked for in
        the C(files) directories of role and playbook.
    type: str
    choices: [target, controller]
    default: target
  cache_dir:
    description: Where the controller keeps archives.
    type: path
    default: ~/.cache/fleetwatch/archives
  strip:
    description:
      - Whether the archive has a single top directory, to be left out, as upstream archives do.
      - Set to V(false) for archives without one.
    type: bool
    default: true
  rename:
    description:
      - Path in the archive (without the top directory) to the path it gets below the version's directory.
      - C({version}) and C({arch}) are filled in.
    type: dict
    default: {}
  programs:
    description: Paths, without the top directory, of the programs that the archive must hold.
    type: list
    elements: str
    default: []
  link:
    description: Whether to link the programs into O(bin_dir).
    type: bool
    default: false
  keep:
    description: How many versions stay beside the current one, those used last, so that a rollback is quick.
    type: int
    default: 2
  timeout:
    description: Seconds without an answer after which an attempt to fetch fails. There are three attempts.
    type: int
    default: 30
  root:
    description: Directory that holds the program's directory.
    type: path
    default: /opt
  bin_dir:
    description: Directory for the links to programs.
    type: path
    default: /usr/local/bin
  archive:
    description: The archive's copy on the host, for O(download=controller). Set by the action plugin only.
    type: path
notes:
  - Restart the service when RV(switched) is true, rather than on any change; the latter also covers
    links and the removal of old versions.
attributes:
  check_mode:
    description: Predicts the change, without the network.
    support: full
  diff_mode:
    description: Shows versions, checksum and links before and after.
    support: full
author: The Fleetwatch authors (@fleetwatch)
"""

EXAMPLES = r"""
- name: Install Prometheus
  fleetwatch.monitoring.release_archive:
    name: prometheus
    version: 3.5.0
    url: https://github.com/prometheus/prometheus/releases/download/v{version}/prometheus-{version}.linux-{arch}.tar.gz
    checksums:
      amd64: e811827af26d822afa09e1d28314b61b618b12cf5369835b67d5b0b2e4bcdb1f
    programs: [prometheus, promtool]
    link: true

- name: Install a zip archive that holds nothing but the program
  fleetwatch.monitoring.release_archive:
    name: loki
    version: 3.7.6
    url: https://mirror.example.com/loki/{version}/loki-linux-{arch}.zip
    checksums: "{{ loki_release_checksums }}"
    strip: false
    rename:
      "loki-linux-{arch}": loki
    programs: [loki]

- name: Install from a directory on the controller, where hosts have no internet
  fleetwatch.monitoring.release_archive:
    name: node_exporter
    version: 1.11.1
    url: /srv/releases/node_exporter-{version}.linux-{arch}.tar.gz
    download: controller
    checksums: "{{ node_exporter_release_checksums }}"
    programs: [node_exporter]
"""

RETURN = r"""
version:
  description: The version in use after the run (in check mode, the one that would be).
  returned: success, and O(state=present)
  type: str
path:
  description: Directory of that version.
  returned: success, and O(state=present)
  type: str
  sample: /opt/prometheus/3.5.0
previous_version:
  description: The version in use before the run, null if there was none.
  returned: success
  type: str
switched:
  description: Whether the program in use is another than before, so that its service needs a restart.
  returned: success
  type: bool
removed:
  description: Versions that were removed.
  returned: success
  type: list
  elements: str
arch:
  description: Go's name of the host's architecture.
  returned: success, and O(state=present)
  type: str
"""

import os  # noqa: E402 - Ansible's documentation blocks come first
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402
from urllib.parse import urlsplit  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.fleetwatch.monitoring.plugins.module_utils import release  # noqa: E402


def wanted_from(params: dict[str, Any]) -> release.Wanted:
    """Check the parameters and fill in the placeholders."""
    version = release.checked_name("version", params["version"])
    arch = release.host_arch()
    url = release.expanded("url", params["url"], version, arch)
    if params["download"] == "target":
        release.local_path(url)
    if params["keep"] < 0:
        raise release.ReleaseError("keep: must be 0 or more.")

    def inner(setting: str, path: str) -> str:
        return release.inner_path(setting, release.expanded(setting, str(path), version, arch))

    return release.Wanted(
        version=version,
        arch=arch,
        sha256=release.checksum_for(params["checksums"], arch, url),
        url=url,
        strip=params["strip"],
        rename={inner("rename", old): inner("rename", new) for old, new in params["rename"].items()},
        programs=tuple(inner("programs", program) for program in params["programs"]),
        link=params["link"],
        keep=params["keep"],
    )


def run_present(store: release.Store, params: dict[str, Any], *, check: bool) -> dict[str, Any]:
    """Have the version present and in use; return the result."""
    wanted = wanted_from(params)
    if check:
        plan = store.plan(wanted)
    else:
        with store.lock():
            plan = store.plan(wanted)
            if plan.fetch and params["download"] == "controller" and not params["archive"]:
                return {"changed": False, "archive_wanted": {"url": wanted.url, "sha256": wanted.sha256}}
            store.apply(plan, wanted, params["archive"] or wanted.url, params["timeout"])
    return {
        **result_of(plan),
        "version": wanted.version,
        "path": str(store.base / wanted.version),
        "arch": wanted.arch,
    }


def run_absent(store: release.Store, *, check: bool) -> dict[str, Any]:
    """Remove every version; return the result."""
    if check or not store.base.is_dir():
        return result_of(store.removal_plan())
    with store.lock():
        plan = store.removal_plan()
        store.apply_removal(plan)
    return result_of(plan)


def result_of(plan: release.Plan) -> dict[str, Any]:
    """Return what both states report."""
    return {
        "changed": plan.changed,
        "switched": plan.fetch or plan.switch,
        "previous_version": plan.previous,
        "removed": list(plan.remove),
        "diff": {"before": plan.before, "after": plan.after},
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "version": {"type": "str"},
            "url": {"type": "str"},
            "checksums": {"type": "dict"},
            "download": {"type": "str", "choices": ["target", "controller"], "default": "target"},
            "cache_dir": {"type": "path", "default": "~/.cache/fleetwatch/archives"},
            "strip": {"type": "bool", "default": True},
            "rename": {"type": "dict", "default": {}},
            "programs": {"type": "list", "elements": "str", "default": []},
            "link": {"type": "bool", "default": False},
            "keep": {"type": "int", "default": 2},
            "timeout": {"type": "int", "default": 30},
            "root": {"type": "path", "default": "/opt"},
            "bin_dir": {"type": "path", "default": "/usr/local/bin"},
            "archive": {"type": "path"},
        },
        required_if=[("state", "present", ("version", "url", "checksums"))],
        supports_check_mode=True,
    )
    if password := urlsplit(module.params["url"] or "").password:
        module.no_log_values.add(password)
    os.umask(0o022)  # a host's stricter default would hide the programs from their services
    root = Path(module.params["root"])
    try:
        name = release.checked_name("name", module.params["name"])
        store = release.Store(root, name, Path(module.params["bin_dir"]))
        if module.params["state"] == "absent":
            result = run_absent(store, check=module.check_mode)
        else:
            result = run_present(store, module.params, check=module.check_mode)
    except release.ReleaseError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=release.explained(error, root))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
