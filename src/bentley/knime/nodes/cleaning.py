"""Nodes that clean: Missing Value and Duplicate Row Filter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import polars as pl

from bentley.knime.nodes.base import KNIME_TYPES, BaseNode, Context, Port, need, register, table
from bentley.knime.nodes.filters import filter_columns, filter_keys, filter_lacks
from bentley.knime.xmlconfig import Config

_FACTORY = "MissingCellHandlerFactory"
_FIXED = {
    "FixedStringValue": "fixStringValue",
    "FixedIntegerValue": "fixIntegerValue",
    "FixedLongValue": "fixLongValue",
    "FixedDoubleValue": "fixDoubleValue",
    "FixedBooleanValue": "fixBooleanValue",
}
_HANDLERS = {"DoNothing", "RemoveRow", "Previous", "Next", *_FIXED} | {
    "Mean",
    "DoubleMean",
    "IntegerMean",
    "LongMean",
    "Min",
    "IntegerMin",
    "DoubleMin",
    "LongMin",
    "Max",
    "IntegerMax",
    "DoubleMax",
    "LongMax",
}


def _handler(settings: Config) -> str:
    """`FixedStringValue` of `...handlers.FixedStringValueMissingCellHandlerFactory`."""
    return settings.text("factoryID").rpartition(".")[2].removesuffix(_FACTORY)


@register("org.knime.base.node.preproc.pmml.missingval.compute.MissingValueHandlerNodeFactory")
class MissingValue(BaseNode):
    """Fills or removes missing cells: a column's own rule first, then its type's.

    Port 2, a PMML document with the same rules, is not made.
    """

    keys = frozenset(
        {
            "columnSettings/*/colNames",
            "columnSettings/*/settings/factoryID",
            "dataTypeSettings/*/factoryID",
            *(f"columnSettings/*/settings/settings/{key}" for key in _FIXED.values()),
            *(f"dataTypeSettings/*/settings/{key}" for key in _FIXED.values()),
        }
    )

    def lacks(self) -> Iterable[str]:
        """Handlers beyond the common ones."""
        for place, settings in self._rules():
            if _handler(settings) not in _HANDLERS:
                yield f"handler {settings.text('factoryID')!r} for {place} is not supported"

    def _rules(self) -> Iterable[tuple[str, Config]]:
        for column in self.model.config("columnSettings").configs():
            names = ", ".join(column.texts("colNames"))
            yield f"column {names}", column.config("settings")
        for kind in self.model.config("dataTypeSettings").configs():
            yield f"type {kind.key}", kind

    def run(self, inputs: Mapping[int, Port], context: Context) -> dict[int, Port]:
        """The cleaned table on port 1; statistics are taken before any row is removed."""
        del context
        frame = table(inputs, 1)
        by_column = {
            name: column.config("settings")
            for column in self.model.config("columnSettings").configs()
            for name in need(frame, column.texts("colNames"))
        }
        types = self.model.config("dataTypeSettings")
        by_type = {
            KNIME_TYPES[kind.key]: kind for kind in types.configs() if kind.key in KNIME_TYPES
        }
        filled, kept = [], []
        for name, dtype in frame.schema.items():
            settings = by_column.get(name) or by_type.get(dtype)
            if settings is None or _handler(settings) == "DoNothing":
                continue
            if _handler(settings) == "RemoveRow":
                kept.append(pl.col(name).is_not_null())
            else:
                filled.append(_fill(pl.col(name), dtype, settings))
        if kept:
            mask = frame.select(pl.all_horizontal(kept)).to_series()
            return {1: frame.with_columns(filled).filter(mask)}
        return {1: frame.with_columns(filled)}


def _fill(column: pl.Expr, dtype: pl.DataType, settings: Config) -> pl.Expr:
    handler = _handler(settings)
    if handler in _FIXED:
        value = settings.config("settings").require(_FIXED[handler])
        return column.fill_null(pl.lit(value).cast(dtype))
    if handler == "Previous":
        return column.forward_fill()
    if handler == "Next":
        return column.backward_fill()
    if handler in {"IntegerMean", "LongMean"}:
        return column.fill_null(column.mean().round().cast(dtype))
    if handler.endswith("Mean"):  # an integer column becomes one of doubles
        return column.cast(pl.Float64).fill_null(column.mean())
    return column.fill_null(column.min() if handler.endswith("Min") else column.max())


@register("org.knime.base.node.preproc.duplicates.DuplicateRowFilterNodeFactory")
class DuplicateRowFilter(BaseNode):
    """Keeps one row of each set that agrees in the chosen columns; missing equals missing.

    Or, with `remove_duplicates` off, keeps all and says of each: unique, chosen, duplicate.
    """

    keys = filter_keys("group_cols") | frozenset(
        {
            "remove_duplicates",
            "add_row_duplicate_flag",
            "unique_flag_column_name",
            "add_row_id_flag",
            "row_id_flag_column_name",
            "row_selection",
            "reference_col",
            "in_memory",
            "retain_order",
            "update_domains",
        }
    )

    def lacks(self) -> Iterable[str]:
        """Row IDs of the chosen rows, since this engine has no row IDs."""
        yield from filter_lacks(self.model.config("group_cols"))
        yield from self.allow("row_selection", "FIRST", "LAST", "MINIMUM", "MAXIMUM")
        if not self.model.flag("remove_duplicates", default=True):
            yield from self.allow("add_row_id_flag", False)

    def table(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        """The chosen rows, or all with their status, in the order that they came."""
        del context
        keys = filter_columns(self.model.config("group_cols"), frame)
        rule = self._chosen(frame).over(keys) if keys else self._chosen(frame)
        chosen = frame.select(rule.alias("chosen")).to_series()
        if self.model.flag("remove_duplicates", default=True):
            return frame.filter(chosen)
        if not self.model.flag("add_row_duplicate_flag", default=True):
            return frame
        name = self.model.text("unique_flag_column_name", "Duplicate Status")
        alone = (pl.len().over(keys) if keys else pl.len()) == 1
        status = pl.when(alone).then(pl.lit("unique")).when(chosen).then(pl.lit("chosen"))
        return frame.with_columns(status.otherwise(pl.lit("duplicate")).alias(name))

    def _chosen(self, frame: pl.DataFrame) -> pl.Expr:
        row = pl.int_range(pl.len(), dtype=pl.Int64)
        selection = self.model.text("row_selection", "FIRST")
        if selection == "FIRST":
            return row == 0
        if selection == "LAST":
            return row == pl.len() - 1
        (name,) = need(frame, [self.model.text("reference_col")])
        cell = pl.col(name)
        extreme = cell.min() if selection == "MINIMUM" else cell.max()
        best = cell.eq_missing(extreme)  # all missing: the first of them
        return row == best.arg_max()
