"""CSV Reader, CSV Writer and Table Creator, with settings keyed as in public workflows."""

from __future__ import annotations

import csv
import io
import zipfile

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from knime_support import model, spec

from bentley.domain.errors import ConfigurationError, DataError
from bentley.knime import engine, workflow
from bentley.knime import writer as writing
from bentley.knime.nodes import csvwriter, files
from bentley.knime.workflow import _rooted

FILES = "org.knime.base.node.io.filehandling.csv."
READER = f"{FILES}reader.CSVTableReaderNodeFactory"
WRITER = f"{FILES}writer.CSVWriter2NodeFactory"
CREATOR = "org.knime.base.node.io.tablecreator.TableCreator2NodeFactory"
LATEST_CREATOR = "org.knime.base.node.io.tablecreator.TableCreator3NodeFactory"
CELLS = "org.knime.core.data.def."


def chooser(path, kind="RELATIVE", where="knime.workflow", **extra):
    return {
        "path": {
            "location_present": True,
            "file_system_type": kind,
            "file_system_specifier": where,
            "path": path,
        },
        "filter_mode": {"filter_mode": "FILE"},
    } | extra


def column(name, cell="StringCell", *, rename=None, keep=True, position=0, **path):
    """A column as the Transformation tab saves it."""
    return {
        "external_spec": {"name": name, "has_type": True, "type": {"class": "java.lang.String"}},
        "name": rename or name,
        "keep": keep,
        "position": position,
        "production_path": {
            "_converter": f"{CELLS}{cell}${cell}Factory.create(class java.lang.Object)",
            "_converter_dst": f"a {cell}",
            "_converter_config": {},
            "_producer_config": {},
        }
        | path,
    }


def saved(*columns, path="in.csv", unknown=None, version="V4_4", **extra):
    """A saved table specification."""
    return {
        "version": version,
        "individual_specs": {path: {"num_columns": len(columns)}},
        "table_transformation": {
            "columns": {str(at): one for at, one in enumerate(columns)}
            | {"num_columns": len(columns), "intersection_indices": [*range(len(columns))]},
            "skip_empty_columns": False,
            "enforce_types": True,
            "column_filter_mode": "UNION",
            "unknown_columns_transformation": {"keep": True, "position": 99, "force_type": False}
            | (unknown or {}),
        }
        | extra,
        "source_group_id": path,
    }


def reader(path="in.csv", advanced=None, limits=None, spec=None, **extra):
    return {
        "settings": {
            "file_selection": chooser(path),
            "has_column_header": True,
            "has_row_id": False,
            "support_short_data_rows": False,
            "skip_empty_data_rows": False,
            "prepend_file_idx_to_row_id": False,
            "comment_char": "#",
            "column_delimiter": ",",
            "quote_char": '"',
            "quote_escape_char": '"',
            "use_line_break_row_delimiter": True,
        }
        | extra,
        "advanced_settings": {"thousands_separator": "\0", "decimal_separator": "."}
        | (advanced or {}),
        "limit_rows": limits or {},
        "encoding": {"charset": "UTF-8"},
    } | ({"table_spec_config_Internals": spec} if spec else {})


def test_types_are_guessed_from_all_cells(run_node, tmp_path):
    (tmp_path / "in.csv").write_text(
        'i,l,d,s,e\n1,5000000000,0.5,"a, ""b""",\n# gone\n-2,1, 1e3 , c ,""\n,,,,\n'
    )
    found = run_node(READER, reader())
    assert found.dtypes == [pl.Int32, pl.Int64, pl.Float64, pl.String, pl.String]
    assert found.rows() == [
        (1, 5_000_000_000, 0.5, 'a, "b"', None),
        (-2, 1, 1000.0, "c", None),
        (None, None, None, None, None),
    ]


def test_saved_types_win_and_a_cell_that_does_not_fit_fails(run_node, tmp_path):
    (tmp_path / "in.csv").write_text("a,b\n01,2\n")
    table = saved(column("a"), column("b", "DoubleCell", position=1))
    assert run_node(READER, reader(spec=table)).rows() == [("01", 2.0)]
    (tmp_path / "in.csv").write_text("a,b\n01,x\n")
    with pytest.raises(DataError, match=r"'b' of .* holds 'x', which is no Float64"):
        run_node(READER, reader(spec=table))


