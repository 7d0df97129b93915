"""The dashboards of Prometheus and of the service level objectives that it evaluates."""

from __future__ import annotations

from fleetwatch.dashboards.style import (
    CHOSEN,
    LOADED,
    UP_DOWN,
    Dashboard,
    DashboardLink,
    Panel,
    above,
    below,
    column,
    dashboard,
    dashboard_url,
    host_link,
    host_variable,
    job_variable,
    link,
    process_row,
    query,
    rate,
    row,
    stat,
    table,
    timeline,
    timeseries,
    units,
    variable,
)


def dashboards() -> list[Dashboard]:
    """Return the dashboards of the role."""
    return [_prometheus(), _slo()]


def _prometheus() -> Dashboard:
    return dashboard(
        "fleetwatch-prometheus",
        "Prometheus",
        "Whether Prometheus sees every target, evaluates every rule, and gets rid of its alerts.",
        row(
            "Overview",
            stat(
                "Targets down",
                "Targets, of all jobs, that cannot be scraped.",
                query("count(up == 0) or vector(0)", "down"),
                unit=units.Short,
                thresholds=above(red=1),
                links=[link("Fleet", dashboard_url("fleetwatch-fleet"))],
            ),
            stat(
                "Targets",
                "Targets of all jobs.",
                query("count(up)", "targets"),
                unit=units.Short,
            ),
            stat(
                "Configuration",
                "Whether the newest configuration was loaded. If not, a restart would fail.",
                query(f"min(prometheus_config_last_reload_successful{{{CHOSEN}}})", "loaded"),
                unit=units.NoUnit,
                mappings=LOADED,
                thresholds=below(red=1),
            ),
            stat(
                "Failed rules",
                "Evaluations of rules that failed within the last hour. Their alerts may be dead.",
                query(f"sum(increase(prometheus_rule_evaluation_failures_total{{{CHOSEN}}}[1h]))", "failed"),
                unit=units.Short,
                thresholds=above(red=1),
            ),
            stat(
                "Alertmanagers",
                "Alertmanagers that alerts are sent to, by the server that knows the fewest.",
                query(f"min(prometheus_notifications_alertmanagers_discovered{{{CHOSEN}}})", "known"),
                unit=units.Short,
                thresholds=below(red=1),
            ),
            stat(
                "Series",
                "Series in memory.",
                query(f"sum(prometheus_tsdb_head_series{{{CHOSEN}}})", "series"),
                unit=units.Short,
                decimals=1,
                sparkline=True,
            ),
            stat(
                "Samples per second",
                "Samples that are added each second.",
                query(
                    f"sum(rate(prometheus_tsdb_head_samples_appended_total{{{CHOSEN}}}[$__rate_interval]))",
                    "samples",
                ),
                unit=units.CountsPerSecond,
                decimals=0,
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
            "Targets",
            table(
                "Jobs",
                "Every job with its targets. Scrape duration and samples are those of its worst target.",
                column("job", "Job"),
                column(query("count by (job) (up)"), "Targets", unit=units.Short),
                column(
                    query("count by (job) (up == 0) or 0 * count by (job) (up)"),
                    "Down",
                    unit=units.Short,
                    thresholds=above(red=1),
                ),
                column(
                    query("max by (job) (scrape_duration_seconds)"),
                    "Scrape duration",
                    unit=units.Seconds,
                    thresholds=above(orange=5, red=10),
                    cell="color-text",
                ),
                column(
                    query("max by (job) (scrape_samples_scraped)"), "Samples per scrape", unit=units.Short
                ),
                column(
                    query("sum by (job) (scrape_series_added)"),
                    "New series in the last scrape",
                    unit=units.Short,
                ),
                join="job",
                sort="Down",
                height=8,
            ),
            timeline(
                "Targets that were down",
                "Each target that was down at some time in view.",
                query(
                    "min by (job, host, instance) (up) unless on (job, instance) "
                    "(min_over_time(up[$__range] @ end()) == 1)",
                    "{{job}} {{instance}}",
                ),
                mappings=UP_DOWN,
                thresholds=below(red=1),
                links=[host_link()],
                no_value="every target was up",
            ),
            timeseries(
                "Slowest scrapes",
                "The five targets whose scrapes take longest. A scrape that outlives its timeout is lost.",
                query("topk(5, scrape_duration_seconds)", "{{job}} {{host}}"),
                unit=units.Seconds,
                decimals=3,
                minimum=0,
                links=[host_link()],
            ),
            timeseries(
                "Samples by job",
                "Samples of one scrape of all targets of a job: what makes Prometheus grow.",
                query("sum by (job) (scrape_samples_post_metric_relabeling)", "{{job}}"),
                unit=units.Short,
                stacked=True,
                minimum=0,
            ),
        ),
        row(
            "Rules",
            timeseries(
                "Duration of rule groups",
                "Time the slowest groups take, of their interval. At 100 % evaluations are skipped.",
                query(
                    f"topk(5, prometheus_rule_group_last_duration_seconds{{{CHOSEN}}} "
                    f"/ prometheus_rule_group_interval_seconds{{{CHOSEN}}})",
                    "{{rule_group}}",
                ),
                unit=units.PercentUnit,
                thresholds=above(orange=0.5, red=1),
                minimum=0,
            ),
            timeseries(
                "Failed and missed evaluations",
                "Evaluations that failed, and those that were skipped since the one before still ran.",
                query(
                    rate("prometheus_rule_evaluation_failures_total"),
                    "failed {{host}}",
                ),
                query(
                    rate("prometheus_rule_group_iterations_missed_total"),
                    "missed {{host}}",
                ),
                unit=units.EventsPerSecond,
                minimum=0,
            ),
            timeseries(
                "Evaluations",
                "Rules that are evaluated each second.",
                query(rate("prometheus_rule_evaluations_total")),
                unit=units.EventsPerSecond,
                minimum=0,
            ),
        ),
        row(
            "Notifications to Alertmanager",
            timeseries(
                "Sent",
                "Alerts that are sent to each Alertmanager; firing ones are sent again and again.",
                query(
                    rate("prometheus_notifications_sent_total", by="host, alertmanager"),
                    "{{host}} to {{alertmanager}}",
                ),
                unit=units.EventsPerSecond,
                minimum=0,
            ),
            timeseries(
                "Errors and drops",
                "Alerts that could not be sent, and those that were thrown away since the queue was full.",
                query(
                    rate("prometheus_notifications_errors_total", by="host, alertmanager"),
                    "errors {{host}} to {{alertmanager}}",
                ),
                query(
                    rate("prometheus_notifications_dropped_total"),
                    "dropped {{host}}",
                ),
                unit=units.EventsPerSecond,
                minimum=0,
            ),
            timeseries(
                "Queue",
                "How full the queue of alerts is. Alerts beyond its capacity are dropped.",
                query(
                    f"max by (host) (prometheus_notifications_queue_length{{{CHOSEN}}}) "
                    f"/ max by (host) (prometheus_notifications_queue_capacity{{{CHOSEN}}})"
                ),
                unit=units.PercentUnit,
                thresholds=above(orange=0.5, red=0.9),
                minimum=0,
            ),
        ),
        row(
            "Storage",
            timeseries(
                "Series in memory",
                "Series that got a sample lately; memory grows with them.",
                query(f"sum by (host) (prometheus_tsdb_head_series{{{CHOSEN}}})"),
                unit=units.Short,
                decimals=1,
                minimum=0,
            ),
            timeseries(
                "Series created and removed",
                "Churn: many new series mean a label that changes too often.",
                query(
                    rate("prometheus_tsdb_head_series_created_total"),
                    "created {{host}}",
                ),
                query(
                    rate("prometheus_tsdb_head_series_removed_total"),
                    "removed {{host}}",
                ),
                unit=units.CountsPerSecond,
                minimum=0,
            ),
            timeseries(
                "Disk",
                "Bytes of blocks, write-ahead log and chunks in memory maps.",
                query(f"sum by (host) (prometheus_tsdb_storage_blocks_bytes{{{CHOSEN}}})", "blocks {{host}}"),
                query(f"sum by (host) (prometheus_tsdb_wal_storage_size_bytes{{{CHOSEN}}})", "log {{host}}"),
                query(
                    f"sum by (host) (prometheus_tsdb_head_chunks_storage_size_bytes{{{CHOSEN}}})",
                    "chunks {{host}}",
                ),
                unit=units.BytesIEC,
                stacked=True,
                minimum=0,
            ),
            timeseries(
                "Rejected samples",
                "Samples thrown away since they came out of order, too late, or twice with different values.",
                query(
                    rate("prometheus_target_scrapes_sample_out_of_order_total"),
                    "out of order {{host}}",
                ),
                query(
                    rate("prometheus_target_scrapes_sample_out_of_bounds_total"),
                    "out of bounds {{host}}",
                ),
                query(
                    rate("prometheus_target_scrapes_sample_duplicate_timestamp_total"),
                    "duplicate {{host}}",
                ),
                unit=units.CountsPerSecond,
                minimum=0,
            ),
            timeseries(
                "Failed compactions and reloads",
                "Work on blocks that failed within an hour. The disk may be full or broken.",
                query(
                    f"sum by (host) (increase(prometheus_tsdb_compactions_failed_total{{{CHOSEN}}}[1h]))",
                    "compactions {{host}}",
                ),
                query(
                    f"sum by (host) (increase(prometheus_tsdb_reloads_failures_total{{{CHOSEN}}}[1h]))",
                    "reloads {{host}}",
                ),
                unit=units.Short,
                minimum=0,
            ),
            stat(
                "Kept for",
                "How far back the data reaches, and how far it may reach.",
                query(
                    f"time() - min by (host) (prometheus_tsdb_lowest_timestamp_seconds{{{CHOSEN}}})",
                    "is {{host}}",
                ),
                query(
                    f"max by (host) (prometheus_tsdb_retention_limit_seconds{{{CHOSEN}}}) > 0",
                    "at most {{host}}",
                ),
                unit=units.DurationSeconds,
                width=8,
            ),
        ),
        row(
            "Queries",
            timeseries(
                "Query duration, 99th percentile",
                "How long queries took, by what they spent the time on. Slow ones make dashboards slow.",
                query(
                    "max by (slice) "
                    f'(prometheus_engine_query_duration_seconds{{{CHOSEN},quantile="0.99"}} >= 0)',
                    "{{slice}}",
                ),
                unit=units.Seconds,
                decimals=3,
                minimum=0,
            ),
            timeseries(
                "Queries running",
                "Queries at work, of those that may run at once.",
                query(f"max by (host) (prometheus_engine_queries{{{CHOSEN}}})", "running {{host}}"),
                query(
                    f"max by (host) (prometheus_engine_queries_concurrent_max{{{CHOSEN}}})", "limit {{host}}"
                ),
                unit=units.Short,
                minimum=0,
            ),
            timeseries(
                "Answers of the API",
                "HTTP answers by their code.",
                query(
                    f"{rate('prometheus_http_requests_total', by='code')} > 0",
                    "{{code}}",
                ),
                unit=units.RequestsPerSecond,
                stacked=True,
                minimum=0,
            ),
        ),
        process_row(),
        variables=[job_variable("prometheus_build_info"), host_variable("prometheus_build_info")],
        reloads="prometheus_config_last_reload_success_timestamp_seconds",
    )


SLO = 'service=~"$service",slo=~"$slo"'
"""Matchers of the chosen objectives."""
NAME = "{{service}} {{slo}}"


def _burn_rate(window: str) -> str:
    """Return how many times faster than allowed errors came within a window."""
    return f"slo:sli_error:ratio_rate{window}{{{SLO}}} / on (service, slo) slo:error_budget:ratio{{{SLO}}}"


def _burning(alert: str) -> str:
    """Return how many alerts of that name fire."""
    return f'count(ALERTS{{alertname="{alert}",alertstate="firing",{SLO}}}) or vector(0)'


def _alerts(alert: str) -> DashboardLink:
    """Return the link to the alerts of that name."""
    return link("Alerts", dashboard_url("fleetwatch-alerts", alertname=alert))


def _burn_panel(title: str, long: str, short: str, factor: float, colour: str) -> Panel:
    """Return the panel of one alert: it fires when both windows are above the factor."""
    return timeseries(
        title,
        f"Burn rate over {long} and {short}. The alert fires when both are above {factor:g}.",
        query(_burn_rate(long), f"{NAME} {long}"),
        query(_burn_rate(short), f"{NAME} {short}"),
        unit=units.NoUnit,
        decimals=1,
        thresholds=above(**{colour: factor}),
        minimum=0,
    )


def _slo() -> Dashboard:
    return dashboard(
        "fleetwatch-slo",
        "Service level objectives",
        "How much of its error budget each service has left, and how fast it spends it.",
        row(
            "Objectives",
            stat(
                "Objectives",
                "Objectives that are watched.",
                query(f"count(slo:objective:ratio{{{SLO}}}) or vector(0)", "objectives"),
                unit=units.Short,
            ),
            stat(
                "Budget spent",
                "Objectives with no budget left for the last 30 days.",
                query(
                    f"count(slo:period_error_budget_remaining:ratio{{{SLO}}} <= 0) or vector(0)",
                    "objectives",
                ),
                unit=units.Short,
                thresholds=above(red=1),
            ),
            stat(
                "Burning fast",
                "Alerts that the budget will be gone within days; somebody is called.",
                query(_burning("ErrorBudgetBurnFast"), "alerts"),
                unit=units.Short,
                thresholds=above(red=1),
                links=[_alerts("ErrorBudgetBurnFast")],
            ),
            stat(
                "Burning slowly",
                "Alerts that the budget will not last for 30 days.",
                query(_burning("ErrorBudgetBurnSlow"), "alerts"),
                unit=units.Short,
                thresholds=above(orange=1),
                links=[_alerts("ErrorBudgetBurnSlow")],
            ),
            table(
                "Error budgets",
                "Every objective; the one with least budget left is first. Burn rate 1 spends it in 30 days.",
                column("service", "Service"),
                column("slo", "Objective"),
                column(
                    query(f"max by (service, slo) (slo:objective:ratio{{{SLO}}})"),
                    "Target",
                    unit=units.PercentUnit,
                    decimals=2,
                ),
                column(
                    query(f"max by (service, slo) (1 - slo:sli_error:ratio_rate30d{{{SLO}}})"),
                    "Last 30 days",
                    unit=units.PercentUnit,
                    decimals=3,
                ),
                column(
                    query(f"max by (service, slo) (slo:period_error_budget_remaining:ratio{{{SLO}}})"),
                    "Budget left",
                    unit=units.PercentUnit,
                    thresholds=below(orange=0.25, red=0),
                ),
                column(
                    query(f"max by (service, slo) (slo:current_burn_rate:ratio{{{SLO}}})"),
                    "Burn rate, 1 hour",
                    unit=units.NoUnit,
                    decimals=1,
                    thresholds=above(orange=1, red=14.4),
                ),
                sort="Budget left",
                descending=False,
            ),
        ),
        row(
            "Budget",
            timeseries(
                "Budget left",
                "Share of the errors allowed in 30 days that is left. Below 0 the objective is missed.",
                query(f"slo:period_error_budget_remaining:ratio{{{SLO}}}", NAME),
                unit=units.PercentUnit,
                thresholds=below(orange=0.25, red=0),
                maximum=1,
                width=12,
            ),
            timeseries(
                "Errors",
                "Share of events that failed within 5 minutes and within an hour.",
                query(f"slo:sli_error:ratio_rate5m{{{SLO}}}", f"{NAME} 5m"),
                query(f"slo:sli_error:ratio_rate1h{{{SLO}}}", f"{NAME} 1h"),
                unit=units.PercentUnit,
                decimals=2,
                minimum=0,
                width=12,
            ),
        ),
        row(
            "Burn rates",
            _burn_panel("Fast: 2 % of the budget in an hour", "1h", "5m", 14.4, "red"),
            _burn_panel("Fast: 5 % of the budget in six hours", "6h", "30m", 6, "red"),
            _burn_panel("Slow: 10 % of the budget in a day", "1d", "2h", 3, "orange"),
            _burn_panel("Slow: 10 % of the budget in three days", "3d", "6h", 1, "orange"),
        ),
        variables=[
            variable("service", "Service", "label_values(slo:objective:ratio, service)"),
            variable("slo", "Objective", 'label_values(slo:objective:ratio{service=~"$service"}, slo)'),
        ],
        scope=SLO,
        restarts="",
        time="now-24h",
        refresh="1m",
    )
