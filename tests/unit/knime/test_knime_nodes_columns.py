"""Nodes that choose, compute, convert and combine columns."""

from __future__ import annotations

import polars as pl
import pytest

from bentley.domain.errors import ConfigurationError, DataError

PREPROC = "org.knime.base.node.preproc."
COLUMN_FILTER = f"{PREPROC}filter.column.DataColumnSpecFilterNodeFactory"
RENAMER = f"{PREPROC}column.renamer.ColumnRenamerNodeFactory"
OLD_RENAME = f"{PREPROC}rename.RenameNodeFactory"
MATH = "org.knime.ext.jep.JEPNodeFactory"
RULES = "org.knime.base.node.rules.engine.RuleEngineNodeFactory"
RULE_FILTER = "org.knime.base.node.rules.engine.RuleEngineFilterNodeFactory"
TO_NUMBER = f"{PREPROC}colconvert.stringtonumber2.StringToNumber2NodeFactory"
TO_STRING = f"{PREPROC}colconvert.numbertostring2.NumberToString2NodeFactory"
MANIPULATION = f"{PREPROC}stringmanipulation.StringManipulationNodeFactory"
LAG = f"{PREPROC}columnlag.LagColumnNodeFactory"
CONSTANT = f"{PREPROC}constantvalue.ConstantValueColumnNodeFactory"
JOINER = f"{PREPROC}joiner3.Joiner3NodeFactory"
CONCATENATE = f"{PREPROC}append.row.AppendedRowsNodeFactory"
GROUPBY = f"{PREPROC}groupby.GroupByNodeFactory"
CELLS = "org.knime.core.data.def."

FRAME = pl.DataFrame({"a": [1, 2], "b": ["x", "y"], "c": [0.5, None]})


def names(included, excluded=(), enforce="EnforceInclusion", **extra):
    return {
        "filter-type": "STANDARD",
        "included_names": list(included),
        "excluded_names": list(excluded),
        "enforce_option": enforce,
        "name_pattern": {"pattern": "", "caseSensitive": True, "type": "Wildcard"},
        "datatype": {"typelist": {}},
    } | extra


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (names(["c", "a"]), ["a", "c"]),
        (names(["a"], ["b"], "EnforceExclusion"), ["a", "c"]),
        (
            names([], **{"filter-type": "name_pattern"})
            | {"name_pattern": {"pattern": "[ab]", "type": "Regex", "caseSensitive": True}},
            ["a", "b"],
        ),
        (
            names([], **{"filter-type": "name_pattern"})
            | {"name_pattern": {"pattern": "A*", "type": "Wildcard", "caseSensitive": False,
                                "excludeMatching": True}},
            ["b", "c"],
        ),
    ],
)  # fmt: skip
def test_column_filter(run_node, rule, expected):
    assert run_node(COLUMN_FILTER, {"column-filter": rule}, FRAME).columns == expected


def test_column_filter_names_a_column_that_is_gone(run_node, lacks):
    with pytest.raises(ConfigurationError, match="no column 'z'; there are a, b, c"):
        run_node(COLUMN_FILTER, {"column-filter": names(["z"])}, FRAME)
    found = lacks(COLUMN_FILTER, {"column-filter": names([], **{"filter-type": "datatype"})})
    assert found == ["setting 'column-filter/filter-type' = 'datatype' is not supported"]


def test_renaming_may_swap_and_may_not_double(run_node):
    pairs = {"0": {"oldName": "a", "newName": "b"}, "1": {"oldName": "b", "newName": "a"}}
    assert run_node(RENAMER, {"renamings": pairs}, FRAME).columns == ["b", "a", "c"]
    with pytest.raises(ConfigurationError, match="two columns would be called 'b'"):
        run_node(RENAMER, {"renamings": {"0": {"oldName": "a", "newName": "b"}}}, FRAME)


def test_the_older_rename(run_node, lacks):
    column = {"old_column_name": "a", "new_column_name": "first", "new_column_type": 0}
    found = run_node(OLD_RENAME, {"all_columns": {"0": column}}, FRAME)
    assert found.columns == ["first", "b", "c"]
    typed = {"all_columns": {"0": column | {"new_column_type": 1}}}
    assert lacks(OLD_RENAME, typed) == ["column 'a' changes its type"]


