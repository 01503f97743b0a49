"""Row Filter, the present one and its predecessor."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import reduce

import polars as pl

from bentley.domain.errors import ConfigurationError
from bentley.knime.expressions import text
from bentley.knime.nodes.base import KNIME_TYPES, BaseNode, Context, need, register, unsupported
from bentley.knime.nodes.filters import chosen_column, chosen_special
from bentley.knime.xmlconfig import Config, Value

_COMPARE: Mapping[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "EQ": lambda cell, value: cell == value,
    "NEQ": lambda cell, value: cell != value,
    "NEQ_MISS": lambda cell, value: (cell != value).fill_null(True),
    "LT": lambda cell, value: cell < value,
    "LTE": lambda cell, value: cell <= value,
    "GT": lambda cell, value: cell > value,
    "GTE": lambda cell, value: cell >= value,
}
_UNARY: Mapping[str, Callable[[pl.Expr], pl.Expr]] = {
    "IS_TRUE": lambda cell: cell,
    "IS_FALSE": lambda cell: ~cell,
    "IS_MISSING": lambda cell: cell.is_null(),
    "IS_NOT_MISSING": lambda cell: cell.is_not_null(),
}
_PATTERNS = frozenset({"REGEX", "WILDCARD"})
_FIRST_LAST = frozenset({"FIRST_N_ROWS", "LAST_N_ROWS"})
_ROW_NUMBERS = "ROW_NUMBERS"
_OLD_NUMBERS = "RowNumber_RowFilter"
_ROW = pl.int_range(1, pl.len() + 1, dtype=pl.Int64)


@register("org.knime.base.node.preproc.filter.row3.RowFilterNodeFactory")
class RowFilter(BaseNode):
    """Keeps the rows that match all (or any) of the predicates; a missing cell matches `NEQ_MISS` alone."""

    keys = frozenset(
        {
            "matchCriteria",
            "predicates/*/column",
            "predicates/*/columnV2",
            "predicates/*/operator",
            "predicates/*/predicateValues/inputKind",
            "predicates/*/predicateValues/values/*/typeIdentifier",
            "predicates/*/predicateValues/values/*/value",
            "predicates/*/predicateValues/values/*/stringCaseMatching/caseMatching",
            "domains",
            "outputMode",
        }
    )

    def lacks(self) -> Iterable[str]:
        """Row IDs, and operators that came after KNIME 5.8."""
        yield from self.allow("matchCriteria", "AND", "OR")
        yield from self.allow("outputMode", "MATCHING", "NON_MATCHING")
        predicates = self.model.config("predicates").configs()
        if not predicates:
            yield "setting 'predicates' is empty"
        for predicate in predicates:
            yield from self._predicate_lacks(predicate)

    def _predicate_lacks(self, predicate: Config) -> Iterable[str]:
        operator = predicate.text("operator")
        special = chosen_special(predicate)
        if special not in {"", _ROW_NUMBERS}:
            yield f"filter on {special} in {predicate.path!r} is not supported: no row IDs here"
        if operator not in (
            {*_COMPARE, *_FIRST_LAST}
            if special == _ROW_NUMBERS
            else {*_COMPARE, *_UNARY, *_PATTERNS}
        ):
            yield unsupported(predicate, "operator")
        elif operator not in _UNARY:
            values = predicate.config("predicateValues")
            if (
                values.text("inputKind", "SINGLE") != "SINGLE"
                or len(values.config("values").children) > 1
            ):
                yield f"several reference values in {predicate.path!r} are not supported"
            value = _reference(predicate)
            kind = value.config("typeIdentifier").text("cell_class")
            if kind not in KNIME_TYPES:
                yield f"reference value of {kind or 'no type'} in {predicate.path!r} is not supported"

    def table(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        """The rows kept."""
        del context
        terms = [
            _term(predicate, frame).fill_null(False)
            for predicate in self.model.config("predicates").configs()
        ]
        every = self.model.text("matchCriteria", "AND") == "AND"
        matches = reduce(lambda a, b: a & b if every else a | b, terms)
        if self.model.text("outputMode", "MATCHING") == "NON_MATCHING":
            matches = ~matches
        return frame.filter(matches)


def _reference(predicate: Config) -> Config:
    return predicate.config("predicateValues").config("values").config("0")


def _term(predicate: Config, frame: pl.DataFrame) -> pl.Expr:
    operator = predicate.text("operator")
    if chosen_special(predicate) == _ROW_NUMBERS:
        return _row_number(operator, predicate)
    (name,) = need(frame, [chosen_column(predicate)])
    cell, dtype = pl.col(name), frame.schema[name]
    if operator in _UNARY:
        if operator in {"IS_TRUE", "IS_FALSE"} and dtype != pl.Boolean:
            msg = f"operator {operator} needs a boolean column, and {name!r} is {dtype}"
            raise ConfigurationError(msg)
        return _UNARY[operator](cell)
    reference = _reference(predicate)
    value = reference.require("value")
    sensitive = _case_sensitive(reference)
    if operator in _PATTERNS:
        return _pattern(cell, dtype, str(value), wildcard=operator == "WILDCARD", case=sensitive)
    if dtype == pl.String and isinstance(value, str):
        if not sensitive:
            cell, value = cell.str.to_lowercase(), value.lower()
    elif not dtype.is_numeric() or isinstance(value, (str, bool)):
        msg = f"column {name!r} of type {dtype} can't be compared with {value!r}"
        raise ConfigurationError(msg)
    return _COMPARE[operator](cell, pl.lit(value))


def _row_number(operator: str, predicate: Config) -> pl.Expr:
    number = pl.lit(_reference(predicate).require("value"), dtype=pl.Int64)
    if operator == "FIRST_N_ROWS":
        return number >= _ROW
    if operator == "LAST_N_ROWS":
        return pl.len() - number < _ROW
    return _COMPARE[operator](_ROW, number)


def _case_sensitive(reference: Config) -> bool:
    kind = reference.config("stringCaseMatching").text("caseMatching", "CASESENSITIVE")
    return kind.replace("_", "").upper() == "CASESENSITIVE"


def _pattern(
    cell: pl.Expr, dtype: pl.DataType, pattern: str, *, wildcard: bool, case: bool
) -> pl.Expr:
    if dtype != pl.String and not dtype.is_integer():
        msg = f"a pattern can't be matched against a column of type {dtype}"
        raise ConfigurationError(msg)
    body = text.wildcard(pattern) if wildcard else text.regex(pattern)
    flags = "(?sm)" if case else "(?smi)"
    return cell.cast(pl.String).str.contains(rf"{flags}\A(?:{body})\z")


@register("org.knime.base.node.preproc.filter.row.RowFilterNodeFactory")
class OldRowFilter(BaseNode):
    """Row Filter up to KNIME 4.7 and in older workflows: one criterion under `rowFilter`."""

    keys = frozenset(
        f"rowFilter/{key}"
        for key in (
            "RowFilter_TypeID",
            "include",
            "deepFiltering",
            "ColumnName",
            "Pattern",
            "CaseSensitive",
            "hasWildCards",
            "isRegExpr",
            "lowerBound",
            "upperBound",
            "RowRangeStart",
            "RowRangeEnd",
            "RowRangeInclude",
        )
    )

    def lacks(self) -> Iterable[str]:
        """Criteria on row IDs, and collections."""
        rule = self.model.config("rowFilter")
        kind = rule.text("RowFilter_TypeID")
        if kind not in _OLD_KINDS:
            yield f"criterion {kind!r} is not supported"
        if rule.flag("deepFiltering"):
            yield "setting 'rowFilter/deepFiltering' = True is not supported"

    def table(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        """The rows kept."""
        del context
        rule = self.model.config("rowFilter")
        matches = _OLD_KINDS[rule.text("RowFilter_TypeID")](rule, frame).fill_null(False)
        numbered = rule.text("RowFilter_TypeID") == _OLD_NUMBERS
        include = rule.flag("RowRangeInclude" if numbered else "include", default=True)
        return frame.filter(matches if include else ~matches)


def _old_cell(rule: Config, frame: pl.DataFrame) -> tuple[pl.Expr, pl.DataType]:
    (name,) = need(frame, [rule.text("ColumnName")])
    return pl.col(name), frame.schema[name]


def _old_pattern(rule: Config, frame: pl.DataFrame) -> pl.Expr:
    cell, dtype = _old_cell(rule, frame)
    pattern, case = rule.text("Pattern"), rule.flag("CaseSensitive", default=True)
    if dtype.is_float():
        cell = cell.cast(pl.String)
        dtype = pl.String()
    if rule.flag("isRegExpr") or rule.flag("hasWildCards"):
        return _pattern(cell, dtype, pattern, wildcard=rule.flag("hasWildCards"), case=case)
    return _pattern(cell, dtype, re.escape(pattern), wildcard=False, case=case)


def _old_range(rule: Config, frame: pl.DataFrame) -> pl.Expr:
    cell, dtype = _old_cell(rule, frame)
    terms = []
    for key, low in (("lowerBound", True), ("upperBound", False)):
        bound = _cell_value(rule.config(key))
        if bound is None:
            continue
        if dtype.is_numeric() == isinstance(bound, str):
            msg = f"column {rule.text('ColumnName')!r} can't be compared with {bound!r}"
            raise ConfigurationError(msg)
        terms.append(cell >= pl.lit(bound) if low else cell <= pl.lit(bound))
    if not terms:
        msg = "the range has neither a lower nor an upper bound"
        raise ConfigurationError(msg)
    return reduce(lambda a, b: a & b, terms)


def _cell_value(bound: Config) -> Value:
    """The value of a cell as old settings keep it: its class, and a config named after that."""
    for inner in bound.configs():
        for key in inner:
            return inner.value(key)
    return None


def _old_missing(rule: Config, frame: pl.DataFrame) -> pl.Expr:
    return _old_cell(rule, frame)[0].is_null()


def _old_numbers(rule: Config, frame: pl.DataFrame) -> pl.Expr:
    del frame
    first = rule.integer("RowRangeStart", 0)  # counted from 0
    last = rule.integer("RowRangeEnd", -1)
    inside = first < _ROW
    return inside if last < 0 else inside & (last + 1 >= _ROW)


_OLD_KINDS: Mapping[str, Callable[[Config, pl.DataFrame], pl.Expr]] = {
    "StringComp_RowFilter": _old_pattern,
    "RangeVal_RowFilter": _old_range,
    "MissingVal_RowFilter": _old_missing,
    _OLD_NUMBERS: _old_numbers,
}
