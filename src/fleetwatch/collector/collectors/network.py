"""Network interfaces."""

from __future__ import annotations

import re

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from .families import Metrics, label, table

MEGABIT = 1e6 / 8
"""Bytes."""


class Interfaces:
    """What was sent and received, and the state of the links."""

    def __init__(self, exclude: str) -> None:
        """Leave out the interfaces whose names match."""
        self._exclude = re.compile(exclude)

    def __call__(self) -> Metrics:
        """Return the metrics."""
        traffic = psutil.net_io_counters(pernic=True, nowrap=False) or {}
        links = psutil.net_if_stats()
        return table(
            CounterMetricFamily,
            ["device"],
            {
                "host_network_receive_bytes": "Bytes received.",
                "host_network_receive_packets": "Packets received.",
                "host_network_receive_errors": "Packets received with errors.",
                "host_network_receive_drops": "Packets received and dropped.",
                "host_network_transmit_bytes": "Bytes sent.",
                "host_network_transmit_packets": "Packets sent.",
                "host_network_transmit_errors": "Packets that could not be sent for errors.",
                "host_network_transmit_drops": "Packets dropped instead of sent.",
            },
            (
                (
                    [label(name)],
                    (
                        device.bytes_recv,
                        device.packets_recv,
                        device.errin,
                        device.dropin,
                        device.bytes_sent,
                        device.packets_sent,
                        device.errout,
                        device.dropout,
                    ),
                )
                for name, device in traffic.items()
                if not self._exclude.fullmatch(name)
            ),
        ) + table(
            GaugeMetricFamily,
            ["device"],
            {
                "host_network_up": "Whether the interface is up.",
                "host_network_mtu_bytes": "Largest packet that the interface takes.",
                "host_network_speed_bytes": "Bytes a second that the link can carry, where that is known.",
            },
            (
                ([label(name)], (link.isup, link.mtu, link.speed * MEGABIT or None))
                for name, link in links.items()
                if not self._exclude.fullmatch(name)
            ),
        )