def formula(expression, **extra):
    return {
        "append_column": True,
        "replaced_column": "new",
        "expression": expression,
        "convert_to_int": False,
    } | extra


def test_math_formula_appends_replaces_and_rounds(run_node):
    assert run_node(MATH, formula("$a$ / 4 + $c$"), FRAME)["new"].to_list() == [0.75, None]
    over = formula("$a$ * 2", append_column=False, replaced_column="a")
    found = run_node(MATH, over, FRAME)
    assert found.columns == FRAME.columns
    assert found["a"].to_list() == [2.0, 4.0]
    whole = run_node(MATH, formula("$a$ - 2.5", convert_to_int=True), FRAME)
    assert whole["new"].to_list() == [-1, 0]  # half up, as Java rounds
    assert whole["new"].dtype == pl.Int32
    huge = run_node(MATH, formula("$a$ * 10000000000", convert_to_int=True), FRAME)
    assert huge["new"].to_list() == [None, None]


def test_a_function_whose_rounding_is_not_known_is_refused(lacks):
    (lack,) = lacks(MATH, formula("roundHalfUp($a$, 2)"))
    assert "function 'roundHalfUp' is not supported (known: COL_MAX, " in lack


def test_a_taken_name_is_made_unique(run_node):
    assert run_node(MATH, formula("1", replaced_column="a"), FRAME).columns[-1] == "a (#1)"


def test_rule_engine_and_its_filter(run_node):
    rules = ['$a$ > 1 => "big"', "// a comment", 'MISSING $c$ => "none"']
    settings = {
        "rules": rules,
        "new-column-name": "size",
        "replace-column-name": "",
        "append-column": True,
    }
    assert run_node(RULES, settings, FRAME)["size"].to_list() == [None, "big"]
    over = settings | {"append-column": False, "replace-column-name": "b"}
    assert run_node(RULES, over, FRAME)["b"].to_list() == [None, "big"]
    kept = run_node(RULE_FILTER, {"rules": ["$a$ = 1 => TRUE"], "include": True}, FRAME)
    assert kept["a"].to_list() == [1]
    dropped = run_node(RULE_FILTER, {"rules": ["$a$ = 1 => TRUE"], "include": False}, FRAME)
    assert dropped["a"].to_list() == [2]


def to_number(kind="DoubleCell", **extra):
    return {
        "include": names(["t"]),
        "decimal_separator": ".",
        "thousands_separator": "",
        "parse_type": {"cell_class": CELLS + kind, "is_null": False},
        "generic_parse": False,
        "fail_on_error": False,
    } | extra


TEXTS = pl.DataFrame({"t": ["1", " -2.5 ", "1e3", "abc", "", None, "+7", "1,5"]})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (to_number(), [1.0, -2.5, 1000.0, None, None, None, 7.0, None]),
        (to_number("IntCell"), [1, None, None, None, None, None, 7, None]),
        (to_number("LongCell"), [1, None, None, None, None, None, 7, None]),
        (
            to_number(decimal_separator=",", thousands_separator="."),
            [1.0, -25.0, 1000.0, None, None, None, 7.0, 1.5],
        ),
    ],
)
def test_string_to_number(run_node, settings, expected):
    assert run_node(TO_NUMBER, settings, TEXTS)["t"].to_list() == expected


def test_string_to_number_may_fail_and_names_the_cell(run_node):
    with pytest.raises(DataError, match="'t' holds 'abc', which is no Float64") as caught:
        run_node(TO_NUMBER, to_number(fail_on_error=True), TEXTS)
    assert (caught.value.rejected, caught.value.read) == (2, 8)
    blank = pl.DataFrame({"t": ["1", "", "  ", None]})
    found = run_node(TO_NUMBER, to_number(fail_on_error=True), blank)
    assert found["t"].to_list() == [1.0, None, None, None]


