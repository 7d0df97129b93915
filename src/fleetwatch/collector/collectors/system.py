"""Load, processes, and what else there is of the system."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import psutil

from .families import Metrics, gauge, gauges

STATES = (
    psutil.STATUS_RUNNING,
    psutil.STATUS_SLEEPING,
    psutil.STATUS_DISK_SLEEP,
    psutil.STATUS_IDLE,
    psutil.STATUS_STOPPED,
    psutil.STATUS_ZOMBIE,
)
"""States that are told of even while no process is in them."""


def load() -> Metrics:
    """Return the metrics of load."""
    return [
        gauge(f"host_load{minutes}", f"Mean number of runnable processes over {minutes} min.", value)
        for minutes, value in zip((1, 5, 15), psutil.getloadavg(), strict=True)
    ]


def processes() -> Metrics:
    """Return how many processes are in which state."""
    count = Counter(dict.fromkeys(STATES, 0))
    count.update(_states())
    return [
        gauges(
            "host_processes",
            "Processes by state.",
            ["state"],
            (([state.replace("-", "_")], number) for state, number in count.items()),
        )
    ]


def _states() -> Iterator[str]:
    for process in psutil.process_iter():
        try:
            yield process.status()
        except psutil.NoSuchProcess:  # it ended just now
            continue


def system() -> Metrics:
    """Return when the system was started, and its clock."""
    return [
        gauge("host_boot_time_seconds", "When the system was started, in Unix time.", psutil.boot_time()),
        gauge("host_time_seconds", "The system's clock, in Unix time.", time.time()),
    ]
