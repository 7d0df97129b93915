"""The dashboards of the transactions service: how it serves its users, and what business it does."""

from __future__ import annotations

from fleetwatch.dashboards.style import (
    CHOSEN,
    UP_DOWN,
    Dashboard,
    DashboardLink,
    above,
    below,
    dashboard,
    dashboard_url,
    heatmap,
    host_link,
    host_variable,
    job_variable,
    link,
    quantile,
    query,
    rate,
    row,
    stat,
    timeline,
    timeseries,
    units,
    variable,
)

API = 'job="transactions_api",host=~"$host"'
ROUTE = f'{API},route=~"$route"'
WORKER = 'job="transactions_worker",host=~"$host"'
NGINX = 'job="nginx_exporter",host=~"$host"'
REQUESTS = "transactions_http_requests_total"
SECONDS = "transactions_http_request_duration_seconds"
PAYMENTS = "transactions_payments_total"
FAILED = 'status=~"5.."'
SLOW = 0.2
"""Seconds; as in HighLatency."""
QUANTILES = ((0.5, "median"), (0.95, "95 %"), (0.99, "99 %"))


def dashboards() -> list[Dashboard]:
    """Return the dashboards of the role."""
    return [_service(), _business()]


def _share(part: str, whole: str) -> str:
    return f"{part} / ({whole} > 0)"


