"""A KNIME workflow as it lies on disk: its nodes, their settings, and what feeds what.

Reads a `.knwf` archive, a workflow folder, or the `workflow.knime` in it, as KNIME 4.7 to 5.x
write them. Metanodes are opened up into the flat list of nodes, so that `7:3` is node 3 in
metanode 7; components (SubNode) stay closed.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from bentley.domain.errors import ConfigurationError
from bentley.knime import xmlconfig
from bentley.knime.xmlconfig import Config

Variable = str | int | float | bool
FlowVariable = Variable | Config
"""A variable's value; that of an array or path variable is the config that KNIME saves it as."""
LOCATION = ("location_present", "file_system_type", "file_system_specifier", "path")
"""The keys of a file's location, in settings and in path variables."""

WORKFLOW_FILE = "workflow.knime"
MAX_FILES = 50_000
MAX_BYTES = 64 * 2**20
"""The largest settings file that is read, unpacked; real ones stay below a megabyte."""
_META, _COMPONENT = "MetaNode", "SubNode"
_BORDER = -1  # KNIME's id for "the metanode around this"


@dataclass(frozen=True)
class Node:
    """One node: `model` holds its settings, `variables` what flow variables override in them."""

    id: str
    name: str
    kind: str
    factory: str
    model: Config
    variables: Config
    factory_settings: Config
    inactive: bool = False


@dataclass(frozen=True, order=True)
class Connection:
    """From a node's output port to a node's input port; port 0 carries flow variables only."""

    source: str
    source_port: int
    dest: str
    dest_port: int


@dataclass
class Workflow:
    """A loaded workflow; `folder` is where relative paths of its file nodes start.

    In an archive the folder is `/x/flow.knwf/flow`, a place within the file.
    """

    name: str
    created_by: str
    folder: Path
    nodes: dict[str, Node] = field(default_factory=dict)
    connections: list[Connection] = field(default_factory=list)
    variables: dict[str, FlowVariable | None] = field(default_factory=dict)


def load(path: Path) -> Workflow:
    """Read a `.knwf`, a workflow folder, or its `workflow.knime`.

    Raises ConfigurationError naming the file and what is wrong with it.
    """
    if path.name == WORKFLOW_FILE and path.is_file():
        path = path.parent
    if path.is_dir():
        return _load(_Folder(path), path.name, path.resolve())
    if not path.is_file():
        msg = f"there is no workflow at {path}; name a .knwf file or a workflow folder"
        raise ConfigurationError(msg)
    try:
        with zipfile.ZipFile(path) as archive:
            files = _Archive(archive, path.name)
            return _load(files, files.top, path.resolve() / files.top)
    except zipfile.BadZipFile:
        msg = f"{path} is not a .knwf archive; export the workflow again from KNIME"
        raise ConfigurationError(msg) from None


class _Files(Protocol):
    def read(self, name: PurePosixPath) -> bytes: ...


class _Folder:
    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def read(self, name: PurePosixPath) -> bytes:
        file = (self.root / name).resolve()
        if not file.is_relative_to(self.root):
            msg = f"{name} points out of the workflow's folder"
            raise ConfigurationError(msg)
        if not file.is_file():
            msg = f"{self.root / name} is missing; export the whole workflow from KNIME"
            raise ConfigurationError(msg)
        if file.stat().st_size > MAX_BYTES:
            msg = f"{file} is larger than {MAX_BYTES} bytes, which no settings file is"
            raise ConfigurationError(msg)
        return file.read_bytes()


