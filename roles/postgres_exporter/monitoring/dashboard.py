"""The dashboard of PostgreSQL."""

from __future__ import annotations

from fleetwatch.dashboards.style import (
    CHOSEN,
    UP_DOWN,
    Dashboard,
    Row,
    above,
    below,
    column,
    dashboard,
    host_link,
    host_variable,
    job_variable,
    plain,
    process_row,
    query,
    rate,
    row,
    stat,
    table,
    timeseries,
    units,
)

_DATABASE = "{{host}} {{datname}}"
_STATEMENT = "host, datname, user, query"
_BUSY = f"topk(50, {rate('pg_stat_statements_seconds_total', by=_STATEMENT)})"
"""What the statements' table shows: those that took most of the time."""


def _database(metric: str) -> str:
    return rate(f"pg_stat_database_{metric}_total", by="host, datname")


def _share(part: str, rest: str) -> str:
    """Return the expression of one counter's share of two, where there is anything to share."""
    return f"{_database(part)} / ({_database(part)} + {_database(rest)} > 0)"


def _overview() -> Row:
    used = f"sum by (host) (pg_stat_activity_count{{{CHOSEN}}})"
    return row(
        "Overview",
        stat(
            "PostgreSQL",
            "Whether it can be logged in to.",
            query(f"min by (host) (pg_up{{{CHOSEN}}})"),
            unit=units.Short,
            mappings=UP_DOWN,
            thresholds=below(red=1),
        ),
        stat(
            "Connections used",
            "Share of max_connections.",
            query(f"max({used} / max by (host) (pg_settings_max_connections{{{CHOSEN}}}))", "used"),
            unit=units.PercentUnit,
            thresholds=above(orange=0.6, red=0.8),
        ),
        stat(
            "Transactions per second",
            "Committed and rolled back.",
            query(
                f"sum({_database('xact_commit')} + {_database('xact_rollback')})",
                "transactions",
            ),
            unit=units.Short,
            decimals=1,
            thresholds=plain(),
            sparkline=True,
        ),
        stat(
            "Found in memory",
            "Share of blocks that were in PostgreSQL's own memory, of the database where it is lowest.",
            query(f"min({_share('blks_hit', 'blks_read')})", "found"),
            unit=units.PercentUnit,
            thresholds=below(orange=0.95, red=0.9),
        ),
        stat(
            "Deadlocks, 1 h",
            "Transactions that were ended since they waited for one another.",
            query(f"sum(increase(pg_stat_database_deadlocks_total{{{CHOSEN}}}[1h]))", "deadlocks"),
            unit=units.Short,
            thresholds=above(orange=1),
        ),
        stat(
            "Oldest transaction",
            "Time since it began; dumps do not count.",
            query(f"max(pg_stat_activity_max_tx_duration{{{CHOSEN}}})", "oldest"),
            unit=units.DurationSeconds,
            thresholds=above(orange=60, red=300),
        ),
        stat(
            "Oldest dump",
            "Time since the last dump of the database that was dumped longest ago.",
            query(f"max(pg_dump_age_seconds{{{CHOSEN}}})", "oldest"),
            unit=units.DurationSeconds,
            thresholds=above(orange=90000, red=93600),
            no_value="no dumps",
        ),
        stat(
            "Running for",
            "Time since PostgreSQL was started.",
            query(f"time() - max by (host) (pg_postmaster_start_time_seconds{{{CHOSEN}}})"),
            unit=units.DurationSeconds,
        ),
    )


def _connections() -> Row:
    used = f"sum by (host) (pg_stat_activity_count{{{CHOSEN}}})"
    return row(
        "Connections",
        timeseries(
            "Connections by state",
            "Idle in transaction are those that hold what they have locked, and do nothing.",
            query(f"sum by (state) (pg_stat_activity_count{{{CHOSEN}}})", "{{state}}"),
            unit=units.Short,
            stacked=True,
            minimum=0,
        ),
        timeseries(
            "Connections used",
            "Share of max_connections.",
            query(f"{used} / max by (host) (pg_settings_max_connections{{{CHOSEN}}})"),
            unit=units.PercentUnit,
            thresholds=above(orange=0.6, red=0.8),
            minimum=0,
            links=[host_link()],
        ),
        timeseries(
            "Oldest transaction",
            "Time since it began; dumps do not count.",
            query(
                f"max by (host, datname) (pg_stat_activity_max_tx_duration{{{CHOSEN}}})",
                _DATABASE,
            ),
            unit=units.DurationSeconds,
            minimum=0,
        ),
    )


