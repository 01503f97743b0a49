"""Nodes that choose and name columns: Column Filter, Column Renamer, Column Rename."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import polars as pl

from bentley.domain.errors import ConfigurationError
from bentley.knime.nodes.base import BaseNode, Context, need, register
from bentley.knime.nodes.filters import filter_columns, filter_keys, filter_lacks


@register("org.knime.base.node.preproc.filter.column.DataColumnSpecFilterNodeFactory")
class ColumnFilter(BaseNode):
    """Keeps the chosen columns in the table's order."""

    keys = filter_keys("column-filter")

    def lacks(self) -> Iterable[str]:
        """Filters by data type."""
        return filter_lacks(self.model.config("column-filter"))

    def table(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        """The chosen columns."""
        del context
        return frame.select(filter_columns(self.model.config("column-filter"), frame))


@register("org.knime.base.node.preproc.column.renamer.ColumnRenamerNodeFactory")
class ColumnRenamer(BaseNode):
    """Renames columns all at once, so two may swap their names."""

    keys = frozenset({"renamings/*/oldName", "renamings/*/newName"})

    def table(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        """The renamed table."""
        del context
        return rename(
            frame,
            {
                pair.text("oldName"): pair.text("newName")
                for pair in self.model.config("renamings").configs()
            },
        )


@register("org.knime.base.node.preproc.rename.RenameNodeFactory")
class ColumnRename(BaseNode):
    """The older node: `all_columns/<column>/{old_column_name,new_column_name,new_column_type}`."""

    keys = frozenset(
        f"all_columns/*/{key}" for key in ("old_column_name", "new_column_name", "new_column_type")
    )

    def lacks(self) -> Iterable[str]:
        """Changes of a column's type."""
        for column in self.model.config("all_columns").configs():
            if column.integer("new_column_type", 0) != 0:
                yield f"column {column.text('old_column_name')!r} changes its type"

    def table(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        """The renamed table."""
        del context
        pairs = {
            column.text("old_column_name"): column.text("new_column_name")
            for column in self.model.config("all_columns").configs()
            if column.text("new_column_name")
        }
        return rename(frame, {old: new for old, new in pairs.items() if old in frame.columns})


def rename(frame: pl.DataFrame, pairs: Mapping[str, str]) -> pl.DataFrame:
    """Rename; ConfigurationError where an old name is missing or a new one comes twice."""
    need(frame, pairs)
    names = [pairs.get(name, name) for name in frame.columns]
    for name in names:
        if names.count(name) > 1:
            msg = f"two columns would be called {name!r}"
            raise ConfigurationError(msg)
    return frame.rename(dict(pairs))
