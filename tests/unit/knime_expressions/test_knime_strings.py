import math
import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentley.domain.errors import ConfigurationError
from bentley.knime.expressions.strings import compile_manipulation
from bentley.knime.expressions.text import java_number, replacement

SCHEMA = pl.Schema({"s": pl.String, "t u": pl.String, "n": pl.Int32, "d": pl.Float64})
plain = st.text(st.sampled_from("abcAB xé€😀.-1"), max_size=12)


def apply(expression, rows, variables=None):
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    expression = compile_manipulation(expression, SCHEMA, variables or {})
    return frame.with_columns(expression.alias("result"))["result"].to_list()


def one(expression, s="", t="", n=0, d=0.0, **options):
    return apply(expression, [(s, t, n, d)], **options)[0]


@given(s=plain, t=plain, start=st.integers(0, 14), length=st.integers(0, 14))
def test_text_functions_mean_what_plain_python_says(s, t, start, length):
    assert one('join($s$, "-", $t u$)', s, t) == f"{s}-{t}"
    assert one('joinSep(", ", $s$, $t u$)', s, t) == f"{s}, {t}"
    assert one("upperCase($s$)", s) == s.upper()
    assert one("lowerCase($s$)", s) == s.lower()
    assert one("strip($s$)", s) == s.strip()
    assert one("stripStart($s$)", s) == s.lstrip()
    assert one("stripEnd($s$)", s) == s.rstrip()
    assert one("length($s$)", s) == len(s)
    assert one(f"substr($s$, {start}, {length})", s) == s[start : start + length]
    assert one(f"substr($s$, {start})", s) == s[start:]
    assert one('replace($s$, "a", $t u$)', s, t) == s.replace("a", t)
    assert one('indexOf($s$, "ab")', s) == s.find("ab")
    assert one(f'padLeft($s$, {length}, "0")', s) == s.rjust(length, "0")
    assert one(f"padRight($s$, {length})", s) == s.ljust(length)
    assert one('regexReplace($s$, "([ab])(.)", "$2<$1>")', s) == re.sub("([ab])(.)", r"\2<\1>", s)
    assert one('regexMatcher($s$, "[a-c]+")', s) == str(bool(re.fullmatch("[a-c]+", s)))


@given(s=plain, start=st.integers(0, 14))
def test_a_search_from_a_position_on(s, start):
    wanted = s.find("a", start) if start <= len(s) else -1
    assert one(f'indexOf($s$, "a", {start})', s) == wanted


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ('upperCase(join("a", lowerCase("B")))', "AB"),
        ('capitalize("market street iS")', "Market Street IS"),
        ('reverse("abc")', "cba"),
        ('replace("a.b", ".", "-")', "a-b"),
        ('replace("ab", "", "-")', "ab"),
        ('replace("ab", "a", "$0")', "$0b"),
        ('regexReplace("a.b", ".", "-")', "---"),
        ('regexReplace("ab", "a", "\\\\$")', "$b"),
        ('regexReplace("ab", "(?<x>a)", "${x}${x}")', "aab"),
        ('"tab\\t, quote \\", backslash \\\\"', 'tab\t, quote ", backslash \\'),
        ("string(7)", "7"),
        ("string(0.5)", "0.5"),
        ('toInt("42")', 42),
        ('toInt("4.2")', None),
        ('toInt("many")', None),
        ("toInt(-4.7)", -4),
        ('toDouble("1e3")', 1000.0),
        ('toDouble("-")', None),
    ],
)
def test_examples(expression, value):
    assert one(expression) == value


def test_types_of_the_results():
    for expression, dtype in (
        ("length($s$)", pl.Int32),
        ("toDouble($s$)", pl.Float64),
        ("$n$", pl.Int32),
    ):
        frame = pl.DataFrame([("a", "b", 1, 1.0)], schema=SCHEMA, orient="row")
        assert frame.select(compile_manipulation(expression, SCHEMA, {})).dtypes == [dtype]


def test_a_missing_cell_makes_the_result_missing():
    rows = [(None, "b", 1, 1.0), ("a", None, 1, 1.0), ("a", "b", None, 1.0), ("a", "b", 2, 1.0)]
    assert apply("join($s$, $t u$, string($n$))", rows) == [None, None, None, "ab2"]
    assert apply('indexOf($s$, "z")', rows[:2]) == [None, -1]


def test_an_expression_without_columns_gives_every_row_its_value():
    frame = pl.DataFrame([("a", "b", 1, 1.0)] * 3, schema=SCHEMA, orient="row")
    assert frame.select(compile_manipulation('"x"', SCHEMA, {})).height == 3


def test_flow_variables():
    assert one("join($s$, $${Sname x}$$)", "a", variables={"name x": "b"}) == "ab"
    assert one("string($${In}$$)", variables={"n": 3}) == "3"


@given(st.floats())
def test_doubles_are_written_as_java_writes_them(value):
    text = java_number(value)
    if math.isnan(value) or math.isinf(value):
        assert text in {"NaN", "Infinity", "-Infinity"}
        return
    assert float(text) == value
    plain_form = value == 0 or 1e-3 <= abs(value) < 1e7
    assert re.fullmatch(r"-?\d+\.\d+" if plain_form else r"-?[1-9]\.\d+E-?\d+", text)
    assert one("string($d$)", d=value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (100.0, "100.0"),
        (9999999.0, "9999999.0"),
        (1e7, "1.0E7"),
        (1.25e-4, "1.25E-4"),
        (0.001, "0.001"),
        (5e-324, "4.9E-324"),
        (7, "7"),
    ],
)
def test_numbers_by_example(value, text):
    assert java_number(value) == text


def test_replacements():
    assert replacement(r"$1\$\\${name}x") == r"${1}$$\${name}x"
    with pytest.raises(ConfigurationError, match="names no group"):
        replacement("costs $")


@pytest.mark.parametrize(
    ("expression", "position", "text"),
    [
        ("", 1, "a value expected"),
        ("frobnicate($s$)", 1, "function 'frobnicate' is not supported"),
        ("join()", 1, "1 or more arguments"),
        ("substr($s$)", 1, "2 to 3 arguments"),
        ("upperCase($n$)", 1, "is no text; wrap it in string"),
        ("substr($s$, -1)", 1, "whole number from 0 on"),
        ("substr($s$, $n$)", 1, "whole number from 0 on"),
        ('replace($s$, $s$, "x")', 1, "must be text in quotes"),
        ('padLeft($s$, 3, "ab")', 1, "must be one character"),
        ('regexReplace($s$, "(?=x)", "y")', 1, "not supported"),
        ('regexReplace($s$, "x", "$")', 1, "names no group"),
        ('"\\q"', 1, "escape"),
        ('$s$ + "x"', 5, "unexpected character '+'"),
        ("upperCase $s$", 11, "'(' expected"),
        ("upperCase($s$", 14, "')' expected"),
        ("$s$ $s$", 5, "an operator expected"),
        ("$nope$", 1, "no column 'nope'"),
        ("$$ROWINDEX$$", 1, "a value expected"),
    ],
)
def test_what_is_unknown_is_named_with_its_place(expression, position, text):
    with pytest.raises(ConfigurationError) as caught:
        compile_manipulation(expression, SCHEMA, {})
    assert text in str(caught.value)
    assert f"{expression!r}, position {position}:" in str(caught.value)


def test_what_is_nested_too_deeply_is_refused():
    with pytest.raises(ConfigurationError, match="nested too deeply"):
        one("strip(" * 1600 + "$s$" + ")" * 1600)
