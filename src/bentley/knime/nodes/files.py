"""The CSV Reader."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import polars as pl

from bentley.domain.errors import ConfigurationError, DataError
from bentley.knime.nodes import csvlatest
from bentley.knime.nodes.base import (
    KNIME_TYPES,
    BaseNode,
    Context,
    Port,
    register,
    unique_name,
    unsupported,
)
from bentley.knime.nodes.paths import bundled, chosen_path, path_lacks
from bentley.knime.xmlconfig import Config

_NUL = "\0"
_TRIM = "REMOVE_QUOTES_AND_TRIM"
_SPEC = "table_spec_config_Internals"
_TAB = "table_transformation"
_UNKNOWN = "unknown_columns_transformation"
_SPEC_VERSION = "V4_4"  # of KNIME 4.4 and of all versions after it
_LARGEST_CELL = 2**31 - 1


@register("org.knime.base.node.io.filehandling.csv.reader.CSVTableReaderNodeFactory")
class CSVReader(BaseNode):
    """Reads one CSV file.

    The dialog's Transformation tab is saved with the table's specification: which columns are
    kept, their names, types and places. A column that is not in it is integer, long, double or
    text, whatever all its cells are.
    """

    keys = frozenset(
        {
            "settings/file_selection/path",
            "settings/file_selection/filter_mode",
            "settings/has_column_header",
            "settings/has_row_id",
            "settings/support_short_data_rows",
            "settings/skip_empty_data_rows",
            "settings/prepend_file_idx_to_row_id",
            "settings/comment_char",
            "settings/column_delimiter",
            "settings/quote_char",
            "settings/quote_escape_char",
            "settings/use_line_break_row_delimiter",
            "settings/row_delimiter",
            "settings/autodetect_buffer_size",
            f"{_SPEC}/version",
            f"{_SPEC}/individual_specs",
            f"{_SPEC}/source_group_id",
            f"{_SPEC}/config_id",
            f"{_SPEC}/{_TAB}/columns/num_columns",
            f"{_SPEC}/{_TAB}/columns/intersection_indices",
            f"{_SPEC}/{_TAB}/columns/*/external_spec",
            f"{_SPEC}/{_TAB}/columns/*/name",
            f"{_SPEC}/{_TAB}/columns/*/keep",
            f"{_SPEC}/{_TAB}/columns/*/position",
            f"{_SPEC}/{_TAB}/columns/*/production_path",
            f"{_SPEC}/{_TAB}/skip_empty_columns",
            f"{_SPEC}/{_TAB}/enforce_types",
            f"{_SPEC}/{_TAB}/column_filter_mode",
            f"{_SPEC}/{_TAB}/{_UNKNOWN}/position",
            f"{_SPEC}/{_TAB}/{_UNKNOWN}/keep",
            f"{_SPEC}/{_TAB}/{_UNKNOWN}/force_type",
            "advanced_settings/fail_on_differing_specs",
            "advanced_settings/limit_data_rows_scanned",
            "advanced_settings/max_data_rows_scanned",
            "advanced_settings/check_table_spec",
            "advanced_settings/limit_memory_per_column",
            "advanced_settings/maximum_number_of_columns",
            "advanced_settings/quote_option",
            "advanced_settings/replace_empty_quotes_with_missing",
            "advanced_settings/no_row_delimiters_in_quotes",
            "advanced_settings/min_chunk_size_in_bytes",
            "advanced_settings/max_num_chunks_per_file",
            "advanced_settings/thousands_separator",
            "advanced_settings/decimal_separator",
            "limit_rows/skip_lines",
            "limit_rows/number_of_lines_to_skip",
            "limit_rows/skip_data_rows",
            "limit_rows/number_of_rows_to_skip",
            "limit_rows/limit_data_rows",
            "limit_rows/max_rows",
            "encoding/charset",
        }
        | csvlatest.KEYS
    )
    inputs: ClassVar[tuple[int, ...]] = ()

    @cached_property
    def form(self) -> Config:
        """The settings in the older form, which the latest one is put into."""
        return csvlatest.older(self.model) if csvlatest.GROUP in self.model else self.model

    def lacks(self) -> Iterable[str]:
        """Several files, row IDs, short rows, separators and transformations beyond the usual."""
        if csvlatest.GROUP not in self.model:
            yield from self._form_lacks()
            return
        yield from csvlatest.lacks(self.model)
        yield from map(csvlatest.named, self._form_lacks())

    def _form_lacks(self) -> Iterable[str]:
        settings = self.form.config("settings")
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
        advanced = self.form.config("advanced_settings")
        if advanced.text("thousands_separator", _NUL) not in {_NUL, ""}:
            yield "setting 'advanced_settings/thousands_separator' is not supported"
        yield from self._quote_lacks(advanced)
        if advanced.text("decimal_separator", ".") not in {".", ","}:
            yield "setting 'advanced_settings/decimal_separator' is not supported"
        if advanced.flag("append_path_column_Internals"):
            yield "setting 'advanced_settings/append_path_column_Internals' = True is not supported"
        yield from self._spec_lacks()

    def _spec_lacks(self) -> Iterable[str]:
        spec = self.form.config(_SPEC)
        if spec.text("version", _SPEC_VERSION) != _SPEC_VERSION:
            yield unsupported(spec, "version")
        tab = spec.config(_TAB)
        unknown = tab.config(_UNKNOWN)
        for config, key in ((tab, "skip_empty_columns"), (unknown, "force_type")):
            if config.flag(key):
                yield unsupported(config, key)
        if not (tab.flag("enforce_types", default=True) or self._is_as_saved()):
            yield f"setting '{tab.path}/enforce_types' = False is not supported for another file"
        for column in self._transformations():
            if column.flag("keep", default=True) and _produced(column) is None:
                kind = column.config("production_path").text("_converter_dst")
                yield f"type {kind!r} in '{column.path}/production_path' is not supported"

    def _is_as_saved(self) -> bool:
        """Whether the file is the one that the saved specification was made from."""
        location = self.form.config("settings").config("file_selection").config("path")
        return location.text("path") == self.form.config(_SPEC).text("source_group_id")

    def _transformations(self) -> list[Config]:
        columns = self.form.config(_SPEC).config(_TAB).config("columns").configs()
        return [column for column in columns if "external_spec" in column]

    @staticmethod
    def _quote_lacks(advanced: Config) -> Iterable[str]:
        if advanced.text("quote_option", _TRIM) not in {_TRIM, "REMOVE_QUOTES"}:
            yield "setting 'advanced_settings/quote_option' is not supported"
        if not advanced.flag("replace_empty_quotes_with_missing", default=True):
            yield "setting 'advanced_settings/replace_empty_quotes_with_missing' = False is not supported"

    def run(self, inputs: Mapping[int, Port], context: Context) -> dict[int, Port]:
        """The file's rows on port 1."""
        del inputs
        chooser = self.form.config("settings").config("file_selection")
        path = chosen_path(chooser, context.folder)
        texts = self._read(path, bundled(path, context.folder))
        return {1: self._transformed(texts, path)}

    def _read(self, path: Path, found: bytes | None) -> pl.DataFrame:
        charset = self.form.config("encoding").text("charset") or "UTF-8"
        try:
            data = path.read_bytes() if found is None else found
            content = data.decode(charset.replace("UTF-8", "utf-8-sig"))
        except FileNotFoundError:
            msg = f"there is no file {path}"
            raise ConfigurationError(msg) from None
        except OSError as error:
            msg = f"{path} can't be read: {error.strerror}"
            raise ConfigurationError(msg) from None
        except (UnicodeDecodeError, LookupError) as error:
            msg = f"{path} is not readable as {charset}: {error}"
            raise ConfigurationError(msg) from None
        return self._table(content, path)

    def _table(self, content: str, path: Path) -> pl.DataFrame:
        settings, limits = self.form.config("settings"), self.form.config("limit_rows")
        lines: Iterable[str] = io.StringIO(content, newline="")
        if limits.flag("skip_lines"):
            lines = itertools.islice(lines, limits.integer("number_of_lines_to_skip", 0), None)
        quote, comment = settings.text("quote_char", '"'), settings.text("comment_char")
        reader = csv.reader(
            _without_comments(lines, comment, quote) if comment else lines,
            delimiter=settings.text("column_delimiter", ","),
            quotechar=quote,
        )
        csv.field_size_limit(_LARGEST_CELL)
        try:
            rows = [row for row in reader if row or not settings.flag("skip_empty_data_rows")]
        except csv.Error as error:
            msg = f"{path} is not readable as CSV: {error}"
            raise DataError(msg) from None
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
        option = self.form.config("advanced_settings").text("quote_option", _TRIM)
        text = pl.all().str.strip_chars() if option == _TRIM else pl.all()
        return frame.select(pl.when(text != "").then(text).name.keep())

    def _transformed(self, texts: pl.DataFrame, path: Path) -> pl.DataFrame:
        """The columns kept, in their places, with their types and names."""
        known = {
            column.config("external_spec").text("name"): column
            for column in self._transformations()
        }
        self._compare(known, texts.columns, path)
        unknown = self.form.config(_SPEC).config(_TAB).config(_UNKNOWN)
        placed = []
        for column in texts.get_columns():
            rule = known.get(column.name, unknown)
            if rule.flag("keep", default=True):
                cells = self._typed(column, _produced(rule), path)
                name = column.name if rule is unknown else rule.text("name")
                placed.append((rule.integer("position", len(known)), cells.alias(name)))
        placed.sort(key=lambda place: place[0])
        return pl.DataFrame([cells for _, cells in placed])

    def _compare(self, known: Iterable[str], found: list[str], path: Path) -> None:
        """Fail where the file lacks a saved column, or has a new one and must not have."""
        lost = [name for name in known if name not in found]
        strict = self.form.config("advanced_settings").flag("check_table_spec")
        if lost or (known and strict and self._is_as_saved() and set(found) - set(known)):
            msg = f"{path} has the columns {', '.join(found)}, but {', '.join(known)} were saved"
            raise DataError(msg)

    def _typed(self, column: pl.Series, dtype: pl.DataType | None, path: Path) -> pl.Series:
        comma = self.form.config("advanced_settings").text("decimal_separator", ".") == ","
        plain = column.str.replace(",", ".", literal=True) if comma else column
        dtype = dtype or _guess(plain)
        if dtype == pl.String:
            return column
        cells = plain.str.strip_chars().cast(dtype, strict=False)
        lost = cells.is_null() & plain.is_not_null()
        if lost.any():
            value = column.filter(lost)[0]
            msg = f"column {column.name!r} of {path} holds {value!r}, which is no {dtype}"
            raise DataError(msg, rejected=int(lost.sum()), read=len(column))
        return cells


def _produced(column: Config) -> pl.DataType | None:
    """The type that a saved transformation makes; None where it is none that can be made here."""
    path = column.config("production_path")
    if path.config("_converter_config").children or path.config("_producer_config").children:
        return None
    # the converter is named by its method: `org...def.IntCell$IntCellFactory.create(...)`
    dtype = KNIME_TYPES.get(path.text("_converter").partition("$")[0])
    return None if dtype == pl.Boolean else dtype


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
