"""A seeded market for machines that cannot reach the exchange: the same history at every start.

Hours are made in blocks (`hourly`), each from its number alone. Minutes part an hour and
seconds part a minute; all other intervals join these (`finer`). So every interval agrees with
every other one exactly, and a bar depends on seed, symbol, interval and open time alone. There
are outages (for all symbols at once), hours that close early, and hours without a trade.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from math import floor, log10
from typing import NamedTuple

import numpy as np

from bentley.domain import intervals as grid
from bentley.domain.errors import ConfigurationError
from bentley.services.exchange import finer
from bentley.services.exchange.forming import as_seen
from bentley.services.exchange.hourly import BLOCK, HOUR, UNIT, Bars, Symbol, hours
from bentley.services.exchange.market import CLOSE_TIME, Row
from bentley.services.exchange.noise import Ints, key, uniform

LISTED = 1_577_664_000_000
"""2019-12-30, a Monday: the first bar of every symbol."""

_ANCHORS = {
    "BTCUSDT": 42_000.0,
    "ETHUSDT": 2_600.0,
    "BNBUSDT": 380.0,
    "ADAUSDT": 0.62,
    "SOLUSDT": 95.0,
    "XRPUSDT": 0.58,
    "DOGEUSDT": 0.11,
}
_BASES = ("1h", "1m", "1s")
_CACHED_BLOCKS = 512
_LONGEST_REACH = 4096


class _Series(NamedTuple):
    """One base interval of a generated symbol, as `forming` reads it."""

    market: GeneratedMarket
    symbol: str
    interval: str

    @property
    def step(self) -> int:
        return grid.millis(self.interval)

    def between(self, start: int, end: int) -> list[Row]:
        return self.market.final(self.symbol, self.interval, start, end - 1)

    def covers(self, start: int, end: int) -> bool:
        return LISTED <= start <= end

    def opened(self, start: int, end: int) -> bool:
        return self.market.held(self.symbol, start, end)


class GeneratedMarket:
    """Bars of `symbols` from `seed`, from 2019-12-30 on and without an end."""

    def __init__(self, seed: int, symbols: Collection[str]) -> None:
        if not symbols:
            msg = "a generated market needs at least one symbol, like BTCUSDT"
            raise ConfigurationError(msg)
        self.seed = seed
        self._symbols = {name: _symbol(seed, name) for name in sorted(set(symbols))}
        self._block = lru_cache(maxsize=_CACHED_BLOCKS)(self._hours)

    @property
    def origin(self) -> str:
        """`generated:` and the seed."""
        return f"generated:{self.seed}"

    def symbols(self) -> tuple[str, ...]:
        """Every symbol, in alphabetical order."""
        return tuple(self._symbols)

    def intervals(self, symbol: str) -> tuple[str, ...]:
        """Every interval that has a fixed length."""
        return tuple(grid.MILLIS) if symbol in self._symbols else ()

    def trading(self, symbol: str, now: int) -> bool:  # noqa: ARG002 a generated symbol never ends
        """Whether `symbol` is one of the market's."""
        return symbol in self._symbols

    def last_close(
        self,
        symbols: Collection[str] | None = None,
        intervals: Sequence[str] | None = None,
    ) -> None:
        """None: time goes on."""

    def klines(  # noqa: PLR0917 as Market has it
        self,
        symbol: str,
        interval: str,
        start: int | None,
        end: int | None,
        limit: int,
        now: int,
    ) -> list[Row]:
        """Rows with start <= open_time <= end, as seen at `now`."""
        step = grid.millis(interval)
        lowest = max(LISTED, 0 if start is None else start)
        first = grid.ceil(lowest, interval)
        last = grid.floor(now if end is None else min(now, end), interval)
        rows: list[Row] = []
        reach = (limit - 1) * step
        while first <= last and len(rows) < limit:
            if start is None:
                rows = (self.final(symbol, interval, max(first, last - reach), last) + rows)[
                    -limit:
                ]
                last -= reach + step
            else:
                rows += self.final(symbol, interval, first, min(last, first + reach))
                first += reach + step
            reach = min(2 * reach + step, _LONGEST_REACH * step)  # to be across an outage soon
        rows = rows[:limit]
        return [
            seen
            for row in rows
            if (seen := row if row[CLOSE_TIME] < now else self._forming(symbol, interval, row, now))
        ]

    def final(self, symbol: str, interval: str, first: int, last: int) -> list[Row]:
        """Rows with first <= open_time <= last as they will be once they have closed."""
        step = grid.millis(interval)
        first, last = grid.ceil(first, interval), grid.floor(last, interval)
        if first > last:
            return []
        base = next(name for name in _BASES if step % grid.millis(name) == 0)
        part = grid.millis(base)
        bars = self._base(self._symbols[symbol], base, first // part, (last + step) // part - 1)
        parts, origin = step // part, grid.origin(interval)
        if parts == 1:
            return _rows(bars, step, 0, bars.at, part)
        whole, ends = finer.merge(bars, parts, origin // part)
        return _rows(whole, step, origin, ends, part)

    def held(self, symbol: str, first: int, last: int) -> bool:
        """Whether there was a market in any hour from that of `first` to that of `last`."""
        bars = self._base(self._symbols[symbol], "1h", first // HOUR, last // HOUR)
        return len(bars.at) > 0

    def _forming(self, symbol: str, interval: str, row: Row, now: int) -> Row | None:
        step = grid.millis(interval)
        shorter = [_Series(self, symbol, name) for name in _BASES if grid.millis(name) < step]
        return as_seen(row, step, shorter, now)

    def _base(self, symbol: Symbol, base: str, first: int, last: int) -> Bars:
        """Bars of a base interval with first <= index <= last."""
        if base == "1h":
            blocks = range(first // BLOCK, last // BLOCK + 1)
            parts = [self._block(symbol, block) for block in blocks]
            bars = Bars(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        else:
            longer, level = ("1h", "minute") if base == "1m" else ("1m", "second")
            whole = self._base(symbol, longer, first // finer.PARTS, last // finer.PARTS)
            bars = finer.split(whole, symbol.seed, level, symbol.tick)
        low, high = np.searchsorted(bars.at, [first, last + 1])
        return bars.chosen(slice(int(low), int(high)))

    @staticmethod
    def _hours(symbol: Symbol, block: int) -> Bars:
        bars = hours(symbol, block)
        minutes = finer.split(bars, symbol.seed, "minute", symbol.tick)
        firsts = np.searchsorted(minutes.at, bars.at * finer.PARTS)
        return bars._replace(
            quote=np.add.reduceat(minutes.quote, firsts),
            taker_quote=np.add.reduceat(minutes.taker_quote, firsts),
        )


def _symbol(seed: int, name: str) -> Symbol:
    own = key(seed, name)
    spread = uniform(own, "symbol", np.arange(2, dtype=np.int64))
    anchor = _ANCHORS.get(name, 10 ** float(spread[0] * 4 - 1)) * UNIT
    tick = max(1, 10 ** (floor(log10(anchor)) - 5))
    turnover = 10 ** (6 + 1.5 * float(spread[1]))
    return Symbol(own, key(seed, "market"), anchor, tick, turnover)


def _rows(bars: Bars, step: int, origin: int, ends: Ints, part: int) -> list[Row]:
    opened = bars.at * step + origin
    natural = opened + step
    stopped = ends * part + bars.live * (part // finer.PARTS)
    early = (bars.live < finer.PARTS) & (ends * part + part == natural)
    closed = np.where(early, stopped, natural) - 1
    text = [
        [f"{value // UNIT}.{value % UNIT:08d}" for value in column.tolist()]
        for column in (
            *(bars.open, bars.high, bars.low, bars.close, bars.volume),
            *(bars.quote, bars.taker, bars.taker_quote),
        )
    ]
    columns = (
        *(opened.tolist(), *text[:5], closed.tolist(), text[5]),
        *(bars.trades.tolist(), *text[6:], ["0"] * len(opened)),
    )
    return list(zip(*columns, strict=True))
