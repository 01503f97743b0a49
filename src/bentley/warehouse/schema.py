"""The tables, once, for SQLite, MySQL and MariaDB.

Decimals are DECIMAL on MySQL, (28,8) for coins and (38,18) for stocks, and text with as many
places on SQLite, whose NUMERIC would turn them into floats. Times are UTC milliseconds in BIGINT.
"""

from __future__ import annotations

from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.types import TypeEngine

from bentley.domain import stocks
from bentley.domain.bars import DECIMALS, PRECISION, SCALE
from bentley.domain.errors import DataError

metadata = sa.MetaData()


def exact_text(value: Any, precision: int = PRECISION, scale: int = SCALE) -> str:
    """Write a decimal with all its places, so that equal numbers are equal text.

    Raises DataError for a value that the column can't hold exactly.
    """
    strict = Context(prec=precision, traps=[Inexact, InvalidOperation])
    try:
        # NaN has no ratio, and is the one value without digits that quantize lets pass.
        Decimal(value).as_integer_ratio()
        return f"{strict.quantize(Decimal(value), Decimal(1).scaleb(-scale)):f}"
    except (Inexact, InvalidOperation, ValueError, OverflowError):
        msg = f"{value} does not fit DECIMAL({precision},{scale}) exactly; it is not rounded"
        raise DataError(msg) from None


class Exact(sa.types.TypeDecorator[Decimal]):
    """A decimal that comes back digit for digit; Decimal in Python."""

    impl = sa.Numeric
    cache_ok = True

    def __init__(self, precision: int = PRECISION, scale: int = SCALE) -> None:
        super().__init__(precision, scale)
        self.precision = precision
        self.scale = scale

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Take text on SQLite and DECIMAL elsewhere."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(sa.Text())
        return dialect.type_descriptor(sa.Numeric(self.precision, self.scale))

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002
        """Refuse what would have to be rounded."""
        if value is None:
            return None
        return exact_text(value, self.precision, self.scale)

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:  # noqa: ARG002
        """Read text and DECIMAL alike."""
        return None if value is None else Decimal(value)


# MySQL compares text without regard to case unless told otherwise.
NAME = sa.String(32).with_variant(sa.String(32, collation="utf8mb4_bin"), "mysql", "mariadb")
LABEL = sa.String(255).with_variant(sa.String(255, collation="utf8mb4_bin"), "mysql", "mariadb")
# A server's own default may be latin1, which can't hold what an exchange may send.
TEXT = sa.Text().with_variant(sa.Text(collation="utf8mb4_bin"), "mysql", "mariadb")
LONG_TEXT = sa.Text().with_variant(MEDIUMTEXT(collation="utf8mb4_bin"), "mysql", "mariadb")
# SQLite gives ids of its own only to an INTEGER primary key.
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _exact() -> list[sa.Column[Any]]:
    return [sa.Column(name, Exact, nullable=False) for name in DECIMALS]


def _ohlcv() -> list[sa.Column[Any]]:
    """The columns of a bar, in the order that the contract names."""
    columns = {column.name: column for column in _exact()}
    return [
        sa.Column("symbol", NAME, primary_key=True),
        sa.Column("interval", NAME, primary_key=True),
        sa.Column("open_time", sa.BigInteger, primary_key=True, autoincrement=False),
        columns["open"],
        columns["high"],
        columns["low"],
        columns["close"],
        columns["volume"],
        sa.Column("close_time", sa.BigInteger, nullable=False),
        columns["quote_volume"],
        sa.Column("trades", sa.BigInteger, nullable=False),
        columns["taker_buy_base_volume"],
        columns["taker_buy_quote_volume"],
    ]


COMPUTED = (
    "simple_return",
    "log_return",
    "true_range",
    "typical_price",
    "vwap",
    "taker_buy_share",
    "sma_20",
    "high_20",
    "low_20",
    "volume_20",
)
"""What the processing adds to a bar, all float64; docs/columns.md defines each."""


