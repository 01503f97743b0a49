"""Bars as polars frames, fast: past Python's own objects on every database.

A server is read by connectorx. A SQLite file must not be: connectorx brings a SQLite of its
own, and two of them in one process free each other's file locks, which loses what is written
next (https://www.sqlite.org/howtocorrupt.html, 2.2). There the database joins each column to
one text, and polars reads the texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

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
            wanted = [name for name in names if name not in known]
            raw = _by_columns(connection, source, wanted, where, exact=exact)
            return raw.with_columns(**known).select(
                _typed(source, name, exact=exact) for name in names
            )
        dialect = connection.dialect
        query = (
            sa.select(*(_cast(c[name], as_text=exact) for name in names))
            .where(where)
            .order_by(c.open_time)
        )
        url = warehouse.engine.url
        if url.query.keys() - {
            "charset"
        }:  # a socket, TLS: connectorx writes such options otherwise
            kinds = {name: _parsed(source, name, exact=exact) for name in names}
            raw = _by_driver(connection, query, kinds)
            return raw.select(_typed(source, name, exact=exact) for name in names)
    # The dialect doubles percent signs for the driver; there is none in these names.
    sql = str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    frame = _by_connectorx(url, sql)
    return frame.with_columns(_typed(source, name, exact=exact) for name in names)


def _by_connectorx(url: URL, sql: str) -> pl.DataFrame:
    # Some 15 MB, which a command that reads no frame from a server does without.
    import connectorx as cx  # noqa: PLC0415

    address = url.set(drivername="mysql", query={}).render_as_string(hide_password=False)
    try:
        return pl.DataFrame(pl.from_arrow(cx.read_sql(address, sql, return_type="arrow")))
    except RuntimeError as error:
        reason = str(error).replace(address, "").replace(url.password or address, "***")
        msg = f"the database did not answer to a bulk read: {reason[:500]}"
        raise RetriableError(msg) from None


def _by_columns(
    connection: Connection,
    table: sa.Table,
    names: Sequence[str],
    where: sa.ColumnElement[bool],
    *,
    exact: bool,
) -> pl.DataFrame:
    """Read columns from SQLite, in time order and in pages, so that no text grows with history."""
    kinds = {name: _parsed(table, name, exact=exact) for name in ("open_time", *names)}
    pages = list(_pages(connection, table, kinds, where))
    frame = pl.concat(pages) if pages else pl.DataFrame(schema=kinds)
    return frame if frame["open_time"].is_sorted() else frame.sort("open_time")


def _pages(
    connection: Connection,
    table: sa.Table,
    kinds: Mapping[str, type[pl.DataType]],
    where: sa.ColumnElement[bool],
) -> Iterator[pl.DataFrame]:
    c = table.c
    # SQLite writes a double as text with 15 digits, so these come as they are.
    doubles = [name for name in kinds if isinstance(c[name].type, sa.Double)]
    texts = [name for name in kinds if name not in doubles]
    joined = [_joined(c[name]) for name in texts]
    last = -1
    while True:
        # The page's own bounds come first: SQLite seeks by the first of each kind, and filters
        # by the others. A sub-select with a limit would take half as long again.
        ahead = sa.select(c.open_time).where(c.open_time > last, where).order_by(c.open_time)
        end = connection.scalar(ahead.offset(_PAGE - 1).limit(1))
        page = sa.and_(c.open_time > last, c.open_time <= (_LATEST if end is None else end), where)
        rows, *lists = connection.execute(sa.select(sa.func.count(), *joined).where(page)).one()
        if not rows:
            return
        columns = [_split(text, name, kinds[name]) for name, text in zip(texts, lists, strict=True)]
        if doubles:
            query = sa.select(*(c[name] for name in doubles)).where(page).order_by(c.open_time)
            kinds_read = dict.fromkeys(doubles, pl.Float64)
            columns += _by_driver(connection, query, kinds_read).get_columns()
        for column in columns:
            if len(column) != rows:  # an empty cell, or one with a line's end in it
                msg = f"{rows} rows of {table.name}.{column.name} came back as {len(column)}"
                raise FatalError(msg)
        yield pl.DataFrame(columns).select(*kinds)
        if end is None:
            return
        last = end


def _joined(column: sa.Column[Any]) -> sa.ColumnElement[str]:
    """All cells of a column as one text; numbers by commas, SQLite's default and the fastest."""
    if _is_number(column):
        return sa.func.group_concat(column)
    return sa.func.group_concat(column, sa.literal_column("char(10)"))


def _is_number(column: sa.Column[Any]) -> bool:
    return column.name in DECIMALS or isinstance(column.type, sa.Integer)


def _split(text: str, name: str, kind: type[pl.DataType]) -> pl.Series:
    cells = pl.read_csv(
        text.encode(),
        has_header=False,
        separator=_SEPARATOR,
        quote_char=None,
        eol_char="\n" if name not in DECIMALS and kind == pl.String else ",",
        schema={name: kind},
    )
    return cells[name]


def _by_driver(
    connection: Connection, query: sa.Select[Any], kinds: Mapping[str, type[pl.DataType]]
) -> pl.DataFrame:
    # Straight from the driver's tuples, as in bulk.frame.
    with connection.execute(query) as result:
        rows = [] if result.cursor is None else result.cursor.fetchall()
    return pl.DataFrame(rows, schema=kinds, orient="row")


def _parsed(table: sa.Table, name: str, *, exact: bool) -> type[pl.DataType]:
    """How a column's text is read: a decimal to the nearest double, or digit for digit."""
    if name in DECIMALS:
        # SQLite's own CAST to a double misses the last bit now and then.
        return pl.String if exact else pl.Float64
    return pl.Float64 if isinstance(table.c[name].type, sa.Double) else _raw(table, name)


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
        return column.cast(DECIMAL if exact else pl.Float64)
    if name == "is_closed":
        return column.cast(pl.Boolean)
    if name in BAR_SCHEMA:
        return column.cast(BAR_SCHEMA[name])
    kind = table.c[name].type
    return column.cast(pl.Float64 if isinstance(kind, sa.Double) else _raw(table, name))
