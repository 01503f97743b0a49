"""What the chain's tables say of each other: rows, digits and gaps, series by series."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bentley.domain import intervals
from bentley.domain.bars import FIELDS, Checksum
from bentley.domain.clock import iso
from bentley.domain.words import counted
from bentley.warehouse import bulk, gaps, ledger
from bentley.warehouse.ledger import PROCESS, Batch, Range
from bentley.warehouse.processed import Span
from bentley.warehouse.schema import (
    batches,
    binance_ohlcv,
    consumption,
    knime_processed,
    quarantine,
)

_NAMED = 5
"""So many things that are wrong are named; the rest are counted."""

_PAGE = 25_000


@dataclass(frozen=True)
class Check:
    """One thing that was verified: whether it held, and the figures that were seen.

    `held` is None where nobody could be asked: nothing is known to be wrong then, nor right.
    """

    name: str
    held: bool | None
    detail: str


def compared(
    name: str, wrong: Sequence[str], unasked: Sequence[str], count: int, what: str
) -> Check:
    """Make the check of a comparison with sources that may not answer for all of it.

    Nothing is known where nothing was compared.
    """
    held = False if wrong else None if unasked or not count else True
    left = f"not compared: {told(unasked)}" if unasked else ""
    seen = "" if wrong else f"{counted(count, what)} compared, cell by cell"
    return Check(name, held, "; ".join(filter(None, [told(wrong), left, seen])))


def told(wrong: Sequence[str]) -> str:
    """Name the first of what is wrong, and how many there are beside them."""
    more = [f"{len(wrong) - _NAMED} more"] if len(wrong) > _NAMED else []
    return "; ".join([*wrong[:_NAMED], *more])


@dataclass(frozen=True)
class Kept:
    """A table whose rows bear the batch of `stage` that wrote them last, `what` being their name.

    `within` selects the rows that a batch may have written in one of its ranges, and `checksum`
    is made anew of those that are a batch's own.
    """

    stage: str
    table: sa.Table
    what: str
    within: Callable[[Batch, Range], sa.ColumnElement[bool]]
    checksum: Callable[[Connection, Batch], str]


def as_written(connection: Connection, name: str, kept: Kept) -> Check:
    """Recompute the checksum of each batch whose rows are all its own still.

    Of the others, the rows that it lacks must be those of later batches.
    """
    wrong, same, replaced = [], 0, 0
    ids = sa.select(batches.c.id).where(
        batches.c.stage == kept.stage, batches.c.checksum.is_not(None), batches.c.rows_written > 0
    )
    of = kept.table.c.batch_id
    for batch_id in connection.scalars(ids.order_by(batches.c.id)).all():
        batch = ledger.get(connection, batch_id)
        assert batch is not None  # noqa: S101 - it was listed in this snapshot
        lacking = batch.rows_written - _count(connection, kept, batch, of == batch.id)
        if lacking > 0:
            lost = lacking - _count(connection, kept, batch, of > batch.id)
            if lost > 0:
                of_all = f"{lost} of the {batch.rows_written} {kept.what}s"
                wrong.append(f"{of_all} of batch {batch.id} are gone")
            else:
                replaced += 1
            continue
        found = kept.checksum(connection, batch)
        if found == batch.checksum:
            same += 1
        else:
            wrong.append(f"batch {batch.id} has {found[:16]}, not {str(batch.checksum)[:16]}")
    detail = f"{counted(same, 'batch', 'batches')} as written"
    if replaced:
        detail += f", {replaced} with {kept.what}s that later batches have replaced"
    return Check(name, not wrong, told(wrong) or detail)


def _count(connection: Connection, kept: Kept, batch: Batch, which: sa.ColumnElement[bool]) -> int:
    rows = sa.select(sa.func.count()).select_from(kept.table).where(which)
    return sum(
        connection.scalar(rows.where(kept.within(batch, span))) or 0 for span in batch.ranges
    )


def _due(span: Span) -> sa.ColumnElement[bool]:
    """Select the closed bars whose batch was consumed: what must have come out again."""
    raw = binance_ohlcv.c
    consumed = sa.exists().where(
        consumption.c.consumer == PROCESS, consumption.c.batch_id == raw.batch_id
    )
    return sa.and_(span.of(binance_ohlcv), raw.is_closed == 1, consumed)


def _same_version() -> sa.ColumnElement[bool]:
    raw, done = binance_ohlcv.c, knime_processed.c
    return sa.and_(
        done.symbol == raw.symbol,
        done.interval == raw.interval,
        done.open_time == raw.open_time,
        done.source_batch_id == raw.batch_id,
    )


def rows_balance(connection: Connection, wanted: Sequence[Span]) -> Check:
    """Check that every closed bar that was consumed came out again, or was refused."""
    raw = binance_ohlcv.c
    came = went = refused = lost = stray = 0
    for span in wanted:
        due = _due(span)
        came += connection.scalar(sa.select(sa.func.count()).where(due)) or 0
        out = sa.exists().where(_same_version())
        went += connection.scalar(sa.select(sa.func.count()).where(due, out)) or 0
        rest = connection.execute(sa.select(raw.open_time, raw.batch_id).where(due, ~out)).all()
        named = _refused(connection, span.symbol, span.interval) if rest else set()
        known = sum((str(row.open_time), str(row.batch_id)) in named for row in rest)
        refused += known
        lost += len(rest) - known
        stray += _without_source(connection, span)
    detail = f"{came} closed bars in = {went} processed + {refused} rejected"
    if lost:
        detail += f", {lost} unaccounted for"
    if stray:
        detail += f", {stray} processed bars without a closed bar behind them"
    held = came > 0 and came == went + refused and not stray
    return Check("rows in equal rows out plus rejects", held, detail)


def _refused(connection: Connection, symbol: str, interval: str) -> set[tuple[str, str]]:
    """Name the versions of bars that the workflow refused: open time and source batch.

    A reject excuses the bar as it was then, not as it was corrected later.
    """
    c = quarantine.c
    kept = connection.scalars(
        sa.select(c.content).where(c.stage == PROCESS, c.symbol == symbol, c.interval == interval)
    )
    rows = map(json.loads, kept)
    return {(str(row["open_time"]), str(row["source_batch_id"])) for row in rows}


def _without_source(connection: Connection, span: Span) -> int:
    raw, done = binance_ohlcv.c, knime_processed.c
    source = sa.exists().where(
        raw.symbol == done.symbol,
        raw.interval == done.interval,
        raw.open_time == done.open_time,
        raw.is_closed == 1,
    )
    query = sa.select(sa.func.count()).where(span.of(knime_processed), ~source)
    return connection.scalar(query) or 0


def checksums(connection: Connection, wanted: Sequence[Span]) -> Check:
    """Compare both tables' digits wherever they hold the same version of a bar."""
    consumed, stored = Checksum(), Checksum()
    for span in sorted(wanted, key=lambda one: (one.symbol, one.interval)):
        for raw, done in _side_by_side(connection, span):
            consumed.update(raw)
            stored.update(done)
    detail = f"{consumed.hexdigest()[:16]} raw, {stored.hexdigest()[:16]} processed"
    return Check(
        "checksums of what was consumed are equal",
        consumed.hexdigest() == stored.hexdigest(),
        detail,
    )


