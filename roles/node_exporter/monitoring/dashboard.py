"""The dashboards of the hosts: all of them on one page, and one in detail."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builder
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard, DashboardLink

from fleetwatch.dashboards.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    UP_DOWN,
    Column,
    Panel,
    Query,
    above,
    bargauge,
    below,
    column,
    dashboard,
    dashboard_url,
    host_link,
    link,
    mapping,
    page_link,
    query,
    ranges,
    row,
    stat,
    table,
    timeline,
    timeseries,
    variable,
)

NODE = 'job="node_exporter",host=~"$host"'
"""The hosts of the overview: those with node_exporter. The series of simulated hosts are not among them."""
FIRING = 'ALERTS{alertstate="firing",host=~"$host",severity='
DOWN_STATE, CRITICAL_STATE, WARNING_STATE, INFO_STATE = 4, 3, 2, 1
STATES = ranges(
    {
        0: ("well", GREEN),
        INFO_STATE: ("info", BLUE),
        WARNING_STATE: ("warning", ORANGE),
        CRITICAL_STATE: ("critical", RED),
        DOWN_STATE: ("down", RED),
    }
)
UTILISATION = above(orange=0.7, red=0.9)
DISK_UTILISATION = above(orange=0.7, red=0.85)
LOAD_PER_CPU = above(orange=1, red=2)
DISKS = 'fstype!~"tmpfs|ramfs|squashfs|iso9660"'
DRIVES = 'device!~"loop.*|ram.*|zram.*|sr.*|fd.*"'
ONE = 'host="$host"'
"""The host of the detail: whoever reports its metrics, so that a simulated host can be looked at too."""
RECEIVER = variable(
    "receiver", "Receiver", "label_values(alert_receiver_info, external_url)", multi=False, hidden=True
)
"""Where the receiver of alerts is reached, as it says itself."""


def dashboards() -> list[Dashboard]:
    """Return the fleet overview and the host detail."""
    return [_fleet(), _host()]


# ----------------------------------------------------------------------------------------------- all hosts


def _fleet() -> Dashboard:
    return dashboard(
        "fleetwatch-fleet",
        "Fleet overview",
        "Every host in one row, the one with the worst trouble first; a row leads to the host. It reads "
        "recorded series, so that it is as quick with 500 hosts as with 5.",
        row("Fleet", *_fleet_stats()),
        row("Hosts", _hosts_table()),
        row("Busiest hosts", *_busiest()),
        row("Over time", *_fleet_over_time()),
        variables=[variable("host", "Host", 'label_values(up{job="node_exporter"}, host)'), RECEIVER],
        links=[
            _page("Alerts", "fleetwatch-alerts", with_host=True),
            page_link("Incidents", "${receiver}/incidents"),
        ],
        time="now-3h",
    )


def _page(title: str, uid: str, *, with_host: bool = False) -> Builder[DashboardLink]:
    """Return a link at the top of a dashboard to another one, at the same time."""
    result = builder.DashboardLink(title).url(f"/d/{uid}").icon("dashboard").keep_time(True)
    return result.include_vars(with_host)


def _count(expr: str) -> str:
    return f"count({expr}) or vector(0)"


def _fleet_stats() -> list[Panel]:
    return [
        stat(
            "Hosts",
            "Hosts that node_exporter is to run on.",
            query(f"count(up{{{NODE}}})", "hosts"),
            unit=units.Short,
        ),
        stat(
            "Down",
            "Hosts whose node_exporter Prometheus cannot reach.",
            query(_count(f"up{{{NODE}}} == 0"), "down"),
            unit=units.Short,
            thresholds=above(red=1),
        ),
        stat(
            "Critical alerts",
            "Critical alerts that fire for the chosen hosts.",
            query(_count(f'{FIRING}"critical"}}'), "critical"),
            unit=units.Short,
            thresholds=above(red=1),
            links=[_alerts_link()],
        ),
        stat(
            "Warnings",
            "Warnings that fire for the chosen hosts.",
            query(_count(f'{FIRING}"warning"}}'), "warnings"),
            unit=units.Short,
            thresholds=above(orange=1),
            links=[_alerts_link()],
        ),
        stat(
            "Mean CPU",
            "Mean CPU utilisation of the hosts.",
            query(f"avg(instance:node_cpu_utilisation:rate5m{{{NODE}}})", "mean"),
            unit=units.PercentUnit,
            thresholds=UTILISATION,
            sparkline=True,
        ),
        stat(
            "Mean memory",
            "Mean memory utilisation of the hosts.",
            query(f"avg(instance:node_memory_utilisation:ratio{{{NODE}}})", "mean"),
            unit=units.PercentUnit,
            thresholds=UTILISATION,
            sparkline=True,
        ),
        stat(
            "Full disks",
            "Hosts with a file system that is more than 85 % full.",
            query(_count(f"instance:node_filesystem_utilisation:max{{{NODE}}} > 0.85"), "hosts"),
            unit=units.Short,
            thresholds=above(orange=1),
        ),
        stat(
            "Overloaded",
            "Hosts on which more processes want to run or wait for a disk than there are CPUs.",
            query(_count(f"instance:node_load1_per_cpu:ratio{{{NODE}}} > 1"), "hosts"),
            unit=units.Short,
            thresholds=above(orange=1),
        ),
    ]


def _alerts_link() -> Builder[DashboardLink]:
    """Return the link to the alerts of the chosen hosts."""
    return link("Alerts and incidents", f"{dashboard_url('fleetwatch-alerts')}&${{host:queryparam}}")


def _state() -> Query:
    """Return what hosts are sorted by: the worst that is wrong, and among equals the utilisation.

    The whole number is the state; the fraction behind it is the utilisation of what is used most.
    """
    hosts = f"max by (host) (up{{{NODE}}})"

    def worst(severity: str, number: int) -> str:
        return f'{number} * max by (host) ({FIRING}"{severity}"}})'

    return query(
        f"""
        (
          {DOWN_STATE} + ({hosts} == 0)
          or {worst("critical", CRITICAL_STATE)}
          or {worst("warning", WARNING_STATE)}
          or {worst("info", INFO_STATE)}
          or 0 * {hosts}
        )
        + (
          clamp(max by (host) ({{
            __name__=~"instance:node_(cpu_utilisation:rate5m|memory_utilisation:ratio|filesystem_utilisation:max)",
            {NODE}
          }}), 0, 0.99)
          or 0 * {hosts}
        )
        and {hosts}
        """
    )


def _hosts_table() -> Panel:
    def value(title: str, expr: str, unit: str, **look: object) -> Column:
        return column(query(f"max by (host) ({expr}{{{NODE}}})"), title, unit=unit, **look)  # type: ignore[arg-type]

    hosts = f"max by (host) (up{{{NODE}}})"
    return table(
        "Hosts",
        "Sorted by trouble: down, critical, warning, then by what is used most. Disk is the fullest file "
        "system, load is for each CPU.",
        column("host", "Host", links=[host_link(field="Host")]),
        column(_state(), "State", mappings=STATES, column_width=110),
        column(query(hosts), "Up", mappings=UP_DOWN, cell="color-text", column_width=80),
        column(
            query(f'count by (host) ({FIRING}~".+"}} and on (host) up{{{NODE}}}) or 0 * {hosts}'),
            "Open alerts",
            unit=units.Short,
            thresholds=[(GREY, None), (ORANGE, 1)],
            cell="color-text",
            links=[
                link(
                    "Alerts and incidents",
                    dashboard_url("fleetwatch-alerts", host='${__data.fields["Host"]}'),
                )
            ],
            column_width=110,
        ),
        value(
            "CPU",
            "instance:node_cpu_utilisation:rate5m",
            units.PercentUnit,
            thresholds=UTILISATION,
            cell="gauge",
            minimum=0,
            maximum=1,
        ),
        value(
            "Memory",
            "instance:node_memory_utilisation:ratio",
            units.PercentUnit,
            thresholds=UTILISATION,
            cell="gauge",
            minimum=0,
            maximum=1,
        ),
        value(
            "Disk",
            "instance:node_filesystem_utilisation:max",
            units.PercentUnit,
            thresholds=DISK_UTILISATION,
            cell="gauge",
            minimum=0,
            maximum=1,
        ),
        value(
            "Load",
            "instance:node_load1_per_cpu:ratio",
            units.Short,
            decimals=2,
            thresholds=LOAD_PER_CPU,
            cell="color-text",
            column_width=90,
        ),
        value(
            "Receives", "instance:node_network_receive_bytes:rate5m", units.BytesPerSecondSI, column_width=120
        ),
        value(
            "Sends", "instance:node_network_transmit_bytes:rate5m", units.BytesPerSecondSI, column_width=120
        ),
        join="host",
        sort="State",
        height=18,
    )


def _busiest() -> list[Panel]:
    def most(title: str, description: str, series: str, unit: str, **look: object) -> Panel:
        return bargauge(
            title,
            description,
            query(f"topk(10, max by (host) ({series}{{{NODE}}}))"),
            unit=unit,
            minimum=0,
            links=[host_link()],
            width=6,
            **look,  # type: ignore[arg-type]
        )

    return [
        most(
            "CPU, ten busiest",
            "The ten hosts with the highest CPU utilisation.",
            "instance:node_cpu_utilisation:rate5m",
            units.PercentUnit,
            thresholds=UTILISATION,
            maximum=1,
        ),
        most(
            "Memory, ten fullest",
            "The ten hosts with the highest memory utilisation.",
            "instance:node_memory_utilisation:ratio",
            units.PercentUnit,
            thresholds=UTILISATION,
            maximum=1,
        ),
        most(
            "Disk, ten fullest",
            "The ten hosts with the fullest file systems.",
            "instance:node_filesystem_utilisation:max",
            units.PercentUnit,
            thresholds=DISK_UTILISATION,
            maximum=1,
        ),
        most(
            "Network, ten busiest",
            "The ten hosts that receive most.",
            "instance:node_network_receive_bytes:rate5m",
            units.BytesPerSecondSI,
        ),
    ]


def _fleet_over_time() -> list[Panel]:
    def spread(title: str, description: str, series: str, unit: str, **look: object) -> Panel:
        selected = f"{series}{{{NODE}}}"
        return timeseries(
            title,
            description + " Half of the hosts lie below the median, one in twenty above the 95th percentile.",
            query(f"max({selected})", "highest"),
            query(f"quantile(0.95, {selected})", "95th percentile"),
            query(f"quantile(0.5, {selected})", "median"),
            unit=unit,
            minimum=0,
            **look,  # type: ignore[arg-type]
        )

    return [
        spread(
            "CPU",
            "CPU utilisation of the hosts.",
            "instance:node_cpu_utilisation:rate5m",
            units.PercentUnit,
            thresholds=UTILISATION,
            maximum=1,
        ),
        spread(
            "Memory",
            "Memory utilisation of the hosts.",
            "instance:node_memory_utilisation:ratio",
            units.PercentUnit,
            thresholds=UTILISATION,
            maximum=1,
        ),
        spread(
            "Disk",
            "How full the fullest file system of each host is.",
            "instance:node_filesystem_utilisation:max",
            units.PercentUnit,
            thresholds=DISK_UTILISATION,
            maximum=1,
        ),
        spread(
            "Load for each CPU",
            "Processes that want to run or wait for a disk, for each CPU.",
            "instance:node_load1_per_cpu:ratio",
            units.Short,
            decimals=2,
            thresholds=LOAD_PER_CPU,
        ),
        timeseries(
            "Network",
            "What all chosen hosts receive and send.",
            query(f"sum(instance:node_network_receive_bytes:rate5m{{{NODE}}})", "received"),
            query(f"sum(instance:node_network_transmit_bytes:rate5m{{{NODE}}})", "sent"),
            unit=units.BytesPerSecondSI,
            minimum=0,
        ),
        timeseries(
            "Trouble",
            "Hosts that were down, and alerts that fired for the chosen hosts.",
            query(_count(f"up{{{NODE}}} == 0"), "hosts down"),
            query(_count(f'{FIRING}"critical"}}'), "critical alerts"),
            query(_count(f'{FIRING}"warning"}}'), "warnings"),
            unit=units.Short,
            minimum=0,
        ),
    ]


# ------------------------------------------------------------------------------------------------ one host


def _host() -> Dashboard:
    return dashboard(
        "fleetwatch-host",
        "Host detail",
        "One host in full: what it does, what it lacks, and what is wrong with it.",
        row("Overview", *_host_stats()),
        row("Alerts and targets", *_host_alerts()),
        row("CPU", *_cpu()),
        row("Memory", *_memory()),
        row("Disks", *_disks()),
        row("Network", *_network()),
        row("System", *_system()),
        variables=[
            variable("host", "Host", 'label_values({__name__=~"up|node_load1"}, host)', multi=False),
            RECEIVER,
        ],
        links=[
            _page("Fleet overview", "fleetwatch-fleet"),
            _page("Alerts", "fleetwatch-alerts", with_host=True),
            page_link("Incidents", "${receiver}/incidents?status=all&label=host%3D${host}"),
        ],
    )


def _host_stats() -> list[Panel]:
    return [
        stat(
            "State",
            "Whether Prometheus reaches node_exporter on the host.",
            query(f'max(up{{job="node_exporter",{ONE}}})', "node_exporter"),
            unit=units.NoUnit,
            mappings=UP_DOWN,
            thresholds=below(red=1),
        ),
        stat(
            "Open alerts",
            "Alerts of any severity that fire for the host.",
            query(_count(f'ALERTS{{alertstate="firing",{ONE}}}'), "alerts"),
            unit=units.Short,
            thresholds=above(orange=1),
        ),
        stat(
            "Uptime",
            "Time since the host was started.",
            query(f"time() - max(node_boot_time_seconds{{{ONE}}})", "uptime"),
            unit=units.DurationSeconds,
        ),
        stat(
            "CPUs",
            "CPUs that the host has.",
            query(f'count(node_cpu_seconds_total{{{ONE},mode="idle"}})', "CPUs"),
            unit=units.Short,
        ),
        stat(
            "CPU utilisation",
            "CPU utilisation over 5 minutes.",
            query(f"max(instance:node_cpu_utilisation:rate5m{{{ONE}}})", "CPU"),
            unit=units.PercentUnit,
            thresholds=UTILISATION,
            sparkline=True,
        ),
        stat(
            "Memory utilisation",
            "Memory that programs cannot get any more.",
            query(f"max(instance:node_memory_utilisation:ratio{{{ONE}}})", "memory"),
            unit=units.PercentUnit,
            thresholds=UTILISATION,
            sparkline=True,
        ),
        stat(
            "Fullest disk",
            "How full the fullest file system is.",
            query(f"max(instance:node_filesystem_utilisation:max{{{ONE}}})", "disk"),
            unit=units.PercentUnit,
            thresholds=DISK_UTILISATION,
            sparkline=True,
        ),
        stat(
            "Failed units",
            "Units that systemd has in the state failed.",
            query(f'sum(node_systemd_unit_state{{{ONE},state="failed"}})', "units"),
            unit=units.Short,
            thresholds=above(orange=1),
        ),
    ]


def _host_alerts() -> list[Panel]:
    labels = "alertname, severity, job, instance"
    return [
        table(
            "Alerts",
            "Alerts that fire for the host, or will if their condition lasts (pending).",
            column("alertname", "Alert"),
            column("severity", "Severity"),
            column(
                query(
                    f'max by ({labels}) (ALERTS{{alertstate="firing",{ONE}}}) '
                    f'or 0 * max by ({labels}) (ALERTS{{alertstate="pending",{ONE}}})'
                ),
                "State",
                mappings=mapping({0: ("pending", ORANGE), 1: ("firing", RED)}),
                cell="color-text",
            ),
            column(
                query(f"time() - min by ({labels}) (ALERTS_FOR_STATE{{{ONE}}})"),
                "For",
                unit=units.DurationSeconds,
            ),
            column("job", "Job"),
            column("instance", "Instance"),
            sort="For",
            descending=False,
            width=12,
            height=8,
        ),
        table(
            "Targets",
            "What Prometheus scrapes on the host.",
            column("job", "Job"),
            column("instance", "Instance"),
            column(query(f"min by (job, instance) (up{{{ONE}}})"), "Up", mappings=UP_DOWN),
            column(
                query(f"max by (job, instance) (scrape_duration_seconds{{{ONE}}})"),
                "Scrape duration",
                unit=units.Seconds,
                decimals=3,
            ),
            column(
                query(f"max by (job, instance) (scrape_samples_scraped{{{ONE}}})"),
                "Samples",
                unit=units.Short,
            ),
            sort="Up",
            descending=False,
            width=12,
            height=8,
        ),
    ]


def _cpu() -> list[Panel]:
    return [
        timeseries(
            "CPU by mode",
            "What the CPUs did; the rest they were idle. Much iowait means slow disks; steal is what other "
            "guests of the same machine took.",
            query(
                f'avg by (mode) (rate(node_cpu_seconds_total{{{ONE},mode!="idle"}}[$__rate_interval]))',
                "{{mode}}",
            ),
            unit=units.PercentUnit,
            stacked=True,
            minimum=0,
            maximum=1,
        ),
        timeseries(
            "Busiest CPU",
            "The CPU that was least idle, and the mean. One busy CPU among idle ones is a program with a "
            "single thread.",
            query(
                "1 - min(sum by (cpu) "
                f'(rate(node_cpu_seconds_total{{{ONE},mode=~"idle|iowait|steal"}}[$__rate_interval])))',
                "busiest",
            ),
            query(f"max(instance:node_cpu_utilisation:rate5m{{{ONE}}})", "mean of all"),
            unit=units.PercentUnit,
            thresholds=UTILISATION,
            minimum=0,
            maximum=1,
        ),
        timeseries(
            "Load",
            "Processes that want to run or wait for a disk, on average over 1, 5 and 15 minutes; too many "
            "when above the number of CPUs.",
            query(f"max(node_load1{{{ONE}}})", "1 min"),
            query(f"max(node_load5{{{ONE}}})", "5 min"),
            query(f"max(node_load15{{{ONE}}})", "15 min"),
            query(f'count(node_cpu_seconds_total{{{ONE},mode="idle"}})', "CPUs"),
            unit=units.Short,
            decimals=2,
            minimum=0,
        ),
        timeseries(
            "Pressure",
            "Share of the time in which some process waited for a CPU, for memory or for a disk.",
            query(f"max(rate(node_pressure_cpu_waiting_seconds_total{{{ONE}}}[$__rate_interval]))", "CPU"),
            query(
                f"max(rate(node_pressure_memory_waiting_seconds_total{{{ONE}}}[$__rate_interval]))", "memory"
            ),
            query(f"max(rate(node_pressure_io_waiting_seconds_total{{{ONE}}}[$__rate_interval]))", "disk"),
            unit=units.PercentUnit,
            thresholds=above(orange=0.25, red=0.5),
            minimum=0,
        ),
        timeseries(
            "Processes",
            "Processes that run or want to, and those that wait for a disk.",
            query(f"max(node_procs_running{{{ONE}}})", "running"),
            query(f"max(node_procs_blocked{{{ONE}}})", "blocked"),
            unit=units.Short,
            minimum=0,
        ),
        timeseries(
            "Context switches and new processes",
            "Events each second.",
            query(f"max(rate(node_context_switches_total{{{ONE}}}[$__rate_interval]))", "context switches"),
            query(f"max(rate(node_forks_total{{{ONE}}}[$__rate_interval]))", "new processes"),
            unit=units.EventsPerSecond,
            minimum=0,
        ),
    ]


def _memory() -> list[Panel]:
    cache = " + ".join(
        f"max(node_memory_{name}_bytes{{{ONE}}})" for name in ("Buffers", "Cached", "SReclaimable")
    )
    free = f"max(node_memory_MemFree_bytes{{{ONE}}})"
    total = f"max(node_memory_MemTotal_bytes{{{ONE}}})"
    return [
        timeseries(
            "Memory",
            "What programs and the kernel use, what caches files until somebody needs the memory, and what "
            "nobody uses.",
            query(f"{total} - {free} - ({cache})", "used"),
            query(cache, "cache"),
            query(free, "free"),
            unit=units.BytesIEC,
            stacked=True,
            minimum=0,
        ),
        timeseries(
            "Swap",
            "Memory that the kernel moved to disk, of what it may move there.",
            query(f"max(node_memory_SwapTotal_bytes{{{ONE}}})", "total"),
            query(
                f"max(node_memory_SwapTotal_bytes{{{ONE}}}) - max(node_memory_SwapFree_bytes{{{ONE}}})",
                "used",
            ),
            unit=units.BytesIEC,
            minimum=0,
        ),
        timeseries(
            "Paging",
            "Pages that had to be read from disk before a process could go on, and those moved to and from "
            "swap.",
            query(f"max(rate(node_vmstat_pgmajfault{{{ONE}}}[$__rate_interval]))", "major faults"),
            query(f"max(rate(node_vmstat_pswpin{{{ONE}}}[$__rate_interval]))", "from swap"),
            query(f"max(rate(node_vmstat_pswpout{{{ONE}}}[$__rate_interval]))", "to swap"),
            unit=units.EventsPerSecond,
            minimum=0,
        ),
        timeseries(
            "Killed for lack of memory",
            "Processes that the kernel killed since memory ran out. Its log says which.",
            query(f"max(increase(node_vmstat_oom_kill{{{ONE}}}[$__rate_interval]))", "killed"),
            unit=units.Short,
            bars=True,
            minimum=0,
        ),
    ]


def _disks() -> list[Panel]:
    place = "mountpoint, device"

    def share_used(free: str, size: str) -> str:
        return (
            f"1 - min by ({place}) (node_filesystem_{free}{{{ONE},{DISKS}}}) "
            f"/ max by ({place}) (node_filesystem_{size}{{{ONE},{DISKS}}} > 0)"
        )

    return [
        table(
            "File systems",
            "Space is what users have: some is kept for root.",
            column("mountpoint", "Mounted on"),
            column("device", "Device"),
            column(
                query(f"max by ({place}) (node_filesystem_size_bytes{{{ONE},{DISKS}}})"),
                "Size",
                unit=units.BytesIEC,
            ),
            column(
                query(f"min by ({place}) (node_filesystem_avail_bytes{{{ONE},{DISKS}}})"),
                "Available",
                unit=units.BytesIEC,
            ),
            column(
                query(share_used("avail_bytes", "size_bytes")),
                "Used",
                unit=units.PercentUnit,
                thresholds=DISK_UTILISATION,
                cell="gauge",
                minimum=0,
                maximum=1,
            ),
            column(
                query(share_used("files_free", "files")),
                "Inodes used",
                unit=units.PercentUnit,
                thresholds=DISK_UTILISATION,
                cell="gauge",
                minimum=0,
                maximum=1,
            ),
            column(
                query(f"max by ({place}) (node_filesystem_readonly{{{ONE},{DISKS}}})"),
                "Mode",
                mappings=mapping({0: ("read and write", GREEN), 1: ("read only", ORANGE)}),
                cell="color-text",
            ),
            sort="Used",
            height=8,
        ),
        timeseries(
            "Space used",
            "How full each file system is.",
            query(share_used("avail_bytes", "size_bytes"), "{{mountpoint}}"),
            unit=units.PercentUnit,
            thresholds=DISK_UTILISATION,
            minimum=0,
            maximum=1,
        ),
        timeseries(
            "Inodes used",
            "How many of the files that a file system can have exist. Without inodes no file can be made, "
            "however much space is left.",
            query(share_used("files_free", "files"), "{{mountpoint}}"),
            unit=units.PercentUnit,
            thresholds=DISK_UTILISATION,
            minimum=0,
            maximum=1,
        ),
        timeseries(
            "Busy",
            "Share of the time in which a disk had something to do. Disks that do much at once are not at "
            "their limit at 100 %.",
            query(
                _drives("node_disk_io_time_seconds_total"),
                "{{device}}",
            ),
            unit=units.PercentUnit,
            minimum=0,
        ),
        timeseries(
            "Read and written",
            "Bytes each second.",
            query(
                _drives("node_disk_read_bytes_total"),
                "read {{device}}",
            ),
            query(
                _drives("node_disk_written_bytes_total"),
                "written {{device}}",
            ),
            unit=units.BytesPerSecondIEC,
            minimum=0,
        ),
        timeseries(
            "Operations",
            "Reads and writes each second.",
            query(
                _drives("node_disk_reads_completed_total"),
                "reads {{device}}",
            ),
            query(
                _drives("node_disk_writes_completed_total"),
                "writes {{device}}",
            ),
            unit=units.IOOpsPerSecond,
            minimum=0,
        ),
        timeseries(
            "Latency",
            "How long a read or write took on average, with its time in the queue.",
            query(_latency("read", "reads"), "read {{device}}"),
            query(_latency("write", "writes"), "write {{device}}"),
            unit=units.Seconds,
            decimals=4,
            minimum=0,
        ),
        timeseries(
            "Queue",
            "Reads and writes that were under way or waited, on average.",
            query(
                _drives("node_disk_io_time_weighted_seconds_total"),
                "{{device}}",
            ),
            unit=units.Short,
            decimals=2,
            minimum=0,
        ),
    ]


def _drives(metric: str) -> str:
    return f"max by (device) (rate({metric}{{{ONE},{DRIVES}}}[$__rate_interval]))"


def _latency(time: str, operations: str) -> str:
    """Return seconds for an operation; none where there was no operation."""
    done = _drives(f"node_disk_{operations}_completed_total")
    return f"{_drives(f'node_disk_{time}_time_seconds_total')} / clamp_min({done}, 0.001)"


def _network() -> list[Panel]:
    def by_device(metric: str) -> str:
        return f'max by (device) (rate({metric}{{{ONE},device!="lo"}}[$__rate_interval]))'

    return [
        timeseries(
            "Traffic",
            "Bytes each second, by device.",
            query(by_device("node_network_receive_bytes_total"), "received {{device}}"),
            query(by_device("node_network_transmit_bytes_total"), "sent {{device}}"),
            unit=units.BytesPerSecondSI,
            minimum=0,
        ),
        timeseries(
            "Packets",
            "Packets each second, by device.",
            query(by_device("node_network_receive_packets_total"), "received {{device}}"),
            query(by_device("node_network_transmit_packets_total"), "sent {{device}}"),
            unit=units.PacketsPerSecond,
            minimum=0,
        ),
        timeseries(
            "Errors and drops",
            "Packets that arrived or left damaged, and those that were thrown away. Cables, cards and "
            "drivers make errors; drops are for lack of time or memory.",
            query(by_device("node_network_receive_errs_total"), "errors received {{device}}"),
            query(by_device("node_network_transmit_errs_total"), "errors sent {{device}}"),
            query(by_device("node_network_receive_drop_total"), "drops received {{device}}"),
            query(by_device("node_network_transmit_drop_total"), "drops sent {{device}}"),
            unit=units.PacketsPerSecond,
            minimum=0,
        ),
        timeseries(
            "TCP connections",
            "Connections that are established, and those that wait to be forgotten.",
            query(f"max(node_netstat_Tcp_CurrEstab{{{ONE}}})", "established"),
            query(f"max(node_sockstat_TCP_tw{{{ONE}}})", "closed lately"),
            unit=units.Short,
            minimum=0,
        ),
        timeseries(
            "TCP sent again",
            "Share of the segments that had to be sent again: the network loses some.",
            query(
                f"max(rate(node_netstat_Tcp_RetransSegs{{{ONE}}}[$__rate_interval])) "
                f"/ clamp_min(max(rate(node_netstat_Tcp_OutSegs{{{ONE}}}[$__rate_interval])), 0.001)",
                "sent again",
            ),
            unit=units.PercentUnit,
            decimals=2,
            minimum=0,
        ),
        timeseries(
            "Tracked connections",
            "Connections that the firewall tracks, of those it can. When its table is full, new ones are "
            "dropped.",
            query(
                f"max(node_nf_conntrack_entries{{{ONE}}}) / max(node_nf_conntrack_entries_limit{{{ONE}}})",
                "used",
            ),
            unit=units.PercentUnit,
            decimals=2,
            thresholds=above(orange=0.75, red=0.9),
            minimum=0,
        ),
    ]


def _system() -> list[Panel]:
    failed = f'node_systemd_unit_state{{{ONE},state="failed"}}'
    return [
        timeline(
            "Units that failed",
            "Each unit that systemd had in the state failed at some time in view.",
            query(
                f"max by (name) ({failed}) "
                f"and max by (name) (max_over_time({failed}[$__range] @ end())) == 1",
                "{{name}}",
            ),
            mappings=mapping({0: ("well", GREEN), 1: ("failed", RED)}),
            thresholds=above(red=1),
            no_value="no unit failed",
        ),
        timeseries(
            "Restarts of services",
            "Restarts within 15 minutes by systemd, since a service ended by itself: the five most.",
            query(
                f"topk(5, max by (name) (increase(node_systemd_service_restart_total{{{ONE}}}[15m])))",
                "{{name}}",
            ),
            unit=units.Short,
            minimum=0,
        ),
        timeseries(
            "Clock",
            "How far the clock is from that of Prometheus, the time of a scrape included, and from its time "
            "server's.",
            query(
                f"max(node_time_seconds{{{ONE}}} - timestamp(node_time_seconds{{{ONE}}}))", "to Prometheus"
            ),
            query(f"max(node_timex_offset_seconds{{{ONE}}})", "to its time server"),
            unit=units.Seconds,
            decimals=3,
        ),
        stat(
            "Clock synchronised",
            "Whether the kernel says that something keeps its clock right.",
            query(f"min(node_timex_sync_status{{{ONE}}})", "synchronised"),
            unit=units.NoUnit,
            mappings=mapping({0: ("no", ORANGE), 1: ("yes", GREEN)}),
            thresholds=[(ORANGE, None), (GREEN, 1)],
            width=4,
            height=8,
        ),
        timeseries(
            "Open files",
            "File descriptors in use, of those the kernel gives.",
            query(f"max(node_filefd_allocated{{{ONE}}}) / max(node_filefd_maximum{{{ONE}}})", "used"),
            unit=units.PercentUnit,
            decimals=2,
            thresholds=above(orange=0.7, red=0.9),
            minimum=0,
        ),
        table(
            "System",
            "Kernel and release.",
            column("nodename", "Name"),
            column("release", "Kernel"),
            column("machine", "Machine"),
            column(
                query(f"max by (nodename, release, machine) (node_uname_info{{{ONE}}})"),
                "Seen",
                mappings=mapping({1: ("yes", GREEN)}),
                cell="color-text",
            ),
            width=12,
            height=8,
        ),
    ]