class _Archive:
    """Reads members in memory and writes nothing, so no path in it can lead out of anywhere."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self.archive = archive
        self.name = name
        self.top = self._top()

    def _top(self) -> str:
        members = self.archive.namelist()
        if len(members) > MAX_FILES:
            msg = f"{self.name} holds more than {MAX_FILES} files, which no workflow does"
            raise ConfigurationError(msg)
        tops = set()
        for member in members:
            parts = PurePosixPath(member).parts
            if not parts or ".." in parts or member.startswith("/") or "\\" in member:
                msg = f"{self.name} holds the unsafe path {member!r}"
                raise ConfigurationError(msg)
            tops.add(parts[0])
        if len(tops) != 1:
            msg = f"{self.name} must hold exactly one workflow folder and holds {sorted(tops)}"
            raise ConfigurationError(msg)
        return tops.pop()

    def read(self, name: PurePosixPath) -> bytes:
        if ".." in name.parts or name.is_absolute():
            msg = f"{name} points out of the workflow's folder"
            raise ConfigurationError(msg)
        try:
            info = self.archive.getinfo(f"{self.top}/{name}")
        except KeyError:
            msg = f"{self.name} lacks {name}; export the whole workflow from KNIME"
            raise ConfigurationError(msg) from None
        with self.archive.open(info) as member:
            data = member.read(MAX_BYTES + 1)  # the header's size may lie
        if len(data) > MAX_BYTES:
            msg = f"{name} in {self.name} is larger than {MAX_BYTES} bytes unpacked"
            raise ConfigurationError(msg)
        return data


def _load(files: _Files, name: str, folder: Path) -> Workflow:
    flat = _Flat(files)
    root = flat.read(PurePosixPath(WORKFLOW_FILE))
    workflow = Workflow(name=name, created_by=root.text("created_by"), folder=folder)
    for variable in root.config("workflow_variables").configs():
        workflow.variables[variable.text("name")] = _saved(variable)
    workflow.nodes = flat.nodes
    workflow.connections = sorted(flat.connections())
    return workflow


def _saved(variable: Config) -> FlowVariable | None:
    """A saved variable's value: under `value`, but a path's keys lie beside the variable's name.

    None where it has none that can be used: a location that isn't there, or credentials.
    """
    value = variable.config("value")
    if "array-size" in value:
        return value
    if "path" not in variable:
        return variable.value("value")
    location = Config("value")
    for key in LOCATION:
        location.put(key, variable.value(key))
    return location


def _parse(files: _Files, name: PurePosixPath) -> Config:
    return xmlconfig.parse(files.read(name), name=str(name))


_End = tuple[str, int]
"""A port of a node, or one of a metanode: `7:input` and `7:output` stand for its two sides."""


class _Flat:
    """The nodes and connections of all levels, metanodes opened up."""

    def __init__(self, files: _Files) -> None:
        self.files = files
        self.nodes: dict[str, Node] = {}
        self.metas: set[str] = set()
        self.links: list[tuple[_End, _End]] = []

    def read(self, file: PurePosixPath, prefix: str = "") -> Config:
        """Add one `workflow.knime`, whose nodes' ids get `prefix`."""
        root = _parse(self.files, file)
        for entry in root.config("nodes").configs():
            self._add(file.parent, prefix, entry)
        for link in root.config("connections").configs():
            source, source_port, dest, dest_port = (
                link.integer(key, 0) for key in ("sourceID", "sourcePort", "destID", "destPort")
            )
            self.links.append(
                (
                    (self._end(prefix, source, ("output", "input")), source_port),
                    (self._end(prefix, dest, ("input", "output")), dest_port),
                )
            )
        return root

    def _add(self, folder: PurePosixPath, prefix: str, entry: Config) -> None:
        node_id = f"{prefix}{entry.require('id')}"
        file = folder / entry.text("node_settings_file").replace("\\", "/")
        is_meta = entry.flag("node_is_meta")
        kind = entry.text("node_type", _META if is_meta else "NativeNode")
        if kind == _META:
            self.metas.add(node_id)
            self.read(file, f"{node_id}:")
            return
        settings = _parse(self.files, file)
        self.nodes[node_id] = Node(
            id=node_id,
            name=settings.text("node-name") or settings.text("name") or file.parent.name,
            kind=kind,
            factory="" if kind == _COMPONENT else settings.text("factory"),
            model=_rooted(settings.config("model")),
            variables=settings.config("variables"),
            factory_settings=settings.config("factory_settings"),
            inactive=settings.flag("isInactive"),
        )

    def _end(self, prefix: str, node: int, sides: tuple[str, str]) -> str:
        """The node's id; of a metanode, its side seen from outside, or from within it."""
        outside, within = sides
        if node == _BORDER:
            return f"{prefix}{within}"
        node_id = f"{prefix}{node}"
        return f"{node_id}:{outside}" if node_id in self.metas else node_id

    def connections(self) -> Iterator[Connection]:
        """What feeds each node, followed back through metanodes.

        A connection that comes from nowhere keeps the metanode's side as its source, which no
        node has, so that whoever plans the run sees it.
        """
        feeds = {dest: source for source, dest in self.links if _is_side(dest)}
        for source, dest in self.links:
            start, seen = source, set[_End]()
            while start in feeds and start not in seen:
                seen.add(start)
                start = feeds[start]
            if not _is_side(dest):
                yield Connection(*start, *dest)


def _is_side(end: _End) -> bool:
    return end[0].endswith(("input", "output"))


def _rooted(model: Config) -> Config:
    """The model with paths that start below it, as users see settings."""
    root = Config("model")
    root.children = model.copy().children
    _repath(root, "")
    return root


def _repath(config: Config, path: str) -> None:
    config.path = path
    for key, child in config.children.items():
        if isinstance(child, Config):
            _repath(child, f"{path}/{key}" if path else key)


def values(workflow: Workflow, given: Mapping[str, Variable]) -> dict[str, FlowVariable]:
    """The workflow's variables with `given` put over them.

    Raises ConfigurationError where `given` names one that the workflow doesn't have, which
    KNIME itself only warns about.
    """
    unknown = sorted(set(given) - set(workflow.variables))
    if unknown:
        known = ", ".join(sorted(workflow.variables)) or "none"
        msg = f"workflow {workflow.name!r} has no variable {', '.join(unknown)}; it has {known}"
        raise ConfigurationError(msg)
    merged = workflow.variables | dict(given)
    return {name: value for name, value in merged.items() if value is not None}
