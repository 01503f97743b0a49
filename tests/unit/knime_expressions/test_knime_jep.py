import math
import struct

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bentley.domain.errors import ConfigurationError
from bentley.knime.expressions.jep import compile_formula

COLUMNS = ("a", "close price", "x.y-z")
SCHEMA = pl.Schema(dict.fromkeys(COLUMNS, pl.Float64))
floats = st.floats() | st.sampled_from([0.0, -0.0, 1.0, 1e-310, 0.1, 0.2, 0.3])
cells = st.none() | floats
finite = st.floats(min_value=0, allow_infinity=False, allow_nan=False)


def evaluate(formula, rows, variables=None):
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    expression = compile_formula(formula, SCHEMA, variables or {})
    return frame.with_columns(expression.alias("result"))["result"].to_list()


def one(formula, *row, variables=None):
    row = (*row, *[1.0] * (3 - len(row)))
    return evaluate(formula, [row], variables)[0]


def bits(value):
    return None if value is None else struct.pack(">d", value)


# the oracle: IEEE arithmetic as Java does it, in plain Python


def divide(a, b):
    if b != 0:
        return a / b
    if a == 0 or math.isnan(a):
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1, b)


def remainder(a, b):
    return math.nan if math.isnan(a) or math.isinf(a) or b == 0 else math.fmod(a, b)


BINARY = {
    "||": (1, lambda a, b: float(a != 0 or b != 0)),
    "&&": (2, lambda a, b: float(a != 0 and b != 0)),
    "==": (3, lambda a, b: float(a == b)),
    "!=": (3, lambda a, b: float(a != b)),
    "<": (4, lambda a, b: float(a < b)),
    "<=": (4, lambda a, b: float(a <= b)),
    ">": (4, lambda a, b: float(a > b)),
    ">=": (4, lambda a, b: float(a >= b)),
    "+": (5, lambda a, b: a + b),
    "-": (5, lambda a, b: a - b),
    "*": (6, lambda a, b: a * b),
    "/": (6, divide),
    "%": (6, remainder),
}
UNARY = {"-": lambda a: -a, "!": lambda a: float(a == 0), "+": lambda a: a}
TIGHTEST = 8

leaves = st.tuples(st.just("number"), finite) | st.tuples(
    st.just("column"), st.sampled_from(COLUMNS)
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.tuples(st.sampled_from(sorted(BINARY)), inner, inner)
        | st.tuples(st.sampled_from(sorted(UNARY)), inner)
    ),
    max_leaves=12,
)


def meaning(tree, row):
    kind, *parts = tree
    if kind == "number":
        return parts[0]
    if kind == "column":
        return row[COLUMNS.index(parts[0])]
    values = [meaning(part, row) for part in parts]
    return UNARY[kind](*values) if len(values) == 1 else BINARY[kind][1](*values)


def columns_of(tree):
    if tree[0] == "column":
        return {tree[1]}
    return set().union(*(columns_of(part) for part in tree[1:] if isinstance(part, tuple)))


def written(tree, bound=0, space=" "):
    """The tree in as few parentheses as JEP's precedence allows."""
    kind, *parts = tree
    if kind == "number":
        return repr(parts[0])
    if kind == "column":
        return f"${parts[0]}$"
    if len(parts) == 1:
        text, level = kind + written(parts[0], 7, space), 7
    else:
        level = BINARY[kind][0]
        left, right = written(parts[0], level, space), written(parts[1], level + 1, space)
        text = f"{left}{space}{kind}{space}{right}"
    return f"({text})" if level < bound else text


def expected(tree, row):
    if any(row[COLUMNS.index(name)] is None for name in columns_of(tree)):
        return None
    value = meaning(tree, row)
    return value if math.isfinite(value) else None


@given(
    tree=trees,
    rows=st.lists(st.tuples(cells, cells, cells), min_size=1),
    space=st.sampled_from(["", " "]),
)
@example(tree=("-", ("number", 0.0), ("column", "a")), rows=[(0.0, 1.0, 1.0)] * 2, space="")
def test_every_formula_means_what_plain_python_says_to_the_bit(tree, rows, space):
    """But for the sign of a zero: polars takes `0 - x` for `-x`, which no formula can tell."""

    def unsigned(value):
        return None if value is None else bits(value + 0.0)

    result = evaluate(written(tree, space=space), rows)
    assert [unsigned(value) for value in result] == [unsigned(expected(tree, row)) for row in rows]


