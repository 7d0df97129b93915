"""The dashboards of alerts and incidents, and of the receiver and dispatcher that take care of them."""

from __future__ import annotations

from fleetwatch.dashboards.style import (
    BLUE,
    CHOSEN,
    GREEN,
    ORANGE,
    RED,
    Dashboard,
    above,
    bargauge,
    column,
    dashboard,
    heatmap,
    host_link,
    host_variable,
    job_variable,
    link,
    mapping,
    page_link,
    plain,
    process_row,
    quantile,
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

FIRING = 'alertname!="Watchdog",alertname=~"$alertname",severity=~"$severity",host=~"$host|"'
"""Matchers of the chosen alerts; the Watchdog always fires. An alert of a whole job has no host."""
OPEN = 'max by (severity) (alert_receiver_open_incidents{job="alert_receiver"})'
ACKNOWLEDGED = 'max by (severity) (alert_receiver_acknowledged_incidents{job="alert_receiver"})'
"""Several receivers share a store, and each tells what is in it."""
JOBS = 'up{job=~"alert_receiver|alert_dispatcher"}'
SEVERITIES = mapping({"critical": ("critical", RED), "warning": ("warning", ORANGE), "info": ("info", BLUE)})
CLOSED_OPEN = mapping({0: ("closed", GREEN), 1: ("open", RED)})
INCIDENTS = "${receiver:raw}/incidents"
"""The receiver's page. The receiver itself says where it is reached."""
RECEIVER = variable(
    "receiver", "Receiver", "label_values(alert_receiver_info, external_url)", multi=False, hidden=True
)


def dashboards() -> list[Dashboard]:
    """Return the dashboards of the role."""
    return [_alerts(), _receiver()]


def _count(severity: str) -> str:
    """Return how many alerts of a severity fire."""
    return f'count(ALERTS{{alertstate="firing",severity="{severity}",{FIRING}}}) or vector(0)'


def _alerts() -> Dashboard:
    incidents = link("Incidents", INCIDENTS, new_tab=True)
    return dashboard(
        "fleetwatch-alerts",
        "Alerts and incidents",
        "What fires, who takes care of it, and whether anybody was told.",
        row(
            "Now",
            stat(
                "Critical",
                "Critical alerts that fire.",
                query(_count("critical"), "critical"),
                unit=units.Short,
                thresholds=above(red=1),
                links=[incidents],
            ),
            stat(
                "Warning",
                "Warnings that fire.",
                query(_count("warning"), "warning"),
                unit=units.Short,
                thresholds=above(orange=1),
                links=[incidents],
            ),
            stat(
                "Pending",
                "Alerts whose condition is true, but not yet for long enough to fire.",
                query(f'count(ALERTS{{alertstate="pending",{FIRING}}}) or vector(0)', "pending"),
                unit=units.Short,
            ),
            stat(
                "Suppressed",
                "Alerts that Alertmanager holds back: silenced, or inhibited by a worse one.",
                query('max(alertmanager_alerts{state="suppressed"}) or vector(0)', "suppressed"),
                unit=units.Short,
            ),
            stat(
                "Open incidents",
                "Incidents of the receiver that fire.",
                query(f"sum({OPEN})", "open"),
                unit=units.Short,
                thresholds=above(orange=1),
                links=[incidents],
            ),
            stat(
                "Not acknowledged",
                "Open incidents that nobody has taken.",
                query(f"sum({OPEN}) - sum({ACKNOWLEDGED})", "open"),
                unit=units.Short,
                thresholds=above(red=1),
                links=[incidents],
            ),
            stat(
                "Dead letters",
                "Notifications that were given up: nobody got them. The receiver's page sends them again.",
                query('max(alert_receiver_parked_notifications{job="alert_receiver"})', "parked"),
                unit=units.Short,
                thresholds=above(red=1),
                links=[link("Dead letters", "${receiver:raw}/dead-letters", new_tab=True)],
            ),
            stat(
                "Watchdog",
                "Whether the alert that always fires does so. If not, no alert can be trusted.",
                query('count(ALERTS{alertname="Watchdog",alertstate="firing"}) or vector(0)', "watchdog"),
                unit=units.NoUnit,
                mappings=mapping({0: ("silent", RED)}),
                thresholds=[(RED, None), (GREEN, 1)],
            ),
        ),
        row(
            "Alerts",
            table(
                "Firing alerts",
                "Every alert that fires, the newest first. Click a host to see it.",
                column("alertname", "Alert"),
                column("severity", "Severity", mappings=SEVERITIES, column_width=120),
                column("host", "Host", links=[host_link(field="Host")]),
                column("job", "Job"),
                column("instance", "Instance"),
                column(
                    query(
                        "max by (alertname, severity, host, job, instance) "
                        f"((time() - ALERTS_FOR_STATE{{{FIRING}}}) "
                        f'and ignoring (alertstate) ALERTS{{alertstate="firing",{FIRING}}})'
                    ),
                    "Since",
                    unit=units.DurationSeconds,
                    column_width=160,
                ),
                sort="Since",
                descending=False,
            ),
            timeseries(
                "Firing by severity",
                "Alerts that fired, by severity.",
                query(f'count by (severity) (ALERTS{{alertstate="firing",{FIRING}}})', "{{severity}}"),
                unit=units.Short,
                stacked=True,
                minimum=0,
            ),
            timeseries(
                "Firing by alert",
                "The ten alerts that fired on most hosts.",
                query(
                    f'topk(10, count by (alertname) (ALERTS{{alertstate="firing",{FIRING}}}))',
                    "{{alertname}}",
                ),
                unit=units.Short,
                stacked=True,
                minimum=0,
            ),
            bargauge(
                "Hosts with most alerts",
                "The ten hosts with most alerts now.",
                query(f'topk(10, count by (host) (ALERTS{{alertstate="firing",host!="",{FIRING}}}))'),
                unit=units.Short,
                thresholds=plain(),
                minimum=0,
                links=[host_link()],
                no_value="no host has any",
            ),
        ),
        row(
            "Incidents",
            timeseries(
                "Open incidents",
                "Incidents of the receiver that fired, by severity. An alert is one until it is resolved.",
                query(OPEN, "{{severity}}"),
                unit=units.Short,
                stacked=True,
                minimum=0,
                links=[incidents],
            ),
            timeseries(
                "Acknowledged incidents",
                "Open incidents that somebody has taken, by severity.",
                query(ACKNOWLEDGED, "{{severity}}"),
                unit=units.Short,
                stacked=True,
                minimum=0,
                links=[incidents],
            ),
            timeseries(
                "New and resolved",
                "Alerts that began and ended, as the receiver took them, in each interval.",
                query(
                    "sum by (status) "
                    '(increase(alert_receiver_alerts_accepted_total{job="alert_receiver"}[$__rate_interval]))',
                    "{{status}}",
                ),
                unit=units.Short,
                bars=True,
                minimum=0,
            ),
        ),
        row(
            "Notifications",
            timeseries(
                "Sent by channel",
                "Messages that providers took, in each interval; a digest counts once.",
                query(
                    "sum by (channel) "
                    '(increase(alert_dispatcher_messages_total{job="alert_dispatcher"}[$__rate_interval]))',
                    "{{channel}}",
                ),
                unit=units.Short,
                bars=True,
                minimum=0,
            ),
            timeseries(
                "Tried again or given up",
                "Attempts that failed, in each interval: retried comes again, parked is a dead letter.",
                query(
                    "sum by (channel, outcome) "
                    '(increase(alert_dispatcher_deliveries_total{job="alert_dispatcher",outcome!="sent"}'
                    "[$__rate_interval]))",
                    "{{channel}} {{outcome}}",
                ),
                unit=units.Short,
                bars=True,
                minimum=0,
            ),
            timeseries(
                "Waiting",
                "Notifications that are due and not delivered yet, and those that were given up.",
                query('max(alert_receiver_outbox_depth{job="alert_receiver"})', "waiting"),
                query('max(alert_receiver_parked_notifications{job="alert_receiver"})', "dead letters"),
                unit=units.Short,
                minimum=0,
            ),
        ),
        variables=[
            variable("severity", "Severity", 'label_values(ALERTS{alertname!="Watchdog"}, severity)'),
            variable("alertname", "Alert", 'label_values(ALERTS{alertname!="Watchdog"}, alertname)'),
            host_variable("up", job=False),
            RECEIVER,
        ],
        links=[page_link("Incidents", INCIDENTS)],
        scope='alertname=~"$alertname",host=~"$host|"',
        restarts='host=~"$host"',
        time="now-24h",
    )


def _receiver() -> Dashboard:
    return dashboard(
        "fleetwatch-alert-receiver",
        "Alert receiver",
        "Whether alerts are taken and committed, and whether their notifications get out.",
        row(
            "Overview",
            stat(
                "Refused",
                "Requests and alerts that were refused within the last hour, and never will be good.",
                query(f"sum(increase(alert_receiver_refused_total{{{CHOSEN}}}[1h]))", "refused"),
                unit=units.Short,
                thresholds=above(red=1),
            ),
            stat(
                "Failed commits",
                "Requests within the last hour that the store did not take. Alertmanager sends them again.",
                query(f"sum(increase(alert_receiver_commit_failures_total{{{CHOSEN}}}[1h]))", "failed"),
                unit=units.Short,
                thresholds=above(red=1),
            ),
            stat(
                "Waiting",
                "Notifications that are due and not delivered yet.",
                query(f"max(alert_receiver_outbox_depth{{{CHOSEN}}})", "waiting"),
                unit=units.Short,
                thresholds=above(orange=100, red=1000),
                sparkline=True,
            ),
            stat(
                "Oldest waits",
                "How long the oldest notification that is not delivered yet has been due.",
                query(f"max(alert_receiver_outbox_oldest_age_seconds{{{CHOSEN}}})", "age"),
                unit=units.DurationSeconds,
                thresholds=above(orange=60, red=300),
            ),
            stat(
                "Dead letters",
                "Notifications that were given up. The receiver's page sends them again.",
                query(f"max(alert_receiver_parked_notifications{{{CHOSEN}}})", "parked"),
                unit=units.Short,
                thresholds=above(red=1),
                links=[link("Dead letters", "${receiver:raw}/dead-letters", new_tab=True)],
            ),
            stat(
                "Paused channels",
                "Channels that are left alone for now, after failures or as their provider asks.",
                query(f"sum(alert_dispatcher_channel_paused{{{CHOSEN}}}) or vector(0)", "paused"),
                unit=units.Short,
                thresholds=above(red=1),
            ),
            stat(
                "Last heartbeat",
                "Time since the Watchdog came, from the Prometheus that is silent longest.",
                query(f"max(alert_receiver_heartbeat_age_seconds{{{CHOSEN}}})", "ago"),
                unit=units.DurationSeconds,
                no_value="none expected",
            ),
        ),
        row(
            "Receiving",
            timeseries(
                "Accepted",
                "Alerts that were committed, and those that told nothing new.",
                query(rate("alert_receiver_alerts_accepted_total", by="status"), "{{status}}"),
                query(rate("alert_receiver_alerts_duplicate_total"), "duplicate {{host}}"),
                query(rate("alert_receiver_heartbeats_total"), "heartbeat {{host}}"),
                unit=units.EventsPerSecond,
                decimals=3,
                minimum=0,
            ),
            timeseries(
                "Refused",
                "Requests and alerts that were refused, by reason.",
                query(rate("alert_receiver_refused_total", by="reason"), "{{reason}}"),
                query(rate("alert_receiver_auth_failures_total", by="reason"), "caller: {{reason}}"),
                query(rate("alert_receiver_commit_failures_total"), "store failed {{host}}"),
                unit=units.EventsPerSecond,
                decimals=3,
                minimum=0,
            ),
            timeseries(
                "Requests per commit",
                "Requests that are committed together: more when they come faster than the disk takes them.",
                query(
                    f"{rate('alert_receiver_commit_group_requests_sum')} "
                    f"/ {rate('alert_receiver_commit_group_requests_count')}"
                ),
                unit=units.NoUnit,
                decimals=1,
                minimum=0,
            ),
            timeseries(
                "Time to commit",
                "Half of the requests, 95 and 99 of 100 were committed within this time.",
                *(
                    query(quantile(share, "alert_receiver_commit_seconds"), name)
                    for share, name in ((0.5, "median"), (0.95, "95 %"), (0.99, "99 %"))
                ),
                unit=units.Seconds,
                decimals=3,
                minimum=0,
                width=12,
            ),
            heatmap(
                "Distribution of the time to commit",
                "How many requests took how long to commit; the darker, the more.",
                query(
                    "sum by (le) "
                    f"(increase(alert_receiver_commit_seconds_bucket{{{CHOSEN}}}[$__rate_interval]))",
                    "{{le}}",
                ),
                unit=units.Seconds,
                decimals=3,
                width=12,
            ),
        ),
        row(
            "Queue",
            timeseries(
                "Waiting notifications",
                "Notifications that are due and not delivered yet, and those that were given up.",
                query(f"max by (host) (alert_receiver_outbox_depth{{{CHOSEN}}})", "waiting {{host}}"),
                query(
                    f"max by (host) (alert_receiver_parked_notifications{{{CHOSEN}}})",
                    "dead letters {{host}}",
                ),
                unit=units.Short,
                minimum=0,
            ),
            timeseries(
                "Age of the oldest",
                "How long the oldest notification that is not delivered yet has been due.",
                query(f"max by (host) (alert_receiver_outbox_oldest_age_seconds{{{CHOSEN}}})"),
                unit=units.Seconds,
                decimals=0,
                thresholds=above(orange=60, red=300),
                minimum=0,
            ),
            timeseries(
                "Time to the first attempt",
                "From when a notification was to go out to its first attempt.",
                *(
                    query(quantile(share, "alert_dispatcher_handover_seconds"), name)
                    for share, name in ((0.5, "median"), (0.99, "99 %"))
                ),
                unit=units.Seconds,
                minimum=0,
            ),
        ),
        row(
            "Delivery",
            timeseries(
                "Deliveries",
                "Attempts by channel and outcome: retried comes again, parked is a dead letter.",
                query(
                    rate("alert_dispatcher_deliveries_total", by="channel, outcome"),
                    "{{channel}} {{outcome}}",
                ),
                unit=units.EventsPerSecond,
                decimals=3,
                minimum=0,
            ),
            timeseries(
                "Time of providers, 99th percentile",
                "Time a provider took for one attempt.",
                query(quantile(0.99, "alert_dispatcher_send_seconds", by="channel"), "{{channel}}"),
                unit=units.Seconds,
                minimum=0,
            ),
            timeline(
                "Circuit breakers",
                "When a channel's breaker was open: it failed so often that it is only tried now and then.",
                query(f"max by (channel) (alert_dispatcher_breaker_open{{{CHOSEN}}})", "{{channel}}"),
                mappings=CLOSED_OPEN,
                thresholds=above(red=1),
            ),
        ),
        row(
            "Dispatcher",
            timeseries(
                "Failures",
                "Failed use of the store, comparisons with Alertmanager, and housekeeping.",
                query(rate("alert_dispatcher_store_failures_total"), "store {{host}}"),
                query(rate("alert_dispatcher_reconciliation_failures_total"), "reconciliation {{host}}"),
                query(rate("alert_dispatcher_housekeeping_failures_total"), "housekeeping {{host}}"),
                unit=units.EventsPerSecond,
                decimals=3,
                minimum=0,
            ),
            timeseries(
                "Found by reconciliation",
                "Incidents that Alertmanager had ended or begun without the receiver's knowledge.",
                query(rate("alert_dispatcher_reconciliation_opened_total"), "opened {{host}}"),
                query(rate("alert_dispatcher_reconciliation_closed_total"), "closed {{host}}"),
                query(rate("alert_dispatcher_reconciliation_reopened_total"), "reopened {{host}}"),
                unit=units.EventsPerSecond,
                decimals=3,
                minimum=0,
            ),
            stat(
                "Last done",
                "Time since the incidents were compared with Alertmanager, and since old ones were deleted.",
                query(
                    "time() - max by (host) "
                    f"(alert_dispatcher_reconciliation_last_success_timestamp_seconds{{{CHOSEN}}} > 0)",
                    "reconciliation {{host}}",
                ),
                query(
                    "time() - max by (host) "
                    f"(alert_dispatcher_housekeeping_last_success_timestamp_seconds{{{CHOSEN}}} > 0)",
                    "housekeeping {{host}}",
                ),
                unit=units.DurationSeconds,
                width=8,
            ),
        ),
        process_row(),
        variables=[job_variable(JOBS), host_variable(JOBS, job=False), RECEIVER],
        links=[page_link("Incidents", INCIDENTS)],
    )
