"""Nodes that change a column's type or add a simple one: String to Number and its kin."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from bentley.domain.errors import ConfigurationError, DataError
from bentley.knime.expressions.text import java_number
from bentley.knime.nodes.base import (
    KNIME_TYPES,
    BaseNode,
    Context,
    need,
    register,
    unique_name,
    unknown,
)
from bentley.knime.nodes.filters import filter_columns, filter_keys, filter_lacks

_DOUBLE = r"^[+-]?(?:NaN|Infinity|([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[dDfF]?)$"
_WHOLE = r"^[+-]?[0-9]+$"
_TRIMMED = "".join(map(chr, range(33)))
"""What Java's String.trim takes off, and with it Double.parseDouble; Integer.parseInt doesn't."""


@register("org.knime.base.node.preproc.colconvert.stringtonumber2.StringToNumber2NodeFactory")
class StringToNumber(BaseNode):
    """Parses text columns; a cell that is no number becomes missing, or fails where so set.

    Numbers are written as Java's parseDouble, parseInt and parseLong take them (without the
    hexadecimal form); `generic_parse` lets a double end in d or f. A blank cell is missing.
    """

    keys = frozenset(
        {
            "decimal_separator",
            "thousands_separator",
            "parse_type/cell_class",
            "parse_type/is_null",
            "generic_parse",
            "fail_on_error",
        }
        | filter_keys("include")
    )

    def lacks(self) -> Iterable[str]:
        """Types other than integer, long and double."""
        yield from filter_lacks(self.model.config("include"))
        kind = self.model.config("parse_type").text("cell_class")
        if kind not in KNIME_TYPES or not KNIME_TYPES[kind].is_numeric():
            yield f"setting 'parse_type/cell_class' = {kind!r} is not supported"

    def table(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        """The table with numbers."""
        del context
        chosen = filter_columns(self.model.config("include"), frame)
        names = [name for name in chosen if frame.schema[name] == pl.String]
        parsed = frame.select(self._parse(name) for name in names)
        if self.model.flag("fail_on_error"):
            self._refuse(frame, parsed)
        return frame.with_columns(parsed.get_columns())

    def _parse(self, name: str) -> pl.Expr:
        dtype = KNIME_TYPES[self.model.config("parse_type").text("cell_class")]
        text = pl.col(name)
        thousands = self.model.text("thousands_separator")
        if thousands:
            text = text.str.replace_all(thousands, "", literal=True)
        decimal = self.model.text("decimal_separator", ".")
        legal = pl.lit(value=True)
        if decimal != ".":
            legal = ~text.str.contains(".", literal=True)
            text = text.str.replace_all(decimal, ".", literal=True) if decimal else text
        if not self.model.flag("generic_parse", default=True):
            legal &= ~text.str.contains("[dDfF]$")
        if dtype.is_float():
            text = text.str.strip_chars(_TRIMMED)
        legal &= text.str.contains(_DOUBLE if dtype.is_float() else _WHOLE)
        digits = text.str.strip_chars_end("dDfF").str.strip_chars_start("+")
        return pl.when(legal).then(digits).cast(dtype, strict=False).alias(name)

    def _refuse(self, frame: pl.DataFrame, parsed: pl.DataFrame) -> None:
        for column in parsed.get_columns():
            blank = frame[column.name].str.strip_chars(_TRIMMED).str.len_bytes() == 0
            lost = column.is_null() & ~blank
            if lost.any():
                value = frame[column.name].filter(lost)[0]
                msg = f"column {column.name!r} holds {value!r}, which is no {column.dtype}"
                raise DataError(msg, rejected=int(lost.sum()), read=frame.height)


@register("org.knime.base.node.preproc.colconvert.numbertostring2.NumberToString2NodeFactory")
class NumberToString(BaseNode):
    """Writes numbers as Java's toString does."""

    keys = filter_keys("include")

    def lacks(self) -> Iterable[str]:
        """Column filters beyond names and patterns."""
        return filter_lacks(self.model.config("include"))

    def table(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        """The table with text."""
        del context
        names = filter_columns(self.model.config("include"), frame)
        return frame.with_columns(
            _java_text(name, frame.schema[name])
            for name in names
            if frame.schema[name].is_numeric()
        )


def _java_text(name: str, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_integer():
        return pl.col(name).cast(pl.String)
    return pl.col(name).map_elements(java_number, return_dtype=pl.String)


@register("org.knime.base.node.preproc.columnlag.LagColumnNodeFactory")
class LagColumn(BaseNode):
    """Appends copies of a column shifted down by `lag_interval`, twice that, ... rows."""

    keys = frozenset(
        {
            "column",
            "columnV2/regularChoice",
            "columnV2/specialChoice_Internals",
            "lag",
            "lag_interval",
            "skipInitialIncompleteRows",
            "skipLastIncompleteRows",
        }
    )

    def lacks(self) -> Iterable[str]:
        """Lags of the row ID."""
        if self.model.config("columnV2").text("specialChoice_Internals"):
            yield "a lag of the row ID is not supported"
        elif not self._column():
            yield "no column is chosen"
        for key in ("lag", "lag_interval"):
            if self.model.integer(key, 1) < 1:
                yield f"setting {key!r} must be at least 1"

    def _column(self) -> str:
        return self.model.config("columnV2").text("regularChoice") or self.model.text("column")

    def table(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        """The table with `column(-1)`, `column(-2)`, ..."""
        del context
        (name,) = need(frame, [self._column()])
        copies, step = self.model.integer("lag", 1), self.model.integer("lag_interval", 1)
        if not self.model.flag("skipLastIncompleteRows", default=True):
            frame = pl.concat([frame, frame.clear(copies * step)])
        for copy in range(1, copies + 1):
            new = unique_name(f"{name}(-{copy * step})", frame.columns)
            frame = frame.with_columns(pl.col(name).shift(copy * step).alias(new))
        if self.model.flag("skipInitialIncompleteRows"):
            return frame.slice(copies * step)
        return frame


@register("org.knime.base.node.preproc.constantvalue.ConstantValueColumnNodeFactory")
class ConstantValueColumn(BaseNode):
    """Appends or replaces a column that holds one value."""

    keys = frozenset(
        {"replaced-column", "new-column-name", "column-value", "column-type", "date-format"}
    )

    def lacks(self) -> Iterable[str]:
        """Types other than text, numbers and booleans."""
        kind = self._kind()
        type_ = self.model.config("column-type")  # or a text; so `keys` can't lead into it
        for key in unknown(type_, {("cell_class",), ("is_null",)}):
            yield f"setting 'column-type/{key}' is not known"
        if kind not in KNIME_TYPES:
            yield f"setting 'column-type' = {kind!r} is not supported"

    def _kind(self) -> str:
        config = self.model.config("column-type")
        return config.text("cell_class") or self.model.text("column-type")

    def table(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        """The table with the constant."""
        del context
        text, dtype = self.model.text("column-value"), KNIME_TYPES[self._kind()]
        try:
            value = pl.Series([text]).cast(dtype) if dtype != pl.Boolean else _boolean(text)
        except pl.exceptions.InvalidOperationError:
            msg = f"setting 'column-value' = {text!r} is no {dtype}"
            raise ConfigurationError(msg) from None
        replaced = self.model.text("replaced-column")
        if replaced:
            (name,) = need(frame, [replaced])
        else:
            name = unique_name(self.model.text("new-column-name"), frame.columns)
        return frame.with_columns(pl.lit(value[0], dtype=dtype).alias(name))


def _boolean(text: str) -> pl.Series:
    return pl.Series([text.lower() == "true"])
