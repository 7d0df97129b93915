"""The dashboard of the Pushgateway."""

from __future__ import annotations

from fleetwatch.dashboards.style import (
    CHOSEN,
    Dashboard,
    above,
    column,
    dashboard,
    host_variable,
    job_variable,
    process_row,
    query,
    rate,
    row,
    stat,
    table,
    timeseries,
    units,
)


def dashboards() -> list[Dashboard]:
    """Return the dashboards of the role."""
    return [
        dashboard(
            "fleetwatch-pushgateway",
            "Pushgateway",
            "Which jobs push their metrics, when they last did, and whether pushes fail.",
            row(
                "Overview",
                stat(
                    "Groups",
                    "Groups of metrics that are kept. A group stays until somebody deletes it.",
                    query("count(push_time_seconds) or vector(0)", "groups"),
                    unit=units.Short,
                ),
                stat(
                    "Oldest push",
                    "Time since the push of the group that was silent longest.",
                    query("time() - min(push_time_seconds)", "oldest"),
                    unit=units.DurationSeconds,
                    no_value="no pushes",
                ),
                stat(
                    "Groups that failed",
                    "Groups whose newest push was refused; their older values are shown as if they were new.",
                    query("count(push_failure_time_seconds > push_time_seconds) or vector(0)", "groups"),
                    unit=units.Short,
                    thresholds=above(red=1),
                ),
                stat(
                    "Pushes per second",
                    "Pushes that were taken.",
                    query(
                        "sum(rate(pushgateway_http_requests_total"
                        f'{{{CHOSEN},handler="push",code="200"}}[$__rate_interval]))',
                        "pushes",
                    ),
                    unit=units.RequestsPerSecond,
                    sparkline=True,
                ),
                stat(
                    "Running for",
                    "Time since the start.",
                    query(f"time() - max by (host) (process_start_time_seconds{{{CHOSEN}}})"),
                    unit=units.DurationSeconds,
                ),
            ),
            row(
                "Groups",
                table(
                    "Groups by time since the last push",
                    "The 100 groups that were silent longest, and when a push of theirs last failed.",
                    column("job", "Job"),
                    column("host", "Host"),
                    column("instance", "Instance"),
                    column(
                        query("topk(100, max by (job, host, instance) (time() - push_time_seconds))"),
                        "Last push",
                        unit=units.DurationSeconds,
                    ),
                    column(
                        query(
                            "max by (job, host, instance) (time() - (push_failure_time_seconds > 0)) "
                            "and topk(100, max by (job, host, instance) (time() - push_time_seconds))"
                        ),
                        "Last failure",
                        unit=units.DurationSeconds,
                        no_value="never",
                    ),
                    sort="Last push",
                ),
            ),
            row(
                "Pushes",
                timeseries(
                    "Requests by answer",
                    "Pushes by HTTP code. 400 is a push that is no metrics, or contradicts others.",
                    query(
                        "sum by (code, method) "
                        f'(rate(pushgateway_http_requests_total{{{CHOSEN},handler="push"}}[$__rate_interval]))',
                        "{{code}} {{method}}",
                    ),
                    unit=units.RequestsPerSecond,
                    minimum=0,
                ),
                timeseries(
                    "Time for a push, 90th percentile",
                    "Time to take a push.",
                    query(
                        "max by (method) "
                        f'(pushgateway_http_push_duration_seconds{{{CHOSEN},quantile="0.9"}} >= 0)',
                        "{{method}}",
                    ),
                    unit=units.Seconds,
                    decimals=4,
                    minimum=0,
                ),
                timeseries(
                    "Size of a push",
                    "Mean size.",
                    query(
                        f"{rate('pushgateway_http_push_size_bytes_sum', by='method')} "
                        f"/ {rate('pushgateway_http_push_size_bytes_count', by='method')}",
                        "{{method}}",
                    ),
                    unit=units.BytesIEC,
                    minimum=0,
                ),
            ),
            process_row(),
            variables=[job_variable("pushgateway_build_info"), host_variable("pushgateway_build_info")],
        )
    ]