@pytest.mark.parametrize(
    ("settings", "text", "number"),
    [
        (to_number(), "1d", None),
        (to_number(), "2.5F", None),
        (to_number(generic_parse=True), "1d", 1.0),
        (to_number(generic_parse=True), "2.5F", 2.5),
        (to_number(generic_parse=True), "2.5dd", None),
        (to_number(generic_parse=True), "NaNd", None),
        (to_number("LongCell", generic_parse=True), "1d", None),
        ({key: value for key, value in to_number().items() if key != "generic_parse"}, "1d", 1.0),
        (to_number(), "Infinity", float("inf")),
        (to_number(), " -Infinity\t", float("-inf")),
        (to_number(), "inf", None),
        (to_number(), "1e400", float("inf")),
        (to_number(), "\u00a03", None),
        (to_number(), "\u0663", None),
        (to_number("IntCell"), " 3 ", None),
        (to_number("IntCell"), "-3", -3),
        (to_number("IntCell"), "2147483648", None),
        (to_number("LongCell"), "2147483648", 2**31),
        (to_number(decimal_separator=","), "1.5", None),
        (to_number(decimal_separator=","), "1,5", 1.5),
        (to_number(decimal_separator=","), "1,5,2", None),
        (to_number(decimal_separator=""), "1.5", None),
        (to_number(decimal_separator=""), "15", 15.0),
    ],
)
def test_text_is_a_number_where_java_says_so(run_node, settings, text, number):
    assert run_node(TO_NUMBER, settings, pl.DataFrame({"t": [text]}))["t"].to_list() == [number]


def test_nan_is_a_number(run_node):
    found = run_node(TO_NUMBER, to_number(), pl.DataFrame({"t": ["NaN", "+NaN", "nan"]}))
    assert found["t"].is_nan().to_list() == [True, True, None]


def test_number_to_string_writes_as_java_does(run_node):
    frame = pl.DataFrame({"x": [1.0, 0.1, 1e7, None], "n": [1, 2, 3, None], "s": ["a"] * 4})
    found = run_node(TO_STRING, {"include": names(["x", "n", "s"])}, frame)
    assert found["x"].to_list() == ["1.0", "0.1", "1.0E7", None]
    assert found["n"].to_list() == ["1", "2", "3", None]


def test_lag_column(run_node):
    settings = {
        "columnV2": {"regularChoice": "a", "specialChoice_Internals": None},
        "lag": 2,
        "lag_interval": 1,
        "skipInitialIncompleteRows": False,
        "skipLastIncompleteRows": True,
    }
    frame = pl.DataFrame({"a": [1, 2, 3]})
    found = run_node(LAG, settings, frame)
    assert found["a(-1)"].to_list() == [None, 1, 2]
    assert found["a(-2)"].to_list() == [None, None, 1]
    longer = run_node(LAG, settings | {"skipLastIncompleteRows": False}, frame)
    assert longer.rows()[3:] == [(None, 3, 2), (None, None, 3)]
    assert run_node(LAG, settings | {"skipInitialIncompleteRows": True}, frame).rows() == [
        (3, 2, 1)
    ]


def test_constant_value_column(run_node):
    settings = {
        "replaced-column": None,
        "new-column-name": "k",
        "column-value": "7",
        "column-type": {"cell_class": CELLS + "IntCell"},
    }
    found = run_node(CONSTANT, settings, FRAME)
    assert found["k"].to_list() == [7, 7]
    assert found["k"].dtype == pl.Int32
    with pytest.raises(ConfigurationError, match="'column-value' = 'x' is no Int32"):
        run_node(CONSTANT, settings | {"column-value": "x"}, FRAME)


def manual(selected=(), deselected=(), *, unknown=True):
    return {
        "mode": "MANUAL",
        "patternFilter": {"pattern": "", "isCaseSensitive": False, "isInverted": False},
        "manualFilter": {
            "manuallySelected": list(selected),
            "manuallyDeselected": list(deselected),
            "includeUnknownColumns": unknown,
        },
        "typeFilter": {"selectedTypes": []},
    }


def joiner(left="k", right="k", **extra):
    choice = {"regularChoice": left, "specialChoice_Internals": None}
    return {
        "compositionMode": "MATCH_ALL",
        "matchingCriteria": {
            "0": {
                "leftTableColumnV2": choice,
                "rightTableColumnV2": choice | {"regularChoice": right},
            }
        },
        "dataCellComparisonMode": "STRICT",
        "includeMatchesInOutput": True,
        "includeLeftUnmatchedInOutput": False,
        "includeRightUnmatchedInOutput": False,
        "leftColumnSelectionConfigV2": manual(),
        "rightColumnSelectionConfigV2": manual(),
        "mergeJoinColumns": False,
        "duplicateHandling": "APPEND_SUFFIX",
        "suffix": " (Right)",
        "outputUnmatchedRowsToSeparatePorts": False,
        "rowKeyFactory": "SEQUENTIAL",
        "outputRowOrder": "LEFT_RIGHT",
    } | extra


