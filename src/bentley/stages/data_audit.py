"""Checks what is stored against itself and against where it came from."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bentley.domain import bars as domain_bars
from bentley.domain import intervals
from bentley.domain.bars import FIELDS
from bentley.domain.clock import iso
from bentley.domain.errors import BentleyError, ConfigurationError, RetriableError
from bentley.settings import Settings
from bentley.sources import exchange
from bentley.stages import stock_audit
from bentley.stages.data_status import stored
from bentley.stages.reading import Series
from bentley.stages.table_checks import Check, Kept, as_written, compared, gaps_agree
from bentley.warehouse import bars, bulk
from bentley.warehouse.ledger import INGEST, Batch, Range
from bentley.warehouse.processed import Span
from bentley.warehouse.schema import binance_ohlcv
from bentley.warehouse.warehouse import Warehouse

WINDOWS = 5
"""Places of a series that are compared with the source: its first, its last, and some between."""

WINDOW_BARS = 20

_LATEST = 2**63 - 1
_CELLS = FIELDS[2:]


@dataclass(frozen=True)
class Audit:
    """What was looked at, and whether it held."""

    origin: str
    checks: tuple[Check, ...]

    @property
    def held(self) -> bool | None:
        """Whether every check held; None where none failed, but some source could not be asked."""
        found = {check.held for check in self.checks}
        return False if False in found else None if None in found else True

    def to_dict(self) -> dict[str, Any]:
        """Make plain values for JSON."""
        return asdict(self) | {"held": self.held}


def audit(settings: Settings, *, every: bool = True, seed: int | None = None) -> Audit:
    """Recompute the batches' checksums, derive the gaps anew, and compare bars with the exchange.

    All series that are stored are checked, and the stocks likewise, or the series of the settings. `seed` fixes which bars are
    compared; without it they are others each time. Raises ConfigurationError where nothing is
    stored and nothing is missing either.
    """
    chance = random.Random(seed)  # noqa: S311 - which bars are looked at is no secret
    with Warehouse.open(settings) as warehouse, warehouse.snapshot() as connection:
        wanted = (
            stored(connection)
            if every
            else [
                (symbol, interval) for symbol in settings.symbols for interval in settings.intervals
            ]
        )
        spans = [Span(symbol, interval, 0, _LATEST) for symbol, interval in wanted]
        checks = [
            as_written(connection, "checksums recomputed are the ledger's", _BARS),
            gaps_agree(connection, spans),
        ]
        samples = {one: list(_sample(connection, one, chance)) for one in wanted}
        shares = stock_audit.checks(connection, settings) if every else []
        sampled = stock_audit.sample(connection, settings, chance) if every else []
        if not (any(samples.values()) or shares) and all(check.held for check in checks):
            asked = "nothing" if every else "no bar of the series asked for"
            msg = (
                f"{asked} is stored in {warehouse.address}: run `bentley sync` or `backfill` first"
            )
            raise ConfigurationError(msg)
    if any(samples.values()):
        checks.append(_against_source(settings, samples))
    checks += shares
    if shares:
        checks.append(stock_audit.against_sources(settings, sampled))
    return Audit(settings.origin, tuple(checks))


def _within(_: Batch, span: Range) -> sa.ColumnElement[bool]:
    c = binance_ohlcv.c
    return sa.and_(
        c.symbol == span.symbol,
        c.interval == span.interval,
        c.open_time.between(span.first_open, span.last_open),
    )


def _checksum(connection: Connection, batch: Batch) -> str:
    return domain_bars.checksum(bars.of_batch(connection, batch.id, batch.ranges))


_BARS = Kept(INGEST, binance_ohlcv, "bar", _within, _checksum)


def _sample(
    connection: Connection, series: Series, chance: random.Random
) -> Iterator[tuple[int, pl.DataFrame]]:
    """Read a few windows of closed bars: the first, the last, and some anywhere between."""
    symbol, interval = series
    extent = bars.extent(connection, symbol, interval)
    if extent is None:
        return
    first, last, _ = extent
    step = intervals.millis(interval)
    starts = {first, max(first, last - (WINDOW_BARS - 1) * step)}
    for _ in range(WINDOWS - 2):
        starts.add(intervals.floor(chance.randint(first, last), interval))
    c = binance_ohlcv.c
    for start in sorted(starts):
        query = sa.select(*(c[name] for name in FIELDS)).where(
            c.symbol == symbol,
            c.interval == interval,
            c.open_time >= start,
            c.open_time < start + WINDOW_BARS * step,
            c.is_closed == 1,
        )
        yield start, bulk.frame(connection, query.order_by(c.open_time))


def _against_source(
    settings: Settings, samples: dict[Series, list[tuple[int, pl.DataFrame]]]
) -> Check:
    """Compare every cell of the sampled bars with what the exchange says of them now."""
    name = "sampled bars are the exchange's"
    try:
        exchange.server_time(settings.exchange_url)
    except RetriableError as error:
        return compared(name, [], [str(error)], 0, "bar")
    except BentleyError as error:  # what answers is no exchange
        return Check(name, held=False, detail=str(error))
    wrong: list[str] = []
    unasked: list[str] = []
    count = 0
    for at, ((symbol, interval), windows) in enumerate(samples.items()):
        try:
            for start, frame in windows:
                said = {
                    int(row[0]): row
                    for row in exchange.klines(
                        settings.exchange_url, symbol, interval, start=start, limit=WINDOW_BARS
                    )
                }
                for row in frame.select(_CELLS).iter_rows():
                    count += 1
                    differing = _differing(row, said.get(row[0]))
                    if differing:
                        wrong.append(f"{symbol} {interval} {iso(row[0])}: {differing}")
        except RetriableError as error:  # nor would it answer for the others
            others = [" ".join(one) for one in list(samples)[at + 1 :]]
            unasked += [f"{symbol} {interval}: {error}", *others]
            break
        except BentleyError as error:
            unasked.append(f"{symbol} {interval}: {error}")
    return compared(name, wrong, unasked, count, "bar")


def _differing(ours: Sequence[Any], theirs: Sequence[Any] | None) -> str:
    """Name the first cell that differs; empty where none does."""
    if theirs is None:
        return "the exchange has no such bar"
    for name, mine, cell in zip(_CELLS, ours, theirs, strict=False):
        try:
            same = Decimal(mine) == Decimal(str(cell))
        except InvalidOperation:
            same = False
        if not same:
            return f"{name} is {mine} here and {cell} there"
    return ""
