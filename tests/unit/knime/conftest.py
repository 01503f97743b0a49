"""Fixtures of the KNIME engine's tests."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import polars as pl
import pytest
from knime_support import Warehouse, model, mysql_warehouse, sqlite_warehouse_in

from bentley.knime import nodes, workflow, writer
from bentley.knime.nodes.base import Context
from bentley.knime.writer import NodeSpec


@pytest.fixture(params=["sqlite", "mysql"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Warehouse]:
    if request.param == "mysql":
        yield from mysql_warehouse(request.getfixturevalue("mariadb").database())
    else:
        yield from sqlite_warehouse_in(tmp_path)


@pytest.fixture
def sqlite_warehouse(tmp_path: Path) -> Iterator[Warehouse]:
    yield from sqlite_warehouse_in(tmp_path)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., workflow.Workflow]:
    """Write nodes as a `.knwf` and load it back."""

    def saved(specs: list[NodeSpec], variables: Mapping[str, object] | None = None):
        path = tmp_path / f"{uuid.uuid4().hex}.knwf"
        path.write_bytes(writer.archive("test", specs, variables or {}))
        return workflow.load(path)

    return saved


@pytest.fixture
def run_node(tmp_path: Path) -> Callable[..., pl.DataFrame]:
    """Check and run one node of the registry on frames; returns its first output."""

    def run(factory: str, settings: Mapping[str, object], *frames: pl.DataFrame, variables=None):
        config = workflow._rooted(model(settings))
        node = nodes.REGISTRY[factory](config)
        assert node.check() == []
        context = Context(variables or {}, pytest.fail, tmp_path)
        return node.run(dict(enumerate(frames, 1)), context).get(1)

    return run


@pytest.fixture
def lacks() -> Callable[..., list[str]]:
    """What a node says that it can't do with the given settings."""

    def check(factory: str, settings: Mapping[str, object]) -> list[str]:
        return nodes.REGISTRY[factory](workflow._rooted(model(settings))).check()

    return check
