"""The dashboard of a host as psutil sees it, and of the collector that asks."""

from __future__ import annotations

from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from fleetwatch.dashboards.style import (
    GREEN,
    RED,
    Panel,
    above,
    column,
    dashboard,
    dashboard_url,
    gauge,
    host_variable,
    link,
    mapping,
    query,
    row,
    stat,
    table,
    timeseries,
)

JOB = "metrics_collector"
ONE = 'host="$host"'
OWN = f'job="{JOB}",{ONE}'
"""The collector's process; other programs of the host have such metrics too."""
USE = above(orange=70, red=90)
SHARE = above(orange=0.7, red=0.9)
RATE = "[$__rate_interval]"
ANSWERS = mapping({0: ("answers", GREEN), 1: ("does not", RED)})


def dashboards() -> list[Dashboard]:
    """Return the dashboards of the role."""
    return [
        dashboard(
            "fleetwatch-metrics-collector",
            "Metrics collector",
            "One host as psutil sees it, and whether all of it could be read.",
            row("Overview", *_overview()),
            row("CPU", *_cpu()),
            row("Memory", *_memory()),
            row("Disks", *_disks()),
            row("Network", *_network()),
            row("Sensors", *_sensors()),
            row("Collector", *_collector()),
            variables=[host_variable("metrics_collector_success", multi=False, job=False)],
            links=[link("Host detail", dashboard_url("fleetwatch-host", host="${host}"))],
            restarts=OWN,
        )
    ]


def _overview() -> list[Panel]:
    def dial(title: str, description: str, metric: str) -> Panel:
        return gauge(
            title,
            description,
            query(f"max({metric}{{{ONE}}})", title),
            unit=units.Percent,
            thresholds=USE,
            minimum=0,
            maximum=100,
            width=4,
        )

    return [
        dial("CPU in use", "Share of all cores in use since the last scrape.", "gauge_cpu_usage"),
        dial("Memory in use", "Memory that programs cannot get any more.", "gauge_mem_usage"),
        dial("Disk in use", "Share of the main file system in use.", "gauge_disk_usage"),
        stat(
            "Uptime",
            "Time since the host was started.",
            query(f"time() - max(host_boot_time_seconds{{{ONE}}})", "uptime"),
            unit=units.DurationSeconds,
            width=4,
            height=6,
        ),
        stat(
            "Cores",
            "Cores that the kernel schedules on.",
            query(f"max(host_cpu_logical_cores{{{ONE}}})", "cores"),
            unit=units.Short,
            width=4,
            height=6,
        ),
        stat(
            "Collectors that fail",
            "Parts of the host that could not be read at the last scrape.",
            query(f"count(metrics_collector_success{{{ONE}}} == 0) or vector(0)", "collectors"),
            unit=units.Short,
            thresholds=above(red=1),
            width=4,
            height=6,
        ),
    ]


def _cpu() -> list[Panel]:
    return [
        timeseries(
            "CPU by mode",
            "What the cores did; the rest they were idle. Much iowait means slow disks; steal is what other "
            "guests of the same machine took.",
            query(f'avg by (mode) (rate(host_cpu_seconds_total{{{ONE},mode!="idle"}}{RATE}))', "{{mode}}"),
            unit=units.PercentUnit,
            stacked=True,
            minimum=0,
            maximum=1,
        ),
        timeseries(
            "CPU by core",
            "Share of each core in use. One busy core among idle ones is a program with a single thread.",
            query(f"max by (cpu) (host_cpu_core_usage_ratio{{{ONE}}})", "core {{cpu}}"),
            query(f"max(host_cpu_usage_ratio{{{ONE}}})", "all"),
            unit=units.PercentUnit,
            thresholds=SHARE,
            minimum=0,
            maximum=1,
        ),
        timeseries(
            "Load",
            "Processes that want to run or wait for a disk, on average over 1, 5 and 15 minutes; too many "
            "when above the number of cores.",
            *(query(f"max(host_load{minutes}{{{ONE}}})", f"{minutes} min") for minutes in (1, 5, 15)),
            query(f"max(host_cpu_logical_cores{{{ONE}}})", "cores"),
            unit=units.Short,
            decimals=2,
            minimum=0,
        ),
        timeseries(
            "Processes",
            "Processes by state. Many in disk_sleep wait for a disk; zombies wait for their parent.",
            query(f"max by (state) (host_processes{{{ONE}}})", "{{state}}"),
            unit=units.Short,
            stacked=True,
            minimum=0,
        ),
        timeseries(
            "Context switches and interrupts",
            "Events each second.",
            query(f"max(rate(host_context_switches_total{{{ONE}}}{RATE}))", "context switches"),
            query(f"max(rate(host_interrupts_total{{{ONE}}}{RATE}))", "interrupts"),
            query(f"max(rate(host_soft_interrupts_total{{{ONE}}}{RATE}))", "software interrupts"),
            unit=units.EventsPerSecond,
            minimum=0,
        ),
        timeseries(
            "Clock",
            "Clock of the fastest and of the slowest core, where the machine tells.",
            query(f"max(host_cpu_frequency_hertz{{{ONE}}})", "fastest"),
            query(f"min(host_cpu_frequency_hertz{{{ONE}}})", "slowest"),
            unit=units.Hertz,
            minimum=0,
        ),
    ]