LEFT = pl.DataFrame({"k": ["a", "b", None, "c"], "v": [1, 2, 3, 4]})
RIGHT = pl.DataFrame({"k": ["c", "a", None, "a", "d"], "v": [10, 20, 30, 40, 50]})
OUTER = {"includeLeftUnmatchedInOutput": True, "includeRightUnmatchedInOutput": True}


def test_inner_join_suffixes_clashing_names_and_matches_no_missing(run_node):
    found = run_node(JOINER, joiner(), LEFT, RIGHT)
    assert found.columns == ["k", "v", "k (Right)", "v (Right)"]
    assert found.rows() == [("a", 1, "a", 20), ("a", 1, "a", 40), ("c", 4, "c", 10)]


def test_outer_join_appends_the_unmatched_of_both_sides(run_node):
    found = run_node(JOINER, joiner(**OUTER), LEFT, RIGHT)
    assert found.rows()[3:] == [
        ("b", 2, None, None),
        (None, 3, None, None),
        (None, None, None, 30),
        (None, None, "d", 50),
    ]


def test_merged_join_columns_hold_whichever_side_is_there(run_node):
    found = run_node(JOINER, joiner(mergeJoinColumns=True, **OUTER), LEFT, RIGHT)
    assert found.columns == ["k", "v", "v (Right)"]
    assert found["k"].to_list() == ["a", "a", "c", "b", None, None, "d"]


def test_join_takes_chosen_columns_and_refuses_unequal_types(run_node):
    chosen = joiner(
        leftColumnSelectionConfigV2=manual(["v"], ["k"], unknown=False),
        rightColumnSelectionConfigV2=manual([], ["k", "v"], unknown=False),
    )
    assert run_node(JOINER, chosen, LEFT, RIGHT).to_dict(as_series=False) == {"v": [1, 1, 4]}
    with pytest.raises(ConfigurationError, match="the types must be equal"):
        run_node(JOINER, joiner(left="v"), LEFT, RIGHT)


def test_join_of_empty_tables_keeps_the_columns(run_node):
    found = run_node(JOINER, joiner(**OUTER), LEFT.clear(), RIGHT.clear())
    assert found.shape == (0, 4)
    assert found.schema["v (Right)"] == pl.Int64


def test_joiner_says_what_it_lacks(lacks):
    settings = joiner(compositionMode="MATCH_ANY", outputUnmatchedRowsToSeparatePorts=True)
    assert lacks(JOINER, settings) == [
        "setting 'compositionMode' = 'MATCH_ANY' is not supported",
        "setting 'outputUnmatchedRowsToSeparatePorts' = True is not supported",
    ]


def old_joiner(left=("k",), right=("k",), **extra):
    """The Joiner as KNIME 4.2 to 4.7 saves it."""
    criteria = {"leftTableJoinPredicate": list(left), "rightTableJoinPredicate": list(right)}
    filters = {
        f"{side}ColumnSelectionConfig": names([], [], "EnforceExclusion")
        for side in ("left", "right")
    }
    given = joiner(suffix=" (right)", outputRowOrder="ARBITRARY", maxOpenFiles=200)
    replaced = {"matchingCriteria", "leftColumnSelectionConfigV2", "rightColumnSelectionConfigV2"}
    kept = {key: value for key, value in given.items() if key not in replaced}
    return kept | criteria | filters | extra


def test_joiner_in_the_layout_of_knime_4(run_node, lacks):
    found = run_node(JOINER, old_joiner(), LEFT, RIGHT)
    assert found.columns == ["k", "v", "k (right)", "v (right)"]
    assert found.rows() == [("a", 1, "a", 20), ("a", 1, "a", 40), ("c", 4, "c", 10)]
    chosen = {"rightColumnSelectionConfig": names(["v"], ["k"])}
    assert run_node(JOINER, old_joiner(**chosen), LEFT, RIGHT).columns == ["k", "v", "v (right)"]
    both = run_node(JOINER, old_joiner(["k", "v"], ["k", "w"]), LEFT, RIGHT.rename({"v": "w"}))
    assert both.is_empty()
    wrong = old_joiner(["$RowID$", "k"], ["k"])
    wrong["leftColumnSelectionConfig"] = names([], **{"filter-type": "unknown"})
    assert lacks(JOINER, wrong) == [
        "criterion 1 joins on row IDs, which is not supported",
        "criterion 2 names no column of the right table",
        "setting 'leftColumnSelectionConfig/filter-type' = 'unknown' is not supported",
    ]
    assert lacks(JOINER, old_joiner([], [])) == ["there is no matching criterion"]


