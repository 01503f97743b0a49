"""The CSV Reader with settings as the latest KNIME versions save them.

The keys, their types and their defaults are those of the snapshots in KNIME's own tests.
"""

from __future__ import annotations

from copy import deepcopy

import polars as pl
import pytest
from knime_support import model, spec

from bentley.domain.errors import DataError
from bentley.knime import engine

READER = "org.knime.base.node.io.filehandling.csv.reader.CSVTableReaderNodeFactory"
CELLS = "org.knime.core.data.def."
GROUP = "csvReaderParameters"
TAB = "transformationParameters"
DEFAULT = "<default-columntype>"
IMAGE = '{"cell_class":"org.knime.core.data.image.png.PNGImageBlobCell"}'


def location(path, kind="RELATIVE", where="knime.workflow"):
    return {
        "location_present": True,
        "file_system_type": kind,
        "file_system_specifier": where,
        "path": path,
    }


def production(java, cell):
    """How text, a whole number or a double becomes a cell, as KNIME writes that down."""
    create = "createCell" if cell == "String" else "create"
    return {
        "_producer": f"class java.lang.{java}->java.lang.{java}",
        "_converter_name": java,
        "_converter_config": {},
        "_converter_src": f"java.lang.{java}",
        "_converter_dst": f"a {cell}",
        "_producer_src": f"java.lang.{java}",
        "_producer_name": f"java.lang.{java}",
        "_producer_dst": f"java.lang.{java}",
        "_converter": f"{CELLS}{cell}Cell${cell}CellFactory.{create}(class java.lang.{java})",
        "_producer_config": {},
    }


def column(name, cell="String", *, java=None, rename=None, keep=True):
    java = java or {"Int": "Integer"}.get(cell, cell)
    return {
        "columnName": name,
        "originalProductionPath": production(java, cell),
        "originalTypeLabel": f"a {cell}",
        "includeInOutput": keep,
        "columnRename": rename or name,
        "productionPath": production(java, cell),
    }


def unknown(*, keep=True, kind=DEFAULT):
    return {
        "columnName": None,
        "originalTypeLabel": "Default columntype",
        "includeInOutput": keep,
        "columnRename": None,
        "unknownsColumnDataType": kind,
    }


def numbered(entries):
    return {str(at): entry for at, entry in enumerate(entries)}


def saved_spec(names, path="in.csv"):
    return {
        "sourceIdentifier": path,
        "spec": numbered(
            {"name": name, "type": "java.lang.String", "hasType": True} for name in names
        ),
        "fsLocation": location(path),
    }


def settings(*entries, names=None, path="in.csv", **changes):
    """The defaults with `changes`, each `group__key=value`, and with transformations."""
    group = {
        "multiFileSelectionParams": {
            "source": {
                "filterMode": "FILE",
                "path": location(path),
                "includeSubfolders": False,
                "filters": {"filterFilesExtension": False, "filesExtensionExpression": ""},
            }
        },
        "skipFirstDataRowsParams": {"skipFirstDataRows": ("xlong", 0)},
        "maxNumberOfRowsParams": {
            "maximumNumberOfRows": ("xlong", 0),
            "maximumNumberOfRows_is_present": False,
        },
        "ifSchemaChangesParams": {"ignoreSchemaChange": False, "ifSchemaChangesOption": "FAIL"},
        "multiFileReaderParams": {
            "appendPathColumn": None,
            "appendPathColumn_is_present": False,
            "howToCombineColumns": "FAIL",
        },
        "fileEncodingParams": {"fileEncoding": "UTF_8", "customEncoding": ""},
        "skipFirstLinesParams": {"skipFirstLines": ("xlong", 0)},
        "csvFormatParams": {
            "commentLineCharacter": "#",
            "rowDelimiterOption": "LINE_BREAK",
            "customRowDelimiter": "\\n",
            "columnDelimiter": ",",
            "quotedStringsContainNoRowDelimiters": False,
            "quoteCharacter": '"',
            "quoteEscapeCharacter": '"',
            "decimalSeparator": ".",
            "thousandsSeparator": "",
        },
        "autoDetectParams": {"numberOfCharactersForAutodetection": 1048576},
        "firstRowContainsColumnNamesParams": {"firstRowContainsColumnNames": True},
        "firstColumnContainsRowIdsParams": {"firstColumnContainsRowIds": False},
        "ifRowHasFewerColumnsParams": {"ifRowHasLessColumnsOption": "FAIL"},
        "quotedStringsParams": {
            "replaceEmptyQuotedStringsByMissingValues": True,
            "quotedStringsOption": "REMOVE_QUOTES_AND_TRIM",
        },
        "limitScannedRowsParams": {
            "maxDataRowsScanned": ("xlong", 10000),
            "maxDataRowsScanned_is_present": True,
        },
        "maxColumnsParams": {"maximumNumberOfColumns": 8192},
        "limitMemoryParams": {"limitMemoryPerColumn": True},
        "prependFileIndexParams": {"prependFileIndexToRowId": False},
    }
    for change, value in changes.items():
        config, key = change.split("__")
        assert key in group[config], change
        group[config][key] = value
    if names is None:
        names = [entry["columnName"] for entry in entries if entry["columnName"]]
    specs = {"0": saved_spec(names, path)} if entries else {"is_null": True}
    return {
        GROUP: group,
        "configId_Internals": {"multi_table_read": {"settings": {"has_column_header": True}}},
        "sourceId_Internals": path,
        TAB: {
            "specs": specs,
            "enforceTypes": True,
            "columnTransformation": numbered(entries or [unknown()]),
        },
    }


