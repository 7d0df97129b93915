"""Action plugin: have a Debian package installed. Documented in the module of the same name."""

from __future__ import annotations

import shlex
from typing import Any

from ansible.plugins.action import ActionBase

INDEX_MAX_AGE_SECONDS = 24 * 3600
APT_LOCK_TIMEOUT_SECONDS = 300


class ActionModule(ActionBase):  # type: ignore[misc] # ansible-core has no type information
    """Ask dpkg; install with ansible.builtin.apt only what is missing."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return Ansible's result of the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec({"name": {"type": "str", "required": True}})
        package = arguments["name"]
        query = self._low_level_execute_command(
            f"dpkg-query --show --showformat='${{db:Status-Status}}' {shlex.quote(package)}"
        )
        if query["rc"] == 0 and query["stdout"].strip() == "installed":
            return result | {"changed": False}
        diff = {"before": "", "after": f"{package} installed\n"}
        if self._task.check_mode:
            return result | {"changed": True, "diff": diff}
        installed: dict[str, Any] = self._execute_module(
            module_name="ansible.builtin.apt",
            module_args={
                "name": package,
                "install_recommends": False,
                "update_cache": True,
                "cache_valid_time": INDEX_MAX_AGE_SECONDS,
                "lock_timeout": APT_LOCK_TIMEOUT_SECONDS,
                "policy_rc_d": 101,
            },
            task_vars=task_vars,
        )
        return result | installed | {"diff": diff}