def test_joiner_whose_criteria_are_plain_names(run_node, lacks):
    def criterion(left):
        return {"0": {"leftTableColumn": left, "rightTableColumn": "k"}}

    found = run_node(JOINER, joiner(matchingCriteria=criterion("k")), LEFT, RIGHT)
    assert found.height == 3
    assert lacks(JOINER, joiner(matchingCriteria=criterion("<row-keys>"))) == [
        "criterion 1 joins on row IDs, which is not supported"
    ]
    ids = {"0": {"leftTableColumnV2": {"specialChoice_Internals": "ROW_ID"},
                 "rightTableColumnV2": {"regularChoice": "k"}}}  # fmt: skip
    assert lacks(JOINER, joiner(matchingCriteria=ids)) == [
        "criterion 1 joins on row IDs, which is not supported"
    ]


def test_merged_join_columns_of_different_names_are_called_by_both(run_node):
    right = RIGHT.rename({"k": "key"})
    settings = joiner(right="key", mergeJoinColumns=True, **OUTER)
    found = run_node(JOINER, settings, LEFT, right)
    assert found.columns == ["k=key", "v", "v (Right)"]
    assert found["k=key"].to_list() == ["a", "a", "c", "b", None, None, "d"]
    hidden = {"leftColumnSelectionConfigV2": manual(["v"], ["k"], unknown=False)}
    found = run_node(JOINER, settings | hidden, LEFT, right)
    assert found.columns == ["k=key", "v", "v (Right)"]
    hidden["rightColumnSelectionConfigV2"] = manual(["v"], ["key"], unknown=False)
    assert run_node(JOINER, settings | hidden, LEFT, right).columns == ["v", "v (Right)"]


def test_a_join_column_takes_in_all_its_partners(run_node):
    # the example of the node's description: A=A, A=X and C=Z
    left = pl.DataFrame({"A": [1, 2], "B": [3, 4], "C": [5, 6]})
    right = pl.DataFrame({"X": [1, 7, 9], "A": [1, 8, 9], "Z": [5, 6, 6]})
    settings = old_joiner(["A", "A", "C"], ["A", "X", "Z"], mergeJoinColumns=True, **OUTER)
    found = run_node(JOINER, settings, left, right)
    assert found.columns == ["A", "B", "C=Z"]
    # right rows alone: the partners X and A of the third agree, those of the second don't
    assert found.rows() == [(1, 3, 5), (2, 4, 6), (None, None, 6), (9, None, 6)]


def test_a_suffix_is_put_on_until_the_name_is_free(run_node, lacks):
    left = LEFT.with_columns(pl.lit(0).alias("v*"))
    found = run_node(JOINER, joiner(suffix="*"), left, RIGHT)
    assert found.columns == ["k", "v", "v*", "k*", "v**"]
    assert lacks(JOINER, joiner(suffix=" ")) == ["setting 'suffix' is empty"]
    with pytest.raises(ConfigurationError, match="both tables have a column 'k'"):
        run_node(JOINER, joiner(duplicateHandling="DO_NOT_EXECUTE", suffix=""), LEFT, RIGHT)


def concatenate(**extra):
    return {
        "intersection_of_columns": False,
        "create_new_rowids": True,
        "fail_on_duplicates": False,
        "append_suffix": False,
        "suffix": "_dup",
        "enable_hiliting": False,
    } | extra


def test_concatenate_by_name_with_missing_cells(run_node):
    one = pl.DataFrame({"a": pl.Series([1], dtype=pl.Int32), "b": ["x"]})
    two = pl.DataFrame({"c": [1.5], "a": [2.5]})
    found = run_node(CONCATENATE, concatenate(), one, two)
    assert found.columns == ["a", "b", "c"]
    assert found.rows() == [(1.0, "x", None), (2.5, None, 1.5)]
    both = run_node(CONCATENATE, concatenate(intersection_of_columns=True), one, two)
    assert both.to_dict(as_series=False) == {"a": [1.0, 2.5]}
    with pytest.raises(ConfigurationError, match="'a' is Float64 in one table and String"):
        run_node(CONCATENATE, concatenate(), two, pl.DataFrame({"a": ["x"]}))


