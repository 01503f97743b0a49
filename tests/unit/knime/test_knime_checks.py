"""The planner answers whatever is in a workflow: it lists, and it never breaks."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from knime_support import model as settings_of

from bentley.knime.nodes import REGISTRY
from bentley.knime.nodes.base import BaseNode, unknown
from bentley.knime.xmlconfig import Config, Entry

VALUES = st.one_of(
    st.builds(Entry, st.just("xstring"), st.one_of(st.none(), st.text(max_size=8))),
    st.builds(Entry, st.just("xint"), st.one_of(st.none(), st.integers(-3, 3))),
    st.builds(Entry, st.just("xboolean"), st.booleans()),
    st.builds(Entry, st.just("xdouble"), st.floats()),
)
INNER = (
    "array-size", "0", "1", "operator", "columnV2", "regularChoice", "specialChoice_Internals",
    "predicateValues", "values", "mode", "path", "factoryID", "InclList", "columnNames",
    "aggregationMethod", "inclMissingVals", "cell_class", "RowFilter_TypeID", "tableName",
    "csvFormatParams", "fileEncodingParams", "fileEncoding", "specs", "spec", "columnTransformation",
    "columnName", "name", "type",
)  # fmt: skip


def _config(children: dict[str, Entry | Config]) -> Config:
    config = Config("config")
    config.children.update(children)
    return config


def _trees(keys):
    inner = st.recursive(
        VALUES,
        lambda below: st.dictionaries(st.sampled_from(INNER), below, max_size=4).map(_config),
        max_leaves=8,
    )
    return st.dictionaries(st.sampled_from(sorted(keys) or ["x"]), inner, max_size=6).map(_config)


@pytest.mark.parametrize("factory", sorted(REGISTRY))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_settings_are_answered_with_a_list(factory, data):
    model = data.draw(_trees({key.split("/")[0] for key in REGISTRY[factory].keys}))
    lacks = REGISTRY[factory](model).check()
    assert all(isinstance(line, str) and line for line in lacks)


@pytest.mark.parametrize("factory", sorted(REGISTRY))
def test_every_node_reports_a_setting_that_it_does_not_know(factory):
    model = Config("model").put("notOfThisWorld", 1).put("harmless_Internals", 1)
    lacks = REGISTRY[factory](model).check()
    assert "setting 'notOfThisWorld' is not known" in lacks
    assert not any("harmless" in line for line in lacks)


@pytest.mark.parametrize("factory", sorted(REGISTRY))
def test_every_node_says_what_it_is(factory):
    node = REGISTRY[factory]
    assert issubclass(node, BaseNode)
    assert node.__doc__ != BaseNode.__doc__
    assert node.keys


def test_a_path_covers_what_is_below_it_and_opens_what_is_above_it():
    config = settings_of(
        {
            "a": {"b": {"c": 1}, "d": 2, "e": {"f": 3}, "state_Internals": {"g": 4}},
            "h": {"0": {"i": 5, "j": 6}, "k": 7},
            "l": 8,
            "read_Internals": {"m": 9, "n": 10},
            "quiet_Internals": {"o": 11},
        }
    )
    known = ("a/b", "h/*/i", "l/below", "read_Internals/m")
    assert list(unknown(config, [tuple(path.split("/")) for path in known])) == [
        "a/d",
        "a/e",
        "h/0/j",
        "h/k",
        "l",
        "read_Internals/n",
    ]


PREPROC = "org.knime.base.node.preproc."


@pytest.mark.parametrize(
    ("factory", "path"),
    [
        ("org.knime.base.node.io.filehandling.csv.reader.CSVTableReaderNodeFactory", path)
        for path in (
            "settings/new",
            "advanced_settings/new",
            "limit_rows/new",
            "table_spec_config_Internals/table_transformation/new",
            "table_spec_config_Internals/table_transformation/columns/0/new",
        )
    ]
    + [
        ("org.knime.base.node.io.filehandling.csv.writer.CSVWriter2NodeFactory", "settings/new"),
        (
            "org.knime.base.node.io.tablecreator.TableCreator2NodeFactory",
            "columnProperties/0/new",
        ),
        (f"{PREPROC}filter.row3.RowFilterNodeFactory", "predicates/0/new"),
        (f"{PREPROC}filter.row3.RowFilterNodeFactory", "predicates/0/predicateValues/values/0/new"),
        (f"{PREPROC}filter.row.RowFilterNodeFactory", "rowFilter/new"),
        (f"{PREPROC}filter.column.DataColumnSpecFilterNodeFactory", "column-filter/new"),
        (f"{PREPROC}column.renamer.ColumnRenamerNodeFactory", "renamings/0/new"),
        (f"{PREPROC}rename.RenameNodeFactory", "all_columns/0/new"),
        (f"{PREPROC}sorter.SorterNodeFactory", "sortingCriteria/0/new"),
        (f"{PREPROC}duplicates.DuplicateRowFilterNodeFactory", "group_cols/name_pattern/new"),
        (
            f"{PREPROC}pmml.missingval.compute.MissingValueHandlerNodeFactory",
            "columnSettings/0/settings/settings/new",
        ),
        (f"{PREPROC}colconvert.stringtonumber2.StringToNumber2NodeFactory", "parse_type/new"),
        (f"{PREPROC}colconvert.stringtonumber2.StringToNumber2NodeFactory", "include/new"),
        (f"{PREPROC}colconvert.numbertostring2.NumberToString2NodeFactory", "include/new"),
        (f"{PREPROC}columnlag.LagColumnNodeFactory", "columnV2/new"),
        (f"{PREPROC}constantvalue.ConstantValueColumnNodeFactory", "column-type/new"),
        (
            "org.knime.database.extension.mysql.node.connector.MySQLDBConnectorNodeFactory",
            "mysql-connection/new",
        ),
        (
            "org.knime.database.node.io.write2.DBWrite2NodeFactory",
            "setDataColumns/manualFilter/new",
        ),
    ]
    + [
        (f"{PREPROC}joiner3.Joiner3NodeFactory", path)
        for path in (
            "matchingCriteria/0/new",
            "matchingCriteria/0/leftTableColumnV2/new",
            "matchingCriteria/0/rightTableColumnV2/new",
            "leftColumnSelectionConfig/new",
            "rightColumnSelectionConfig/name_pattern/new",
            "leftColumnSelectionConfigV2/patternFilter/new",
            "rightColumnSelectionConfigV2/new",
        )
    ]
    + [
        (f"{PREPROC}groupby.GroupByNodeFactory", path)
        for path in ("grouByColumns/new", "aggregationColumn/new")
    ],
)
def test_an_unknown_nested_setting_is_reported_with_its_path(factory, path):
    model = config = Config("model")
    *above, last = path.split("/")
    for key in above:
        config = config.sub(key)
    config.put(last, 1)
    assert f"setting {path!r} is not known" in REGISTRY[factory](model).check()
