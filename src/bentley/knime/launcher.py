r"""Finding KNIME's launcher, and saying to it what to run: the command line of the batch application.

The rules of quoting are those of KNIME's own tokenizer: a `-workflow.variable` is split on
commas, `"` and `'` quote, and inside quotes a backslash escapes (`\n` is a newline there).
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from bentley.domain.errors import ConfigurationError

APPLICATION = "org.knime.product.KNIME_BATCH_APPLICATION"
_NAMES = ("knime", "knime.exe", "Knime")
_IN_APP = ("Contents/MacOS/Knime", "Contents/MacOS/knime")
_SPECIAL = frozenset(",'\"\\\n\t ")
_MEMORY = re.compile(r"[1-9][0-9]*[kmgKMG]")
_INT = range(-(2**31), 2**31)
_SERVERS = ("jdbc:mysql:", "jdbc:mariadb:")


def discover_launcher(path: Path) -> Path:
    """The launcher that `path` means: `knime`, `knime.exe`, a macOS bundle, or a folder with one.

    Raises ConfigurationError where there is none, or it may not be executed.
    """
    found = _find(path.expanduser())
    if found is None:
        msg = (
            f"KNIME_EXECUTABLE is {str(path)!r}, where there is no KNIME launcher;"
            " name knime (Linux), knime.exe (Windows), the KNIME .app (macOS) or the folder"
            " that holds it, or unset KNIME_EXECUTABLE to run the embedded engine"
        )
        raise ConfigurationError(msg)
    if not os.access(found, os.X_OK):
        msg = f"KNIME_EXECUTABLE means {str(found)!r}, which may not be executed; chmod +x it"
        raise ConfigurationError(msg)
    return found.absolute()


def _find(path: Path) -> Path | None:
    if path.is_file():
        return path
    if path.is_dir():
        names = _IN_APP if path.suffix == ".app" else _NAMES
        bundles = [] if path.suffix == ".app" else sorted(path.glob("[Kk][Nn][Ii][Mm][Ee]*.app"))
        candidates = [path / name for name in names]
        candidates += [bundle / name for bundle in reversed(bundles) for name in _IN_APP]
        return next((candidate for candidate in candidates if candidate.is_file()), None)
    if path.parent == Path():
        on_path = shutil.which(str(path))
        return Path(on_path) if on_path else None
    return None


def require_server_database(jdbc_url: str) -> None:
    """Refuse a database that KNIME, a process of its own, can't share with us.

    Raises ConfigurationError naming BENTLEY_WAREHOUSE_URL, never the address itself, which
    may hold a password.
    """
    if not jdbc_url.startswith(_SERVERS):
        kind = ":".join(jdbc_url.split(":", 2)[:2]) if jdbc_url.startswith("jdbc:") else "no JDBC"
        msg = (
            f"KNIME_EXECUTABLE needs a database server, and the warehouse is {kind}; set"
            " BENTLEY_WAREHOUSE_URL to mysql+pymysql://USER:PASSWORD@HOST:3307/mansa_bot,"
            " or unset KNIME_EXECUTABLE to run the embedded engine"
        )
        raise ConfigurationError(msg)


def command(
    launcher: Path,
    workflow_folder: Path,
    variables: Mapping[str, str | int | float],
    *,
    workspace: Path,
    temporary: Path,
    memory: str,
    threads: int,
) -> list[str]:
    """The whole command line; nothing in it is secret.

    `memory` is Java's notation (`4g`), `threads` how many nodes may run at once. The launcher
    appends our VM arguments to those of its own `knime.ini`, where the last one wins.
    Raises ConfigurationError for a name, a value or a memory size that KNIME can't take.
    """
    if not _MEMORY.fullmatch(memory):
        msg = f"KNIME's memory {memory!r} is not written like 4g or 512m"
        raise ConfigurationError(msg)
    if threads < 1:
        msg = f"KNIME needs at least 1 thread, not {threads}"
        raise ConfigurationError(msg)
    return [
        *(str(launcher), "-nosplash", "-consoleLog", "--launcher.suppressErrors"),
        *("--launcher.appendVmargs", "-data", str(workspace), "-application", APPLICATION),
        *(f"-workflowDir={workflow_folder}", "-reset", "-nosave", "-failonloaderror"),
        *(variable_argument(name, value) for name, value in variables.items()),
        *("-vmargs", f"-Xmx{memory}", f"-Dorg.knime.core.maxThreads={threads}"),
        f"-Djava.io.tmpdir={temporary}",
    ]


def variable_argument(name: str, value: str | float) -> str:
    """`-workflow.variable=name,value,type`, quoted so that KNIME reads back exactly this value.

    Raises ConfigurationError for what can't be passed: a boolean, NaN, a NUL, a whole number
    beyond 32 bits (KNIME knows String, int and double here).
    """
    if not name or "\0" in name:
        msg = f"{name!r} can't be the name of a workflow variable"
        raise ConfigurationError(msg)
    text, kind = _written(name, value)
    return f"-workflow.variable={_quoted(name)},{_quoted(text)},{kind}"


def _written(name: str, value: str | float) -> tuple[str, str]:
    if isinstance(value, str) and "\0" not in value:
        return value, "String"
    if isinstance(value, int) and not isinstance(value, bool) and value in _INT:
        return str(value), "int"
    if isinstance(value, float) and math.isfinite(value):
        return repr(value), "double"
    msg = (
        f"workflow variable {name!r} is {value!r}: KNIME takes text, whole numbers of 32 bits"
        " and finite doubles; pass a larger number as text"
    )
    raise ConfigurationError(msg)


def _quoted(text: str) -> str:
    if text and not _SPECIAL.intersection(text):
        return text
    for sign, escape in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n")):
        text = text.replace(sign, escape)
    return f'"{text}"'


def undefined(variables: Iterable[str], defined: Iterable[str]) -> None:
    """Refuse variables that the workflow doesn't define: KNIME itself would only warn.

    Raises ConfigurationError naming them and those that it defines.
    """
    known = sorted(defined)
    unknown = sorted(set(variables) - set(known))
    if unknown:
        msg = (
            f"the workflow defines no variable {', '.join(unknown)} (it defines:"
            f" {', '.join(known) or 'none'}); KNIME would ignore what it is given"
        )
        raise ConfigurationError(msg)
