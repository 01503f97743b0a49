"""What a bar is: its columns, its exact decimals, what makes it wrong, and its checksum.

Raw bars arrive as text, exactly as the exchange sent them. `sift` parts them into bars
that the warehouse takes as they are and rows that go to quarantine with a reason each.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import polars as pl

from bentley.domain import buffers, intervals
from bentley.domain.clock import MS_DIGITS

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

NO_REJECTS = pl.Schema({**RAW_SCHEMA, "reason": pl.String()}).to_frame()
"""What is rejected where nothing is; without computing, which would start threads at the import."""

BEYOND = "beyond"
"""A column of rejects, where there are any with text behind their last cell: that text."""

SUPERSEDED = "an earlier version of a key that was repeated"
"""Why a row is rejected that only came before a better one of its key."""

SYMBOL_LENGTH = 32
"""Characters that the column of a symbol takes."""

# [0-9] and not \d, which knows the digits of every script.
_SYMBOL = rf"^\S{{1,{SYMBOL_LENGTH}}}$"
_TIME = r"^([0-9]{1,13}|[0-9]{16}|[0-9]{19})$"
_COUNT = r"^[0-9]{1,18}$"
_DECIMAL = r"^-?[0-9]+(\.[0-9]+)?$"
_FITS = rf"^-?0*[0-9]{{1,{PRECISION - SCALE}}}(\.[0-9]{{1,{SCALE}}}0*)?$"


class Sifted(NamedTuple):
    """`bars` in BAR_SCHEMA; `rejected` in RAW_SCHEMA with a `reason` behind."""

    bars: pl.DataFrame
    rejected: pl.DataFrame


def sift(raw: pl.DataFrame, *, now: int | pl.Series) -> Sifted:
    """Part rows in RAW_SCHEMA into bars and rejects; nothing is rounded and nothing is lost.

    `now` is the exchange's clock in UTC milliseconds, read before the rows were, or one for each
    row: a bar is closed when its close time lies before it. Of several rows with one key, an equal repeat
    is dropped, and where they differ all but the last are rejected. Times with more digits
    than milliseconds are cut.
    """
    raw = raw.select(FIELDS)
    # To look at all cells is cheap, to say what is wrong with one is not: few rows need it.
    sound = raw.select(pl.all_horizontal(_readable()).fill_null(value=False)).to_series()
    legible, unreadable = raw, NO_REJECTS
    if not sound.all():
        legible = raw.filter(sound)
        now = now if isinstance(now, int) else now.filter(sound)
        unreadable = raw.filter(~sound).with_columns(reason=pl.coalesce(_text_faults()))
    typed = legible.select(_typed(name) for name in FIELDS).with_columns(
        pl.int_range(pl.len()).alias("_row")
    )
    faulty = typed.select(pl.any_horizontal(rule for rule, _ in _value_rules())).to_series()
    fit, misfit = typed, typed.clear().with_columns(reason=pl.lit(None, pl.String))
    if faulty.any():
        said = [pl.when(rule).then(words) for rule, words in _value_rules()]
        fit = typed.filter(~faulty)
        misfit = typed.filter(faulty).with_columns(reason=pl.coalesce(said))
    kept = fit
    if not fit.select(_in_order()).item():
        kept = fit.unique(subset=KEY, keep="last", maintain_order=True)
    if kept.height != fit.height:
        repeated = fit.join(kept, on=FIELDS, how="anti").with_columns(reason=pl.lit(SUPERSEDED))
    else:
        repeated = misfit.clear()
    wrong = pl.concat([misfit, repeated])
    rejected = pl.concat(
        [
            unreadable,
            legible[wrong["_row"]].with_columns(reason=wrong["reason"]),
        ]
    )
    before = now.gather(kept["_row"]) if isinstance(now, pl.Series) else now
    return Sifted(_closed(kept, before), rejected)


def sound(read: pl.DataFrame, *, now: int) -> pl.DataFrame | None:
    """The bars that `sift` would make of rows that are read already, where it would take them all.

    `read` has FIELDS in their types, every cell of a size that its column takes. Returns None
    where any is wrong, or not behind the one before: `sift` tells what to make of such rows.
    """
    faulty = pl.any_horizontal(rule.fill_null(value=True) for rule, _ in _value_rules()).any()
    named = pl.col("symbol").first().str.contains(_SYMBOL)
    return _closed(read, now) if read.select(~faulty & _in_order() & named).item() else None


def _closed(frame: pl.DataFrame, now: int | pl.Series) -> pl.DataFrame:
    return frame.select(*FIELDS, is_closed=pl.col("close_time") < now)


def _in_order() -> pl.Expr:
    """Whether rows are of one series, and each opens after the one before: no key is repeated."""
    opened = pl.col("open_time")
    one_series = (pl.col(name).n_unique() <= 1 for name in ("symbol", "interval"))
    return pl.all_horizontal(*one_series, (opened.diff().drop_nulls() > 0).all())


def _typed(name: str) -> pl.Expr:
    column = pl.col(name)
    if name in DECIMALS:
        return column.cast(DECIMAL)
    if name == "trades":
        return column.cast(pl.Int64)
    if name in INTEGERS:  # more digits are micro- or nanoseconds: cut, not rounded
        return column.str.slice(0, MS_DIGITS).cast(pl.Int64)
    return column


@cache
def _readable() -> list[pl.Expr]:
    """Whether each cell of a row can be read, and holds what its column can."""
    c = pl.col
    return [
        *(c(name).str.contains(_FITS) for name in DECIMALS),
        *(c(name).str.contains(_TIME) for name in ("open_time", "close_time")),
        c("trades").str.contains(_COUNT),
        c("symbol").str.contains(_SYMBOL),
        c("interval").is_in(list(intervals.MILLIS)),
    ]


@cache
def _text_faults() -> list[pl.Expr]:
    """Say why a row is not readable; the first that applies counts."""
    c, shown = pl.col, pl.format
    faults = [
        pl.when(c(name).is_null() | (c(name) == "")).then(pl.lit(f"{name} is missing"))
        for name in FIELDS
    ]
    faults += [
        pl.when(~c(name).str.contains(_TIME)).then(
            shown(f"{name} {{}} is not a whole number of milli-, micro- or nanoseconds", c(name))
        )
        for name in ("open_time", "close_time")
    ]
    faults.append(
        pl.when(~c("trades").str.contains(_COUNT)).then(
            shown("trades {} is not a whole number", c("trades"))
        )
    )
    digits = f"{PRECISION - SCALE}.{SCALE}"
    for name in DECIMALS:
        faults += [
            pl.when(~c(name).str.contains(_DECIMAL)).then(
                shown(f"{name} {{}} is not a decimal number", c(name))
            ),
            pl.when(~c(name).str.contains(_FITS)).then(
                shown(f"{name} {{}} has more digits than the column ({digits})", c(name))
            ),
        ]
    return [
        *faults,
        pl.when(c("symbol").str.len_chars() > SYMBOL_LENGTH).then(
            shown(f"symbol {{}} is longer than {SYMBOL_LENGTH}", c("symbol"))
        ),
        pl.when(c("symbol").str.contains(r"\s")).then(shown("symbol '{}' has blanks", c("symbol"))),
        pl.when(~c("interval").is_in(list(intervals.MILLIS))).then(
            shown("interval {} is not known", c("interval"))
        ),
    ]


@cache
def _value_rules() -> list[tuple[pl.Expr, pl.Expr]]:
    """What makes a bar wrong, and the words for it; the first that applies counts."""
    step = pl.col("interval").replace_strict(
        list(intervals.MILLIS), list(intervals.MILLIS.values()), default=None, return_dtype=pl.Int64
    )
    start = pl.when(pl.col("interval") == "1w").then(intervals.origin("1w")).otherwise(0)
    c, shown = pl.col, pl.format
    top = pl.max_horizontal("open", "close", "low")
    bottom = pl.min_horizontal("open", "close", "high")
    taken, volume = c("taker_buy_base_volume"), c("volume")
    opened, closed = c("open_time"), c("close_time")
    return [
        *((c(name) <= 0, shown(f"{name} {{}} is not above zero", c(name))) for name in PRICES),
        *((c(name) < 0, shown(f"{name} {{}} is negative", c(name))) for name in AMOUNTS),
        (c("high") < top, shown("high {} lies below open, low or close ({})", c("high"), top)),
        (c("low") > bottom, shown("low {} lies above open, high or close ({})", c("low"), bottom)),
        (taken > volume, shown("taker_buy_base_volume {} exceeds volume {}", taken, volume)),
        (
            (opened - start) % step != 0,
            shown("open_time {} is off the {} grid", opened, c("interval")),
        ),
        (
            (closed < opened) | (closed >= opened + step),
            shown("close_time {} lies outside the bar of {}", closed, opened),
        ),
    ]


class Checksum:
    """SHA-256 over FIELDS of bars given in key order, in pieces of any size.

    Each column has a digest of its own, over its values as they lie in memory: times and counts
    in 8 bytes, decimals as 16 bytes of their last places, little end first; a text is followed by
    a line feed. The checksum is the digest of these digests. So the same bars give the same
    checksum on every database, whatever the pieces that they come in.
    """

    def __init__(self) -> None:
        self._columns = {name: hashlib.sha256() for name in FIELDS}

    def update(self, frame: pl.DataFrame) -> None:
        """Take in the next bars, in BAR_SCHEMA."""
        for name, digest in self._columns.items():
            for contents in _contents(frame[name]):
                digest.update(contents)

    def hexdigest(self) -> str:
        """The checksum of all bars so far, in 64 hexadecimal digits."""
        digests = (digest.digest() for digest in self._columns.values())
        return hashlib.sha256(b"".join(digests)).hexdigest()


def checksum(frames: Iterable[pl.DataFrame]) -> str:
    """The checksum of bars given in key order, in pieces of any size."""
    found = Checksum()
    for frame in frames:
        found.update(frame)
    return found.hexdigest()


def _contents(column: pl.Series) -> Iterable[bytes | ctypes.Array[ctypes.c_char]]:
    if column.dtype != pl.String:
        return buffers.values(column)
    if len(column) and column[0] == column[-1] and column.n_unique() == 1:
        return [f"{column[0]}\n".encode() * len(column)]
    return ["".join(f"{value}\n" for value in column).encode()]
