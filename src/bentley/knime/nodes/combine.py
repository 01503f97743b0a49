"""Nodes with two and more tables: Joiner and Concatenate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import ClassVar, NamedTuple

import polars as pl

from bentley.domain.errors import ConfigurationError
from bentley.knime.nodes.base import BaseNode, Context, Port, need, register, table
from bentley.knime.nodes.filters import (
    dynamic_columns,
    dynamic_filter_keys,
    dynamic_filter_lacks,
    filter_columns,
    filter_keys,
    filter_lacks,
)
from bentley.knime.xmlconfig import Config

_ROW_LEFT, _ROW_RIGHT = "\0left", "\0right"
_KEY = "\0key"
_ROW_IDS = frozenset({"$RowID$", "<row-keys>"})
"""How the row ID is written where a column's name could stand: up to 4.7, in 5.x."""


class _Output(NamedTuple):
    """An output column: its name, the left column and the right columns that fill it."""

    name: str
    left: str | None
    right: Sequence[str]


@register("org.knime.base.node.preproc.joiner3.Joiner3NodeFactory")
class Joiner(BaseNode):
    """Joins port 1 with port 2 on equal columns; a missing cell matches nothing.

    KNIME up to 4.7 saves the criteria as two arrays of names and the columns in the older form
    of a column filter; 5.x has a config per criterion, and the newer form under `...V2`.
    The output is in KNIME's order `LEFT_RIGHT`: matches by left then right row, then unmatched
    left rows, then unmatched right rows.
    """

    keys = frozenset(
        {
            "compositionMode",
            "matchingCriteria/*/leftTableColumn",
            "matchingCriteria/*/rightTableColumn",
            "matchingCriteria/*/leftTableColumnV2/regularChoice",
            "matchingCriteria/*/leftTableColumnV2/specialChoice_Internals",
            "matchingCriteria/*/rightTableColumnV2/regularChoice",
            "matchingCriteria/*/rightTableColumnV2/specialChoice_Internals",
            "leftTableJoinPredicate",
            "rightTableJoinPredicate",
            "dataCellComparisonMode",
            "includeMatchesInOutput",
            "includeLeftUnmatchedInOutput",
            "includeRightUnmatchedInOutput",
            "mergeJoinColumns",
            "duplicateHandling",
            "suffix",
            "outputUnmatchedRowsToSeparatePorts",
            "rowKeyFactory",
            "rowKeySeparator",
            "outputRowOrder",
            "maxOpenFiles",
            "enableHiliting",
        }
        | filter_keys("leftColumnSelectionConfig")
        | filter_keys("rightColumnSelectionConfig")
        | dynamic_filter_keys("leftColumnSelectionConfigV2")
        | dynamic_filter_keys("rightColumnSelectionConfigV2")
    )
    inputs: ClassVar[tuple[int, ...]] = (1, 2)

    def lacks(self) -> Iterable[str]:
        """Joins on row IDs, on any of several criteria, and rows put out on ports of their own."""
        yield from self.allow("compositionMode", "MATCH_ALL")
        yield from self.allow("dataCellComparisonMode", "STRICT")
        yield from self.allow("duplicateHandling", "APPEND_SUFFIX", "DO_NOT_EXECUTE")
        yield from self.allow("outputUnmatchedRowsToSeparatePorts", False)
        if self.model.text("duplicateHandling") != "DO_NOT_EXECUTE" and not self._suffix().strip():
            yield "setting 'suffix' is empty"
        criteria = self._criteria()
        if not criteria:
            yield "there is no matching criterion"
        for number, pair in enumerate(criteria, 1):
            for side, name in zip(("left", "right"), pair, strict=True):
                if name in _ROW_IDS:
                    yield f"criterion {number} joins on row IDs, which is not supported"
                elif not name:
                    yield f"criterion {number} names no column of the {side} table"
        for side in ("left", "right"):
            key = f"{side}ColumnSelectionConfig"
            if f"{key}V2" in self.model:
                yield from dynamic_filter_lacks(self.model.config(f"{key}V2"))
            else:
                yield from filter_lacks(self.model.config(key))

    def _suffix(self) -> str:
        return self.model.text("suffix", " (Right)")

    def _criteria(self) -> list[tuple[str, str]]:
        """The pairs of columns that must be equal, as they are written."""
        if "leftTableJoinPredicate" in self.model:
            left = self.model.texts("leftTableJoinPredicate")
            right = self.model.texts("rightTableJoinPredicate")
            return list(zip_longest(left, right, fillvalue=""))
        return [
            (_criterion_column(each, "left"), _criterion_column(each, "right"))
            for each in self.model.config("matchingCriteria").configs()
        ]

    def _chosen(self, side: str, frame: pl.DataFrame) -> list[str]:
        key = f"{side}ColumnSelectionConfig"
        if f"{key}V2" in self.model:
            return dynamic_columns(self.model.config(f"{key}V2"), frame)
        return filter_columns(self.model.config(key), frame)

    def run(self, inputs: Mapping[int, Port], context: Context) -> dict[int, Port]:
        """The joined table on port 1."""
        del context
        left, right = table(inputs, 1), table(inputs, 2)
        pairs = self._pairs(left, right)
        columns = self._columns(left, right, pairs)
        joined = _matches(left, right, pairs)
        parts = []
        if self.model.flag("includeMatchesInOutput", default=True):
            parts.append(joined)
        if self.model.flag("includeLeftUnmatchedInOutput"):
            parts.append(_unmatched(left, joined, _ROW_LEFT))
        if self.model.flag("includeRightUnmatchedInOutput"):
            parts.append(_unmatched(right, joined, _ROW_RIGHT))
        rows = pl.concat(parts, how="diagonal") if parts else joined.clear()
        return {1: _gather(rows, left, right, columns)}

    def _pairs(self, left: pl.DataFrame, right: pl.DataFrame) -> list[tuple[str, str]]:
        pairs = []
        for criterion in self._criteria():
            (a,), (b,) = need(left, criterion[:1]), need(right, criterion[1:])
            if left.schema[a] != right.schema[b]:
                msg = (
                    f"column {a!r} ({left.schema[a]}) can't be joined with {b!r} "
                    f"({right.schema[b]}): the types must be equal"
                )
                raise ConfigurationError(msg)
            pairs.append((a, b))
        return pairs

    def _columns(
        self, left: pl.DataFrame, right: pl.DataFrame, pairs: list[tuple[str, str]]
    ) -> list[_Output]:
        """The output columns, left before right.

        Merged, a left join column takes in all its partners: it is there when it or one of
        them is chosen, and is called `left=right` unless a partner has its name.
        """
        chosen, others = self._chosen("left", left), self._chosen("right", right)
        partners: dict[str, list[str]] = {}
        if self.model.flag("mergeJoinColumns"):
            for a, b in pairs:
                partners.setdefault(a, []).append(b)
        merged = {name for names in partners.values() for name in names}
        columns: list[_Output] = []
        for name in left.columns:
            rights = partners.get(name, [])
            if name in chosen or not set(rights).isdisjoint(others):
                new = name if name in rights else "=".join([name, *rights])
                columns.append(_Output(self._free(new, columns), name, rights))
        for name in others:
            if name not in merged:
                columns.append(_Output(self._free(name, columns), None, [name]))
        return columns

    def _free(self, name: str, columns: list[_Output]) -> str:
        """The name, with the suffix as often as it takes to be no other column's."""
        taken = {column.name for column in columns}
        if name in taken and self.model.text("duplicateHandling") == "DO_NOT_EXECUTE":
            msg = f"both tables have a column {name!r}"
            raise ConfigurationError(msg)
        while name in taken:
            name += self._suffix()
        return name


