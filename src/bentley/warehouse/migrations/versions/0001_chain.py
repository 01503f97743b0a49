"""The tables of the chain: bars, processed bars, quarantine, gaps and the ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from bentley.warehouse.schema import LABEL, LONG_TEXT, NAME, SERIAL, TEXT, Exact

revision = "0001"
down_revision = None


def _create_index(name: str, table: str, columns: list[str]) -> None:
    # MySQL, unlike MariaDB, has no CREATE INDEX IF NOT EXISTS.
    known = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}
    if name not in known:
        op.create_index(name, table, columns)


def upgrade() -> None:
    """Create what is not there yet; a killed upgrade on MySQL leaves some of it behind."""
    op.create_table(
        "batch_parents",
        sa.Column("batch_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("parent_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "parent_id"),
        if_not_exists=True,
    )
    op.create_table(
        "batch_ranges",
        sa.Column("batch_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("symbol", NAME, nullable=False),
        sa.Column("interval", NAME, nullable=False),
        sa.Column("first_open", sa.BigInteger, nullable=False),
        sa.Column("last_open", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "symbol", "interval"),
        if_not_exists=True,
    )
    op.create_table(
        "batch_runs",
        sa.Column("batch_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("pipeline_run", LABEL, nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "pipeline_run"),
        if_not_exists=True,
    )
    _create_index("batch_runs_by_run", "batch_runs", ["pipeline_run"])
    op.create_table(
        "batches",
        sa.Column("id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("stage", NAME, nullable=False),
        sa.Column("status", NAME, nullable=False),
        sa.Column("engine", LABEL, nullable=False),
        sa.Column("rows_read", sa.BigInteger, nullable=False),
        sa.Column("rows_written", sa.BigInteger, nullable=False),
        sa.Column("rows_news", sa.BigInteger, nullable=False),
        sa.Column("rows_rejected", sa.BigInteger, nullable=False),
        sa.Column("checksum", sa.String(length=64)),
        sa.Column("watermark", sa.BigInteger),
        sa.Column("exchange_time", sa.BigInteger),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("dag_run", sa.String(length=512)),
        sa.Column("error", LONG_TEXT),
        sa.Column("details", LONG_TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
        if_not_exists=True,
    )
    _create_index("batches_by_stage", "batches", ["stage", "status"])
    op.create_table(
        "binance_ohlcv",
        sa.Column("symbol", NAME, nullable=False),
        sa.Column("interval", NAME, nullable=False),
        sa.Column("open_time", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("open", Exact, nullable=False),
        sa.Column("high", Exact, nullable=False),
        sa.Column("low", Exact, nullable=False),
        sa.Column("close", Exact, nullable=False),
        sa.Column("volume", Exact, nullable=False),
        sa.Column("close_time", sa.BigInteger, nullable=False),
        sa.Column("quote_volume", Exact, nullable=False),
        sa.Column("trades", sa.BigInteger, nullable=False),
        sa.Column("taker_buy_base_volume", Exact, nullable=False),
        sa.Column("taker_buy_quote_volume", Exact, nullable=False),
        sa.Column("is_closed", sa.SmallInteger, nullable=False),
        sa.Column("source", LABEL, nullable=False),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("symbol", "interval", "open_time"),
        sqlite_with_rowid=False,
        if_not_exists=True,
    )
    op.create_table(
        "consumption",
        sa.Column("consumer", NAME, nullable=False),
        sa.Column("batch_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("by_batch_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("consumer", "batch_id"),
        if_not_exists=True,
    )
    op.create_table(
        "gaps",
        sa.Column("symbol", NAME, nullable=False),
        sa.Column("interval", NAME, nullable=False),
        sa.Column("first_open", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("last_open", sa.BigInteger, nullable=False),
        sa.Column("bars", sa.BigInteger, nullable=False),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("symbol", "interval", "first_open"),
        if_not_exists=True,
    )
    op.create_table(
        "knime_landing",
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.Column("symbol", NAME, nullable=False),
        sa.Column("interval", NAME, nullable=False),
        sa.Column("open_time", sa.BigInteger, nullable=False),
        sa.Column("close_time", sa.BigInteger),
        sa.Column("open", sa.String(length=64)),
        sa.Column("high", sa.String(length=64)),
        sa.Column("low", sa.String(length=64)),
        sa.Column("close", sa.String(length=64)),
        sa.Column("volume", sa.String(length=64)),
        sa.Column("quote_volume", sa.String(length=64)),
        sa.Column("taker_buy_base_volume", sa.String(length=64)),
        sa.Column("taker_buy_quote_volume", sa.String(length=64)),
        sa.Column("trades", sa.BigInteger),
        sa.Column("source_batch_id", sa.BigInteger),
        sa.Column("simple_return", sa.Double),
        sa.Column("log_return", sa.Double),
        sa.Column("true_range", sa.Double),
        sa.Column("typical_price", sa.Double),
        sa.Column("vwap", sa.Double),
        sa.Column("taker_buy_share", sa.Double),
        sa.Column("sma_20", sa.Double),
        sa.Column("high_20", sa.Double),
        sa.Column("low_20", sa.Double),
        sa.Column("volume_20", sa.Double),
        sa.Column("quality_flag", NAME),
        sa.Column("reject_reason", TEXT),
        if_not_exists=True,
    )
    _create_index(
        "knime_landing_by_key",
        "knime_landing",
        ["batch_id", "symbol", "interval", "open_time"],
    )
    op.create_table(
        "knime_processed",
        sa.Column("symbol", NAME, nullable=False),
        sa.Column("interval", NAME, nullable=False),
        sa.Column("open_time", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("open", Exact, nullable=False),
        sa.Column("high", Exact, nullable=False),
        sa.Column("low", Exact, nullable=False),
        sa.Column("close", Exact, nullable=False),
        sa.Column("volume", Exact, nullable=False),
        sa.Column("close_time", sa.BigInteger, nullable=False),
        sa.Column("quote_volume", Exact, nullable=False),
        sa.Column("trades", sa.BigInteger, nullable=False),
        sa.Column("taker_buy_base_volume", Exact, nullable=False),
        sa.Column("taker_buy_quote_volume", Exact, nullable=False),
        sa.Column("simple_return", sa.Double),
        sa.Column("log_return", sa.Double),
        sa.Column("true_range", sa.Double),
        sa.Column("typical_price", sa.Double),
        sa.Column("vwap", sa.Double),
        sa.Column("taker_buy_share", sa.Double),
        sa.Column("sma_20", sa.Double),
        sa.Column("high_20", sa.Double),
        sa.Column("low_20", sa.Double),
        sa.Column("volume_20", sa.Double),
        sa.Column("quality_flag", NAME, nullable=False),
        sa.Column("source_batch_id", sa.BigInteger, nullable=False),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("symbol", "interval", "open_time"),
        sqlite_with_rowid=False,
        if_not_exists=True,
    )
    op.create_table(
        "meta",
        sa.Column("name", LABEL, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("name"),
        if_not_exists=True,
    )
    op.create_table(
        "mlflow_runs",
        sa.Column("processed_batch_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("claim", LABEL, nullable=False),
        sa.Column("run_id", LABEL),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("processed_batch_id"),
        sa.UniqueConstraint("claim"),
        if_not_exists=True,
    )
    op.create_table(
        "quarantine",
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.Column("stage", NAME, nullable=False),
        sa.Column("symbol", LABEL),
        sa.Column("interval", LABEL),
        sa.Column("open_time", LABEL),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("content", LONG_TEXT, nullable=False),
        sa.Column("found_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint"),
        if_not_exists=True,
    )
    _create_index("quarantine_by_series", "quarantine", ["stage", "symbol", "interval"])
    op.create_table(
        "source_states",
        sa.Column("source", LABEL, nullable=False),
        sa.Column("name", LABEL, nullable=False),
        sa.Column("state", LONG_TEXT, nullable=False),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("source", "name"),
        if_not_exists=True,
    )
