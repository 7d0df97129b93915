# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""The action python_bundle: build the bundle of the Python services on the controller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils import bundle

COLLECTION = Path(__file__).parents[2]


class ActionModule(ActionBase):  # type: ignore[misc] # ansible-core is not typed
    """Runs in the controller's own Python, so it never connects, never becomes and needs no delegation."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return where the bundle is."""
        super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            {
                "python_version": {"type": "str", "required": True},
                "machine": {"type": "str", "required": True},
                "cache_dir": {"type": "path", "default": "~/.cache/fleetwatch"},
                "wheel_dir": {"type": "path"},
                "source": {"type": "path", "default": str(COLLECTION)},
            }
        )
        wheel_dir = args["wheel_dir"]
        try:
            target = bundle.Target(args["python_version"], args["machine"])
            built = bundle.build(
                Path(args["source"]), target, Path(args["cache_dir"]), Path(wheel_dir) if wheel_dir else None
            )
        except bundle.BundleError as error:
            return {"failed": True, "msg": str(error)}
        except OSError as error:
            return {"failed": True, "msg": f"On the controller: {error}"}
        return {
            "changed": False,
            "built": built.built,
            "path": str(built.path),
            "sha256": built.sha256,
            "version": built.version,
            "arch": target.arch,
        }
