"""Prices made comparable across splits and dividends, from the events alone.

A session's price is multiplied by what came after it: 1 / split for each later split, and for
each later dividend D of a stock that closed at P the session before, 1 - D / P ("previous
close": the method of CRSP, of Yahoo, and of the factor files that LEAN and others use) or
C / (C + D) with the ex-day's own close C ("ex close": what Tiingo's prices show). A split on the
ex-day itself divides P first. Volumes are multiplied by the later splits.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from bentley.domain.errors import DataError
from bentley.domain.stocks import PRICES

Method = Literal["previous_close", "ex_close"]
Floats = npt.NDArray[np.float64]

TOLERANCE = 1e-5
"""How far an adjusted price may lie from what the events make of the raw one, as a share.

Factors with eight decimals, as some publish them, are off by 3e-6 after a few splits.
"""

_ROUNDED = 5e-5
"""What rounding takes from a price at most: four decimals are the most that raw ones have."""

_SHARE = 1.0
"""What rounding takes from an adjusted volume at most: it is told in whole shares."""

MISMATCH_SCHEMA = pl.Schema(
    {
        "session": pl.Date(),
        "column": pl.String(),
        "by": pl.String(),
        "expected": pl.Float64(),
        "found": pl.Float64(),
    }
)
"""A factor that is not as it must be: `by` says what makes the expected one."""


def factors(rows: pl.DataFrame, *, method: Method = "previous_close") -> pl.DataFrame:
    """The factors of one ticker: `price_factor` of dividends and `split_factor` of splits, float64.

    `rows` has `session`, `close`, `div_cash` and `split_factor` in session order; a price times
    both factors is adjusted for all events among the rows, and for no other. Raises DataError
    where a row says nothing of dividends or splits, for nobody knows what it would take.
    """
    _need_events(rows)
    splits, dividend = _steps(rows, method)
    return pl.DataFrame(
        {
            "session": rows["session"],
            "price_factor": _later(dividend),
            "split_factor": _later(1 / splits),
        }
    )


def adjusted(rows: pl.DataFrame, *, method: Method = "previous_close") -> pl.DataFrame:
    """Return rows of one ticker, in session order, with adjusted prices and volume, float64.

    Raises what `factors` raises.
    """
    known = factors(rows, method=method)
    times = known["price_factor"] * known["split_factor"]
    return rows.with_columns(
        *(rows[name].cast(pl.Float64) * times for name in PRICES),
        (rows["volume"].cast(pl.Float64) / known["split_factor"]).alias("volume"),
    )


def mismatches(rows: pl.DataFrame, *, newest: bool = False) -> pl.DataFrame:
    """Where a source's adjusted cells don't follow from its raw ones, in MISMATCH_SCHEMA.

    `rows` are of one ticker and source in PRICE_SCHEMA, in session order. From one session to the
    next the ratio of adjusted to raw close may change by the day's split and dividend alone, by
    either method or in between, and that of the volumes by the split; the other prices of a
    session have the factor of its close. All of it give or take TOLERANCE and what rounding
    takes. With `newest`, nothing can have gone ex since the last row: its factor is 1.
    """
    events = rows.drop_nulls(["div_cash", "split_factor"])
    given = events.drop_nulls("adj_close")
    found = [_closes(events), *(_cells(given, name) for name in PRICES[:-1]), _volumes(events)]
    if newest:
        found.append(_level(rows.tail(1).drop_nulls("adj_close")))
    return pl.concat(found).sort("session", maintain_order=True)


def _closes(rows: pl.DataFrame) -> pl.DataFrame:
    """Check how adjusted closes change against raw ones, from one that has both to the next."""
    splits, by_previous = _steps(rows, "previous_close")
    _, by_own = _steps(rows, "ex_close")
    told = rows["adj_close"].is_not_null()
    kept, at = rows.filter(told), told.to_numpy()
    since = (np.cumprod(splits / factor)[at] for factor in (by_previous, by_own))
    first, second = (steps[1:] / steps[:-1] for steps in since)
    close, adjusted_close = _floats(kept, "close"), _floats(kept, "adj_close")
    ratio, rounded = adjusted_close / close, _ROUNDED * (1 / close + 1 / adjusted_close)
    found = ratio[1:] / ratio[:-1]
    allowed = TOLERANCE + rounded[1:] + rounded[:-1]
    wrong = (found < np.minimum(first, second) * (1 - allowed)) | (
        found > np.maximum(first, second) * (1 + allowed)
    )
    return _named(
        kept[1:], wrong, column="adj_close", by="the events make", expected=first, found=found
    )


def _cells(given: pl.DataFrame, name: str) -> pl.DataFrame:
    """Check an adjusted price by the factor of its session's close; a null passes."""
    raw, close = _floats(given, name), _floats(given, "close")
    adjusted, adjusted_close = _floats(given, f"adj_{name}"), _floats(given, "adj_close")
    expected, found = adjusted_close / close, adjusted / raw
    rounded = _ROUNDED * (1 / raw + 1 / close + 1 / adjusted + 1 / adjusted_close)
    wrong = np.abs(found / expected - 1) > TOLERANCE + rounded
    return _named(
        given, wrong, column=f"adj_{name}", by="the close makes", expected=expected, found=found
    )


