"""The CSV Reader's settings as the latest KNIME versions save them, put into the older form.

KNIME itself fills the same description of a read from either form; so the node reads one form,
and this module is all that knows the other. What it can't say in the older form is refused here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bentley.knime.nodes.base import unsupported
from bentley.knime.xmlconfig import Config, Value

GROUP = "csvReaderParameters"
_SOURCE = "multiFileSelectionParams/source"
_SCHEMA = "ifSchemaChangesParams"
_NEW_SCHEMA = "USE_NEW_SCHEMA"
_TAB = "transformationParameters"
_COLUMNS = "columnTransformation"
_UNKNOWN_TYPE = "unknownsColumnDataType"
_DEFAULT_TYPE = "<default-columntype>"
_SAVED_FOR = "sourceId_Internals"
_OLDER = (
    "settings",
    "advanced_settings",
    "limit_rows",
    "encoding",
    "table_spec_config_Internals",
)

KEYS = frozenset(
    {
        f"{GROUP}/{key}"
        for key in (
            f"{_SOURCE}/filterMode",
            f"{_SOURCE}/path",
            f"{_SOURCE}/includeSubfolders",
            f"{_SOURCE}/filters",
            "skipFirstDataRowsParams/skipFirstDataRows",
            "maxNumberOfRowsParams/maximumNumberOfRows",
            "maxNumberOfRowsParams/maximumNumberOfRows_is_present",
            f"{_SCHEMA}/ignoreSchemaChange",
            f"{_SCHEMA}/ifSchemaChangesOption",
            "multiFileReaderParams/appendPathColumn",
            "multiFileReaderParams/appendPathColumn_is_present",
            "multiFileReaderParams/howToCombineColumns",
            "fileEncodingParams/fileEncoding",
            "fileEncodingParams/customEncoding",
            "skipFirstLinesParams/skipFirstLines",
            "csvFormatParams/commentLineCharacter",
            "csvFormatParams/rowDelimiterOption",
            "csvFormatParams/customRowDelimiter",
            "csvFormatParams/columnDelimiter",
            "csvFormatParams/quotedStringsContainNoRowDelimiters",
            "csvFormatParams/quoteCharacter",
            "csvFormatParams/quoteEscapeCharacter",
            "csvFormatParams/decimalSeparator",
            "csvFormatParams/thousandsSeparator",
            "autoDetectParams/numberOfCharactersForAutodetection",
            "firstRowContainsColumnNamesParams/firstRowContainsColumnNames",
            "firstColumnContainsRowIdsParams/firstColumnContainsRowIds",
            "ifRowHasFewerColumnsParams/ifRowHasLessColumnsOption",
            "quotedStringsParams/replaceEmptyQuotedStringsByMissingValues",
            "quotedStringsParams/quotedStringsOption",
            "limitScannedRowsParams/maxDataRowsScanned",
            "limitScannedRowsParams/maxDataRowsScanned_is_present",
            "maxColumnsParams/maximumNumberOfColumns",
            "limitMemoryParams/limitMemoryPerColumn",
            "prependFileIndexParams/prependFileIndexToRowId",
        )
    }
    | {
        f"{_TAB}/{key}"
        for key in (
            "specs/is_null",
            "specs/*/sourceIdentifier",
            "specs/*/spec",
            "specs/*/fsLocation",
            "enforceTypes",
            f"{_COLUMNS}/*/columnName",
            f"{_COLUMNS}/*/originalProductionPath",
            f"{_COLUMNS}/*/originalTypeLabel",
            f"{_COLUMNS}/*/includeInOutput",
            f"{_COLUMNS}/*/columnRename",
            f"{_COLUMNS}/*/productionPath",
            f"{_COLUMNS}/*/{_UNKNOWN_TYPE}",
        )
    }
    | {_SAVED_FOR}
)
"""All settings of the latest form."""

_SUPPORTED: Mapping[str, tuple[Value, ...]] = {
    f"{_SOURCE}/filterMode": ("FILE",),
    f"{_SCHEMA}/ifSchemaChangesOption": ("FAIL", _NEW_SCHEMA),
    "multiFileReaderParams/appendPathColumn_is_present": (False,),
    "csvFormatParams/rowDelimiterOption": ("LINE_BREAK",),
    "firstColumnContainsRowIdsParams/firstColumnContainsRowIds": (False,),
    "ifRowHasFewerColumnsParams/ifRowHasLessColumnsOption": ("FAIL",),
    "quotedStringsParams/replaceEmptyQuotedStringsByMissingValues": (True,),
    "quotedStringsParams/quotedStringsOption": ("REMOVE_QUOTES_AND_TRIM",),
    "prependFileIndexParams/prependFileIndexToRowId": (False,),
}
"""Settings that must be there and have one of these values, which the older form then omits."""
_CHARSETS: Mapping[str, str] = {
    "DEFAULT": "",
    "ISO_8859_1": "ISO-8859-1",
    "US_ASCII": "US-ASCII",
    "UTF_8": "UTF-8",
    "UTF_16": "UTF-16",
    "UTF_16BE": "UTF-16BE",
    "UTF_16LE": "UTF-16LE",
}
_OTHER_CHARSET = "OTHER"
_ESCAPES = {r"\t": "\t", r"\n": "\n", r"\r": "\r", r"\r\n": "\r\n"}
_DELIMITER = "columnDelimiter"
_FORMAT = {
    "settings/comment_char": "commentLineCharacter",
    "settings/column_delimiter": _DELIMITER,
    "settings/quote_char": "quoteCharacter",
    "settings/quote_escape_char": "quoteEscapeCharacter",
    "advanced_settings/decimal_separator": "decimalSeparator",
    "advanced_settings/thousands_separator": "thousandsSeparator",
}
_NAMES = {older: f"{GROUP}/csvFormatParams/{key}" for older, key in _FORMAT.items()} | {
    f"{_TAB}/enforce_types": f"{_TAB}/enforceTypes",
    "/production_path": "/productionPath",
}


def named(line: str) -> str:
    """The line about the older form with the names that the latest form has."""
    for older_name, name in _NAMES.items():
        line = line.replace(f"{older_name}'", f"{name}'")
    return line


def lacks(model: Config) -> Iterable[str]:
    """What of the latest form has no counterpart in the older one, or none that can be read."""
    for key in _OLDER:
        if key in model:
            yield f"setting {key!r} beside {GROUP!r} is not supported"
    group = model.config(GROUP)
    for path, values in _SUPPORTED.items():
        config, key = _at(group, path)
        if config.require(key) not in values:
            yield unsupported(config, key)
    encoding = group.config("fileEncodingParams")
    if encoding.text("fileEncoding") not in {*_CHARSETS, _OTHER_CHARSET}:
        yield unsupported(encoding, "fileEncoding")
    elif encoding.text("fileEncoding") == _OTHER_CHARSET and not encoding.text("customEncoding"):
        yield f"setting '{encoding.path}/customEncoding' is empty"
    if _is_applied(model):
        yield from _transformation_lacks(model.config(_TAB))


def _transformation_lacks(tab: Config) -> Iterable[str]:
    specs, entries = _specs(tab), tab.config(_COLUMNS).configs()
    if len(specs) > 1:
        yield f"setting '{_TAB}/specs' of several files is not supported"
    named_columns = {entry.text("columnName") for entry in entries if not _is_unknown(entry)}
    for name in _saved_names(tab):
        if name not in named_columns:
            yield f"column {name!r} is missing from '{_TAB}/{_COLUMNS}'"
    unknown = [entry for entry in entries if _is_unknown(entry)]
    if len(unknown) != 1:
        yield f"setting '{_TAB}/{_COLUMNS}' must have one entry for unknown columns"
    for entry in unknown:
        if entry.value(_UNKNOWN_TYPE) != _DEFAULT_TYPE:
            yield unsupported(entry, _UNKNOWN_TYPE)


def older(model: Config) -> Config:
    """The same settings in the older form.

    Raises ConfigurationError naming a setting that is missing, as KNIME does for this form.
    """
    group = model.config(GROUP)
    result = Config("model")
    result.sub("settings").children["file_selection"] = _at(group, f"{_SOURCE}/path")[0].copy()
    for path, key in _FORMAT.items():
        value = _text(group, f"csvFormatParams/{key}")
        config, _, name = path.partition("/")
        result.sub(config).put(name, _ESCAPES.get(value, value) if key == _DELIMITER else value)
    header = _flag(group, "firstRowContainsColumnNamesParams/firstRowContainsColumnNames")
    result.sub("settings").put("has_column_header", header)
    _put_limits(group, result.sub("limit_rows"))
    encoding = _text(group, "fileEncodingParams/fileEncoding")
    custom = _text(group, "fileEncodingParams/customEncoding")
    result.sub("encoding").put("charset", _CHARSETS.get(encoding, custom))
    # only where a saved specification is used does it matter whether the columns must be the same
    ignored = group.config(_SCHEMA).flag("ignoreSchemaChange")
    result.sub("advanced_settings").put("check_table_spec", not ignored)
    if _is_applied(model):
        _put_spec(model, result.sub("table_spec_config_Internals"))
    return result


def _put_limits(group: Config, limits: Config) -> None:
    lines = _integer(group, "skipFirstLinesParams/skipFirstLines")
    rows = _integer(group, "skipFirstDataRowsParams/skipFirstDataRows")
    limits.put("skip_lines", lines > 0).put("number_of_lines_to_skip", lines)
    limits.put("skip_data_rows", rows > 0).put("number_of_rows_to_skip", rows)
    limited = _flag(group, "maxNumberOfRowsParams/maximumNumberOfRows_is_present")
    most = _integer(group, "maxNumberOfRowsParams/maximumNumberOfRows")
    limits.put("limit_data_rows", limited).put("max_rows", most)


def _put_spec(model: Config, spec: Config) -> None:
    """The Transformation tab, whose order is that of its entries."""
    path = _text(model.config(GROUP), f"{_SOURCE}/path/path")
    spec.put("source_group_id", model.text(_SAVED_FOR) if _SAVED_FOR in model else path)
    tab, table = model.config(_TAB), spec.sub("table_transformation")
    table.path = _TAB
    table.put("enforce_types", _flag(model, f"{_TAB}/enforceTypes"))
    saved = set(_saved_names(tab))
    for position, entry in enumerate(tab.config(_COLUMNS).configs()):
        if _is_unknown(entry):
            column = table.sub("unknown_columns_transformation")
        elif entry.text("columnName") in saved:
            column = table.sub("columns").sub(entry.key)
            column.path = entry.path
            column.sub("external_spec").put("name", entry.text("columnName"))
            column.put("name", _text(entry, "columnRename"))
            column.children["production_path"] = entry.config("productionPath").copy()
        else:
            continue  # KNIME goes by the saved specification, and passes over what is not in it
        column.put("keep", _flag(entry, "includeInOutput")).put("position", position)


def _is_applied(model: Config) -> bool:
    """Whether there is a saved specification, and the node is set to use it."""
    option = model.config(GROUP).config(_SCHEMA).value("ifSchemaChangesOption")
    return option != _NEW_SCHEMA and bool(_specs(model.config(_TAB)))


def _specs(tab: Config) -> list[Config]:
    return tab.config("specs").configs()


def _saved_names(tab: Config) -> list[str]:
    return [column.text("name") for spec in _specs(tab) for column in spec.config("spec").configs()]


def _is_unknown(entry: Config) -> bool:
    return entry.value("columnName") is None


def _at(config: Config, path: str) -> tuple[Config, str]:
    """The config that holds the setting at this path, and its key in there."""
    *parents, key = path.split("/")
    for parent in parents:
        config = config.config(parent)
    return config, key


def _text(config: Config, path: str) -> str:
    config, key = _at(config, path)
    config.require(key)
    return config.text(key)


def _integer(config: Config, path: str) -> int:
    config, key = _at(config, path)
    config.require(key)
    return config.integer(key, 0)


def _flag(config: Config, path: str) -> bool:
    config, key = _at(config, path)
    config.require(key)
    return config.flag(key)
