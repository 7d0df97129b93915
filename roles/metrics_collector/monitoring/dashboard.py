"""The dashboards of a host as psutil sees it with the collector that asks, and of systemd's services."""

from __future__ import annotations

from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard, ValueMap

from fleetwatch.dashboards.style import (
    GREEN,
    ORANGE,
    RED,
    Panel,
    above,
    column,
    dashboard,
    dashboard_url,
    gauge,
    host_link,
    host_variable,
    link,
    mapping,
    query,
    row,
    stat,
    table,
    timeline,
    timeseries,
    variable,
)

JOB = "metrics_collector"
ONE = 'host="$host"'
OWN = f'job="{JOB}",{ONE}'
"""The collector's process; other programs of the host have such metrics too."""
USE = above(orange=70, red=90)
SHARE = above(orange=0.7, red=0.9)
RATE = "[$__rate_interval]"
ANSWERS = mapping({0: ("answers", GREEN), 1: ("does not", RED)})

HOSTS = 'host=~"$host"'
UNIT = f'{HOSTS},unit="$unit"'
THIS = [
    link(
        "This service",
        dashboard_url("fleetwatch-units", host="${__field.labels.host}", unit="${__field.labels.unit}"),
    ),
    host_link(),
]
STATES = {
    "active": GREEN,
    "reloading": GREEN,
    "activating": ORANGE,
    "deactivating": ORANGE,
    "maintenance": ORANGE,
    "failed": RED,
}


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
        ),
        dashboard(
            "fleetwatch-units",
            "Units",
            "What each systemd service uses, and what state it is in.",
            row("Overview", *_units_overview()),
            row("Most", *_units_most()),
            row("$unit", *_unit()),
            row("All services", _units_table(), collapsed=True),
            variables=[
                host_variable("host_unit_tasks", job=False),
                variable("unit", "Unit", f"label_values(host_unit_tasks{{{HOSTS}}}, unit)", multi=False),
            ],
            scope=HOSTS,
            restarts=f'job="{JOB}",{HOSTS}',
        ),
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


def _units_overview() -> list[Panel]:
    return [
        stat(
            "Running",
            "Services with processes.",
            query(f"count(host_unit_tasks{{{HOSTS}}})", "services"),
            unit=units.Short,
            width=6,
        ),
        stat(
            "Failed",
            "Services that systemd gave up.",
            query(f'count(host_unit_state{{{HOSTS},state="failed"}}) or vector(0)', "services"),
            unit=units.Short,
            thresholds=above(red=1),
            width=6,
        ),
        stat(
            "Restarts",
            "Restarts by systemd within the time shown, because a service ended by itself.",
            query(f"sum(increase(host_unit_restarts_total{{{HOSTS}}}[$__range]))", "restarts"),
            unit=units.Short,
            thresholds=above(orange=1),
            width=6,
        ),
        stat(
            "Killed for lack of memory",
            "Processes of services that the kernel killed within the time shown.",
            query(f"sum(increase(host_unit_oom_kills_total{{{HOSTS}}}[$__range])) or vector(0)", "processes"),
            unit=units.Short,
            thresholds=above(red=1),
            width=6,
        ),
    ]


def _units_most() -> list[Panel]:
    return [
        timeseries(
            "Most CPU",
            "Cores that the ten services use that use most.",
            query(f"topk(10, {_cpu_of(HOSTS)})", "{{unit}} {{host}}"),
            unit=units.Short,
            decimals=2,
            minimum=0,
            links=THIS,
            width=12,
        ),
        timeseries(
            "Most memory",
            "Memory of the ten largest services, without cached files that are not in use.",
            query(f"topk(10, {_max('host_unit_memory_bytes', HOSTS)})", "{{unit}} {{host}}"),
            unit=units.BytesIEC,
            minimum=0,
            links=THIS,
            width=12,
        ),
        timeseries(
            "Restarts",
            "Restarts by systemd within a quarter of an hour, because the service ended by itself.",
            query(
                f"topk(10, max by (host, unit) (increase(host_unit_restarts_total{{{HOSTS}}}[15m])) > 0)",
                "{{unit}} {{host}}",
            ),
            unit=units.Short,
            bars=True,
            minimum=0,
            no_value="none",
            links=THIS,
            width=12,
        ),
        timeseries(
            "Nearest to their limit",
            "Share of its MemoryMax that a service uses, if it has one. At all of it the kernel kills.",
            query(f"topk(10, {_memory_share(HOSTS)})", "{{unit}} {{host}}"),
            unit=units.PercentUnit,
            thresholds=SHARE,
            minimum=0,
            maximum=1,
            no_value="no limit",
            links=THIS,
            width=12,
        ),
        timeseries(
            "Most disk traffic",
            "Bytes that the ten services read and write that do most, where the kernel counts them.",
            query(
                f"topk(10, sum by (host, unit) (rate(host_unit_io_read_bytes_total{{{HOSTS}}}{RATE})) "
                f"+ sum by (host, unit) (rate(host_unit_io_written_bytes_total{{{HOSTS}}}{RATE})))",
                "{{unit}} {{host}}",
            ),
            unit=units.BytesPerSecondIEC,
            minimum=0,
            no_value="not counted",
            links=THIS,
            width=12,
        ),
        table(
            "Not active",
            "Services that failed or are on their way.",
            column("host", "Host"),
            column("unit", "Unit"),
            column(
                query(" or ".join(_state(state, HOSTS) for state in STATES if state != "active")),
                "State",
                mappings=_state_words(),
                cell="color-text",
            ),
            sort="State",
            width=12,
            height=8,
        ),
    ]