def test_the_transformation_tab_drops_renames_moves_and_types_columns(run_node, tmp_path):
    (tmp_path / "in.csv").write_text("a,b,c,new\n1,2,03,4\n")
    table = saved(
        column("a", "LongCell", rename="alpha", position=2),
        column("b", "LocalDateCell", keep=False, position=0),
        column("c", position=1),
    )
    found = run_node(READER, reader(spec=table))
    assert found.to_dict(as_series=False) == {"c": ["03"], "alpha": [1], "new": [4]}
    assert found.dtypes == [pl.String, pl.Int64, pl.Int32]
    table["table_transformation"]["unknown_columns_transformation"]["keep"] = False
    assert run_node(READER, reader(spec=table)).columns == ["c", "alpha"]


def test_columns_other_than_the_saved_ones_fail_where_they_must_be_the_same(run_node, tmp_path):
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")
    settings = reader(spec=saved(column("a")), advanced={"check_table_spec": True})
    with pytest.raises(DataError, match="has the columns a, b, but a were saved"):
        run_node(READER, settings)
    settings["table_spec_config_Internals"]["source_group_id"] = "another.csv"
    assert run_node(READER, settings).rows() == [("1", 2)]
    with pytest.raises(DataError, match="has the columns a, b, but a, z were saved"):
        run_node(READER, reader(spec=saved(column("a"), column("z"))))


def test_reader_says_which_transformations_it_lacks(lacks):
    table = saved(
        column("a", "LocalDateCell"),
        column("b", _converter_config={"format": "x"}),
        version="V4_3",
        skip_empty_columns=True,
        enforce_types=False,
        unknown={"force_type": True},
    )
    settings = reader(spec=table, advanced={"append_path_column_Internals": True})
    tab = "table_spec_config_Internals/table_transformation"
    assert lacks(READER, settings) == [
        "setting 'advanced_settings/append_path_column_Internals' = True is not supported",
        "setting 'table_spec_config_Internals/version' = 'V4_3' is not supported",
        f"setting '{tab}/skip_empty_columns' = True is not supported",
        f"setting '{tab}/unknown_columns_transformation/force_type' = True is not supported",
        f"type 'a LocalDateCell' in '{tab}/columns/0/production_path' is not supported",
        f"type 'a StringCell' in '{tab}/columns/1/production_path' is not supported",
    ]
    table["source_group_id"] = "another.csv"
    assert f"setting '{tab}/enforce_types' = False is not supported for another file" in lacks(
        READER, settings
    )


def test_a_cell_may_be_long_and_an_unreadable_file_is_named(run_node, tmp_path, monkeypatch):
    (tmp_path / "in.csv").write_text('a\n"' + "x" * 200_000 + '"\n')
    assert run_node(READER, reader()).item() == "x" * 200_000
    monkeypatch.setattr(files, "_LARGEST_CELL", 1000)
    with pytest.raises(DataError, match=r"in\.csv is not readable as CSV: field larger"):
        run_node(READER, reader())
    monkeypatch.undo()
    with pytest.raises(ConfigurationError, match="can't be read: Is a directory"):
        run_node(READER, reader("."))


def test_header_delimiter_decimals_and_limits(run_node, tmp_path):
    (tmp_path / "in.csv").write_text("title\n1;2,5\n2;3,5\n3;4,5\n")
    settings = reader(
        has_column_header=False,
        column_delimiter=";",
        advanced={"decimal_separator": ","},
        limits={
            "skip_lines": True,
            "number_of_lines_to_skip": ("xlong", 1),
            "skip_data_rows": True,
            "number_of_rows_to_skip": ("xlong", 1),
            "limit_data_rows": True,
            "max_rows": ("xlong", 1),
        },
    )
    found = run_node(READER, settings)
    assert found.to_dict(as_series=False) == {"Column0": [2], "Column1": [3.5]}


def test_short_and_long_rows_and_missing_files_fail(run_node, tmp_path):
    for row, cells in (("1", 1), ("1,2,3", 3)):
        (tmp_path / "in.csv").write_text(f"a,b\n1,2\n{row}\n")
        with pytest.raises(DataError, match=f"data row 2 .* has {cells} cells and not 2"):
            run_node(READER, reader())
    with pytest.raises(ConfigurationError, match=r"no file .*gone\.csv"):
        run_node(READER, reader("gone.csv"))


def test_a_line_of_a_quoted_cell_is_no_comment(run_node, tmp_path):
    (tmp_path / "in.csv").write_text('a,b\n"x\n#y",1\n#z,2\n')
    assert run_node(READER, reader()).rows() == [("x\n#y", 1)]


