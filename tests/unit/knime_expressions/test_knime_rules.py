import math
import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentley.domain.errors import ConfigurationError
from bentley.knime.expressions.rules import compile_filter, compile_rules

SCHEMA = pl.Schema({"n": pl.Int64, "d": pl.Float64, "s": pl.String, "is open": pl.Boolean})
NAMES = tuple(SCHEMA)
WORDS = ["", "a", "ab", "b*", "Market Street 1", "x\ny"]
rows = st.lists(
    st.tuples(
        st.none() | st.integers(-3, 3),
        st.none() | st.sampled_from([-1.5, 0.0, 0.5, 2.0, math.nan, math.inf]),
        st.none() | st.sampled_from(WORDS),
        st.none() | st.booleans(),
    ),
    min_size=1,
    max_size=20,
)


def apply(compiler, rules, data, variables=None):
    frame = pl.DataFrame(data, schema=SCHEMA, orient="row")
    return frame.with_columns(compiler(rules, SCHEMA, variables or {}).alias("result"))["result"]


def outcome(rules, *row, variables=None):
    row = (*row, *[None] * (len(NAMES) - len(row)))
    return apply(compile_rules, rules, [row], variables).to_list()[0]


# the oracle: conditions as trees, read by plain Python


def kind(value):
    """A missing cell, a NaN, or a value: only values are compared by what they hold."""
    if value is None:
        return "missing"
    return "nan" if isinstance(value, float) and math.isnan(value) else "value"


def compared(operator, left, right):
    if kind(left) == kind(right) == "value":
        return COMPARE[operator](left, right)
    return kind(left) == kind(right) and "=" in operator