def test_a_file_without_a_saved_specification_is_typed_from_its_cells(run_node, tmp_path):
    (tmp_path / "in.csv").write_text('i,s,d\n# no row\n1,"a, ""b""",0.5\n,,\n')
    found = run_node(READER, settings())
    assert found.dtypes == [pl.Int32, pl.String, pl.Float64]
    assert found.rows() == [(1, 'a, "b"', 0.5), (None, None, None)]


def test_order_names_types_and_columns_kept_come_from_the_transformations(run_node, tmp_path):
    (tmp_path / "in.csv").write_text("a,b,c,d\n1,2,03,4\n")
    table = settings(
        column("c"),
        column("d", "Double"),
        unknown(),
        column("b", "LocalDate", keep=False),
        column("a", "Long", java="Integer", rename="alpha"),
    )
    found = run_node(READER, table)
    assert found.to_dict(as_series=False) == {"c": ["03"], "d": [4.0], "alpha": [1]}
    assert found.dtypes == [pl.String, pl.Float64, pl.Int64]


def test_a_new_column_goes_where_the_entry_for_unknown_columns_stands(run_node, tmp_path):
    (tmp_path / "in.csv").write_text("a,b,new\n1,2,3\n")
    table = settings(
        column("b"), unknown(), column("a"), ifSchemaChangesParams__ignoreSchemaChange=True
    )
    assert run_node(READER, table).columns == ["b", "new", "a"]
    table[TAB]["columnTransformation"]["1"]["includeInOutput"] = False
    assert run_node(READER, table).columns == ["b", "a"]


def test_other_columns_than_the_saved_ones_fail_only_for_the_file_they_were_saved_for(
    run_node, tmp_path
):
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")
    table = settings(column("a"), unknown())
    with pytest.raises(DataError, match="has the columns a, b, but a were saved"):
        run_node(READER, table)
    table["sourceId_Internals"] = "another.csv"
    assert run_node(READER, table).rows() == [("1", 2)]
    del table["sourceId_Internals"]
    with pytest.raises(DataError, match="has the columns a, b, but a were saved"):
        run_node(READER, table)


def test_a_new_schema_leaves_the_transformations_aside(run_node, tmp_path):
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")
    table = settings(
        column("a", rename="x"),
        column("gone"),
        ifSchemaChangesParams__ifSchemaChangesOption="USE_NEW_SCHEMA",
    )
    found = run_node(READER, table)
    assert found.to_dict(as_series=False) == {"a": [1], "b": [2]}


def test_entries_that_the_saved_specification_lacks_are_passed_over(run_node, tmp_path):
    (tmp_path / "in.csv").write_text("a\n1\n")
    table = settings(column("gone"), column("a"), unknown(), names=["a"])
    assert run_node(READER, table).rows() == [("1",)]