def _side_by_side(
    connection: Connection, span: Span
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Page through a series in both tables at once, in time order."""
    raw, done = binance_ohlcv.c, knime_processed.c
    due = sa.select(*(raw[name] for name in FIELDS), raw.batch_id).where(_due(span))
    version = ["open_time", "batch_id"]
    for page in bulk.pages(connection, due, raw.open_time, size=_PAGE):
        out = bulk.frame(
            connection,
            sa.select(*(done[name] for name in FIELDS), done.source_batch_id.label("batch_id"))
            .where(
                done.symbol == span.symbol,
                done.interval == span.interval,
                done.open_time >= page["open_time"][0],
                done.open_time <= page["open_time"][-1],
            )
            .order_by(done.open_time),
        )
        yield (
            page.join(out, on=version, how="semi", maintain_order="left"),
            out.join(page, on=version, how="semi", maintain_order="left"),
        )


def gaps_agree(connection: Connection, wanted: Sequence[Span]) -> Check:
    """Compare each recorded gap of a series with those that the stored open times show.

    Derived here anew, by other means than those that recorded them: they are what is checked.
    """
    wrong, listed = [], []
    for symbol, interval in ((span.symbol, span.interval) for span in wanted):
        recorded = gaps.of_series(connection, symbol, interval)
        known = {(gap.first_open, gap.last_open, gap.bars) for gap in recorded}
        seen = set(_missing(connection, symbol, interval))
        for spans, what in (
            (seen - known, "is not recorded"),
            (known - seen, "is recorded wrongly"),
        ):
            wrong += [
                f"{symbol} {interval}: the gap of {counted(bars, 'bar')} from {iso(first)} "
                f"to {iso(last)} {what}"
                for first, last, bars in sorted(spans)
            ]
        if recorded:
            bars = sum(gap.bars for gap in recorded)
            listed.append(f"{symbol} {interval} {len(known)} ({counted(bars, 'bar')})")
    detail = told(wrong) or ", ".join(listed) or "no gaps"
    return Check("every gap on the grid is recorded", not wrong, detail)


def _missing(connection: Connection, symbol: str, interval: str) -> Iterator[tuple[int, int, int]]:
    """List the spans between stored bars that lack some: first and last open time, and how many."""
    c, step = binance_ohlcv.c, intervals.millis(interval)
    query = sa.select(c.open_time).where(c.symbol == symbol, c.interval == interval)
    before: int | None = None
    for page in bulk.pages(connection, query, c.open_time, size=_PAGE):
        at = pl.col("open_time")
        steps = page.with_columns(before=at.shift(1, fill_value=before)).filter(
            at - pl.col("before") > step
        )
        for opened, previous in steps.rows():
            yield previous + step, opened - step, (opened - previous) // step - 1
        before = page["open_time"][-1]
