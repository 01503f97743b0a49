"""Nodes with two and more tables: Joiner and Concatenate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import polars as pl

from bentley.domain.errors import ConfigurationError
from bentley.knime.nodes.base import BaseNode, Context, Port, need, register, table, unique_name
from bentley.knime.nodes.filters import dynamic_columns, dynamic_filter_lacks

_ROW_LEFT, _ROW_RIGHT = "\0left", "\0right"
_KEY = "\0key"


@register("org.knime.base.node.preproc.joiner3.Joiner3NodeFactory")
class Joiner(BaseNode):
    """Joins port 1 with port 2 on equal columns; a missing cell matches nothing.

    The output is in KNIME's order `LEFT_RIGHT`: matches by left then right row, then unmatched
    left rows, then unmatched right rows.
    """

    keys = frozenset(
        {
            "compositionMode",
            "matchingCriteria",
            "dataCellComparisonMode",
            "includeMatchesInOutput",
            "includeLeftUnmatchedInOutput",
            "includeRightUnmatchedInOutput",
            "leftColumnSelectionConfigV2",
            "rightColumnSelectionConfigV2",
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
    )
    inputs: ClassVar[tuple[int, ...]] = (1, 2)

    def lacks(self) -> Iterable[str]:
        """Joins on row IDs, on any of several criteria, and rows put out on ports of their own."""
        yield from self.allow("compositionMode", "MATCH_ALL")
        yield from self.allow("dataCellComparisonMode", "STRICT")
        yield from self.allow("duplicateHandling", "APPEND_SUFFIX", "DO_NOT_EXECUTE")
        yield from self.allow("outputUnmatchedRowsToSeparatePorts", False)
        criteria = self.model.config("matchingCriteria").configs()
        if not criteria:
            yield "setting 'matchingCriteria' is empty"
        for criterion in criteria:
            for side in ("leftTableColumnV2", "rightTableColumnV2"):
                if criterion.config(side).text("specialChoice_Internals"):
                    yield f"joining on row IDs in {criterion.path!r} is not supported"
                elif not criterion.config(side).text("regularChoice"):
                    yield f"setting '{criterion.path}/{side}' names no column"
        for side in ("leftColumnSelectionConfigV2", "rightColumnSelectionConfigV2"):
            yield from dynamic_filter_lacks(self.model.config(side))

    def run(self, inputs: Mapping[int, Port], context: Context) -> dict[int, Port]:
        """The joined table on port 1."""
        del context
        left, right = table(inputs, 1), table(inputs, 2)
        pairs = self._pairs(left, right)
        names = self._names(left, right, pairs)
        joined = _matches(left, right, pairs)
        parts = []
        if self.model.flag("includeMatchesInOutput", default=True):
            parts.append(joined)
        if self.model.flag("includeLeftUnmatchedInOutput"):
            parts.append(_unmatched(left, joined, _ROW_LEFT))
        if self.model.flag("includeRightUnmatchedInOutput"):
            parts.append(_unmatched(right, joined, _ROW_RIGHT))
        rows = pl.concat(parts, how="diagonal") if parts else joined.clear()
        return {1: _gather(rows, left, right, names)}

    def _pairs(self, left: pl.DataFrame, right: pl.DataFrame) -> list[tuple[str, str]]:
        pairs = []
        for criterion in self.model.config("matchingCriteria").configs():
            (a,) = need(left, [criterion.config("leftTableColumnV2").text("regularChoice")])
            (b,) = need(right, [criterion.config("rightTableColumnV2").text("regularChoice")])
            if left.schema[a] != right.schema[b]:
                msg = (
                    f"column {a!r} ({left.schema[a]}) can't be joined with {b!r} "
                    f"({right.schema[b]}): the types must be equal"
                )
                raise ConfigurationError(msg)
            pairs.append((a, b))
        return pairs

    def _names(
        self, left: pl.DataFrame, right: pl.DataFrame, pairs: list[tuple[str, str]]
    ) -> list[tuple[str, str | None, str | None]]:
        """Output columns: a name, the left column and the right column that fill it."""
        chosen = dynamic_columns(self.model.config("leftColumnSelectionConfigV2"), left)
        others = dynamic_columns(self.model.config("rightColumnSelectionConfigV2"), right)
        merge = self.model.flag("mergeJoinColumns")
        partner = dict(pairs) if merge else {}
        merged = set(partner.values())
        names: list[tuple[str, str | None, str | None]] = [
            (name, name, partner.get(name)) for name in chosen
        ]
        taken = {name for name, _, _ in names}
        fail = self.model.text("duplicateHandling") == "DO_NOT_EXECUTE"
        for name in others:
            if name in merged:
                continue
            new = name
            if name in taken:
                if fail:
                    msg = f"both tables have a column {name!r}"
                    raise ConfigurationError(msg)
                new = unique_name(f"{name}{self.model.text('suffix', ' (Right)')}", taken)
            taken.add(new)
            names.append((new, None, name))
        return names


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
    rows: pl.DataFrame,
    left: pl.DataFrame,
    right: pl.DataFrame,
    names: list[tuple[str, str | None, str | None]],
) -> pl.DataFrame:
    columns = []
    for name, a, b in names:
        cells = [
            frame[column].gather(rows[row])
            for frame, column, row in ((left, a, _ROW_LEFT), (right, b, _ROW_RIGHT))
            if column is not None and row in rows.columns
        ]
        if not cells:
            source = left.schema[a] if a is not None else right.schema[str(b)]
            columns.append(pl.Series(name, [None] * rows.height, dtype=source))
            continue
        column = (
            cells[0] if len(cells) == 1 else cells[0].zip_with(cells[0].is_not_null(), cells[1])
        )
        columns.append(column.alias(name))
    return pl.DataFrame(columns)


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
