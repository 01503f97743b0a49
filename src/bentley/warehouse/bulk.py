"""The fast ways into and out of each database.

SQLite takes many rows in one statement; MySQL and MariaDB take a file by LOAD DATA where the
server allows it, and prepared rows where it doesn't. Both replace a row of the same key whole.
"""

from __future__ import annotations

import io
import re
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any, cast

import polars as pl
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bentley.domain.errors import FatalError
from bentley.warehouse.schema import Exact

_LOAD_FROM_ROWS = 2_000
"""Below this many rows a file costs more than it saves."""

_BOUND_VALUES = 4_000
"""So many values go into one statement, or fewer where this SQLite takes no more."""

_LISTED_TOGETHER = 16_000
"""So many rows' values are Python's own at once: as such they take several times their room."""

_UNIT = "\x1f"

_LITERAL_FROM_ROWS = 500
"""From so many rows on it pays to write into the statement what all of them share."""

_PLAIN_TYPES = {pl.Int8, pl.Int64}
_PLAIN = re.compile(r"[A-Za-z0-9_.:/ -]*")


def frame(
    connection: Connection,
    query: sa.Select[Any],
    values: Mapping[str, Any] = MappingProxyType({}),
) -> pl.DataFrame:
    """Fetch columns of our tables, each as the type that it has as a column: decimals are exact.

    `values` are those of the query's parameters.
    """
    columns = [
        sa.cast(column, sa.String(48)).label(column.name)
        if isinstance(column.type, Exact | sa.Date)
        else sa.type_coerce(column, column.type)
        for column in query.selected_columns
    ]
    types = {column.name: kind(column) for column in query.selected_columns}
    # Straight from the driver: its tuples need no reading by type, and SQLAlchemy's rows would
    # cost as much again as the query.
    with connection.execute(query.with_only_columns(*columns), dict(values)) as result:
        rows = [] if result.cursor is None else list(result.cursor.fetchall())
    raw = {name: _sent_as(dtype) for name, dtype in types.items()}
    fetched = pl.DataFrame(rows, schema=raw, orient="row")
    days = [pl.col(name).str.to_date() for name, dtype in types.items() if dtype == pl.Date]
    return fetched.with_columns(days).cast(types)


def kind(column: sa.ColumnElement[Any]) -> pl.DataType:
    """The polars type of a column of our tables; bars and frames of stocks have the same."""
    if isinstance(column.type, Exact):
        return pl.Decimal(column.type.precision, column.type.scale)
    if column.name == "is_closed":
        return pl.Boolean()
    if isinstance(column.type, sa.Integer):
        return pl.Int64()
    if isinstance(column.type, sa.Double):
        return pl.Float64()
    return pl.Date() if isinstance(column.type, sa.Date) else pl.String()


def _sent_as(dtype: pl.DataType) -> pl.DataType:
    """How the driver hands a column over: days and decimals are asked for as text."""
    if dtype.is_decimal() or dtype == pl.Date:
        return pl.String()
    return pl.Int64() if dtype == pl.Boolean else dtype


def pages(
    connection: Connection, query: sa.Select[Any], key: sa.Column[Any], *, size: int
) -> Iterator[pl.DataFrame]:
    """Fetch like `frame`, in the order of `key` and in pieces of at most `size` rows."""
    where = query.whereclause
    page = frame(connection, query.order_by(key).limit(size))
    while page.height:
        yield page
        if page.height < size:
            return
        # Ahead of the query's own bounds: SQLite seeks by the first and filters by the others.
        bounds = [key > page[key.name][-1], *([] if where is None else [where])]
        sources = query.get_final_froms()
        rest = sa.select(*query.selected_columns).select_from(*sources).where(*bounds)
        page = frame(connection, rest.order_by(key).limit(size))


@dataclass(frozen=True)
class Listed:
    """Rows as the text that a database takes, which is most of the work: it can be done ahead.

    `shared` are the columns that one value fills, as SQL; the texts hold those of `names`.
    """

    shared: dict[str, str]
    names: list[str]
    texts: list[bytes]