def _volumes(given: pl.DataFrame) -> pl.DataFrame:
    """Check how adjusted volumes change against raw ones, from one that has both to the next."""
    both = (pl.col("volume") > 0) & (pl.col("adj_volume") > 0)
    traded = given.with_columns(
        since=pl.Series(np.cumprod(_floats(given, "split_factor")), dtype=pl.Float64)
    ).filter(both)
    since, raw, adjusted = (_floats(traded, name) for name in ("since", "volume", "adj_volume"))
    ratio, rounded = adjusted / raw, _SHARE / raw + _SHARE / adjusted
    expected, found = since[1:] / since[:-1], ratio[:-1] / ratio[1:]
    wrong = np.abs(found / expected - 1) > TOLERANCE + rounded[1:] + rounded[:-1]
    return _named(
        traded[1:],
        wrong,
        column="adj_volume",
        by="the splits make",
        expected=expected,
        found=found,
    )


def _level(last: pl.DataFrame) -> pl.DataFrame:
    close, adjusted_close = _floats(last, "close"), _floats(last, "adj_close")
    found = adjusted_close / close
    wrong = np.abs(found - 1) > TOLERANCE + _ROUNDED * (1 / close + 1 / adjusted_close)
    return _named(
        last,
        wrong,
        column="adj_close",
        by="that nothing follows makes",
        expected=np.ones(last.height),
        found=found,
    )


def _named(
    rows: pl.DataFrame,
    wrong: npt.NDArray[np.bool_],
    *,
    column: str,
    by: str,
    expected: Floats,
    found: Floats,
) -> pl.DataFrame:
    told = pl.DataFrame({"session": rows["session"], "expected": expected, "found": found})
    named = told.with_columns(column=pl.lit(column), by=pl.lit(by))
    return named.filter(pl.Series(wrong)).select(MISMATCH_SCHEMA.names())


def _need_events(rows: pl.DataFrame) -> None:
    silent = rows.filter(pl.col("div_cash").is_null() | pl.col("split_factor").is_null())
    if silent.height:
        msg = (
            f"no source says whether there was a split or dividend on {silent['session'][0]} "
            f"({silent.height} sessions of {rows.height}): take raw prices, or pull a source that "
            "knows them (tiingo, polygon or yahoo)"
        )
        raise DataError(msg)


def _steps(rows: pl.DataFrame, method: Method) -> tuple[Floats, Floats]:
    """Each session's own split, and its dividend's factor on all that lies before it."""
    close, dividend = _floats(rows, "close"), _floats(rows, "div_cash")
    splits = _floats(rows, "split_factor")
    if method == "ex_close":
        return splits, close / (close + dividend)
    previous = np.concatenate([close[:1] * splits[:1], close[:-1]]) / splits
    factor = 1 - dividend / previous
    if factor.size and factor.min() <= 0:
        at = int(factor.argmin())
        msg = (
            f"the dividend {rows['div_cash'][at]} of {rows['session'][at]} is not below the close "
            f"before it ({previous[at]:g}): no price can be adjusted for it"
        )
        raise DataError(msg)
    return splits, factor


def _later(steps: Floats) -> Floats:
    """The product of all steps behind each session, its own not among them."""
    return np.concatenate([np.cumprod(steps[:0:-1])[::-1], np.ones(min(1, steps.size))])


def _floats(rows: pl.DataFrame, name: str) -> Floats:
    return rows[name].cast(pl.Float64).to_numpy()
