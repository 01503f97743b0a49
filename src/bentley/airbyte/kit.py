"""Runs a connector folder by the kit as Airbyte's own image does, wherever the folder lies.

`python -m bentley.airbyte.kit FOLDER spec|check|discover|read ...` speaks the Airbyte protocol
on stdout. The kit's own command can't serve here: it answers `spec` with a general one unless
the manifest lies at a fixed path of Airbyte's image. It also takes a cost off the start, and two
off each record, that the kit would pay: see `_without_docs` and `_lighten`.
"""

from __future__ import annotations

import gc
import importlib.util
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any


def _without_docs(cls: type) -> dict[str, str]:  # noqa: ARG001 - the name is the kit's
    """Find no text for a message's fields, for which the source of each would be parsed.

    It serves JSON schemas of the protocol alone, which nobody asks for, and takes a second.
    """
    return {}


with suppress(ImportError):  # before the kit describes its messages, as long as it does so
    import attributes_doc

    attributes_doc.get_attributes_doc = _without_docs

from airbyte_cdk.entrypoint import AirbyteEntrypoint, launch  # noqa: E402
from airbyte_cdk.sources.declarative.concurrent_declarative_source import (  # noqa: E402
    ConcurrentDeclarativeSource,
)
from airbyte_cdk.sources.types import StreamSlice  # noqa: E402
from airbyte_cdk.utils.yaml_loader import safe_load_yaml  # noqa: E402

_GC_THRESHOLD = (100_000, 50, 100)
_COMPONENTS = ("components", "source_declarative_manifest.components")


def main(arguments: list[str]) -> None:
    """Run one protocol command on the connector folder named first; exits as the kit does."""
    _lighten()
    folder, command = Path(arguments[0]), arguments[1:]
    components = folder / "components.py"
    if components.is_file():
        _register(components)
    launch(_source(folder / "manifest.yaml", command), command)


def _lighten() -> None:
    """Keep a slice's hash, and the collector away from what lives to the end.

    The kit hashes a record's slice twice for each record, each time as SHA-256 over JSON; a
    slice never changes. Records make no cycles, so the collector's rounds find nothing.
    """
    computed = StreamSlice.__hash__

    def kept(stream_slice: StreamSlice) -> int:
        found: int | None = stream_slice.__dict__.get("_kept_hash")
        if found is None:
            found = stream_slice.__dict__["_kept_hash"] = computed(stream_slice)
        return found

    StreamSlice.__hash__ = kept  # type: ignore[method-assign, assignment]
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLD)


def _register(path: Path) -> None:
    """Make the folder's code importable under the names that manifests use."""
    spec = importlib.util.spec_from_file_location(_COMPONENTS[0], path)
    if spec is None or spec.loader is None:
        message = f"{path} can't be loaded as a Python module"
        raise ImportError(message)
    module = importlib.util.module_from_spec(spec)
    for name in _COMPONENTS:  # before it runs: dataclasses look their module up
        sys.modules[name] = module
    spec.loader.exec_module(module)


def _source(manifest: Path, command: list[str]) -> Any:
    parsed = AirbyteEntrypoint.parse_args(command)
    kit = ConcurrentDeclarativeSource
    config_path = getattr(parsed, "config", None)
    catalog_path = getattr(parsed, "catalog", None)
    state_path = getattr(parsed, "state", None)
    return kit(
        config=kit.read_config(config_path) if config_path else None,
        catalog=kit.read_catalog(catalog_path) if catalog_path else None,
        state=kit.read_state(state_path) if state_path else [],
        source_config=safe_load_yaml(manifest.read_text(encoding="utf-8")),
        config_path=config_path,
        custom_components_trusted=True,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
