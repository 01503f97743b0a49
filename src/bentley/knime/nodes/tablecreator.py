"""The Table Creator, in its older and in its latest form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import polars as pl

from bentley.domain.errors import ConfigurationError
from bentley.knime.nodes.base import KNIME_TYPES, BaseNode, Context, Port, register
from bentley.knime.xmlconfig import Config


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
            "columnProperties/*/ColumnName",
            "columnProperties/*/ColumnClass",
            "columnProperties/*/SkipThisColumn",
            "columnProperties/*/MissValuePattern",
            "columnProperties/*/FormatParameter",
            "columnProperties/*/UserSetValues",
            "columnProperties/*/ReadPossValsFromFile",
            "columnProperties/*/PossValues",
            "columnProperties/*/LowerBound",
            "columnProperties/*/UpperBound",
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
        values = self.model.array("values")
        height = max(rows, default=-1) + 1
        columns = []
        for at, column in enumerate(self.model.config("columnProperties").configs()):
            texts: list[str | None] = [None] * height
            for row, place, value in zip(rows, places, values, strict=True):
                if place == at:
                    texts[row] = None if value is None else str(value)
            if column.flag("SkipThisColumn"):
                continue
            missing = column.text("MissValuePattern")
            cells = [None if text == missing else text for text in texts]
            kind = column.config("ColumnClass").text("cell_class")
            columns.append(_typed(column.text("ColumnName"), kind, cells))
        return {1: pl.DataFrame(columns)}


def _index(value: object) -> int:
    if not isinstance(value, int):
        msg = f"{value!r} among 'rowIndices' and 'columnIndices' is no index"
        raise ConfigurationError(msg)
    return value


def _typed(name: str, kind: str, cells: list[str | None]) -> pl.Series:
    dtype = KNIME_TYPES[kind]
    if dtype == pl.Boolean:
        return pl.Series(name, [None if c is None else c.lower() == "true" for c in cells], dtype)
    try:
        return pl.Series(name, cells, pl.String()).cast(dtype)
    except pl.exceptions.InvalidOperationError:
        msg = f"column {name!r} holds text that is no {dtype}"
        raise ConfigurationError(msg) from None


@register("org.knime.base.node.io.tablecreator.TableCreator3NodeFactory")
class LatestTableCreator(BaseNode):
    """The Table Creator of the latest KNIME versions, which keeps a list of values per column.

    A list may be shorter than the table: the cells beyond it are missing. KNIME saves no text
    in a column of numbers that isn't one; it is refused before anything runs.
    """

    keys = frozenset(
        {
            "numRows",
            "columns/*/name",
            "columns/*/type/cell_class",
            "columns/*/type/is_null",
            "columns/*/values",
        }
    )
    inputs: ClassVar[tuple[int, ...]] = ()

    def lacks(self) -> Iterable[str]:
        """Columns of other types than text, numbers and booleans, and text that is no number."""
        self.model.require("numRows")
        columns = self.model.config("columns").configs()
        if not columns:
            yield "there is no column"
        names = set[str]()
        for column in columns:
            name, kind = column.text("name"), _kind(column)
            if not name.strip() or name in names:
                yield f"column name {name!r} is empty or not the only one"
            names.add(name)
            if kind not in KNIME_TYPES:
                yield f"column {name!r} of type {kind!r} is not supported"
            else:
                _typed(name, kind, _values(column))

    def run(self, inputs: Mapping[int, Port], context: Context) -> dict[int, Port]:
        """The table on port 1."""
        del inputs, context
        height = self.model.integer("numRows", 0)
        columns = []
        for column in self.model.config("columns").configs():
            values = _values(column)[:height]
            values += [None] * (height - len(values))
            columns.append(_typed(column.text("name"), _kind(column), values))
        return {1: pl.DataFrame(columns)}


def _kind(column: Config) -> str:
    return column.config("type").text("cell_class")


def _values(column: Config) -> list[str | None]:
    return [None if value is None else str(value) for value in column.array("values")]