def listed(rows: pl.DataFrame, *, dialect: str) -> Listed | None:
    """Write rows for `write` into a database of this dialect; None where it takes no text.

    The interpreter has next to nothing to do, so that another thread is free to go on.
    """
    shared = {}
    if rows.height >= _LITERAL_FROM_ROWS:
        found = {column.name: _literal(column) for column in rows}
        shared = {name: value for name, value in found.items() if value is not None}
    rest = rows.drop(shared)
    if dialect == "sqlite":
        if not all(dtype in _PLAIN_TYPES or dtype.is_decimal() for dtype in rest.dtypes):
            return None
        if sum(rest.null_count().row(0)):
            return None
        # numbers without a gap: SQLite makes integers of them where its columns are, to the digit
        pieces = rest.iter_slices(_LISTED_TOGETHER)
        texts = [_csv(piece, separator=_UNIT, line_terminator=_UNIT) for piece in pieces]
        return Listed(shared, rest.columns, texts)
    if rows.height < _LOAD_FROM_ROWS:
        return None
    # nothing that LOAD DATA would take for an end of the cell or an escape
    if any(column.str.contains(r"[,\\\n]").any() for column in rest.select(pl.col(pl.String))):
        return None
    return Listed(shared, rest.columns, [_csv(rest, null_value="\\N", quote_style="never")])


def _csv(rows: pl.DataFrame, **form: Any) -> bytes:
    file = io.BytesIO()
    rows.write_csv(file, include_header=False, **form)
    return file.getvalue()


def write(
    connection: Connection,
    table: sa.Table,
    rows: pl.DataFrame,
    *,
    stamp: Mapping[str, int | str] = MappingProxyType({}),
    new: bool = False,
    ahead: Listed | None = None,
) -> None:
    """Insert or replace the rows given, whose columns are columns of `table`.

    A `stamp` is what further columns hold in all of them. `new` says that none of their keys was
    there when it was last looked, which a server is spared to expect: it takes a tenth less time.
    A key that came since is replaced all the same. `ahead` are the very rows, `listed` before.

    Raises FatalError for decimals of another size than the columns': a server would round them.
    """
    for name, dtype in rows.schema.items():
        wanted = kind(table.c[name])
        if dtype.is_decimal() and dtype != wanted:
            msg = f"column {name} of {table.name} takes {wanted}, not {dtype}; nothing is stored"
            raise FatalError(msg)
    dialect = connection.dialect.name
    if dialect != "sqlite" and (rows.height < _LOAD_FROM_ROWS or not loads_files(connection)):
        _replace(connection, table, rows, stamp)
        return
    text = ahead or listed(rows, dialect=dialect)
    if dialect == "sqlite":
        _insert(connection, table, rows, stamp, text)
    elif text is None:
        _replace(connection, table, rows, stamp)
    else:
        _load(connection, table, text, stamp, new=new)


def way(connection: Connection) -> str:
    """Say how many rows are written here."""
    if connection.dialect.name == "sqlite":
        return "INSERT of many rows a statement"
    if loads_files(connection):
        return "LOAD DATA LOCAL INFILE"
    return "prepared REPLACE: the server has local_infile off"


def _as_text(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.col(pl.Decimal, pl.Date).cast(pl.String))


