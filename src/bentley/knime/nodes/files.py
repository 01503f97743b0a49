"""Nodes that bring tables in: CSV Reader and Table Creator."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import polars as pl

from bentley.domain.errors import ConfigurationError, DataError
from bentley.knime.nodes.base import KNIME_TYPES, BaseNode, Context, Port, register, unique_name
from bentley.knime.nodes.paths import chosen_path, path_lacks
from bentley.knime.xmlconfig import Config

_JAVA_TYPES: Mapping[str, pl.DataType] = {
    "java.lang.String": pl.String(),
    "java.lang.Integer": pl.Int32(),
    "java.lang.Long": pl.Int64(),
    "java.lang.Double": pl.Float64(),
}
_NUL = "\0"
_TRIM = "REMOVE_QUOTES_AND_TRIM"


@register("org.knime.base.node.io.filehandling.csv.reader.CSVTableReaderNodeFactory")
class CSVReader(BaseNode):
    """Reads one CSV file.

    Column types come from the saved table specification where there is one, as KNIME keeps
    them; otherwise a column is integer, long, double or text, whatever all its cells are.
    """

    keys = frozenset(
        {"settings", "advanced_settings", "limit_rows", "encoding", "table_spec_config"}
    )
    inputs: ClassVar[tuple[int, ...]] = ()

    def lacks(self) -> Iterable[str]:
        """Several files, row IDs, short rows, and separators that polars can't read."""
        settings = self.model.config("settings")
        yield from path_lacks(settings.config("file_selection"))
        for key in ("has_row_id", "support_short_data_rows", "prepend_file_idx_to_row_id"):
            if settings.flag(key):
                yield f"setting 'settings/{key}' = True is not supported"
        for key in ("column_delimiter", "quote_char"):
            if len(settings.text(key, ",").encode()) != 1:
                yield f"setting 'settings/{key}' = {settings.text(key)!r} is not one byte"
        if settings.text("quote_escape_char", '"') != settings.text("quote_char", '"'):
            yield "setting 'settings/quote_escape_char' must be the quote itself"
        if not settings.flag("use_line_break_row_delimiter", default=True):
            yield "setting 'settings/use_line_break_row_delimiter' = False is not supported"
        advanced = self.model.config("advanced_settings")
        if advanced.text("thousands_separator", _NUL) not in {_NUL, ""}:
            yield "setting 'advanced_settings/thousands_separator' is not supported"
        yield from self._quote_lacks(advanced)
        if advanced.text("decimal_separator", ".") not in {".", ","}:
            yield "setting 'advanced_settings/decimal_separator' is not supported"

    @staticmethod
    def _quote_lacks(advanced: Config) -> Iterable[str]:
        if advanced.text("quote_option", _TRIM) not in {_TRIM, "REMOVE_QUOTES"}:
            yield "setting 'advanced_settings/quote_option' is not supported"
        if not advanced.flag("replace_empty_quotes_with_missing", default=True):
            yield "setting 'advanced_settings/replace_empty_quotes_with_missing' = False is not supported"

    def run(self, inputs: Mapping[int, Port], context: Context) -> dict[int, Port]:
        """The file's rows on port 1."""
        del inputs
        chooser = self.model.config("settings").config("file_selection")
        path = chosen_path(chooser, context.folder)
        texts = self._read(path)
        return {1: self._typed(texts, path)}

    def _read(self, path: Path) -> pl.DataFrame:
        charset = self.model.config("encoding").text("charset") or "UTF-8"
        try:
            content = path.read_bytes().decode(charset.replace("UTF-8", "utf-8-sig"))
        except FileNotFoundError:
            msg = f"there is no file {path}"
            raise ConfigurationError(msg) from None
        except (UnicodeDecodeError, LookupError) as error:
            msg = f"{path} is not readable as {charset}: {error}"
            raise ConfigurationError(msg) from None
        return self._table(content, path)

    def _table(self, content: str, path: Path) -> pl.DataFrame:
        settings, limits = self.model.config("settings"), self.model.config("limit_rows")
        lines: Iterable[str] = io.StringIO(content, newline="")
        if limits.flag("skip_lines"):
            lines = itertools.islice(lines, limits.integer("number_of_lines_to_skip", 0), None)
        quote, comment = settings.text("quote_char", '"'), settings.text("comment_char")
        reader = csv.reader(
            _without_comments(lines, comment, quote) if comment else lines,
            delimiter=settings.text("column_delimiter", ","),
            quotechar=quote,
        )
        rows = [row for row in reader if row or not settings.flag("skip_empty_data_rows")]
        while rows and not rows[-1]:
            rows.pop()
        if settings.flag("has_column_header", default=True):
            names = _unique(rows[0]) if rows else []
            rows = rows[1:]
        else:
            names = [f"Column{at}" for at in range(len(rows[0]) if rows else 0)]
        if limits.flag("skip_data_rows"):
            rows = rows[limits.integer("number_of_rows_to_skip", 0) :]
        if limits.flag("limit_data_rows"):
            rows = rows[: limits.integer("max_rows", 0)]
        for number, row in enumerate(rows, 1):
            if len(row) != len(names):
                msg = f"data row {number} of {path} has {len(row)} cells and not {len(names)}"
                raise DataError(msg, read=len(rows))
        return self._cells(names, rows)

    def _cells(self, names: list[str], rows: list[list[str]]) -> pl.DataFrame:
        """The cells as text, trimmed where the settings say so, empty ones missing."""
        frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
        option = self.model.config("advanced_settings").text("quote_option", _TRIM)
        text = pl.all().str.strip_chars() if option == _TRIM else pl.all()
        return frame.select(pl.when(text != "").then(text).name.keep())

    def _typed(self, texts: pl.DataFrame, path: Path) -> pl.DataFrame:
        comma = self.model.config("advanced_settings").text("decimal_separator", ".") == ","
        saved = self._saved_types()
        columns = []
        for column in texts.get_columns():
            plain = column.str.replace(",", ".", literal=True) if comma else column
            dtype = saved.get(column.name)
            if dtype is None:
                dtype = _guess(plain)
            if dtype == pl.String:
                columns.append(column)
                continue
            cells = plain.str.strip_chars().cast(dtype, strict=False)
            lost = cells.is_null() & plain.is_not_null()
            if lost.any():
                value = column.filter(lost)[0]
                msg = f"column {column.name!r} of {path} holds {value!r}, which is no {dtype}"
                raise DataError(msg, rejected=int(lost.sum()), read=texts.height)
            columns.append(cells)
        return pl.DataFrame(columns)

    def _saved_types(self) -> dict[str, pl.DataType]:
        saved = self.model.config("table_spec_config_Internals").config("individual_specs")
        found = {}
        for file in saved.configs():
            for column in file.configs():
                kind = column.config("type").text("class")
                if column.flag("has_type") and kind in _JAVA_TYPES:
                    found[column.text("name")] = _JAVA_TYPES[kind]
        return found


