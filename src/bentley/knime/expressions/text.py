"""What Java does with text, said in polars' terms: number formats, wildcards, regular expressions."""

from __future__ import annotations

import re
from decimal import Decimal

import polars as pl

from bentley.domain.errors import ConfigurationError

_PLAIN_FROM, _PLAIN_BELOW = 1e-3, 1e7
_GROUP = re.compile(r"\\(.)|\$(?:\{([A-Za-z][A-Za-z0-9]*)\}|([0-9]))|(\$)", re.DOTALL)


def java_number(value: float) -> str:
    """A number as Java's toString writes it: 1.0E7, 0.001, NaN, 42."""
    if isinstance(value, int):
        return str(value)
    if value != value:  # noqa: PLR0124  (only NaN differs from itself)
        return "NaN"
    if value in {float("inf"), float("-inf")}:
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0 or _PLAIN_FROM <= abs(value) < _PLAIN_BELOW:
        return format(Decimal(repr(value)), "f")
    # the shortest text that reads back as this number, of two digits at least
    shortest = repr(value) if len(Decimal(repr(value)).normalize().as_tuple().digits) > 1 else ""
    sign, digits, exponent = Decimal(shortest or f"{value:.1e}").as_tuple()
    text = "".join(map(str, digits)).rstrip("0")
    power = len(digits) - 1 + int(exponent)
    return f"{'-' if sign else ''}{text[0]}.{text[1:] or '0'}E{power}"


def wildcard(pattern: str) -> str:
    """KNIME's wildcard pattern (`*` any text, `?` one character) as a regular expression."""
    signs = {"*": ".*", "?": "."}
    return "(?s:" + "".join(signs.get(sign, re.escape(sign)) for sign in pattern) + ")"


def matcher(pattern: str) -> str:
    """The expression that matches as a whole; polars' engine must know all that it uses.

    Raises ConfigurationError for look-around, back references and other things that
    Java's engine has and polars' has not.
    """
    return regex(rf"\A(?:{pattern})\z")


def regex(pattern: str) -> str:
    """The pattern as it is, once polars' engine has taken it; ConfigurationError if it doesn't."""
    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.ComputeError:
        msg = (
            f"the regular expression {pattern!r} is not supported"
            " (no look-around, no back references): write it in simpler terms"
        )
        raise ConfigurationError(msg) from None
    return pattern


def replacement(text: str) -> str:
    r"""Java's replacement text (`$1`, `${name}`, `\$`) in the form that polars takes (`${1}`).

    Raises ConfigurationError for a `$` that names no group.
    """

    def rewrite(match: re.Match[str]) -> str:
        escaped, name, number, bare = match.groups()
        if bare:
            msg = f"in the replacement {text!r} a $ names no group; write \\$ for a dollar sign"
            raise ConfigurationError(msg)
        if escaped is not None:
            return "$$" if escaped == "$" else str(escaped)
        return f"${{{name or number}}}"

    return _GROUP.sub(rewrite, text)
