"""The nodes that the engine runs: importing this package fills the registry."""

from __future__ import annotations

from bentley.knime.nodes import (
    cleaning,
    columns,
    combine,
    compute,
    convert,
    csvwriter,
    database,
    files,
    groupby,
    rows,
    sorter,
    tablecreator,
)
from bentley.knime.nodes.base import REGISTRY

__all__ = [
    "REGISTRY",
    "cleaning",
    "columns",
    "combine",
    "compute",
    "convert",
    "csvwriter",
    "database",
    "files",
    "groupby",
    "rows",
    "sorter",
    "tablecreator",
]