def _unit() -> list[Panel]:
    return [
        timeseries(
            "CPU",
            "Cores in use, and how many the service may use if it has a CPUQuota.",
            query(_cpu_of(UNIT), "{{host}}"),
            query(_max("host_unit_cpu_limit_cores", UNIT), "limit {{host}}"),
            unit=units.Short,
            decimals=2,
            minimum=0,
        ),
        timeseries(
            "Memory",
            "Memory without cached files that are not in use, and how much the service may use if it has a "
            "MemoryMax.",
            query(_max("host_unit_memory_bytes", UNIT), "{{host}}"),
            query(_max("host_unit_memory_limit_bytes", UNIT), "limit {{host}}"),
            unit=units.BytesIEC,
            minimum=0,
        ),
        timeseries(
            "Tasks",
            "Processes and threads. A number that only grows is a leak.",
            query(_max("host_unit_tasks", UNIT), "{{host}}"),
            unit=units.Short,
            minimum=0,
        ),
        timeseries(
            "Disk traffic",
            "Bytes read and written, where the kernel counts them.",
            query(
                f"sum by (host) (rate(host_unit_io_read_bytes_total{{{UNIT}}}{RATE}))",
                "read {{host}}",
            ),
            query(
                f"sum by (host) (rate(host_unit_io_written_bytes_total{{{UNIT}}}{RATE}))",
                "written {{host}}",
            ),
            unit=units.BytesPerSecondIEC,
            minimum=0,
            no_value="not counted",
        ),
        timeline(
            "State",
            "What systemd says of it; nothing while it is inactive.",
            query(" or ".join(_state(state, UNIT) for state in STATES)),
            mappings=_state_words(),
        ),
        timeseries(
            "Up for",
            "Time since the service became active; it falls to 0 at each start.",
            query(f"time() - {_max('host_unit_start_time_seconds', UNIT)}", "{{host}}"),
            unit=units.DurationSeconds,
            minimum=0,
        ),
    ]


def _units_table() -> Panel:
    return table(
        "All services",
        "Every service that is not inactive. One without memory has no process: it did its work at once.",
        column("host", "Host"),
        column("unit", "Unit"),
        column(
            query(" or ".join(_state(state, HOSTS) for state in STATES)),
            "State",
            mappings=_state_words(),
            cell="color-text",
        ),
        column(
            query(f"time() - {_max('host_unit_start_time_seconds', HOSTS)}"),
            "Up for",
            unit=units.DurationSeconds,
        ),
        column(
            query(f"max by (host, unit) (increase(host_unit_restarts_total{{{HOSTS}}}[$__range]))"),
            "Restarts",
            unit=units.Short,
        ),
        column(query(_cpu_of(HOSTS)), "Cores in use", unit=units.Short, decimals=2),
        column(query(_max("host_unit_memory_bytes", HOSTS)), "Memory", unit=units.BytesIEC),
        column(
            query(_memory_share(HOSTS)),
            "Of its limit",
            unit=units.PercentUnit,
            thresholds=SHARE,
            cell="gauge",
            minimum=0,
            maximum=1,
        ),
        column(query(_max("host_unit_tasks", HOSTS)), "Tasks", unit=units.Short),
        sort="Memory",
        height=16,
    )


def _cpu_of(matchers: str) -> str:
    return f"sum by (host, unit) (rate(host_unit_cpu_seconds_total{{{matchers}}}{RATE}))"


def _max(metric: str, matchers: str) -> str:
    return f"max by (host, unit) ({metric}{{{matchers}}})"


def _memory_share(matchers: str) -> str:
    return f"{_max('host_unit_memory_bytes', matchers)} / {_max('host_unit_memory_limit_bytes', matchers)}"


def _state(state: str, matchers: str) -> str:
    """Return the expression of the services in a state, with its number as value."""
    return (
        f'max by (host, unit) (host_unit_state{{{matchers},state="{state}"}}) * {list(STATES).index(state)}'
    )


def _state_words() -> list[ValueMap]:
    return mapping({number: (state, colour) for number, (state, colour) in enumerate(STATES.items())})