def _memory() -> list[Panel]:
    return [
        timeseries(
            "Memory",
            "What programs and the kernel use, what caches files until somebody needs the memory, and what "
            "nobody uses.",
            query(f"max(host_memory_used_bytes{{{ONE}}})", "used"),
            query(
                f"max(host_memory_cached_bytes{{{ONE}}}) + max(host_memory_buffers_bytes{{{ONE}}})", "cache"
            ),
            query(f"max(host_memory_free_bytes{{{ONE}}})", "free"),
            unit=units.BytesIEC,
            stacked=True,
            minimum=0,
        ),
        timeseries(
            "Memory available",
            "What programs can get without swapping, of all there is.",
            query(f"max(host_memory_available_bytes{{{ONE}}})", "available"),
            query(f"max(host_memory_size_bytes{{{ONE}}})", "size"),
            unit=units.BytesIEC,
            minimum=0,
        ),
        timeseries(
            "Swap",
            "Memory that the kernel moved to disk, of what it may move there.",
            query(f"max(host_swap_used_bytes{{{ONE}}})", "used"),
            query(f"max(host_swap_size_bytes{{{ONE}}})", "size"),
            unit=units.BytesIEC,
            minimum=0,
        ),
        timeseries(
            "Swapping",
            "Memory moved to disk and back each second. A lot of both is a host that lacks memory.",
            query(f"max(rate(host_swap_in_bytes_total{{{ONE}}}{RATE}))", "back"),
            query(f"max(rate(host_swap_out_bytes_total{{{ONE}}}{RATE}))", "to disk"),
            unit=units.BytesPerSecondIEC,
            minimum=0,
        ),
    ]


def _disks() -> list[Panel]:
    place = "mountpoint, device, fstype"
    return [
        table(
            "File systems",
            "Those that are not filtered out. One that does not answer has no size; those that hang are not "
            "asked again until they return.",
            column("mountpoint", "Mounted on"),
            column("device", "Device"),
            column("fstype", "Type"),
            column(
                query(f"max by ({place}) (host_filesystem_error{{{ONE}}})"),
                "State",
                mappings=ANSWERS,
                cell="color-text",
            ),
            column(
                query(f"max by ({place}) (host_filesystem_size_bytes{{{ONE}}})"), "Size", unit=units.BytesIEC
            ),
            column(
                query(f"max by ({place}) (host_filesystem_available_bytes{{{ONE}}})"),
                "Available",
                unit=units.BytesIEC,
            ),
            column(
                query(f"max by ({place}) (host_filesystem_usage_ratio{{{ONE}}})"),
                "In use",
                unit=units.PercentUnit,
                thresholds=SHARE,
                cell="gauge",
                minimum=0,
                maximum=1,
            ),
            column(
                query(
                    f"1 - max by ({place}) (host_filesystem_files_free{{{ONE}}}) "
                    f"/ max by ({place}) (host_filesystem_files{{{ONE}}})"
                ),
                "Files in use",
                unit=units.PercentUnit,
                thresholds=SHARE,
                cell="color-text",
            ),
            sort="In use",
            width=24,
            height=8,
        ),
        timeseries(
            "Disk throughput",
            "Bytes read and written each second.",
            query(f"sum by (device) (rate(host_disk_read_bytes_total{{{ONE}}}{RATE}))", "read {{device}}"),
            query(
                f"sum by (device) (rate(host_disk_written_bytes_total{{{ONE}}}{RATE}))", "written {{device}}"
            ),
            unit=units.BytesPerSecondIEC,
            minimum=0,
        ),
        timeseries(
            "Disk operations",
            "Reads and writes that were completed each second.",
            query(f"sum by (device) (rate(host_disk_reads_total{{{ONE}}}{RATE}))", "reads {{device}}"),
            query(f"sum by (device) (rate(host_disk_writes_total{{{ONE}}}{RATE}))", "writes {{device}}"),
            unit=units.IOOpsPerSecond,
            minimum=0,
        ),
        timeseries(
            "Disks busy",
            "Share of the time in which the disk had something to do.",
            query(f"max by (device) (rate(host_disk_busy_seconds_total{{{ONE}}}{RATE}))", "{{device}}"),
            unit=units.PercentUnit,
            thresholds=SHARE,
            minimum=0,
        ),
    ]


