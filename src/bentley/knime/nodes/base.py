"""What every node class shares: its place in the registry, its tables, its run context.

A node class answers two questions. `check` says what of its settings this engine can't do,
before anything runs; `run` turns input ports into output ports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import polars as pl
from sqlalchemy import Engine

from bentley.domain.errors import ConfigurationError
from bentley.knime.workflow import Variable
from bentley.knime.xmlconfig import Config

KNIME_TYPES: dict[str, pl.DataType] = {
    "org.knime.core.data.def.StringCell": pl.String(),
    "org.knime.core.data.def.IntCell": pl.Int32(),
    "org.knime.core.data.def.LongCell": pl.Int64(),
    "org.knime.core.data.def.DoubleCell": pl.Float64(),
    "org.knime.core.data.def.BooleanCell": pl.Boolean(),
}
"""KNIME's cell classes and the polars types that stand for them."""

INTERNALS = "_Internals"


@dataclass(frozen=True)
class Database:
    """What a database connector hands on: where to, and the engine that goes there."""

    url: str
    engine: Engine = field(repr=False)


Port = pl.DataFrame | Database


@dataclass(frozen=True)
class Context:
    """What a node may use besides its settings and inputs.

    `database` opens a JDBC address; `folder` is where relative paths start.
    """

    variables: Mapping[str, Variable]
    database: Callable[[str], Engine]
    folder: Path


REGISTRY: dict[str, type[BaseNode]] = {}


def register(*factories: str) -> Callable[[type[BaseNode]], type[BaseNode]]:
    """Enter a node class under KNIME's factory class names."""

    def enter(cls: type[BaseNode]) -> type[BaseNode]:
        for factory in factories:
            REGISTRY[factory] = cls
        return cls

    return enter


class BaseNode:
    """A node with its settings, flow variables already put in.

    `keys` are the settings that the class reads or may safely ignore, as paths from the top
    (`settings/path`, with `*` for any key): each covers all below it. Any other setting is
    reported as unknown, since an unread one could change the result, but for `..._Internals`,
    where KNIME keeps the dialog's state; a path that leads into such a config opens it.
    `inputs` are the ports that must be connected.
    """

    keys: ClassVar[frozenset[str]] = frozenset()
    inputs: ClassVar[tuple[int, ...]] = (1,)

    def __init__(self, model: Config) -> None:
        self.model = model

    def check(self) -> list[str]:
        """What this engine lacks for these settings, each a line for the user."""
        known = {tuple(key.split("/")) for key in self.keys}
        lacks = [f"setting {path!r} is not known" for path in unknown(self.model, known)]
        try:
            lacks += self.lacks()
        except ConfigurationError as error:
            lacks.append(str(error))
        return lacks

    def lacks(self) -> Iterable[str]:
        """Settings whose value is not supported; reading a broken one may raise."""
        return ()

    def run(self, inputs: Mapping[int, Port], context: Context) -> dict[int, Port]:
        """Output ports by number, from 1."""
        return {1: self.table(table(inputs, 1), context)}

    def table(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        """The only output of a node that has one table in and one out."""
        raise NotImplementedError

    def allow(self, key: str, *supported: object) -> Iterable[str]:
        """Report `key` where it is there and has another than the supported values."""
        if key in self.model and self.model.value(key) not in supported:
            yield unsupported(self.model, key)


def unknown(config: Config, known: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """The paths of settings that none of the known paths covers, the topmost of each."""
    for key, child in config.children.items():
        below = {path[1:] for path in known if path[0] in {key, "*"}}
        if () in below:
            continue
        if below and isinstance(child, Config):
            yield from (f"{key}/{path}" for path in unknown(child, below))
        elif below or not key.endswith(INTERNALS):
            yield key


def unsupported(config: Config, key: str) -> str:
    """The line that says a setting's value is not supported."""
    at = f"{config.path}/{key}" if config.path else key
    return f"setting {at!r} = {config.value(key)!r} is not supported"


def table(inputs: Mapping[int, Port], port: int) -> pl.DataFrame:
    """The table on `port`; ConfigurationError where something else is connected."""
    frame = inputs.get(port)
    if not isinstance(frame, pl.DataFrame):
        msg = f"input port {port} needs a table"
        raise ConfigurationError(msg)
    return frame


def database(inputs: Mapping[int, Port], port: int) -> Database:
    """The database connection on `port`; ConfigurationError where something else is connected."""
    connection = inputs.get(port)
    if not isinstance(connection, Database):
        msg = f"input port {port} needs a database connection"
        raise ConfigurationError(msg)
    return connection


def need(frame: pl.DataFrame, names: Iterable[str]) -> list[str]:
    """The names, all of which must be columns; ConfigurationError naming the first that isn't."""
    wanted = list(names)
    for name in wanted:
        if name not in frame.columns:
            msg = f"there is no column {name!r}; there are {', '.join(frame.columns)}"
            raise ConfigurationError(msg)
    return wanted


def put_column(frame: pl.DataFrame, column: pl.Expr, *, append: bool, name: str) -> pl.DataFrame:
    """Append `column` as `name` (made unique as KNIME does: `name (#1)`), or replace `name`."""
    if append:
        return frame.with_columns(column.alias(unique_name(name, frame.columns)))
    need(frame, [name])
    return frame.with_columns(column.alias(name))


def unique_name(name: str, taken: Iterable[str]) -> str:
    """`name`, or the first of `name (#1)`, `name (#2)`, ... that is free."""
    used = set(taken)
    if name not in used:
        return name
    number = 1
    while f"{name} (#{number})" in used:
        number += 1
    return f"{name} (#{number})"
