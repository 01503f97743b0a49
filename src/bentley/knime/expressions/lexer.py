"""One tokenizer for the three expression languages, so that `$column$` means the same in each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import polars as pl

from bentley.domain.errors import ConfigurationError

_REFERENCES = (
    ("variable", r"\$\$\{(?P<type>[A-Z])(?P<variable_name>[^{}]*)\}\$\$"),
    ("special", r"\$\$[A-Z_]+\$\$"),
    ("column", r"\$[^$\n]+\$"),
)
_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_MAX_TOKENS = 5_000
_SHOWN = 240
_NAME = r"[A-Za-z_][A-Za-z_0-9]*"
_STAND_INS: Mapping[str, object] = {"I": 1, "D": 1.0, "S": "1"}


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of an expression: its `kind`, its `text` and its 0-based `position`.

    Kinds: number, name, string, operator, column, special, variable, character, end. `text` is the
    bare column or variable name; `type` is a flow variable's letter (I, D, S).
    """

    kind: str
    text: str
    position: int
    type: str = ""


@dataclass(frozen=True, slots=True)
class Grammar:
    """What differs between the languages: operators (space between), quoting, the node's name."""

    node: str
    operators: str
    strings: str = ""

    def pattern(self) -> re.Pattern[str]:
        """The token pattern; longer operators come first."""
        longest_first = sorted(self.operators.split(), key=len, reverse=True)
        operators = "|".join(re.escape(op) for op in longest_first)
        parts = [f"(?P<{kind}>{text})" for kind, text in _REFERENCES]
        if self.strings:
            parts.append(f"(?P<string>{self.strings})")
        parts += [f"(?P<number>{_NUMBER})", f"(?P<name>{_NAME})", f"(?P<operator>{operators})"]
        return re.compile("|".join(parts), re.DOTALL)


class Source:
    """An expression's text with its tokens and a cursor; the base of the three parsers.

    Without a schema every column is there, of a type that isn't known; without variables every
    flow variable is, with a value of the type that its letter says.
    """

    def __init__(
        self,
        text: str,
        grammar: Grammar,
        schema: pl.Schema | None,
        variables: Mapping[str, object] | None,
    ) -> None:
        self.text = text
        self.grammar = grammar
        self.schema = schema
        self.variables = variables
        self.columns: dict[str, None] = {}
        self._tokens = self._tokenize()
        self._next = 0

    @contextmanager
    def nesting(self) -> Iterator[None]:
        """Turn nesting that exceeds Python's stack into a ConfigurationError."""
        try:
            yield
        except RecursionError:
            self.fail(self.peek, "nested too deeply; split it into nodes")

    def fail(self, token: Token, problem: str) -> NoReturn:
        """Raise ConfigurationError naming the expression, the position and the problem."""
        text = self.text if len(self.text) <= _SHOWN else f"{self.text[:_SHOWN]}..."
        msg = f"{self.grammar.node} expression {text!r}, position {token.position + 1}: {problem}"
        raise ConfigurationError(msg)

    @property
    def peek(self) -> Token:
        """The token under the cursor."""
        return self._tokens[self._next]

    def take(self) -> Token:
        """The token under the cursor, which moves on (but never past the end)."""
        token = self._tokens[self._next]
        if token.kind != "end":
            self._next += 1
        return token

    def accept(self, *texts: str, kind: str = "operator") -> Token | None:
        """Take the next token if it is one of these, or return None."""
        if self.peek.kind == kind and self.peek.text in texts:
            return self.take()
        return None

    def expect(self, text: str) -> Token:
        """Take this operator or fail."""
        token = self.take()
        if token.kind != "operator" or token.text != text:
            self.fail(token, f"{text!r} expected, found {describe(token)}")
        return token

    def expect_end(self) -> None:
        """Fail unless all was read."""
        if self.peek.kind != "end":
            self.fail(self.peek, f"an operator expected, found {describe(self.peek)}")

    def column(self, token: Token) -> pl.DataType:
        """The type of the column that the token names; the column counts as used."""
        dtype = pl.Unknown() if self.schema is None else self.schema.get(token.text)
        if dtype is None:
            known = ", ".join(self.schema or ()) or "none"
            self.fail(token, f"no column {token.text!r} in the input (columns: {known})")
        self.columns[token.text] = None
        return dtype

    def variable(self, token: Token) -> int | float | str:
        """The value of the flow variable that the token names, in the type of its letter."""
        known = self.variables
        if known is None:
            known = {token.text: _STAND_INS.get(token.type)}
        if token.text not in known:
            names = ", ".join(known) or "none"
            self.fail(token, f"no flow variable {token.text!r} (variables: {names})")
        value = known[token.text]
        integer = isinstance(value, int) and not isinstance(value, bool)
        if token.type == "I" and integer:
            return int(value)  # type: ignore[call-overload, no-any-return]
        if token.type == "D" and (integer or isinstance(value, float)):
            return float(value)  # type: ignore[arg-type]
        if token.type == "S" and isinstance(value, str):
            return value
        return self.fail(
            token,
            f"flow variable {token.text!r} is a {type(value).__name__}, which {token.type!r}"
            " does not name (I is an integer, D a double, S a string)",
        )

    def _tokenize(self) -> list[Token]:
        pattern, tokens, at = self.grammar.pattern(), [], 0
        while at < len(self.text):
            if self.text[at].isspace():
                at += 1
                continue
            match = pattern.match(self.text, at)
            if match is None:
                bad = Token("character", self.text[at], at)
                self.fail(bad, f"unexpected {describe(bad)}")
            tokens.append(_token(match))
            at = match.end()
        tokens.append(Token("end", "", len(self.text)))
        if len(tokens) > _MAX_TOKENS:
            self.fail(
                tokens[_MAX_TOKENS], f"longer than {_MAX_TOKENS} symbols; split it into nodes"
            )
        return tokens


def _token(match: re.Match[str]) -> Token:
    kind, at = match.lastgroup or "", match.start()
    if kind == "variable":
        return Token(kind, match["variable_name"], at, match["type"])
    if kind in {"special", "column"}:
        return Token(kind, match[0].strip("$"), at)
    return Token(kind, match[0], at)


def describe(token: Token) -> str:
    """The token as an error message shows it."""
    return "the end" if token.kind == "end" else f"{token.kind} {token.text!r}"
