"""Nodes that drop, order and clean rows. Settings have the keys of public workflows."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentley.domain.errors import ConfigurationError
from bentley.knime.nodes.sorter import Key, sort

PREPROC = "org.knime.base.node.preproc."
ROW_FILTER = f"{PREPROC}filter.row3.RowFilterNodeFactory"
OLD_ROW_FILTER = f"{PREPROC}filter.row.RowFilterNodeFactory"
SORTER = f"{PREPROC}sorter.SorterNodeFactory"
DUPLICATES = f"{PREPROC}duplicates.DuplicateRowFilterNodeFactory"
MISSING = f"{PREPROC}pmml.missingval.compute.MissingValueHandlerNodeFactory"
HANDLERS = f"{PREPROC}pmml.missingval.handlers."
CELLS = "org.knime.core.data.def."

FRAME = pl.DataFrame(
    {
        "name": ["Anna", "bob", None, "Carl", "bob"],
        "n": pl.Series([1, 2, 3, None, 2], dtype=pl.Int32),
        "x": [0.5, None, -1.0, 2.0, float("nan")],
        "ok": [True, False, None, True, False],
    }
)


def predicate(column, operator, value=None, cell="StringCell", case="CASESENSITIVE"):
    values = {}
    if value is not None:
        values = {
            "0": {
                "typeIdentifier": {"cell_class": CELLS + cell, "is_null": False},
                "value": value,
                "stringCaseMatching": {"caseMatching": case},
            }
        }
    return {
        "columnV2": {"regularChoice": column, "specialChoice_Internals": None},
        "operator": operator,
        "predicateValues": {"values": values, "inputKind": "SINGLE"},
    }


def row_filter(*predicates, match="AND", output="MATCHING"):
    return {
        "matchCriteria": match,
        "predicates": {str(at): one for at, one in enumerate(predicates)},
        "domains": "RETAIN",
        "outputMode": output,
    }


@pytest.mark.parametrize(
    ("rule", "rows"),
    [
        (predicate("name", "EQ", "bob"), [1, 4]),
        (predicate("name", "EQ", "BOB"), []),
        (predicate("name", "EQ", "BOB", case="CASEINSENSITIVE"), [1, 4]),
        (predicate("name", "NEQ", "bob"), [0, 3]),
        (predicate("name", "NEQ_MISS", "bob"), [0, 2, 3]),
        (predicate("name", "WILDCARD", "?o*"), [1, 4]),
        (predicate("name", "WILDCARD", "o"), []),
        (predicate("name", "REGEX", "[A-C].*"), [0, 3]),
        (predicate("name", "REGEX", "nn"), []),
        (predicate("n", "GT", 1, "IntCell"), [1, 2, 4]),
        (predicate("n", "LTE", 2, "IntCell"), [0, 1, 4]),
        (predicate("n", "WILDCARD", "2"), [1, 4]),
        (predicate("x", "LT", 1.0, "DoubleCell"), [0, 2]),
        (predicate("name", "IS_MISSING"), [2]),
        (predicate("name", "IS_NOT_MISSING"), [0, 1, 3, 4]),
        (predicate("ok", "IS_TRUE"), [0, 3]),
        (predicate("ok", "IS_FALSE"), [1, 4]),
    ],
)
def test_row_filter_operators(run_node, rule, rows):
    assert run_node(ROW_FILTER, row_filter(rule), FRAME).equals(FRAME[rows])
    others = [row for row in range(5) if row not in rows]
    inverted = row_filter(rule, output="NON_MATCHING")
    assert run_node(ROW_FILTER, inverted, FRAME).equals(FRAME[others])


def test_row_filter_combines_with_and_and_or(run_node):
    rules = predicate("n", "GTE", 2, "IntCell"), predicate("ok", "IS_FALSE")
    assert run_node(ROW_FILTER, row_filter(*rules), FRAME).equals(FRAME[[1, 4]])
    assert run_node(ROW_FILTER, row_filter(*rules, match="OR"), FRAME).equals(FRAME[[1, 2, 4]])


@pytest.mark.parametrize(
    ("operator", "value", "rows"),
    [
        ("FIRST_N_ROWS", 2, [0, 1]),
        ("LAST_N_ROWS", 2, [3, 4]),
        ("EQ", 2, [1]),
        ("LAST_N_ROWS", 9, [0, 1, 2, 3, 4]),
    ],
)
def test_row_filter_on_row_numbers(run_node, operator, value, rows):
    rule = predicate(None, operator, value, "LongCell")
    rule["columnV2"] = {"regularChoice": None, "specialChoice_Internals": "ROW_NUMBERS"}
    assert run_node(ROW_FILTER, row_filter(rule), FRAME).equals(FRAME[rows])


def test_row_filter_reads_the_column_as_knime_5_3_wrote_it(run_node):
    rule = predicate("n", "EQ", 3, "IntCell")
    rule["column"] = {"selected": "n"}
    del rule["columnV2"]
    assert run_node(ROW_FILTER, row_filter(rule), FRAME).equals(FRAME[[2]])


def test_row_filter_on_row_numbers_and_row_ids_as_knime_5_3_wrote_them(run_node, lacks):
    rule = predicate(None, "LTE", 2, "LongCell")
    rule["column"] = {"selected": "<row-numbers>"}
    del rule["columnV2"]
    assert run_node(ROW_FILTER, row_filter(rule), FRAME).equals(FRAME[[0, 1]])
    rule["column"] = {"selected": "<row-keys>"}
    assert lacks(ROW_FILTER, row_filter(rule)) == [
        "filter on ROW_ID in 'predicates/0' is not supported: no row IDs here"
    ]


def test_row_filter_says_what_it_lacks(lacks):
    row_id = predicate(None, "EQ", "Row1")
    row_id["columnV2"] = {"regularChoice": None, "specialChoice_Internals": "ROW_ID"}
    found = lacks(ROW_FILTER, row_filter(row_id, predicate("a", "BETWEEN", 1, "IntCell")))
    assert any("ROW_ID" in line for line in found)
    assert "setting 'predicates/1/operator' = 'BETWEEN' is not supported" in found
    assert lacks(ROW_FILTER, row_filter(match="XOR")) == [
        "setting 'matchCriteria' = 'XOR' is not supported",
        "setting 'predicates' is empty",
    ]


def test_row_filter_refuses_operators_that_do_not_fit_row_numbers_or_columns(lacks):
    numbers = predicate(None, "REGEX", "1.*")
    numbers["columnV2"] = {"regularChoice": None, "specialChoice_Internals": "ROW_NUMBERS"}
    column = predicate("n", "FIRST_N_ROWS", 2, "LongCell")
    assert lacks(ROW_FILTER, row_filter(numbers, column)) == [
        "setting 'predicates/0/operator' = 'REGEX' is not supported",
        "setting 'predicates/1/operator' = 'FIRST_N_ROWS' is not supported",
    ]


def test_row_filter_refuses_several_reference_values(lacks):
    rule = predicate("name", "EQ", "Anna")
    rule["predicateValues"]["values"]["1"] = rule["predicateValues"]["values"]["0"]
    said = ["several reference values in 'predicates/0' are not supported"]
    assert lacks(ROW_FILTER, row_filter(rule)) == said
    rule = predicate("name", "EQ", "Anna")
    rule["predicateValues"]["inputKind"] = "COLLECTION"
    assert lacks(ROW_FILTER, row_filter(rule)) == said


def test_row_filter_refuses_text_against_a_number(run_node):
    with pytest.raises(ConfigurationError, match="'n' of type Int32 can't be compared with 'a'"):
        run_node(ROW_FILTER, row_filter(predicate("n", "EQ", "a")), FRAME)


def old_filter(kind, *, include=True, **extra):
    key = "RowRangeInclude" if kind == "RowNumber_RowFilter" else "include"
    return {"rowFilter": {"RowFilter_TypeID": kind, key: include} | extra}


def bound(cell, value):
    name = CELLS + cell
    return {"datacell": name, name: {cell: value}}


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        (old_filter("MissingVal_RowFilter", ColumnName="name"), [2]),
        (old_filter("MissingVal_RowFilter", include=False, ColumnName="name"), [0, 1, 3, 4]),
        (
            old_filter(
                "RangeVal_RowFilter",
                ColumnName="n",
                lowerBound=bound("IntCell", 2),
                upperBound=bound("IntCell", 3),
            ),
            [1, 2, 4],
        ),
        (
            old_filter(
                "RangeVal_RowFilter",
                include=False,
                ColumnName="n",
                lowerBound=bound("IntCell", 2),
                upperBound={"datacell": None},
            ),
            [0, 3],
        ),
        (
            old_filter(
                "StringComp_RowFilter",
                ColumnName="name",
                Pattern="B*",
                CaseSensitive=False,
                hasWildCards=True,
                isRegExpr=False,
            ),
            [1, 4],
        ),
        (
            old_filter(
                "StringComp_RowFilter",
                ColumnName="name",
                Pattern="b.b",
                CaseSensitive=True,
                hasWildCards=False,
                isRegExpr=False,
            ),
            [],
        ),
        (old_filter("RowNumber_RowFilter", RowRangeStart=1, RowRangeEnd=2), [1, 2]),
        (old_filter("RowNumber_RowFilter", RowRangeStart=3, RowRangeEnd=-1), [3, 4]),
        (
            old_filter("RowNumber_RowFilter", include=False, RowRangeStart=1, RowRangeEnd=2),
            [0, 3, 4],
        ),
    ],
)
def test_old_row_filter(run_node, settings, rows):
    assert run_node(OLD_ROW_FILTER, settings, FRAME).equals(FRAME[rows])


def test_old_row_filter_on_row_ids_is_a_lack(lacks):
    assert lacks(OLD_ROW_FILTER, old_filter("RowID_RowFilter")) == [
        "criterion 'RowID_RowFilter' is not supported"
    ]


def sorting(*keys, missing_to_end=False):
    return {
        "sortingCriteria": {
            str(at): {
                "columnV2": {"regularChoice": name, "specialChoice_Internals": None},
                "sortingOrder": order,
                "stringComparison": comparison,
            }
            for at, (name, order, comparison) in enumerate(keys)
        },
        "missingToEnd": missing_to_end,
        "sortinmemory": False,
    }


def test_sorting_by_row_id_is_a_lack_in_all_versions(lacks):
    settings = sorting((None, "ASCENDING", "NATURAL"), (None, "ASCENDING", "NATURAL"))
    first, second = settings["sortingCriteria"].values()
    first["columnV2"]["specialChoice_Internals"] = "ROW_ID"
    second["column"] = {"selected": "<row-keys>"}
    del second["columnV2"]
    assert lacks(SORTER, settings) == [
        f"sorting by ROW_ID in 'sortingCriteria/{at}' is not supported: no row IDs here"
        for at in (0, 1)
    ]


@pytest.mark.parametrize(
    ("order", "to_end", "expected"),
    [
        ("ASCENDING", False, [None, 1, 2, 2, 3]),
        ("ASCENDING", True, [1, 2, 2, 3, None]),
        ("DESCENDING", False, [3, 2, 2, 1, None]),
        ("DESCENDING", True, [3, 2, 2, 1, None]),
    ],
)
def test_a_missing_cell_is_the_smallest_unless_sent_to_the_end(run_node, order, to_end, expected):
    settings = sorting(("n", order, "NATURAL"), missing_to_end=to_end)
    assert run_node(SORTER, settings, FRAME)["n"].to_list() == expected


def test_sorter_is_stable_and_takes_several_keys(run_node):
    frame = pl.DataFrame({"a": [2, 1, 2, 1], "b": ["x", "y", "a", "y"], "at": [0, 1, 2, 3]})
    by_one = run_node(SORTER, sorting(("a", "ASCENDING", "NATURAL")), frame)
    assert by_one["at"].to_list() == [1, 3, 0, 2]
    settings = sorting(("a", "DESCENDING", "NATURAL"), ("b", "ASCENDING", "LEXICOGRAPHIC"))
    assert run_node(SORTER, settings, frame)["at"].to_list() == [2, 0, 1, 3]


def test_natural_order_counts_digits_as_numbers(run_node):
    frame = pl.DataFrame({"a": ["x10", "x9", "x", "x09b", None, "a100"]})
    natural = run_node(SORTER, sorting(("a", "ASCENDING", "NATURAL")), frame)
    assert natural["a"].to_list() == [None, "a100", "x", "x9", "x09b", "x10"]
    plain = run_node(SORTER, sorting(("a", "ASCENDING", "LEXICOGRAPHIC")), frame)
    assert plain["a"].to_list() == [None, "a100", "x", "x09b", "x10", "x9"]


def test_sorter_with_the_older_settings(run_node):
    settings = {"incllist": ["n", "name"], "sortOrder": [False, True], "missingToEnd": True}
    assert run_node(SORTER, settings, FRAME)["n"].to_list() == [3, 2, 2, 1, None]


@given(st.lists(st.one_of(st.none(), st.integers(-5, 5)), max_size=30), st.booleans())
def test_sort_equals_pythons_own(values, descending):
    frame = pl.DataFrame({"v": pl.Series(values, dtype=pl.Int64), "at": range(len(values))})
    found = sort(frame, [Key("v", descending, natural=False)], missing_last=False)
    ordered = sorted(
        range(len(values)),
        key=lambda at: -999 if values[at] is None else values[at],
        reverse=descending,
    )
    assert found["v"].to_list() == [values[at] for at in ordered]
    for value in set(values):
        places = found.filter(pl.col("v").eq_missing(value))["at"].to_list()
        assert places == sorted(places)


def duplicate_filter(*columns, **extra):
    return {
        "group_cols": {
            "filter-type": "STANDARD",
            "included_names": list(columns),
            "excluded_names": [],
            "enforce_option": "EnforceInclusion",
        },
        "remove_duplicates": True,
        "add_row_duplicate_flag": True,
        "unique_flag_column_name": "Duplicate Status",
        "row_selection": "FIRST",
        "retain_order": True,
    } | extra


DOUBLED = pl.DataFrame(
    {"k": ["a", None, "a", "b", None, "a"], "v": [3, 5, 1, 7, 6, 9], "at": [0, 1, 2, 3, 4, 5]}
)


@pytest.mark.parametrize(
    ("selection", "rows"),
    [
        ("FIRST", [0, 1, 3]),
        ("LAST", [3, 4, 5]),
        ("MINIMUM", [1, 2, 3]),
        ("MAXIMUM", [3, 4, 5]),
    ],
)
def test_one_row_of_each_set_stays(run_node, selection, rows):
    settings = duplicate_filter("k", row_selection=selection, reference_col="v")
    assert run_node(DUPLICATES, settings, DOUBLED)["at"].to_list() == rows


def test_duplicates_may_be_kept_and_named(run_node):
    found = run_node(DUPLICATES, duplicate_filter("k", remove_duplicates=False), DOUBLED)
    assert found["Duplicate Status"].to_list() == [
        "chosen", "chosen", "duplicate", "unique", "duplicate", "duplicate",
    ]  # fmt: skip
    assert found.drop("Duplicate Status").equals(DOUBLED)


def test_no_rows_stay_no_rows(run_node):
    assert run_node(DUPLICATES, duplicate_filter("k"), DOUBLED.clear()).equals(DOUBLED.clear())


def handler(name, **settings):
    return {"factoryID": f"{HANDLERS}{name}MissingCellHandlerFactory", "settings": settings}


def test_missing_values_by_column_and_by_type(run_node):
    settings = {
        "columnSettings": {
            "0": {"colNames": ["name"], "settings": handler("FixedStringValue", fixStringValue="?")}
        },
        "dataTypeSettings": {
            CELLS + "IntCell": handler("FixedIntegerValue", fixIntegerValue=-1),
            CELLS + "DoubleCell": handler("DoNothing"),
        },
    }
    found = run_node(MISSING, settings, FRAME)
    assert found["name"].to_list() == ["Anna", "bob", "?", "Carl", "bob"]
    assert found["n"].to_list() == [1, 2, 3, -1, 2]
    assert found["n"].dtype == pl.Int32
    assert found.select("x", "ok").equals(FRAME.select("x", "ok"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Previous", [None, 1.0, 1.0, 4.0, 4.0]),
        ("Next", [1.0, 1.0, 4.0, 4.0, None]),
        ("DoubleMean", [2.5, 1.0, 2.5, 4.0, 2.5]),
        ("Min", [1.0, 1.0, 1.0, 4.0, 1.0]),
        ("Max", [4.0, 1.0, 4.0, 4.0, 4.0]),
    ],
)
def test_missing_values_from_the_other_cells(run_node, name, expected):
    frame = pl.DataFrame({"x": [None, 1.0, None, 4.0, None]})
    settings = {"dataTypeSettings": {CELLS + "DoubleCell": handler(name)}}
    assert run_node(MISSING, settings, frame)["x"].to_list() == expected


def test_a_mean_makes_doubles_of_integers_unless_it_is_the_integer_one(run_node):
    frame = pl.DataFrame({"n": pl.Series([1, 2, None], dtype=pl.Int32)})
    for name, expected, dtype in (("DoubleMean", 1.5, pl.Float64), ("IntegerMean", 2, pl.Int32)):
        settings = {"dataTypeSettings": {CELLS + "IntCell": handler(name)}}
        found = run_node(MISSING, settings, frame)["n"]
        assert (found[2], found.dtype) == (expected, dtype)


def test_rows_with_a_missing_cell_may_go(run_node):
    remove = {
        "factoryID": f"{PREPROC}pmml.missingval.pmml.RemoveRowMissingCellHandlerFactory",
        "settings": {},
    }
    settings = {"columnSettings": {"0": {"colNames": ["name", "n"], "settings": remove}}}
    assert run_node(MISSING, settings, FRAME).equals(FRAME[[0, 1, 4]])


def test_a_rare_handler_is_a_lack(lacks):
    settings = {"dataTypeSettings": {CELLS + "DoubleCell": handler("LinearInterpolation")}}
    (found,) = lacks(MISSING, settings)
    assert "LinearInterpolation" in found
