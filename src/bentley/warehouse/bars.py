"""Raw bars in and out of `binance_ohlcv`: only what is new or changed is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import polars as pl
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bentley.domain.bars import BAR_SCHEMA, FIELDS, KEY
from bentley.warehouse import bulk
from bentley.warehouse.bulk import Listed
from bentley.warehouse.ledger import Range, now_ms
from bentley.warehouse.schema import batches, binance_ohlcv

_COLUMNS = (*FIELDS, "is_closed")
_NOTHING = pl.Schema({**BAR_SCHEMA, "batch_id": pl.Int64()}).to_frame()

# Made once: see the ledger's.
_C = binance_ohlcv.c
_LIES = (
    _C.symbol == sa.bindparam("symbol"),
    _C.interval == sa.bindparam("interval"),
    _C.open_time.between(sa.bindparam("first_open"), sa.bindparam("last_open")),
)
_ANY = sa.select(sa.literal_column("1", sa.Integer())).where(*_LIES).limit(1)
_WITHIN = sa.select(*(_C[name] for name in _COLUMNS), _C.batch_id).where(*_LIES)
_OWN = (*_LIES, _C.batch_id == sa.bindparam("batch"))
_COUNT = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_C.is_closed), 0)).where(*_OWN)
# Sought from the end: to look for the last in each row takes a quarter longer than to count.
_LAST_CLOSED = (
    sa.select(_C.open_time).where(*_OWN, _C.is_closed == 1).order_by(_C.open_time.desc()).limit(1)
)


@dataclass(frozen=True)
class Written:
    """What an upsert did: rows new or changed, those of them that are closed, and where.

    `fresh` are the bars that were written; there are more of them than `rows` where some replace
    bars of their own batch.
    """

    rows: int
    news: int
    ranges: tuple[Range, ...]
    fresh: pl.DataFrame = field(compare=False)


class Prepared(NamedTuple):
    """What `upsert` needs to know of bars that are written as they are: it can be found ahead."""

    spans: tuple[Range, ...]
    text: Listed | None


def prepared(frame: pl.DataFrame, *, dialect: str) -> Prepared:
    """Look over bars and write them for a database of this dialect, in any thread."""
    return Prepared(_spans(frame), bulk.listed(_stored_form(frame), dialect=dialect))


def upsert(
    connection: Connection,
    frame: pl.DataFrame,
    *,
    batch_id: int,
    source: str,
    ahead: Prepared | None = None,
    turn: Callable[[], None] | None = None,
) -> Written:
    """Write the bars of `frame` (BAR_SCHEMA, unique keys) that differ from what is stored.

    A bar that is stored as closed stays closed: a forming version of it is older. `ahead` is what
    was `prepared` of the same frame. Where bars are stored already, `turn` is waited for before
    they are replaced: a server may lock the gaps beside those, too, for another writer.
    """
    spans = _spans(frame) if ahead is None else ahead.spans
    known = _stored(connection, spans)
    fresh = _differing(frame, known) if known.height else frame
    if not fresh.height:
        return Written(0, 0, (), fresh)
    own = fresh.clear()
    if known.height:
        if turn is not None:
            turn()
        own = known.filter(pl.col("batch_id") == batch_id).join(fresh, on=KEY, how="semi")
    bulk.write(
        connection,
        binance_ohlcv,
        _stored_form(fresh),
        stamp={"source": source, "batch_id": batch_id, "updated_at": now_ms()},
        new=not known.height,
        ahead=ahead.text if ahead is not None and fresh is frame else None,
    )
    # A bar that this batch wrote before is one bar still.
    closed = int(fresh["is_closed"].sum()) - int(own["is_closed"].sum())
    ranges = spans if fresh is frame else _spans(fresh)
    return Written(fresh.height - own.height, closed, ranges, fresh)


def _stored_form(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col("is_closed").cast(pl.Int8))


def _spans(frame: pl.DataFrame) -> tuple[Range, ...]:
    """Where the bars of each series lie."""
    opened = pl.col("open_time")
    ends = {"first_open": opened.min(), "last_open": opened.max(), "rows": pl.len()}
    found = frame.lazy().group_by("symbol", "interval").agg(**ends).sort("symbol", "interval")
    return tuple(Range(**row) for row in found.collect().to_dicts())


def _stored(connection: Connection, spans: Iterable[Range]) -> pl.DataFrame:
    """Fetch what is stored within the spans, with the batch that wrote it."""
    found = (_fetch(connection, span) for span in spans)
    return pl.concat([_NOTHING, *(one for one in found if one is not None)])


def _differing(frame: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    fresh = frame.join(known, on=_COLUMNS, how="anti")
    settled = known.filter(pl.col("is_closed")).select(KEY)
    stale = fresh.filter(~pl.col("is_closed")).join(settled, on=KEY, how="semi")
    return fresh.join(stale, on=KEY, how="anti") if stale.height else fresh


def _fetch(connection: Connection, span: Range) -> pl.DataFrame | None:
    # In bulk there is nothing as a rule, which is told in a tenth of the time.
    if connection.scalar(_ANY, vars(span)) is None:
        return None
    return bulk.frame(connection, _WITHIN, vars(span))


def settled(
    connection: Connection, symbol: str, interval: str, first: int, last: int, *, besides: str
) -> pl.DataFrame:
    """Keys of closed bars that another source than `besides` has written, each with when it did."""
    c, asked = binance_ohlcv.c, batches.c.exchange_time
    at = sa.case((asked > c.updated_at, asked), else_=c.updated_at)
    query = (
        sa.select(c.symbol, c.interval, c.open_time, at)
        .join_from(binance_ohlcv, batches, batches.c.id == c.batch_id, isouter=True)
        .where(
            c.symbol == symbol,
            c.interval == interval,
            c.open_time.between(first, last),
            c.is_closed == 1,
            c.source != besides,
        )
    )
    schema = {name: BAR_SCHEMA[name] for name in KEY} | {"settled_at": pl.Int64()}
    rows = [tuple(row) for row in connection.execute(query)]
    return pl.DataFrame(rows, schema=schema, orient="row")


def of_batch(
    connection: Connection, batch_id: int, ranges: Iterable[Range], *, step: int = 25_000
) -> Iterator[pl.DataFrame]:
    """Read the bars that bear `batch_id` within its ranges, in key order, in bounded pieces."""
    c = binance_ohlcv.c
    for span in sorted(ranges, key=lambda piece: (piece.symbol, piece.interval)):
        query = sa.select(*(c[name] for name in _COLUMNS)).where(
            c.symbol == span.symbol,
            c.interval == span.interval,
            c.open_time.between(span.first_open, span.last_open),
            c.batch_id == batch_id,
        )
        yield from bulk.pages(connection, query, c.open_time, size=step)


def count_batch(
    connection: Connection, batch_id: int, ranges: Iterable[Range]
) -> tuple[int, int, int | None]:
    """Count the bars that bear `batch_id` and the closed ones, and find the last that is closed."""
    rows = news = 0
    last: int | None = None
    for span in ranges:
        asked = {**vars(span), "batch": batch_id}
        found = connection.execute(_COUNT, asked).one()
        rows, news = rows + int(found[0]), news + int(found[1])
        closed = connection.scalar(_LAST_CLOSED, asked)
        last = max((time for time in (last, closed) if time is not None), default=None)
    return rows, news, last


def last_open(
    connection: Connection, symbol: str, interval: str, *, before: int | None = None
) -> int | None:
    """Open time of the last bar stored of a series, or of the last `before` a time."""
    c = binance_ohlcv.c
    newest = sa.select(sa.func.max(c.open_time)).where(c.symbol == symbol, c.interval == interval)
    if before is not None:
        newest = newest.where(c.open_time < before)
    found: int | None = connection.scalar(newest)
    return found


def first_forming(
    connection: Connection, symbol: str, interval: str, *, since: int, until: int
) -> int | None:
    """Open time of the oldest bar from `since` to `until` that was still forming when read."""
    c = binance_ohlcv.c
    found: int | None = connection.scalar(
        sa.select(sa.func.min(c.open_time)).where(
            c.symbol == symbol,
            c.interval == interval,
            c.open_time.between(since, until),
            c.is_closed == 0,
        )
    )
    return found


def last_close(
    connection: Connection, symbol: str, interval: str, *, before: int | None = None
) -> int | None:
    """Close time of the newest closed bar of a series, or of the newest that closed `before`."""
    c = binance_ohlcv.c
    newest = (
        sa.select(c.close_time)
        .where(c.symbol == symbol, c.interval == interval, c.is_closed == 1)
        .order_by(c.open_time.desc())  # along the key: close times grow with it
        .limit(1)
    )
    if before is not None:
        newest = newest.where(c.close_time < before)
    found: int | None = connection.scalar(newest)
    return found


def extent(connection: Connection, symbol: str, interval: str) -> tuple[int, int, int] | None:
    """First and last open time and the number of bars stored; None where there is none."""
    c = binance_ohlcv.c
    series = (c.symbol == symbol, c.interval == interval)
    # Each for itself: the ends are sought by the key, and to count alone takes half the time.
    asked = (sa.func.min(c.open_time), sa.func.max(c.open_time), sa.func.count())
    parts = (sa.select(one).select_from(binance_ohlcv).where(*series) for one in asked)
    first, last, rows = connection.execute(
        sa.select(*(part.scalar_subquery() for part in parts))
    ).one()
    return None if first is None else (int(first), int(last), int(rows))
