from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from knime_support import model, spec

from bentley.domain.errors import ConfigurationError
from bentley.knime import engine, workflow, writer, xmlconfig
from bentley.knime.workflow import Connection
from bentley.knime.xmlconfig import Config

RENAMER = "org.knime.base.node.preproc.column.renamer.ColumnRenamerNodeFactory"
CREATOR = "org.knime.base.node.io.tablecreator.TableCreator2NodeFactory"


def _pair():
    return [
        spec("Table Creator", CREATOR),
        spec("Column Renamer", RENAMER, model({"renamings": {}}), after=((1, 1),)),
    ]


def _unpack(archive: bytes, folder: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        source.extractall(folder)
    return folder / "test"


def test_archive_folder_and_file_load_the_same(tmp_path):
    archive = writer.archive("test", _pair(), {"name": "x", "count": 3, "share": 0.5})
    (tmp_path / "w.knwf").write_bytes(archive)
    folder = _unpack(archive, tmp_path)
    loaded = [
        workflow.load(path) for path in (tmp_path / "w.knwf", folder, folder / "workflow.knime")
    ]
    for one in loaded:
        assert one.name == "test"
        assert one.variables == {"name": "x", "count": 3, "share": 0.5}
        assert one.connections == [Connection("1", 1, "2", 1)]
        assert [node.factory for node in one.nodes.values()] == [CREATOR, RENAMER]
        assert one.nodes["2"].name == "Column Renamer"
    assert loaded[0].folder == tmp_path.resolve() / "w.knwf" / "test"
    assert loaded[1].folder == folder.resolve()


def _zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a/workflow.knime": b"", "b/workflow.knime": b""}, "exactly one workflow folder"),
        ({"a/../../etc/x": b""}, "unsafe path"),
        ({"/a/x": b""}, "unsafe path"),
        ({"a\\..\\x": b""}, "unsafe path"),
        ({"a/other": b""}, "lacks workflow.knime"),
    ],
)
def test_unsafe_and_incomplete_archives_are_refused(tmp_path, files, said):
    with pytest.raises(ConfigurationError, match=said):
        workflow.load(_zip(tmp_path / "w.knwf", files))


def test_what_is_no_archive_and_what_is_not_there(tmp_path):
    (tmp_path / "w.knwf").write_text("hello")
    with pytest.raises(ConfigurationError, match=r"not a .knwf archive"):
        workflow.load(tmp_path / "w.knwf")
    with pytest.raises(ConfigurationError, match="no workflow at"):
        workflow.load(tmp_path / "missing.knwf")


def test_a_settings_file_that_unpacks_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "MAX_BYTES", 1000)
    path = tmp_path / "w.knwf"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/workflow.knime", b" " * 100_000)
    assert path.stat().st_size < 1000
    with pytest.raises(ConfigurationError, match="larger than 1000 bytes"):
        workflow.load(path)


def test_a_settings_path_can_not_leave_the_folder(tmp_path):
    folder = _unpack(writer.archive("test", _pair(), {}), tmp_path)
    file = folder / "workflow.knime"
    file.write_bytes(file.read_bytes().replace(b"Column Renamer (#2)", b"../../etc"))
    with pytest.raises(ConfigurationError, match="out of the workflow's folder"):
        workflow.load(folder)


THROUGH_A_NODE = [(-1, 0, 2, 1), (2, 1, -1, 0)]


