"""Query results into polars frames and frames into tables, exact types kept, on three databases.

KNIME's types: whole numbers up to 32 bits are Int32, BIGINT Int64, DECIMAL and DOUBLE Float64,
text String. SQLite has no column types in a result, so they come from the affinity of the
query's columns, and from the values where it has none: `CAST` the outermost columns of a query
to be sure of a column that may be empty.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import polars as pl
from pymysql.constants import FIELD_TYPE
from pymysql.cursors import SSCursor
from pymysql.err import MySQLError
from sqlalchemy import Connection, Engine, inspect
from sqlalchemy.exc import DBAPIError, NoSuchTableError

from bentley.domain.errors import ConfigurationError, FatalError, RetriableError
from bentley.warehouse.database import MYSQL_FULL, MYSQL_PASSING

_CHUNK = 50_000
_WRITE_ROWS = 10_000
_LOAD_ROWS = 100_000
_AFFINITIES: Final[Mapping[str, pl.DataType]] = {
    "INT": pl.Int64(),
    "REAL": pl.Float64(),
    "TEXT": pl.String(),
}
_BY_VALUE: Final[Sequence[tuple[set[type], pl.DataType]]] = (
    ({int}, pl.Int64()),
    ({int, float, Decimal}, pl.Float64()),
    ({str}, pl.String()),
    ({bool}, pl.Boolean()),
    ({datetime}, pl.Datetime("us")),
    ({date}, pl.Date()),
)
_MYSQL_TYPES: Final[Mapping[int, pl.DataType]] = {
    FIELD_TYPE.TINY: pl.Int32(),
    FIELD_TYPE.SHORT: pl.Int32(),
    FIELD_TYPE.INT24: pl.Int32(),
    FIELD_TYPE.LONG: pl.Int32(),
    FIELD_TYPE.YEAR: pl.Int32(),
    FIELD_TYPE.LONGLONG: pl.Int64(),
    FIELD_TYPE.FLOAT: pl.Float64(),
    FIELD_TYPE.DOUBLE: pl.Float64(),
    FIELD_TYPE.DECIMAL: pl.Float64(),
    FIELD_TYPE.NEWDECIMAL: pl.Float64(),
    FIELD_TYPE.NULL: pl.String(),
    FIELD_TYPE.VARCHAR: pl.String(),
    FIELD_TYPE.VAR_STRING: pl.String(),
    FIELD_TYPE.STRING: pl.String(),
    FIELD_TYPE.BLOB: pl.String(),
    FIELD_TYPE.TINY_BLOB: pl.String(),
    FIELD_TYPE.MEDIUM_BLOB: pl.String(),
    FIELD_TYPE.LONG_BLOB: pl.String(),
    FIELD_TYPE.JSON: pl.String(),
    FIELD_TYPE.ENUM: pl.String(),
}


def read(engine: Engine, sql: str) -> pl.DataFrame:
    """The rows of one query.

    Raises RetriableError where the database is busy or away, FatalError where it refuses the
    query, ConfigurationError for a column that has no counterpart.
    """
    sql = sql.strip().rstrip(";")
    try:
        with engine.connect() as connection:
            if _is_sqlite(engine):
                types = _types_of_sqlite(connection, sql)
                return _fetch(_driver(connection).cursor(), sql, types)
            # the default cursor keeps the whole result in memory besides the frame
            return _fetch(_driver(connection).cursor(SSCursor), sql, None)
    except (DBAPIError, sqlite3.Error, MySQLError) as error:
        raise explained(error) from None


def _driver(connection: Connection) -> Any:
    return connection.connection.dbapi_connection


def _fetch(cursor: Any, sql: str, types: Sequence[pl.DataType | None] | None) -> pl.DataFrame:
    with closing(cursor):
        cursor.execute(sql)
        names = [column[0] for column in cursor.description]
        if types is None:
            types = [_MYSQL_TYPES.get(column[1]) for column in cursor.description]
        chunks = []
        while rows := cursor.fetchmany(_CHUNK):
            chunks.append(_columns(rows, names, types))
    return _table(names, types, chunks)


def _is_sqlite(engine: Engine) -> bool:
    return engine.dialect.name == "sqlite"


def _types_of_sqlite(connection: Connection, sql: str) -> list[pl.DataType | None]:
    """The types that SQLite gives a table made from the query, None where it gives none."""
    connection.exec_driver_sql("DROP TABLE IF EXISTS temp.knime_probe")
    connection.exec_driver_sql(
        f"CREATE TEMP TABLE knime_probe AS SELECT * FROM ({sql}) LIMIT 0"  # noqa: S608 - the user's query
    )
    described = connection.exec_driver_sql("PRAGMA temp.table_info(knime_probe)").all()
    connection.exec_driver_sql("DROP TABLE temp.knime_probe")
    return [_AFFINITIES.get(column[2]) for column in described]


def _columns(
    rows: Sequence[Sequence[Any]], names: list[str], types: Sequence[pl.DataType | None]
) -> list[pl.Series]:
    return [
        _series(name, list(cells), type_)
        for name, type_, cells in zip(names, types, zip(*rows, strict=True), strict=True)
    ]


def _series(name: str, cells: list[Any], type_: pl.DataType | None) -> pl.Series:
    """One column of a chunk; Null where nothing says what its type is."""
    try:
        if type_ == pl.Float64:
            cells = [float(cell) if isinstance(cell, (Decimal, int)) else cell for cell in cells]
        if type_ is not None:
            return pl.Series(name, cells, dtype=type_, strict=True)
        return _by_value(name, cells)
    except (TypeError, OverflowError):  # the values have another type than was declared
        return _by_value(name, cells)


def _by_value(name: str, cells: list[Any]) -> pl.Series:
    kinds = {type(cell) for cell in cells} - {type(None)}
    if not kinds:
        return pl.Series(name, cells, dtype=pl.Null)
    for accepted, dtype in _BY_VALUE:
        if kinds <= accepted:
            return pl.Series(name, cells, dtype=dtype, strict=False)
    found = ", ".join(sorted(kind.__name__ for kind in kinds))
    msg = f"column {name!r} holds {found}, which no KNIME column does; CAST it in the query"
    raise ConfigurationError(msg)


def _table(
    names: list[str], types: Sequence[pl.DataType | None], chunks: list[list[pl.Series]]
) -> pl.DataFrame:
    doubled = [name for name in names if names.count(name) > 1]
    if doubled:
        msg = f"the query has two columns called {doubled[0]!r}; name them apart"
        raise ConfigurationError(msg)
    columns = []
    for at, name in enumerate(names):
        pieces = [chunk[at] for chunk in chunks]
        dtype = _common(name, [piece.dtype for piece in pieces], types[at])
        empty = pl.Series(name, [], dtype=dtype)
        columns.append(pl.concat([empty, *(piece.cast(dtype) for piece in pieces)]))
    return pl.DataFrame(columns)


def _common(name: str, found: list[pl.DataType], declared: pl.DataType | None) -> pl.DataType:
    kinds = {dtype for dtype in found if dtype != pl.Null}
    if not kinds:
        return declared or pl.String()
    if len(kinds) == 1:
        return kinds.pop()
    if all(dtype.is_integer() for dtype in kinds):
        return pl.Int64()
    if all(dtype.is_numeric() for dtype in kinds):
        return pl.Float64()
    listed = " and ".join(sorted(str(dtype) for dtype in kinds))
    msg = f"column {name!r} holds {listed}; CAST it to one type in the query"
    raise ConfigurationError(msg)


def append(
    engine: Engine, name: str, frame: pl.DataFrame, *, schema: str | None, batch: int
) -> None:
    """Add the rows of `frame` to a table that exists, all of them or none.

    Raises ConfigurationError where the table or a column is missing, RetriableError and
    FatalError as `read` does.
    """
    try:
        known = {column["name"] for column in inspect(engine).get_columns(name, schema=schema)}
        missing = [column for column in frame.columns if column not in known]
        if missing:
            msg = f"table {name!r} has no column {missing[0]!r}; it has {', '.join(sorted(known))}"
            raise ConfigurationError(msg)
        with engine.begin() as connection:
            if _may_load(connection):
                _load(connection, name, frame, schema)
                return
            for piece in frame.iter_slices(max(batch, _WRITE_ROWS)):
                connection.exec_driver_sql(_insert(engine, name, frame, schema), piece.rows())
    except NoSuchTableError:
        msg = f"there is no table {name!r} in the database; create it before the run"
        raise ConfigurationError(msg) from None
    except (DBAPIError, MySQLError) as error:
        raise explained(error) from None


def _may_load(connection: Connection) -> bool:
    """Whether the caller's engine and the server both allow MySQL's bulk load."""
    if not getattr(_driver(connection), "_local_infile", False):
        return False
    return bool(connection.exec_driver_sql("SELECT @@local_infile").scalar())


def _load(connection: Connection, name: str, frame: pl.DataFrame, schema: str | None) -> None:
    """MySQL's bulk load, many times as fast as inserts; its warnings are errors here."""
    table, columns = _target(connection.engine, name, frame, schema)
    with TemporaryDirectory() as folder, closing(_driver(connection).cursor()) as cursor:
        file = Path(folder) / "rows.csv"
        for piece in frame.iter_slices(_LOAD_ROWS):
            piece.write_csv(
                file, include_header=False, quote_style="non_numeric", null_value="NULL"
            )
            cursor.execute(
                f"LOAD DATA LOCAL INFILE %s INTO TABLE {table} CHARACTER SET utf8mb4 "
                "FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"' ESCAPED BY '' "
                f"LINES TERMINATED BY '\\n' ({columns})",
                (str(file),),
            )
            if cursor.rowcount != piece.height or cursor.warning_count:
                cursor.execute("SHOW WARNINGS LIMIT 1")
                said = cursor.fetchone()
                msg = f"table {name!r} took {cursor.rowcount} of {piece.height} rows: {said}"
                raise FatalError(msg)