def test_format_encoding_and_limits(run_node, tmp_path):
    (tmp_path / "in.csv").write_bytes(
        "title\n'ä\tö'\t1,5\n%x\n'b'\t2,5\n'c'\t3,5\n".encode("iso-8859-1")
    )
    table = settings(
        csvFormatParams__columnDelimiter="\\t",
        csvFormatParams__quoteCharacter="'",
        csvFormatParams__quoteEscapeCharacter="'",
        csvFormatParams__commentLineCharacter="%",
        csvFormatParams__decimalSeparator=",",
        csvFormatParams__thousandsSeparator="\0",
        fileEncodingParams__fileEncoding="ISO_8859_1",
        firstRowContainsColumnNamesParams__firstRowContainsColumnNames=False,
        skipFirstLinesParams__skipFirstLines=("xlong", 1),
        maxNumberOfRowsParams__maximumNumberOfRows=("xlong", 2),
        maxNumberOfRowsParams__maximumNumberOfRows_is_present=True,
    )
    assert run_node(READER, table).rows() == [("ä\tö", 1.5), ("b", 2.5)]
    table[GROUP]["skipFirstDataRowsParams"]["skipFirstDataRows"] = ("xlong", 2)
    assert run_node(READER, table).rows() == [("c", 3.5)]


@pytest.mark.parametrize(
    ("encoding", "custom", "codec"),
    [
        ("DEFAULT", "", "utf-8"),
        ("US_ASCII", "", "ascii"),
        ("UTF_8", "ignored", "utf-8-sig"),
        ("UTF_16", "", "utf-16"),
        ("UTF_16BE", "", "utf-16-be"),
        ("UTF_16LE", "", "utf-16-le"),
        ("OTHER", "windows-1252", "cp1252"),
    ],
)
def test_every_encoding_is_read(run_node, tmp_path, encoding, custom, codec):
    text = "a" if codec == "ascii" else "é"
    (tmp_path / "in.csv").write_bytes(f"h\n{text}\n".encode(codec))
    table = settings(
        fileEncodingParams__fileEncoding=encoding, fileEncodingParams__customEncoding=custom
    )
    assert run_node(READER, table).to_dict(as_series=False) == {"h": [text]}


REFUSED = {
    "multiFileReaderParams__appendPathColumn_is_present": True,
    "csvFormatParams__rowDelimiterOption": "CUSTOM",
    "firstColumnContainsRowIdsParams__firstColumnContainsRowIds": True,
    "ifRowHasFewerColumnsParams__ifRowHasLessColumnsOption": "INSERT_MISSING",
    "quotedStringsParams__replaceEmptyQuotedStringsByMissingValues": False,
    "quotedStringsParams__quotedStringsOption": "KEEP_QUOTES",
    "prependFileIndexParams__prependFileIndexToRowId": True,
    "fileEncodingParams__fileEncoding": "EBCDIC",
    "ifSchemaChangesParams__ifSchemaChangesOption": "ASK",
}


@pytest.mark.parametrize(("change", "value"), REFUSED.items())
def test_what_the_older_form_refuses_is_refused_by_its_new_name(lacks, change, value):
    path = f"{GROUP}/{change.replace('__', '/')}"
    assert lacks(READER, settings(**{change: value})) == [
        f"setting {path!r} = {value!r} is not supported"
    ]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("columnDelimiter", ";;", " = ';;' is not one byte"),
        ("quoteCharacter", "", " = '' is not one byte"),
        ("quoteEscapeCharacter", "\\", " must be the quote itself"),
        ("thousandsSeparator", "_", " is not supported"),
        ("decimalSeparator", "'", " is not supported"),
    ],
)
def test_formats_that_are_not_read_are_named(lacks, key, value, said):
    name = f"setting '{GROUP}/csvFormatParams/{key}'"
    expected = [f"{name}{said}"]
    if key == "quoteCharacter":  # and so the escape character is another
        escape = f"setting '{GROUP}/csvFormatParams/quoteEscapeCharacter'"
        expected.append(f"{escape} must be the quote itself")
    assert lacks(READER, settings(**{f"csvFormatParams__{key}": value})) == expected