@given(rows=st.lists(st.tuples(floats, floats, floats), min_size=1, max_size=40))
def test_a_sum_is_added_from_left_to_right(rows):
    result = evaluate("$a$ + $close price$ + $x.y-z$ + 0.1 + 0.2 + 0.3", rows)
    sums = [a + b + c + 0.1 + 0.2 + 0.3 for a, b, c in rows]
    wanted = [value if math.isfinite(value) else None for value in sums]
    assert [bits(v) for v in result] == [bits(v) for v in wanted]


@pytest.mark.parametrize("divisor", ["3.7", "$$ROWCOUNT$$", "COL_MAX($close price$)", "pi"])
def test_division_by_a_constant_is_rounded_like_any_other(divisor):
    rows = [(math.exp(n / 50), 3.7, 1.0) for n in range(500)]
    by = {"$$ROWCOUNT$$": 500, "pi": math.pi}.get(divisor, 3.7)
    assert evaluate(f"$a$ / {divisor}", rows) == [row[0] / by for row in rows]
    assert evaluate("average($a$, 1, 1)", rows) == [(row[0] + 1 + 1) / 3 for row in rows]


SAMPLES = [(math.exp(n / 9 - 30), 1.5 + n / 7, math.sin(n)) for n in range(300)]


@pytest.mark.parametrize(
    "formula",
    [
        *("$a$ / 3.7", "$a$ % 3.7", "$a$ ^ 2", "$a$ ^ 3", "$a$ ^ 0.5", "$a$ ^ -1", "2 ^ $x.y-z$"),
        *("pow($a$, $x.y-z$)", "ln($a$ / $close price$)", "log($a$)", "exp($x.y-z$)"),
        *("sin($a$)", "cos($a$)", "tan($a$)", "asin($x.y-z$)", "acos($x.y-z$)", "atan($a$)"),
        *("asinh($a$)", "acosh($x.y-z$)", "atanh($a$)", "median($a$, 1, $x.y-z$)"),
        *("sinh($x.y-z$)", "cosh($x.y-z$)", "tanh($x.y-z$)", "atan2($a$, $x.y-z$)"),
        *(
            "sqrt($a$)",
            "round($a$, 3)",
            "average($a$, $x.y-z$, 1)",
            "1 / $a$",
            "if($a$ > 1, 1/3, $a$/3)",
        ),
    ],
)
def test_all_at_once_and_row_by_row_give_equal_bits(formula):
    one_by_one = [evaluate(formula, [row])[0] for row in SAMPLES]
    in_pairs = [v for n in range(0, 300, 2) for v in evaluate(formula, SAMPLES[n : n + 2])]
    assert evaluate(formula, SAMPLES) == one_by_one == in_pairs


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("7 - 2 - 1", 4),
        ("8 / 4 / 2", 1),
        ("-2 ^ 2", -4),
        ("(-2) ^ 2", 4),
        ("2 ^ -1", 0.5),
        ("2 ^ 3 ^ 2", 512),
        ("2 * 3 ^ 2", 18),
        ("!0 + 1", 2),
        ("--3", 3),
        ("1 < 2 == 1", 1),
        ("1 || 0 && 0", 1),
        ("3 > 2 > 1", 0),
        ("7 % 3", 1),
        ("-7 % 3", -1),
        ("7 % -3", 1),
        ("1e3 + .5 + 2.", 1002.5),
        ("pi", math.pi),
        ("e", math.e),
    ],
)
def test_precedence_and_literals(formula, value):
    assert one(formula) == value


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("abs(-3.5)", 3.5),
        ("ceil(-1.2)", -1),
        ("floor(-1.2)", -2),
        ("round(2.5)", 2),
        ("round(-2.5)", -2),
        ("round(3.5)", 4),
        ("rint(0.5)", 0),
        ("round(2.345, 2)", round(2.345 * 100) / 100),
        ("round(1234.5, -2)", 1200),
        ("signum(-4)", -1),
        ("sqrt(16)", 4),
        ("exp(1)", math.e),
        ("ln(e)", 1),
        ("log(100)", 2),
        ("pow(2, 10)", 1024),
        ("mod(-7, 3)", -1),
        ("if(1, 10, 20)", 10),
        ("if(0, 10, 20)", 20),
        ("if(-1, 10, 20)", 20),
        ("if(2 > 1, if(1 > 2, 1, 2), 3)", 2),
        ("min(3)", 3),
        ("min(3, 1, 2)", 1),
        ("max(3, 1, 4)", 4),
        ("min_in_args(3, 1)", 1),
        ("max_in_args(3, 1)", 3),
        ("sum(1, 2, 3)", 6),
        ("median(3, 1, 2)", 2),
        ("median(3, 1, 2, 8)", 2.5),
        ("median(7)", 7),
        ("median(1, 0/0, 2)", None),
        ("asinh(0)", 0),
        ("acosh(1)", 0),
        ("acosh(0.5)", None),
        ("acosh(-2)", None),
        ("atanh(0)", 0),
        ("atanh(1)", None),
        ("atanh(-2)", None),
        ("average(1, 2)", 1.5),
        ("sin(0)", 0),
        ("cos(0)", 1),
        ("tan(0)", 0),
        ("asin(1)", math.pi / 2),
        ("acos(1)", 0),
        ("atan(1)", math.pi / 4),
        ("atan2(1, 0)", math.pi / 2),
        ("tanh(0)", 0),
        ("cosh(0) + sinh(0)", 1),
        ("isNaN(0)", 0),
        ("isNaN(0 / 0)", 1),
        ("isInfinite(1 / 0)", 1),
        ("isInfinite(1)", 0),
    ],
)
def test_functions(formula, value):
    assert one(formula) == value