def _work() -> Row:
    return row(
        "Work",
        timeseries(
            "Transactions",
            "Committed, by database.",
            query(_database("xact_commit"), _DATABASE),
            unit=units.Short,
            decimals=1,
            minimum=0,
        ),
        timeseries(
            "Rolled back",
            "Share of transactions, mostly because a statement failed.",
            query(_share("xact_rollback", "xact_commit"), _DATABASE),
            unit=units.PercentUnit,
            minimum=0,
        ),
        timeseries(
            "Rows written",
            "Each second.",
            *(
                query(rate(f"pg_stat_database_tup_{kind}_total", by="host"), f"{{{{host}}}} {kind}")
                for kind in ("inserted", "updated", "deleted")
            ),
            unit=units.Short,
            decimals=1,
            minimum=0,
        ),
        timeseries(
            "Rows read",
            "Each second: all that were looked at, and those found by an index.",
            query(rate("pg_stat_database_tup_returned_total"), "{{host}} read"),
            query(rate("pg_stat_database_tup_fetched_total"), "{{host}} by index"),
            unit=units.Short,
            minimum=0,
        ),
        timeseries(
            "Locks",
            "Held or waited for, by mode.",
            query(f"sum by (mode) (pg_locks_count{{{CHOSEN}}})", "{{mode}}"),
            unit=units.Short,
            stacked=True,
            minimum=0,
        ),
        timeseries(
            "Waiting for a lock, and deadlocks",
            "Connections that wait for another one, and deadlocks within 5 minutes.",
            query(f"sum by (host) (pg_stat_activity_waiting{{{CHOSEN}}})", "{{host}} waiting"),
            query(
                f"sum by (host) (increase(pg_stat_database_deadlocks_total{{{CHOSEN}}}[5m]))",
                "{{host}} deadlocks",
            ),
            unit=units.Short,
            minimum=0,
        ),
    )


def _statements() -> Row:
    return row(
        "Statements",
        table(
            "Statements by time",
            "The 50 that took most time, without their constants. Mean, and rows of one run.",
            column("host", "Host"),
            column("datname", "Database"),
            column("user", "User"),
            column("query", "Statement"),
            column(query(_BUSY), "Time per second", unit=units.Seconds, decimals=4),
            column(
                query(f"{rate('pg_stat_statements_calls_total', by=_STATEMENT)} and {_BUSY}"),
                "Runs per second",
                unit=units.Short,
                decimals=2,
            ),
            column(
                query(
                    f"{rate('pg_stat_statements_seconds_total', by=_STATEMENT)} "
                    f"/ ({rate('pg_stat_statements_calls_total', by=_STATEMENT)} > 0) and {_BUSY}"
                ),
                "Mean",
                unit=units.Seconds,
                decimals=4,
                thresholds=above(orange=0.2, red=1),
            ),
            column(
                query(
                    f"{rate('pg_stat_statements_rows_total', by=_STATEMENT)} "
                    f"/ ({rate('pg_stat_statements_calls_total', by=_STATEMENT)} > 0) and {_BUSY}"
                ),
                "Rows",
                unit=units.Short,
                decimals=1,
            ),
            sort="Time per second",
        ),
    )


