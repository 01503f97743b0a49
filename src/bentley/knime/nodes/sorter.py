"""The Sorter, with the settings of KNIME 5 and of the versions before it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import polars as pl

from bentley.knime.nodes.base import BaseNode, Context, need, register
from bentley.knime.nodes.filters import chosen_column, chosen_special
from bentley.knime.xmlconfig import Config

_NATURAL_WIDTH = 24


class Key(NamedTuple):
    """One sorting criterion; `natural` counts digits in strings as numbers."""

    column: str
    descending: bool
    natural: bool


@register("org.knime.base.node.preproc.sorter.SorterNodeFactory")
class Sorter(BaseNode):
    """Sorts stably; a missing cell is the smallest unless `missingToEnd` puts it last."""

    keys = frozenset(
        {
            "sortingCriteria/*/column",
            "sortingCriteria/*/columnV2",
            "sortingCriteria/*/sortingOrder",
            "sortingCriteria/*/stringComparison",
            "missingToEnd",
            "sortinmemory",
            "incllist",
            "sortOrder",
            "alphaNumStringComp",
        }
    )

    def lacks(self) -> Iterable[str]:
        """Sorting by row ID."""
        for criterion in self.model.config("sortingCriteria").configs():
            special = chosen_special(criterion)
            if special:
                yield f"sorting by {special} in {criterion.path!r} is not supported: no row IDs here"
        if "-ROWKEY -" in self.model.texts("incllist"):
            yield "sorting by row ID in 'incllist' is not supported: no row IDs here"

    def table(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        """The sorted table."""
        del context
        keys = sort_keys(self.model)
        need(frame, [key.column for key in keys])
        return sort(frame, keys, missing_last=self.model.flag("missingToEnd"))


def sort_keys(model: Config) -> list[Key]:
    """The criteria, whichever version of the node wrote them."""
    if "sortingCriteria" in model:
        return [
            Key(
                chosen_column(criterion),
                criterion.text("sortingOrder", "ASCENDING") == "DESCENDING",
                criterion.text("stringComparison", "NATURAL") == "NATURAL",
            )
            for criterion in model.config("sortingCriteria").configs()
        ]
    ascending = model.array("sortOrder")
    natural = model.array("alphaNumStringComp")
    return [
        Key(name, ascending[at] is False, at < len(natural) and natural[at] is True)
        for at, name in enumerate(model.texts("incllist"))
    ]


def sort(frame: pl.DataFrame, keys: list[Key], *, missing_last: bool) -> pl.DataFrame:
    """Sort stably by `keys`, the first counting most."""
    if not keys:
        return frame
    return frame.sort(
        [_comparable(frame, key) for key in keys],
        descending=[key.descending for key in keys],
        nulls_last=[missing_last or key.descending for key in keys],
        maintain_order=True,
    )


def _comparable(frame: pl.DataFrame, key: Key) -> pl.Expr:
    column = pl.col(key.column)
    if not (key.natural and frame.schema[key.column] == pl.String):
        return column
    return column.map_elements(_natural, return_dtype=pl.String)


def _natural(text: str) -> str:
    """The text with its runs of digits padded, so that plain comparison orders them by value."""
    out, digits = [], ""
    for char in text + "\0":
        if "0" <= char <= "9":
            digits += char
            continue
        if digits:
            out.append(digits.lstrip("0").rjust(_NATURAL_WIDTH, "0"))
            digits = ""
        out.append(char)
    return "".join(out)
