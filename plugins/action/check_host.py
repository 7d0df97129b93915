"""Action plugin: learn what a host is, refuse what is not supported. Documented in the module of its name."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

# One command instead of M(ansible.builtin.setup), which takes a second of every host for facts nobody uses.
QUESTIONS = "cat /etc/os-release && uname -m && /usr/bin/python3 -V"


class ActionModule(ActionBase):  # type: ignore[misc] # ansible-core has no type information
    """Ask the host three things in one command."""

    _requires_connection = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the facts; raise AnsibleActionFail for a host that is not supported."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec({"supported": {"type": "dict", "required": True}})
        host = str((task_vars or {}).get("inventory_hostname"))
        answer = self._low_level_execute_command(QUESTIONS)
        if answer["rc"]:
            words = (answer.get("stderr") or answer.get("stdout") or "").strip()
            raise AnsibleActionFail(
                f"{host} is not a Linux host with /etc/os-release and Python 3 in /usr/bin: {words}. "
                "Install python3 there, or take the host out of the inventory."
            )
        facts = parse(answer["stdout"])
        problem = unsupported(facts, arguments["supported"])
        if problem:
            raise AnsibleActionFail(f"{host} {problem}")
        return result | {"changed": False, "ansible_facts": facts}


def parse(answer: str) -> dict[str, str]:
    """Return the facts in the host's answer, under the names that Ansible gives them."""
    *release, architecture, python = answer.strip().splitlines()
    settings = dict(line.split("=", 1) for line in release if "=" in line)
    text = {name: "".join(shlex.split(value)) for name, value in settings.items() if name.isidentifier()}
    return {
        "architecture": architecture.strip(),
        "distribution": text.get("ID", "unknown").capitalize(),
        "distribution_version": text.get("VERSION_ID", "unknown"),
        "distribution_major_version": text.get("VERSION_ID", "unknown").partition(".")[0],
        "python_version": python.split()[-1],
    }


def unsupported(facts: Mapping[str, str], supported: Mapping[str, list[str]]) -> str:
    """Return why a host with these facts is not supported, or an empty string."""
    name, version = facts["distribution"], facts["distribution_major_version"]
    if version in map(str, supported.get(name, [])):
        return ""
    known = ", ".join(f"{other} {' or '.join(map(str, versions))}" for other, versions in supported.items())
    return (
        f"runs {name} {facts['distribution_version']}, which Fleetwatch does not support. "
        f"Take the host out of the inventory, or install {known} on it."
    )
