"""What a bar is: its columns, its exact decimals, what makes it wrong, and its checksum.

Raw bars arrive as text, exactly as the exchange sent them. `sift` parts them into bars
that the warehouse takes as they are and rows that go to quarantine with a reason each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import polars as pl

from bentley.domain import intervals

PRECISION = 28
SCALE = 8
DECIMAL = pl.Decimal(PRECISION, SCALE)
"""28 digits, 8 behind the point, as the exchange writes them: up to 10^20, exact."""

PRICES = ("open", "high", "low", "close")
AMOUNTS = ("volume", "quote_volume", "taker_buy_base_volume", "taker_buy_quote_volume")
DECIMALS = PRICES + AMOUNTS
INTEGERS = ("open_time", "close_time", "trades")
KEY = ("symbol", "interval", "open_time")

FIELDS = (
    "symbol",
    "interval",
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "close_time",
    "quote_volume",
    "trades",
    "taker_buy_base_volume",
    "taker_buy_quote_volume",
)
"""A kline's fields in the exchange's order, behind its symbol and interval."""

RAW_SCHEMA = pl.Schema(dict.fromkeys(FIELDS, pl.String))
"""Rows as they came: every cell as text, null where it was missing."""

BAR_SCHEMA = pl.Schema(
    {
        name: DECIMAL if name in DECIMALS else pl.Int64 if name in INTEGERS else pl.String
        for name in FIELDS
    }
    | {"is_closed": pl.Boolean}
)
"""Bars that passed every check; times in UTC milliseconds."""

SYMBOL_LENGTH = 32
"""Characters that the column of a symbol takes."""

# [0-9] and not \d, which knows the digits of every script.
_MS_DIGITS = 13
_TIME = r"^([0-9]{1,13}|[0-9]{16}|[0-9]{19})$"
_COUNT = r"^[0-9]{1,18}$"
_DECIMAL = r"^-?[0-9]+(\.[0-9]+)?$"
_FITS = rf"^-?0*[0-9]{{1,{PRECISION - SCALE}}}(\.[0-9]{{1,{SCALE}}}0*)?$"


class Sifted(NamedTuple):
    """`bars` in BAR_SCHEMA; `rejected` in RAW_SCHEMA with a `reason` behind."""

    bars: pl.DataFrame
    rejected: pl.DataFrame


def sift(raw: pl.DataFrame, *, now: int) -> Sifted:
    """Part rows in RAW_SCHEMA into bars and rejects; nothing is rounded and nothing is lost.

    `now` is the exchange's clock in UTC milliseconds, read before the rows were: a bar is
    closed when its close time lies before it. Of several rows with one key, an equal repeat
    is dropped, and where they differ all but the last are rejected. Times with more digits
    than milliseconds are cut.
    """
    text_faults = [
        pl.when(pl.col(name).is_null() | (pl.col(name) == "")).then(pl.lit(f"{name} is missing"))
        for name in FIELDS
    ]
    text_faults += [
        pl.when(~pl.col(name).str.contains(_COUNT if name == "trades" else _TIME)).then(
            pl.format(
                "{} {} is not a whole number"
                + ("" if name == "trades" else " of milli-, micro- or nanoseconds"),
                pl.lit(name),
                pl.col(name),
            )
        )
        for name in INTEGERS
    ]
    text_faults += [
        fault
        for name in DECIMALS
        for fault in (
            pl.when(~pl.col(name).str.contains(_DECIMAL)).then(
                pl.format("{} {} is not a decimal number", pl.lit(name), pl.col(name))
            ),
            pl.when(~pl.col(name).str.contains(_FITS)).then(
                pl.format(
                    f"{{}} {{}} has more digits than the column ({PRECISION - SCALE}.{SCALE})",
                    pl.lit(name),
                    pl.col(name),
                )
            ),
        )
    ]
    text_faults.append(
        pl.when(pl.col("symbol").str.len_chars() > SYMBOL_LENGTH).then(
            pl.format(f"symbol {{}} is longer than {SYMBOL_LENGTH}", pl.col("symbol"))
        )
    )
    text_faults.append(
        pl.when(~pl.col("interval").is_in(list(intervals.MILLIS))).then(
            pl.format("interval {} is not known", pl.col("interval"))
        )
    )
    raw = raw.select(FIELDS)
    marked = raw.with_columns(reason=pl.coalesce(text_faults))
    unreadable = marked.filter(pl.col("reason").is_not_null())
    legible = marked.filter(pl.col("reason").is_null()).drop("reason")
    typed = legible.select(_typed(name) for name in FIELDS).with_columns(
        pl.coalesce(_value_faults()).alias("reason"), pl.int_range(pl.len()).alias("_row")
    )
    fit = typed.filter(pl.col("reason").is_null())
    kept = fit.unique(subset=KEY, keep="last", maintain_order=True)
    if kept.height != fit.height:
        repeated = fit.join(kept, on=FIELDS, how="anti").with_columns(
            reason=pl.lit("an earlier version of a key that was repeated")
        )
    else:
        repeated = fit.clear()
    wrong = pl.concat([typed.filter(pl.col("reason").is_not_null()), repeated])
    rejected = pl.concat(
        [
            unreadable,
            legible[wrong["_row"]].with_columns(reason=wrong["reason"]),
        ]
    )
    bars = kept.select(*FIELDS, is_closed=pl.col("close_time") < now)
    return Sifted(bars, rejected)


def _typed(name: str) -> pl.Expr:
    column = pl.col(name)
    if name in DECIMALS:
        return column.cast(DECIMAL)
    if name == "trades":
        return column.cast(pl.Int64)
    if name in INTEGERS:  # more digits are micro- or nanoseconds: cut, not rounded
        return column.str.slice(0, _MS_DIGITS).cast(pl.Int64)
    return column


def _value_faults() -> list[pl.Expr]:
    step = pl.col("interval").replace_strict(
        list(intervals.MILLIS), list(intervals.MILLIS.values()), default=None, return_dtype=pl.Int64
    )
    start = pl.when(pl.col("interval") == "1w").then(intervals.origin("1w")).otherwise(0)
    c = pl.col
    top = pl.max_horizontal("open", "close", "low")
    bottom = pl.min_horizontal("open", "close", "high")
    return [
        *(
            pl.when(c(name) <= 0).then(pl.format("{} {} is not above zero", pl.lit(name), c(name)))
            for name in PRICES
        ),
        *(
            pl.when(c(name) < 0).then(pl.format("{} {} is negative", pl.lit(name), c(name)))
            for name in AMOUNTS
        ),
        pl.when(c("high") < top).then(
            pl.format("high {} lies below open, low or close ({})", c("high"), top)
        ),
        pl.when(c("low") > bottom).then(
            pl.format("low {} lies above open, high or close ({})", c("low"), bottom)
        ),
        pl.when(c("taker_buy_base_volume") > c("volume")).then(
            pl.format(
                "taker_buy_base_volume {} exceeds volume {}",
                c("taker_buy_base_volume"),
                c("volume"),
            )
        ),
        pl.when((c("open_time") - start) % step != 0).then(
            pl.format("open_time {} is off the {} grid", c("open_time"), c("interval"))
        ),
        pl.when(
            (c("close_time") < c("open_time")) | (c("close_time") >= c("open_time") + step)
        ).then(
            pl.format("close_time {} lies outside the bar of {}", c("close_time"), c("open_time"))
        ),
    ]


def checksum(frames: Iterable[pl.DataFrame]) -> str:
    """SHA-256 over FIELDS of bars given in key order, in pieces of any size.

    Decimals are written with all their digits, so the same bars give the same checksum on
    every database.
    """
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(canonical(frame))
    return digest.hexdigest()


def canonical(frame: pl.DataFrame) -> bytes:
    """Write FIELDS of bars as the text that a checksum is taken over, a line a bar."""
    lines = frame.select(
        pl.concat_str([pl.col(name).cast(pl.String) for name in FIELDS], separator=",")
    ).to_series()
    return "".join(f"{line}\n" for line in lines).encode()
