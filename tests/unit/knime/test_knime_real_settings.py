"""Settings with the very keys that KNIME writes pass the planner.

They were read in public workflows of KNIME 4.3 to 5.8, or in the snapshots of KNIME's own tests.

The names of files and columns are ours; which keys there are, and what they hold, is the format.
"""

from __future__ import annotations

import pytest

PREPROC = "org.knime.base.node.preproc."
CSV = "org.knime.base.node.io.filehandling.csv."
CELLS = "org.knime.core.data.def."
HANDLERS = f"{PREPROC}pmml.missingval.handlers."


def enabled(kind):
    return {"SettingsModelID": kind, "EnabledStatus": True}


def location(path, kind="RELATIVE"):
    return {"location_present": True, "file_system_type": kind, "path": path} | (
        {"file_system_specifier": "knime.workflow"} if kind == "RELATIVE" else {}
    )


CHOOSER = {
    "file_system_chooser__Internals": {
        "has_fs_port": False,
        "overwritten_by_variable": False,
        "convenience_fs_category": "RELATIVE",
        "relative_to": "knime.workflow",
        "mountpoint": "LOCAL",
        "custom_url_timeout": 10000,
        "connected_fs": True,
    },
    "filter_mode_Internals": enabled("SMID_FilterMode"),
}
FILTER_OPTIONS = {
    "filter_files_extension": False,
    "files_extension_expression": "",
    "files_extension_case_sensitive": False,
    "filter_files_name": False,
    "files_name_expression": "*",
    "files_name_case_sensitive": False,
    "files_name_filter_type": "WILDCARD",
    "include_hidden_files": False,
    "include_special_files": True,
    "filter_folders_name": False,
    "folders_name_expression": "*",
    "folders_name_case_sensitive": False,
    "folders_name_filter_type": "WILDCARD",
    "include_hidden_folders": False,
    "follow_links": True,
}


def csv_column(name, java, cell, kind, at):
    external = {"name": name, "has_type": True, "type": {"class": f"java.lang.{java}"}}
    create = "createCell" if cell == "String" else "create"
    return external, {
        "external_spec": external,
        "name": name,
        "keep": True,
        "position": at,
        "production_path": {
            "_converter": f"{CELLS}{cell}Cell${cell}CellFactory.{create}(class java.lang.{java})",
            "_converter_src": f"java.lang.{java}",
            "_converter_dst": kind,
            "_converter_name": java,
            "_converter_config": {},
            "_producer": f"class java.lang.{java}->java.lang.{java}",
            "_producer_src": f"java.lang.{java}",
            "_producer_dst": f"java.lang.{java}",
            "_producer_name": f"java.lang.{java}",
            "_producer_config": {},
        },
    }


def csv_reader(path, kind="RELATIVE", *, saved=True):
    columns = [
        csv_column("id", "Integer", "Int", "Number (Integer)", 0),
        csv_column("day", "String", "String", "String", 1),
    ]
    format_ = {
        "has_column_header": True,
        "has_row_id": False,
        "comment_char": "#",
        "column_delimiter": ",",
        "quote_char": '"',
        "quote_escape_char": '"',
        "use_line_break_row_delimiter": True,
        "row_delimiter": "\r\n",
    }
    scan = {"limit_data_rows_scanned": True, "max_data_rows_scanned": ("xlong", 10000)}
    numbers = {"thousands_separator": "\0", "decimal_separator": "."}
    quotes = {"quote_option": "REMOVE_QUOTES_AND_TRIM", "replace_empty_quotes_with_missing": True}
    skips = {
        "skip_lines": False,
        "number_of_lines_to_skip": ("xlong", 1),
        "skip_data_rows": False,
        "number_of_rows_to_skip": ("xlong", 1),
    }
    spec = {
        "version": "V4_4",
        "individual_specs": {
            path: {"num_columns": 2} | {str(at): one[0] for at, one in enumerate(columns)}
        },
        "table_transformation": {
            "columns": {str(at): one[1] for at, one in enumerate(columns)}
            | {"num_columns": 2, "intersection_indices": [0, 1]},
            "skip_empty_columns": False,
            "enforce_types": True,
            "column_filter_mode": "UNION",
            "unknown_columns_transformation": {"position": 2, "keep": True, "force_type": False},
        },
        "source_group_id": path,
        "config_id": {
            "multi_table_read": {
                "settings": format_,
                "advanced_settings": quotes | scan | numbers,
                "encoding": {"charset": "UTF-8"},
                "limit_rows": skips,
            }
        },
    }
    return {
        "settings": {
            "file_selection_Internals": enabled("SMID_ReaderFileChooser"),
            "file_selection": CHOOSER
            | {
                "path": location(path, kind),
                "filter_mode": {
                    "filter_mode": "FILE",
                    "include_subfolders": False,
                    "filter_options": FILTER_OPTIONS,
                },
            },
            "support_short_data_rows": False,
            "skip_empty_data_rows": False,
            "prepend_file_idx_to_row_id": False,
            "autodetect_buffer_size": 1048576,
        }
        | format_,
        "advanced_settings": {
            "spec_merge_mode_Internals": "UNION",
            "fail_on_differing_specs": True,
            "append_path_column_Internals": False,
            "path_column_name_Internals": "File Path",
            "save_table_spec_config_Internals": True,
            "check_table_spec": True,
            "limit_memory_per_column": True,
            "maximum_number_of_columns": 8192,
            "no_row_delimiters_in_quotes": False,
            "min_chunk_size_in_bytes": ("xlong", 67108864),
            "max_num_chunks_per_file": 6,
        }
        | quotes
        | scan
        | numbers,
        "limit_rows": skips | {"limit_data_rows": False, "max_rows": ("xlong", 50)},
        "encoding": {"charset": "UTF-8"},
    } | ({"table_spec_config_Internals": spec} if saved else {})