def _without_comments(lines: Iterable[str], comment: str, quote: str) -> Iterator[str]:
    """The lines but for comments; a line within a quoted cell is never one."""
    inside = False
    for line in lines:
        if inside or not line.startswith(comment):
            inside ^= line.count(quote) % 2 == 1
            yield line


def _unique(header: list[str]) -> list[str]:
    names: list[str] = []
    for at, name in enumerate(header):
        names.append(unique_name(name.strip() or f"Column{at}", names))
    return names


def _guess(column: pl.Series) -> pl.DataType:
    cells = column.str.strip_chars().drop_nulls()
    if not len(cells):
        return pl.String()
    for dtype in (pl.Int32(), pl.Int64(), pl.Float64()):
        if not cells.cast(dtype, strict=False).has_nulls():
            return dtype
    return pl.String()


@register("org.knime.base.node.io.tablecreator.TableCreator2NodeFactory")
class TableCreator(BaseNode):
    """The small table that its user typed in; cells left out are missing."""

    keys = frozenset(
        {
            "rowIndices",
            "columnIndices",
            "values",
            "rowIdPrefix",
            "rowIdSuffix",
            "rowIdStartValue",
            "highlightOutputTable",
            "columnProperties",
        }
    )
    inputs: ClassVar[tuple[int, ...]] = ()

    def lacks(self) -> Iterable[str]:
        """Columns of other types than text, numbers and booleans."""
        for column in self.model.config("columnProperties").configs():
            kind = column.config("ColumnClass").text("cell_class")
            if kind not in KNIME_TYPES:
                yield f"column {column.text('ColumnName')!r} of type {kind!r} is not supported"

    def run(self, inputs: Mapping[int, Port], context: Context) -> dict[int, Port]:
        """The table on port 1."""
        del inputs, context
        rows = [_index(value) for value in self.model.array("rowIndices")]
        places = [_index(value) for value in self.model.array("columnIndices")]
        cells = self.model.array("values")
        height = max(rows, default=-1) + 1
        columns = []
        for at, column in enumerate(self.model.config("columnProperties").configs()):
            texts: list[str | None] = [None] * height
            for row, place, value in zip(rows, places, cells, strict=True):
                if place == at:
                    texts[row] = None if value is None else str(value)
            if column.flag("SkipThisColumn"):
                continue
            columns.append(_typed_column(column, texts))
        return {1: pl.DataFrame(columns)}


def _index(value: object) -> int:
    if not isinstance(value, int):
        msg = f"{value!r} among 'rowIndices' and 'columnIndices' is no index"
        raise ConfigurationError(msg)
    return value


def _typed_column(column: Config, texts: list[str | None]) -> pl.Series:
    name, missing = column.text("ColumnName"), column.text("MissValuePattern")
    dtype = KNIME_TYPES[column.config("ColumnClass").text("cell_class")]
    cells = [None if text == missing and text is not None else text for text in texts]
    if dtype == pl.Boolean:
        return pl.Series(name, [None if c is None else c.lower() == "true" for c in cells], dtype)
    try:
        return pl.Series(name, cells, pl.String()).cast(dtype)
    except pl.exceptions.InvalidOperationError:
        msg = f"column {name!r} holds text that is no {dtype}"
        raise ConfigurationError(msg) from None