def _meta_workflow(folder: Path, kind: str, links=THROUGH_A_NODE) -> Path:
    """Table Creator -> metanode 7 (Column Renamer 2 inside) -> Column Renamer 3."""
    inner = _unpack(writer.archive("test", _pair(), {}), folder / "inner")
    outer = _unpack(
        writer.archive(
            "test", [*_pair(), spec("Column Renamer", RENAMER, model({"renamings": {}}))], {}
        ),
        folder / "outer",
    )
    meta = outer / "Meta (#7)"
    (inner / "Table Creator (#1)" / "settings.xml").unlink()
    inner.rename(meta)
    inside = xmlconfig.parse((meta / "workflow.knime").read_bytes())
    del inside.config("nodes").children["node_1"]
    _link(inside, links)
    (meta / "workflow.knime").write_bytes(xmlconfig.write(inside))
    root = xmlconfig.parse((outer / "workflow.knime").read_bytes())
    nodes = root.config("nodes")
    del nodes.children["node_2"]
    node = nodes.sub("node_7")
    node.put("id", 7).put("node_is_meta", True).put("node_type", kind)
    node.put("node_settings_file", "Meta (#7)/workflow.knime")
    if kind == "SubNode":
        node.put("node_settings_file", "Meta (#7)/settings.xml").put("node_is_meta", False)
        settings = Config("settings.xml").put("name", "My Component")
        (meta / "settings.xml").write_bytes(xmlconfig.write(settings))
    _link(root, [(1, 1, 7, 0), (7, 0, 3, 1)])
    (outer / "workflow.knime").write_bytes(xmlconfig.write(root))
    return outer


def _link(root: Config, links: list[tuple[int, int, int, int]]) -> None:
    root.sub("connections").children.clear()
    for at, link in enumerate(links):
        connection = root.sub("connections").sub(f"connection_{at}")
        for key, value in zip(("sourceID", "sourcePort", "destID", "destPort"), link, strict=True):
            connection.put(key, value)


def test_a_metanode_is_opened_up(tmp_path):
    loaded = workflow.load(_meta_workflow(tmp_path, "MetaNode"))
    assert set(loaded.nodes) == {"1", "3", "7:2"}
    assert loaded.connections == [Connection("1", 1, "7:2", 1), Connection("7:2", 1, "3", 1)]
    assert engine.check(loaded) == []
    assert [done.node_id for done in engine.run(loaded).nodes] == ["1", "7:2", "3"]


def test_a_metanode_may_pass_an_input_on(tmp_path):
    loaded = workflow.load(_meta_workflow(tmp_path, "MetaNode", [(-1, 0, -1, 0), (-1, 0, 2, 1)]))
    assert loaded.connections == [Connection("1", 1, "3", 1), Connection("1", 1, "7:2", 1)]
    assert engine.check(loaded) == []


def test_a_metanode_output_that_comes_from_nowhere_is_a_lack_among_others(tmp_path):
    folder = _meta_workflow(tmp_path, "MetaNode", [])
    settings = folder / "Table Creator (#1)" / "settings.xml"
    settings.write_bytes(settings.read_bytes().replace(CREATOR.encode(), b"org.other.Node"))
    assert [lack.what for lack in engine.check(workflow.load(folder))] == [
        "node org.other.Node is not supported",
        "input port 1 is not connected",
        "a connection names node 7:output, which is not there",
    ]


def test_metanodes_that_feed_themselves_are_a_lack(tmp_path):
    folder = _meta_workflow(tmp_path, "MetaNode", [(-1, 0, -1, 0)])
    root = xmlconfig.parse((folder / "workflow.knime").read_bytes())
    _link(root, [(7, 0, 7, 0), (7, 0, 3, 1)])
    (folder / "workflow.knime").write_bytes(xmlconfig.write(root))
    lacks = [lack.what for lack in engine.check(workflow.load(folder))]
    assert any(what.startswith("a connection names node 7:") for what in lacks)


def test_a_component_is_named_as_unsupported(tmp_path):
    loaded = workflow.load(_meta_workflow(tmp_path, "SubNode"))
    (lack,) = engine.check(loaded)
    assert (lack.node_id, lack.node_name) == ("7", "My Component")
    assert "component" in lack.what


def test_values_override_and_unknown_ones_are_refused(save):
    loaded = save(_pair(), {"a": "1", "b": "2"})
    assert workflow.values(loaded, {"b": "3"}) == {"a": "1", "b": "3"}
    with pytest.raises(ConfigurationError, match="no variable typo; it has a, b"):
        workflow.values(loaded, {"typo": "3"})


def _with_variables(folder: Path, nodes, *variables) -> workflow.Workflow:
    """A workflow folder that has these variables, each a config as KNIME saves it."""
    unpacked = _unpack(writer.archive("test", nodes, {}), folder)
    root = xmlconfig.parse((unpacked / "workflow.knime").read_bytes())
    for number, variable in enumerate(variables):
        twin = root.sub("workflow_variables").sub(f"Var_{number}")
        twin.children.update(model(variable).children)
    (unpacked / "workflow.knime").write_bytes(xmlconfig.write(root))
    return workflow.load(unpacked)


