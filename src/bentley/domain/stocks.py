"""What a day of a stock is: the one shape of every source's rows, and what makes one wrong.

Rows arrive as text, exactly as their source sent them. `sift` parts them into prices that the
warehouse takes as they are, rows that go to quarantine with a reason each, and rows of a session
that has not closed yet. Raw prices are what was paid on the day, adjusted ones are what a source
makes of them once splits and dividends came; each has columns of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import NamedTuple

import polars as pl

from bentley.domain import sessions

PRECISION = 38
SCALE = 18
DECIMAL = pl.Decimal(PRECISION, SCALE)
"""38 digits, 18 behind the point: a double of 17 digits from 0.01 up is exact in it."""

PRICES = ("open", "high", "low", "close")
ADJUSTED = ("adj_open", "adj_high", "adj_low", "adj_close")
DECIMALS = (*PRICES, "volume", *ADJUSTED, "adj_volume", "div_cash", "split_factor")
KEY = ("ticker", "session", "source")
FIELDS = ("ticker", "session", *DECIMALS, "source")

RAW_SCHEMA = pl.Schema(dict.fromkeys(FIELDS, pl.String))
"""Rows as they came; null where a source doesn't say, or left a hole.

`div_cash` is the dividend per share that goes ex on the session, `split_factor` the shares that
one became before it opened: 0 and 1 on other days.
"""

PRICE_SCHEMA = pl.Schema(
    {name: DECIMAL if name in DECIMALS else pl.String for name in FIELDS} | {"session": pl.Date}
)
"""Rows that passed every check."""

ACTION_SCHEMA = pl.Schema(
    {
        "ticker": pl.String(),
        "session": pl.Date(),
        "kind": pl.String(),
        "source": pl.String(),
        "value": DECIMAL,
    }
)
"""Splits and dividends as events on their ex-date."""

TICKER_LENGTH = 32
"""Characters that the column of a ticker takes."""

_NEEDED = ("ticker", "session", *PRICES, "volume", "source")
# [0-9] and not \d, which knows the digits of every script.
_DATE = r"^(19|20)[0-9]{2}-[0-9]{2}-[0-9]{2}$"
_EXPONENT = r"^-?[0-9]+(\.[0-9]+)?[eE][-+]?[0-9]{1,2}$"
_DECIMAL = r"^-?[0-9]+(\.[0-9]+)?$"
_FITS = rf"^-?0*[0-9]{{1,{PRECISION - SCALE}}}(\.[0-9]{{1,{SCALE}}}0*)?$"


class Sifted(NamedTuple):
    """`prices` in PRICE_SCHEMA; `rejected` in RAW_SCHEMA with a `reason`; `forming` in RAW_SCHEMA."""

    prices: pl.DataFrame
    rejected: pl.DataFrame
    forming: pl.DataFrame


def frame(rows: Iterable[Mapping[str, str | None]]) -> pl.DataFrame:
    """Put rows into RAW_SCHEMA; what a row doesn't name is null."""
    return pl.DataFrame([{name: row.get(name) for name in FIELDS} for row in rows], RAW_SCHEMA)


def sift(raw: pl.DataFrame, *, now: int) -> Sifted:
    """Part rows in RAW_SCHEMA; nothing is rounded and nothing is lost.

    `now` is in UTC milliseconds: a row of a session that had not settled by then may still change
    (`sessions.SETTLES_MS` after its close). An adjusted cell that the column can't hold becomes
    null, and its row is among the rejects as well, for the raw prices are sound. Of
    several rows with one key, an equal repeat is dropped, and where they differ all but the last
    are rejected.
    """
    raw = raw.select(FIELDS)
    plain = raw.with_columns(_written_out(raw[name]) for name in DECIMALS)
    unfit = {name: ~pl.col(name).str.contains(_FITS) for name in (*ADJUSTED, "adj_volume")}
    plain = plain.with_row_index("_row")
    shortened = plain.filter(pl.any_horizontal(unfit.values())).select(
        "_row",
        reason=pl.coalesce(
            pl.when(wrong).then(pl.format(f"{name} {{}} does not fit the column", pl.col(name)))
            for name, wrong in unfit.items()
        ),
    )
    plain = plain.with_columns(
        pl.when(~wrong).then(pl.col(name)).alias(name) for name, wrong in unfit.items()
    ).with_columns(
        _day=pl.when(pl.col("session").str.contains(_DATE)).then(
            pl.col("session").str.to_date("%Y-%m-%d", strict=False)
        ),
        reason=pl.lit(None, pl.String),
    )
    told = plain.with_columns(reason=pl.coalesce(_text_faults()))
    legible = told.filter(pl.col("reason").is_null())
    typed = legible.with_columns(pl.col(DECIMALS).cast(DECIMAL), session=pl.col("_day")).join(
        _calendar(legible["_day"], now), on="session", how="left", maintain_order="left"
    )
    judged = typed.with_columns(reason=pl.coalesce(_value_faults(now)))
    fit = judged.filter(pl.col("reason").is_null())
    settled = fit.filter(pl.col("closes") <= now - sessions.SETTLES_MS)
    kept = settled.unique(subset=KEY, keep="last", maintain_order=True)
    earlier = settled.join(kept, on=FIELDS, how="anti", nulls_equal=True).with_columns(
        reason=pl.lit("an earlier version of a key that was repeated")
    )
    wrong = pl.concat(
        part.filter(pl.col("reason").is_not_null()).select("_row", "reason")
        for part in (told, judged, earlier, shortened)
    ).sort("_row")
    return Sifted(
        prices=kept.select(FIELDS),
        rejected=raw[wrong["_row"]].with_columns(reason=wrong["reason"]),
        forming=raw[fit.filter(pl.col("closes") > now - sessions.SETTLES_MS)["_row"]],
    )


