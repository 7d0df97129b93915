"""The dashboard of the probes."""

from __future__ import annotations

from fleetwatch.dashboards.style import (
    GREEN,
    LOADED,
    ORANGE,
    RED,
    UP_DOWN,
    Dashboard,
    Row,
    above,
    below,
    column,
    dashboard,
    dashboard_url,
    host_link,
    host_variable,
    link,
    mapping,
    query,
    row,
    stat,
    table,
    timeline,
    timeseries,
    units,
    variable,
)

PROBES = 'job="blackbox",host=~"$host",name=~"$name",prober=~"$prober"'
PROBER = 'job="blackbox_exporter",host=~"$prober"'
PROBE = "host, name, target, module"
"""The labels of a probe, whoever makes it."""
BEST = f"max by ({PROBE}) (probe_success{{{PROBES}}})"
"""1 for each probe that succeeds from somewhere."""
WORST = f"min by ({PROBE}) (probe_success{{{PROBES}}})"
"""1 for each probe that succeeds from everywhere."""
SHARE = f"max by ({PROBE}) (avg_over_time(probe_success{{{PROBES}}}[$__range]))"
ENDS = f"min by ({PROBE}) (probe_ssl_earliest_cert_expiry{{{PROBES}}}) - time()"
AVAILABILITY = below(orange=0.999, red=0.99)
DAY = 86_400
SUCCESS = mapping({0: ("fails", RED), 1: ("succeeds", GREEN)})
SEEN = mapping({0: ("fails", RED), 0.5: ("from some places", ORANGE), 1: ("succeeds", GREEN)})
ONE_PROBE = link(
    "This probe",
    dashboard_url("fleetwatch-probes", host="${__field.labels.host}", name="${__field.labels.name}"),
)


def dashboards() -> list[Dashboard]:
    """Return the dashboards of the role."""
    return [
        dashboard(
            "fleetwatch-probes",
            "Probes",
            "What answers when it is asked from outside, how fast, and how long its certificates are good.",
            _overview(),
            _state(),
            _duration(),
            _http(),
            _certificates(),
            _probers(),
            variables=[
                host_variable("probe_success", job=False),
                variable("name", "Probe", 'label_values(probe_success{host=~"$host"}, name)'),
                variable("prober", "Prober", "label_values(probe_success, prober)"),
            ],
            restarts=PROBER,
            reloads="blackbox_exporter_config_last_reload_success_timestamp_seconds",
        )
    ]


def _overview() -> Row:
    return row(
        "Overview",
        stat(
            "Probes",
            "Probes with a result. One that several probers make counts once.",
            query(f"count({BEST})", "probes"),
            unit=units.Short,
        ),
        stat(
            "Fail",
            "Probes that fail from everywhere.",
            query(f"count({BEST} == 0) or vector(0)", "probes"),
            unit=units.Short,
            thresholds=above(red=1),
        ),
        stat(
            "Fail from some places",
            "Probes that fail for some of the probers only.",
            query(
                f"count({WORST} == 0 and {BEST} == 1) or vector(0)",
                "probes",
            ),
            unit=units.Short,
            thresholds=above(orange=1),
        ),
        stat(
            "Availability",
            "Share of the time in view in which the probes succeeded, on average over all of them.",
            query(f"avg({SHARE})", "available"),
            unit=units.PercentUnit,
            decimals=3,
            thresholds=AVAILABILITY,
        ),
        stat(
            "Slowest",
            "The longest that a probe which succeeds takes, from the prober that is quickest.",
            query(f"max(min by ({PROBE}) (probe_duration_seconds{{{PROBES}}}) and {BEST} == 1)", "slowest"),
            unit=units.Seconds,
            decimals=3,
            thresholds=above(orange=2),
        ),
        stat(
            "First certificate to end",
            "Time until the first of all certificates ends.",
            query(f"min({ENDS})", "left"),
            unit=units.DurationSeconds,
            thresholds=below(orange=21 * DAY, red=7 * DAY),
            no_value="no certificates",
        ),
    )


def _state() -> Row:
    worst = f"bottomk(100, {SHARE})"
    return row(
        "State",
        timeline(
            "Probes that failed",
            "The probes that failed at some time in view, at most 30.",
            query(
                f"({WORST} + {BEST}) / 2 and bottomk(30, "
                f"min by ({PROBE}) (min_over_time(probe_success{{{PROBES}}}[$__range] @ end())) < 1)",
                "{{name}} {{host}}",
            ),
            mappings=SEEN,
            no_value="none failed",
            links=[ONE_PROBE],
        ),
        table(
            "Probes by availability",
            "The 100 probes that succeeded least, each from the prober that reaches it best.",
            column("host", "Host", links=[host_link(field="Host")]),
            column("name", "Probe"),
            column("module", "Module"),
            column("target", "Target"),
            column(query(f"{BEST} and {worst}"), "Now", unit=units.NoUnit, mappings=SUCCESS),
            column(query(worst), "Available", unit=units.PercentUnit, decimals=3, thresholds=AVAILABILITY),
            column(
                query(f"min by ({PROBE}) (probe_duration_seconds{{{PROBES}}}) and {worst}"),
                "Takes",
                unit=units.Seconds,
                decimals=3,
            ),
            column(
                query(f"max by ({PROBE}) (probe_http_status_code{{{PROBES}}}) and {worst}"),
                "HTTP status",
                unit=units.NoUnit,
                no_value="-",
            ),
            sort="Available",
            descending=False,
        ),
    )