def _path(name, path, kind="RELATIVE", where="knime.workflow"):
    return {
        "name": name,
        "class": "FSLocation",
        "location_present": True,
        "file_system_type": kind,
        "file_system_specifier": where,
        "path": path,
    }


def test_variables_of_every_type_are_read(tmp_path):
    loaded = _with_variables(
        tmp_path,
        _pair(),
        {"name": "s", "class": "STRING", "value": "x"},
        {"name": "i", "class": "INTEGER", "value": 3},
        {"name": "b", "class": "BOOLEAN", "value": True},
        {"name": "texts", "class": "STRINGARRAY", "value": ["x", None, ""]},
        {"name": "none", "class": "STRINGARRAY", "value": []},
        {"name": "flags", "class": "BOOLEANARRAY", "value": [True, False]},
        _path("file", "../in.csv"),
        {"name": "gone", "class": "FSLocation", "location_present": False},
        {"name": "secret", "class": "CREDENTIALS", "value": {"name": "secret", "login": "x"}},
    )
    plain = {name: value for name, value in loaded.variables.items() if type(value) is not Config}
    assert plain == {"s": "x", "i": 3, "b": True, "gone": None, "secret": None}
    assert [loaded.variables[name] for name in ("texts", "none", "flags")] == [
        model().put_array("value", values).config("value")
        for values in (["x", None, ""], [], [True, False])
    ]
    location = _path("file", "../in.csv")
    expected = {key: location[key] for key in list(location)[2:]}
    assert loaded.variables["file"] == model({"value": expected}).config("value")


READER = "org.knime.base.node.io.filehandling.csv.reader.CSVTableReaderNodeFactory"


def _reader():
    location = _path("", "gone.csv", "LOCAL", "")
    settings = {"settings": {"file_selection": {"path": dict(list(location.items())[2:])}}}
    over = {("settings", "file_selection", "path"): "file"}
    return spec("CSV Reader", READER, model(settings), overrides=over)


def test_a_saved_path_variable_says_which_file_is_read(tmp_path):
    (tmp_path / "in.csv").write_text("a\n1\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "in.csv").write_text("a\n2\n")
    loaded = _with_variables(tmp_path, [_reader()], _path("file", "../in.csv"))
    assert engine.check(loaded) == []
    assert engine.run(loaded).outputs["1"].rows() == [(1,)]
    other = engine.run(loaded, {"file": str(tmp_path / "test" / "in.csv")})
    assert other.outputs["1"].rows() == [(2,)]


def test_a_saved_path_that_the_engine_can_not_go_to_is_a_lack(tmp_path):
    loaded = _with_variables(tmp_path, [_reader()], _path("file", "x.csv", "CONNECTED", "s3"))
    (lack,) = engine.check(loaded)
    assert lack.what == (
        "the file system 'CONNECTED' in 'settings/file_selection/path' is not supported"
    )


def test_a_saved_array_variable_replaces_an_array_and_no_single_value(tmp_path):
    over = {("columnIndices",): "places"}
    table = {
        "rowIndices": [0, 0],
        "columnIndices": [0, 1],
        "values": ["x", "y"],
        "columnProperties": {
            str(at): {
                "ColumnName": name,
                "ColumnClass": {"cell_class": "org.knime.core.data.def.StringCell"},
            }
            for at, name in enumerate("ab")
        },
    }
    creator = spec("Table Creator", CREATOR, model(table), overrides=over)
    places = {"name": "places", "class": "INTARRAY", "value": [1, 0]}
    loaded = _with_variables(tmp_path, [creator], places)
    assert engine.run(loaded).outputs["1"].rows() == [("y", "x")]
    wrong = spec("Table Creator", CREATOR, model(table), overrides={("rowIdPrefix",): "places"})
    wrong.model.put("rowIdPrefix", "Row")
    (lack,) = engine.check(_with_variables(tmp_path, [wrong], places))
    assert "'places' is a variable of type array, which does not fit" in lack.what
