"""KNIME's Math Formula (its parser is JEP 2.4): a formula becomes one float64 polars expression.

Missing and not-finite results follow the node's published description: a missing cell in any
column that the formula names makes the result missing, and so does a result that is NaN or
infinite. A NaN cell is a value: it is true in boolean expressions and no comparison but `!=`
holds for it. Arithmetic keeps the order that is written, so `a+b+c` is `(a+b)+c` to the bit.

JEP goes on in complex numbers below zero (`sqrt(-1)`, `ln(-1)`, `(-8)^0.5`); here such a value
is NaN and the result missing, as it is in KNIME unless the formula turns it real again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import polars as pl

from bentley.knime.expressions.functions import (
    AGGREGATES,
    CONSTANTS,
    FUNCTIONS,
    compare,
    divide,
    finite,
    remainder,
    truth,
)
from bentley.knime.expressions.lexer import Grammar, Source, Token, describe

_GRAMMAR = Grammar(
    node="Math Formula",
    operators="+ - * / % ^ <= >= < > == != && || ! ( ) ,",
)
_ROW_COUNTERS = {
    "ROWINDEX": lambda: pl.int_range(pl.len(), dtype=pl.Int64).cast(pl.Float64),
    "ROWCOUNT": lambda: pl.len().cast(pl.Float64),
}


def compile_formula(
    expression: str,
    schema: pl.Schema | None = None,
    variables: Mapping[str, object] | None = None,
) -> pl.Expr:
    """The formula as a Float64 expression over a frame of this schema, one value a row.

    `variables` are the flow variables by name, without KNIME's type letter.
    Raises ConfigurationError that names the expression, the position and what is unknown.
    """
    return _Parser(expression, _GRAMMAR, schema, variables).compile()


class _Parser(Source):
    """Recursive descent, a method per level of JEP's grammar, loosest binding first."""

    def compile(self) -> pl.Expr:
        if self.peek.kind == "end":
            self.fail(self.peek, "the expression is empty")
        with self.nesting():
            value = self._or()
        self.expect_end()
        present = [pl.col(name).is_not_null() for name in self.columns]
        # every row gets a value, also where the formula names no column
        present.append(pl.int_range(pl.len(), dtype=pl.Int64) >= 0)
        return pl.when(pl.all_horizontal(present)).then(finite(value))

    def _or(self) -> pl.Expr:
        left = self._and()
        while self.accept("||"):
            left = _number(truth(left) | truth(self._and()))
        return left

    def _and(self) -> pl.Expr:
        left = self._equality()
        while self.accept("&&"):
            left = _number(truth(left) & truth(self._equality()))
        return left

    def _equality(self) -> pl.Expr:
        left = self._relation()
        while operator := self.accept("==", "!="):
            left = compare(operator.text, left, self._relation())
        return left

    def _relation(self) -> pl.Expr:
        left = self._sum()
        while operator := self.accept("<", "<=", ">", ">="):
            left = compare(operator.text, left, self._sum())
        return left

    def _sum(self) -> pl.Expr:
        left = self._product()
        while operator := self.accept("+", "-"):
            right = self._product()
            left = left + right if operator.text == "+" else left - right
        return left

    def _product(self) -> pl.Expr:
        left = self._unary()
        while operator := self.accept("*", "/", "%"):
            right = self._unary()
            if operator.text == "*":
                left = left * right
            else:
                left = (divide if operator.text == "/" else remainder)(left, right)
        return left

    def _unary(self) -> pl.Expr:
        operator = self.accept("+", "-", "!")
        if operator is None:
            return self._power()
        operand = self._unary()
        if operator.text == "!":
            return _number(~truth(operand))
        return -operand if operator.text == "-" else operand

    def _power(self) -> pl.Expr:
        base = self._primary()
        # -2^2 is -(2^2), 2^-1 is allowed, and 2^3^2 is 2^(3^2)
        return base.pow(self._unary()) if self.accept("^") else base

    def _primary(self) -> pl.Expr:
        token = self.take()
        if token.kind == "operator" and token.text == "(":
            inner = self._or()
            self.expect(")")
            return inner
        leaves: dict[str, Callable[[Token], pl.Expr]] = {
            "number": lambda number: pl.lit(float(number.text), dtype=pl.Float64),
            "column": self._cell,
            "variable": self._flow_variable,
            "special": self._row_counter,
            "name": self._named,
        }
        if token.kind not in leaves:
            self.fail(token, f"a value expected, found {describe(token)}")
        return leaves[token.kind](token)

    def _row_counter(self, token: Token) -> pl.Expr:
        if token.text not in _ROW_COUNTERS:
            self.fail(
                token, f"$${token.text}$$ is not supported (known: {', '.join(_ROW_COUNTERS)})"
            )
        return _ROW_COUNTERS[token.text]()

    def _cell(self, token: Token) -> pl.Expr:
        dtype = self.column(token)
        if not (dtype.is_numeric() or dtype in {pl.Boolean, pl.Unknown}):
            self.fail(token, f"column {token.text!r} is {dtype}, not a number")
        return pl.col(token.text).cast(pl.Float64)

    def _flow_variable(self, token: Token) -> pl.Expr:
        value = self.variable(token)
        if isinstance(value, str):
            self.fail(token, f"flow variable {token.text!r} is text; a formula takes I and D")
        return pl.lit(float(value), dtype=pl.Float64)

    def _named(self, token: Token) -> pl.Expr:
        if not self.accept("("):
            if token.text in CONSTANTS:
                return pl.lit(CONSTANTS[token.text], dtype=pl.Float64)
            known = ", ".join(CONSTANTS)
            self.fail(token, f"{token.text!r} is no constant (known: {known}; a column is $name$)")
        if token.text in AGGREGATES:
            return self._aggregate(token)
        function = FUNCTIONS.get(token.text)
        if function is None:
            known = ", ".join(sorted({*FUNCTIONS, *AGGREGATES}))
            self.fail(token, f"function {token.text!r} is not supported (known: {known})")
        arguments = self._arguments()
        if not function.least <= len(arguments) <= function.most:
            self.fail(token, f"{token.text} takes {function.arity()}, not {len(arguments)}")
        return function.apply(*arguments)

    def _arguments(self) -> list[pl.Expr]:
        if self.accept(")"):
            return []
        arguments = [self._or()]
        while self.accept(","):
            arguments.append(self._or())
        self.expect(")")
        return arguments

    def _aggregate(self, token: Token) -> pl.Expr:
        # a column's statistic is one constant: its missing cells don't make a row missing
        used = dict(self.columns)
        column = self.take()
        if column.kind != "column":
            self.fail(column, f"{token.text} takes a column, like {token.text}($close$)")
        cell = self._cell(column)
        self.columns = used
        self.expect(")")
        return AGGREGATES[token.text](cell)


def _number(condition: pl.Expr) -> pl.Expr:
    return condition.cast(pl.Float64)
