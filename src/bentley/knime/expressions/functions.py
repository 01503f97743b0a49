"""The functions of KNIME's Math Formula on polars, each with the sense that Java gives it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import polars as pl

CONSTANTS = {"pi": math.pi, "e": math.e}
_ANY = 1_000
_LN_10 = math.log(10)
_COMPARISONS: dict[str, np.ufunc] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


def truth(value: pl.Expr) -> pl.Expr:
    """Whether a number counts as true: everything but zero, NaN included."""
    return value != 0.0


def compare(operator: str, left: pl.Expr, right: pl.Expr) -> pl.Expr:
    """1 or 0 for a comparison in IEEE's sense; polars itself orders NaN as the greatest number."""
    return _by_numpy(_COMPARISONS[operator], left, right)


def finite(value: pl.Expr) -> pl.Expr:
    """The value where it is a finite number, missing where not."""
    # in one step of its own: naming the value twice would calculate it twice
    return value.map_batches(_finite, return_dtype=pl.Float64, is_elementwise=True)


def _finite(values: pl.Series) -> pl.Series:
    return values.set(~values.is_finite(), None)


def divide(left: pl.Expr, right: pl.Expr) -> pl.Expr:
    """Division rounded as IEEE says, whatever is divided by.

    polars multiplies by the reciprocal where the divisor is a constant: another last bit in two
    of three results, and not in a frame of one row, so that results would depend on its height.
    """
    return _by_numpy(np.divide, left, right)


def remainder(left: pl.Expr, right: pl.Expr) -> pl.Expr:
    """Java's `%` on doubles: exact, with the sign of the dividend."""
    return _by_numpy(np.fmod, left, right)


def _by_numpy(function: np.ufunc, left: pl.Expr, right: pl.Expr) -> pl.Expr:
    def apply(pair: Sequence[pl.Series]) -> pl.Series:
        first, second = pair
        length = max(len(first), len(second)) if len(first) and len(second) else 0
        with np.errstate(all="ignore"):
            values = function(_floats(first, length), _floats(second, length))
        return pl.Series(first.name, values.astype(np.float64, copy=False))

    return pl.map_batches([left, right], apply, return_dtype=pl.Float64, is_elementwise=True)


def _floats(series: pl.Series, length: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    # a missing cell may become NaN here: the formula's result is missing either way
    values = series.to_numpy().astype(np.float64, copy=False)
    return np.broadcast_to(values if length else values[:0], (length,))


def _round(value: pl.Expr, digits: pl.Expr | None = None) -> pl.Expr:
    # JEP: Math.rint, half to even; with digits rint(x * 10^d) / 10^d
    if digits is None:
        return value.round(0, mode="half_to_even")
    scale = pl.lit(10.0).pow(digits.cast(pl.Int64, strict=False).cast(pl.Float64))
    return divide((value * scale).round(0, mode="half_to_even"), scale)


def _if(condition: pl.Expr, then: pl.Expr, otherwise: pl.Expr) -> pl.Expr:
    # JEP: above zero is true; KNIME: NaN is true, and to polars it is above all
    return pl.when(condition > 0.0).then(then).otherwise(otherwise)


def _least(*values: pl.Expr) -> pl.Expr:
    # as Math.min does, numpy's lets NaN win
    return reduce(lambda a, b: _by_numpy(np.minimum, a, b), values)


def _greatest(*values: pl.Expr) -> pl.Expr:
    return reduce(lambda a, b: _by_numpy(np.maximum, a, b), values)


def _total(*values: pl.Expr) -> pl.Expr:
    return reduce(lambda a, b: a + b, values)


def _median(*values: pl.Expr) -> pl.Expr:
    # of an even number the mean of the two in the middle; NaN wins, as in min and max
    def apply(series: Sequence[pl.Series]) -> pl.Series:
        length = max(map(len, series)) if all(map(len, series)) else 0
        cells = np.stack([_floats(each, length) for each in series])
        return pl.Series(series[0].name, np.median(cells, axis=0))

    return pl.map_batches(list(values), apply, return_dtype=pl.Float64, is_elementwise=True)


def _asinh(x: pl.Expr) -> pl.Expr:
    # the inverse hyperbolic functions by the formulas that JEP has, whatever digits they cost
    return (x + (x * x + 1.0).sqrt()).log()


def _acosh(x: pl.Expr) -> pl.Expr:
    return (x + (x * x - 1.0).sqrt()).log()


def _atanh(x: pl.Expr) -> pl.Expr:
    return divide(x + 1.0, 1.0 - x).log() * 0.5


def _atan2(y: pl.Expr, x: pl.Expr) -> pl.Expr:
    return pl.arctan2(y, x)


@dataclass(frozen=True, slots=True)
class Function:
    """A function with the least and the most arguments that it takes."""

    apply: Callable[..., pl.Expr]
    least: int = 1
    most: int = 1

    def arity(self) -> str:
        """How many arguments it takes, in words."""
        if self.most == _ANY:
            return f"at least {self.least} argument(s)"
        if self.least == self.most:
            return f"{self.least} argument(s)"
        return f"{self.least} to {self.most} arguments"


FUNCTIONS: dict[str, Function] = {
    "abs": Function(lambda x: x.abs()),
    "ceil": Function(lambda x: x.ceil()),
    "floor": Function(lambda x: x.floor()),
    "round": Function(_round, 1, 2),
    "rint": Function(_round),
    "signum": Function(lambda x: x.sign()),
    "sqrt": Function(lambda x: x.sqrt()),
    "exp": Function(lambda x: x.exp()),
    "ln": Function(lambda x: x.log()),
    "log": Function(lambda x: divide(x.log(), pl.lit(_LN_10))),  # as JEP computes it
    "pow": Function(lambda x, y: x.pow(y), 2, 2),
    "mod": Function(remainder, 2, 2),
    "if": Function(_if, 3, 3),
    "min": Function(_least, 1, _ANY),
    "max": Function(_greatest, 1, _ANY),
    "min_in_args": Function(_least, 1, _ANY),
    "max_in_args": Function(_greatest, 1, _ANY),
    "sum": Function(_total, 1, _ANY),
    "median": Function(_median, 1, _ANY),
    "average": Function(lambda *v: divide(_total(*v), pl.lit(float(len(v)))), 1, _ANY),
    "sin": Function(lambda x: x.sin()),
    "cos": Function(lambda x: x.cos()),
    "tan": Function(lambda x: x.tan()),
    "asin": Function(lambda x: x.arcsin()),
    "acos": Function(lambda x: x.arccos()),
    "atan": Function(lambda x: x.arctan()),
    "atan2": Function(_atan2, 2, 2),
    "sinh": Function(lambda x: x.sinh()),
    "cosh": Function(lambda x: x.cosh()),
    "tanh": Function(lambda x: x.tanh()),
    "asinh": Function(_asinh),
    "acosh": Function(_acosh),
    "atanh": Function(_atanh),
    "isNaN": Function(lambda x: x.is_nan().cast(pl.Float64)),
    "isInfinite": Function(lambda x: x.is_infinite().cast(pl.Float64)),
}

# spelled as KNIME's node description and forum do; missing cells are skipped
AGGREGATES: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "COL_MIN": lambda x: x.min(),
    "COL_MAX": lambda x: x.max(),
    "COL_MEAN": lambda x: x.mean(),
    "COL_MEDIAN": lambda x: x.median(),
    "COL_SUM": lambda x: x.sum(),
    "COL_STDDEV": lambda x: x.std(ddof=1),
}