def _criterion_column(criterion: Config, side: str) -> str:
    newest = criterion.config(f"{side}TableColumnV2")
    if newest.text("specialChoice_Internals"):
        return "<row-keys>"
    return newest.text("regularChoice") or criterion.text(f"{side}TableColumn")


def _matches(left: pl.DataFrame, right: pl.DataFrame, pairs: list[tuple[str, str]]) -> pl.DataFrame:
    keys = [f"{_KEY}{at}" for at in range(len(pairs))]
    one = left.select(pl.col(a).alias(key) for key, (a, _) in zip(keys, pairs, strict=True))
    two = right.select(pl.col(b).alias(key) for key, (_, b) in zip(keys, pairs, strict=True))
    return (
        one.with_row_index(_ROW_LEFT)
        .join(two.with_row_index(_ROW_RIGHT), on=keys, how="inner", nulls_equal=False)
        .select(_ROW_LEFT, _ROW_RIGHT)
        .sort(_ROW_LEFT, _ROW_RIGHT)
    )


def _unmatched(frame: pl.DataFrame, joined: pl.DataFrame, row: str) -> pl.DataFrame:
    rows = frame.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias(row))
    return rows.join(joined.select(row), on=row, how="anti", maintain_order="left")


def _gather(
    rows: pl.DataFrame, left: pl.DataFrame, right: pl.DataFrame, columns: list[_Output]
) -> pl.DataFrame:
    return pl.DataFrame([_cells(rows, left, right, column) for column in columns])