def _service() -> Dashboard:
    return dashboard(
        "fleetwatch-transactions",
        "Transactions service",
        "Whether the service answers its users well and quickly, and what it runs short of.",
        row(
            "Overview",
            stat(
                "Requests",
                "Requests a second.",
                query(f"sum(rate({REQUESTS}{{{ROUTE}}}[$__rate_interval]))", "requests"),
                unit=units.RequestsPerSecond,
                sparkline=True,
            ),
            stat(
                "Failing",
                "Share of the requests that end with 5xx.",
                query(
                    _share(
                        f"sum(rate({REQUESTS}{{{ROUTE},{FAILED}}}[$__rate_interval]))",
                        f"sum(rate({REQUESTS}{{{ROUTE}}}[$__rate_interval]))",
                    ),
                    "failing",
                ),
                unit=units.PercentUnit,
                thresholds=above(orange=0.06, red=0.1),
                sparkline=True,
                no_value="no requests",
            ),
            stat(
                "95 of 100 take less than",
                "The 95th percentile of the time to answer.",
                query(quantile(0.95, SECONDS, ROUTE), "95 %"),
                unit=units.Seconds,
                decimals=3,
                thresholds=above(orange=SLOW / 2, red=SLOW),
                sparkline=True,
                no_value="no requests",
            ),
            stat(
                "Instances",
                "Instances of the API that Prometheus reaches.",
                query(f"sum(up{{{API}}})", "up"),
                unit=units.Short,
                thresholds=below(red=1),
            ),
            stat(
                "Fails on purpose",
                "Share of the requests that the service was told to fail: its nature, or an experiment.",
                query(f"max(transactions_behaviour_error_rate{{{API}}})", "share"),
                unit=units.PercentUnit,
                thresholds=above(orange=0.2),
            ),
            stat(
                "Slow on purpose",
                "Seconds that are added to requests: its nature, or an experiment.",
                query(f"max(transactions_behaviour_latency_seconds{{{API}}})", "added"),
                unit=units.Seconds,
                decimals=3,
                thresholds=above(orange=0.2),
            ),
        ),
        row(
            "Requests",
            timeseries(
                "Requests by route",
                "Requests a second.",
                query(rate(REQUESTS, ROUTE, "route, method"), "{{method}} {{route}}"),
                unit=units.RequestsPerSecond,
                stacked=True,
                minimum=0,
            ),
            timeseries(
                "Failing by route",
                "Share of the requests that end with 5xx; the line is where HighErrorRate begins.",
                query(
                    _share(rate(REQUESTS, f"{ROUTE},{FAILED}", "route"), rate(REQUESTS, ROUTE, "route")),
                    "{{route}}",
                ),
                unit=units.PercentUnit,
                thresholds=above(red=0.1),
                minimum=0,
                maximum=1,
            ),
            timeseries(
                "Requests by status",
                "Requests a second, by what was answered.",
                query(rate(REQUESTS, ROUTE, "status"), "{{status}}"),
                unit=units.RequestsPerSecond,
                stacked=True,
                minimum=0,
            ),
            timeseries(
                "Time to answer",
                "Half of the requests, 95 and 99 of 100 took less; dots are single requests with a trace.",
                *(query(quantile(share, SECONDS, ROUTE), name, exemplars=True) for share, name in QUANTILES),
                query(
                    f"sum(rate({SECONDS}_sum{{{ROUTE}}}[$__rate_interval])) "
                    f"/ (sum(rate({SECONDS}_count{{{ROUTE}}}[$__rate_interval])) > 0)",
                    "mean",
                ),
                unit=units.Seconds,
                decimals=3,
                thresholds=above(red=SLOW),
                minimum=0,
            ),
            timeseries(
                "Time to answer by route",
                "95 of 100 requests took less.",
                query(quantile(0.95, SECONDS, ROUTE, "route"), "{{route}}"),
                unit=units.Seconds,
                decimals=3,
                thresholds=above(red=SLOW),
                minimum=0,
            ),
            heatmap(
                "Distribution of the time to answer",
                "How many requests took how long; the darker, the more.",
                query(f"sum by (le) (increase({SECONDS}_bucket{{{ROUTE}}}[$__rate_interval]))", "{{le}}"),
                unit=units.Seconds,
                decimals=3,
            ),
            timeseries(
                "Exceptions",
                "What requests failed with, each second.",
                query(
                    rate("transactions_http_exceptions_total", ROUTE, "route, exception"),
                    "{{exception}} in {{route}}",
                ),
                unit=units.EventsPerSecond,
                minimum=0,
                no_value="none",
                width=12,
            ),
            timeseries(
                "Payments",
                "The 95th percentile of the time that the payment gateway takes.",
                query(quantile(0.95, "transactions_payment_duration_seconds", API, "host"), "{{host}}"),
                unit=units.Seconds,
                decimals=3,
                minimum=0,
                width=12,
            ),
        ),
        row(
            "Saturation",
            timeseries(
                "Database connections",
                "Share of the pool in use, with overflow; at the line TransactionsPoolExhausted begins.",
                query(
                    f"transactions_db_pool_in_use{{{CHOSEN}}} / (transactions_db_pool_size{{{CHOSEN}}} "
                    f"+ transactions_db_pool_max_overflow{{{CHOSEN}}})",
                    "{{instance}}",
                ),
                unit=units.PercentUnit,
                thresholds=above(red=0.9),
                minimum=0,
                maximum=1,
                links=[host_link()],
            ),
            timeseries(
                "Waiting for a connection",
                "Requests a second that had to wait, and those that waited in vain.",
                query(rate("transactions_db_pool_waits_total"), "waited {{host}}"),
                query(rate("transactions_db_pool_timeouts_total"), "in vain {{host}}"),
                unit=units.EventsPerSecond,
                minimum=0,
                links=[host_link()],
            ),
            timeseries(
                "Time to get a connection",
                "95 of 100 got one within this time.",
                query(quantile(0.95, "transactions_db_pool_wait_seconds", CHOSEN, "job"), "{{job}}"),
                unit=units.Seconds,
                decimals=3,
                minimum=0,
            ),
            timeseries(
                "Requests in progress",
                "Requests that an instance works on; each has a limited number of threads.",
                query(f"transactions_http_requests_in_progress{{{API}}}", "{{instance}}"),
                unit=units.Short,
                minimum=0,
                links=[host_link()],
            ),
            timeseries(
                "CPU",
                "Processor cores in use, by unit.",
                query(
                    rate(
                        "host_unit_cpu_seconds_total", 'host=~"$host",unit=~"transactions-.+"', "host, unit"
                    ),
                    "{{unit}} {{host}}",
                ),
                unit=units.Short,
                decimals=2,
                minimum=0,
                links=[host_link()],
            ),
            timeseries(
                "Memory",
                "Memory in use, by unit.",
                query(
                    'sum by (host, unit) (host_unit_memory_bytes{host=~"$host",unit=~"transactions-.+"})',
                    "{{unit}} {{host}}",
                ),
                unit=units.BytesIEC,
                minimum=0,
                links=[host_link()],
            ),
        ),
        row(
            "nginx",
            timeseries(
                "Requests to nginx",
                "Requests a second that came in, also those that no instance answered.",
                query(rate("nginx_http_requests_total", NGINX)),
                unit=units.RequestsPerSecond,
                minimum=0,
                links=[host_link()],
            ),
            timeseries(
                "Connections",
                "Open connections, by what they do.",
                *(
                    query(
                        f"sum by (host) (nginx_connections_{state}{{{NGINX}}})",
                        f"{state} {{{{host}}}}",
                    )
                    for state in ("reading", "writing", "waiting")
                ),
                unit=units.Short,
                stacked=True,
                minimum=0,
                links=[host_link()],
            ),
            timeline(
                "nginx answers",
                "When nginx answered its exporter.",
                query(f"min by (host) (nginx_up{{{NGINX}}})"),
                mappings=UP_DOWN,
                thresholds=below(red=1),
            ),
        ),
        variables=[
            job_variable("transactions_build_info"),
            host_variable("transactions_build_info"),
            variable("route", "Route", f'label_values({REQUESTS}{{host=~"$host"}}, route)'),
        ],
    )