CSV_WRITER = {
    "settings": {
        "file_chooser_settings_Internals": enabled("SMID_WriterFileChooser"),
        "file_chooser_settings": CHOOSER
        | {
            "path": location("../out.csv"),
            "create_missing_folders": False,
            "if_path_exists": "overwrite",
        },
        "column_delimiter": ",",
        "row_delimiter": None,
        "quote_char": ("xchar", '"'),
        "quote_escape_char": ("xchar", '"'),
        "write_column_header": True,
        "skip_column_header_on_append": False,
        "write_row_header": False,
    },
    "advanced_settings": {
        "missing_value_pattern": "",
        "compress_with_gzip": False,
        "quote_mode": "STRINGS_ONLY",
        "separator_replacement": "",
        "decimal_separator": ("xchar", "."),
        "use_scientific_format": False,
        "keep_trailing_zero_in_decimals": False,
    },
    "comment_header_settings": {
        "comment_line_marker": "#",
        "comment_indentation": "\t",
        "add_time_to_comment": False,
        "add_user_to_comment": False,
        "add_table_name_to_comment": False,
        "add_custom_text_to_comment": False,
        "custom_comment_text": "",
    },
    "encoding": {"character_set": "UTF-8"},
}


def creator_column(name, cell):
    return {
        "UserSetValues": True,
        "MissValuePattern": "",
        "FormatParameter": None,
        "ReadPossValsFromFile": False,
        "SkipThisColumn": False,
        "ColumnName": name,
        "ColumnClass": {"cell_class": f"{CELLS}{cell}", "is_null": False},
    }


TABLE_CREATOR = {
    "rowIndices": [0, 0],
    "columnIndices": [0, 1],
    "values": ["Alice", "90"],
    "rowIdPrefix": "Row",
    "rowIdSuffix": "",
    "rowIdStartValue": 0,
    "highlightOutputTable": False,
    "columnProperties": {
        "0": creator_column("student", "StringCell"),
        "1": creator_column("result", "IntCell"),
    },
}
COLUMNS = {
    "filter-type": "STANDARD",
    "included_names": ["a", "b"],
    "excluded_names": ["c"],
    "enforce_option": "EnforceExclusion",
    "name_pattern": {
        "pattern": "",
        "type": "Wildcard",
        "caseSensitive": True,
        "excludeMatching": False,
    },
    "datatype": {"typelist": {}},
}
DUPLICATES = {
    "group_cols": COLUMNS,
    "remove_duplicates": True,
    "add_row_duplicate_flag": True,
    "unique_flag_column_name": "Duplicate Status",
    "add_row_id_flag": False,
    "row_id_flag_column_name": "Duplicate Chosen",
    "doNotAllowEmptyBlankOrPaddedColumnName_Internals": True,
    "row_selection": "FIRST",
    "reference_col": None,
    "in_memory": False,
    "retain_order": True,
    "update_domains": False,
}


