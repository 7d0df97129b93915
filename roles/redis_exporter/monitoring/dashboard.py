"""The dashboard of Redis."""

from __future__ import annotations

from fleetwatch.dashboards.style import (
    CHOSEN,
    UP_DOWN,
    Dashboard,
    above,
    below,
    dashboard,
    host_link,
    host_variable,
    job_variable,
    query,
    rate,
    row,
    stat,
    timeseries,
    units,
)


def _of(metric: str) -> str:
    """Return the expression of a metric of each host."""
    return f"max by (host) ({metric}{{{CHOSEN}}})"


def _total(metric: str) -> str:
    """Return the expression of how fast a counter of all hosts grows each second."""
    return f"sum(rate({metric}{{{CHOSEN}}}[$__rate_interval]))"


def dashboards() -> list[Dashboard]:
    """Return the dashboards of the role."""
    all_hits = _total("redis_keyspace_hits_total")
    hits, misses = rate("redis_keyspace_hits_total"), rate("redis_keyspace_misses_total")
    return [
        dashboard(
            "fleetwatch-redis",
            "Redis",
            "Whether the cache answers, how much it helps, and how near it is to its limits.",
            row(
                "Overview",
                stat(
                    "Redis",
                    "Whether redis_exporter reaches it.",
                    query(f"min by (host) (redis_up{{{CHOSEN}}})"),
                    unit=units.NoUnit,
                    mappings=UP_DOWN,
                    thresholds=below(red=1),
                    links=[host_link()],
                ),
                stat(
                    "Hit rate",
                    "Share of the keys looked up that are there.",
                    query(f"{all_hits} / ({all_hits} + {_total('redis_keyspace_misses_total')} > 0)", "hits"),
                    unit=units.PercentUnit,
                    thresholds=below(orange=0.5),
                    no_value="no look-ups",
                ),
                stat(
                    "Commands per second",
                    "Commands, those of redis_exporter too.",
                    query(_total("redis_commands_processed_total"), "commands"),
                    unit=units.OpsPerSecond,
                    sparkline=True,
                ),
                stat(
                    "Memory",
                    "Used share of the limit, where it is highest. A cache that drops keys may well be full.",
                    query(
                        f"max({_of('redis_memory_used_bytes')} / ({_of('redis_memory_max_bytes')} > 0))",
                        "used",
                    ),
                    unit=units.PercentUnit,
                    no_value="no limit",
                ),
                stat(
                    "Clients",
                    "Connected, as a share of how many may be, where it is highest.",
                    query(
                        f"max({_of('redis_connected_clients')} / {_of('redis_config_maxclients')})",
                        "connected",
                    ),
                    unit=units.PercentUnit,
                    thresholds=above(orange=0.8, red=0.95),
                ),
                stat(
                    "Running for",
                    "Time since the youngest start; a cache begins empty.",
                    query(f"min(redis_uptime_in_seconds{{{CHOSEN}}})", "youngest"),
                    unit=units.DurationSeconds,
                ),
            ),
            row(
                "Cache",
                timeseries(
                    "Hit rate by host",
                    "Share of the keys looked up that are there.",
                    query(f"{hits} / ({hits} + {misses} > 0)"),
                    unit=units.PercentUnit,
                    minimum=0,
                    maximum=1,
                    links=[host_link()],
                ),
                timeseries(
                    "Look-ups",
                    "Keys looked up that are there (hits) and that are not.",
                    query(hits, "{{host}} hits"),
                    query(misses, "{{host}} misses"),
                    unit=units.OpsPerSecond,
                    minimum=0,
                    links=[host_link()],
                ),
                timeseries(
                    "Keys that went",
                    "Expired ones reached the end of their time; evicted ones made room.",
                    query(rate("redis_expired_keys_total"), "{{host}} expired"),
                    query(rate("redis_evicted_keys_total"), "{{host}} evicted"),
                    unit=units.OpsPerSecond,
                    minimum=0,
                    links=[host_link()],
                ),
            ),
            row(
                "Commands",
                timeseries(
                    "Commands by name",
                    "The ten most frequent.",
                    query(f"topk(10, {rate('redis_commands_total', by='cmd')})", "{{cmd}}"),
                    unit=units.OpsPerSecond,
                    minimum=0,
                ),
                timeseries(
                    "Time for a command",
                    "Mean time within Redis, of the ten slowest.",
                    query(
                        f"topk(10, {rate('redis_commands_duration_seconds_total', by='cmd')} "
                        f"/ ({rate('redis_commands_total', by='cmd')} > 0))",
                        "{{cmd}}",
                    ),
                    unit=units.Seconds,
                    decimals=5,
                    minimum=0,
                ),
                timeseries(
                    "Time, 99th percentile",
                    "Since the start, of the ten slowest commands.",
                    query(
                        "topk(10, max by (cmd) "
                        f'(redis_latency_percentiles_usec{{{CHOSEN},quantile="99"}})) / 1e6',
                        "{{cmd}}",
                    ),
                    unit=units.Seconds,
                    decimals=5,
                    minimum=0,
                ),
            ),
            row(
                "Resources",
                timeseries(
                    "Memory by host",
                    "For data, and its limit; resident is what the process holds of the host.",
                    query(_of("redis_memory_used_bytes"), "{{host}} data"),
                    query(f"max by (host) (redis_memory_max_bytes{{{CHOSEN}}} > 0)", "{{host}} limit"),
                    query(_of("redis_memory_used_rss_bytes"), "{{host}} resident"),
                    unit=units.BytesIEC,
                    minimum=0,
                    links=[host_link()],
                ),
                timeseries(
                    "Clients by host",
                    "Connected, and rejected each second because there were too many.",
                    query(_of("redis_connected_clients"), "{{host}} connected"),
                    query(
                        rate("redis_rejected_connections_total"),
                        "{{host}} rejected",
                    ),
                    unit=units.Short,
                    minimum=0,
                    links=[host_link()],
                ),
                timeseries(
                    "Keys",
                    "Keys of all databases.",
                    query(f"sum by (host) (redis_db_keys{{{CHOSEN}}})"),
                    unit=units.Short,
                    minimum=0,
                    links=[host_link()],
                ),
                timeseries(
                    "CPU",
                    "Processor cores in use; one is all that Redis can use for commands.",
                    query(f"{rate('redis_cpu_user_seconds_total')} + {rate('redis_cpu_sys_seconds_total')}"),
                    unit=units.Short,
                    decimals=2,
                    minimum=0,
                    links=[host_link()],
                ),
                timeseries(
                    "Network",
                    "What clients send and get.",
                    query(rate("redis_net_input_bytes_total"), "{{host}} in"),
                    query(rate("redis_net_output_bytes_total"), "{{host}} out"),
                    unit=units.BytesPerSecondIEC,
                    minimum=0,
                    links=[host_link()],
                ),
            ),
            variables=[job_variable("redis_up"), host_variable("redis_up")],
        )
    ]
