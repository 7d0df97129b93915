# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Action that finds every mistake in the inventory; documented in plugins/modules/check_inventory.py."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.fleet import Fleet
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.inventory_check import InventoryCheck

_PROBLEMS_SHOWN = 50


class ActionModule(ActionBase):  # type: ignore[misc] # ansible-core is not typed
    """Check the inventory on the controller; the host of the task is never contacted."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the problems, and fail if there are any."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec({"roles_path": {"type": "list", "elements": "path"}})
        fleet = Fleet.of(task_vars or {}, self._loader, arguments["roles_path"])
        problems, warnings = InventoryCheck(fleet).run()
        result |= {"changed": False, "problems": problems, "warnings": warnings}
        if problems:
            shown = [f"- {problem}" for problem in problems[:_PROBLEMS_SHOWN]]
            if more := len(problems) - len(shown):
                shown.append(f"- and {more} more")
            count = "a mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
            result |= {"failed": True, "msg": "\n".join([f"The inventory has {count}:", *shown])}
        return result
