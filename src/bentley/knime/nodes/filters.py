"""Which columns a node takes: KNIME's two ways of writing that down, and its `column-filter`.

The older form lists `included_names` and `excluded_names` (or a pattern, or types) under
`filter-type`; the newer one has a `mode` and a config per mode.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import polars as pl

from bentley.domain.errors import ConfigurationError
from bentley.knime.expressions import text
from bentley.knime.nodes.base import need, unsupported
from bentley.knime.xmlconfig import Config

_FILTER = (
    "filter-type",
    "included_names",
    "excluded_names",
    "enforce_option",
    "name_pattern/pattern",
    "name_pattern/type",
    "name_pattern/caseSensitive",
    "name_pattern/excludeMatching",
    "datatype",
)
_DYNAMIC_FILTER = (
    "mode",
    "manualFilter/manuallySelected",
    "manualFilter/manuallyDeselected",
    "manualFilter/includeUnknownColumns",
    "patternFilter/pattern",
    "patternFilter/isCaseSensitive",
    "patternFilter/isInverted",
    "typeFilter",
)
_SPECIAL: Mapping[str, str] = {"<row-keys>": "ROW_ID", "<row-numbers>": "ROW_NUMBERS"}


def filter_keys(at: str) -> frozenset[str]:
    """The settings of a column filter in the older form, for a node's `keys`."""
    return frozenset(f"{at}/{key}" for key in _FILTER)


def dynamic_filter_keys(at: str) -> frozenset[str]:
    """The settings of a column filter in the newer form, for a node's `keys`."""
    return frozenset(f"{at}/{key}" for key in _DYNAMIC_FILTER)


def chosen_column(criterion: Config) -> str:
    """The column that a criterion names: in `columnV2`, or in `column` up to KNIME 5.4."""
    choice = criterion.config("columnV2")
    return choice.text("regularChoice") or criterion.config("column").text("selected")


def chosen_special(criterion: Config) -> str:
    """What a criterion takes instead of a column; up to KNIME 5.4 as if it were one's name."""
    choice = criterion.config("columnV2")
    if choice.children:
        return choice.text("specialChoice_Internals") or choice.text("specialChoice")
    return _SPECIAL.get(chosen_column(criterion), "")


def filter_lacks(config: Config) -> Iterable[str]:
    """What isn't supported of a column filter in the older form."""
    if config.text("filter-type", "STANDARD") not in {"STANDARD", "name_pattern"}:
        yield unsupported(config, "filter-type")
    if config.text("enforce_option", "EnforceInclusion") not in {
        "EnforceInclusion",
        "EnforceExclusion",
    }:
        yield unsupported(config, "enforce_option")
    pattern = config.config("name_pattern")
    if pattern.text("type", "Wildcard") not in {"Wildcard", "Regex"}:
        yield unsupported(pattern, "type")


def filter_columns(config: Config, frame: pl.DataFrame) -> list[str]:
    """The columns that a filter in the older form includes, in the table's order.

    Inclusion enforced: the listed names alone, each of which must be there. Exclusion enforced:
    all but the excluded ones, so columns that the workflow's author never saw come along.
    """
    if config.text("filter-type", "STANDARD") == "name_pattern":
        rule = config.config("name_pattern")
        matches = _matching(
            frame.columns,
            rule.text("pattern"),
            regex=rule.text("type", "Wildcard") == "Regex",
            case=rule.flag("caseSensitive", default=True),
        )
        inverted = rule.flag("excludeMatching")
        return [name for name in frame.columns if (name in matches) != inverted]
    if config.text("enforce_option", "EnforceInclusion") == "EnforceExclusion":
        excluded = set(config.texts("excluded_names"))
        return [name for name in frame.columns if name not in excluded]
    included = set(need(frame, config.texts("included_names")))
    return [name for name in frame.columns if name in included]


def dynamic_filter_lacks(config: Config) -> Iterable[str]:
    """What isn't supported of a column filter in the newer form."""
    if config.text("mode", "MANUAL") not in {"MANUAL", "REGEX", "WILDCARD"}:
        yield unsupported(config, "mode")


def dynamic_columns(config: Config, frame: pl.DataFrame) -> list[str]:
    """The columns that a filter in the newer form includes, in the table's order."""
    mode = config.text("mode", "MANUAL")
    if mode == "MANUAL":
        manual = config.config("manualFilter")
        chosen = set(need(frame, manual.texts("manuallySelected")))
        known = chosen | set(manual.texts("manuallyDeselected"))
        unknown = manual.flag("includeUnknownColumns")
        return [name for name in frame.columns if name in chosen or (unknown and name not in known)]
    rule = config.config("patternFilter")
    matches = _matching(
        frame.columns,
        rule.text("pattern"),
        regex=mode == "REGEX",
        case=rule.flag("isCaseSensitive"),
    )
    return [name for name in frame.columns if (name in matches) != rule.flag("isInverted")]


def _matching(names: Iterable[str], pattern: str, *, regex: bool, case: bool) -> set[str]:
    try:
        rule = re.compile(
            pattern if regex else text.wildcard(pattern), 0 if case else re.IGNORECASE
        )
    except re.error as error:
        msg = f"the column pattern {pattern!r} is not a regular expression: {error}"
        raise ConfigurationError(msg) from None
    return {name for name in names if rule.fullmatch(name)}