def _network() -> list[Panel]:
    def both(what: str) -> list[tuple[str, str]]:
        return [
            (
                f"sum by (device) (rate(host_network_{way}_{what}_total{{{ONE}}}{RATE}))",
                f"{{{{device}}}} {word}",
            )
            for way, word in (("receive", "received"), ("transmit", "sent"))
        ]

    return [
        timeseries(
            "Traffic",
            "Bytes received and sent each second.",
            *(query(expr, legend) for expr, legend in both("bytes")),
            unit=units.BytesPerSecondSI,
            minimum=0,
        ),
        timeseries(
            "Packets",
            "Packets received and sent each second.",
            *(query(expr, legend) for expr, legend in both("packets")),
            unit=units.PacketsPerSecond,
            minimum=0,
        ),
        timeseries(
            "Errors and drops",
            "Packets that were lost each second; any number that lasts deserves a look.",
            *(query(expr, f"{legend}, errors") for expr, legend in both("errors")),
            *(query(expr, f"{legend}, drops") for expr, legend in both("drops")),
            unit=units.PacketsPerSecond,
            minimum=0,
        ),
    ]


def _sensors() -> list[Panel]:
    return [
        timeseries(
            "Temperature",
            "Temperatures, on machines that have thermometers.",
            query(f"max by (chip, sensor) (host_temperature_celsius{{{ONE}}})", "{{chip}} {{sensor}}"),
            unit=units.Celsius,
        ),
        timeseries(
            "Battery",
            "How full the battery is, on machines that have one.",
            query(f"max(host_battery_charge_ratio{{{ONE}}})", "charge"),
            unit=units.PercentUnit,
            minimum=0,
            maximum=1,
        ),
    ]


def _collector() -> list[Panel]:
    return [
        timeseries(
            "Time taken",
            "Time that each collector took, or was waited for.",
            query(f"max by (collector) (metrics_collector_duration_seconds{{{ONE}}})", "{{collector}}"),
            unit=units.Seconds,
            decimals=4,
            minimum=0,
        ),
        timeseries(
            "Failures",
            "Rounds in which a collector raised an error, took too long, or had not returned from before.",
            query(
                f"sum by (collector, reason) (increase(metrics_collector_failures_total{{{ONE}}}{RATE})) > 0",
                "{{collector}}: {{reason}}",
            ),
            unit=units.Short,
            bars=True,
            minimum=0,
            no_value="none",
        ),
        timeseries(
            "CPU of the collector",
            "Processor cores that the collector itself takes.",
            query(f"max(rate(process_cpu_seconds_total{{{OWN}}}{RATE}))", "CPU"),
            unit=units.Short,
            decimals=4,
            minimum=0,
        ),
        timeseries(
            "Memory of the collector",
            "Memory that the collector itself holds.",
            query(f"max(process_resident_memory_bytes{{{OWN}}})", "memory"),
            unit=units.BytesIEC,
            minimum=0,
        ),
    ]