def _business() -> Dashboard:
    return dashboard(
        "fleetwatch-transactions-business",
        "Transactions business",
        "What is bought, paid and settled, and how long that takes.",
        row(
            "Overview",
            stat(
                "Created",
                "Transactions within the last hour.",
                query(f"sum(increase(transactions_created_total{{{API}}}[1h]))", "created"),
                unit=units.Short,
            ),
            stat(
                "Completed",
                "Transactions within the last hour.",
                query(
                    f'sum(increase(transactions_processed_total{{{WORKER},status="completed"}}[1h]))',
                    "completed",
                ),
                unit=units.Short,
            ),
            stat(
                "Failed",
                "Share of those settled within the last hour that failed.",
                query(
                    _share(
                        f'sum(increase(transactions_processed_total{{{WORKER},status="failed"}}[1h]))',
                        f"sum(increase(transactions_processed_total{{{WORKER}}}[1h]))",
                    ),
                    "failed",
                ),
                unit=units.PercentUnit,
                thresholds=above(orange=0.1, red=0.3),
                no_value="none settled",
            ),
            stat(
                "Pending",
                "Transactions that wait for a worker.",
                query(f"max(transactions_pending{{{WORKER}}})", "pending"),
                unit=units.Short,
                thresholds=above(orange=100, red=1000),
                sparkline=True,
            ),
            stat(
                "Oldest waits",
                "How long the oldest pending transaction has waited.",
                query(f"max(transactions_pending_oldest_age_seconds{{{WORKER}}})", "age"),
                unit=units.DurationSeconds,
                thresholds=above(orange=10, red=60),
            ),
            stat(
                "Cache hits",
                "Share of the lists that came from Redis.",
                query(
                    _share(
                        f'sum(increase(transactions_cache_requests_total{{{API},result="hit"}}[1h]))',
                        f"sum(increase(transactions_cache_requests_total{{{API}}}[1h]))",
                    ),
                    "hits",
                ),
                unit=units.PercentUnit,
                no_value="no cache",
            ),
        ),
        row(
            "Transactions",
            timeseries(
                "Created and settled",
                "Transactions in each interval: created, and settled by how they ended.",
                query(
                    f"sum(increase(transactions_created_total{{{API}}}[$__rate_interval]))",
                    "created",
                ),
                query(
                    f"sum by (status) (increase(transactions_processed_total{{{WORKER}}}[$__rate_interval]))",
                    "{{status}}",
                ),
                unit=units.Short,
                minimum=0,
            ),
            timeseries(
                "Amounts created",
                "Money in each interval, by currency.",
                query(
                    "sum by (currency) "
                    f"(increase(transactions_created_amount_total{{{API}}}[$__rate_interval]))",
                    "{{currency}}",
                ),
                unit=units.NoUnit,
                minimum=0,
            ),
            timeseries(
                "Amounts completed",
                "Money in each interval, by currency.",
                query(
                    "sum by (currency) (increase(transactions_processed_amount_total"
                    f'{{{WORKER},status="completed"}}[$__rate_interval]))',
                    "{{currency}}",
                ),
                unit=units.NoUnit,
                minimum=0,
            ),
            timeseries(
                "Payments",
                "What the gateway answered, in each interval.",
                query(
                    f"sum by (outcome) (increase({PAYMENTS}{{{API}}}[$__rate_interval]))",
                    "{{outcome}}",
                ),
                unit=units.Short,
                stacked=True,
                minimum=0,
            ),
            timeseries(
                "Payments that fail",
                "Share that was declined or failed; together above the line: TransactionsPaymentsFailing.",
                *(
                    query(
                        _share(
                            f'sum(rate({PAYMENTS}{{{API},outcome="{outcome}"}}[$__rate_interval]))',
                            f"sum(rate({PAYMENTS}{{{API}}}[$__rate_interval]))",
                        ),
                        outcome,
                    )
                    for outcome in ("declined", "error")
                ),
                unit=units.PercentUnit,
                thresholds=above(red=0.2),
                minimum=0,
                maximum=1,
            ),
            timeseries(
                "Cache",
                "Lists that came from Redis, in each interval, and those that did not.",
                query(
                    "sum by (result) "
                    f"(increase(transactions_cache_requests_total{{{API}}}[$__rate_interval]))",
                    "{{result}}",
                ),
                unit=units.Short,
                stacked=True,
                minimum=0,
            ),
        ),
        row(
            "Workers",
            timeseries(
                "Pending",
                "Transactions that wait for a worker; the line is where TransactionsWorkerBacklog begins.",
                query(f"max by (host) (transactions_pending{{{WORKER}}})"),
                unit=units.Short,
                thresholds=above(red=1000),
                minimum=0,
                links=[_service_link()],
            ),
            timeseries(
                "Age of the oldest",
                "How long the oldest has waited; the line is where TransactionsWorkerStalled begins.",
                query(f"max by (host) (transactions_pending_oldest_age_seconds{{{WORKER}}})"),
                unit=units.Seconds,
                decimals=1,
                thresholds=above(red=60),
                minimum=0,
                links=[_service_link()],
            ),
            timeseries(
                "Time from creation to the end",
                "Half of the transactions, 95 and 99 of 100 were settled within this time.",
                *(
                    query(quantile(share, "transactions_settle_delay_seconds", WORKER), name)
                    for share, name in QUANTILES
                ),
                unit=units.Seconds,
                minimum=0,
            ),
            timeseries(
                "Time of a worker",
                "Half of the transactions, 95 and 99 of 100 kept a worker busy for less.",
                *(
                    query(quantile(share, "transactions_processing_duration_seconds", WORKER), name)
                    for share, name in QUANTILES
                ),
                unit=units.Seconds,
                decimals=3,
                minimum=0,
            ),
            timeseries(
                "Settled by worker",
                "Transactions a second.",
                query(rate("transactions_processed_total", WORKER, "instance"), "{{instance}}"),
                unit=units.EventsPerSecond,
                stacked=True,
                minimum=0,
            ),
            timeseries(
                "Errors and messages",
                "Rounds of workers that failed, and messages to the queue, where there is one, each second.",
                query(rate("transactions_worker_errors_total", WORKER), "failed rounds {{host}}"),
                query(rate("transactions_queue_published_total", API, "outcome"), "messages {{outcome}}"),
                unit=units.EventsPerSecond,
                minimum=0,
            ),
        ),
        variables=[host_variable("transactions_pending", job=False)],
        scope='job=~"transactions_.+",host=~"$host|"',
        restarts='job=~"transactions_.+",host=~"$host"',
    )


def _service_link() -> DashboardLink:
    """Return the link from a host to its service."""
    return link(
        "How the service fares", dashboard_url("fleetwatch-transactions", host="${__field.labels.host}")
    )
