# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""The controller's part of alertmanager_silence: says what is to be silenced, and where."""

from __future__ import annotations

import getpass
import os
from typing import TYPE_CHECKING, Any

import yaml
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import lookup_loader
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils import silences
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.fleet import Fleet, FleetError
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.silences import SilenceError

if TYPE_CHECKING:
    from collections.abc import Mapping

MODULE = "fleetwatch.monitoring.alertmanager_silence"
_ARGUMENTS = {
    "state": {"type": "str", "choices": ["present", "absent", "list"], "default": "present"},
    "hosts": {"type": "raw"},
    "alerts": {"type": "list", "elements": "str", "default": []},
    "matchers": {"type": "list", "elements": "str", "default": []},
    "duration": {"type": "str", "default": "2h"},
    "starts": {"type": "str"},
    "comment": {"type": "str"},
    "created_by": {"type": "str"},
    "id": {"type": "str"},
    "required": {"type": "bool", "default": True},
    "urls": {"type": "list", "elements": "str"},
    "roles_path": {"type": "list", "elements": "path"},
}
_FIRST_LINE = 200


class ActionModule(ActionBase):  # type: ignore[misc] # ansible-core is not typed
    """Run the module on one host, with what the inventory says."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what was done."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _, arguments = self.validate_argument_spec(_ARGUMENTS)
        host = str(self._task.delegate_to or variables["inventory_hostname"])
        try:
            fleet = Fleet.of(variables, self._loader, arguments["roles_path"])
            plan = self._plan(fleet, arguments, variables)
            plan["urls"] = arguments["urls"] or silences.endpoints(fleet, host)
        except (SilenceError, FleetError) as error:
            return result | {"failed": True, "changed": False, "answered": True, "msg": str(error)}
        if not plan["urls"]:
            return result | _no_answer(arguments, "The group alertmanager has no host.")
        try:
            answer: dict[str, Any] = self._execute_module(MODULE, module_args=plan, task_vars=variables)
        except AnsibleConnectionFailure as error:
            return result | _no_answer(arguments, f"{host} cannot be reached: {_short(error)}")
        if answer.get("unreachable") or "answered" not in answer:
            why = answer.get("module_stderr") or answer.get("msg") or "the module gave no answer"
            return result | _no_answer(arguments, f"{host} cannot ask Alertmanager: {_short(why)}")
        if not answer["answered"]:
            return result | _no_answer(arguments, answer["msg"])
        return result | answer

    def _plan(self, fleet: Fleet, arguments: Mapping[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Return the module's arguments.

        :raises SilenceError: what is asked for makes no sense.
        """
        state, wants_id = arguments["state"], bool(arguments["id"])
        plan = {key: arguments[key] for key in ("state", "comment", "id")}
        if wants_id and state != "absent":
            raise SilenceError(
                "id: it only says which silence ends; set the state to absent, or leave it out"
            )
        if state == "list" or wants_id:
            return plan
        if state == "present" and not (arguments["comment"] or "").strip():
            raise SilenceError("comment: it is missing; say why, for whoever wonders where the alerts are")
        hosts = arguments["hosts"]
        named = silences.hosts_of(hosts, variables["groups"], self._loader) if hosts else []
        alerts = [name.strip() for name in arguments["alerts"] if name.strip()]
        if alerts:
            silences.check_alerts(alerts, self._alerts(fleet, variables))
        return plan | {
            "matchers": silences.matchers_of(named, alerts, arguments["matchers"]),
            "seconds": silences.seconds(arguments["duration"]),
            "starts": silences.start(arguments["starts"]) if arguments["starts"] else None,
            "created_by": arguments["created_by"] or _user(),
        }

    def _alerts(self, fleet: Fleet, variables: dict[str, Any]) -> set[str]:
        """Return the names of all alerts, as the first Prometheus has them; none if they cannot be told."""
        hosts = fleet.hosts("prometheus")
        if not hosts:
            return set()
        lookup = lookup_loader.get(
            "fleetwatch.monitoring.alert_rules", loader=self._loader, templar=self._templar
        )
        try:
            (files,) = lookup.run([], variables=variables | fleet.hostvars.raw_get(hosts[0]))
            own = fleet.variables(hosts[0]).get("prometheus_extra_rules") or {}
            return silences.alert_names([*map(yaml.safe_load, files.values()), *own.values()])
        except (AnsibleError, yaml.YAMLError):
            return set()  # a rule that is wrong elsewhere must not stand in the way


def _user() -> str:
    """Return the name of whoever runs Ansible."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (OSError, KeyError):  # its number has no name
        return f"user {os.getuid()}"


def _no_answer(arguments: Mapping[str, Any], why: str) -> dict[str, Any]:
    return {"failed": arguments["required"], "changed": False, "answered": False, "msg": why}


def _short(error: object) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1][:_FIRST_LINE] if lines else "no reason given"
