"""The collectors: each reads one side of the host and returns its metrics, or raises.

Names follow the field's rules: base units, ``_total`` for counters, shares as ``_ratio`` from 0 to 1. Beside
them stand the three names of the system that this replaces, in percent: ``gauge_cpu_usage``,
``gauge_mem_usage`` and ``gauge_disk_usage``, each with the label ``type``.
"""

from __future__ import annotations

from collections.abc import Callable

from fleetwatch.collector.plan import Plan

from . import cpu, memory, network, sensors, storage, system, unit_states, units
from .families import Metrics

Collect = Callable[[], Metrics]


def build(plan: Plan) -> dict[str, Collect]:
    """Return the collectors that are wanted, by name, in the order in which they run."""
    every: dict[str, Callable[[], Collect]] = {
        "cpu": cpu.Cpu,
        "memory": lambda: memory.memory,
        "swap": lambda: memory.swap,
        "filesystem": lambda: storage.Filesystems(plan),
        "disk": lambda: storage.Disks(plan.disk_devices_exclude),
        "network": lambda: network.Interfaces(plan.network_devices_exclude),
        "load": lambda: system.load,
        "processes": lambda: system.processes,
        "system": lambda: system.system,
        "temperature": lambda: sensors.temperatures,
        "battery": lambda: sensors.battery,
        "units": lambda: units.Units(plan),
        "unit_states": lambda: unit_states.UnitStates(plan),
    }
    return {name: every[name]() for name in plan.collectors}
