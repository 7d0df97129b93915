"""Heartbeats."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "watchdogs",
        sa.Column("fingerprint", sa.String(128), nullable=False),
        sa.Column("labels", sa.JSON().with_variant(JSONB, "postgresql"), nullable=False),
        sa.Column("beat_at", TIME, nullable=False),
        sa.Column("looked_at", TIME, nullable=False),
        sa.Column("silent_for", sa.Double, nullable=False),
        sa.Column("missing", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_watchdogs"),
    )