def _target(engine: Engine, name: str, frame: pl.DataFrame, schema: str | None) -> tuple[str, str]:
    """The table and its columns, quoted."""
    quote = engine.dialect.identifier_preparer.quote_identifier
    table = f"{quote(schema)}.{quote(name)}" if schema else quote(name)
    return table, ", ".join(quote(column) for column in frame.columns)


def _insert(engine: Engine, name: str, frame: pl.DataFrame, schema: str | None) -> str:
    table, columns = _target(engine, name, frame, schema)
    mark = "?" if _is_sqlite(engine) else "%s"
    marks = ", ".join([mark] * frame.width)
    if not _is_sqlite(engine):
        table, columns = table.replace("%", "%%"), columns.replace("%", "%%")
    return f"INSERT INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608 - quoted names, bound values


def explained(error: DBAPIError | sqlite3.Error | MySQLError) -> RetriableError | FatalError:
    """A driver's error as one of ours, without the statement and its values."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    text = str(cause)
    code = cause.args[0] if cause is not None and cause.args else None
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    if lost or code in MYSQL_PASSING or "locked" in text:
        return RetriableError(f"the database is busy or away: {text}")
    if code in MYSQL_FULL or "is full" in text:
        return FatalError(f"the database's disk is full ({text}): free some space")
    return FatalError(f"the database refused: {text}")
