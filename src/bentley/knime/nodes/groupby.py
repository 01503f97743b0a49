"""GroupBy: one row per group, one column per aggregation, named as KNIME names them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import polars as pl

from bentley.domain.errors import ConfigurationError
from bentley.knime.nodes.base import BaseNode, Context, Port, need, register, table, unique_name


class Method(NamedTuple):
    """An aggregation: its label in column names and its expression.

    `numeric` limits it to numbers. A `starred` one lets the user include missing cells, and
    gets a star in its column's name where they are left out. `members`, where it is given,
    counts what KNIME would keep in memory: a group with more than the node's
    `maxNoneNumericalVals` of them is missing.
    """

    label: str
    expression: Callable[[pl.Expr], pl.Expr]
    numeric: bool = False
    starred: bool = False
    members: Callable[[pl.Expr], pl.Expr] | None = None


def _count(column: pl.Expr) -> pl.Expr:
    return column.count().cast(pl.Int32)


def _unique(column: pl.Expr) -> pl.Expr:
    return column.drop_nulls().n_unique().cast(pl.Int32)


def _variance(column: pl.Expr) -> pl.Expr:
    """The sample's variance; that of a single cell is 0, as in KNIME."""
    return pl.when(column.count() == 1).then(0.0).otherwise(column.var())


def _product(column: pl.Expr) -> pl.Expr:
    return pl.when(column.count() > 0).then(column.cast(pl.Float64).product())


def _sum(column: pl.Expr) -> pl.Expr:
    return pl.when(column.count() > 0).then(column.cast(pl.Float64).sum())


_METHODS: Mapping[str, Method] = {
    "Sum": Method("Sum", _sum, numeric=True),
    "Mean": Method("Mean", pl.Expr.mean, numeric=True),
    "Median": Method("Median", pl.Expr.median, numeric=True, members=pl.Expr.count),
    "Variance": Method("Variance", _variance, numeric=True),
    "Standard deviation": Method(
        "Standard deviation", lambda column: _variance(column).sqrt(), numeric=True
    ),
    "Range": Method("Range", lambda column: column.max() - column.min(), numeric=True),
    "Product": Method("Product", _product, numeric=True),
    "Minimum": Method("Min", pl.Expr.min, starred=True),
    "Maximum": Method("Max", pl.Expr.max, starred=True),
    "Count": Method("Count", _count, starred=True),
    "Unique count": Method("Unique count", _unique, starred=True, members=_unique),
    "First": Method("First", lambda column: column.drop_nulls().first(), starred=True),
    "Last": Method("Last", lambda column: column.drop_nulls().last(), starred=True),
    "Missing value count": Method(
        "Missing value count", lambda column: column.null_count().cast(pl.Int32)
    ),
}
_WITH_MISSING: Mapping[str, Callable[[pl.Expr], pl.Expr]] = {
    "Count": lambda column: column.len().cast(pl.Int32),
    "First": pl.Expr.first,
    "Last": pl.Expr.last,
}
"""Where including missing cells changes the result; the others pass them over all the same."""
_MOST = 10_000
_ALIASES = {
    "Min": "Minimum",
    "Max": "Maximum",
    "UniqueCount": "Unique count",
    "MissingValueCount": "Missing value count",
    "StandardDeviation": "Standard deviation",
    "Standard Deviation": "Standard deviation",
}
_POLICIES: Mapping[str, str] = {
    "Keep original name(s)": "{column}",
    "Aggregation method (column name)": "{method}({column})",
    "Column name (aggregation method)": "{column} ({method})",
}


class Aggregation(NamedTuple):
    """One aggregated column."""

    column: str
    method: str
    with_missing: bool


@register("org.knime.base.node.preproc.groupby.GroupByNodeFactory")
class GroupBy(BaseNode):
    """Groups by equal cells, missing being a value of its own; groups come sorted, or as met."""

    keys = frozenset(
        {
            "grouByColumns/InclList",
            "grouByColumns/ExclList",
            "grouByColumns/keep_all_columns_selected",
            "maxNoneNumericalVals",
            "enableHilite",
            "valueDelimiter",
            "sortInMemory",
            "columnNamePolicy",
            "aggregationColumn/columnNames",
            "aggregationColumn/columnTypes",
            "aggregationColumn/aggregationMethod",
            "aggregationColumn/inclMissingVals",
            "aggregationOperatorSettings",
            "patternAggregators",
            "dataTypeAggregators",
            "retainOrder",
            "inMemory",
            "nodeVersion",
            "typeMatch",
        }
    )

    def lacks(self) -> Iterable[str]:
        """Aggregations by name pattern and by type, and rarer methods.

        KNIME only saves operator settings for methods that have some, and none of ours has.
        """
        yield from self.allow("columnNamePolicy", *_POLICIES)
        for key in ("aggregationOperatorSettings", "patternAggregators", "dataTypeAggregators"):
            if self.model.config(key).children:
                yield f"setting {key!r} is not supported"
        for item in self._aggregations():
            if item.method not in _METHODS:
                yield f"aggregation {item.method!r} of column {item.column!r} is not supported"

    def _aggregations(self) -> list[Aggregation]:
        config = self.model.config("aggregationColumn")
        names, methods = config.texts("columnNames"), config.texts("aggregationMethod")
        missing = config.array("inclMissingVals")
        if not len(names) == len(methods) == len(missing):
            msg = "setting 'aggregationColumn' has lists of different lengths"
            raise ConfigurationError(msg)
        plain = [method.split("_V")[0] for method in methods]
        return [
            Aggregation(name, _ALIASES.get(method, method), flag is True)
            for name, method, flag in zip(names, plain, missing, strict=True)
        ]

    def run(self, inputs: Mapping[int, Port], context: Context) -> dict[int, Port]:
        """One row per group on port 1."""
        del context
        frame = table(inputs, 1)
        keys = need(frame, self.model.config("grouByColumns").texts("InclList"))
        columns: list[pl.Expr] = []
        taken = list(keys)
        for item in self._aggregations():
            need(frame, [item.column])
            name = unique_name(self._name(item), taken)
            taken.append(name)
            columns.append(self._column(item, frame.schema[item.column]).alias(name))
        if not keys:
            return {1: frame.select(columns)}
        grouped = frame.group_by(keys, maintain_order=True).agg(columns)
        if self.model.flag("retainOrder"):
            return {1: grouped}
        return {1: grouped.sort(keys, nulls_last=False, maintain_order=True)}

    def _name(self, item: Aggregation) -> str:
        method = _METHODS[item.method]
        star = "*" if method.starred and not item.with_missing else ""
        policy = self.model.text("columnNamePolicy", "Aggregation method (column name)")
        return _POLICIES[policy].format(method=method.label + star, column=item.column)

    def _column(self, item: Aggregation, dtype: pl.DataType) -> pl.Expr:
        method, column = _METHODS[item.method], pl.col(item.column)
        if method.numeric and not dtype.is_numeric():
            msg = f"aggregation {item.method!r} needs numbers, and {item.column!r} is {dtype}"
            raise ConfigurationError(msg)
        if item.with_missing and item.method in _WITH_MISSING:
            return _WITH_MISSING[item.method](column)
        value = method.expression(column)
        if method.members is not None:
            most = self.model.integer("maxNoneNumericalVals", _MOST)
            value = pl.when(method.members(column) <= most).then(value)
        if item.method == "Sum" and dtype.is_integer():
            # KNIME keeps the column's type, and makes missing what is too large for it
            value = value.cast(dtype, strict=False)
        return value
