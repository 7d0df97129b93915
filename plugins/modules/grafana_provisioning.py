#!/usr/bin/python
# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Ansible module: Grafana has taken the datasources and dashboards that its files describe."""

from __future__ import annotations

DOCUMENTATION = r"""
module: grafana_provisioning
short_description: Have Grafana take its provisioning files, and see that it did
description:
  - Has Grafana read its files of datasources and dashboards again, through its API and without a restart,
    when
    they are not those that it last took, or when something of them is missing in Grafana.
  - Waits until everything that is wanted is there and what left is gone, and fails with the names otherwise.
  - What was last taken is noted in C(.provisioned) in O(config_dir), so that an interrupted run is
    completed by the
    next.
options:
  url:
    description: URL of Grafana on this host.
    type: str
    required: true
  certificate:
    description: Certificate file that Grafana uses, if the URL is C(https).
    type: path
  user:
    description: Login of an administrator.
    type: str
    required: true
  password:
    description: Password of the administrator.
    type: str
    required: true
  config_dir:
    description: Folder with the folders C(provisioning) and C(dashboards).
    type: path
    default: /etc/grafana
  datasources:
    description: Names of the datasources that are to be in Grafana.
    type: list
    elements: str
    default: []
  dashboards:
    description: Uids of the dashboards that are to be in Grafana.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds for Grafana to have taken everything.
    type: int
    default: 60
attributes:
  check_mode:
    support: full
author: The Fleetwatch authors (@fleetwatch)
"""

EXAMPLES = r"""
- name: Have Grafana take its datasources
  fleetwatch.monitoring.grafana_provisioning:
    url: http://127.0.0.1:3000
    user: admin
    password: "{{ vault_grafana_admin_password }}"
    datasources: [Prometheus, Alertmanager]
    dashboards: [fleetwatch-host]
"""

RETURN = r"""
reloaded:
  description: What Grafana was made to read again, V(datasources) and V(dashboards).
  returned: always
  type: list
  elements: str
"""

import hashlib  # noqa: E402 - Ansible's documentation blocks come first
import json  # noqa: E402
import os  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.fleetwatch.monitoring.plugins.module_utils import local_http  # noqa: E402

NOTE = ".provisioned"
FOLDERS = {
    "datasources": ("provisioning/datasources",),
    "dashboards": ("provisioning/dashboards", "dashboards"),
}
"""What is provisioned, and the folders that describe it."""
POLL_SECONDS = 0.5
MOST_DASHBOARDS = 5000
"""What Grafana's search returns at most."""
JOURNAL_LINES = 15


class ProvisioningError(Exception):
    """What Grafana did not take."""


def digest(config_dir: Path, kind: str) -> str:
    """Return a checksum of the files that describe one kind."""
    total = hashlib.sha256()
    for folder in FOLDERS[kind]:
        for path in sorted((config_dir / folder).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                total.update(f"{path.relative_to(config_dir)}\0".encode())
                total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


class Provisioning:
    """The files on the host, and what Grafana has."""

    def __init__(self, module: AnsibleModule) -> None:
        """Read what was noted by the last run."""
        self.module = module
        self.params: dict[str, Any] = module.params
        self.config_dir = Path(self.params["config_dir"])
        self.note = self.config_dir / NOTE
        self.wanted = {kind: set(self.params[kind]) for kind in FOLDERS}
        try:
            self.known: dict[str, Any] = json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.known = {}

    def run(self) -> list[str]:
        """Have Grafana take what it has not taken; return the kinds that were reloaded."""
        digests = {kind: digest(self.config_dir, kind) for kind in FOLDERS}
        try:
            present = {kind: self.present(kind) for kind in FOLDERS}
        except OSError:
            if self.module.check_mode:  # not installed yet, or the password is still to be set
                return list(FOLDERS)
            raise
        todo = [
            kind
            for kind in FOLDERS
            if (self.known.get(kind) or {}).get("digest") != digests[kind]
            or self.wanted[kind] - present[kind]
        ]
        if not self.module.check_mode:
            for kind in todo:  # dashboards after their datasources
                self.reload(kind)
            if todo:
                self.write_note(digests)
        return todo

    def present(self, kind: str) -> set[str]:
        """Return the names of the datasources, or the uids of the dashboards, that Grafana has."""
        if kind == "datasources":
            return {entry["name"] for entry in self._call("GET", "/api/datasources")}
        return {
            entry["uid"] for entry in self._call("GET", f"/api/search?type=dash-db&limit={MOST_DASHBOARDS}")
        }

    def reload(self, kind: str) -> None:
        """Have Grafana read the files of one kind again, and wait until they are all taken."""
        try:
            self._call("POST", f"/api/admin/provisioning/{kind}/reload")
        except local_http.HttpError as error:
            raise ProvisioningError(f"refused its {kind}: {error}\n{self._journal()}") from error
        before = set((self.known.get(kind) or {}).get("names") or [])
        deadline = time.monotonic() + self.params["timeout"]
        while True:
            present = self.present(kind)
            missing, left = self.wanted[kind] - present, (before - self.wanted[kind]) & present
            if not missing and not left:
                return
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        problems = [f"has not taken the {kind} {', '.join(sorted(missing))}"] if missing else []
        if left:
            hint = " (Grafana deletes them since version 11)" if kind == "datasources" else ""
            problems.append(f"has not deleted the {kind} {', '.join(sorted(left))}{hint}")
        raise ProvisioningError(f"{' and '.join(problems)}.\n{self._journal()}")

    def write_note(self, digests: dict[str, str]) -> None:
        """Note what was taken."""
        note = {kind: {"digest": digests[kind], "names": sorted(self.wanted[kind])} for kind in FOLDERS}
        new = self.note.with_name(f"{NOTE}.new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(note, file)
        new.replace(self.note)

    def _journal(self) -> str:
        _, out, _ = self.module.run_command(
            ["journalctl", "--no-pager", "-o", "cat", "-n", str(JOURNAL_LINES), "-u", "grafana"]
        )
        return f"Its last log lines:\n{out.strip()}"

    def _call(self, method: str, path: str) -> Any:
        login = (self.params["user"], self.params["password"])
        return local_http.get(
            f"{self.params['url']}{path}", method=method, login=login, certificate=self.params["certificate"]
        )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "certificate": {"type": "path"},
            "user": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "config_dir": {"type": "path", "default": "/etc/grafana"},
            "datasources": {"type": "list", "elements": "str", "default": []},
            "dashboards": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    try:
        reloaded = Provisioning(module).run()
    except (ProvisioningError, OSError) as error:
        module.fail_json(msg=f"Grafana: {error}")
    module.exit_json(changed=bool(reloaded), reloaded=reloaded)


if __name__ == "__main__":
    main()
