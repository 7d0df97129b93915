"""Filter that writes Grafana's settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.grafana import GrafanaError, ini


def grafana_ini(settings: dict[str, dict[str, Any]]) -> str:
    """Return the text of a ``grafana.ini`` from section -> key -> value."""
    try:
        return ini(settings)
    except GrafanaError as error:
        raise AnsibleFilterError(f"grafana_extra_settings: {error}") from error


class FilterModule:
    """The filters of this file, as Ansible finds them."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return filter name to function."""
        return {"grafana_ini": grafana_ini}
