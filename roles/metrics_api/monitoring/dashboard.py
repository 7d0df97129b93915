"""The dashboard of the usage API."""

from __future__ import annotations

from fleetwatch.dashboards.style import (
    CHOSEN,
    Dashboard,
    above,
    dashboard,
    host_variable,
    job_variable,
    process_row,
    query,
    rate,
    row,
    stat,
    timeseries,
    units,
)

_REQUESTS = f"metrics_api_requests_total{{{CHOSEN}}}"


def dashboards() -> list[Dashboard]:
    """Return the dashboards of the role."""
    return [
        dashboard(
            "fleetwatch-metrics-api",
            "Usage API",
            "Who asks for usage, whether they are answered, and how long it takes.",
            row(
                "Overview",
                stat(
                    "Requests per second",
                    "Requests, whatever became of them.",
                    query(f"sum(rate({_REQUESTS}[$__rate_interval]))", "requests"),
                    unit=units.RequestsPerSecond,
                    sparkline=True,
                ),
                stat(
                    "Failed requests, 1 h",
                    "Answered 5xx, or broken off in the middle of the answer.",
                    query(
                        f'sum(increase(metrics_api_requests_total{{{CHOSEN},outcome="failed"}}[1h]))',
                        "failed",
                    ),
                    unit=units.Short,
                    decimals=0,
                    thresholds=above(red=1),
                ),
                stat(
                    "Prometheus servers away",
                    "Of those that the API asks.",
                    query(
                        f"count(metrics_api_prometheus_up{{{CHOSEN}}} == 0) or vector(0)",
                        "away",
                    ),
                    unit=units.Short,
                    thresholds=above(red=1),
                ),
                stat(
                    "Points per second",
                    "Values that were sent or averaged.",
                    query(f"sum(rate(metrics_api_points_total{{{CHOSEN}}}[$__rate_interval]))", "points"),
                    unit=units.Short,
                    sparkline=True,
                ),
            ),
            row(
                "Requests",
                timeseries(
                    "Requests by outcome",
                    "Refused are those that were wrong (4xx).",
                    query(
                        f"sum by (endpoint, outcome) (rate({_REQUESTS}[$__rate_interval]))",
                        "{{endpoint}} {{outcome}}",
                    ),
                    unit=units.RequestsPerSecond,
                    minimum=0,
                ),
                timeseries(
                    "Time for an answer",
                    "Mean until the end of the answer.",
                    query(
                        f"{rate('metrics_api_request_seconds_sum', by='endpoint')} "
                        f"/ ({rate('metrics_api_request_seconds_count', by='endpoint')} > 0)",
                        "{{endpoint}}",
                    ),
                    unit=units.Seconds,
                    minimum=0,
                ),
                timeseries(
                    "Requests to Prometheus",
                    "By server and what became of them.",
                    query(
                        "sum by (prometheus, outcome) "
                        f"(rate(metrics_api_prometheus_requests_total{{{CHOSEN}}}[$__rate_interval]))",
                        "{{prometheus}} {{outcome}}",
                    ),
                    unit=units.RequestsPerSecond,
                    minimum=0,
                ),
            ),
            process_row(),
            variables=[job_variable("metrics_api_points_total"), host_variable("metrics_api_points_total")],
        )
    ]
