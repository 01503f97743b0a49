"""What people write of a ticker, counted by the hour."""

from __future__ import annotations

import polars as pl

HOUR_MS = 3_600_000
BULLISH, BEARISH = "Bullish", "Bearish"

MESSAGE_SCHEMA = pl.Schema(
    {
        "ticker": pl.String(),
        "message_id": pl.String(),
        "created_at": pl.Int64(),
        "sentiment": pl.String(),
        "source": pl.String(),
    }
)
"""A message; `created_at` in UTC milliseconds, `sentiment` null where its writer named none."""

HOUR_SCHEMA = pl.Schema(
    {
        "ticker": pl.String(),
        "hour": pl.Int64(),
        "source": pl.String(),
        "messages": pl.Int64(),
        "bullish": pl.Int64(),
        "bearish": pl.Int64(),
        "available_at": pl.Int64(),
    }
)
"""An hour of a ticker: `hour` is its beginning, `available_at` when it was read, both in UTC ms.

Nothing that is decided before `available_at` may know of it.
"""


def by_hour(
    messages: pl.DataFrame, *, ticker: str, source: str, since: int, until: int, now: int
) -> pl.DataFrame:
    """Count messages in MESSAGE_SCHEMA by the hour, in HOUR_SCHEMA.

    `since` and `until` are whole hours; an hour between them without a message is there, too, for
    silence was observed. A message that came twice counts once.
    """
    hours = pl.DataFrame({"hour": range(since, until, HOUR_MS)}, schema={"hour": pl.Int64})
    counted = (
        messages.unique("message_id", keep="last")
        .group_by(hour=pl.col("created_at") // HOUR_MS * HOUR_MS)
        .agg(
            messages=pl.len(),
            bullish=(pl.col("sentiment") == BULLISH).sum(),
            bearish=(pl.col("sentiment") == BEARISH).sum(),
        )
    )
    counts = ("messages", "bullish", "bearish")
    return (
        hours.join(counted, on="hour", how="left", maintain_order="left")
        .with_columns(
            pl.col(counts).fill_null(0),
            ticker=pl.lit(ticker),
            source=pl.lit(source),
            available_at=pl.lit(now, pl.Int64),
        )
        .select(pl.col(name).cast(kind) for name, kind in HOUR_SCHEMA.items())
    )


def known(bars: pl.DataFrame, hours: pl.DataFrame) -> pl.DataFrame:
    """Put to each bar, by its `close_time`, the latest hour that was available when it closed.

    Bars before the first hour have nulls. Both are in the order of their times; the columns
    that are added are `hour`, `messages`, `bullish`, `bearish` and `available_at`.
    """
    columns = ("hour", "messages", "bullish", "bearish", "available_at")
    told = hours.select(columns).sort("available_at", "hour")
    return (
        bars.with_columns(_at=pl.col("close_time"))
        .join_asof(told.with_columns(_at=pl.col("available_at")).set_sorted("_at"), on="_at")
        .drop("_at")
    )