def actions(prices: pl.DataFrame) -> pl.DataFrame:
    """The splits and dividends that rows in PRICE_SCHEMA tell, in ACTION_SCHEMA."""
    kinds = (("dividend", "div_cash", 0), ("split", "split_factor", 1))
    return pl.concat(
        prices.filter(pl.col(name) != pl.lit(usual)).select(
            "ticker", "session", "source", kind=pl.lit(kind), value=pl.col(name)
        )
        for kind, name, usual in kinds
    ).select(ACTION_SCHEMA.names())


def _written_out(column: pl.Series) -> pl.Series:
    """Write numbers like 1.3e+08, as JSON may have them, without their exponent."""
    powers = column.str.contains(_EXPONENT).fill_null(value=False)
    if not powers.any():
        return column
    return pl.Series(
        column.name,
        [
            f"{Decimal(text):f}" if power else text
            for text, power in zip(column, powers, strict=True)
        ],
        pl.String,
    )


def _calendar(days: pl.Series, now: int) -> pl.DataFrame:
    """The sessions among which the days lie; none of them opens after `now`."""
    first, last = days.min(), days.max()
    if not isinstance(first, date) or not isinstance(last, date):
        return sessions.SCHEMA.to_frame()
    today = sessions.day_of(now)
    return sessions.between(first, min(last, today)).filter(pl.col("opens") <= now)


def _text_faults() -> list[pl.Expr]:
    """Say why a row is not readable; the first that applies counts."""
    c, shown = pl.col, pl.format
    faults = [
        pl.when(c(name).is_null() | (c(name) == "")).then(pl.lit(f"{name} is missing"))
        for name in _NEEDED
    ]
    for name in DECIMALS:
        faults += [
            pl.when(~c(name).str.contains(_DECIMAL)).then(
                shown(f"{name} {{}} is not a decimal number", c(name))
            ),
            pl.when(~c(name).str.contains(_FITS)).then(
                shown(
                    f"{name} {{}} has more digits than the column ({PRECISION - SCALE}.{SCALE})",
                    c(name),
                )
            ),
        ]
    return [
        *faults,
        pl.when(c("_day").is_null()).then(
            shown("session {} is not a date like 2024-01-31", c("session"))
        ),
        *(
            pl.when(c(name).str.len_chars() > TICKER_LENGTH).then(
                shown(f"{name} {{}} is longer than {TICKER_LENGTH}", c(name))
            )
            for name in ("ticker", "source")
        ),
    ]


def _plain(number: pl.Expr) -> pl.Expr:
    """Write a decimal without the zeros that fill it up."""
    return number.cast(pl.String).str.replace(r"\.?0+$", "")


def _value_faults(now: int) -> list[pl.Expr]:
    """Say what makes a day wrong; the first that applies counts."""
    c, shown = pl.col, pl.format
    rules = [
        *((c(name) <= 0, f"{name} {{}} is not above zero") for name in (*PRICES, *ADJUSTED)),
        *((c(name) < 0, f"{name} {{}} is negative") for name in ("volume", "adj_volume")),
        (c("div_cash") < 0, "div_cash {} is negative"),
        (c("split_factor") <= 0, "split_factor {} is not above zero"),
    ]
    names = [*PRICES, *ADJUSTED, "volume", "adj_volume", "div_cash", "split_factor"]
    faults = [
        pl.when(rule).then(shown(words, _plain(c(name))))
        for (rule, words), name in zip(rules, names, strict=True)
    ]
    for prefix in ("", "adj_"):
        opened, high, low, close = (c(f"{prefix}{name}") for name in PRICES)
        faults += [
            pl.when((high < opened) | (high < low) | (high < close)).then(
                shown(f"{prefix}high {{}} lies below {prefix}open, low or close", _plain(high))
            ),
            pl.when((low > opened) | (low > close)).then(
                shown(f"{prefix}low {{}} lies above {prefix}open or close", _plain(low))
            ),
        ]
    today = sessions.day_of(now)
    return [
        *faults,
        pl.when(c("opens").is_null() & (c("session") >= today)).then(
            shown("session {} has not opened yet, or never will", c("session"))
        ),
        pl.when(c("opens").is_null()).then(
            shown(f"{{}} is no session of the exchange ({sessions.EXCHANGE})", c("session"))
        ),
    ]
