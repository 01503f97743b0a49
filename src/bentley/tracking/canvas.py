"""The common ground of all pictures: one size, UTC dates, colours that colour-blind eyes part."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bentley.tracking.records import clip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

WIDTH, HEIGHT, DPI = 1200, 700, 100
DAY_MS = 86_400_000
LONGEST_LINE = 400
LEFT, RIGHT = 0.075, 0.98

# the palette of Okabe and Ito (2008)
BLUE = "#0072B2"
VERMILLION = "#D55E00"
ORANGE = "#E69F00"
INK = "#222222"
GREY = "#6B6B6B"
PALE = "#E8E8E8"


def blank() -> Figure:
    """Return an empty figure of WIDTH x HEIGHT pixels that no global state knows of."""
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def panels(figure: Figure, heights: Sequence[float]) -> list[Axes]:
    """Stack panels of the given relative heights over one time axis, room for headings above."""
    grid = figure.add_gridspec(
        len(heights),
        1,
        height_ratios=heights,
        left=LEFT,
        right=RIGHT,
        top=0.87,
        bottom=0.08,
        hspace=0.09,
    )
    axes: list[Axes] = []
    for row in range(len(heights)):
        panel = figure.add_subplot(grid[row, 0], sharex=axes[0] if axes else None)
        panel.grid(visible=True, color=PALE, linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["left", "bottom"]].set_color(GREY)
        panel.tick_params(colors=INK, labelsize=10)
        panel.tick_params(labelbottom=row == len(heights) - 1)
        axes.append(panel)
    return axes


def headings(figure: Figure, title: str, subtitle: str) -> None:
    """Write a title and, below it, a line of facts."""
    figure.text(LEFT, 0.945, title, fontsize=17, fontweight="bold", color=INK)
    facts = figure.text(LEFT, 0.903, "", fontsize=10.5, color=GREY)
    fit(facts, subtitle, (RIGHT - LEFT) * WIDTH)


def fit(text: Text, line: str, width: float) -> None:
    """Write one line within `width` pixels: up to 30 % smaller where it must be, then cut."""
    line = " ".join(line.split())[:LONGEST_LINE]
    text.set_parse_math(False)  # a dollar is a dollar
    text.set_text(line)

    def room() -> float:
        return width / max(text.get_window_extent().width, 1.0)

    size = float(text.get_fontsize())
    smallest = size * 0.7
    while room() < 1 and size > smallest:
        size = max(size - 0.5, smallest)
        text.set_fontsize(size)
    while room() < 1:
        line = clip(line, min(int(len(line) * room()), len(line) - 1), "...")
        text.set_text(line)


def utc_axis(panel: Axes, start_ms: int, end_ms: int) -> None:
    """Make the x axis a UTC time axis from `start_ms` to `end_ms`, never of zero width."""
    room = max((end_ms - start_ms) * 0.01, 60_000)
    panel.set_xlim((start_ms - room) / DAY_MS, (end_ms + room) / DAY_MS)
    locator = AutoDateLocator(tz=UTC, minticks=4, maxticks=10)  # type: ignore[no-untyped-call]
    panel.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator, tz=UTC)  # type: ignore[no-untyped-call]
    panel.xaxis.set_major_formatter(formatter)
    panel.set_xlabel("UTC", fontsize=10, color=GREY, loc="left")  # the year stands at the right


def plain_numbers(panel: Axes) -> None:
    """Write the y axis in full digits with thousands parted: no powers, no hidden offset."""
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def minute(millis: int) -> str:
    """Write UTC milliseconds as `2024-01-31 12:00`."""
    return datetime.fromtimestamp(millis // 1000, tz=UTC).strftime("%Y-%m-%d %H:%M")


def png(figure: Figure) -> bytes:
    """Return the figure as PNG bytes, the same for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
