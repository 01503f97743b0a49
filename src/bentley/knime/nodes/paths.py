"""The file choosers of KNIME's reader and writer nodes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit
from zipfile import ZipFile

from bentley.domain.errors import ConfigurationError
from bentley.knime.xmlconfig import Config


def chosen_path(chooser: Config, folder: Path) -> Path:
    """The file that a file chooser names, relative ones from the workflow's folder.

    An archive counts as unpacked where it lies, so that `../in.csv` in `/x/flow.knwf` with the
    workflow `flow` is `/x/in.csv`, as it is for the folder `/x/flow`.
    """
    location = chooser.config("path")
    kind = location.text("file_system_type", "LOCAL")
    path = location.text("path")
    if not path:
        msg = f"setting '{chooser.path}/path' is empty"
        raise ConfigurationError(msg)
    if kind == "CUSTOM_URL":
        return Path(unquote(urlsplit(path).path))
    archive = _archive(folder)
    base = archive.with_name(folder.name) if archive else folder
    if kind == "RELATIVE" and location.text("file_system_specifier") == "knime.workflow.data":
        base /= "data"
    return Path(os.path.normpath(base / path))


def bundled(path: Path, folder: Path) -> bytes | None:
    """The content of a file that an archived workflow brings along; None where it has no such."""
    archive = _archive(folder)
    if archive is None or not path.is_relative_to(archive.with_name(folder.name)):
        return None
    member = path.relative_to(archive.parent).as_posix()
    with ZipFile(archive) as files:
        return files.read(member) if member in files.namelist() else None


def _archive(folder: Path) -> Path | None:
    """The archive that holds the workflow's folder, if any: `/x/flow.knwf` of `/x/flow.knwf/flow`."""
    return folder.parent if folder.parent.is_file() else None


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
