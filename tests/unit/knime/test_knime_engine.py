from __future__ import annotations

import re

import polars as pl
import pytest
from knime_support import model, spec

from bentley.domain.errors import ConfigurationError
from bentley.knime import engine, overrides, workflow
from bentley.knime.nodes import REGISTRY
from bentley.knime.nodes.base import BaseNode

CREATOR = "org.knime.base.node.io.tablecreator.TableCreator2NodeFactory"
MATH = "org.knime.ext.jep.JEPNodeFactory"
SORTER = "org.knime.base.node.preproc.sorter.SorterNodeFactory"
CSV_READER = "org.knime.base.node.io.filehandling.csv.reader.CSVTableReaderNodeFactory"
CONNECTOR = "org.knime.database.node.connector.generic.DBConnectorNodeFactory"


def creator(numbers=(3, 1, 2)):
    return spec(
        "Table Creator",
        CREATOR,
        model(
            {
                "rowIndices": list(range(len(numbers))),
                "columnIndices": [0] * len(numbers),
                "values": [str(number) for number in numbers],
                "columnProperties": {
                    "0": {
                        "ColumnName": "n",
                        "ColumnClass": {"cell_class": "org.knime.core.data.def.IntCell"},
                    }
                },
            }
        ),
    )


def math(expression, after, **extra):
    settings = {"append_column": True, "replaced_column": "x", "expression": expression}
    return spec("Math Formula", MATH, model(settings), after=after, **extra)


def test_runs_in_order_and_reports_each_node(save):
    seen = []
    loaded = save([creator(), math("$n$ * 2", ((1, 1),)), math("$x$ + 1", ((2, 1),))])
    result = engine.run(loaded, on_node=seen.append)
    assert result.nodes == seen
    assert [(done.node_id, done.rows) for done in seen] == [("1", 3), ("2", 3), ("3", 3)]
    assert all(done.seconds >= 0 for done in seen)
    (output,) = result.outputs.values()
    assert output.to_dict(as_series=False) == {
        "n": [3, 1, 2],
        "x": [6.0, 2.0, 4.0],
        "x (#1)": [7.0, 3.0, 5.0],
    }


def test_an_output_read_twice_stays_until_its_last_reader(save):
    loaded = save([creator(), math("$n$", ((1, 1),)), math("-$n$", ((1, 1),))])
    outputs = engine.run(loaded).outputs
    assert outputs["2"]["x"].to_list() == [3.0, 1.0, 2.0]
    assert outputs["3"]["x"].to_list() == [-3.0, -1.0, -2.0]


def test_tables_are_freed_when_nobody_reads_them_any_more(save, monkeypatch):
    held = []
    original = engine._Run._one

    def spying(self, node):
        result = original(self, node)
        held.append(len(self.ports))
        return result

    monkeypatch.setattr(engine._Run, "_one", spying)
    chain = [creator(), *(math("$n$", ((at, 1),)) for at in range(1, 6))]
    engine.run(save(chain))
    assert max(held) == 0  # a node's inputs leave the store before its outputs enter it


def test_check_lists_everything_that_is_missing(save):
    loaded = save(
        [
            spec(
                "Python Script", "org.knime.python3.scripting.nodes2.script.PythonScriptNodeFactory"
            ),
            creator(),
            spec(
                "Sorter", SORTER, model({"brandNew": 1, "incllist": ["-ROWKEY -"]}), after=((2, 1),)
            ),
            math("", ()),
        ]
    )
    assert [str(lack) for lack in engine.check(loaded)] == [
        (
            "Python Script (#1): node org.knime.python3.scripting.nodes2.script."
            "PythonScriptNodeFactory is not supported"
        ),
        "Sorter (#3): setting 'brandNew' is not known",
        "Sorter (#3): sorting by row ID in 'incllist' is not supported: no row IDs here",
        "Math Formula (#4): setting 'expression' is empty",
        "Math Formula (#4): input port 1 is not connected",
    ]


def test_nothing_runs_when_anything_is_missing(save, monkeypatch):
    ran = []

    class Marked(BaseNode):
        inputs = ()
        keys = REGISTRY[CREATOR].keys

        def run(self, inputs, context):
            del inputs, context
            ran.append(1)
            return {1: pl.DataFrame()}

    monkeypatch.setitem(REGISTRY, CREATOR, Marked)
    loaded = save([creator(), math("", ((1, 1),))])
    with pytest.raises(ConfigurationError, match=r"Math Formula.*'expression' is empty"):
        engine.run(loaded)
    assert not ran


