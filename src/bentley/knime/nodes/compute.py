"""Nodes that compute a column from expressions: Math Formula, Rule Engine, String Manipulation.

What an expression lacks is found before anything runs: it is compiled without a schema first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import polars as pl

from bentley.knime.expressions import jep, rules, strings
from bentley.knime.nodes.base import BaseNode, Context, Port, put_column, register, table

_INT = (-(2**31), 2**31 - 1)
_RETURNED: Mapping[str, pl.DataType] = {
    "java.lang.String": pl.String(),
    "java.lang.Integer": pl.Int32(),
    "java.lang.Double": pl.Float64(),
}


@register("org.knime.ext.jep.JEPNodeFactory")
class MathFormula(BaseNode):
    """One JEP formula per row, into a new column or over an old one.

    `convert_to_int` rounds half up, as Java's Math.round does, into an integer column;
    numbers that don't fit become missing.
    """

    keys = frozenset({"append_column", "replaced_column", "expression", "convert_to_int"})

    def lacks(self) -> Iterable[str]:
        """A formula that is empty, or uses what the compiler doesn't know."""
        expression = self.model.text("expression")
        if not expression.strip():
            return ["setting 'expression' is empty"]
        jep.compile_formula(expression)
        return ()

    def table(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        """The table with the computed column."""
        expression = self.model.text("expression")
        column = jep.compile_formula(expression, frame.schema, context.variables)
        if self.model.flag("convert_to_int"):
            rounded = (column + 0.5).floor()
            column = pl.when(rounded.is_between(*_INT)).then(rounded).cast(pl.Int32)
        return put_column(
            frame,
            column,
            append=self.model.flag("append_column"),
            name=self.model.text("replaced_column"),
        )


@register("org.knime.base.node.rules.engine.RuleEngineNodeFactory")
class RuleEngine(BaseNode):
    """The first rule that matches gives the cell; no match gives a missing one."""

    keys = frozenset(
        {
            "rules",
            "new-column-name",
            "replace-column-name",
            "append-column",
            "disallowLongOutputForCompatibility",
        }
    )

    def lacks(self) -> Iterable[str]:
        """Rules that use what the compiler doesn't know."""
        rules.compile_rules(self.model.texts("rules"))
        return ()

    def table(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        """The table with the rules' column."""
        column = rules.compile_rules(self.model.texts("rules"), frame.schema, context.variables)
        append = self.model.flag("append-column", default=True)
        name = self.model.text("new-column-name" if append else "replace-column-name")
        return put_column(frame, column, append=append, name=name)


@register("org.knime.base.node.rules.engine.RuleEngineFilterNodeFactory")
class RuleBasedRowFilter(BaseNode):
    """Keeps (or drops) the rows whose first matching rule says TRUE."""

    keys = frozenset({"rules", "include"})

    def lacks(self) -> Iterable[str]:
        """Rules that use what the compiler doesn't know."""
        rules.compile_filter(self.model.texts("rules"))
        return ()

    def run(self, inputs: Mapping[int, Port], context: Context) -> dict[int, Port]:
        """The rows kept on port 1."""
        frame = table(inputs, 1)
        wanted = rules.compile_filter(self.model.texts("rules"), frame.schema, context.variables)
        if not self.model.flag("include", default=True):
            wanted = ~wanted
        return {1: frame.filter(wanted)}


@register("org.knime.base.node.preproc.stringmanipulation.StringManipulationNodeFactory")
class StringManipulation(BaseNode):
    """Nested calls of text functions; `return_type` is what the column is made of."""

    keys = frozenset(
        {
            "expression",
            "replaced_column",
            "append_column",
            "test_compilation_on_dialog_close",
            "insert_missing_as_null",
            "return_type",
        }
    )

    def lacks(self) -> Iterable[str]:
        """Java's null for missing cells, and functions that the compiler doesn't know."""
        yield from self.allow("insert_missing_as_null", False)
        yield from self.allow("return_type", *_RETURNED)
        strings.compile_manipulation(self.model.text("expression"))

    def table(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        """The table with the text."""
        expression = self.model.text("expression")
        column = strings.compile_manipulation(expression, frame.schema, context.variables)
        dtype = _RETURNED[self.model.text("return_type", "java.lang.String")]
        return put_column(
            frame,
            column.cast(dtype),
            append=self.model.flag("append_column"),
            name=self.model.text("replaced_column"),
        )