def _cells(
    rows: pl.DataFrame, left: pl.DataFrame, right: pl.DataFrame, column: _Output
) -> pl.Series:
    """The left cell, and where there is none what all the right ones agree on."""
    source = right[column.right[0]] if column.left is None else left[column.left]
    cells = pl.Series([None] * rows.height, dtype=source.dtype)
    if column.right and _ROW_RIGHT in rows.columns:
        cells, *more = (right[name].gather(rows[_ROW_RIGHT]) for name in column.right)
        for other in more:
            cells = cells.set(cells.ne_missing(other), None)
    if column.left is not None and _ROW_LEFT in rows.columns:
        own = left[column.left].gather(rows[_ROW_LEFT])
        cells = own.zip_with(own.is_not_null(), cells) if column.right else own
    return cells.alias(column.name)


@register("org.knime.base.node.preproc.append.row.AppendedRowsNodeFactory")
class Concatenate(BaseNode):
    """Puts the tables of all ports below each other, by column name.

    Without row IDs there is nothing to skip or to fail on, so only the settings that keep
    every row are supported.
    """

    keys = frozenset(
        {
            "intersection_of_columns",
            "create_new_rowids",
            "fail_on_duplicates",
            "append_suffix",
            "suffix",
            "enable_hiliting",
        }
    )

    def lacks(self) -> Iterable[str]:
        """Row IDs that decide which rows stay."""
        if self.model.flag("create_new_rowids") or self.model.flag("append_suffix"):
            return
        yield (
            "'create_new_rowids' and 'append_suffix' are both off: which rows stay would depend "
            "on row IDs, which this engine does not have"
        )

    def run(self, inputs: Mapping[int, Port], context: Context) -> dict[int, Port]:
        """The combined table on port 1."""
        del context
        frames = [table(inputs, port) for port in sorted(inputs) if port > 0]
        types = _common_types(frames)
        if self.model.flag("intersection_of_columns"):
            types = {
                name: dtype
                for name, dtype in types.items()
                if all(name in frame.columns for frame in frames)
            }
        aligned = [
            frame.select(
                (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
                for name, dtype in types.items()
            )
            for frame in frames
        ]
        return {1: pl.concat(aligned)}


def _common_types(frames: list[pl.DataFrame]) -> dict[str, pl.DataType]:
    types: dict[str, pl.DataType] = {}
    for frame in frames:
        for name, dtype in frame.schema.items():
            known = types.setdefault(name, dtype)
            if known == dtype:
                continue
            if not (known.is_numeric() and dtype.is_numeric()):
                msg = f"column {name!r} is {known} in one table and {dtype} in another"
                raise ConfigurationError(msg)
            types[name] = pl.Float64() if known.is_float() or dtype.is_float() else pl.Int64()
    return types
