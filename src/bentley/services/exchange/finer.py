"""Turns generated bars into shorter or longer ones, so that all intervals agree exactly."""

from __future__ import annotations

import numpy as np

from bentley.services.exchange.hourly import UNIT, Bars
from bentley.services.exchange.noise import Floats, Ints, uniform

PARTS = 60
"""An hour has 60 minutes and a minute 60 seconds."""

_LEAST_TRADES = {"minute": PARTS, "second": 1}
"""Trades that every part has: so each second of each minute has one."""


def split(bars: Bars, seed: int, level: str, tick: int) -> Bars:
    """Part each bar in 60: opens and closes join, extremes are reached, amounts add up exactly.

    `level` names what the parts are (minute, second). A bar that closed early has only as
    many parts as it has `live`. A minute's quote volume follows from its own prices, and an
    hour's is their sum; a second's is a share of its minute's, so that its mean price may lie
    a little outside its high and low.
    """
    slots = np.arange(PARTS, dtype=np.int64)
    index = bars.at[:, None] * PARTS + slots
    alive = slots < bars.live[:, None]
    path = _path(bars, seed, level, index, tick)
    opened, closed = path[:, :-1], path[:, 1:]
    wick = uniform(seed, f"{level} wick", index)
    span = (bars.high - bars.low)[:, None] * wick**2 * 0.1
    reach = (span / tick).astype(np.int64) * tick
    high = np.minimum(np.maximum(opened, closed) + reach, bars.high[:, None])
    low = np.maximum(np.minimum(opened, closed) - reach, bars.low[:, None])
    rows = np.arange(len(bars.at))
    high[rows, _pick(seed, f"{level} top", bars)] = bars.high
    low[rows, _pick(seed, f"{level} bottom", bars)] = bars.low
    least = _LEAST_TRADES[level] * alive * (bars.trades > 0)[:, None]
    weights = (0.2 + uniform(seed, f"{level} trades", index)) * alive
    trades = _shared(bars.trades - least.sum(axis=1), weights) + least
    sizes = trades * (0.5 + uniform(seed, f"{level} size", index))
    volume, taker = _shared(bars.volume, sizes), _shared(bars.taker, sizes)
    if level == "minute":
        mean = (opened + high + low + closed) / (4 * UNIT)
        quote, taker_quote = (np.rint(each * mean).astype(np.int64) for each in (volume, taker))
    else:
        quote, taker_quote = _shared(bars.quote, sizes), _shared(bars.taker_quote, sizes)
    columns = (
        *(index, opened, high, low, closed),
        *(volume, quote, trades, taker, taker_quote),
        np.full(index.shape, PARTS, dtype=np.int64),
    )
    return Bars(*(column[alive] for column in columns))


def merge(bars: Bars, parts: int, first: int) -> tuple[Bars, Ints]:
    """Join `parts` slots to one bar each, counted from slot `first`, as far as there are bars.

    Returns the bars and the slot of each one's last part. `live` is that last part's.
    """
    group = (bars.at - first) // parts
    starts = np.flatnonzero(np.diff(group, prepend=group[0] - 1)) if len(group) else group
    if not len(starts):
        return bars, bars.at
    ends = np.append(starts[1:], len(group)) - 1
    whole = Bars(
        group[starts],
        bars.open[starts],
        np.maximum.reduceat(bars.high, starts),
        np.minimum.reduceat(bars.low, starts),
        bars.close[ends],
        np.add.reduceat(bars.volume, starts),
        np.add.reduceat(bars.quote, starts),
        np.add.reduceat(bars.trades, starts),
        np.add.reduceat(bars.taker, starts),
        np.add.reduceat(bars.taker_quote, starts),
        bars.live[ends],
    )
    return whole, bars.at[ends]


def _path(bars: Bars, seed: int, level: str, index: Ints, tick: int) -> Ints:
    """Prices at each part's start and at the end: from open to close, within low and high."""
    count = len(bars.at)
    live = bars.live[:, None].astype(np.float64)
    steps = uniform(seed, f"{level} step", index) - 0.5
    walk = np.concatenate([np.zeros((count, 1)), np.cumsum(steps, axis=1)], axis=1)
    part = np.minimum(np.arange(PARTS + 1) / live, 1.0)
    final = np.take_along_axis(walk, bars.live[:, None], axis=1)
    bridge = walk - part * final
    drift = bars.open[:, None] + part * (bars.close - bars.open)[:, None]
    span = (bars.high - bars.low)[:, None] / 4
    path = np.rint((drift + bridge * span) / tick).astype(np.int64) * tick
    path = np.clip(path, bars.low[:, None], bars.high[:, None])
    path[:, 0] = bars.open
    ended = np.arange(PARTS + 1) >= bars.live[:, None]
    return np.where(ended, bars.close[:, None], path)


def _pick(seed: int, stream: str, bars: Bars) -> Ints:
    """One living part of each bar."""
    return (uniform(seed, stream, bars.at) * bars.live).astype(np.int64)


def _shared(totals: Ints, weights: Floats) -> Ints:
    """Whole numbers in the ratio of `weights` that sum to `totals`, row by row."""
    running = np.cumsum(weights, axis=1)
    whole = running[:, -1:]
    part = np.divide(running, whole, out=np.zeros_like(running), where=whole > 0)
    marks = np.floor(totals[:, None] * part).astype(np.int64)
    return np.diff(marks, axis=1, prepend=0)
