"""File systems and disks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from fleetwatch.collector.guard import Guard
from fleetwatch.collector.plan import Plan

from .families import Metrics, gauges, label, old_gauge, table

PROC = Path("/proc")
HOST = "1/mounts"
OWN = "self/mounts"
MOUNT_SHARE = 0.4
"""Of the collector's time: how much a single mount may take of it, so that two that hang leave the others
theirs. Those that hang do not count any more in the next round."""
MILLI = 1e-3
_LABELS = ("device", "fstype", "mountpoint")


class Mount(NamedTuple):
    """A line of /proc/mounts."""

    device: str
    point: str
    kind: str
    read_only: bool

    @property
    def labels(self) -> tuple[str, str, str]:
        """Return the values of its labels."""
        return label(self.device), label(self.kind), label(self.point)


class Filesystems:
    """Asks each file system in turn, and leaves those alone that did not answer before."""

    def __init__(self, plan: Plan) -> None:
        """Take the filters and the time."""
        self._points = re.compile(plan.mount_points_exclude)
        self._kinds = re.compile(plan.filesystem_types_exclude)
        self._main = plan.disk_usage_mount_point
        self._timeout = plan.timeout("filesystem")
        self._guard = Guard()

    def __call__(self) -> Metrics:
        """Return the metrics."""
        mounts = {mount.point: mount for mount in self._wanted()}  # the last one hides those below it
        outcomes = self._guard.run(
            {point: partial(os.statvfs, point) for point in mounts},
            lambda _: self._timeout * MOUNT_SHARE,
            self._timeout * 0.9,
        )
        answers = [
            (mounts[point], outcome.result)
            for point, outcome in outcomes.items()
            if outcome.result is not None
        ]
        metrics = [
            gauges(
                "host_filesystem_error",
                "Whether the file system did not answer, or not in time.",
                _LABELS,
                ((mounts[point].labels, bool(outcome.reason)) for point, outcome in outcomes.items()),
            ),
            gauges(
                "host_filesystem_readonly",
                "Whether the file system is mounted read-only.",
                _LABELS,
                ((mount.labels, mount.read_only) for mount in mounts.values()),
            ),
            *table(
                GaugeMetricFamily,
                _LABELS,
                {
                    "host_filesystem_size_bytes": "Size of the file system.",
                    "host_filesystem_used_bytes": "Space in use.",
                    "host_filesystem_free_bytes": "Space not in use.",
                    "host_filesystem_available_bytes": "Space not in use that is not reserved for root.",
                    "host_filesystem_usage_ratio": "Share of the space in use, of what is not reserved.",
                    "host_filesystem_files": "Files that there can be.",
                    "host_filesystem_files_free": "Files that there can be in addition.",
                },
                ((mount.labels, _figures(answer)) for mount, answer in answers),
            ),
        ]
        for mount, answer in answers:
            if mount.point == self._main and (ratio := _usage(answer)) is not None:
                percent = 100 * ratio
                metrics.append(old_gauge("disk", "Disk", f"Space in use of {self._main}, percent.", percent))
        return metrics

    def _wanted(self) -> Iterator[Mount]:
        for mount in mounts():
            if not self._points.fullmatch(mount.point) and not self._kinds.fullmatch(mount.kind):
                yield mount


def mounts() -> list[Mount]:
    """Return what is mounted on the host.

    psutil tells only what is mounted for this process, and a service in a sandbox sees almost all as
    read-only, and the sandbox's own mounts too. So this reads what process 1 sees, where it may.
    """
    try:
        lines = (PROC / HOST).read_bytes()
    except OSError:
        lines = (PROC / OWN).read_bytes()
    found = []
    for line in lines.split(b"\n"):
        match os.fsdecode(line).split(" "):
            case [device, point, kind, options, *_]:
                found.append(Mount(_plain(device), _plain(point), kind, "ro" in options.split(",")))
    return found


def _plain(text: str) -> str:
    r"""Undo the kernel's way of writing white space and backslashes: ``\040`` is a space."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _figures(answer: os.statvfs_result) -> tuple[float | None, ...]:
    unit = answer.f_frsize
    return (
        answer.f_blocks * unit,
        (answer.f_blocks - answer.f_bfree) * unit,
        answer.f_bfree * unit,
        answer.f_bavail * unit,
        _usage(answer),
        answer.f_files or None,  # some make them as they need them
        answer.f_ffree if answer.f_files else None,
    )


def _usage(answer: os.statvfs_result) -> float | None:
    """Return what df shows as Use%; none for a file system without any size."""
    used = answer.f_blocks - answer.f_bfree
    of = used + answer.f_bavail
    return used / of if of else None


class Disks:
    """What was read and written."""

    def __init__(self, exclude: str) -> None:
        """Leave out the disks whose names match."""
        self._exclude = re.compile(exclude)

    def __call__(self) -> Metrics:
        """Return the metrics."""
        # nowrap would keep a history in case a counter overflows; Prometheus knows what to do then.
        disks = psutil.disk_io_counters(perdisk=True, nowrap=False) or {}
        return table(
            CounterMetricFamily,
            ["device"],
            {
                "host_disk_reads": "Reads that were completed.",
                "host_disk_read_bytes": "Bytes that were read.",
                "host_disk_read_seconds": "Time that reads took, summed over all.",
                "host_disk_reads_merged": "Reads that became part of another.",
                "host_disk_writes": "Writes that were completed.",
                "host_disk_written_bytes": "Bytes that were written.",
                "host_disk_write_seconds": "Time that writes took, summed over all.",
                "host_disk_writes_merged": "Writes that became part of another.",
                "host_disk_busy_seconds": "Time during which the disk had something to do.",
            },
            (
                (
                    [label(name)],
                    (
                        disk.read_count,
                        disk.read_bytes,
                        disk.read_time * MILLI,
                        disk.read_merged_count,
                        disk.write_count,
                        disk.write_bytes,
                        disk.write_time * MILLI,
                        disk.write_merged_count,
                        disk.busy_time * MILLI,
                    ),
                )
                for name, disk in disks.items()
                if not self._exclude.fullmatch(name)
            ),
        )