@given(st.floats(min_value=-0.99, max_value=0.99))
def test_inverse_hyperbolic_functions(x):
    assert one("asinh(sinh($a$))", x) == pytest.approx(x, abs=1e-15)
    assert one("atanh(tanh($a$))", x) == pytest.approx(x, abs=1e-15)
    assert one("acosh($a$)", x + 2) == pytest.approx(math.acosh(x + 2), rel=1e-13)


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_logarithms_are_the_platforms(x):
    assert one("ln($a$)", x) == math.log(x)
    assert one("log($a$)", x) == math.log(x) / math.log(10)


@given(st.floats(min_value=1e-9, max_value=1e9), st.floats(-20, 20))
def test_powers_are_within_one_unit_in_the_last_place(x, y):
    wanted = math.pow(x, y)
    assert abs(one("$a$ ^ $close price$", x, y) - wanted) <= math.ulp(wanted)


@pytest.mark.parametrize(
    "formula", ["1 / 0", "-1 / 0", "0 / 0", "ln(0)", "sqrt(-1)", "ln(-1)", "1e308 * 10"]
)
def test_what_is_not_finite_is_missing(formula):
    assert one(formula) is None


def test_a_missing_cell_in_any_used_column_makes_the_result_missing():
    rows = [(None, 1.0, 1.0), (1.0, None, 1.0), (1.0, 1.0, None)]
    assert evaluate("if(1, $a$, $close price$)", rows) == [None, None, 1.0]


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("$a$ == $a$", 0),
        ("$a$ != $a$", 1),
        ("$a$ < 1", 0),
        ("$a$ >= 1", 0),
        ("$a$ > 1e308", 0),
        ("$a$ && 1", 1),
        ("$a$ || 0", 1),
        ("!$a$", 0),
        ("if($a$, 1, 2)", 1),
        ("isNaN($a$)", 1),
        ("min($a$, 1)", None),
        ("max(1, $a$)", None),
        ("$a$ + 1", None),
    ],
)
def test_a_nan_cell_is_a_value(formula, value):
    assert one(formula, math.nan) == value


def test_infinity_can_be_calculated_with():
    assert one("1 / $a$", math.inf) == 0
    assert one("if($a$ > 1e308, 1, 0)", math.inf) == 1


def test_row_counters_and_formulas_without_columns():
    rows = [(1.0, 1.0, 1.0)] * 4
    assert evaluate("$$ROWINDEX$$ + $$ROWCOUNT$$ / 10", rows) == [0.4, 1.4, 2.4, 3.4]
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    assert frame.select(compile_formula("1 + 1", SCHEMA, {})).height == 4
    assert frame.clear().with_columns(r=compile_formula("$a$ + 1", SCHEMA, {})).height == 0


