# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""The controller's part of verify_host: says from the inventory what the host has to look at."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import yaml
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import lookup_loader
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.fleet import (
    Fleet,
    FleetError,
    HostVariables,
)
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.verify import FAILED, HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MODULE = "fleetwatch.monitoring.verify_host"
_KEYS = {"unit", "job", "ready", "api"}
_APIS = {"prometheus", "alertmanager", "alert_receiver"}
_TEST_CHANNELS = ["/usr/local/bin/fleetwatch-receiver", "test-channels", "--json"]
_MAY_READ = {"read", "act"}
_FIRST_LINE = 200


class ActionModule(ActionBase):  # type: ignore[misc] # ansible-core is not typed
    """Run the module once on a host that has components; whatever happens, answer with lines."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what was found."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _, arguments = self.validate_argument_spec(
            {
                "channels": {"type": "bool", "default": False},
                "timeout": {"type": "int", "default": 30},
                "roles_path": {"type": "list", "elements": "path"},
            }
        )
        result |= {"changed": False, "rows": []}
        try:
            fleet = Fleet.of(variables, self._loader, arguments["roles_path"])
            plan = plan_of(
                fleet,
                variables["inventory_hostname"],
                lambda: self._rules(variables),
                channels=arguments["channels"] and not self._task.check_mode,
            )
            if not plan:
                return result | {"skipped": True, "skip_reason": "The host is in no component's group."}
            answer: dict[str, Any] = self._execute_module(
                MODULE, module_args=plan | {"timeout": arguments["timeout"]}, task_vars=variables
            )
            offset = self._clock_offset()
        except AnsibleConnectionFailure as error:
            return result | _not_checked("reachable", f"It cannot be reached: {_short(error)}")
        except AnsibleError as error:
            return result | _not_checked("checked", f"It could not be checked: {_short(error)}")
        if "rows" not in answer:
            why = answer.get("module_stderr") or answer.get("msg") or "the module gave no answer"
            state = "reachable" if answer.get("unreachable") else "checked"
            return result | _not_checked(state, f"It could not be checked: {_short(why)}")
        return result | {"rows": answer["rows"], "offset": offset}

    def _clock_offset(self) -> list[float]:
        """Return the least and the most seconds by which the host's clock is ahead of this one.

        The connection stands by now, so that the round trip is short.
        """
        before = time.time()
        answer = self._low_level_execute_command("date +%s.%N")
        after = time.time()
        try:
            clock = float(answer["stdout"])
        except ValueError as error:
            raise AnsibleError(f"it does not tell the time: {answer['stdout']}{answer['stderr']}") from error
        return [clock - after, clock - before]

    def _rules(self, variables: dict[str, Any]) -> dict[str, str]:
        lookup = lookup_loader.get(
            "fleetwatch.monitoring.alert_rules", loader=self._loader, templar=self._templar
        )
        (files,) = lookup.run([], variables=variables)
        return dict(files)


def plan_of(
    fleet: Fleet, host: str, rules: Callable[[], dict[str, str]], *, channels: bool = False
) -> dict[str, Any]:
    """Return the arguments for the module, from the inventory; none if there is nothing to do.

    :param rules: returns the rule files of the components: name -> text.
    :param channels: whether a test message is sent through every channel.
    :raises FleetError: the inventory or a component's ``verify.yml`` is wrong.
    """
    variables = fleet.variables(host)
    plan: dict[str, Any] = {}
    for component in fleet.components.values():
        path = component.path / "monitoring" / "verify.yml"
        for entry in fleet.read_yaml(path) or ():
            if not _is_sound(entry):
                raise FleetError(
                    f"{path}: an entry has unit, job if it serves HTTP, and perhaps ready and api,"
                    f" not {dict(entry)}"
                )
            if host not in fleet.hosts(fleet.job(entry.get("job", component.name)).group):
                continue
            if "job" not in entry:
                plan.setdefault("units", []).append({"component": component.name, "unit": str(entry["unit"])})
                continue
            endpoints = fleet.endpoints_of(fleet.job(entry["job"]), variables)
            local = endpoints[0].local_url
            for endpoint in endpoints:
                unit, job = _instance(entry, endpoint.number)
                plan.setdefault("units", []).append({"component": component.name, "unit": unit})
                plan.setdefault("ready", []).append(
                    {
                        "component": component.name,
                        "job": job,
                        "url": endpoint.local_url + str(entry.get("ready", endpoint.path)),
                    }
                )
            if entry.get("api") == "prometheus":
                plan["prometheus"] = _prometheus(fleet, variables, rules()) | {"url": local}
            elif entry.get("api") == "alertmanager":
                plan["alertmanager"] = _alertmanager(fleet) | {"url": local}
                plan["tokens"] = _tokens(fleet)
            elif entry.get("api") == "alert_receiver" and channels:
                plan["alert_receiver"] = {"test_channels": _TEST_CHANNELS}
    return plan


def _is_sound(entry: Mapping[str, Any]) -> bool:
    allowed = _KEYS if "job" in entry else {"unit"}
    return allowed >= entry.keys() >= {"unit"} and entry.get("api") in {None, *_APIS}


def _instance(entry: Mapping[str, Any], number: int | None) -> tuple[str, str]:
    """Return the unit of an instance, whose template the entry names, and what its job is called."""
    unit, job = str(entry["unit"]), str(entry["job"])
    return (unit, job) if number is None else (unit.replace("@.", f"@{number}."), f"{job} {number}")


def _prometheus(fleet: Fleet, variables: HostVariables, rules: dict[str, str]) -> dict[str, Any]:
    own_rules = variables.get("prometheus_extra_rules") or {}
    files = {name: yaml.safe_load(text) for name, text in rules.items()}
    files |= {f"{name}.yml": content for name, content in own_rules.items()}
    return {
        "targets": {
            job.name: [(_where(target), target["labels"]["host"]) for target in job.targets]
            for job in fleet.scrape_jobs()
        },
        "own_jobs": [job["job_name"] for job in variables.get("prometheus_extra_scrape_configs") or ()],
        "rules": {
            file: {
                group["name"]: [rule.get("alert") or rule.get("record") for rule in group.get("rules") or ()]
                for group in (content or {}).get("groups") or ()
            }
            for file, content in files.items()
        },
        "alertmanagers": {endpoint.host: endpoint.url for endpoint in fleet.endpoints("alertmanager")},
    }


def _where(target: Mapping[str, Any]) -> str:
    """Return where Prometheus asks for a target, as ``verify_host`` names it."""
    (address,), labels = target["targets"], target["labels"]
    return f"{address} (probe {labels['name']})" if "prober" in labels else str(address)


def _alertmanager(fleet: Fleet) -> dict[str, Any]:
    return {
        "members": len(fleet.hosts("alertmanager")),
        "receivers": {endpoint.host: endpoint.url for endpoint in fleet.endpoints("alert_receiver")},
        "watchdog": bool(fleet.hosts("prometheus")),
        "verify_id": uuid.uuid4().hex,
    }


def _tokens(fleet: Fleet) -> dict[str, str]:
    """Return for each receiver the token of a user who may read, or an empty one if everybody may."""
    tokens = {}
    for host in fleet.hosts("alert_receiver"):
        variables = fleet.variables(host)
        if _MAY_READ.intersection(variables.get("alert_receiver_anonymous_roles") or ()):
            tokens[host] = ""
        for user in variables.get("alert_receiver_users") or ():
            if _MAY_READ.intersection(user["roles"]):
                tokens.setdefault(host, user["password"])
    return tokens


def _not_checked(check: str, detail: str) -> dict[str, Any]:
    return {"rows": [{"component": HOST, "check": check, "state": FAILED, "detail": detail}]}


def _short(error: object) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1][:_FIRST_LINE] if lines else "no reason given"