COMPARE = {
    "=": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
LOGIC = {
    "OR": (1, lambda a, b: a or b),
    "XOR": (2, lambda a, b: a != b),
    "AND": (3, lambda a, b: a and b),
}

numbers = st.integers(-3, 3) | st.sampled_from([-1.5, 0.5, 2.0])
words = st.sampled_from([word for word in WORDS if "\n" not in word])
comparisons = (
    st.tuples(st.just("compare"), st.sampled_from("nd"), st.sampled_from(sorted(COMPARE)), numbers)
    | st.tuples(st.just("compare"), st.just("s"), st.sampled_from(sorted(COMPARE)), words)
    | st.tuples(st.just("columns"), st.sampled_from("nd"), st.sampled_from(sorted(COMPARE)))
    | st.tuples(st.just("in"), st.sampled_from("nd"), st.lists(numbers, min_size=1, max_size=3))
    | st.tuples(st.just("in"), st.just("s"), st.lists(words, min_size=1, max_size=3))
    | st.tuples(st.just("missing"), st.sampled_from(NAMES))
    | st.tuples(st.just("like"), st.sampled_from(["*", "a*", "?", "*Street*", "b*", "x?y", ""]))
    | st.sampled_from([("nan",), ("flag",), ("TRUE",), ("FALSE",)])
)
conditions = st.recursive(
    comparisons,
    lambda inner: (
        st.tuples(st.sampled_from(sorted(LOGIC)), inner, inner) | st.tuples(st.just("NOT"), inner)
    ),
    max_leaves=8,
)


def quoted(value):
    return f'"{value}"' if isinstance(value, str) else repr(value)


def written(tree, bound=0):
    kind, *parts = tree
    simple = {
        "compare": lambda name, operator, value: f"${name}$ {operator} {quoted(value)}",
        "columns": lambda name, operator: f"${name}$ {operator} $d$",
        "in": lambda name, values: f"${name}$ IN ({', '.join(map(quoted, values))})",
        "missing": lambda name: f"MISSING ${name}$",
        "like": lambda pattern: f'$s$ LIKE "{pattern}"',
        "nan": lambda: "NaN $d$",
        "flag": lambda: "$is open$",
        "TRUE": lambda: "TRUE",
        "FALSE": lambda: "FALSE",
    }
    if kind in simple:
        return simple[kind](*parts)
    if kind == "NOT":
        text, level = f"NOT {written(parts[0], 4)}", 4
    else:
        level = LOGIC[kind][0]
        text = f"{written(parts[0], level)} {kind} {written(parts[1], level + 1)}"
    return f"({text})" if level < bound else text


def holds(tree, row):
    name, *parts = tree
    cells = dict(zip(NAMES, row, strict=True))
    if name in LOGIC:
        return LOGIC[name][1](holds(parts[0], row), holds(parts[1], row))
    checks = {
        "NOT": lambda: not holds(parts[0], row),
        "compare": lambda: compared(parts[1], cells[parts[0]], parts[2]),
        "columns": lambda: compared(parts[1], cells[parts[0]], cells["d"]),
        "in": lambda: cells[parts[0]] is not None and cells[parts[0]] in parts[1],
        "missing": lambda: cells[parts[0]] is None,
        "like": lambda: cells["s"] is not None and like(parts[0], cells["s"]),
        "nan": lambda: cells["d"] is not None and math.isnan(cells["d"]),
        "flag": lambda: cells["is open"] is True,
        "TRUE": lambda: True,
        "FALSE": lambda: False,
    }
    return checks[name]()


def like(pattern, text):
    if not pattern:
        return not text
    head, tail = pattern[0], pattern[1:]
    if head == "*":
        return any(like(tail, text[at:]) for at in range(len(text) + 1))
    return bool(text) and head in {"?", text[0]} and like(tail, text[1:])


@given(trees=st.lists(conditions, min_size=1, max_size=4), data=rows)
def test_the_first_rule_that_holds_gives_the_outcome(trees, data):
    rules = [f"{written(tree)} => {number}" for number, tree in enumerate(trees)]
    result = apply(compile_rules, rules, data)
    wanted = [next((n for n, tree in enumerate(trees) if holds(tree, row)), None) for row in data]
    assert result.to_list() == wanted
    assert result.dtype == pl.Int32


@given(
    trees=st.lists(st.tuples(conditions, st.booleans()), min_size=1, max_size=4),
    data=rows,
)
def test_a_filter_keeps_what_the_first_rule_that_holds_says(trees, data):
    rules = [f"{written(tree)} => {str(keep).upper()}" for tree, keep in trees]
    result = apply(compile_filter, rules, data)
    wanted = [next((keep for tree, keep in trees if holds(tree, row)), False) for row in data]
    assert result.to_list() == wanted
    assert result.dtype == pl.Boolean


@pytest.mark.parametrize(
    ("condition", "row", "holding"),
    [
        ("TRUE OR FALSE AND FALSE", (), True),
        ("TRUE XOR TRUE OR TRUE", (), True),
        ("TRUE OR TRUE XOR TRUE", (), True),
        ("(TRUE OR TRUE) XOR TRUE", (), False),
        ("FALSE AND TRUE XOR TRUE", (), True),
        ("NOT FALSE AND FALSE", (), False),
        ("NOT $n$ = 1", (None,), True),
        ("$n$ < 1", (None,), False),
        ("$n$ >= 1", (None,), False),
        ("$n$ = $d$", (None, None), True),
        ("$n$ <= $d$", (None, None), True),
        ("$n$ >= $d$", (None, None), True),
        ("$n$ < $d$", (None, None), False),
        ("$n$ >= $d$", (None, 1.0), False),
        ("$n$ >= $d$", (1, None), False),
        ("$d$ > 1", (None, math.nan), False),
        ("$d$ >= $d$", (None, math.nan), True),
        ("$d$ > $d$", (None, math.nan), False),
        ("$n$ < $d$", (1, math.nan), False),
        ("$n$ < $d$", (None, math.nan), False),
        ("$n$ = -2", (-2,), True),
        ("$n$ < 1.5", (1,), True),
        ("2 > $n$", (1,), True),
        ("$n$ = $d$", (2, 2.0), True),
        ("$d$ = $d$", (None, math.nan), True),
        ('$s$ MATCHES "[A-Z].*"', (None, None, "Market Street"), True),
        ('$s$ MATCHES "Market"', (None, None, "Market Street"), False),
        ('$s$ MATCHES "a|ab"', (None, None, "ab"), True),
        ('$s$ MATCHES "x.y"', (None, None, "x\ny"), False),
        ('$s$ LIKE "x?y"', (None, None, "x\ny"), True),
        ('$s$ LIKE "a.c"', (None, None, "abc"), False),
        ('$s$ = /say "hi"/', (None, None, 'say "hi"'), True),
        ('$s$ = "a => b"', (None, None, "a => b"), True),
        ("$is open$ = TRUE", (None, None, None, True), True),
        ("$$ROWINDEX$$ = 0 AND $$ROWCOUNT$$ = 1", (), True),
    ],
)
def test_conditions(condition, row, holding):
    assert (outcome([f"{condition} => 1"], *row) == 1) is holding


@pytest.mark.parametrize(
    ("outcomes", "dtype", "values"),
    [
        (["1", "2"], pl.Int32, [1, 2]),
        (["1", "-2.5"], pl.Float64, [1.0, -2.5]),
        (["1", "3000000000"], pl.Int64, [1, 3_000_000_000]),
        (["$n$", "2"], pl.Int64, [7, 2]),
        (["$n$", "$d$"], pl.Float64, [7.0, 0.5]),
        (["$$ROWINDEX$$", "9"], pl.Int64, [0, 9]),
        (['"up"', '"down"'], pl.String, ["up", "down"]),
        (['"up"', "2"], pl.String, ["up", "2"]),
        (['"up"', "2.0"], pl.String, ["up", "2.0"]),
        (['"up"', "12345678.5"], pl.String, ["up", "1.23456785E7"]),
        (["$n$", '"x"'], pl.String, ["7", "x"]),
        (["$d$", "$s$"], pl.String, ["0.5", "text"]),
        (["TRUE", "FALSE"], pl.Boolean, [True, False]),
        (["$is open$", "FALSE"], pl.Boolean, [True, False]),
    ],
)
def test_outcomes_take_their_common_type(outcomes, dtype, values):
    rules = [f"$$ROWINDEX$$ = 0 => {outcomes[0]}", f"TRUE => {outcomes[1]}"]
    result = apply(compile_rules, rules, [(7, 0.5, "text", True)] * 2)
    assert result.dtype == dtype
    assert result.to_list() == values


def test_an_outcome_may_be_missing_and_still_is_the_outcome():
    rules = ['$s$ = "a" => $n$', "TRUE => 9"]
    result = apply(compile_rules, rules, [(None, None, "a", None), (1, None, "b", None)])
    assert result.to_list() == [None, 9]
    assert apply(compile_filter, ["TRUE => $is open$"], [(None, None, None, None)]).to_list() == [
        False
    ]


def test_comments_and_empty_lines_are_no_rules():
    rules = ["// first $nope$ => 1", "", "  // indented", "TRUE => 1\n// in one text\nTRUE => 2"]
    assert outcome(rules) == 1


def test_flow_variables():
    variables = {"limit": 5, "share": 0.5, "name": "a*"}
    assert outcome(["$n$ > $${Ilimit}$$ => $${Dshare}$$"], 6, variables=variables) == 0.5
    assert (
        outcome(["$s$ LIKE $${Sname}$$ => $${Sname}$$"], None, None, "ab", variables=variables)
        == "a*"
    )
    with pytest.raises(ConfigurationError, match="no flow variable 'gone'"):
        outcome(["$n$ > $${Igone}$$ => 1"])


def test_a_rule_without_columns_gives_every_row_its_outcome():
    frame = pl.DataFrame([(1, 1.0, "a", True)] * 3, schema=SCHEMA, orient="row")
    assert frame.select(compile_rules(["TRUE => 1"], SCHEMA, {})).height == 3
    assert frame.filter(compile_filter(["TRUE => TRUE"], SCHEMA, {})).height == 3
    assert frame.filter(compile_filter(["FALSE => TRUE"], SCHEMA, {})).height == 0


@pytest.mark.parametrize(
    ("rule", "position", "text"),
    [
        ("$n$ > 0", 8, "'=>' expected"),
        ("$n$ > => 1", 7, "a value expected"),
        ("$n$ != 1 => 1", 5, "NOT a = b"),
        ("$n$ => 1", 1, "a comparison expected"),
        ("$nope$ > 0 => 1", 1, "no column 'nope'"),
        ('$n$ = "7" => 1', 5, "compares number with text"),
        ('$n$ IN (1, "7") => 1', 5, "compares number with text"),
        ('$n$ LIKE "7" => 1', 10, "text with a constant pattern"),
        ("$s$ LIKE $s$ => 1", 10, "constant pattern"),
        ('$s$ MATCHES "(?=a)" => 1', 13, "not supported"),
        ('$s$ MATCHES "(" => 1', 13, "not supported"),
        ("NaN $n$ => 1", 1, "column of doubles"),
        ("MISSING 1 => 1", 9, "takes a column"),
        ("$n$ > 0 => up", 12, "'up' is not known"),
        ("$n$ > AND => 1", 7, "the operator AND"),
        ("$n$ = 1 and TRUE => 1", 9, "'=>' expected"),
        ("$n$ > 0 => 1 2", 14, "an operator expected"),
        ('$$ROWID$$ = "Row0" => 1', 1, "ROWID"),
        ('$n$ > 0 => "open', 12, "unexpected character"),
        ("(TRUE => 1", 7, "')' expected"),
    ],
)
def test_what_is_unknown_is_named_with_its_place(rule, position, text):
    with pytest.raises(ConfigurationError) as caught:
        compile_rules(["// a comment", rule], SCHEMA, {})
    assert text in str(caught.value)
    assert f"{rule!r}, position {position}:" in str(caught.value)


def test_what_can_not_be_one_column_is_refused():
    with pytest.raises(ConfigurationError, match="has no rule"):
        compile_rules(["// nothing"], SCHEMA, {})
    for other in ("1", '"x"'):
        with pytest.raises(ConfigurationError, match="mix TRUE or FALSE"):
            compile_rules(["TRUE => TRUE", f"TRUE => {other}"], SCHEMA, {})
    with pytest.raises(ConfigurationError, match="must end in TRUE or FALSE"):
        compile_filter(["TRUE => TRUE", "TRUE => 1"], SCHEMA, {})
    dated = pl.Schema({"at": pl.Datetime("ms")})
    with pytest.raises(ConfigurationError, match="neither number, text nor boolean"):
        compile_rules(["$at$ > 1 => 1"], dated, {})
    assert re.search("is_null", str(compile_rules(["MISSING $at$ => 1"], dated, {})))


@pytest.mark.parametrize("condition", ["(" * 2400 + "TRUE" + ")" * 2400, "NOT " * 4000 + "TRUE"])
def test_what_is_nested_too_deeply_is_refused(condition):
    with pytest.raises(ConfigurationError, match="nested too deeply"):
        outcome([f"{condition} => 1"])
