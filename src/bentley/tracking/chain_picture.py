"""The master's report at a glance: the stages as boxes in a row, the checks below them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from bentley.tracking import canvas
from bentley.tracking.canvas import BLUE, GREY, HEIGHT, INK, ORANGE, VERMILLION, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GOOD = frozenset({"success", "held", "done", "finished", "committed", "ok"})
BAD = frozenset({"failed", "stalled", "error", "missing", "upstream_failed", "timed_out"})
_SYMBOL = {BLUE: "\N{CHECK MARK}", VERMILLION: "\N{BALLOT X}", ORANGE: "\N{HORIZONTAL ELLIPSIS}"}
_MARGIN = 40
_BOX_TOP, _BOX_HEIGHT = 130, 170
_CHECKS_TOP, _CHECK_HEIGHT = 385, 27
_ROWS = (HEIGHT - _CHECKS_TOP - 20) // _CHECK_HEIGHT


class Stage(NamedTuple):
    """A stage as the master saw it; rows and seconds are None where nothing was measured."""

    name: str
    state: str
    rows: int | None
    seconds: float | None


class Check(NamedTuple):
    """What the master verified, whether it held, and what it saw."""

    name: str
    held: bool
    detail: str = ""


def chain(
    stages: Sequence[tuple[str, str, int | None, float | None]],
    checks: Sequence[tuple[str, bool, str]] = (),
    *,
    title: str = "Pipeline run",
    subtitle: str = "",
) -> bytes:
    """Draw stages (name, state, rows, seconds) in their order over checks (name, held, detail).

    Failed checks stand first; held ones that find no room are counted.
    """
    figure = canvas.blank()
    paper = figure.add_axes((0, 0, 1, 1))
    paper.set_xlim(0, WIDTH)
    paper.set_ylim(HEIGHT, 0)
    paper.axis("off")
    _fitted(paper, (_MARGIN, 50), title, WIDTH - 2 * _MARGIN, size=17, weight="bold")
    _fitted(paper, (_MARGIN, 84), subtitle, WIDTH - 2 * _MARGIN, size=10.5, color=GREY)
    _draw_stages(paper, [Stage(*stage) for stage in stages])
    _draw_checks(paper, [Check(*check) for check in checks])
    return canvas.png(figure)


def _draw_stages(paper: Axes, stages: Sequence[Stage]) -> None:
    if not stages:
        return
    between = 36
    width = (WIDTH - 2 * _MARGIN - between * (len(stages) - 1)) / len(stages)
    for index, stage in enumerate(stages):
        left = _MARGIN + index * (width + between)
        colour = _colour(stage.state)
        paper.add_patch(
            FancyBboxPatch(
                (left, _BOX_TOP),
                width,
                _BOX_HEIGHT,
                boxstyle="round,pad=0,rounding_size=10",
                facecolor="white",
                edgecolor=colour,
                linewidth=2.5,
            )
        )
        middle, room = left + width / 2, width - 20
        lines = (
            (34, stage.name, 14, "bold", INK),
            (72, f"{_SYMBOL[colour]} {stage.state}", 13, "bold", colour),
            (110, "rows not counted" if stage.rows is None else f"{stage.rows:,} rows", 13, "normal", INK),
            (142, "-" if stage.seconds is None else duration(stage.seconds), 12, "normal", GREY),
        )  # fmt: skip
        for down, text, size, weight, ink in lines:
            at = (middle, _BOX_TOP + down)
            _fitted(paper, at, text, room, size=size, weight=weight, color=ink, ha="center")
        if index:
            y = _BOX_TOP + _BOX_HEIGHT / 2
            arrow = FancyArrowPatch(
                (left - between + 5, y),
                (left - 5, y),
                arrowstyle="-|>",
                mutation_scale=18,
                color=GREY,
                linewidth=1.8,
            )
            paper.add_patch(arrow)


def _draw_checks(paper: Axes, checks: Sequence[Check]) -> None:
    failed = [check for check in checks if not check.held]
    held = [check for check in checks if check.held]
    head = "no checks made" if not checks else f"{len(held)} of {len(checks)} checks held"
    _fitted(
        paper,
        (_MARGIN, _CHECKS_TOP - 34),
        head,
        WIDTH - 2 * _MARGIN,
        size=14,
        weight="bold",
        color=VERMILLION if failed else INK,
    )
    columns = 1 if len(checks) <= _ROWS else 2
    room = _ROWS * columns
    shown = [*failed, *held]
    left_out = len(shown) - room + 1 if len(shown) > room else 0
    if left_out:
        shown = shown[: room - 1]
    width = (WIDTH - 2 * _MARGIN) / columns
    for index, check in enumerate(shown):
        colour = BLUE if check.held else VERMILLION
        x = _MARGIN + index // _ROWS * width
        y = _CHECKS_TOP + index % _ROWS * _CHECK_HEIGHT
        paper.text(x, y, _SYMBOL[colour], color=colour, fontsize=13, va="center")
        text = f"{check.name}: {check.detail}" if check.detail else check.name
        _fitted(paper, (x + 24, y), text, width - 44, size=11.5)
    if left_out:
        hidden = [*failed, *held][len(shown) :]
        wrong = sum(not check.held for check in hidden)
        text = f"and {len(hidden)} more" + (f", {wrong} of them failed" if wrong else " that held")
        at = (_MARGIN + (columns - 1) * width + 24, _CHECKS_TOP + (_ROWS - 1) * _CHECK_HEIGHT)
        _fitted(paper, at, text, width - 44, size=11.5, color=GREY)


def duration(seconds: float) -> str:
    """Write seconds as `0.4 s`, `12 s`, `3 min 20 s` or `2 h 5 min`."""
    if seconds < 10:  # noqa: PLR2004 - below it a tenth matters
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _colour(state: str) -> str:
    word = state.lower()
    return BLUE if word in GOOD else VERMILLION if word in BAD else ORANGE


def _fitted(
    paper: Axes,
    at: tuple[float, float],
    text: str,
    width: float,
    *,
    size: float,
    weight: str = "normal",
    color: str = INK,
    ha: str = "left",
) -> None:
    drawn = paper.text(*at, "", fontsize=size, fontweight=weight, color=color, ha=ha, va="center")
    canvas.fit(drawn, text, width)
