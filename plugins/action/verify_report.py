# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Action that shows the table of verify_host; documented in plugins/modules/verify_report.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ansible import constants as C  # noqa: N812 - its usual name
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.fleet import Fleet
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.verify import (
    FAILED,
    HOST,
    OK,
    SKIPPED,
    Line,
    Offset,
    clock_lines,
    merge,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_COLORS = {OK: C.COLOR_OK, FAILED: C.COLOR_ERROR, SKIPPED: C.COLOR_SKIP}


class ActionModule(ActionBase):  # type: ignore[misc] # ansible-core is not typed
    """Show on the controller what all hosts have found; no host is contacted."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Print the table, and fail if there is a failure in it."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _, arguments = self.validate_argument_spec(
            {
                "results": {"type": "str", "required": True},
                "clock_tolerance": {"type": "float", "default": 1.0},
                "roles_path": {"type": "list", "elements": "path"},
            }
        )
        fleet = Fleet.of(variables, self._loader, arguments["roles_path"])
        hosts = variables["ansible_play_hosts_all"]
        results = {host: variables["hostvars"].raw_get(host).get(arguments["results"]) for host in hosts}
        offsets = {
            host: Offset(*answer["offset"])
            for host, answer in results.items()
            if answer and "offset" in answer
        }
        lines = merge([*clock_lines(offsets, arguments["clock_tolerance"]), *_lines(results)])
        self._show(lines, _notes(fleet, hosts))

        failed = [line for line in lines if line.state == FAILED]
        result |= {"changed": False, "failures": [f"{line.component}: {line.check}" for line in failed]}
        if not lines:
            result |= {"failed": True, "msg": "No host of the inventory is in the group of a component."}
        elif failed:
            result |= {"failed": True, "msg": f"{len(failed)} of {len(lines)} checks failed; see the table."}
        else:
            result["msg"] = "The monitoring works."
        return result

    def _show(self, lines: list[Line], notes: list[str]) -> None:
        # Not through the result: its text would be quoted and escaped.
        display = Display()
        display.display("")
        for state, text in table(lines, display.columns):
            display.display(text, color=_COLORS.get(state))
        for note in notes:
            display.display(f"\n{note}")
        display.display("")


def _lines(results: Mapping[str, Any]) -> Iterator[Line]:
    for host, answer in results.items():
        if answer is None or "rows" not in answer:
            why = (answer or {}).get("msg", "the task that looks at the hosts did not run on it")
            yield Line(HOST, "checked", FAILED, (host,), f"It could not be checked: {why}")
            continue
        for row in answer["rows"]:
            yield Line(row["component"], row["check"], row["state"], (host,), row["detail"])


def _notes(fleet: Fleet, hosts: list[str]) -> list[str]:
    groups = {*fleet.components, *(job.group for job in fleet.jobs.values())}
    watched = {host for group in groups for host in fleet.hosts(group)}
    seen = len(watched.intersection(hosts))
    empty = sorted(group for group in groups if not fleet.hosts(group))
    notes = []
    if seen < len(watched):
        notes.append(f"Limited to {seen} of {len(watched)} hosts; nothing is said about the others.")
    if empty:
        notes.append(f"Skipped, because their groups are empty: {', '.join(empty)}.")
    return notes
