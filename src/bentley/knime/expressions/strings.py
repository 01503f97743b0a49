"""KNIME's String Manipulation: nested function calls on text become one polars expression.

A missing cell in any column that the expression names makes the result missing (the node's
default; with "insert missing as null" Java code would see null, which is refused by the engine).
Characters are counted as code points, where Java counts an emoji as two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from bentley.domain.errors import ConfigurationError
from bentley.knime.expressions.lexer import Grammar, Source, Token, describe
from bentley.knime.expressions.text import java_number, matcher, regex, replacement

_GRAMMAR = Grammar(
    node="String Manipulation",
    operators="( ) , -",
    strings=r'"(?:[^"\\]|\\.)*"',
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", '"': '"', "'": "'", "\\": "\\"}
_TEXT, _INT, _DOUBLE = pl.String(), pl.Int32(), pl.Float64()
_ANY = 1_000


@dataclass(frozen=True, slots=True)
class _Value:
    """An argument: its expression, its type, and the value itself where it is a constant."""

    expr: pl.Expr
    dtype: pl.DataType
    constant: int | float | str | None = None


def compile_manipulation(
    expression: str,
    schema: pl.Schema | None = None,
    variables: Mapping[str, object] | None = None,
) -> pl.Expr:
    """The expression over a frame of this schema: String, Int32 or Float64 as its function gives.

    Raises ConfigurationError that names the expression, the position and what is unknown.
    """
    return _Parser(expression, _GRAMMAR, schema, variables).compile()


class _Parser(Source):
    """Values and calls; Java's own operators and methods are refused."""

    def compile(self) -> pl.Expr:
        with self.nesting():
            value = self._value()
        self.expect_end()
        present = [pl.col(name).is_not_null() for name in self.columns]
        # every row gets a value, also where the expression names no column
        present.append(pl.int_range(pl.len(), dtype=pl.Int64) >= 0)
        return pl.when(pl.all_horizontal(present)).then(value.expr)

    def _value(self) -> _Value:
        token = self.take()
        if token.kind == "operator" and token.text == "-" and self.peek.kind == "number":
            return _constant(_number("-" + self.take().text))
        readers: dict[str, Callable[[Token], _Value]] = {
            "number": lambda number: _constant(_number(number.text)),
            "string": lambda string: _constant(self._unescape(string)),
            "column": lambda column: _Value(pl.col(column.text), self.column(column)),
            "variable": lambda variable: _constant(self.variable(variable)),
            "name": self._call,
        }
        if token.kind not in readers:
            self.fail(token, f"a value expected, found {describe(token)}")
        return readers[token.kind](token)

    def _unescape(self, token: Token) -> str:
        signs, text = iter(token.text[1:-1]), []
        for sign in signs:
            following = next(signs) if sign == "\\" else None
            if following is not None and following not in _ESCAPES:
                self.fail(token, f"the escape \\{following} is not known in text")
            text.append(sign if following is None else _ESCAPES[following])
        return "".join(text)

    def _call(self, token: Token) -> _Value:
        function = _FUNCTIONS.get(token.text)
        if function is None:
            known = ", ".join(sorted(_FUNCTIONS))
            self.fail(token, f"function {token.text!r} is not supported (known: {known})")
        self.expect("(")
        arguments = self._arguments()
        if not function.least <= len(arguments) <= function.most:
            most = "or more" if function.most == _ANY else f"to {function.most}"
            self.fail(token, f"{token.text} takes {function.least} {most} arguments")
        try:
            return _Value(function.apply(*arguments), function.gives)
        except ConfigurationError as error:
            return self.fail(token, f"{token.text}: {error}")

    def _arguments(self) -> list[_Value]:
        if self.peek.kind == "operator" and self.peek.text == ")":
            self.take()
            return []
        arguments = [self._value()]
        while self.accept(","):
            arguments.append(self._value())
        self.expect(")")
        return arguments


def _number(text: str) -> int | float:
    return float(text) if set(text) & set(".eE") else int(text)


def _constant(value: float | str) -> _Value:
    if isinstance(value, str):
        return _Value(pl.lit(value, dtype=_TEXT), _TEXT, value)
    dtype = _DOUBLE if isinstance(value, float) else _INT
    return _Value(pl.lit(value, dtype=dtype), dtype, value)


def _text(value: _Value) -> pl.Expr:
    if value.dtype not in {pl.String, pl.Unknown}:
        msg = f"a {value.dtype} is no text; wrap it in string(...)"
        raise ConfigurationError(msg)
    return value.expr


def _whole(value: _Value) -> int:
    if not isinstance(value.constant, int) or value.constant < 0:
        msg = "a position, length or width must be a whole number from 0 on, written as such"
        raise ConfigurationError(msg)
    return value.constant


def _fixed(value: _Value) -> str:
    if not isinstance(value.constant, str):
        msg = "a pattern, replacement or separator must be text in quotes or a flow variable"
        raise ConfigurationError(msg)
    return value.constant