def test_an_error_in_a_node_names_the_node(save):
    with pytest.raises(ConfigurationError, match=r"node Math Formula \(#2\): .*nope"):
        engine.run(save([creator(), math("$nope$", ((1, 1),))]))


def test_a_circle_and_a_dangling_connection_are_found(save):
    loaded = save([math("$a$", ((2, 1),)), math("$a$", ((1, 1),))])
    assert "circle" in engine.check(loaded)[0].what
    loaded = save([creator(), math("$n$", ((1, 1),))])
    del loaded.nodes["1"]
    assert "names node 1" in engine.check(loaded)[0].what


def test_a_flow_variable_replaces_any_setting(save):
    loaded = save(
        [creator(), math("0", ((1, 1),), overrides={("expression",): "formula"})],
        {"formula": "$n$ + 1", "step": 10},
    )
    assert engine.run(loaded).outputs["2"]["x"].to_list() == [4.0, 2.0, 3.0]
    result = engine.run(loaded, {"formula": "$n$ * $${Istep}$$"})
    assert result.outputs["2"]["x"].to_list() == [30.0, 10.0, 20.0]


def test_an_exposed_setting_becomes_a_variable_downstream(save):
    first = math("$n$ * 5", ((1, 1),))
    loaded = save([creator(), first, math("0", ((2, 1),), overrides={("expression",): "made"})])
    tree = loaded.nodes["2"].variables.sub("tree").sub("expression")
    tree.put("used_variable", None).put("exposed_variable", "made")
    assert engine.run(loaded).outputs["3"]["x (#1)"].to_list() == [15.0, 5.0, 10.0]


@pytest.mark.parametrize(
    ("type_", "given", "stored"),
    [
        ("xint", 3, 3),
        ("xlong", 2**40, 2**40),
        ("xdouble", 3, 3.0),
        ("xstring", 3, "3"),
        ("xstring", True, "true"),
        ("xboolean", "true", True),
        ("xboolean", False, False),
    ],
)
def test_a_variable_takes_its_settings_type(type_, given, stored):
    settings = model({"deep": {"key": (type_, None)}})
    variables = model({"tree": {"deep": {"key": {"used_variable": "v"}}}})
    value = overrides.apply(settings, variables, {"v": given}).config("deep").value("key")
    assert value == stored
    assert type(value) is type(stored)
    assert settings.config("deep").value("key") is None


@pytest.mark.parametrize(
    ("type_", "given"), [("xint", 2**31), ("xint", "3"), ("xint", 1.5), ("xboolean", "yes")]
)
def test_a_variable_that_does_not_fit_is_refused(type_, given):
    settings = model({"key": (type_, None)})
    variables = model({"tree": {"key": {"used_variable": "v"}}})
    with pytest.raises(ConfigurationError, match=r"'v' is .* does not fit"):
        overrides.apply(settings, variables, {"v": given})


LOCATION = {
    "location_present": True,
    "file_system_type": "RELATIVE",
    "file_system_specifier": "knime.workflow",
    "path": "../in.csv",
}


def overridden(setting, value):
    """A setting's config once a variable with this value has been put over it."""
    variables = model({"tree": {"key": {"used_variable": "v"}}})
    assert not list(overrides.lacks(model({"key": setting}), variables))
    return overrides.apply(model({"key": setting}), variables, {"v": value}).config("key")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("/data/other.csv", ("LOCAL", "", "/data/other.csv")),
        ("C:\\data\\other.csv", ("LOCAL", "", "C:\\data\\other.csv")),
        ("other.csv", ("RELATIVE", "knime.workflow", "other.csv")),
        (
            model(LOCATION | {"file_system_type": "CUSTOM_URL", "path": "file:/x.csv"}),
            ("CUSTOM_URL", "knime.workflow", "file:/x.csv"),
        ),
    ],
)
def test_a_variable_replaces_a_files_location(given, expected):
    keys = ("file_system_type", "file_system_specifier", "path")
    for saved in (LOCATION, LOCATION | {"location_present": False}):
        found = overridden(saved, given)
        assert tuple(found.text(key) for key in keys) == expected
        assert found.flag("location_present")


def test_a_variable_replaces_an_array():
    array = model().put_array("v", ["x", None, "y"]).config("v")
    assert overridden(["a"], array) == model({"key": ["x", None, "y"]}).config("key")
    assert overridden([], "one") == model({"key": ["one"]}).config("key")
    assert overridden([1.5, 2.5], 3) == model({"key": [3.0]}).config("key")