def _insert(
    connection: Connection,
    table: sa.Table,
    rows: pl.DataFrame,
    stamp: Mapping[str, int | str],
    text: Listed | None,
) -> None:
    """Write many rows a statement: executemany steps through SQLite row by row, a fifth slower."""
    shared = {} if text is None else text.shared
    names = rows.columns if text is None else text.names
    width = len(names)  # not 0: the key differs in each row
    file = cast("sqlite3.Connection", connection.connection.driver_connection)
    bound_values = min(_BOUND_VALUES, file.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER))
    size = max(1, (bound_values - len(stamp)) // width)
    verb = "INSERT OR REPLACE"
    head = f"{verb} INTO {table.name} ({_names(connection, table, [*shared, *stamp, *names])}) "
    marks = [*(f"?{at}" for at in range(1, len(stamp) + 1)), *["?"] * width]
    row = f"({', '.join([*shared.values(), *marks])})"

    def put(values: list[Any], many: int) -> list[Any]:
        """Write as many whole times `many` rows as there are, and return the values left over."""
        most = len(values) // (many * width) * many * width
        bound = [
            (*stamp.values(), *values[start : start + many * width])
            for start in range(0, most, many * width)
        ]
        if bound:
            connection.exec_driver_sql(f"{head}VALUES {', '.join([row] * many)}", bound)
        return values[most:]

    # Two statements, the same each time: SQLite takes longer to read one than to do it.
    for values in _values(rows) if text is None else map(_split, text.texts):
        put(put(values, size), 1)


def _split(text: bytes) -> list[str]:
    values = text.decode().split(_UNIT)
    values.pop()  # behind the last end of a line
    return values


def _values(rows: pl.DataFrame) -> Iterator[list[Any]]:
    for piece in rows.iter_slices(_LISTED_TOGETHER):
        # lists and not tuples: those would keep the garbage collector busy
        columns = (column.to_list() for column in _as_text(piece))
        yield list(chain.from_iterable(zip(*columns, strict=True)))


def _literal(column: pl.Series) -> str | None:
    """Write as SQL the one whole number or plain word that fills a column; else None."""
    if column.dtype not in {pl.Int8, pl.Int64, pl.String} or column[0] != column[-1]:
        return None
    if column.n_unique() > 1:
        return None
    value = column[0]
    if isinstance(value, int):
        return str(value)
    # Nothing that any dialect or driver would read otherwise: quotes, backslashes, percent.
    return f"'{value}'" if isinstance(value, str) and _PLAIN.fullmatch(value) else None


def _replace(
    connection: Connection, table: sa.Table, rows: pl.DataFrame, stamp: Mapping[str, int | str]
) -> None:
    marks = ", ".join(["%s"] * (len(stamp) + rows.width))
    names = _names(connection, table, [*stamp, *rows.columns])
    bound = [(*stamp.values(), *row) for row in _as_text(rows).iter_rows()]
    verb = "REPLACE"
    connection.exec_driver_sql(f"{verb} INTO {table.name} ({names}) VALUES ({marks})", bound)


def _names(connection: Connection, table: sa.Table, names: Iterable[str]) -> str:
    quote = connection.dialect.identifier_preparer.quote
    return ", ".join(quote(table.c[name].name) for name in names)


def loads_files(connection: Connection) -> bool:
    """Whether this is a server that takes files of the client."""
    if connection.dialect.name == "sqlite":
        return False
    return bool(connection.exec_driver_sql("SELECT @@local_infile").scalar())


def _load(
    connection: Connection,
    table: sa.Table,
    text: Listed,
    stamp: Mapping[str, int | str],
    *,
    new: bool,
) -> None:
    with tempfile.TemporaryFile() as file:  # without a name: nothing is left, whoever is killed
        file.writelines(text.texts)
        place = f"/dev/fd/{file.fileno()}"  # by which the driver opens it
        quote = connection.dialect.identifier_preparer.quote
        filled = text.shared | dict.fromkeys(stamp, "%s")
        fixed = ", ".join(f"{quote(name)} = {value}" for name, value in filled.items())
        # Without a word, a row whose key is there is left out with a warning.
        for verb in ("", "REPLACE ") if new else ("REPLACE ",):
            file.seek(0)
            connection.exec_driver_sql(
                f"LOAD DATA LOCAL INFILE '{place}' {verb}INTO TABLE {table.name} "
                "CHARACTER SET utf8mb4 FIELDS TERMINATED BY ',' LINES TERMINATED BY '\\n' "
                f"({_names(connection, table, text.names)})" + (f" SET {fixed}" if fixed else ""),
                tuple(stamp.values()),
            )
            # With LOCAL the server turns a bad cell into a warning and stores something else.
            warnings = connection.exec_driver_sql("SHOW WARNINGS LIMIT 3").all()
            if not warnings:
                return
    msg = f"LOAD DATA into {table.name} did not store every cell as given: {warnings}"
    raise FatalError(msg)
