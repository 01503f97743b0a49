"""What `bentley doctor` sees of the machine: Python, packages, settings, home and ports."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import psutil
from dotenv import dotenv_values
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from bentley.domain.addresses import without_password
from bentley.domain.clock import iso
from bentley.services import ports as port_checks
from bentley.services import trees
from bentley.services.findings import Finding, State
from bentley.services.homes import Holder
from bentley.settings import TIMES, Settings
from bentley.stages.layout import ROOT
from bentley.universe import LISTS

LOCK = ROOT / "requirements.lock"

_KEY_PACKAGES = ("apache-airflow", "airbyte-cdk", "mlflow", "polars", "sqlalchemy")
_OLDEST, _NEWEST = (3, 11), (3, 13)
_PIN = re.compile(r"^[A-Za-z0-9][^\s\\]*==[^\\]*")
_LISTED = 6
_MB = 2**20
_LITTLE, _TOO_LITTLE = 2048 * _MB, 256 * _MB
_MEMORY = 1536 * _MB


def python() -> Iterator[Finding]:
    """Check this Python and the installed packages against the lock file."""
    version = platform.python_version()
    fits = _OLDEST <= sys.version_info[:2] <= _NEWEST
    yield Finding(
        "versions",
        "python",
        "ok" if fits else "problem",
        f"{version} at {sys.executable}",
        "" if fits else "install Python 3.11, 3.12 or 3.13 and run make PYTHON=python3.12 setup",
    )
    installed = {
        str(canonicalize_name(found.metadata["Name"])): found.version
        for found in metadata.distributions()
        if found.metadata["Name"]
    }
    named = [
        f"{name} {installed.get(canonicalize_name(name), 'missing')}" for name in _KEY_PACKAGES
    ]
    yield Finding("versions", "packages", "ok", ", ".join(named))
    yield _locked(installed)


def _locked(installed: Mapping[str, str]) -> Finding:
    try:
        pins = list(_pins(LOCK.read_text(encoding="utf-8")))
    except OSError as error:
        return Finding(
            "versions",
            "lock",
            "warning",
            f"{LOCK} can't be read ({error.strerror}), so nothing was compared",
            "run from a checkout of the repository",
        )
    missing = [pin.name for pin in pins if canonicalize_name(pin.name) not in installed]
    other = [
        f"{pin.name} is {seen}, not {str(pin.specifier).removeprefix('==')}"
        for pin in pins
        if (seen := installed.get(canonicalize_name(pin.name)))
        and not pin.specifier.contains(seen, prereleases=True)
    ]
    if not missing and not other:
        return Finding(
            "versions", "lock", "ok", f"all {len(pins)} packages are as {LOCK.name} pins them"
        )
    said = ([f"missing: {_some(missing)}"] if missing else []) + ([_some(other)] if other else [])
    return Finding(
        "versions",
        "lock",
        "problem" if missing else "warning",
        "; ".join(said),
        "run make clean setup",
    )


def _pins(text: str) -> Iterator[Requirement]:
    """Yield the pins of a lock file that apply to this Python and platform."""
    for line in text.splitlines():
        pin = _PIN.match(line)
        if pin is None:
            continue
        requirement = Requirement(pin[0].strip())
        if requirement.marker is None or requirement.marker.evaluate():
            yield requirement


def _some(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def settings(settings: Settings) -> Iterator[Finding]:
    """Say what is set, where, and what is a default; a secret's value is never repeated."""
    file = Path(".env")
    lines = {name.upper(): value for name, value in dotenv_values(file).items()}
    environment = {name.upper(): value for name, value in os.environ.items()}
    fields = {_variable(name, field): name for name, field in type(settings).model_fields.items()}
    defaults: list[tuple[str, str]] = []
    unset: list[tuple[str, str]] = []
    for variable, name in fields.items():
        if environment.get(variable):
            source = "environment"
        elif lines.get(variable) and variable not in environment:
            source = ".env"
        elif settings.universe and name in {*LISTS, "universe"} & settings.model_fields_set:
            source = "universe"
        elif name in settings.model_fields_set and _differs(settings, name):
            source = "command line"
        else:
            (defaults if getattr(settings, name) is not None else unset).append((variable, name))
            continue
        yield Finding("settings", source, "ok", f"{variable}={_shown(settings, name)}")
    said = [f"{variable}={_shown(settings, name)}" for variable, name in defaults]
    yield Finding("settings", "default", "ok", " ".join(said))
    if unset:
        yield Finding("settings", "not set", "ok", " ".join(variable for variable, _ in unset))
    unknown = [
        name
        for name in dict.fromkeys([*environment, *lines])
        if name.startswith("BENTLEY_")
        and name not in fields
        and name not in {trees.RUN_ID, trees.RUN_HOME, trees.RUN_SUPERVISOR}
    ]
    if unknown:
        yield Finding(
            "settings",
            "unknown",
            "warning",
            f"{', '.join(unknown)}: no setting is called so, and nothing reads it",
            "compare it with the settings listed in README.md",
        )


