"""Bars as polars frames, fast: past Python's own objects on every database.

A server is read by connectorx. A SQLite file must not be: connectorx brings a SQLite of its
own, and two of them in one process free each other's file locks, which loses what is written
next (https://www.sqlite.org/howtocorrupt.html, 2.2). There the database joins each row to a
line of text, and polars reads the lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import connectorx as cx
import polars as pl
import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection

from bentley.domain.bars import BAR_SCHEMA, DECIMAL, DECIMALS
from bentley.domain.errors import FatalError, RetriableError
from bentley.warehouse.schema import binance_ohlcv, knime_processed
from bentley.warehouse.warehouse import Warehouse

_TABLES = {"binance_ohlcv": binance_ohlcv, "knime_processed": knime_processed}
_LATEST = 2**63 - 1
_PAGE = 50_000
_SEPARATOR = "\x1f"


def read(  # the arguments are the question
    warehouse: Warehouse,
    symbol: str,
    interval: str,
    *,
    since: int = 0,
    until: int = _LATEST,
    table: Literal["binance_ohlcv", "knime_processed"] = "binance_ohlcv",
    columns: tuple[str, ...] | None = None,
    exact: bool = False,
) -> pl.DataFrame:
    """Read one series with since <= open_time < until (UTC milliseconds), in time order.

    Prices and volumes are float64, or with `exact` Decimal(28,8). `columns` defaults to all of
    the table's. Raises RetriableError or ConfigurationError when the database can't be read.
    """
    source = _TABLES[table]
    names = columns or tuple(column.name for column in source.c)
    c = source.c
    where = sa.and_(
        c.symbol == symbol, c.interval == interval, c.open_time >= since, c.open_time < until
    )
    with warehouse.reading() as connection:  # connectorx would try for half a minute
        if connection.dialect.name == "sqlite":
            known = {"symbol": pl.lit(symbol), "interval": pl.lit(interval)}
            raw = _by_lines(connection, source, [n for n in names if n not in known], where)
            return raw.with_columns(**known).select(
                _typed(source, name, exact=exact) for name in names
            )
        dialect = connection.dialect
    query = (
        sa.select(*(_cast(c[name], as_text=exact) for name in names))
        .where(where)
        .order_by(c.open_time)
    )
    # The dialect doubles percent signs for the driver; there is none in these names.
    sql = str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    frame = _by_connectorx(warehouse.engine.url, sql)
    return frame.with_columns(_typed(source, name, exact=exact) for name in names)


def _by_connectorx(url: URL, sql: str) -> pl.DataFrame:
    address = url.set(drivername="mysql", query={}).render_as_string(hide_password=False)
    try:
        return pl.DataFrame(pl.from_arrow(cx.read_sql(address, sql, return_type="arrow")))
    except RuntimeError as error:
        reason = str(error).replace(address, "").replace(url.password or address, "***")
        msg = f"the database did not answer to a bulk read: {reason[:500]}"
        raise RetriableError(msg) from None


def _by_lines(
    connection: Connection,
    table: sa.Table,
    names: Sequence[str],
    where: sa.ColumnElement[bool],
) -> pl.DataFrame:
    """Read columns from SQLite, decimals still text where that is what they are."""
    reals = [name for name in names if isinstance(table.c[name].type, sa.Double)]
    texts = list(dict.fromkeys(["open_time", *(n for n in names if n not in reals)]))
    frame = pl.concat(
        [
            pl.DataFrame(schema={name: _raw(table, name) for name in texts}),
            *_pages(connection, table, texts, where),
        ]
    )
    if not frame["open_time"].is_sorted():
        frame = frame.sort("open_time")
    if not reals:
        return frame
    # SQLite writes a double as text with 15 digits, so these come as they are.
    query = sa.select(*(table.c[name] for name in reals)).where(where).order_by(table.c.open_time)
    rows = [tuple(row) for row in connection.execute(query)]
    doubles = pl.DataFrame(rows, schema=dict.fromkeys(reals, pl.Float64), orient="row")
    return pl.concat([frame, doubles], how="horizontal")


def _pages(
    connection: Connection,
    table: sa.Table,
    names: Sequence[str],
    where: sa.ColumnElement[bool],
) -> Iterator[pl.DataFrame]:
    c = table.c
    line = sa.func.printf(_SEPARATOR.join(["%s"] * len(names)), *(c[name] for name in names))
    lines = sa.func.group_concat(line, "\n")
    last = -1
    while True:
        # The page's own bounds come first: SQLite seeks by the first of each kind, and filters
        # by the others. A sub-select with a limit would take half as long again.
        ahead = sa.select(c.open_time).where(c.open_time > last, where).order_by(c.open_time)
        end = connection.scalar(ahead.offset(_PAGE - 1).limit(1))
        until = _LATEST if end is None else end
        page = sa.and_(c.open_time > last, c.open_time <= until, where)
        rows, text = connection.execute(sa.select(sa.func.count(), lines).where(page)).one()
        if not rows:
            return
        frame = pl.read_csv(
            text.encode(),
            has_header=False,
            separator=_SEPARATOR,
            quote_char=None,
            schema={name: _raw(table, name) for name in names},
        )
        if frame.height != rows:
            msg = f"{rows} rows of {table.name} came back as {frame.height} lines"
            raise FatalError(msg)
        yield frame
        if end is None:
            return
        last = end


def _raw(table: sa.Table, name: str) -> type[pl.DataType]:
    return pl.Int64 if isinstance(table.c[name].type, sa.Integer) else pl.String


def _cast(column: sa.Column[Any], *, as_text: bool) -> sa.ColumnElement[Any]:
    if column.name not in DECIMALS:
        return column
    kind: sa.types.TypeEngine[Any] = sa.CHAR(40) if as_text else sa.Double()
    return sa.cast(column, kind).label(column.name)


def _typed(table: sa.Table, name: str, *, exact: bool) -> pl.Expr:
    column = pl.col(name)
    if name in DECIMALS:
        # Text is read to the nearest double; SQLite's own CAST misses it now and then.
        return column.cast(DECIMAL if exact else pl.Float64)
    if name == "is_closed":
        return column.cast(pl.Boolean)
    if name in BAR_SCHEMA:
        return column.cast(BAR_SCHEMA[name])
    kind = table.c[name].type
    return column.cast(pl.Float64 if isinstance(kind, sa.Double) else _raw(table, name))
