"""The dashboards of the simulator, and the one of the first system, whose metrics it plays."""

from __future__ import annotations

from fleetwatch.dashboards.style import (
    UP_DOWN,
    Dashboard,
    above,
    bargauge,
    below,
    dashboard,
    host_link,
    host_variable,
    job_variable,
    quantile,
    query,
    rate,
    row,
    stat,
    timeseries,
    units,
    variable,
)

JOB = 'job=~"$job"'
"""The simulator itself has another host than those it plays."""
HOST = 'host=~"$host"'


def dashboards() -> list[Dashboard]:
    """Return the dashboards of the role."""
    return [_simulator(), _first_system()]


def _simulator() -> Dashboard:
    return dashboard(
        "fleetwatch-simulator",
        "Simulator",
        "What the simulator plays, and whether its metrics arrive.",
        row(
            "Overview",
            stat(
                "Simulated hosts",
                "Hosts that are played.",
                query(f"sum(metrics_simulator_hosts{{{JOB}}})", "hosts"),
                unit=units.Short,
            ),
            stat(
                "Hosts that are seen",
                "Simulated hosts whose metrics Prometheus has. A scenario may silence some.",
                query(f"count(custom_cpu_usage{{{JOB}}}) or vector(0)", "hosts"),
                unit=units.Short,
            ),
            stat(
                "Incidents",
                "Incidents that run or wait to begin.",
                query(f"sum(metrics_simulator_incidents{{{JOB}}})", "incidents"),
                unit=units.Short,
                thresholds=above(orange=1),
                sparkline=True,
            ),
            stat(
                "Last round",
                "Time since the whole fleet was last pushed.",
                query(f"time() - max(metrics_simulator_last_success_timestamp_seconds{{{JOB}}} > 0)", "ago"),
                unit=units.DurationSeconds,
                no_value="does not push",
            ),
            stat(
                "Failed pushes",
                "Pushes that failed within the last hour.",
                query(f'sum(increase(metrics_simulator_pushes_total{{{JOB},result="error"}}[1h]))', "failed"),
                unit=units.Short,
                thresholds=above(red=1),
            ),
        ),
        row(
            "Simulated hosts",
            timeseries(
                "CPU",
                "Share of the processors that is in use.",
                query(f"custom_cpu_usage{{{JOB},{HOST}}}"),
                unit=units.Percent,
                thresholds=above(orange=70, red=90),
                minimum=0,
                maximum=100,
            ),
            timeseries(
                "Memory",
                "Share of the memory that is in use.",
                query(f"custom_memory_usage{{{JOB},{HOST}}}"),
                unit=units.Percent,
                thresholds=above(orange=50, red=90),
                minimum=0,
                maximum=100,
            ),
            timeseries(
                "Disk space available",
                "Share of the root file system that is free.",
                query(
                    f'100 * node_filesystem_avail_bytes{{{JOB},{HOST},mountpoint="/"}} '
                    f'/ node_filesystem_size_bytes{{{JOB},{HOST},mountpoint="/"}}'
                ),
                unit=units.Percent,
                thresholds=below(orange=30, red=15),
                minimum=0,
                maximum=100,
            ),
            timeseries(
                "Load",
                "Mean number of runnable processes over a minute.",
                query(f"node_load1{{{JOB},{HOST}}}"),
                unit=units.NoUnit,
                decimals=2,
                thresholds=above(orange=1, red=2),
                minimum=0,
            ),
            timeseries(
                "Network in",
                "Bytes received each second.",
                query(rate("node_network_receive_bytes_total", f"{JOB},{HOST}")),
                unit=units.BytesPerSecondSI,
                thresholds=above(orange=50e6, red=100e6),
                minimum=0,
            ),
        ),
        row(
            "Simulator",
            timeseries(
                "Pushes",
                "Pushes by what became of them. The simulator may instead be scraped itself.",
                query(rate("metrics_simulator_pushes_total", JOB, by="result"), "{{result}}"),
                unit=units.RequestsPerSecond,
                stacked=True,
                minimum=0,
            ),
            timeseries(
                "Time for a round",
                "Time to push the whole fleet once: half of the rounds, and 99 of 100, took less.",
                *(
                    query(
                        quantile(share, "metrics_simulator_round_seconds", JOB),
                        name,
                    )
                    for share, name in ((0.5, "median"), (0.99, "99 %"))
                ),
                unit=units.Seconds,
                decimals=3,
                minimum=0,
            ),
            timeseries(
                "Memory of the simulator",
                "Memory that the process holds.",
                query(f"sum by (host) (process_resident_memory_bytes{{{JOB}}})"),
                unit=units.BytesIEC,
                minimum=0,
                links=[host_link()],
            ),
        ),
        variables=[job_variable("metrics_simulator_hosts"), host_variable("custom_cpu_usage")],
        restarts=JOB,
    )


def _first_system() -> Dashboard:
    """Return exactly the six panels of the first system, with its colours.

    A colour begins at its value: where the first system had orange up to and with 90, red begins at 90 here.
    """
    return dashboard(
        "fleetwatch-first-system",
        "First system",
        "The six panels of the first system, with its thresholds. Fleet and Host tell more.",
        row(
            "Hosts",
            bargauge(
                "CPU usage %",
                "Share of the processors in use: green below 70, orange to 90, red above.",
                query(f"custom_cpu_usage{{{HOST}}}"),
                unit=units.Percent,
                thresholds=above(orange=70, red=90),
                minimum=0,
                maximum=100,
                links=[host_link()],
            ),
            bargauge(
                "Memory usage %",
                "Share of the memory in use: green below 50, orange to 90, red above.",
                query(f"custom_memory_usage{{{HOST}}}"),
                unit=units.Percent,
                thresholds=above(orange=50, red=90),
                minimum=0,
                maximum=100,
                links=[host_link()],
            ),
            bargauge(
                "Disk available %",
                "Share of the root file system that is free: green above 30, orange down to 15, red below.",
                query(
                    f'100 * node_filesystem_avail_bytes{{{HOST},mountpoint="/"}} '
                    f'/ node_filesystem_size_bytes{{{HOST},mountpoint="/"}}'
                ),
                unit=units.Percent,
                thresholds=below(orange=30, red=15),
                minimum=0,
                maximum=100,
                links=[host_link()],
            ),
            stat(
                "Node exporter status",
                "Whether node_exporter answers on each host.",
                query(f'up{{job="node_exporter",{HOST}}}'),
                unit=units.NoUnit,
                thresholds=below(red=1),
                mappings=UP_DOWN,
                links=[host_link()],
                width=8,
                height=8,
            ),
            timeseries(
                "Load average, 1 min",
                "Mean number of runnable processes over a minute: green below 1, orange to 2, red above.",
                query(f"node_load1{{{HOST}}}"),
                unit=units.NoUnit,
                decimals=2,
                thresholds=above(orange=1, red=2),
                minimum=0,
                links=[host_link()],
            ),
            timeseries(
                "Network inbound",
                "What the busiest interface receives: green below 50 MB/s, orange to 100 MB/s, red above.",
                query(f"max by (host) (rate(node_network_receive_bytes_total{{{HOST}}}[$__rate_interval]))"),
                unit=units.BytesPerSecondSI,
                thresholds=above(orange=50e6, red=100e6),
                minimum=0,
                links=[host_link()],
            ),
        ),
        variables=[variable("host", "Host", "label_values(node_load1, host)")],
    )
