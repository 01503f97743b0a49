"""The file choosers of KNIME's reader and writer nodes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bentley.domain.errors import ConfigurationError
from bentley.knime.xmlconfig import Config


def chosen_path(chooser: Config, folder: Path) -> Path:
    """The file that a file chooser names, relative ones from the workflow's folder."""
    location = chooser.config("path")
    kind = location.text("file_system_type", "LOCAL")
    path = location.text("path")
    if not path:
        msg = f"setting '{chooser.path}/path' is empty"
        raise ConfigurationError(msg)
    if kind == "RELATIVE":
        return _base(chooser, folder) / path
    if kind == "CUSTOM_URL":
        return Path(unquote(urlsplit(path).path))
    return Path(path).expanduser() if Path(path).is_absolute() else folder / path


def path_lacks(chooser: Config) -> Iterable[str]:
    """Places and choices of files that this engine can't go to."""
    location = chooser.config("path")
    kind, where = location.text("file_system_type", "LOCAL"), location.text("file_system_specifier")
    path = location.text("path")
    if kind == "RELATIVE" and where not in {"knime.workflow", "knime.workflow.data"}:
        yield f"a path relative to {where!r} is not supported"
    elif kind == "CUSTOM_URL" and urlsplit(path).scheme != "file":
        yield f"the address {urlsplit(path).scheme!r} in '{chooser.path}/path' is not supported"
    elif kind not in {"LOCAL", "RELATIVE", "CUSTOM_URL"}:
        yield f"the file system {kind!r} in '{chooser.path}/path' is not supported"
    mode = chooser.config("filter_mode").text("filter_mode", "FILE")
    if mode != "FILE":
        yield f"setting '{chooser.path}/filter_mode' = {mode!r} is not supported"


def _base(chooser: Config, folder: Path) -> Path:
    where = chooser.config("path").text("file_system_specifier")
    return folder / "data" if where == "knime.workflow.data" else folder
