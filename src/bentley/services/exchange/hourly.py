"""The hours of a generated market, in blocks that are always made whole.

A block is 40 days. Its log price is a bridge between two anchors that depend on the block's
number alone, so every block can be made without those before it, and meets its neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bentley.services.exchange.noise import Floats, Ints, normal, uniform

HOUR = 3_600_000
BLOCK = 960
"""Hours in a block."""

UNIT = 10**8
"""Prices and amounts are integers of 10^-8: exact, and written with eight decimals."""

_SLOT = 240
_VOLATILITY = 0.006
_WAVE = 16
_MIN_TRADES = 8_000
_MINUTES = 60


class Bars(NamedTuple):
    """Bars of one interval in order: `at` counts intervals from the epoch's start.

    Prices and amounts in units of 10^-8. `live` says in how many of the interval's parts
    (minutes of an hour, seconds of a minute) there was trading: fewer close it early.
    """

    at: Ints
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    volume: Ints
    quote: Ints
    trades: Ints
    taker: Ints
    taker_quote: Ints
    live: Ints

    def chosen(self, which: npt.NDArray[np.bool_] | slice) -> Bars:
        """The bars that a mask or a slice picks."""
        return Bars(*(column[which] for column in self))


class Symbol(NamedTuple):
    """What sets one symbol's bars apart: prices in units of 10^-8, turnover in quote an hour."""

    seed: int
    market_seed: int
    anchor: float
    tick: int
    turnover: float


def hours(symbol: Symbol, block: int) -> Bars:
    """Every hour of `block` in which there was a market; 40 days from `block` * BLOCK hours.

    Quote volumes are left at zero: they follow from the minutes' prices.
    """
    index = block * BLOCK + np.arange(BLOCK, dtype=np.int64)
    mood = 0.4 + 1.8 * uniform(symbol.seed, "mood", index // 24) ** 2
    prices = _prices(symbol, block, index, mood)
    opened, closed = prices[:-1].copy(), prices[1:].copy()
    still = _still(symbol, block)
    for hour in np.flatnonzero(still):
        opened[hour] = closed[hour] = closed[hour - 1]
    reach = _VOLATILITY * mood * ~still
    up = uniform(symbol.seed, "up", index) ** 2 * reach
    down = uniform(symbol.seed, "down", index) ** 2 * reach
    top, bottom = np.maximum(opened, closed), np.minimum(opened, closed)
    high = top + _ticks(top * up, symbol.tick)
    low = np.maximum(bottom - _ticks(bottom * down, symbol.tick), symbol.tick)
    turnover = symbol.turnover * mood * (0.3 + 1.4 * uniform(symbol.seed, "turnover", index))
    turnover[still] = 0
    mean = (opened + high + low + closed) / (4 * UNIT)
    volume = np.rint(turnover / mean * UNIT).astype(np.int64)
    trades = _MIN_TRADES + np.rint(turnover / symbol.turnover * 4_000).astype(np.int64)
    trades[still] = 0
    share = 0.35 + 0.3 * uniform(symbol.seed, "taker", index)
    taker = np.floor(volume * share).astype(np.int64)
    none = np.zeros(BLOCK, dtype=np.int64)
    out, live = _halts(symbol.market_seed, block)
    bars = Bars(index, opened, high, low, closed, volume, none, trades, taker, none, live)
    return bars.chosen(~out)


def _prices(symbol: Symbol, block: int, index: Ints, mood: Floats) -> Ints:
    """The price at each hour's start and at the block's end, in units of 10^-8."""
    ends = np.array([block, block + 1], dtype=np.int64)
    first, last = _anchors(symbol.seed, ends)
    steps = np.cumsum(normal(symbol.seed, "step", index) * mood * _VOLATILITY)
    path = np.concatenate([[0.0], steps])
    part = np.arange(BLOCK + 1) / BLOCK
    log = first + path - part * (path[-1] - (last - first))
    log[-1] = last
    ticks = np.rint(symbol.anchor * np.exp(log) / symbol.tick).astype(np.int64)
    prices: Ints = np.maximum(ticks, 1) * symbol.tick
    return prices


def _anchors(seed: int, blocks: Ints) -> Floats:
    """Log price against the symbol's anchor where a block begins: slow waves and some noise."""
    wave, part = blocks // _WAVE, (blocks % _WAVE) / _WAVE
    left, right = normal(seed, "wave", wave), normal(seed, "wave", wave + 1)
    return (left + (right - left) * part) * 0.4 + normal(seed, "anchor", blocks) * 0.1


def _ticks(amount: Floats, tick: int) -> Ints:
    ticks: Ints = np.ceil(amount / tick).astype(np.int64)
    ticks *= tick
    return ticks


def _places(seed: int, stream: str, block: int, share: float) -> list[tuple[int, float]]:
    """For each ten days of the block, with chance `share`, an hour and a number in [0, 1)."""
    slots = block * (BLOCK // _SLOT) + np.arange(BLOCK // _SLOT, dtype=np.int64)
    chance, place, extra = (uniform(seed, f"{stream} {part}", slots) for part in range(3))
    return [
        (slot * _SLOT + 2 + int(place[slot] * (_SLOT - 12)), float(extra[slot]))
        for slot in range(len(slots))
        if chance[slot] < share
    ]


def _still(symbol: Symbol, block: int) -> npt.NDArray[np.bool_]:
    """The hours in which nothing was traded: one or two together."""
    still = np.zeros(BLOCK, dtype=np.bool_)
    for hour, extra in _places(symbol.seed, "still", block, 0.6):
        still[hour : hour + 1 + int(extra * 2)] = True
    return still


def _halts(seed: int, block: int) -> tuple[npt.NDArray[np.bool_], Ints]:
    """The hours without a market, for all symbols at once, and each hour's minutes of trading."""
    out = np.zeros(BLOCK, dtype=np.bool_)
    live = np.full(BLOCK, _MINUTES, dtype=np.int64)
    for hour, extra in _places(seed, "early", block, 0.4):
        live[hour] = 5 + int(extra * 50)
    for hour, extra in _places(seed, "outage", block, 0.6):
        out[hour : hour + 1 + int(extra * extra * 8)] = True
        if extra > 0.5:  # noqa: PLR2004 every other outage begins within an hour
            live[hour - 1] = 5 + int(extra * 97) % 50
    return out, live
