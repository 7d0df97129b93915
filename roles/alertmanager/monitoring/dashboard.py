"""The dashboard of Alertmanager."""

from __future__ import annotations

from fleetwatch.dashboards.style import (
    CHOSEN,
    LOADED,
    Dashboard,
    above,
    below,
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

USED = f"and on (integration) group by (integration) (alertmanager_notifications_total{{{CHOSEN}}} > 0)"
"""Keeps the integrations that were ever used; Alertmanager has counters for all that it knows."""


def dashboards() -> list[Dashboard]:
    """Return the dashboards of the role."""
    return [
        dashboard(
            "fleetwatch-alertmanager",
            "Alertmanager",
            "Whether alerts arrive, are grouped and silenced as they should, and notifications get out.",
            row(
                "Overview",
                stat(
                    "Active alerts",
                    "Alerts that are neither silenced nor inhibited, the Watchdog among them.",
                    query(f'max(alertmanager_alerts{{{CHOSEN},state="active"}})', "alerts"),
                    unit=units.Short,
                    sparkline=True,
                ),
                stat(
                    "Suppressed alerts",
                    "Alerts that are silenced, or inhibited by a worse one.",
                    query(f'max(alertmanager_alerts{{{CHOSEN},state="suppressed"}})', "alerts"),
                    unit=units.Short,
                    sparkline=True,
                ),
                stat(
                    "Active silences",
                    "Silences in force. Members of a cluster share them.",
                    query(f'max(alertmanager_silences{{{CHOSEN},state="active"}})', "silences"),
                    unit=units.Short,
                ),
                stat(
                    "Failed notifications",
                    "Attempts to notify that failed within the last hour; they are tried again.",
                    query(
                        f"sum(increase(alertmanager_notifications_failed_total{{{CHOSEN}}}[1h]))", "failed"
                    ),
                    unit=units.Short,
                    thresholds=above(red=1),
                ),
                stat(
                    "Configuration",
                    "Whether the newest configuration was loaded. If not, a restart would fail.",
                    query(f"min(alertmanager_config_last_reload_successful{{{CHOSEN}}})", "loaded"),
                    unit=units.NoUnit,
                    mappings=LOADED,
                    thresholds=below(red=1),
                ),
                stat(
                    "Members",
                    "Alertmanagers that the member of the cluster sees which sees the fewest.",
                    query(
                        f"min(alertmanager_cluster_members{{{CHOSEN}}}) "
                        f"or count(alertmanager_build_info{{{CHOSEN}}})",
                        "members",
                    ),
                    unit=units.Short,
                    thresholds=below(red=1),
                ),
                stat(
                    "Running for",
                    "Time since the start.",
                    query(f"time() - max by (host) (process_start_time_seconds{{{CHOSEN}}})"),
                    unit=units.DurationSeconds,
                ),
            ),
            row(
                "Alerts",
                timeseries(
                    "Alerts by state",
                    "Active ones notify, suppressed ones are silenced or inhibited.",
                    query(f"max by (state) (alertmanager_alerts{{{CHOSEN}}})", "{{state}}"),
                    unit=units.Short,
                    stacked=True,
                    minimum=0,
                ),
                timeseries(
                    "Received",
                    "Alerts that Prometheus and others sent; firing ones are sent again and again.",
                    query(rate("alertmanager_alerts_received_total", by="status"), "{{status}}"),
                    query(rate("alertmanager_alerts_invalid_total", by="host"), "invalid {{host}}"),
                    unit=units.EventsPerSecond,
                    minimum=0,
                ),
                timeseries(
                    "Groups",
                    "Groups of alerts that share notifications.",
                    query(f"sum by (host) (alertmanager_dispatcher_aggregation_groups{{{CHOSEN}}})"),
                    unit=units.Short,
                    minimum=0,
                ),
            ),
            row(
                "Notifications",
                timeseries(
                    "Sent",
                    "Notifications by integration. The alert receiver is a webhook.",
                    query(
                        f"{rate('alertmanager_notifications_total', by='integration')} {USED}",
                        "{{integration}}",
                    ),
                    unit=units.EventsPerSecond,
                    decimals=3,
                    stacked=True,
                    minimum=0,
                ),
                timeseries(
                    "Failed",
                    "Notifications that failed, by integration and reason. Alertmanager tries them again.",
                    query(
                        f"{rate('alertmanager_notifications_failed_total', by='integration, reason')} {USED}",
                        "{{integration}}: {{reason}}",
                    ),
                    unit=units.EventsPerSecond,
                    decimals=3,
                    minimum=0,
                    thresholds=above(red=0.001),
                ),
                timeseries(
                    "Time to notify",
                    "Time that integrations took: half of the notifications, and 99 of 100, took less.",
                    *(
                        query(
                            quantile(share, "alertmanager_notification_latency_seconds", by="integration")
                            + f" {USED}",
                            f"{{{{integration}}}} {name}",
                        )
                        for share, name in ((0.5, "median"), (0.99, "99 %"))
                    ),
                    unit=units.Seconds,
                    minimum=0,
                ),
            ),
            row(
                "Silences and API",
                timeseries(
                    "Silences by state",
                    "Pending ones will begin, expired ones are kept for a while.",
                    query(f"max by (state) (alertmanager_silences{{{CHOSEN}}})", "{{state}}"),
                    unit=units.Short,
                    minimum=0,
                ),
                timeseries(
                    "Failed queries",
                    "Queries of silences and of the notification log that failed.",
                    query(rate("alertmanager_silences_query_errors_total"), "silences {{host}}"),
                    query(rate("alertmanager_nflog_query_errors_total"), "notification log {{host}}"),
                    unit=units.EventsPerSecond,
                    decimals=3,
                    minimum=0,
                ),
                timeseries(
                    "Time to answer, 99th percentile",
                    "Of HTTP requests, by what was asked for.",
                    query(
                        quantile(0.99, "alertmanager_http_request_duration_seconds", by="handler") + " >= 0",
                        "{{handler}}",
                    ),
                    unit=units.Seconds,
                    decimals=3,
                    minimum=0,
                ),
            ),
            row(
                "Cluster",
                timeseries(
                    "Members",
                    "Members that each Alertmanager sees. Empty where there is but one.",
                    query(f"max by (host) (alertmanager_cluster_members{{{CHOSEN}}})"),
                    unit=units.Short,
                    minimum=0,
                ),
                timeseries(
                    "Failed members",
                    "Members that each Alertmanager lost and tries to reach again.",
                    query(f"max by (host) (alertmanager_cluster_failed_peers{{{CHOSEN}}})"),
                    unit=units.Short,
                    thresholds=above(red=1),
                    minimum=0,
                ),
                timeseries(
                    "Messages in the queue",
                    "Messages that wait to be told to other members. Growing means a slow network.",
                    query(f"max by (host) (alertmanager_cluster_messages_queued{{{CHOSEN}}})"),
                    unit=units.Short,
                    minimum=0,
                ),
                collapsed=True,
            ),
            process_row(),
            variables=[job_variable("alertmanager_build_info"), host_variable("alertmanager_build_info")],
            reloads="alertmanager_config_last_reload_success_timestamp_seconds",
        )
    ]