def row_filter(column, operator, value=None):
    values = {"values": {} if value is None else {"0": value}, "inputKind": "SINGLE"}
    return {
        "matchCriteria": "AND",
        "predicates": {"0": column | {"operator": operator, "predicateValues": values}},
        "domains": "RETAIN",
        "outputMode": "MATCHING",
    }


TYPES = ["org.knime.core.data.StringValue", "org.knime.core.data.DataValue"]
ROW_FILTER_5_4 = row_filter(
    {"column": {"selected": "a", "compatibleTypes_Internals": TYPES}}, "IS_NOT_MISSING"
)
ROW_FILTER_5_8 = row_filter(
    {"columnV2": {"regularChoice": "a", "specialChoice_Internals": None}},
    "GT",
    {"typeIdentifier": {"cell_class": f"{CELLS}DoubleCell", "is_null": False}, "value": 1.0},
)
ROW_FILTER_TEXT = row_filter(
    {"columnV2": {"regularChoice": "a", "specialChoice_Internals": None}},
    "EQ",
    {
        "typeIdentifier": {"cell_class": f"{CELLS}StringCell", "is_null": False},
        "value": "x",
        "stringCaseMatching": {"caseMatching": "CASESENSITIVE"},
    },
)
OLD_ROW_NUMBERS = {
    "RowFilter_TypeID": "RowNumber_RowFilter",
    "RowRangeStart": 0,
    "RowRangeEnd": 0,
    "RowRangeInclude": False,
}
OLD_MISSING = {
    "RowFilter_TypeID": "MissingVal_RowFilter",
    "ColumnName": "a",
    "include": False,
    "deepFiltering": False,
}


def handler(name, **settings):
    return {"factoryID": f"{HANDLERS}{name}MissingCellHandlerFactory", "settings": settings}


FIXED = handler(
    "FixedStringValue", fixStringValue_Internals=enabled("SMID_string"), fixStringValue="Missing"
)
MISSING_VALUE = {
    "columnSettings": {"0": {"colNames": ["age"], "settings": handler("DoubleMean")}},
    "dataTypeSettings": {
        f"{CELLS}IntCell": handler("DoNothing"),
        f"{CELLS}StringCell": FIXED,
        "org.knime.core.data.time.localdate.LocalDateCell": handler("DoNothing"),
    },
}
SORTER = {
    "sortingCriteria": {
        "0": {
            "columnV2": {"regularChoice": "a", "specialChoice_Internals": None},
            "sortingOrder": "ASCENDING",
            "stringComparison": "NATURAL",
        }
    },
    "missingToEnd": False,
    "sortinmemory": False,
}
OLD_SORTER = {
    "incllist": ["a"],
    "sortOrder": [True],
    "alphaNumStringComp": [False],
    "sortinmemory": False,
    "missingToEnd": False,
}
OLD_SELECTION = COLUMNS | {"included_names": [], "excluded_names": []}
SELECTION = {
    "mode": "MANUAL",
    "patternFilter": {"pattern": "", "isCaseSensitive": False, "isInverted": False},
    "manualFilter": {
        "manuallySelected": [],
        "manuallyDeselected": [],
        "includeUnknownColumns": True,
    },
    "typeFilter": {"selectedTypes": []},
}


def joiner(criteria, **columns):
    return {
        "compositionMode": "MATCH_ALL",
        "matchingCriteria": {"0": criteria},
        "dataCellComparisonMode": "STRICT",
        "includeMatchesInOutput": True,
        "includeLeftUnmatchedInOutput": False,
        "includeRightUnmatchedInOutput": False,
        "mergeJoinColumns": False,
        "duplicateHandling": "APPEND_SUFFIX",
        "suffix": " (Right)",
        "outputUnmatchedRowsToSeparatePorts": False,
        "rowKeyFactory": "CONCATENATE",
        "rowKeySeparator": "_",
        "outputRowOrder": "ARBITRARY",
        "maxOpenFiles": 200,
        "enableHiliting": False,
    } | columns


