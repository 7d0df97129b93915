# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""The controller's part of release_archive: with ``download: controller`` it fetches for the hosts."""

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.fleetwatch.monitoring.plugins.module_utils import release

MODULE = "fleetwatch.monitoring.release_archive"


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible has no types
    """Ask the host first; only a host that lacks the version makes the controller fetch."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module, and once more with the archive's copy on the host if it asks for one."""
        super().run(tmp, task_vars)
        args = {key: value for key, value in self._task.args.items() if key != "archive"}
        answer: dict[str, Any] = self._execute_module(MODULE, module_args=args, task_vars=task_vars)
        wanted = answer.pop("archive_wanted", None)
        if answer.get("failed") or not wanted:
            return answer
        url = wanted["url"]
        try:
            if "://" not in url:
                url = str(Path(self._find_needle("files", url)).absolute())
            cache_dir = Path(args.get("cache_dir", "~/.cache/fleetwatch/archives")).expanduser()
            archive = release.cached(url, wanted["sha256"], cache_dir, int(args.get("timeout", 30)))
        except release.ReleaseError as error:
            return {"failed": True, "msg": f"On the controller: {error}"}
        except OSError as error:
            return {"failed": True, "msg": f"On the controller: {error}"}
        directory = self._connection._shell.tmpdir or self._make_tmp_path()
        copy = self._connection._shell.join_path(directory, "archive")
        self._transfer_file(str(archive), copy)
        self._fixup_perms2((directory, copy))
        final: dict[str, Any] = self._execute_module(
            MODULE, module_args={**args, "archive": copy}, task_vars=task_vars
        )
        return final
