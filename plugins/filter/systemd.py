"""Filters that write systemd units and command lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.systemd import (
    cli_flags,
    systemd_drop_in,
    systemd_unit,
)


class FilterModule:
    """The filters of this file, as Ansible finds them."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return filter name to function."""
        return {"cli_flags": cli_flags, "systemd_drop_in": systemd_drop_in, "systemd_unit": systemd_unit}
