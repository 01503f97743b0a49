"""What a sync has to read: per series the tail, the head, or all of it; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bentley.domain import intervals

Series = tuple[str, str]
"""Symbol and interval."""

_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Mark:
    """How far a series has been read: whole from `since` up to `cursor`, both open times."""

    since: int
    cursor: int


@dataclass(frozen=True)
class Reading:
    """One pass of the connector: where each series starts, and where all of them end, exclusive.

    The end never lies beyond the exchange's clock as it was read before: a bar that opens, or
    closes, only during the pass would be judged by a clock older than itself.
    A `tail` moves the cursor on; a head lies before what is stored and only lowers `since`.
    """

    starts: Mapping[Series, int]
    end: int
    tail: bool


def plan(
    wanted: Sequence[Series],
    marks: Mapping[Series, Mark],
    *,
    since: int | None,
    until: int | None,
    now: int,
    history_days: int,
    lookback_bars: int,
    again: bool = False,
) -> list[Reading]:
    """Split the wanted series into as few passes as can serve them.

    `until` is exclusive. Series that are already read beyond it have no tail to read. A tail
    starts `lookback_bars` before the cursor, but never before where the series was begun. With
    `again`, all from `since` on is read once more, for corrections that came later than that.
    """
    first = since if since is not None else now - history_days * _DAY_MS
    end = now + 1 if until is None else min(until, now + 1)
    tails: dict[Series, int] = {}
    fresh: dict[Series, int] = {}
    heads: dict[int, dict[Series, int]] = {}
    for series in wanted:
        start = intervals.ceil(first, series[1])
        mark = marks.get(series)
        if mark is None:
            if until is None or start < until:
                fresh[series] = start
            continue
        if until is None or mark.cursor < until:
            back = lookback_bars * intervals.millis(series[1])
            tails[series] = max(mark.since, mark.cursor - back)
        if since is not None and (again or start < mark.since):
            head_end = min(end, now + 1 if again else mark.since)
            if start < head_end:
                heads.setdefault(head_end, {})[series] = start
    passes = [Reading(starts, end, tail=True) for starts in (tails, fresh) if starts]
    return passes + [
        Reading(starts, head_end, tail=False) for head_end, starts in sorted(heads.items())
    ]