def _disk() -> Row:
    return row(
        "Memory and disk",
        timeseries(
            "Found in memory",
            "Share of blocks that were in PostgreSQL's own memory.",
            query(_share("blks_hit", "blks_read"), _DATABASE),
            unit=units.PercentUnit,
            thresholds=below(orange=0.95, red=0.9),
            maximum=1,
        ),
        timeseries(
            "Waiting for the disk",
            "Seconds in each second, of all who serve a client: one means that one of them always waits.",
            query(rate("pg_stat_database_blk_read_seconds_total"), "{{host}} reading"),
            query(rate("pg_stat_database_blk_write_seconds_total"), "{{host}} writing"),
            unit=units.Seconds,
            minimum=0,
        ),
        timeseries(
            "Temporary files",
            "What queries write since it does not fit into work_mem.",
            query(_database("temp_bytes"), _DATABASE),
            unit=units.BytesPerSecondIEC,
            minimum=0,
        ),
        timeseries(
            "Write-ahead log",
            "Bytes that are written before anything else is.",
            query(rate("pg_stat_wal_bytes_total")),
            unit=units.BytesPerSecondIEC,
            minimum=0,
        ),
        timeseries(
            "Checkpoints",
            "Within an hour. Those for want of room ask for a greater max_wal_size.",
            query(
                f"sum by (host) (increase(pg_checkpoints_timed_total{{{CHOSEN}}}[1h]))",
                "{{host}} by time",
            ),
            query(
                f"sum by (host) (increase(pg_checkpoints_requested_total{{{CHOSEN}}}[1h]))",
                "{{host}} for want of room",
            ),
            unit=units.Short,
            minimum=0,
        ),
        timeseries(
            "Blocks written at checkpoints",
            "Of 8 KiB each.",
            query(rate("pg_checkpoints_blocks_total")),
            unit=units.Short,
            minimum=0,
        ),
    )


def _databases() -> Row:
    dead = f"topk(50, max by (host, datname, relname) (pg_stat_user_tables_n_dead_tup{{{CHOSEN}}}))"
    return row(
        "Databases",
        timeseries(
            "Size",
            "On disk, with indexes.",
            query(f"max by (host, datname) (pg_database_size_bytes{{{CHOSEN}}})", _DATABASE),
            unit=units.BytesIEC,
            minimum=0,
        ),
        timeseries(
            "Age of the last dump",
            "One that was never dumped counts from the start of PostgreSQL.",
            query(f"max by (host, datname) (pg_dump_age_seconds{{{CHOSEN}}})", _DATABASE),
            unit=units.DurationSeconds,
            thresholds=above(orange=90000, red=93600),
            minimum=0,
        ),
        timeseries(
            "Size of the last dump",
            "Compressed. A sudden drop deserves a look.",
            query(f"max by (host, datname) (pg_dump_bytes{{{CHOSEN}}})", _DATABASE),
            unit=units.BytesIEC,
            minimum=0,
        ),
        table(
            "Tables by dead rows",
            "The 50 with most rows that are dead but still take space, until the next vacuum.",
            column("host", "Host"),
            column("datname", "Database"),
            column("relname", "Table"),
            column(query(dead), "Dead rows", unit=units.Short),
            column(
                query(
                    f"max by (host, datname, relname) (pg_stat_user_tables_n_live_tup{{{CHOSEN}}}) and {dead}"
                ),
                "Rows",
                unit=units.Short,
            ),
            sort="Dead rows",
        ),
    )


def _replication() -> Row:
    return row(
        "Replication",
        timeseries(
            "Behind the primary",
            "Of a standby, in time; a primary is never behind.",
            query(f"max by (host) (pg_replication_lag_seconds{{{CHOSEN}}})"),
            unit=units.DurationSeconds,
            minimum=0,
            links=[host_link()],
        ),
        timeseries(
            "Not yet applied by standbys",
            "Of a primary, in bytes of its log.",
            query(
                f"max by (host, application_name, client_addr) (pg_stat_replication_lag_bytes{{{CHOSEN}}})",
                "{{host}}: {{application_name}} {{client_addr}}",
            ),
            unit=units.BytesIEC,
            minimum=0,
            no_value="no standby",
        ),
    )


def dashboards() -> list[Dashboard]:
    """Return the dashboards of the role."""
    return [
        dashboard(
            "fleetwatch-postgresql",
            "PostgreSQL",
            "How the databases fare: connections, work, slow statements, disk, dumps, standbys.",
            _overview(),
            _connections(),
            _work(),
            _statements(),
            _disk(),
            _databases(),
            _replication(),
            process_row(),
            variables=[job_variable("pg_up"), host_variable("pg_up")],
        )
    ]
