"""The tables, once, for SQLite, MySQL and MariaDB.

Decimals are DECIMAL(28,8) on MySQL and text with eight decimals on SQLite, whose NUMERIC
would turn them into floats. Times are UTC milliseconds in BIGINT.
"""

from __future__ import annotations

from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.types import TypeEngine

from bentley.domain.bars import DECIMALS, PRECISION, SCALE
from bentley.domain.errors import DataError

metadata = sa.MetaData()

_QUANTUM = Decimal(1).scaleb(-SCALE)
_STRICT = Context(prec=PRECISION, traps=[Inexact, InvalidOperation])


def exact_text(value: Any) -> str:
    """Write a decimal with all eight places, so that equal numbers are equal text.

    Raises DataError for a value that the column can't hold exactly.
    """
    try:
        # NaN has no ratio, and is the one value without digits that quantize lets pass.
        Decimal(value).as_integer_ratio()
        return f"{_STRICT.quantize(Decimal(value), _QUANTUM):f}"
    except (Inexact, InvalidOperation, ValueError, OverflowError):
        msg = f"{value} does not fit DECIMAL({PRECISION},{SCALE}) exactly; it is not rounded"
        raise DataError(msg) from None


class Exact(sa.types.TypeDecorator[Decimal]):
    """A decimal that comes back digit for digit; Decimal in Python."""

    impl = sa.Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Take text on SQLite and DECIMAL elsewhere."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(sa.Text())
        return dialect.type_descriptor(sa.Numeric(PRECISION, SCALE))

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002
        """Refuse what would have to be rounded."""
        return None if value is None else exact_text(value)

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
