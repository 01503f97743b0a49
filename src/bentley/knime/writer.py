"""Writes workflows that KNIME opens: node settings, `workflow.knime`, and the archive of both."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bentley.knime import xmlconfig
from bentley.knime.workflow import Variable
from bentley.knime.xmlconfig import Config, Value

_VENDOR = "KNIME AG, Zurich, Switzerland"
_CREATED_BY = "5.3.3.v202411031102"
_ZIP_TIME = (2024, 1, 1, 0, 0, 0)
_UNIX = 3
_CLASSES = {str: "STRING", int: "INTEGER", float: "DOUBLE", bool: "BOOLEAN"}


class Bundle(NamedTuple):
    """Where KNIME finds a node: with a wrong one it reports the extension as missing."""

    name: str
    symbol: str
    feature: str
    feature_symbol: str


@dataclass
class NodeSpec:
    """One node of the workflow; `after` lists what feeds its ports 1, 2, ... as (node, port)."""

    name: str
    factory: str
    bundle: Bundle
    note: str
    model: Config = field(default_factory=lambda: Config("model"))
    overrides: dict[tuple[str, ...], str] = field(default_factory=dict)
    after: tuple[tuple[int, int], ...] = ()
    outputs: int = 1


def settings(spec: NodeSpec) -> Config:
    """A node's `settings.xml`."""
    root = Config("settings.xml")
    root.put("node_file", "settings.xml")
    root.sub("flow_stack")
    root.sub("internal_node_subsettings").put("memory_policy", "CacheSmallInMemory")
    root.children["model"] = spec.model
    _variables(root.sub("variables"), spec.overrides)
    root.put("customDescription", spec.note).put("state", "CONFIGURED")
    values: dict[str, Value] = {
        "factory": spec.factory,
        "node-name": spec.name,
        "node-bundle-name": spec.bundle.name,
        "node-bundle-symbolic-name": spec.bundle.symbol,
        "node-bundle-vendor": _VENDOR,
        "node-bundle-version": _CREATED_BY,
        "node-feature-name": spec.bundle.feature,
        "node-feature-symbolic-name": f"{spec.bundle.feature_symbol}.feature.group",
        "node-feature-vendor": _VENDOR,
        "node-feature-version": _CREATED_BY,
    }
    root.update(values)
    root.sub("factory_settings")
    root.put("name", spec.name).put("hasContent", False).put("isInactive", False)
    for port in range(1, spec.outputs + 1):
        child = root.sub("ports").sub(f"port_{port}")
        child.put("index", port).put("port_dir_location", None)
    filestores = root.sub("filestores")
    filestores.put("file_store_location", None).put("file_store_id", None)
    return root


def _variables(config: Config, overrides: dict[tuple[str, ...], str]) -> None:
    if not overrides:
        return
    config.put("version", "V_2019_09_13")
    for path, name in overrides.items():
        at = config.sub("tree")
        for key in path:
            at = at.sub(key)
        at.put("used_variable", name).put("exposed_variable", None)


def workflow(
    specs: Sequence[NodeSpec], variables: Mapping[str, Variable], description: str
) -> Config:
    """`workflow.knime`."""
    root = Config("workflow.knime")
    root.put("created_by", _CREATED_BY).put("created_by_nightly", False)
    root.put("version", "5.1.0").put("name", None)
    author = root.sub("authorInformation")
    for who, when in (("authored-by", "authored-when"), ("lastEdited-by", "lastEdited-when")):
        author.put(who, "Bentley").put(when, "2024-01-01 00:00:00 +0000")
    root.put("customDescription", description)
    root.put("state", "CONFIGURED")
    for number, (name, value) in enumerate(variables.items()):
        variable = root.sub("workflow_variables").sub(f"Var_{number}")
        variable.put("name", name).put("class", _CLASSES[type(value)])
        variable.put("value", value)
    root.sub("workflow_credentials")
    for number, spec in enumerate(specs, 1):
        node = root.sub("nodes").sub(f"node_{number}")
        node.put("id", number).put("node_settings_file", f"{folder(spec, number)}/settings.xml")
        node.put("node_is_meta", False).put("node_type", "NativeNode")
        node.put("ui_classname", "org.knime.core.node.workflow.NodeUIInformation")
        bounds = [120 * (number - 1), 0 if number > 1 else 120, -1, -1]
        node.sub("ui_settings").put_array("extrainfo.node.bounds", bounds)
    links = [
        (source, source_port, number, port)
        for number, spec in enumerate(specs, 1)
        for port, (source, source_port) in enumerate(spec.after, 1)
    ]
    for number, link in enumerate(links):
        connection = root.sub("connections").sub(f"connection_{number}")
        for key, value in zip(("sourceID", "sourcePort", "destID", "destPort"), link, strict=True):
            connection.put(key, value)
    return root


def folder(spec: NodeSpec, number: int) -> str:
    """A node's folder, as KNIME names it."""
    return f"{spec.name} (#{number})"


def archive(
    name: str, specs: Sequence[NodeSpec], variables: Mapping[str, Variable], description: str = ""
) -> bytes:
    """The `.knwf`: the same arguments give the same bytes."""
    root = workflow(specs, variables, description)
    files = {f"{name}/workflow.knime": xmlconfig.write(root)}
    for number, spec in enumerate(specs, 1):
        files[f"{name}/{folder(spec, number)}/settings.xml"] = xmlconfig.write(settings(spec))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for path in sorted(files):
            info = zipfile.ZipInfo(path, _ZIP_TIME)
            info.create_system = _UNIX
            info.external_attr = 0o644 << 16
            # stored, not deflated: the bytes must not depend on the zlib at hand
            target.writestr(info, files[path], zipfile.ZIP_STORED)
    return buffer.getvalue()
