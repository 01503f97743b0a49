"""One price per ticker and session out of what several sources say, and how far they lie apart.

The most preferred source that has the session is taken. Where three or more have it, one that
lies further than the bound from the median close is passed over: it is the odd one out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import polars as pl

from bentley.domain.stocks import DECIMAL, PRICES

SCHEMA = pl.Schema(
    {
        "ticker": pl.String(),
        "session": pl.Date(),
        "source": pl.String(),
        **dict.fromkeys((*PRICES, "volume", "div_cash", "split_factor"), DECIMAL),
        "sources": pl.Int64(),
        "deviation_bps": pl.Float64(),
        "deviations": pl.String(),
        "quality_flag": pl.String(),
    }
)
"""`source` is the one taken, `sources` how many had the session.

`deviations` is a JSON object of the others, each with the largest distance of its four prices
from those taken, in basis points; `deviation_bps` is the largest of them, null without others.
"""

OK, SINGLE = "ok", "single_source"
PRICES_DIFFER, SPLITS_DIFFER, DIVIDENDS_DIFFER = (
    "prices_differ",
    "splits_differ",
    "dividends_differ",
)

_DAY = ["ticker", "session"]
_MEDIAN_FROM = 3
_DIVIDEND_SHARE = 0.01
"""Sources round dividends, most of all those that a later split divided."""


def decide(prices: pl.DataFrame, *, order: Sequence[str], bound_bps: float) -> pl.DataFrame:
    """Take a source for each session of rows in PRICE_SCHEMA; in SCHEMA, by ticker and session.

    `order` names the sources by preference; one that it doesn't name comes behind all others.
    Splits and dividends are those of the first source by preference that says anything of them,
    one that was passed over coming last; null where none does.
    """
    ranks = {name: rank for rank, name in enumerate(order)}
    rows = prices.with_columns(
        _rank=pl.col("source").replace_strict(ranks, default=len(ranks), return_dtype=pl.Int64),
        **{f"_{name}": pl.col(name).cast(pl.Float64) for name in PRICES},
    ).sort(*_DAY, "_rank", "source")
    distance = (pl.col("_close") / pl.col("_close").median().over(_DAY) - 1).abs() * 10_000
    odd = (pl.len().over(_DAY) >= _MEDIAN_FROM) & (distance > bound_bps)
    rows = rows.with_columns(_odd=odd)
    taken = rows.sort(*_DAY, "_odd", "_rank", "source").unique(
        _DAY, keep="first", maintain_order=True
    )
    # Of one that is passed over for its prices, events are not believed either.
    said = _actions(rows.sort(*_DAY, "_odd", "_rank", "source"))
    apart = _deviations(rows, taken)
    decided = (
        taken.drop("div_cash", "split_factor")
        .join(said, on=_DAY, how="left", maintain_order="left")
        .join(apart, on=_DAY, how="left", maintain_order="left")
    )
    flag = (
        pl.when("splits_apart")
        .then(pl.lit(SPLITS_DIFFER))
        .when(pl.col("deviation_bps") > bound_bps)
        .then(pl.lit(PRICES_DIFFER))
        .when("dividends_apart")
        .then(pl.lit(DIVIDENDS_DIFFER))
        .when(pl.col("sources") == 1)
        .then(pl.lit(SINGLE))
        .otherwise(pl.lit(OK))
    )
    return decided.with_columns(pl.col("deviations").fill_null("{}"), quality_flag=flag).select(
        pl.col(name).cast(kind) for name, kind in SCHEMA.items()
    )


def _actions(rows: pl.DataFrame) -> pl.DataFrame:
    """What is said of splits and dividends, by whom first, and whether anybody disagrees."""
    dividend, split = (pl.col(name).cast(pl.Float64) for name in ("div_cash", "split_factor"))
    return rows.group_by(_DAY).agg(
        *(pl.col(name).drop_nulls().first() for name in ("div_cash", "split_factor")),
        sources=pl.len(),
        splits_apart=(split.max() - split.min() > _DIVIDEND_SHARE * split.min()).fill_null(
            value=False
        ),
        dividends_apart=(
            dividend.max() - dividend.min() > _DIVIDEND_SHARE * dividend.max()
        ).fill_null(value=False),
    )


def _deviations(rows: pl.DataFrame, taken: pl.DataFrame) -> pl.DataFrame:
    """How far each source that was not taken lies from the one that was."""
    others = rows.join(taken.select(*_DAY, "source"), on=[*_DAY, "source"], how="anti").join(
        taken.select(*_DAY, *(pl.col(f"_{name}").alias(f"{name}_taken") for name in PRICES)),
        on=_DAY,
        maintain_order="left",
    )
    apart = pl.max_horizontal(
        (pl.col(f"_{name}") / pl.col(f"{name}_taken") - 1).abs() * 10_000 for name in PRICES
    )
    return (
        others.with_columns(bps=apart)
        .group_by(_DAY)
        .agg(pl.col("bps").max().alias("deviation_bps"), "source", "bps")
        .with_columns(
            deviations=pl.struct("source", "bps").map_elements(_listed, return_dtype=pl.String)
        )
        .select(*_DAY, "deviation_bps", "deviations")
    )


def _listed(told: dict[str, list[object]]) -> str:
    pairs = zip(told["source"], told["bps"], strict=True)
    return json.dumps({str(name): round(float(str(bps)), 4) for name, bps in pairs})