def test_flow_variables_by_their_letter():
    variables = {"look back": 20, "factor.a": 0.5, "text": "x", "flag": True}
    assert one("$${Ilook back}$$ * $${Dfactor.a}$$", variables=variables) == 10
    assert one("$${Dlook back}$$", variables=variables) == 20
    for formula in ("$${Ifactor.a}$$", "$${Stext}$$", "$${Itext}$$", "$${Iflag}$$", "$${Xtext}$$"):
        with pytest.raises(ConfigurationError, match="flow variable"):
            one(formula, variables=variables)


def test_column_statistics_skip_missing_cells():
    rows = [(1.0, 1.0, 1.0), (None, 1.0, 1.0), (4.0, 1.0, 1.0)]
    for name, value in (("MIN", 1), ("MAX", 4), ("MEAN", 2.5), ("STDDEV", math.sqrt(4.5))):
        assert evaluate(f"COL_{name}($a$)", rows) == [value] * 3
    assert evaluate("$a$ - COL_MIN($a$)", rows) == [0, None, 3]
    assert evaluate("COL_SUM($a$) + COL_MEDIAN($a$)", rows) == [5 + 2.5] * 3
    assert evaluate("COL_MEDIAN($a$)", [*rows, (3.0, 1.0, 1.0)]) == [3] * 4


@pytest.mark.parametrize("dtype", [pl.Int8, pl.Int32, pl.Int64, pl.UInt32, pl.Float32, pl.Boolean])
def test_any_number_column_gives_float64(dtype):
    frame = pl.DataFrame({"n": pl.Series([1, 0, None]).cast(dtype)})
    result = frame.with_columns(r=compile_formula("$n$ + 1", frame.schema, {}))["r"]
    assert result.dtype == pl.Float64
    assert result.to_list() == [2.0, 1.0, None]


def test_formulas_run_lazily_too():
    frame = pl.DataFrame({"n": [7.0, -7.0]}).lazy()
    formula = compile_formula("$n$ % 4 + $$ROWINDEX$$", frame.collect_schema(), {})
    assert frame.with_columns(r=formula).collect()["r"].to_list() == [3.0, -2.0]


@pytest.mark.parametrize(
    ("formula", "position", "text"),
    [
        ("", 1, "empty"),
        ("  ", 3, "empty"),
        ("1 +", 4, "the end"),
        ("1 2", 3, "an operator expected"),
        ("(1", 3, "')' expected"),
        ("1 + $nope$", 5, "no column 'nope'"),
        ("1 + $text$", 5, "not a number"),
        ("1 + frobnicate(1)", 5, "function 'frobnicate' is not supported"),
        ("abs(1, 2)", 1, "1 argument"),
        ("if(1, 2)", 1, "3 argument"),
        ("round(1, 2, 3)", 1, "1 to 2 arguments"),
        ("min()", 1, "at least 1"),
        ("tau", 1, "no constant"),
        ("ABS(1)", 1, "'ABS'"),
        ("1 # 2", 3, "unexpected character '#'"),
        ("$${Inope}$$", 1, "no flow variable 'nope'"),
        ("COL_MEAN(1)", 10, "takes a column"),
        ("$$ROWID$$", 1, "ROWID"),
        ("$$CURRENT_COLUMN$$", 1, "CURRENT_COLUMN"),
        ("1 = 1", 3, "unexpected character '='"),
    ],
)
def test_what_is_unknown_is_named_with_its_place(formula, position, text):
    schema = pl.Schema({"a": pl.Float64, "text": pl.String})
    with pytest.raises(ConfigurationError) as caught:
        compile_formula(formula, schema, {})
    assert text in str(caught.value)
    assert f"{formula!r}, position {position}:" in str(caught.value)


@pytest.mark.parametrize(
    "formula", ["(" * 3000 + "1" + ")" * 3000, "-" * 4000 + "1", "2^" * 2400 + "1"]
)
def test_what_is_nested_too_deeply_is_refused(formula):
    with pytest.raises(ConfigurationError, match=r"nested too deeply|longer than"):
        compile_formula(formula, SCHEMA, {})


def test_an_error_repeats_a_bounded_part_of_the_formula():
    with pytest.raises(ConfigurationError) as caught:
        one("+".join(["$a$"] * 1_000) + "+")
    assert "position 4001:" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_what_is_long_works_up_to_a_bound():
    assert one("+".join(["$a$"] * 2_000), 1.0) == 2_000
    with pytest.raises(ConfigurationError, match="longer than 5000 symbols"):
        one("+".join(["$a$"] * 2_600), 1.0)