CHOICE = {"regularChoice": "a", "specialChoice_Internals": None}
JOINERS = {
    "snapshot": joiner(
        {"leftTableColumn": "a", "rightTableColumn": "a"},
        leftColumnSelectionConfig=OLD_SELECTION,
        rightColumnSelectionConfig=OLD_SELECTION,
    ),
    "5.8": joiner(
        {"leftTableColumnV2": CHOICE, "rightTableColumnV2": CHOICE},
        leftColumnSelectionConfigV2=SELECTION,
        rightColumnSelectionConfigV2=SELECTION,
    ),
}
GROUP_BY = {
    "grouByColumns": {"keep_all_columns_selected": False, "InclList": ["a"], "ExclList": ["b"]},
    "aggregationColumn": {
        "columnNames": ["b"],
        "columnTypes": {
            "array-size": 1,
            "0": {"cell_class": f"{CELLS}DoubleCell", "is_null": False},
        },
        "aggregationMethod": ["Mean_V4.6"],
        "inclMissingVals": [False],
    },
    "aggregationOperatorSettings": {},
    "patternAggregators": {},
    "dataTypeAggregators": {},
    "typeMatch": ("xbyte", 0),
    "columnNamePolicy": "Aggregation method (column name)",
    "maxNoneNumericalVals": 10000,
    "valueDelimiter": ", ",
    "nodeVersion": 1,
    "enableHilite": False,
    "inMemory": False,
    "retainOrder": False,
}
RENAMER = {
    "renamings": {"0": {"oldName": "a", "newName": "b"}, "1": {"oldName": "b", "newName": "a"}},
    "doNotAllowPaddedColumnName_Internals": True,
}


@pytest.mark.parametrize(
    ("factory", "settings"),
    [
        pytest.param(f"{CSV}reader.CSVTableReaderNodeFactory", settings, id=f"CSV Reader {name}")
        for name, settings in {
            "5.8": csv_reader("../in.csv"),
            "5.1, a file of Windows": csv_reader("C:\\Users\\x\\in.csv", "LOCAL"),
            "5.4, no saved specification": csv_reader("in.csv", "LOCAL", saved=False),
        }.items()
    ]
    + [
        pytest.param(f"{CSV}writer.CSVWriter2NodeFactory", CSV_WRITER, id="CSV Writer 5.8"),
        pytest.param(
            "org.knime.base.node.io.tablecreator.TableCreator2NodeFactory",
            TABLE_CREATOR,
            id="Table Creator 5.8",
        ),
        pytest.param(
            f"{PREPROC}filter.column.DataColumnSpecFilterNodeFactory",
            {"column-filter": COLUMNS},
            id="Column Filter 5.4",
        ),
        pytest.param(
            f"{PREPROC}column.renamer.ColumnRenamerNodeFactory", RENAMER, id="Column Renamer 5.3"
        ),
        pytest.param(
            f"{PREPROC}duplicates.DuplicateRowFilterNodeFactory",
            DUPLICATES,
            id="Duplicate Row Filter 5.8",
        ),
        pytest.param(
            f"{PREPROC}pmml.missingval.compute.MissingValueHandlerNodeFactory",
            MISSING_VALUE,
            id="Missing Value 5.5",
        ),
        pytest.param(f"{PREPROC}groupby.GroupByNodeFactory", GROUP_BY, id="GroupBy, snapshot"),
    ]
    + [
        pytest.param(f"{PREPROC}joiner3.Joiner3NodeFactory", settings, id=f"Joiner {name}")
        for name, settings in JOINERS.items()
    ]
    + [
        pytest.param(
            f"{PREPROC}filter.row3.RowFilterNodeFactory", settings, id=f"Row Filter {name}"
        )
        for name, settings in {
            "5.4": ROW_FILTER_5_4,
            "5.8": ROW_FILTER_5_8,
            "5.8, text": ROW_FILTER_TEXT,
        }.items()
    ]
    + [
        pytest.param(
            f"{PREPROC}filter.row.RowFilterNodeFactory",
            {"rowFilter": rule},
            id=f"Row Filter (old) {rule['RowFilter_TypeID']}",
        )
        for rule in (OLD_ROW_NUMBERS, OLD_MISSING)
    ]
    + [
        pytest.param(f"{PREPROC}sorter.SorterNodeFactory", settings, id=f"Sorter {name}")
        for name, settings in {"5.8": SORTER, "4.7": OLD_SORTER}.items()
    ],
)
def test_nothing_is_lacking(lacks, factory, settings):
    assert lacks(factory, settings) == []
