"""The dashboard of Grafana itself."""

from __future__ import annotations

from fleetwatch.dashboards.style import (
    CHOSEN,
    Dashboard,
    above,
    dashboard,
    host_variable,
    job_variable,
    process_row,
    quantile,
    query,
    rate,
    row,
    stat,
    timeseries,
    units,
)

REQUESTS = "grafana_http_request_duration_seconds"
QUERIES = f'{CHOSEN},endpoint="queryData"'
NONE = f"0 * group by (host) (grafana_build_info{{{CHOSEN}}})"
"""Stands for a counter that has not been made yet."""


def share(metric: str, matchers: str, bad: str) -> str:
    """Return the expression of the share of what a counter counts that has the label ``bad`` too."""
    return f"({rate(metric, f'{matchers},{bad}')} or {NONE}) / {rate(metric, matchers)}"


def dashboards() -> list[Dashboard]:
    """Return the dashboards of the role."""
    return [
        dashboard(
            "fleetwatch-grafana",
            "Grafana",
            "Whether Grafana answers, whether its datasources answer it, and who uses it.",
            row(
                "Overview",
                stat(
                    "Errors",
                    "Share of the requests that ended in an error of Grafana (status 5xx).",
                    query(share(f"{REQUESTS}_count", CHOSEN, 'status_code=~"5.."')),
                    unit=units.PercentUnit,
                    thresholds=above(orange=0.01, red=0.05),
                    no_value="no requests",
                ),
                stat(
                    "Failing queries",
                    "Share of the queries to datasources that failed.",
                    query(share("grafana_plugin_request_total", QUERIES, 'status="error"')),
                    unit=units.PercentUnit,
                    thresholds=above(orange=0.05, red=0.2),
                    no_value="no queries",
                ),
                stat(
                    "Active users",
                    "Users who were there within the last 30 days.",
                    query(f"max by (host) (grafana_stat_active_users{{{CHOSEN}}})"),
                    unit=units.Short,
                ),
                stat(
                    "Dashboards",
                    "Dashboards in Grafana, those of people's own included.",
                    query(f"max by (host) (grafana_stat_totals_dashboard{{{CHOSEN}}})"),
                    unit=units.Short,
                ),
                stat(
                    "Running for",
                    "Time since the start.",
                    query(f"time() - max by (host) (process_start_time_seconds{{{CHOSEN}}})"),
                    unit=units.DurationSeconds,
                ),
            ),
            row(
                "Requests",
                timeseries(
                    "Requests by status",
                    "Requests of browsers and programs by HTTP status.",
                    query(rate(f"{REQUESTS}_count", by="status_code"), "{{status_code}}"),
                    unit=units.RequestsPerSecond,
                    stacked=True,
                    minimum=0,
                ),
                timeseries(
                    "Time for a request",
                    "Time that half of the requests, and all but the slowest hundredth, take at most.",
                    query(quantile(0.5, f"{REQUESTS}"), "50 %"),
                    query(quantile(0.99, f"{REQUESTS}"), "99 %"),
                    unit=units.Seconds,
                    minimum=0,
                ),
                timeseries(
                    "Requests in flight",
                    "Requests being answered.",
                    query(f"sum by (host) (grafana_http_request_in_flight{{{CHOSEN}}})"),
                    unit=units.Short,
                    minimum=0,
                ),
            ),
            row(
                "Datasources",
                timeseries(
                    "Queries by datasource",
                    "Queries of panels by the type of the datasource and how they ended.",
                    query(
                        rate("grafana_plugin_request_total", QUERIES, by="plugin_id, status"),
                        "{{plugin_id}} {{status}}",
                    ),
                    unit=units.RequestsPerSecond,
                    stacked=True,
                    minimum=0,
                ),
                timeseries(
                    "Time for a query, 99th percentile",
                    "Time that a datasource takes, by its type.",
                    query(
                        quantile(0.99, "grafana_plugin_request_duration_seconds", QUERIES, by="plugin_id"),
                        "{{plugin_id}}",
                    ),
                    unit=units.Seconds,
                    minimum=0,
                ),
                timeseries(
                    "Database connections in use",
                    "Connections to Grafana's own database that are at work.",
                    query(f"sum by (host) (grafana_database_conn_in_use{{{CHOSEN}}})"),
                    unit=units.Short,
                    minimum=0,
                ),
            ),
            process_row(),
            variables=[job_variable("grafana_build_info"), host_variable("grafana_build_info")],
        )
    ]
