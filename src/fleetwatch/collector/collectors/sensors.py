"""Sensors, on machines that have any; virtual ones hardly ever do."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
from prometheus_client.core import GaugeMetricFamily

from .families import Metrics, gauge, label, table


def temperatures() -> Metrics:
    """Return the metrics of all thermometers."""
    return table(
        GaugeMetricFamily,
        ["chip", "sensor"],
        {
            "host_temperature_celsius": "Temperature.",
            "host_temperature_high_celsius": "Temperature that the maker calls high.",
            "host_temperature_critical_celsius": "Temperature that the maker calls critical.",
        },
        _thermometers(),
    )


def _thermometers() -> Iterator[tuple[tuple[str, str], tuple[float | None, ...]]]:
    """Yield each under a name of its own: two disks of a kind have the same, and some have none."""
    for chip, sensors in psutil.sensors_temperatures().items():
        seen: set[str] = set()
        for number, sensor in enumerate(sensors, start=1):
            name = label(sensor.label) or f"temp{number}"
            if name in seen:
                name = f"{name} {number}"
            seen.add(name)
            yield (label(chip), name), (sensor.current, sensor.high, sensor.critical)


def battery() -> Metrics:
    """Return the metrics of the battery, if there is one."""
    now = psutil.sensors_battery()
    if now is None:
        return []
    metrics = [gauge("host_battery_charge_ratio", "How full the battery is.", now.percent / 100)]
    if now.power_plugged is not None:
        text = "Whether the machine is powered by the mains."
        metrics.append(gauge("host_battery_power_plugged", text, now.power_plugged))
    if now.secsleft >= 0:  # psutil says unknown and unlimited by negative numbers
        text = "Time until the battery is empty, at this pace."
        metrics.append(gauge("host_battery_remaining_seconds", text, now.secsleft))
    return metrics
