"""What the collectors go by: the checked settings as plain values, without the library that checks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

COLLECTORS = (
    "cpu",
    "memory",
    "swap",
    "filesystem",
    "disk",
    "network",
    "load",
    "processes",
    "system",
    "temperature",
    "battery",
    "units",
    "unit_states",
)
"""Names of all collectors, in the order in which they run."""


@dataclass(frozen=True)
class Plan:
    """The settings; ``settings.Settings`` describes each."""

    interval: float
    collectors: Sequence[str]
    collector_timeout: float
    collector_timeouts: Mapping[str, float]
    round_timeout: float
    mount_points_exclude: str
    filesystem_types_exclude: str
    disk_devices_exclude: str
    network_devices_exclude: str
    disk_usage_mount_point: str
    units_include: str
    units_exclude: str
    listen_address: str
    port: int
    log_level: str

    def timeout(self, name: str) -> float:
        """Return the seconds that a collector may take."""
        return self.collector_timeouts.get(name, self.collector_timeout)
