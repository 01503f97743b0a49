"""What is stored, as a calendar: a row a series, a cell a day, coloured by the share that is there."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from bentley.tracking import canvas
from bentley.tracking.canvas import BLUE, DAY_MS, INK, PALE, VERMILLION

_MAX_CELLS = 1_000
_WHOLE = 0.9995


def calendar(days: Mapping[str, Mapping[int, float]], *, origin: str) -> bytes:
    """Draw the share of expected bars that is stored, 0 to 1, as a PNG.

    `days` holds, for each series by its label, the share by day (in UTC days since 1970). What
    lies outside a series' own first and last day is left empty. Beyond 1,000 days a cell
    stands for several of them, and shows the lowest share among them.
    """
    figure = canvas.blank()
    found = [day for shares in days.values() for day in shares]
    if not found:
        canvas.headings(figure, "Stored bars by day", f"nothing is stored (origin: {origin})")
        return canvas.png(figure)
    first, last = min(found), max(found)
    each = -(-(last - first + 1) // _MAX_CELLS)
    grid = np.full((len(days), -(-(last - first + 1) // each)), np.nan)
    for row, shares in enumerate(days.values()):
        for day, share in shares.items():
            at = row, (day - first) // each
            grid[at] = share if np.isnan(grid[at]) else min(grid[at], share)
    axes = figure.add_axes((0.15, 0.1, 0.83, 0.75))
    colours = LinearSegmentedColormap.from_list("share", [VERMILLION, PALE]).with_extremes(
        over=BLUE
    )
    axes.pcolormesh(
        first + each * np.arange(grid.shape[1] + 1),  # days, as matplotlib's dates are
        np.arange(len(days) + 1),
        np.ma.masked_invalid(grid),
        cmap=colours,
        vmin=0,
        vmax=_WHOLE,  # beyond: whole
    )
    axes.set_yticks(np.arange(len(days)) + 0.5, labels=list(days))
    axes.invert_yaxis()
    axes.tick_params(colors=INK, labelsize=10, length=0)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    for row in range(1, len(days)):
        axes.axhline(row, color="white", linewidth=3)
    canvas.utc_axis(axes, first * DAY_MS, (last + 1) * DAY_MS)
    whole = int(np.nansum(grid >= _WHOLE))
    cells = int(np.count_nonzero(~np.isnan(grid)))
    unit = "days" if each == 1 else f"spans of {each} days"
    facts = f"blue is whole, red to grey has missing bars: {whole} of {cells} {unit} are whole"
    canvas.headings(figure, "Stored bars by day", f"{facts} (origin: {origin})")
    return canvas.png(figure)