def _variable(name: str, field: FieldInfo) -> str:
    return str(field.validation_alias or f"BENTLEY_{name.upper()}")


def _differs(settings: Settings, name: str) -> bool:
    return bool(getattr(settings, name) != type(settings).model_fields[name].default)


def _shown(settings: Settings, name: str) -> str:
    value = getattr(settings, name)
    if isinstance(value, SecretStr):
        return "(set, not shown)"
    if isinstance(value, tuple):
        return ",".join(value)
    if name in TIMES and value is not None:
        return iso(value)
    return without_password(str(value))


def home(settings: Settings, held_by: Holder | None) -> Iterator[Finding]:
    """Check the folder of data, what is free on its disk and in memory, and who holds it."""
    place = settings.home
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield Finding(
            "home",
            "folder",
            "problem",
            f"{place}: {there} is no folder that this user can write",
            "set BENTLEY_HOME to a folder that can be written",
        )
    else:
        yield Finding(
            "home", "folder", "ok", f"{place}{'' if place.exists() else ' (not yet made)'}"
        )
    free = shutil.disk_usage(there).free
    state: State = "problem" if free < _TOO_LITTLE else "warning" if free < _LITTLE else "ok"
    remedy = "" if state == "ok" else "free some space, or set BENTLEY_HOME to another disk"
    yield Finding("home", "disk", state, f"{_size(free)} free", remedy)
    yield _memory(held_by)
    if held_by is not None:
        yield Finding("home", "run", "ok", f"a run is up in this home (pid {held_by.pid})")
        return
    left = sorted(process.pid for process in trees.marked(trees.RUN_HOME, str(place)))
    if left:
        pids = ", ".join(map(str, left))
        yield Finding(
            "home",
            "run",
            "warning",
            f"no run is up, but a killed one left processes behind: {pids}",
            "the next bentley run ends them",
        )
    else:
        yield Finding("home", "run", "ok", "no run is up in this home")


def _memory(held_by: Holder | None) -> Finding:
    available = psutil.virtual_memory().available
    short = held_by is None and available < _MEMORY
    remedy = "end other programs: Airflow and MLflow take about 1.5 GB" if short else ""
    detail = f"{_size(available)} available"
    return Finding("home", "memory", "warning" if short else "ok", detail, remedy)


def _size(amount: int) -> str:
    return f"{amount / 2**30:.1f} GB" if amount >= 2**30 else f"{amount / _MB:.0f} MB"


def ports(settings: Settings, held_by: Holder | None) -> Iterator[Finding]:
    """Check the ports of the two pages: free, our own run's, or somebody else's."""
    wanted = {"airflow": settings.airflow_port}
    if settings.mlflow_tracking_uri is None:
        wanted["mlflow"] = settings.mlflow_port
    for purpose, port in wanted.items():
        variable = port_checks.SETTINGS[purpose]
        if purpose == "mlflow" and port == settings.airflow_port:
            detail = f"{port} is set for both Airflow and MLflow"
            yield Finding("ports", purpose, "problem", detail, f"set {variable} to another port")
        elif port_checks.is_free(port):
            yield Finding("ports", purpose, "ok", f"{port} is free")
        else:
            yield _taken(settings, purpose, port, held_by)


def _taken(settings: Settings, purpose: str, port: int, held_by: Holder | None) -> Finding:
    pid = _listener(port)
    if pid is not None and _is_ours(pid, settings.home, held_by):
        return Finding("ports", purpose, "ok", f"{port} is our own run's (pid {pid})")
    variable = port_checks.SETTINGS[purpose]
    by = "another user's process" if pid is None else f"{_name(pid)} (pid {pid})"
    detail = f"{port} is taken by {by}"
    return Finding("ports", purpose, "problem", detail, f"stop its holder or set {variable}")


def _listener(port: int) -> int | None:
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.Error:
        return None
    for connection in connections:
        if connection.status != psutil.CONN_LISTEN or not connection.laddr:
            continue
        if connection.laddr.port == port and connection.pid:
            return int(connection.pid)
    return None


def _is_ours(pid: int, home: Path, held_by: Holder | None) -> bool:
    if held_by is None:
        return False
    process = psutil.Process
    try:
        if process(pid).environ().get(trees.RUN_HOME) == str(home):
            return True
    except (psutil.Error, OSError):
        pass  # a process may hide its environment; its session can't be hidden
    return any(member.pid == pid for member in trees.of_sessions(held_by.sessions))


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "a process"