def test_concatenate_can_not_skip_by_row_id(lacks):
    (found,) = lacks(CONCATENATE, concatenate(create_new_rowids=False))
    assert "row IDs" in found


def groupby(keys, *aggregations, policy="Aggregation method (column name)", **extra):
    return {
        "grouByColumns": {"InclList": list(keys), "ExclList": []},
        "columnNamePolicy": policy,
        "aggregationColumn": {
            "columnNames": [one[0] for one in aggregations],
            "aggregationMethod": [one[1] for one in aggregations],
            "inclMissingVals": [one[2] if len(one) > 2 else False for one in aggregations],
        },
        "aggregationOperatorSettings": {},
        "patternAggregators": {},
        "dataTypeAggregators": {},
        "retainOrder": False,
        "nodeVersion": 1,
        "typeMatch": ("xbyte", 0),
    } | extra


GROUPS = pl.DataFrame(
    {"g": ["b", "a", None, "b", "a", "c"], "v": pl.Series([1, 2, 3, 4, None, None], dtype=pl.Int32)}
)


def test_settings_of_an_aggregation_are_refused(lacks):
    settings = groupby(["g"], ("v", "Sum_V2.5.2"))
    settings["aggregationOperatorSettings"] = {"Sum_V2.5.2_v": {"new": 1}}
    assert lacks(GROUPBY, settings) == ["setting 'aggregationOperatorSettings' is not supported"]


def test_groups_come_sorted_with_names_as_knime_gives_them(run_node):
    settings = groupby(["g"], ("v", "Sum_V2.5.2"), ("v", "Mean_V4.6"), ("v", "Count"))
    found = run_node(GROUPBY, settings, GROUPS)
    assert found.columns == ["g", "Sum(v)", "Mean(v)", "Count*(v)"]
    assert found.rows() == [
        (None, 3, 3.0, 1),
        ("a", 2, 2.0, 1),
        ("b", 5, 2.5, 2),
        ("c", None, None, 0),
    ]
    assert found.dtypes == [pl.String, pl.Int32, pl.Float64, pl.Int32]


def test_groups_may_keep_their_order_and_their_names(run_node):
    settings = groupby(["g"], ("v", "Maximum"), policy="Keep original name(s)", retainOrder=True)
    found = run_node(GROUPBY, settings, GROUPS)
    assert found.rows() == [("b", 4), ("a", 2), (None, 3), ("c", None)]
    other = groupby(["g"], ("v", "First", True), policy="Column name (aggregation method)")
    assert run_node(GROUPBY, other, GROUPS).columns == ["g", "v (First)"]


def test_missing_cells_count_where_they_are_included(run_node):
    settings = groupby([], ("v", "Count", True), ("v", "Last", True), ("v", "Last", False))
    found = run_node(GROUPBY, settings, GROUPS)
    assert found.to_dict(as_series=False) == {
        "Count(v)": [6], "Last(v)": [None], "Last*(v)": [4],
    }  # fmt: skip


def test_a_sum_too_large_for_its_column_is_missing(run_node):
    frame = pl.DataFrame({"v": pl.Series([2**31 - 1, 1], dtype=pl.Int32)})
    assert run_node(GROUPBY, groupby([], ("v", "Sum_V2.5.2")), frame).item() is None
    assert run_node(GROUPBY, groupby([], ("v", "Sum_V2.5.2")), frame[:1]).item() == 2**31 - 1
    long = frame.cast(pl.Int64)
    assert run_node(GROUPBY, groupby([], ("v", "Sum_V2.5.2")), long).item() == 2**31


def test_the_spread_of_one_cell_is_zero_and_missing_cells_are_no_value(run_node):
    frame = pl.DataFrame({"g": ["a", "b", "b", "c"], "v": [5.0, 1.0, 3.0, None]})
    settings = groupby(
        ["g"],
        ("v", "Variance"),
        ("v", "Standard deviation"),
        ("v", "Unique count", True),
        ("v", "Minimum", True),
    )
    found = run_node(GROUPBY, settings, frame)
    assert found.columns[3:] == ["Unique count(v)", "Min(v)"]
    assert found.rows() == [
        ("a", 0.0, 0.0, 1, 5.0),
        ("b", 2.0, 2.0**0.5, 2, 1.0),
        ("c", None, None, 0, None),
    ]