def _computed() -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Double) for name in COMPUTED]


meta = sa.Table(
    "meta",
    metadata,
    sa.Column("name", LABEL, primary_key=True),
    sa.Column("value", TEXT, nullable=False),
)

batches = sa.Table(
    "batches",
    metadata,
    sa.Column("id", SERIAL, primary_key=True, autoincrement=True),
    sa.Column("stage", NAME, nullable=False),
    sa.Column("status", NAME, nullable=False),
    sa.Column("engine", LABEL, nullable=False),
    sa.Column("rows_read", sa.BigInteger, nullable=False),
    sa.Column("rows_written", sa.BigInteger, nullable=False),
    sa.Column("rows_news", sa.BigInteger, nullable=False),
    sa.Column("rows_rejected", sa.BigInteger, nullable=False),
    sa.Column("checksum", sa.String(64)),
    sa.Column("watermark", sa.BigInteger),
    sa.Column("exchange_time", sa.BigInteger),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("ended_at", sa.BigInteger),
    sa.Column("dag_run", sa.String(512)),
    sa.Column("error", LONG_TEXT),
    sa.Column("details", LONG_TEXT, nullable=False),
    sa.Index("batches_by_stage", "stage", "status"),
    sqlite_autoincrement=True,
)

batch_parents = sa.Table(
    "batch_parents",
    metadata,
    sa.Column("batch_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("parent_id", sa.BigInteger, primary_key=True, autoincrement=False),
)

batch_runs = sa.Table(
    "batch_runs",
    metadata,
    sa.Column("batch_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("pipeline_run", LABEL, primary_key=True),
    sa.Index("batch_runs_by_run", "pipeline_run"),
)

batch_ranges = sa.Table(
    "batch_ranges",
    metadata,
    sa.Column("batch_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("symbol", NAME, primary_key=True),
    sa.Column("interval", NAME, primary_key=True),
    sa.Column("first_open", sa.BigInteger, nullable=False),
    sa.Column("last_open", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
)

consumption = sa.Table(
    "consumption",
    metadata,
    sa.Column("consumer", NAME, primary_key=True),
    sa.Column("batch_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("by_batch_id", sa.BigInteger, nullable=False),
)

source_states = sa.Table(
    "source_states",
    metadata,
    sa.Column("source", LABEL, primary_key=True),
    sa.Column("name", LABEL, primary_key=True),
    sa.Column("state", LONG_TEXT, nullable=False),
    sa.Column("batch_id", sa.BigInteger, nullable=False),
)

quarantine = sa.Table(
    "quarantine",
    metadata,
    sa.Column("fingerprint", sa.String(64), primary_key=True),
    sa.Column("batch_id", sa.BigInteger, nullable=False),
    sa.Column("stage", NAME, nullable=False),
    sa.Column("symbol", LABEL),
    sa.Column("interval", LABEL),
    sa.Column("open_time", LABEL),
    sa.Column("reason", TEXT, nullable=False),
    sa.Column("content", LONG_TEXT, nullable=False),
    sa.Column("found_at", sa.BigInteger, nullable=False),
    sa.Index("quarantine_by_series", "stage", "symbol", "interval"),
)

gaps = sa.Table(
    "gaps",
    metadata,
    sa.Column("symbol", NAME, primary_key=True),
    sa.Column("interval", NAME, primary_key=True),
    sa.Column("first_open", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("last_open", sa.BigInteger, nullable=False),
    sa.Column("bars", sa.BigInteger, nullable=False),
    sa.Column("batch_id", sa.BigInteger, nullable=False),
)

binance_ohlcv = sa.Table(
    "binance_ohlcv",
    metadata,
    *_ohlcv(),
    sa.Column("is_closed", sa.SmallInteger, nullable=False),
    sa.Column("source", LABEL, nullable=False),
    sa.Column("batch_id", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

knime_landing = sa.Table(
    "knime_landing",
    metadata,
    sa.Column("batch_id", sa.BigInteger, nullable=False),
    sa.Column("symbol", NAME, nullable=False),
    sa.Column("interval", NAME, nullable=False),
    sa.Column("open_time", sa.BigInteger, nullable=False),
    sa.Column("close_time", sa.BigInteger),
    *(sa.Column(name, sa.String(64)) for name in DECIMALS),
    sa.Column("trades", sa.BigInteger),
    sa.Column("source_batch_id", sa.BigInteger),
    *_computed(),
    sa.Column("quality_flag", NAME),
    sa.Column("reject_reason", TEXT),
    sa.Index("knime_landing_by_key", "batch_id", "symbol", "interval", "open_time"),
)

knime_processed = sa.Table(
    "knime_processed",
    metadata,
    *_ohlcv(),
    *_computed(),
    sa.Column("quality_flag", NAME, nullable=False),
    sa.Column("source_batch_id", sa.BigInteger, nullable=False),
    sa.Column("batch_id", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

mlflow_runs = sa.Table(
    "mlflow_runs",
    metadata,
    sa.Column("processed_batch_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("claim", LABEL, nullable=False, unique=True),
    sa.Column("run_id", LABEL),
    sa.Column("batch_id", sa.BigInteger, nullable=False),
)


def _share(name: str, *, nullable: bool) -> sa.Column[Any]:
    return sa.Column(name, Exact(stocks.PRECISION, stocks.SCALE), nullable=nullable)


stock_prices = sa.Table(
    "stock_prices",
    metadata,
    sa.Column("ticker", NAME, primary_key=True),
    sa.Column("session", sa.Date, primary_key=True),
    sa.Column("source", NAME, primary_key=True),
    *(_share(name, nullable=False) for name in (*stocks.PRICES, "volume")),
    *(_share(name, nullable=True) for name in (*stocks.ADJUSTED, "adj_volume")),
    _share("div_cash", nullable=True),
    _share("split_factor", nullable=True),
    sa.Column("batch_id", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

stock_actions = sa.Table(
    "stock_actions",
    metadata,
    sa.Column("ticker", NAME, primary_key=True),
    sa.Column("session", sa.Date, primary_key=True),
    sa.Column("kind", NAME, primary_key=True),
    sa.Column("source", NAME, primary_key=True),
    _share("value", nullable=False),
    sa.Column("batch_id", sa.BigInteger, nullable=False),
)

stock_consensus = sa.Table(
    "stock_consensus",
    metadata,
    sa.Column("ticker", NAME, primary_key=True),
    sa.Column("session", sa.Date, primary_key=True),
    sa.Column("source", NAME, nullable=False),
    *(_share(name, nullable=False) for name in (*stocks.PRICES, "volume")),
    _share("div_cash", nullable=True),
    _share("split_factor", nullable=True),
    sa.Column("sources", sa.Integer, nullable=False),
    sa.Column("deviation_bps", sa.Double),
    sa.Column("deviations", TEXT, nullable=False),
    sa.Column("quality_flag", NAME, nullable=False),
    sa.Column("batch_id", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

stock_gaps = sa.Table(
    "stock_gaps",
    metadata,
    sa.Column("ticker", NAME, primary_key=True),
    sa.Column("first_session", sa.Date, primary_key=True),
    sa.Column("last_session", sa.Date, nullable=False),
    sa.Column("sessions", sa.BigInteger, nullable=False),
    sa.Column("batch_id", sa.BigInteger, nullable=False),
)

stock_sentiment = sa.Table(
    "stock_sentiment",
    metadata,
    sa.Column("ticker", NAME, primary_key=True),
    sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("source", NAME, primary_key=True),
    sa.Column("messages", sa.BigInteger, nullable=False),
    sa.Column("bullish", sa.BigInteger, nullable=False),
    sa.Column("bearish", sa.BigInteger, nullable=False),
    sa.Column("available_at", sa.BigInteger, nullable=False),
    sa.Column("batch_id", sa.BigInteger, nullable=False),
)