def test_names_that_come_twice_are_told_apart(run_node, tmp_path):
    (tmp_path / "in.csv").write_bytes(b"\xef\xbb\xbfa,a,\n1,2,3\n")
    assert run_node(READER, reader()).columns == ["a", "a (#1)", "Column2"]


def test_reader_says_what_it_lacks(lacks):
    settings = reader(has_row_id=True, advanced={"thousands_separator": "."})
    settings["settings"]["file_selection"] = chooser("x", kind="CONNECTED", where="amazon-s3")
    found = lacks(READER, settings)
    assert len(found) == 3
    assert any("'CONNECTED'" in line for line in found)
    assert any("has_row_id" in line for line in found)
    assert any("thousands_separator" in line for line in found)
    remote = reader()
    remote["settings"]["file_selection"] = chooser("https://host/x.csv", kind="CUSTOM_URL")
    assert lacks(READER, remote) == [
        "the address 'https' in 'settings/file_selection/path' is not supported"
    ]


def writer(path="out.csv", advanced=None, exists="overwrite", **extra):
    return {
        "settings": {
            "file_chooser_settings": chooser(
                path, create_missing_folders=False, if_path_exists=exists
            ),
            "column_delimiter": ",",
            "row_delimiter": None,
            "quote_char": ("xchar", '"'),
            "quote_escape_char": ("xchar", '"'),
            "write_column_header": True,
            "write_row_header": False,
        }
        | extra,
        "advanced_settings": {
            "missing_value_pattern": "",
            "compress_with_gzip": False,
            "quote_mode": "STRINGS_ONLY",
            "decimal_separator": ("xchar", "."),
            "keep_trailing_zero_in_decimals": False,
        }
        | (advanced or {}),
        "comment_header_settings": {"add_time_to_comment": False},
        "encoding": {"character_set": "UTF-8"},
    }


FRAME = pl.DataFrame(
    {"s": ['a "b"', None, ""], "x": [1.0, 0.1, None], "n": [1, None, 3], "t": [True, None, False]}
)


def test_strings_are_quoted_and_trailing_zeros_cut(run_node, tmp_path):
    assert run_node(WRITER, writer(), FRAME) is None
    assert (tmp_path / "out.csv").read_text() == (
        '"s","x","n","t"\n"a ""b""",1,1,true\n,0.1,,\n"",,3,false\n'
    )
    assert not list(tmp_path.glob("*.part"))


def test_quotes_where_needed_and_zeros_kept(run_node, tmp_path):
    advanced = {
        "quote_mode": "IF_NEEDED",
        "keep_trailing_zero_in_decimals": True,
        "missing_value_pattern": "?",
    }
    run_node(WRITER, writer(advanced=advanced, column_delimiter=";"), FRAME)
    assert (tmp_path / "out.csv").read_text() == (
        's;x;n;t\n"a ""b""";1.0;1;true\n?;0.1;?;?\n;?;3;false\n'
    )


def test_an_existing_file_and_a_missing_folder(run_node, tmp_path):
    (tmp_path / "out.csv").write_text("old")
    with pytest.raises(ConfigurationError, match="exists, and the node is set to fail"):
        run_node(WRITER, writer(exists="fail"), FRAME)
    assert (tmp_path / "out.csv").read_text() == "old"
    with pytest.raises(ConfigurationError, match=r"folder .*deep does not exist"):
        run_node(WRITER, writer("deep/out.csv"), FRAME)


def test_writer_says_what_it_lacks(lacks):
    settings = writer(exists="append", write_row_header=True, advanced={"compress_with_gzip": True})
    settings["comment_header_settings"]["add_user_to_comment"] = True
    assert len(lacks(WRITER, settings)) == 4


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1),
            st.floats(allow_nan=False, allow_infinity=False),
        ),
        max_size=10,
    )
)
def test_what_is_written_reads_back_exactly(rows):
    frame = pl.DataFrame(rows, schema={"s": pl.String, "x": pl.Float64}, orient="row")
    config = _rooted(model(writer()))
    parts = config.config("settings"), config.config("advanced_settings")
    text = csvwriter.to_csv(frame, *parts)
    back = list(csv.reader(io.StringIO(text, newline="")))[1:]
    assert [(cell, float(number)) for cell, number in back] == rows