def test_a_group_beyond_the_limit_of_values_is_missing(run_node):
    frame = pl.DataFrame({"v": [1, 2, 3]})
    settings = groupby([], ("v", "Unique count"), ("v", "Median"), ("v", "Maximum"))
    found = run_node(GROUPBY, settings | {"maxNoneNumericalVals": 2}, frame)
    assert found.row(0) == (None, None, 3)
    assert run_node(GROUPBY, settings | {"maxNoneNumericalVals": 3}, frame).row(0) == (3, 2.0, 3)


def test_groupby_says_what_it_lacks(lacks):
    settings = groupby(["g"], ("v", "Skewness"), patternAggregators={"f_0": {"inputPattern": ".*"}})
    assert lacks(GROUPBY, settings) == [
        "setting 'patternAggregators' is not supported",
        "aggregation 'Skewness' of column 'v' is not supported",
    ]


def manipulation(expression, **extra):
    return {
        "expression": expression,
        "replaced_column": "t",
        "append_column": True,
        "test_compilation_on_dialog_close": True,
        "insert_missing_as_null": False,
        "return_type": "java.lang.String",
    } | extra


def test_string_manipulation(run_node, lacks):
    found = run_node(MANIPULATION, manipulation('join($b$, "-", upperCase($b$))'), FRAME)
    assert found["t"].to_list() == ["x-X", "y-Y"]
    (found,) = lacks(MANIPULATION, manipulation("wobble($b$)"))
    assert "wobble" in found
    (found,) = lacks(MANIPULATION, manipulation("$b$", insert_missing_as_null=True))
    assert "insert_missing_as_null" in found


def ruled(*lines):
    return {"rules": list(lines), "new-column-name": "n", "append-column": True}


def test_what_no_types_could_save_is_found_before_the_run(lacks):
    assert len(lacks(RULES, ruled("$a$ SOUNDS $b$ => 1"))) == 1
    assert lacks(RULES, ruled('$a$ > 1 AND $b$ LIKE "x*" => $${Sv}$$')) == []
    assert len(lacks(RULE_FILTER, {"rules": ["$a$ >"], "include": True})) == 1
    assert lacks(RULE_FILTER, {"rules": ["$a$ AND $b$ = $${Ilimit}$$ => TRUE"]}) == []
    assert lacks(RULE_FILTER, {"rules": ["TRUE => $a$"]}) == []
    assert len(lacks(MATH, formula("$a$ +"))) == 1
    assert lacks(MATH, formula("$a$ + $${Dshare}$$ + COL_MEAN($b$)")) == []
    assert len(lacks(MATH, formula("$a$ + $${Sname}$$"))) == 1
    assert lacks(MANIPULATION, manipulation("padLeft(string($a$), 3, $${Sfill}$$)")) == []


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ('$a$ MATCHES "(?=x).*"', "no look-around"),
        ("bogus $a$", "'bogus' is not known"),
        ("$a$ = wobble", "'wobble' is not known"),
    ],
)
def test_what_is_lacking_is_found_with_any_number_of_columns(lacks, condition, said):
    many = " AND ".join(f'$c{at}$ = "1"' for at in range(12))
    (found,) = lacks(RULES, ruled(f'{condition} AND {many} => "x"'))
    assert said in found
    sum_of_many = " + ".join(f"$c{at}$" for at in range(12))
    (found,) = lacks(MATH, formula(f"{sum_of_many} + wobble($c0$)"))
    assert "'wobble' is not supported" in found


def test_a_dollar_in_a_text_names_no_column(run_node):
    settings = ruled('$a$ MATCHES "^x$" => "1"', '$b$ MATCHES "^y$" => "2"', "TRUE => $a$")
    frame = pl.DataFrame({"a": ["x", "z", "z"], "b": ["y", "y", "x"]})
    assert run_node(RULES, settings, frame)["n"].to_list() == ["1", "2", "z"]
    text = manipulation('join("$", $a$, "$")')
    assert run_node(MANIPULATION, text, frame)["t"].to_list() == ["$x$", "$z$", "$z$"]
