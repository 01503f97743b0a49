"""What is stored of every series, in figures and as a calendar."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bentley.domain import intervals
from bentley.domain.errors import RetriableError
from bentley.settings import Settings
from bentley.sources import exchange
from bentley.stages import stock_status
from bentley.stages.coverage import coverage
from bentley.stages.reading import Series
from bentley.warehouse import ledger
from bentley.warehouse.schema import binance_ohlcv
from bentley.warehouse.warehouse import Warehouse

PICTURE = "data-status.png"

_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Status:
    """The series stored, as `coverage` describes each, with the sources of its bars.

    `stocks` are described by `stock_status.coverage`, as of this machine's clock.
    `exchange_time` is None where the exchange can't be reached: then no bar has an age.
    """

    origin: str
    exchange_time: int | None
    series: tuple[dict[str, Any], ...]
    stocks: tuple[dict[str, Any], ...]
    picture: str

    def to_dict(self) -> dict[str, Any]:
        """Make plain values for JSON."""
        return asdict(self)


def status(settings: Settings, *, every: bool = True) -> Status:
    """Describe every series and stock that is stored, or the settings' series, and draw them by day.

    The picture goes to the folder of the reports.
    """
    from bentley.tracking.calendar_picture import calendar  # noqa: PLC0415 - matplotlib is slow

    try:
        now: int | None = exchange.server_time(settings.exchange_url, attempts=1)
    except RetriableError:
        now = None
    with Warehouse.open(settings) as warehouse:
        with warehouse.reading() as connection:
            wanted = stored(connection) if every else _of(settings)
            days = {" ".join(one): _by_day(connection, one) for one in wanted}
            sources = {one: _sources(connection, one) for one in wanted}
            tickers = stock_status.stored(connection) if every else []
            days |= {ticker: stock_status.by_day(connection, ticker) for ticker in tickers}
            shares = stock_status.coverage(connection, tickers, now=ledger.now_ms())
        series = []
        for one, found in zip(
            wanted, coverage(warehouse, wanted, end=now or 2**63 - 1), strict=True
        ):
            unknown = {} if now is not None else dict.fromkeys(("freshness_hours", "behind"))
            series.append(found | unknown | {"sources": sources[one]})
    picture = settings.reports / PICTURE
    _write(picture, calendar(days, origin=settings.origin))
    return Status(settings.origin, now, tuple(series), tuple(shares), str(picture))


def _of(settings: Settings) -> list[Series]:
    return [(symbol, interval) for symbol in settings.symbols for interval in settings.intervals]


def stored(connection: Connection) -> list[Series]:
    """List every series that has a bar, by seeking from one to the next."""
    c = binance_ohlcv.c
    found: list[Series] = []
    query = sa.select(c.symbol, c.interval).order_by(c.symbol, c.interval).limit(1)
    row = connection.execute(query).first()
    while row is not None:
        found.append((row.symbol, row.interval))
        later = sa.or_(
            c.symbol > row.symbol, sa.and_(c.symbol == row.symbol, c.interval > row.interval)
        )
        row = connection.execute(query.where(later)).first()
    return found


def _by_day(connection: Connection, series: Series) -> Mapping[int, float]:
    """Share of the grid's bars that are stored, by UTC day since 1970, first to last.

    A day on which the grid has no bar of a long interval is left out.
    """
    symbol, interval = series
    c = binance_ohlcv.c
    day = (c.open_time - c.open_time % _DAY_MS).label("day")
    rows = connection.execute(
        sa.select(day, sa.func.count())
        .where(c.symbol == symbol, c.interval == interval)
        .group_by(day)
    ).all()
    counts: dict[int, int] = defaultdict(int)
    counts.update({int(start) // _DAY_MS: count for start, count in rows})
    if not counts:
        return {}
    shares = {}
    for at in range(min(counts), max(counts) + 1):
        expected = intervals.expected(at * _DAY_MS, (at + 1) * _DAY_MS, interval)
        if expected:
            shares[at] = counts[at] / expected
    edges = _edges(connection, series)
    for at, missing in edges.items():  # what lies before the first bar or after the last is no gap
        expected = intervals.expected(at * _DAY_MS, (at + 1) * _DAY_MS, interval)
        if expected > missing:
            shares[at] = counts[at] / (expected - missing)
    return shares


def _edges(connection: Connection, series: Series) -> Mapping[int, int]:
    """How many bars of the first and of the last day lie outside the series."""
    symbol, interval = series
    c = binance_ohlcv.c
    first, last = connection.execute(
        sa.select(sa.func.min(c.open_time), sa.func.max(c.open_time)).where(
            c.symbol == symbol, c.interval == interval
        )
    ).one()
    outside: dict[int, int] = defaultdict(int)
    start = first - first % _DAY_MS
    end = last - last % _DAY_MS + _DAY_MS
    outside[first // _DAY_MS] += intervals.expected(start, first, interval)
    outside[last // _DAY_MS] += intervals.expected(last + 1, end, interval)
    return outside


def _sources(connection: Connection, series: Series) -> dict[str, int]:
    """How many bars came from each source."""
    symbol, interval = series
    c = binance_ohlcv.c
    rows: Sequence[Any] = connection.execute(
        sa.select(c.source, sa.func.count())
        .where(c.symbol == symbol, c.interval == interval)
        .group_by(c.source)
        .order_by(c.source)
    ).all()
    return {row.source: int(row[1]) for row in rows}


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