def _duration() -> Row:
    return row(
        "Duration",
        timeseries(
            "Slowest probes",
            "The 20 that take longest, each from the prober that is quickest.",
            query(f"topk(20, min by (host, name) (probe_duration_seconds{{{PROBES}}}))", "{{name}} {{host}}"),
            unit=units.Seconds,
            decimals=3,
            minimum=0,
            links=[ONE_PROBE],
        ),
        timeseries(
            "HTTP by phase",
            "Mean time of the phases of a request. Processing is what the service takes to answer.",
            query(f"avg by (phase) (probe_http_duration_seconds{{{PROBES}}})", "{{phase}}"),
            unit=units.Seconds,
            decimals=3,
            stacked=True,
            minimum=0,
        ),
        timeseries(
            "Round trip of pings",
            "The 20 longest ways, by prober and host.",
            query(
                f'topk(20, max by (prober, host) (probe_icmp_duration_seconds{{{PROBES},phase="rtt"}}))',
                "{{prober}} to {{host}}",
            ),
            unit=units.Seconds,
            decimals=4,
            minimum=0,
        ),
    )


def _http() -> Row:
    return row(
        "HTTP",
        timeseries(
            "Answers by status",
            "Probes by the HTTP status that they got; 0 is no answer.",
            query(f'count_values("status", probe_http_status_code{{{PROBES}}})', "{{status}}"),
            unit=units.Short,
            stacked=True,
            minimum=0,
        ),
        timeseries(
            "Time to resolve names",
            "The longest that each prober waits for DNS.",
            query(f"max by (prober) (probe_dns_lookup_time_seconds{{{PROBES}}})", "{{prober}}"),
            unit=units.Seconds,
            decimals=3,
            minimum=0,
        ),
        timeseries(
            "Redirects",
            "Redirects that a probe follows before it has its answer, the 20 longest chains.",
            query(
                f"topk(20, max by (host, name) (probe_http_redirects{{{PROBES}}}) > 0)", "{{name}} {{host}}"
            ),
            unit=units.Short,
            minimum=0,
            no_value="no redirects",
        ),
    )


def _certificates() -> Row:
    first = f"bottomk(100, {ENDS})"
    return row(
        "Certificates",
        table(
            "Certificates by their end",
            "The 100 targets whose certificate, or one of its chain, ends first.",
            column("host", "Host", links=[host_link(field="Host")]),
            column("name", "Probe"),
            column("target", "Target"),
            column(
                query(first),
                "Left",
                unit=units.DurationSeconds,
                thresholds=below(orange=21 * DAY, red=7 * DAY),
            ),
            sort="Left",
            descending=False,
        ),
    )


def _probers() -> Row:
    return row(
        "Probers",
        stat(
            "Prober",
            "Whether Prometheus reaches it.",
            query(f"max by (host) (up{{{PROBER}}})"),
            unit=units.NoUnit,
            mappings=UP_DOWN,
        ),
        stat(
            "Modules",
            "Whether it runs with the newest modules.",
            query(f"max by (host) (blackbox_exporter_config_last_reload_successful{{{PROBER}}})"),
            unit=units.NoUnit,
            mappings=LOADED,
        ),
        timeseries(
            "Success by prober",
            "Share of its probes that succeed. One that is lower than the others has a problem of its own.",
            query(f"avg by (prober) (probe_success{{{PROBES}}})", "{{prober}}"),
            unit=units.PercentUnit,
            minimum=0,
            maximum=1,
        ),
        timeseries(
            "Probes without a result",
            "Scrapes of probes that fail, so that nobody knows whether the target answers.",
            query(f"sum by (prober) (1 - up{{{PROBES}}})", "{{prober}}"),
            unit=units.Short,
            thresholds=above(red=1),
            minimum=0,
        ),
        timeseries(
            "CPU",
            "Processor cores in use.",
            query(f"sum by (host) (rate(process_cpu_seconds_total{{{PROBER}}}[$__rate_interval]))"),
            unit=units.Short,
            decimals=3,
            minimum=0,
            links=[host_link()],
        ),
        timeseries(
            "Memory",
            "Memory that the process holds.",
            query(f"sum by (host) (process_resident_memory_bytes{{{PROBER}}})"),
            unit=units.BytesIEC,
            minimum=0,
            links=[host_link()],
        ),
    )