def test_folders_and_other_places_are_refused(lacks):
    table = settings()
    source = table[GROUP]["multiFileSelectionParams"]["source"]
    source["filterMode"] = "FILES_IN_FOLDERS"
    source["path"] = location("x", "CONNECTED", "amazon-s3")
    at = f"{GROUP}/multiFileSelectionParams/source"
    assert lacks(READER, table) == [
        f"setting '{at}/filterMode' = 'FILES_IN_FOLDERS' is not supported",
        f"the file system 'CONNECTED' in '{at}/path' is not supported",
    ]


def test_transformations_that_are_not_made_are_refused(lacks):
    with_config = column("b")
    with_config["productionPath"]["_converter_config"] = {"format": "x"}
    table = settings(
        column("a", "LocalDate"),
        with_config,
        unknown(kind=IMAGE),
        names=["a", "b", "c"],
    )
    table[TAB]["specs"]["1"] = saved_spec(["a"], "more.csv")
    table[TAB]["enforceTypes"] = False
    table["sourceId_Internals"] = "another.csv"
    at = f"{TAB}/columnTransformation"
    assert lacks(READER, table) == [
        f"setting '{TAB}/specs' of several files is not supported",
        f"column 'c' is missing from '{at}'",
        f"setting '{at}/2/unknownsColumnDataType' = {IMAGE!r} is not supported",
        f"setting '{TAB}/enforceTypes' = False is not supported for another file",
        f"type 'a LocalDate' in '{at}/0/productionPath' is not supported",
        f"type 'a String' in '{at}/1/productionPath' is not supported",
    ]
    assert lacks(READER, settings(column("a"))) == [
        f"setting '{at}' must have one entry for unknown columns"
    ]


def test_unknown_settings_are_named_at_any_depth(lacks):
    table = settings(column("a"), unknown())
    table["more"] = 1
    table[GROUP]["moreParams"] = {"x": 1}
    table[GROUP]["csvFormatParams"]["x"] = 1
    table[GROUP]["multiFileSelectionParams"]["source"]["x"] = 1
    table[TAB]["x"] = 1
    table[TAB]["columnTransformation"]["0"]["x"] = 1
    table[TAB]["specs"]["0"]["x"] = 1
    assert sorted(lacks(READER, table)) == [
        f"setting '{GROUP}/csvFormatParams/x' is not known",
        f"setting '{GROUP}/moreParams' is not known",
        f"setting '{GROUP}/multiFileSelectionParams/source/x' is not known",
        "setting 'more' is not known",
        f"setting '{TAB}/columnTransformation/0/x' is not known",
        f"setting '{TAB}/specs/0/x' is not known",
        f"setting '{TAB}/x' is not known",
    ]


def test_a_missing_setting_and_a_mixture_of_both_forms_are_refused(lacks):
    table = settings()
    del table[GROUP]["csvFormatParams"]["quoteCharacter"]
    assert lacks(READER, table) == [f"setting '{GROUP}/csvFormatParams/quoteCharacter' is missing"]
    mixed = settings() | {"limit_rows": {"limit_data_rows": True, "max_rows": ("xlong", 1)}}
    assert lacks(READER, mixed) == [f"setting 'limit_rows' beside '{GROUP}' is not supported"]
    empty = settings(fileEncodingParams__fileEncoding="OTHER")
    assert lacks(READER, empty) == [f"setting '{GROUP}/fileEncodingParams/customEncoding' is empty"]


def test_a_flow_variable_names_the_file_and_limits_the_rows(save, tmp_path):
    (tmp_path / "one.csv").write_text("a\n1\n2\n")
    table = settings(path="")
    table[GROUP]["maxNumberOfRowsParams"]["maximumNumberOfRows_is_present"] = True
    overrides = {
        (GROUP, "multiFileSelectionParams", "source", "path"): "file",
        (GROUP, "maxNumberOfRowsParams", "maximumNumberOfRows"): "most",
    }
    loaded = save(
        [spec("CSV Reader", READER, model(deepcopy(table)), overrides=overrides)],
        {"file": str(tmp_path / "one.csv"), "most": 1},
    )
    assert engine.check(loaded) == []
    assert engine.run(loaded).outputs["1"].rows() == [(1,)]
