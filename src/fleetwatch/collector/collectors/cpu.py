"""Processors: time by mode, use, frequency, and how often the kernel changes between tasks."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, NamedTuple

import psutil
from prometheus_client.core import GaugeMetricFamily

from .families import Metrics, counter, counters, gauge, gauges, old_gauge, table

MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
GUEST_MODES = {"user": "guest", "nice": "guest_nice"}
"""Mode to the part of it that guests used: a part, because the kernel counts it there too."""
IDLE_MODES = ("idle", "iowait")
SHORTEST = 1.0
"""Seconds of which a use is told, at least, so that two Prometheus servers do not spoil each other's."""
AT_FIRST = 0.25
"""The same just after the start, when nothing is older."""
MEGA = 1e6


class _Sample(NamedTuple):
    at: float
    cores: list[Any]
    """psutil's times of each."""


class Cpu:
    """Remembers the times of rounds before, since use is a matter of two."""

    def __init__(self) -> None:
        """Begin without a use; the next call will have one."""
        self._samples: deque[_Sample] = deque(maxlen=8)

    def __call__(self) -> Metrics:
        """Return the metrics."""
        times = psutil.cpu_times(percpu=True)
        stats = psutil.cpu_stats()
        metrics = [
            counters(
                "host_cpu_seconds",
                "Time of a core in each mode; that of guests is within user and nice.",
                ["cpu", "mode"],
                (
                    ((str(cpu), mode), getattr(core, mode, 0.0))
                    for cpu, core in enumerate(times)
                    for mode in MODES
                ),
            ),
            counters(
                "host_cpu_guest_seconds",
                "Time of a core that guests used, within the mode.",
                ["cpu", "mode"],
                (
                    ((str(cpu), mode), getattr(core, guest, 0.0))
                    for cpu, core in enumerate(times)
                    for mode, guest in GUEST_MODES.items()
                ),
            ),
            gauge("host_cpu_logical_cores", "Cores that the kernel schedules on.", len(times)),
            counter("host_context_switches", "Changes from one task to another.", stats.ctx_switches),
            counter("host_interrupts", "Interrupts served.", stats.interrupts),
            counter("host_soft_interrupts", "Software interrupts served.", stats.soft_interrupts),
        ]
        return metrics + self._use(times) + _frequency()

    def _use(self, times: list[Any]) -> Metrics:
        now = _Sample(time.monotonic(), times)
        if self._samples and len(self._samples[-1].cores) != len(now.cores):  # one was plugged in or out
            self._samples.clear()
        before = next((each for each in reversed(self._samples) if now.at - each.at >= SHORTEST), None)
        if before is None and self._samples and now.at - self._samples[0].at >= AT_FIRST:
            before = self._samples[0]
        if not self._samples or now.at - self._samples[-1].at >= AT_FIRST:
            self._samples.append(now)
        if before is None:
            return []
        changes = [_busy_and_total(core, old) for core, old in zip(now.cores, before.cores, strict=True)]
        whole = sum(total for _, total in changes)
        if not whole:  # the kernel's clock has not ticked since
            return []
        ratio = min(1.0, sum(busy for busy, _ in changes) / whole)
        return [
            gauge("host_cpu_usage_ratio", "Share of all cores in use, since the round before.", ratio),
            gauges(
                "host_cpu_core_usage_ratio",
                "Share of a core in use, since the round before.",
                ["cpu"],
                (([str(cpu)], min(1.0, busy / total)) for cpu, (busy, total) in enumerate(changes) if total),
            ),
            old_gauge("cpu", "CPU", "CPU in use, percent of all cores.", 100 * ratio),
        ]


def _busy_and_total(core: Any, before: Any) -> tuple[float, float]:
    """Return the seconds since; a time that the kernel corrected downwards has not passed."""
    passed = {mode: max(0.0, getattr(core, mode, 0.0) - getattr(before, mode, 0.0)) for mode in MODES}
    total = sum(passed.values())
    return total - sum(passed[mode] for mode in IDLE_MODES), total


def _frequency() -> Metrics:
    """Return the clock of each core; the most it may be is unknown to many virtual machines."""
    return table(
        GaugeMetricFamily,
        ["cpu"],
        {
            "host_cpu_frequency_hertz": "Clock of a core.",
            "host_cpu_frequency_max_hertz": "Fastest clock of a core.",
        },
        (
            ([str(cpu)], [each.current * MEGA or None, each.max * MEGA or None])
            for cpu, each in enumerate(psutil.cpu_freq(percpu=True) or ())
        ),
    )
