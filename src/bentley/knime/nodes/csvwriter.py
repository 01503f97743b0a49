"""The CSV Writer, which writes the text of numbers and quotes as KNIME does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal

import polars as pl

from bentley.domain.errors import ConfigurationError
from bentley.knime.expressions.text import java_number
from bentley.knime.nodes.base import BaseNode, Context, Port, register, table
from bentley.knime.nodes.paths import bundled, chosen_path, path_lacks
from bentley.knime.xmlconfig import Config

_QUOTE_MODES = frozenset({"STRINGS_ONLY", "IF_NEEDED", "ALWAYS", "NEVER"})


@register("org.knime.base.node.io.filehandling.csv.writer.CSVWriter2NodeFactory")
class CSVWriter(BaseNode):
    """Writes one CSV file, numbers as Java prints them unless trailing zeros are cut."""

    keys = frozenset(
        {
            "settings/file_chooser_settings/path",
            "settings/file_chooser_settings/create_missing_folders",
            "settings/file_chooser_settings/if_path_exists",
            "settings/file_chooser_settings/filter_mode",
            "settings/column_delimiter",
            "settings/row_delimiter",
            "settings/quote_char",
            "settings/quote_escape_char",
            "settings/write_column_header",
            "settings/skip_column_header_on_append",
            "settings/write_row_header",
            "advanced_settings/missing_value_pattern",
            "advanced_settings/compress_with_gzip",
            "advanced_settings/quote_mode",
            "advanced_settings/separator_replacement",
            "advanced_settings/decimal_separator",
            "advanced_settings/use_scientific_format",
            "advanced_settings/keep_trailing_zero_in_decimals",
            "comment_header_settings",
            "encoding/character_set",
        }
    )

    def lacks(self) -> Iterable[str]:
        """Compression, comments, appending, and what would change the text of cells."""
        settings, advanced = self.model.config("settings"), self.model.config("advanced_settings")
        chooser = settings.config("file_chooser_settings")
        yield from path_lacks(chooser)
        yield from self._format_lacks(settings, advanced)
        if chooser.text("if_path_exists", "fail") not in {"fail", "overwrite"}:
            yield f"setting 'if_path_exists' = {chooser.text('if_path_exists')!r} is not supported"
        if settings.flag("write_row_header"):
            yield "setting 'settings/write_row_header' = True is not supported: no row IDs here"
        comments = self.model.config("comment_header_settings")
        for key in comments:
            if key.startswith("add_") and comments.flag(key):
                yield f"setting 'comment_header_settings/{key}' = True is not supported"

    @staticmethod
    def _format_lacks(settings: Config, advanced: Config) -> Iterable[str]:
        if settings.text("row_delimiter", "\n") not in {"", "\n", "\r\n"}:
            yield "setting 'settings/row_delimiter' is not supported"
        if len(settings.text("column_delimiter", ",").encode()) != 1:
            yield "setting 'settings/column_delimiter' is not one byte"
        for key in ("compress_with_gzip", "use_scientific_format"):
            if advanced.flag(key):
                yield f"setting 'advanced_settings/{key}' = True is not supported"
        for key, plain in (("separator_replacement", ""), ("decimal_separator", ".")):
            if advanced.text(key, plain) != plain:
                yield f"setting 'advanced_settings/{key}' is not supported"
        if advanced.text("quote_mode", "STRINGS_ONLY") not in _QUOTE_MODES:
            yield "setting 'advanced_settings/quote_mode' is not supported"

    def run(self, inputs: Mapping[int, Port], context: Context) -> dict[int, Port]:
        """Writes port 1 and puts out nothing."""
        settings, advanced = self.model.config("settings"), self.model.config("advanced_settings")
        chooser = settings.config("file_chooser_settings")
        path = chosen_path(chooser, context.folder)
        if bundled(path, context.folder) is not None:
            msg = f"{path} lies in the workflow's archive, which is never written; unpack it"
            raise ConfigurationError(msg)
        if path.exists() and chooser.text("if_path_exists", "fail") == "fail":
            msg = f"{path} exists, and the node is set to fail then"
            raise ConfigurationError(msg)
        if not path.parent.is_dir():
            if not chooser.flag("create_missing_folders"):
                msg = f"the folder {path.parent} does not exist"
                raise ConfigurationError(msg)
            path.parent.mkdir(parents=True)
        text = to_csv(table(inputs, 1), settings, advanced)
        charset = self.model.config("encoding").text("character_set") or "UTF-8"
        temporary = path.with_name(f"{path.name}.part")
        temporary.write_bytes(text.encode(charset))
        temporary.replace(path)
        return {}


def _printed(frame: pl.DataFrame, advanced: Config) -> pl.DataFrame:
    keep = advanced.flag("keep_trailing_zero_in_decimals")
    floats = [name for name, dtype in frame.schema.items() if dtype.is_float()]

    def text(value: float) -> str:
        written = java_number(value)
        if "E" in written:
            written = f"{Decimal(repr(value)):f}"
        return written if keep else re.sub(r"\.0$", "", written)

    return frame.with_columns(
        pl.col(name).map_elements(text, return_dtype=pl.String) for name in floats
    )


def to_csv(frame: pl.DataFrame, settings: Config, advanced: Config) -> str:
    """The table as the node's settings want it written."""
    mode = advanced.text("quote_mode", "STRINGS_ONLY")
    delimiter = settings.text("column_delimiter", ",")
    quote = settings.text("quote_char", '"')
    escape = settings.text("quote_escape_char", '"')
    missing = advanced.text("missing_value_pattern")
    end = settings.text("row_delimiter") or "\n"

    def quoted(text: str) -> str:
        return f"{quote}{text.replace(quote, escape + quote)}{quote}"

    def cell(value: object, *, string: bool) -> str:
        if value is None:
            return missing
        text = str(value).lower() if isinstance(value, bool) else str(value)
        needed = any(mark in text for mark in (delimiter, quote, "\n", "\r")) or text == missing
        if mode == "ALWAYS" or (string and mode == "STRINGS_ONLY") or (needed and mode != "NEVER"):
            return quoted(text)
        return text

    lines = []
    if settings.flag("write_column_header", default=True):
        lines.append(delimiter.join(cell(name, string=True) for name in frame.columns))
    strings = [dtype == pl.String for dtype in frame.dtypes]
    lines += [
        delimiter.join(cell(v, string=s) for v, s in zip(row, strings, strict=True))
        for row in _printed(frame, advanced).iter_rows()
    ]
    return "".join(line + end for line in lines)
