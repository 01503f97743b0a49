"""KNIME's Rule Engine and Rule-based Row Filter: ordered rules become one polars expression.

After the published description of the nodes: the first rule that matches gives the outcome, and
no match gives a missing value (in the filter: FALSE); NOT binds most, then AND, XOR and OR, and
comparisons before all of them. A missing cell and a NaN are each equal to their own kind, so that
`=`, `<=` and `>=` hold between two of them, and no comparison holds with anything else: also not
`$a$ < 5`, and `NOT $a$ = 1` does. What KNIME decides by rules that are not published (text compared
with a number, booleans mixed with other outcomes) is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import polars as pl

from bentley.domain.errors import ConfigurationError
from bentley.knime.expressions.lexer import Grammar, Source, Token, describe
from bentley.knime.expressions.text import java_number, matcher, wildcard

_GRAMMAR = Grammar(
    node="Rule Engine",
    operators="=> != <= >= = < > ( ) , -",
    strings=r'"[^"]*"|/(?!/)[^/]*/',
)
_ORDERINGS: dict[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "=": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_INT = range(-(2**31), 2**31)
_NO_VALUES = frozenset({"AND", "OR", "XOR", "NOT", "IN", "LIKE", "MATCHES", "MISSING", "NaN"})


@dataclass(frozen=True, slots=True)
class _Value:
    """An operand: its expression, its type, and the value itself where it is a constant."""

    expr: pl.Expr
    dtype: pl.DataType
    constant: int | float | str | bool | None = None

    @property
    def family(self) -> str:
        """What it may be compared and combined with: number, text, boolean, or unknown: all."""
        if self.dtype.is_numeric():
            return "number"
        if self.dtype == pl.Unknown:
            return "unknown"
        return "text" if self.dtype == pl.String else "boolean"


def compile_rules(
    rules: Sequence[str],
    schema: pl.Schema | None = None,
    variables: Mapping[str, object] | None = None,
) -> pl.Expr:
    """The outcome of the first matching rule for each row, missing where none matches.

    The type is the outcomes' common one: whole numbers (Int32, or wider where an outcome is),
    Float64 as soon as one is real, String as soon as one is text, Boolean when all are.
    Raises ConfigurationError that names the rule, the position and what is unknown.
    """
    parsed = _parse(rules, schema, variables)
    dtype, outcomes = _unify([outcome for _, outcome in parsed])
    branches = zip((when for when, _ in parsed), outcomes, strict=True)
    return _first_match(list(branches), pl.lit(None, dtype=dtype))


def compile_filter(
    rules: Sequence[str],
    schema: pl.Schema | None = None,
    variables: Mapping[str, object] | None = None,
) -> pl.Expr:
    """Whether the first matching rule says TRUE, for each row; never missing.

    Raises ConfigurationError as compile_rules does, and for an outcome that is not boolean.
    """
    parsed = _parse(rules, schema, variables)
    for rule, (_, outcome) in zip(_lines(rules), parsed, strict=True):
        if outcome.family not in {"boolean", "unknown"}:
            msg = f"rule {rule!r} of a Rule-based Row Filter must end in TRUE or FALSE"
            raise ConfigurationError(msg)
    branches = [(when, outcome.expr.fill_null(value=False)) for when, outcome in parsed]
    return _first_match(branches, pl.lit(False))


def _lines(rules: Sequence[str]) -> list[str]:
    lines = [line for rule in rules for line in rule.splitlines()]
    return [line for line in lines if line.strip() and not line.lstrip().startswith("//")]


def _parse(
    rules: Sequence[str], schema: pl.Schema | None, variables: Mapping[str, object] | None
) -> list[tuple[pl.Expr, _Value]]:
    lines = _lines(rules)
    if not lines:
        msg = 'the Rule Engine has no rule; write one like: $close$ > $open$ => "up"'
        raise ConfigurationError(msg)
    return [_Rule(line, _GRAMMAR, schema, variables).compile() for line in lines]


def _first_match(branches: Sequence[tuple[pl.Expr, pl.Expr]], default: pl.Expr) -> pl.Expr:
    (when, then), *rest = branches
    # a row counter in the condition gives every row an outcome, also where no column is named
    chain = pl.when(when & (pl.int_range(pl.len(), dtype=pl.Int64) >= 0)).then(then)
    for condition, outcome in rest:
        chain = chain.when(condition).then(outcome)  # type: ignore[assignment]
    return chain.otherwise(default)


def _unify(outcomes: Sequence[_Value]) -> tuple[pl.DataType, list[pl.Expr]]:
    families = {outcome.family for outcome in outcomes} - {"unknown"}
    if "boolean" in families and len(families) > 1:
        msg = (
            "the Rule Engine's outcomes mix TRUE or FALSE with numbers or text; make them one type"
        )
        raise ConfigurationError(msg)
    if families == {"number"}:
        dtype = _widest([outcome.dtype for outcome in outcomes])
        return dtype, [outcome.expr.cast(dtype) for outcome in outcomes]
    if "number" in families:
        return pl.String(), [_as_text(outcome) for outcome in outcomes]
    return outcomes[0].dtype, [outcome.expr for outcome in outcomes]


def _widest(dtypes: Sequence[pl.DataType]) -> pl.DataType:
    if any(not dtype.is_integer() for dtype in dtypes):
        return pl.Float64()
    return pl.Int32() if all(dtype == pl.Int32 for dtype in dtypes) else pl.Int64()


def _as_text(outcome: _Value) -> pl.Expr:
    if outcome.family == "text":
        return outcome.expr
    if isinstance(outcome.constant, int | float):
        return pl.lit(java_number(outcome.constant))
    if outcome.dtype.is_integer():
        return outcome.expr.cast(pl.String)
    return outcome.expr.cast(pl.Float64).map_elements(java_number, return_dtype=pl.String)


class _Rule(Source):
    """Recursive descent over one line, a method per level of binding, loosest first."""

    def compile(self) -> tuple[pl.Expr, _Value]:
        """The condition (never missing) and the outcome."""
        with self.nesting():
            condition = self._or()
        self.expect("=>")
        outcome = self._value()
        self.expect_end()
        return condition, outcome

    def _or(self) -> pl.Expr:
        left = self._xor()
        while self.accept("OR", kind="name"):
            left = left | self._xor()
        return left

    def _xor(self) -> pl.Expr:
        left = self._and()
        while self.accept("XOR", kind="name"):
            left = left ^ self._and()
        return left

    def _and(self) -> pl.Expr:
        left = self._not()
        while self.accept("AND", kind="name"):
            left = left & self._not()
        return left

    def _not(self) -> pl.Expr:
        if self.accept("NOT", kind="name"):
            return ~self._not()
        if self.accept("("):
            inner = self._or()
            self.expect(")")
            return inner
        if self.accept("MISSING", kind="name"):
            return self._column_operand("MISSING").expr.is_null()
        if token := self.accept("NaN", kind="name"):
            operand = self._column_operand("NaN")
            if not operand.dtype.is_float() and operand.family != "unknown":
                self.fail(token, f"NaN takes a column of doubles, not {operand.dtype}")
            return operand.expr.is_nan().fill_null(value=False)
        return self._comparison()

    def _column_operand(self, operator: str) -> _Value:
        token = self.take()
        if token.kind != "column":
            self.fail(token, f"{operator} takes a column, like {operator} $close$")
        return self._cell(token, any_type=True)

    def _comparison(self) -> pl.Expr:
        start = self.peek
        left = self._value()
        operator = self.peek
        if operator.kind == "operator" and operator.text in _ORDERINGS:
            self.take()
            right = self._value()
            self._same_family(operator, left, right)
            return _compare(operator.text, left, right)
        if operator.text == "!=":
            self.fail(operator, "KNIME knows no !=; write NOT a = b")
        if self.accept("IN", kind="name"):
            return self._member(operator, left)
        if self.accept("LIKE", "MATCHES", kind="name"):
            return self._pattern(operator, left)
        if left.family in {"boolean", "unknown"}:
            return left.expr.fill_null(value=False)
        return self.fail(start, f"a comparison expected, found {describe(operator)} after a value")

    def _member(self, operator: Token, left: _Value) -> pl.Expr:
        self.expect("(")
        members = [self._value()]
        while self.accept(","):
            members.append(self._value())
        self.expect(")")
        for member in members:
            self._same_family(operator, left, member)
        found = [(left.expr == member.expr).fill_null(value=False) for member in members]
        return reduce(lambda a, b: a | b, found)

    def _pattern(self, operator: Token, left: _Value) -> pl.Expr:
        token = self.peek
        pattern = self._value().constant
        if left.family not in {"text", "unknown"} or not isinstance(pattern, str):
            self.fail(token, f"{operator.text} compares text with a constant pattern in quotes")
        text = wildcard(pattern) if operator.text == "LIKE" else pattern
        try:
            regex = matcher(text)
        except ConfigurationError as error:
            self.fail(token, str(error))
        return left.expr.str.contains(regex).fill_null(value=False)

    def _same_family(self, operator: Token, left: _Value, right: _Value) -> None:
        if left.family != right.family and "unknown" not in {left.family, right.family}:
            self.fail(operator, f"{operator.text} compares {left.family} with {right.family}")

    def _value(self) -> _Value:
        token = self.take()
        if token.kind == "operator" and token.text == "-" and self.peek.kind == "number":
            return _constant(_number("-" + self.take().text))
        readers: dict[str, Callable[[Token], _Value]] = {
            "number": lambda number: _constant(_number(number.text)),
            "string": lambda string: _constant(string.text[1:-1]),
            "column": self._cell,
            "variable": lambda variable: _constant(self.variable(variable)),
            "special": self._row_counter,
            "name": self._boolean,
        }
        if token.kind not in readers:
            self.fail(token, f"a value expected, found {describe(token)}")
        return readers[token.kind](token)

    def _cell(self, token: Token, *, any_type: bool = False) -> _Value:
        dtype = self.column(token)
        known = dtype.is_numeric() or dtype in {pl.String, pl.Boolean, pl.Unknown}
        if not (any_type or known):
            self.fail(token, f"column {token.text!r} is {dtype}: neither number, text nor boolean")
        return _Value(pl.col(token.text), dtype)

    def _row_counter(self, token: Token) -> _Value:
        counters = {"ROWINDEX": pl.int_range(pl.len(), dtype=pl.Int64), "ROWCOUNT": pl.len()}
        if token.text not in counters:
            self.fail(token, f"$${token.text}$$ is not supported (known: {', '.join(counters)})")
        return _Value(counters[token.text].cast(pl.Int64), pl.Int64())

    def _boolean(self, token: Token) -> _Value:
        if token.text in {"TRUE", "FALSE"}:
            return _constant(token.text == "TRUE")
        if token.text in _NO_VALUES:
            self.fail(token, f"a value expected, found the operator {token.text}")
        return self.fail(token, f"{token.text!r} is not known (text is quoted, a column is $name$)")


def _compare(operator: str, left: _Value, right: _Value) -> pl.Expr:
    """Whether it holds; polars itself knows no missing cell, and orders NaN above all numbers."""
    holds = _ORDERINGS[operator](left.expr, right.expr)
    floats = [value.expr.is_nan() for value in (left, right) if value.dtype.is_float()]
    if floats and operator != "=":
        # a NaN on one side alone
        holds = holds & ~reduce(lambda a, b: a ^ b, floats)
    holds = holds.fill_null(value=False)
    if "=" in operator and left.constant is None and right.constant is None:
        return holds | (left.expr.is_null() & right.expr.is_null())
    return holds


def _number(text: str) -> int | float:
    return float(text) if set(text) & set(".eE") else int(text)


def _constant(value: bool | float | str) -> _Value:  # noqa: FBT001  (a cell's value)
    if isinstance(value, bool):
        return _Value(pl.lit(value), pl.Boolean(), value)
    if isinstance(value, str):
        return _Value(pl.lit(value, dtype=pl.String), pl.String(), value)
    if isinstance(value, float):
        return _Value(pl.lit(value, dtype=pl.Float64), pl.Float64(), value)
    dtype = pl.Int32() if value in _INT else pl.Int64()
    return _Value(pl.lit(value, dtype=dtype), dtype, value)
