"""A folder of its own for each KNIME run: workspace, temporary files, and a copy of the workflow.

The copy is how a password gets to KNIME: the value of a workflow variable is written into the
copy's `workflow.knime`, where KNIME keeps its defaults. No argument and no environment variable
holds it, so no process list can show it. The folder is readable by its owner alone and is
removed after the run, whatever became of it: by a watchdog where this process is killed, and by
the next run where the watchdog was killed with it.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

from bentley.domain.errors import ConfigurationError
from bentley.knime import process_tree, xmlconfig
from bentley.knime.launcher import undefined

_PREFIX = "knime-run-"
_OWNER = "owner.json"
_WORKFLOW = "workflow.knime"
_LOCK = ".knimeLock"
_SAME_START_S = 1.0
_SWEEP_GRACE_S = 5.0
_YOUNG_S = 60.0


@dataclass(frozen=True, slots=True)
class PrivateRun:
    """The folders of one run; `id` marks its processes."""

    id: str
    folder: Path
    workflow: Path

    @property
    def workspace(self) -> Path:
        """Eclipse's `-data`."""
        return self.folder / "workspace"

    @property
    def temporary(self) -> Path:
        """Java's temporary folder, where KNIME puts table data."""
        return self.folder / "tmp"

    def cancel(self) -> None:
        """Ask KNIME to cancel the run: it looks for this file every second."""
        with suppress(OSError):
            (self.workspace / ".cancel").touch()


@contextmanager
def private_run(
    workflow: Path,
    parent: Path,
    *,
    variables: Mapping[str, object],
    secrets: Mapping[str, str],
) -> Iterator[PrivateRun]:
    """Make the folder below `parent`, with the secrets in the workflow's copy; remove it after.

    `workflow` is a `.knwf` or a workflow folder. Folders that a killed run left are removed
    first, with the processes that it left.
    Raises ConfigurationError for a workflow that is none, or that doesn't define a variable.
    """
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent)).resolve()
    try:
        with _watched(folder):
            started = psutil.Process().create_time()
            owner = {"pid": os.getpid(), "started": started, "host": platform.node()}
            (folder / _OWNER).write_text(json.dumps(owner), encoding="utf-8")
            run = PrivateRun(folder.name, folder, _copy(workflow, folder / "workflow"))
            run.workspace.mkdir()
            run.temporary.mkdir()
            _fill_in(run.workflow / _WORKFLOW, variables, secrets)
            yield run
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _watched(folder: Path) -> Iterator[None]:
    """Have another process clear the run up, should this one die."""
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "bentley.knime.watchdog", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # it outlives what ends our process group
        start_new_session=True,
    ) as watchdog:
        try:
            yield
        finally:
            watchdog.kill()


def clear(folder: Path) -> None:
    """End the processes of a run whose owner has died, and remove its folder."""
    process_tree.end(folder.name, grace_s=_SWEEP_GRACE_S)
    shutil.rmtree(folder, ignore_errors=True)


def sweep(parent: Path) -> int:
    """Remove the folders and end the processes of runs whose owner has died; how many there were."""
    stale = [folder for folder in parent.glob(f"{_PREFIX}*") if not _owned(folder)]
    for folder in stale:
        clear(folder)
    return len(stale)


def _owned(folder: Path) -> bool:
    try:
        owner = json.loads((folder / _OWNER).read_text(encoding="utf-8"))
        if owner["host"] != platform.node():
            return True
        started = psutil.Process(int(owner["pid"])).create_time()
    except psutil.AccessDenied:
        return True
    except psutil.Error:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        # a folder just made has no owner file yet: leave the young ones alone
        return _young(folder)
    return bool(abs(started - float(owner["started"])) < _SAME_START_S)


def _young(folder: Path) -> bool:
    with suppress(OSError):
        return time.time() - folder.stat().st_mtime < _YOUNG_S
    return True


def _copy(workflow: Path, target: Path) -> Path:
    if workflow.is_dir():
        shutil.copytree(workflow, target / workflow.name, ignore=shutil.ignore_patterns(_LOCK))
    elif workflow.is_file():
        _unzip(workflow, target)
    else:
        msg = f"there is no workflow at {workflow}; name a .knwf file or a workflow folder"
        raise ConfigurationError(msg)
    found = [folder for folder in target.iterdir() if (folder / _WORKFLOW).is_file()]
    if len(found) != 1:
        msg = f"{workflow} holds no workflow: exactly one folder in it must have a {_WORKFLOW}"
        raise ConfigurationError(msg)
    return found[0]


def _unzip(archive: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as members:
            for member in members.infolist():
                path = PurePosixPath(member.filename)
                if path.is_absolute() or ".." in path.parts:
                    msg = f"{archive} holds the unsafe path {member.filename!r}"
                    raise ConfigurationError(msg)
                if path.name != _LOCK:
                    members.extract(member, target)
    except zipfile.BadZipFile:
        msg = f"{archive} is no zip archive; export the workflow from KNIME again"
        raise ConfigurationError(msg) from None


def _fill_in(file: Path, variables: Mapping[str, object], secrets: Mapping[str, str]) -> None:
    document = xmlconfig.parse(file.read_bytes(), name=_WORKFLOW)
    defined = {
        config.text("name"): config for config in document.config("workflow_variables").configs()
    }
    undefined((*variables, *secrets), defined)
    if not secrets:
        return
    for name, value in secrets.items():
        if not isinstance(defined[name].value("value", ""), str | None):
            msg = f"workflow variable {name!r} is no text in {_WORKFLOW}; make it a String in KNIME"
            raise ConfigurationError(msg)
        defined[name].put("value", value, "xstring")
    file.unlink()
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(xmlconfig.write(document))