def test_table_creator(run_node, lacks):
    column = lambda name, cell: {"ColumnName": name, "ColumnClass": {"cell_class": CELLS + cell}}  # noqa: E731
    settings = {
        "rowIndices": [0, 0, 2, 2],
        "columnIndices": [0, 1, 0, 1],
        "values": ["x", "1", "", "3"],
        "rowIdPrefix": "Row",
        "rowIdSuffix": "",
        "rowIdStartValue": 0,
        "highlightOutputTable": False,
        "columnProperties": {
            "0": column("s", "StringCell") | {"MissValuePattern": ""},
            "1": column("n", "IntCell"),
        },
    }
    found = run_node(CREATOR, settings)
    assert found.rows() == [("x", 1), (None, None), (None, 3)]
    assert found.dtypes == [pl.String, pl.Int32]
    settings["columnProperties"]["1"] = column("n", "DateCell")
    assert lacks(CREATOR, settings) == [f"column 'n' of type '{CELLS}DateCell' is not supported"]


def created(name, cell, *values):
    """A column as the latest Table Creator saves it."""
    kind = {"cell_class": CELLS + cell, "is_null": False}
    return {"name": name, "type": kind, "values": [*values]}


def latest_creator(rows, *columns):
    return {
        "numRows": ("xlong", rows),
        "columns": {str(at): column for at, column in enumerate(columns)},
    }


def test_the_latest_table_creator_fills_short_columns_up(run_node):
    found = run_node(
        LATEST_CREATOR,
        latest_creator(
            4,
            created("s", "StringCell", "alpha", "", None),
            created("i", "IntCell", "1", "-2", "3", "4", "5"),
            created("l", "LongCell", "5000000000"),
            created("d", "DoubleCell", "1.5", None, "1e3"),
            created("b", "BooleanCell", "TRUE", "no"),
        ),
    )
    assert found.dtypes == [pl.String, pl.Int32, pl.Int64, pl.Float64, pl.Boolean]
    assert found.rows() == [
        ("alpha", 1, 5_000_000_000, 1.5, True),
        ("", -2, None, None, False),
        (None, 3, None, 1000.0, None),
        (None, 4, None, None, None),
    ]


def test_the_latest_table_creator_says_what_it_lacks(lacks):
    settings = latest_creator(
        1,
        created("a", "StringCell"),
        created("a", "date.DateCell"),
        created(" ", "StringCell"),
        created("n", "IntCell", "1", "x"),
    )
    settings["more"] = settings["columns"]["0"]["domain"] = 1
    assert lacks(LATEST_CREATOR, settings) == [
        "setting 'columns/0/domain' is not known",
        "setting 'more' is not known",
        "column name 'a' is empty or not the only one",
        f"column 'a' of type '{CELLS}date.DateCell' is not supported",
        "column name ' ' is empty or not the only one",
        "column 'n' holds text that is no Int32",
    ]
    assert lacks(LATEST_CREATOR, {"columns": {}}) == ["setting 'numRows' is missing"]
    assert lacks(LATEST_CREATOR, latest_creator(1)) == ["there is no column"]


def _packed(folder, kind, *specs):
    """A workflow with `data/in.csv`, as an archive or as a folder."""
    archive = folder / "flow (1).knwf"
    archive.write_bytes(writing.archive("flow", specs, {}))
    with zipfile.ZipFile(archive, "a") as files:
        files.writestr("flow/data/in.csv", "a\n1\n")
    if kind == "archive":
        return workflow.load(archive)
    with zipfile.ZipFile(archive) as files:
        files.extractall(folder)
    return workflow.load(folder / "flow")


@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_relative_paths_start_in_the_workflow_packed_or_not(tmp_path, kind):
    (tmp_path / "in.csv").write_text("a\n2\n")
    inside, outside = reader("data/in.csv"), reader("../in.csv")
    data = reader("in.csv")
    data["settings"]["file_selection"] = chooser("in.csv", where="knime.workflow.data")
    loaded = _packed(
        tmp_path, kind, *(spec("CSV Reader", READER, model(one)) for one in (inside, outside, data))
    )
    outputs = engine.run(loaded).outputs
    assert {node: table.item() for node, table in outputs.items()} == {"1": 1, "2": 2, "3": 1}


def test_an_archive_is_not_written_and_new_files_go_where_it_would_be_unpacked(tmp_path):
    def saving(path):
        nodes = [
            spec("CSV Reader", READER, model(reader("data/in.csv"))),
            spec("CSV Writer", WRITER, model(path), after=((1, 1),), outputs=0),
        ]
        return _packed(tmp_path, "archive", *nodes)

    with pytest.raises(ConfigurationError, match=r"data/in\.csv lies in the workflow's archive"):
        engine.run(saving(writer("data/in.csv")))
    engine.run(saving(writer("../out.csv")))
    assert (tmp_path / "out.csv").read_text() == '"a"\n1\n'