def _join(*values: _Value) -> pl.Expr:
    return pl.concat_str([_text(value) for value in values])


def _join_with(separator: _Value, *values: _Value) -> pl.Expr:
    return pl.concat_str([_text(value) for value in values], separator=_fixed(separator))


def _replace(text: _Value, search: _Value, new: _Value) -> pl.Expr:
    if not _fixed(search):  # as in StringUtils.replace: nothing is looked for
        return _text(text)
    return _text(text).str.replace_all(_fixed(search), _text(new), literal=True)


def _regex_replace(text: _Value, pattern: _Value, new: _Value) -> pl.Expr:
    return _text(text).str.replace_all(regex(_fixed(pattern)), replacement(_fixed(new)))


def _regex_match(text: _Value, pattern: _Value) -> pl.Expr:
    found = _text(text).str.contains(matcher(_fixed(pattern)))
    return pl.when(found).then(pl.lit("True")).otherwise(pl.lit("False"))


def _slice(text: _Value, start: _Value, length: _Value | None = None) -> pl.Expr:
    return _text(text).str.slice(_whole(start), None if length is None else _whole(length))


def _index(text: _Value, search: _Value, start: _Value | None = None) -> pl.Expr:
    first = 0 if start is None else _whole(start)
    rest = _text(text).str.slice(first) if first else _text(text)
    byte = rest.str.find(_fixed(search), literal=True)
    # polars gives the byte, the reader wants the character; -1 says not found, as in Java
    at = _characters_before(rest, byte)
    return (at + first).fill_null(-1).cast(_INT)


def _characters_before(text: pl.Expr, byte: pl.Expr) -> pl.Expr:
    head = text.cast(pl.Binary).bin.slice(0, byte).cast(pl.String)
    return pl.when(byte.is_not_null()).then(head.str.len_chars().cast(pl.Int64))


def _capitalize(text: _Value) -> pl.Expr:
    # the first letter of each word; the others stay, as in WordUtils.capitalize
    return _text(text).map_elements(_words, return_dtype=_TEXT)


def _words(text: str) -> str:
    return "".join(
        sign.upper() if at == 0 or text[at - 1].isspace() else sign for at, sign in enumerate(text)
    )


def _pad(text: _Value, size: _Value, sign: _Value | None, *, left: bool) -> pl.Expr:
    fill = " " if sign is None else _fixed(sign)
    if len(fill) != 1:
        msg = f"the padding {fill!r} must be one character"
        raise ConfigurationError(msg)
    padded = _text(text).str
    return padded.pad_start(_whole(size), fill) if left else padded.pad_end(_whole(size), fill)


def _string(value: _Value) -> pl.Expr:
    if value.dtype.is_float():
        return value.expr.cast(_DOUBLE).map_elements(java_number, return_dtype=_TEXT)
    if value.dtype == pl.Boolean:
        return pl.when(value.expr).then(pl.lit("true")).otherwise(pl.lit("false"))
    return value.expr.cast(_TEXT)


def _to_int(value: _Value) -> pl.Expr:
    # a double is cut, text that is no number gives a missing cell
    return value.expr.cast(_INT, strict=False)


def _to_double(value: _Value) -> pl.Expr:
    return value.expr.cast(_DOUBLE, strict=False)


@dataclass(frozen=True, slots=True)
class _Function:
    apply: Callable[..., pl.Expr]
    least: int = 1
    most: int = 1
    gives: pl.DataType = _TEXT


_FUNCTIONS: dict[str, _Function] = {
    "join": _Function(_join, 1, _ANY),
    "joinSep": _Function(_join_with, 2, _ANY),
    "upperCase": _Function(lambda text: _text(text).str.to_uppercase()),
    "lowerCase": _Function(lambda text: _text(text).str.to_lowercase()),
    "capitalize": _Function(_capitalize),
    "strip": _Function(lambda text: _text(text).str.strip_chars()),
    "stripStart": _Function(lambda text: _text(text).str.strip_chars_start()),
    "stripEnd": _Function(lambda text: _text(text).str.strip_chars_end()),
    "replace": _Function(_replace, 3, 3),
    "regexReplace": _Function(_regex_replace, 3, 3),
    "regexMatcher": _Function(_regex_match, 2, 2),
    "substr": _Function(_slice, 2, 3),
    "length": _Function(lambda text: _text(text).str.len_chars().cast(_INT), gives=_INT),
    "indexOf": _Function(_index, 2, 3, _INT),
    "reverse": _Function(lambda text: _text(text).str.reverse()),
    "padLeft": _Function(lambda t, n, c=None: _pad(t, n, c, left=True), 2, 3),
    "padRight": _Function(lambda t, n, c=None: _pad(t, n, c, left=False), 2, 3),
    "string": _Function(_string),
    "toInt": _Function(_to_int, gives=_INT),
    "toDouble": _Function(_to_double, gives=_DOUBLE),
}
