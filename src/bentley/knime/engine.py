"""The embedded engine: runs a KNIME workflow's nodes on polars, or says what it lacks for that.

`check` is the planner: it looks at every node and setting before anything runs and lists all
that is not supported. `run` refuses a workflow that `check` has anything against.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

import polars as pl
from sqlalchemy import Engine

from bentley.domain.errors import BentleyError, ConfigurationError, FatalError
from bentley.knime import jdbc, nodes, overrides
from bentley.knime import workflow as workflows
from bentley.knime.nodes.base import Context, Port
from bentley.knime.workflow import FlowVariable, Node, Variable, Workflow


@dataclass(frozen=True)
class Lack:
    """One thing that a workflow needs and this engine doesn't have."""

    node_id: str
    node_name: str
    what: str

    def __str__(self) -> str:
        return f"{self.node_name} (#{self.node_id}): {self.what}"


@dataclass(frozen=True)
class NodeRun:
    """How a node went: rows on its first table output (0 where it has none), wall seconds."""

    node_id: str
    node_name: str
    rows: int
    seconds: float


@dataclass
class RunResult:
    """Every node's run in order, and the output tables that no other node took."""

    nodes: list[NodeRun] = field(default_factory=list)
    outputs: dict[str, pl.DataFrame] = field(default_factory=dict)


def check(workflow: Workflow, variables: Mapping[str, Variable] | None = None) -> list[Lack]:
    """All that this engine lacks for `workflow`, an empty list where it can run.

    With `variables`, settings are checked with their values put in; otherwise as saved.
    """
    values = workflows.values(workflow, variables or {})
    found = []
    for node in workflow.nodes.values():
        found += [Lack(node.id, node.name, what) for what in _node_lacks(workflow, node, values)]
    try:
        _order(workflow)
    except ConfigurationError as error:
        found.append(Lack("", workflow.name, str(error)))
    return found


def _node_lacks(workflow: Workflow, node: Node, values: Mapping[str, FlowVariable]) -> list[str]:
    if node.kind != "NativeNode":
        return [f"a {node.kind} (component) is not supported"]
    runner = nodes.REGISTRY.get(node.factory)
    if runner is None:
        return [f"node {node.factory or 'without a factory'} is not supported"]
    found = []
    if node.inactive:
        found.append("the node lies on an inactive branch, which is not supported")
    wrong = list(overrides.lacks(node.model, node.variables))
    found += wrong
    model = node.model
    if not wrong:
        try:
            model = overrides.apply(model, node.variables, values)
        except ConfigurationError as error:
            if all(name in values for _, name in overrides.used(node.variables)):
                found.append(str(error))
    found += runner(model).check()
    connected = {link.dest_port for link in workflow.connections if link.dest == node.id}
    found += [
        f"input port {port} is not connected" for port in runner.inputs if port not in connected
    ]
    return found


def run(
    workflow: Workflow,
    variables: Mapping[str, Variable] | None = None,
    *,
    open_database: Callable[[str], Engine] | None = None,
    on_node: Callable[[NodeRun], None] | None = None,
) -> RunResult:
    """Run every node in order of their connections.

    `open_database` turns a JDBC address into an engine, which stays the caller's; without it,
    addresses of SQLite, MySQL and MariaDB are opened here and closed at the end.

    Raises ConfigurationError that lists everything unsupported, before anything has run, and
    what the nodes raise, with the node named.
    """
    lacks = check(workflow, variables)
    if lacks:
        listed = "\n".join(f"  {lack}" for lack in lacks)
        msg = f"workflow {workflow.name!r} needs what this engine does not have:\n{listed}"
        raise ConfigurationError(msg)
    values = workflows.values(workflow, variables or {})
    with jdbc.Connections(open_database) as connections:
        return _Run(workflow, values, connections, on_node).all()


class _Run:
    """One pass over the nodes; a table is freed once its last reader has run."""

    def __init__(
        self,
        workflow: Workflow,
        values: Mapping[str, FlowVariable],
        connections: jdbc.Connections,
        on_node: Callable[[NodeRun], None] | None,
    ) -> None:
        self.workflow = workflow
        self.values = values
        self.connections = connections
        self.on_node = on_node
        self.ports: dict[tuple[str, int], Port] = {}
        self.flow: dict[str, dict[str, FlowVariable]] = {}
        self.readers: dict[tuple[str, int], int] = {}
        for link in workflow.connections:
            key = (link.source, link.source_port)
            self.readers[key] = self.readers.get(key, 0) + 1

    def all(self) -> RunResult:
        result = RunResult()
        for node_id in _order(self.workflow):
            done, outputs = self._one(self.workflow.nodes[node_id])
            result.nodes.append(done)
            for port, output in outputs.items():
                if (node_id, port) in self.readers:
                    self.ports[node_id, port] = output
                elif isinstance(output, pl.DataFrame):
                    result.outputs[node_id if port == 1 else f"{node_id}:{port}"] = output
            if self.on_node is not None:
                self.on_node(done)
        return result

    def _one(self, node: Node) -> tuple[NodeRun, dict[int, Port]]:
        started = time.perf_counter()
        values, inputs = self._inputs(node)
        try:
            model = overrides.apply(node.model, node.variables, values)
            runner = nodes.REGISTRY[node.factory](model)
            plain = overrides.plain(values)
            context = Context(plain, self.connections.open, self.workflow.folder)
            outputs = runner.run(inputs, context)
        except BentleyError as error:
            error.args = (f"node {node.name} (#{node.id}): {error}", *error.args[1:])
            raise
        except pl.exceptions.PolarsError as error:
            msg = f"node {node.name} (#{node.id}): {error}"
            raise FatalError(msg) from error
        self.flow[node.id] = overrides.expose(model, node.variables, values)
        tables = [output for output in outputs.values() if isinstance(output, pl.DataFrame)]
        rows = tables[0].height if tables else 0
        return NodeRun(node.id, node.name, rows, time.perf_counter() - started), outputs

    def _inputs(self, node: Node) -> tuple[dict[str, FlowVariable], dict[int, Port]]:
        values: dict[str, FlowVariable] = dict(self.values)
        inputs: dict[int, Port] = {}
        for link in sorted(
            (link for link in self.workflow.connections if link.dest == node.id),
            key=lambda link: -link.dest_port,  # the first port's variables win, as in KNIME
        ):
            values |= self.flow[link.source]
            key = (link.source, link.source_port)
            self.readers[key] -= 1
            port = self.ports.get(key)
            if port is not None:
                inputs[link.dest_port] = port
            if not self.readers[key]:
                self.ports.pop(key, None)
        return values, inputs


def _order(workflow: Workflow) -> list[str]:
    """Node ids so that each comes after what feeds it; the same for the same workflow."""
    graph: dict[str, list[str]] = {node_id: [] for node_id in sorted(workflow.nodes, key=_rank)}
    for link in workflow.connections:
        for end in (link.source, link.dest):
            if end not in graph:
                msg = f"a connection names node {end}, which is not there"
                raise ConfigurationError(msg)
        graph[link.dest].append(link.source)
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        msg = f"the nodes {' -> '.join(error.args[1])} feed each other in a circle"
        raise ConfigurationError(msg) from None


def _rank(node_id: str) -> tuple[int, ...]:
    return tuple(int(part) for part in node_id.split(":"))
