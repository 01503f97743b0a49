"""The pictures beside the figures: price with volume and gaps, freshness and rejects over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from matplotlib.ticker import EngFormatter, MaxNLocator

from bentley.domain import intervals
from bentley.domain.words import counted
from bentley.tracking import canvas
from bentley.tracking.canvas import BLUE, DAY_MS, GREY, ORANGE, VERMILLION
from bentley.tracking.chain_picture import chain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

__all__ = ["chain", "freshness_rejects", "price_volume"]

MAX_CANDLES = 150
MAX_BARS = 5000
BUCKETS = 1500
_COLUMNS = ("open_time", "open", "high", "low", "close", "volume")


def price_volume(
    frame: pl.DataFrame,
    gaps: Sequence[tuple[int, int]],
    *,
    symbol: str,
    interval: str,
    origin: str,
) -> bytes:
    """Draw bars over their volume as a PNG, gaps shaded, times in UTC.

    `frame` holds open_time in milliseconds and open, high, low, close, volume as floats; `gaps`
    are (start, end) in milliseconds, end exclusive. Up to 150 bars are candles; above 5000,
    neighbours are drawn as one bar that keeps the lowest low and the highest high.
    """
    step = intervals.millis(interval)
    bars = frame.select(_COLUMNS).sort("open_time")
    figure = canvas.blank()
    price, volume = canvas.panels(figure, (3, 1))
    price.set_ylabel("price", fontsize=10, color=GREY)
    if bars.is_empty() and not gaps:
        canvas.headings(figure, f"{symbol} {interval}", f"no bars (origin: {origin})")
        return canvas.png(figure)
    start, end = _span(bars, gaps, step)
    _shade(gaps, (price, volume))
    drawn, factor = bucketed(bars, step)
    if drawn.height:
        if drawn.height <= MAX_CANDLES:
            _candles(price, volume, drawn, step * factor)
        else:
            _lines(price, volume, drawn, step * factor)
    canvas.plain_numbers(price)
    each = interval if factor == 1 else f"{factor} x {interval}"
    volume.set_ylabel(f"volume per {each}", fontsize=10, color=GREY)
    volume.yaxis.set_major_formatter(EngFormatter(sep=""))
    volume.yaxis.set_major_locator(MaxNLocator(4))
    volume.set_ylim(bottom=0)
    canvas.utc_axis(volume, start, end)
    handles, labels = price.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="upper right",
        bbox_to_anchor=(canvas.RIGHT, 0.99),
        ncols=4,
        frameon=False,
        fontsize=10,
    )
    facts = [
        f"{canvas.minute(start)} to {canvas.minute(end)} UTC",
        counted(bars.height, "bar") + (f" (drawn as {factor} in one)" if factor > 1 else ""),
        counted(len(gaps), "gap"),
        f"origin: {origin}",
    ]
    canvas.headings(figure, f"{symbol} {interval}", "   |   ".join(facts))
    return canvas.png(figure)


def freshness_rejects(history: pl.DataFrame, *, bound_hours: float | None = None) -> bytes:
    """Draw, batch by batch, the data's age, the rows written and the rows rejected as a PNG.

    `history` holds ended_ms (UTC milliseconds), freshness_hours, rows_rejected, rows_written,
    null where a batch has no such figure; `bound_hours` is drawn as a line where given.
    """
    rows = history.sort("ended_ms")
    figure = canvas.blank()
    fresh, written, rejected = canvas.panels(figure, (2, 1, 1))
    times, hours = _known(rows, "freshness_hours")
    fresh.plot(times, hours, color=BLUE, linewidth=1.5, marker="o", markersize=4, clip_on=False)
    if bound_hours is not None:
        fresh.axhline(bound_hours, color=VERMILLION, linestyle="--", linewidth=1.2)
        fresh.annotate(
            f"bound {bound_hours:g} h",
            (1.0, bound_hours),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 4),
            textcoords="offset points",
            ha="right",
            color=VERMILLION,
            fontsize=10,
        )
    fresh.set_ylim(0, _top(hours, bound_hours))
    fresh.set_ylabel("age of newest bar (h)", fontsize=10, color=GREY)
    canvas.plain_numbers(fresh)
    _counts(written, rows, "rows_written", BLUE)
    _counts(rejected, rows, "rows_rejected", VERMILLION)
    title = "Freshness and rejects by batch"
    if rows.is_empty():
        canvas.headings(figure, title, "no batches yet")
        return canvas.png(figure)
    first, last = int(rows["ended_ms"][0]), int(rows["ended_ms"][-1])
    canvas.utc_axis(rejected, first, last)
    facts = (
        f"{counted(rows.height, 'batch', 'batches')}, "
        f"{canvas.minute(first)} to {canvas.minute(last)} UTC   |   "
        f"{rows['rows_written'].sum():,} rows written   |   "
        f"{rows['rows_rejected'].sum():,} rejected"
    )
    canvas.headings(figure, title, facts)
    return canvas.png(figure)


def bucketed(bars: pl.DataFrame, step: int) -> tuple[pl.DataFrame, int]:
    """Join neighbours where there are more than MAX_BARS; return the bars and how many make one.

    Buckets lie on the time grid, so a gap stays a gap; each keeps its first open, highest high,
    lowest low, last close and the sum of its volume.
    """
    if bars.height <= MAX_BARS:
        return bars, 1
    span = int(bars["open_time"][-1]) - int(bars["open_time"][0]) + step
    factor = -(-span // (step * BUCKETS))
    width = step * factor
    first = int(bars["open_time"][0])
    joined = bars.group_by(
        ((pl.col("open_time") - first) // width * width + first).alias("bucket"),
        maintain_order=True,
    ).agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("volume").sum(),
    )
    return joined.rename({"bucket": "open_time"}), factor


def _span(bars: pl.DataFrame, gaps: Sequence[tuple[int, int]], step: int) -> tuple[int, int]:
    times = [int(bars["open_time"][0]), int(bars["open_time"][-1]) + step] if bars.height else []
    edges = [edge for gap in gaps for edge in gap]
    return min(times + edges), max(times + edges)


def _shade(gaps: Sequence[tuple[int, int]], panels: Sequence[Axes]) -> None:
    if not gaps:
        return
    spans = [(start / DAY_MS, (end - start) / DAY_MS) for start, end in gaps]
    for index, panel in enumerate(panels):
        panel.broken_barh(
            spans,
            (0, 1),
            transform=panel.get_xaxis_transform(),
            facecolor=(*_rgb(ORANGE), 0.30),
            edgecolor=ORANGE,
            linewidth=1.0,  # so that an hour in three years is still seen
            zorder=0.5,
            label="gap" if index == 0 else None,
        )


def _rgb(colour: str) -> tuple[float, float, float]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))  # type: ignore[return-value]


def _candles(price: Axes, volume: Axes, bars: pl.DataFrame, step: int) -> None:
    width = step / DAY_MS
    for name, colour, chosen in (
        ("close above open", BLUE, bars.filter(pl.col("close") >= pl.col("open"))),
        ("close below open", VERMILLION, bars.filter(pl.col("close") < pl.col("open"))),
    ):
        if chosen.is_empty():
            continue
        middle = chosen["open_time"].to_numpy() / DAY_MS + width / 2
        low, high = chosen["low"].to_numpy(), chosen["high"].to_numpy()
        opened, closed = chosen["open"].to_numpy(), chosen["close"].to_numpy()
        price.vlines(middle, low, high, color=colour, linewidth=1.0)
        bottom = np.minimum(opened, closed)
        height = np.maximum(opened, closed) - bottom
        price.bar(
            middle,
            height,
            width * 0.7,
            bottom=bottom,
            color=colour,
            edgecolor=colour,
            linewidth=1.0,  # so that an unmoved price is a dash and not nothing
            label=name,
        )
        volume.bar(middle, chosen["volume"].to_numpy(), width * 0.7, color=colour)
    low, high = bars["low"].to_numpy(), bars["high"].to_numpy()
    room = (high.max() - low.min()) * 0.05 or abs(high.max()) * 0.01
    price.set_ylim(low.min() - room, high.max() + room)  # a bar's own limits would start at zero


def _lines(price: Axes, volume: Axes, bars: pl.DataFrame, step: int) -> None:
    times = bars["open_time"].to_numpy()
    breaks = np.flatnonzero(np.diff(times) > step) + 1
    ends = (times + step) / DAY_MS
    edges = np.append(np.insert(times / DAY_MS, breaks, ends[breaks - 1]), ends[-1])

    def broken(name: str) -> NDArray[Any]:
        return np.insert(bars[name].to_numpy().astype(float), breaks, np.nan)

    low, high = broken("low"), broken("high")
    price.stairs(
        high,
        edges,
        baseline=low,
        fill=True,
        color=BLUE,
        alpha=0.3,
        linewidth=0,
        label="low to high",
    )
    price.plot(edges[1:], broken("close"), color=BLUE, linewidth=1.0, label="close")
    volume.stairs(broken("volume"), edges, fill=True, color=BLUE, alpha=0.8, linewidth=0)


def _known(rows: pl.DataFrame, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    known = rows.drop_nulls(name)
    return known["ended_ms"].to_numpy() / DAY_MS, known[name].cast(pl.Float64).to_numpy()


def _counts(panel: Axes, rows: pl.DataFrame, name: str, colour: str) -> None:
    times, values = _known(rows, name)
    panel.vlines(times, 0, values, color=colour, linewidth=1.5)
    panel.plot(
        times, values, linestyle="none", marker="o", markersize=3, color=colour, clip_on=False
    )
    panel.set_ylim(0, max(_top(values, None), 1))
    panel.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    panel.yaxis.set_major_formatter(EngFormatter(sep=""))
    panel.set_ylabel(name.replace("_", " "), fontsize=10, color=GREY)


def _top(values: NDArray[Any], bound: float | None) -> float:
    finite = values[np.isfinite(values)]
    highest = max([float(finite.max()) if len(finite) else 0.0, bound or 0.0])
    return highest * 1.15 or 1.0