@pytest.mark.parametrize(
    ("setting", "given", "said"),
    [
        (LOCATION, 3, "is 3, which does not fit a setting that is a file's location"),
        (LOCATION, model({"v": ["x"]}).config("v"), "is an array, which does not fit"),
        (["x"], model(LOCATION), "is the path '../in.csv', which does not fit"),
        ([1], "x", "is 'x', which does not fit a setting that is of type xint"),
    ],
)
def test_a_variable_of_another_kind_is_refused(setting, given, said):
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        overridden(setting, given)


def test_an_array_or_a_path_does_not_fit_a_single_value():
    variables = model({"tree": {"key": {"used_variable": "v"}}})
    with pytest.raises(ConfigurationError, match="'v' is a variable of type location, which"):
        overrides.apply(model({"key": "x"}), variables, {"v": model(LOCATION)})


def test_a_csv_reader_reads_the_file_that_a_variable_names(save, tmp_path):
    def reader(name, after=(), **extra):
        settings = {
            "settings": {"file_selection": {"path": LOCATION | {"path": name}}},
            "encoding": {"charset": "UTF-8"},
        }
        return spec("CSV Reader", CSV_READER, model(settings), after=after, **extra)

    (tmp_path / "one.csv").write_text("a\n1\n")
    (tmp_path / "two.csv").write_text("a\n2\n")
    over = {("settings", "file_selection", "path"): "Path"}
    loaded = save([reader("gone.csv", overrides=over)], {"Path": "../one.csv"})
    assert engine.check(loaded) == []
    assert engine.run(loaded).outputs["1"]["a"].to_list() == [1]
    second = engine.run(loaded, {"Path": str(tmp_path / "two.csv")})
    assert second.outputs["1"]["a"].to_list() == [2]
    # a node that exposes its own location hands a path variable on
    made = save([reader("../two.csv"), reader("gone.csv", ((1, 0),), overrides=over)])
    tree = made.nodes["1"].variables.sub("tree").sub("settings").sub("file_selection").sub("path")
    tree.put("exposed_variable", "Path")
    assert engine.run(made).outputs["2"]["a"].to_list() == [2]


def test_an_override_of_no_setting_is_a_lack(save):
    loaded = save(
        [creator(), math("$n$", ((1, 1),), overrides={("nothing", "here"): "v"})], {"v": "1"}
    )
    (lack,) = engine.check(loaded)
    assert lack.what == "flow variable 'v' overrides 'nothing/here', which no variable can replace"


def test_placeholders_are_put_in_as_plain_text():
    values = {"name": "it's", "n": 3, "share": 0.5}
    assert overrides.substitute("$${Sname}$$|$${In}$$|$${Dshare}$$", values) == "it's|3|0.5"
    with pytest.raises(ConfigurationError, match="'gone' has no value"):
        overrides.substitute("$${Sgone}$$", values)


def test_a_failing_node_does_not_print_the_password(save):
    connector = spec(
        "DB Connector",
        CONNECTOR,
        model({"session_info": {"db_url": ""}}),
        overrides={("session_info", "db_url"): "url"},
    )
    loaded = save([connector], {"url": ""})
    with pytest.raises(ConfigurationError) as caught:
        engine.run(loaded, {"url": "jdbc:oracle:thin:scott/tiger@host"})
    assert "tiger" not in str(caught.value)
    assert "jdbc:oracle" in str(caught.value)


def test_a_saved_password_is_a_lack(save):
    connector = spec(
        "DB Connector",
        CONNECTOR,
        model(
            {
                "authentication": {"selectedType": "USER_PWD", "password": ("xpassword", "02AA")},
                "session_info": {"db_url": "jdbc:sqlite:x"},
            }
        ),
    )
    (lack,) = engine.check(save([connector]))
    assert "encrypted by KNIME" in lack.what
    assert workflow.values(save([connector]), {}) == {}


def test_an_unknown_function_is_found_before_the_run(save):
    (lack,) = engine.check(save([creator(), math("wobble($n$)", ((1, 1),))]))
    assert "wobble" in lack.what


def test_the_nodes_that_were_promised_are_there():
    names = " ".join(REGISTRY)
    for promised in (
        "CSVTableReader", "CSVWriter2", "TableCreator2", "DataColumnSpecFilter", "ColumnRenamer",
        "row3.RowFilter", "row.RowFilter", "Sorter", "RuleEngine", "JEP", "GroupBy", "Joiner3",
        "AppendedRows", "StringToNumber2", "DBQueryReader", "DBWrite2", "MissingValueHandler",
        "DuplicateRowFilter", "StringManipulation",
    ):  # fmt: skip
        assert promised in names
