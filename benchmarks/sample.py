"""Generated bars: a seeded walk with an exchange's digits, the same at every run."""

from __future__ import annotations

import numpy as np
import polars as pl

from bentley.domain.bars import BAR_SCHEMA, DECIMAL

SEED = 20_200_101
SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT", "ADAUSDT")
INTERVAL = "1m"
MINUTE = 60_000
START = 1_577_836_800_000
"""2020-01-01 in UTC milliseconds."""
FAR_AHEAD = 2**42
"""A clock by which every bar has closed."""


def bars(count: int, symbol: str = "BTCUSDT", *, first: int = START) -> pl.DataFrame:
    """Make `count` closed bars of one minute in BAR_SCHEMA, eight decimals each."""
    chance = np.random.default_rng(SEED)
    close = 42_000 * np.exp(np.cumsum(chance.normal(0, 2e-4, count)))
    opened = np.concatenate([[42_000.0], close[:-1]])
    volume = chance.lognormal(2, 1, count)
    taken = volume * chance.uniform(0.2, 0.8, count)
    time = first + MINUTE * np.arange(count, dtype=np.int64)
    columns = {
        "symbol": pl.Series([symbol]).new_from_index(0, count),
        "interval": pl.Series([INTERVAL]).new_from_index(0, count),
        "open_time": time,
        "open": _decimals(opened),
        "high": _decimals(np.maximum(opened, close) * 1.0001),
        "low": _decimals(np.minimum(opened, close) * 0.9999),
        "close": _decimals(close),
        "volume": _decimals(volume),
        "close_time": time + MINUTE - 1,
        "quote_volume": _decimals(volume * close),
        "trades": chance.integers(1, 5_000, count),
        "taker_buy_base_volume": _decimals(taken),
        "taker_buy_quote_volume": _decimals(taken * close),
        "is_closed": np.ones(count, dtype=bool),
    }
    return pl.DataFrame(columns, schema=BAR_SCHEMA)


def ready(frame: pl.DataFrame) -> pl.DataFrame:
    """Add what a row of `binance_ohlcv` has beside the bar, with decimals as text."""
    return frame.with_columns(
        pl.col("is_closed").cast(pl.Int8),
        pl.col(pl.Decimal).cast(pl.String),
        source=pl.lit("benchmark"),
        batch_id=pl.lit(1, pl.Int64),
        updated_at=pl.lit(START, pl.Int64),
    )


def _decimals(values: np.ndarray) -> pl.Series:
    return pl.Series(values).round(8).cast(DECIMAL)
