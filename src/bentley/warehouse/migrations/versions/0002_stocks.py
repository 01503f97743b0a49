"""The tables of stocks: prices by source, events, the consensus, its gaps, and sentiment."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from bentley.warehouse.schema import NAME, TEXT, Exact

revision = "0002"
down_revision = "0001"


def _exact(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, Exact(38, 18), nullable=nullable)


def upgrade() -> None:
    """Create what is not there yet; a killed upgrade on MySQL leaves some of it behind."""
    op.create_table(
        "stock_prices",
        sa.Column("ticker", NAME, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("source", NAME, nullable=False),
        *(_exact(name) for name in ("open", "high", "low", "close", "volume")),
        *(_exact(name, nullable=True) for name in ("adj_open", "adj_high", "adj_low")),
        *(_exact(name, nullable=True) for name in ("adj_close", "adj_volume")),
        *(_exact(name, nullable=True) for name in ("div_cash", "split_factor")),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("ticker", "session", "source"),
        sqlite_with_rowid=False,
        if_not_exists=True,
    )
    op.create_table(
        "stock_actions",
        sa.Column("ticker", NAME, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("kind", NAME, nullable=False),
        sa.Column("source", NAME, nullable=False),
        _exact("value"),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("ticker", "session", "kind", "source"),
        if_not_exists=True,
    )
    op.create_table(
        "stock_consensus",
        sa.Column("ticker", NAME, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("source", NAME, nullable=False),
        *(_exact(name) for name in ("open", "high", "low", "close", "volume")),
        *(_exact(name, nullable=True) for name in ("div_cash", "split_factor")),
        sa.Column("sources", sa.Integer, nullable=False),
        sa.Column("deviation_bps", sa.Double),
        sa.Column("deviations", TEXT, nullable=False),
        sa.Column("quality_flag", NAME, nullable=False),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("ticker", "session"),
        sqlite_with_rowid=False,
        if_not_exists=True,
    )
    op.create_table(
        "stock_gaps",
        sa.Column("ticker", NAME, nullable=False),
        sa.Column("first_session", sa.Date, nullable=False),
        sa.Column("last_session", sa.Date, nullable=False),
        sa.Column("sessions", sa.BigInteger, nullable=False),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("ticker", "first_session"),
        if_not_exists=True,
    )
    op.create_table(
        "stock_sentiment",
        sa.Column("ticker", NAME, nullable=False),
        sa.Column("hour", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("source", NAME, nullable=False),
        sa.Column("messages", sa.BigInteger, nullable=False),
        sa.Column("bullish", sa.BigInteger, nullable=False),
        sa.Column("bearish", sa.BigInteger, nullable=False),
        sa.Column("available_at", sa.BigInteger, nullable=False),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("ticker", "hour", "source"),
        if_not_exists=True,
    )
