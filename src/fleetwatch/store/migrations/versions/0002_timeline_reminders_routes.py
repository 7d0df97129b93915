"""Timeline, acknowledgement, reminders, escalation and routes; names for all constraints."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
MAPPING = sa.JSON().with_variant(JSONB, "postgresql")


def upgrade() -> None:
    """Change the tables."""
    sqlite = op.get_context().dialect.name == "sqlite"
    if not sqlite:
        _name_constraints()
    # SQLite copies each table into a new one. The constraints of 0001 have no names there, so the tables
    # are spelled out, with names, instead of being reflected.
    _change_incidents(_incidents() if sqlite else None)
    op.add_column("notifications", sa.Column("wanted_at", TIME))
    op.execute("UPDATE notifications SET wanted_at = queued_at")
    op.drop_index("ix_notifications_state_due", "notifications")
    _change_notifications(_notifications() if sqlite else None)
    op.create_index("ix_incidents_resolved_received_at", "incidents", ["resolved_received_at"])
    op.create_index(
        "ix_notifications_state_channel_due_at_id", "notifications", ["state", "channel", "due_at", "id"]
    )
    op.create_index("ix_notifications_channel_queued_at", "notifications", ["channel", "queued_at"])
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("incident_id", sa.Integer, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("author", sa.Text),
        sa.Column("text", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["incidents.id"], name="fk_events_incident_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_events_incident_id", "events", ["incident_id"])
    op.create_table(
        "heartbeat",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("beat_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_heartbeat"),
    )
    op.execute("INSERT INTO heartbeat VALUES (1, CURRENT_TIMESTAMP)")
    op.drop_table("schema_version")


def _name_constraints() -> None:
    """Rename what PostgreSQL named itself, and drop what ``_change_notifications`` makes anew."""
    for table, old, new in (
        ("incidents", "incidents_pkey", "pk_incidents"),
        ("incidents", "incidents_fingerprint_starts_at_key", "uq_incidents_fingerprint_starts_at"),
        ("notifications", "notifications_pkey", "pk_notifications"),
    ):
        op.execute(f"ALTER TABLE {table} RENAME CONSTRAINT {old} TO {new}")
    op.drop_constraint("notifications_incident_id_transition_channel_key", "notifications")
    op.drop_constraint("notifications_incident_id_fkey", "notifications")


def _change_incidents(copy_from: sa.Table | None) -> None:
    with op.batch_alter_table(
        "incidents", copy_from=copy_from, recreate="auto", table_kwargs={"sqlite_autoincrement": True}
    ) as batch:
        for name in ("summary", "generator_url", "external_url", "receiver"):
            batch.alter_column(name, existing_type=sa.String(), type_=sa.Text())
        for name in ("labels", "annotations"):
            batch.alter_column(
                name, existing_type=sa.JSON(), type_=MAPPING, postgresql_using=f"{name}::jsonb"
            )
        batch.add_column(sa.Column("resolved_by", sa.Text))
        batch.add_column(sa.Column("acknowledged_at", TIME))
        batch.add_column(sa.Column("acknowledged_by", sa.Text))
        batch.add_column(sa.Column("silenced", sa.Text))
        batch.add_column(sa.Column("missing_since", TIME))
        batch.add_column(sa.Column("reopened", sa.Integer, nullable=False, server_default="0"))


def _change_notifications(copy_from: sa.Table | None) -> None:
    with op.batch_alter_table("notifications", copy_from=copy_from) as batch:
        for name in ("last_error", "provider_id"):
            batch.alter_column(name, existing_type=sa.String(), type_=sa.Text())
        batch.alter_column("wanted_at", existing_type=TIME, nullable=False)
        batch.add_column(sa.Column("sequence", sa.Integer, nullable=False, server_default="0"))
        batch.add_column(sa.Column("episode", sa.Integer, nullable=False, server_default="0"))
        batch.add_column(sa.Column("route", sa.String(32), nullable=False, server_default=""))
        batch.add_column(sa.Column("traceparent", sa.String(64)))
        batch.create_unique_constraint(
            "uq_notifications_once",
            ["incident_id", "channel", "transition", "sequence", "episode"],
        )
        batch.create_foreign_key(
            "fk_notifications_incident_id", "incidents", ["incident_id"], ["id"], ondelete="CASCADE"
        )


def _incidents() -> sa.Table:
    return sa.Table(
        "incidents",
        sa.MetaData(),
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("fingerprint", sa.String(128), nullable=False),
        sa.Column("starts_at", TIME, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("severity", sa.String(32), nullable=False),
        sa.Column("summary", sa.String, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("annotations", sa.JSON, nullable=False),
        sa.Column("generator_url", sa.String, nullable=False),
        sa.Column("external_url", sa.String, nullable=False),
        sa.Column("receiver", sa.String, nullable=False),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("ends_at", TIME),
        sa.Column("resolved_received_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_incidents"),
        sa.UniqueConstraint("fingerprint", "starts_at", name="uq_incidents_fingerprint_starts_at"),
        sa.Index("ix_incidents_status_severity", "status", "severity"),
    )


def _notifications() -> sa.Table:
    return sa.Table(
        "notifications",
        sa.MetaData(),
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("incident_id", sa.Integer, nullable=False),
        sa.Column("transition", sa.String(16), nullable=False),
        sa.Column("channel", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("queued_at", TIME, nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("claimed_by", sa.String(64)),
        sa.Column("claimed_until", TIME),
        sa.Column("sent_at", TIME),
        sa.Column("last_error", sa.String),
        sa.Column("provider_id", sa.String),
        sa.Column("wanted_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_notifications"),
    )
