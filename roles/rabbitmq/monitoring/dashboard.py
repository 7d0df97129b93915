"""The dashboard of RabbitMQ."""

from __future__ import annotations

from fleetwatch.dashboards.style import (
    CHOSEN,
    GREEN,
    RED,
    UP_DOWN,
    Dashboard,
    above,
    below,
    column,
    dashboard,
    host_link,
    host_variable,
    job_variable,
    mapping,
    query,
    rate,
    row,
    stat,
    table,
    timeseries,
    units,
)

_ALARM = mapping({0: ("none", GREEN), 1: ("alarm", RED)})
_QUEUE = "host, vhost, queue"


def _of(metric: str) -> str:
    """Return the expression of a metric of each host."""
    return f"max by (host) ({metric}{{{CHOSEN}}})"


def _queues(metric: str) -> str:
    """Return the expression of a metric of the ten queues with most of it."""
    return f"topk(10, sum by ({_QUEUE}) (rabbitmq_queue_{metric}{{{CHOSEN}}}))"


def _alarm(name: str) -> str:
    return f"max(rabbitmq_alarms_{name}_watermark{{{CHOSEN}}})"


def dashboards() -> list[Dashboard]:
    """Return the dashboards of the role."""
    return [
        dashboard(
            "fleetwatch-rabbitmq",
            "RabbitMQ",
            "Whether messages flow, where they pile up, and how near the broker is to its limits.",
            row(
                "Overview",
                stat(
                    "RabbitMQ",
                    "Whether Prometheus reaches it.",
                    query(f"min by (host) (up{{{CHOSEN}}})"),
                    unit=units.NoUnit,
                    mappings=UP_DOWN,
                    thresholds=below(red=1),
                    links=[host_link()],
                ),
                stat(
                    "Messages that wait",
                    "Ready to be taken, in all queues.",
                    query(f"sum(rabbitmq_queue_messages_ready{{{CHOSEN}}})", "ready"),
                    unit=units.Short,
                    sparkline=True,
                    no_value="no queue",
                ),
                stat(
                    "Being worked on",
                    "Delivered and not yet acknowledged, in all queues.",
                    query(f"sum(rabbitmq_queue_messages_unacked{{{CHOSEN}}})", "unacknowledged"),
                    unit=units.Short,
                    sparkline=True,
                    no_value="no queue",
                ),
                stat(
                    "Queues without consumer",
                    "Messages wait in them, and nobody takes them.",
                    query(
                        f"count(rabbitmq_queue_messages_ready{{{CHOSEN}}} > 0 "
                        f"and rabbitmq_queue_consumers{{{CHOSEN}}} == 0) or vector(0)",
                        "queues",
                    ),
                    unit=units.Short,
                    thresholds=above(red=1),
                ),
                stat(
                    "Memory",
                    "With an alarm RabbitMQ takes no more messages.",
                    query(_alarm("memory_used"), "memory"),
                    unit=units.NoUnit,
                    mappings=_ALARM,
                    thresholds=above(red=1),
                ),
                stat(
                    "Disk",
                    "With an alarm RabbitMQ takes no more messages.",
                    query(_alarm("free_disk_space"), "disk"),
                    unit=units.NoUnit,
                    mappings=_ALARM,
                    thresholds=above(red=1),
                ),
            ),
            row(
                "Messages",
                timeseries(
                    "Messages",
                    "Received from programs, delivered to programs, and acknowledged by them.",
                    query(rate("rabbitmq_global_messages_received_total"), "{{host}} received"),
                    query(rate("rabbitmq_global_messages_delivered_total"), "{{host}} delivered"),
                    query(rate("rabbitmq_global_messages_acknowledged_total"), "{{host}} acknowledged"),
                    unit=units.OpsPerSecond,
                    minimum=0,
                    links=[host_link()],
                ),
                timeseries(
                    "Trouble",
                    "Redelivered ones were given back; dropped and returned ones fitted no queue.",
                    query(rate("rabbitmq_global_messages_redelivered_total"), "{{host}} redelivered"),
                    query(rate("rabbitmq_global_messages_unroutable_dropped_total"), "{{host}} dropped"),
                    query(rate("rabbitmq_global_messages_unroutable_returned_total"), "{{host}} returned"),
                    unit=units.OpsPerSecond,
                    minimum=0,
                    links=[host_link()],
                ),
                timeseries(
                    "Connections and channels",
                    "Open at the moment.",
                    query(_of("rabbitmq_connections"), "{{host}} connections"),
                    query(_of("rabbitmq_channels"), "{{host}} channels"),
                    unit=units.Short,
                    minimum=0,
                    links=[host_link()],
                ),
            ),
            row(
                "Queues",
                timeseries(
                    "Waiting by queue",
                    "Messages that are ready, of the ten longest queues.",
                    query(_queues("messages_ready"), "{{vhost}} {{queue}}"),
                    unit=units.Short,
                    minimum=0,
                    links=[host_link()],
                ),
                timeseries(
                    "Being worked on by queue",
                    "Messages that are not yet acknowledged, of the ten queues with most.",
                    query(_queues("messages_unacked"), "{{vhost}} {{queue}}"),
                    unit=units.Short,
                    minimum=0,
                    links=[host_link()],
                ),
                timeseries(
                    "Consumers by queue",
                    "Programs that take from it, of the ten queues with most.",
                    query(_queues("consumers"), "{{vhost}} {{queue}}"),
                    unit=units.Short,
                    minimum=0,
                    links=[host_link()],
                ),
                table(
                    "Longest queues",
                    "The 50 queues in which most messages wait.",
                    column("host", "Host"),
                    column("vhost", "Virtual host"),
                    column("queue", "Queue"),
                    column(
                        query(f"topk(50, sum by ({_QUEUE}) (rabbitmq_queue_messages_ready{{{CHOSEN}}}))"),
                        "Waiting",
                        unit=units.Short,
                        links=[host_link(field="Host")],
                    ),
                    sort="Waiting",
                ),
            ),
            row(
                "Resources",
                timeseries(
                    "Memory by host",
                    "What RabbitMQ holds, and from where on it takes no more messages.",
                    query(_of("rabbitmq_process_resident_memory_bytes"), "{{host}} held"),
                    query(_of("rabbitmq_resident_memory_limit_bytes"), "{{host}} limit"),
                    unit=units.BytesIEC,
                    minimum=0,
                    links=[host_link()],
                ),
                timeseries(
                    "Free disk space",
                    "What is free, and below which RabbitMQ takes no more messages.",
                    query(_of("rabbitmq_disk_space_available_bytes"), "{{host}} free"),
                    query(
                        _of("rabbitmq_disk_space_available_limit_bytes"),
                        "{{host}} limit",
                    ),
                    unit=units.BytesIEC,
                    minimum=0,
                    links=[host_link()],
                ),
                timeseries(
                    "Open files",
                    "Open file descriptors, those of connections too, as a share of the limit.",
                    query(
                        f"max by (host) (rabbitmq_process_open_fds{{{CHOSEN}}} "
                        f"/ rabbitmq_process_max_fds{{{CHOSEN}}})"
                    ),
                    unit=units.PercentUnit,
                    thresholds=above(orange=0.7, red=0.9),
                    minimum=0,
                    links=[host_link()],
                ),
            ),
            variables=[job_variable("rabbitmq_build_info"), host_variable("rabbitmq_build_info")],
        )
    ]
