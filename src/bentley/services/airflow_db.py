"""Airflow's own SQLite database: made or migrated only when needed, and never half-way."""

from __future__ import annotations

import fcntl
import importlib.util
import re
import secrets
import sqlite3
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from bentley.domain.errors import ConfigurationError, FatalError
from bentley.services import airflow

_REVISION = re.compile(r"^(revision|down_revision)\s*(?::[^=]+)?=\s*(.+)$", re.MULTILINE)
_WORD = re.compile(r"[\"']([0-9a-z_]+)[\"']")
_TAIL_LINES = 20


def migrate(env: Mapping[str, str]) -> bool:
    """Bring the database of `airflow.environment` to the installed Airflow; say if it was needed.

    The work is done on a copy that replaces the file at the end, so a kill changes nothing. Of
    two commands at once one does it, and the other waits for it.
    Raises ConfigurationError for a file that is no database or one of a newer Airflow, and
    FatalError with the end of the output where the migration fails.
    """
    file = Path(env["AIRFLOW_HOME"]) / "airflow.db"
    head, known = installed_revisions()
    if current_revision(file) == head:
        return False
    with file.with_name("airflow.db.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed when the process ends, however it ends
        return _migrate(file, env, head, known)


def _migrate(file: Path, env: Mapping[str, str], head: str, known: frozenset[str]) -> bool:
    current = current_revision(file)
    if current == head:
        return False
    if current is not None and current not in known:
        msg = (
            f"{file} was made by another Airflow (schema {current} is not known to this one); "
            "install that version again, or move the file away: it holds Airflow's run history, "
            "no market data"
        )
        raise ConfigurationError(msg)
    for stale in file.parent.glob("airflow.db.new-*"):
        stale.unlink()
    draft = file.with_name(f"airflow.db.new-{secrets.token_hex(4)}")
    if current is not None:
        with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(draft)) as copy:
            source.backup(copy)
    _run_migration(draft, env)
    with closing(sqlite3.connect(draft)) as database:
        # readers and the writer stop waiting for each other; the file keeps the mode
        database.execute("PRAGMA journal_mode=WAL")
    for sidecar in ("-wal", "-shm"):
        file.with_name(file.name + sidecar).unlink(missing_ok=True)
    draft.replace(file)
    return True


def _run_migration(draft: Path, env: Mapping[str, str]) -> None:
    result = subprocess.run(
        airflow.command("db", "migrate"),
        env={
            **env,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": airflow.database_url(draft),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
        errors="replace",
    )
    if result.returncode != 0:
        tail = "\n".join(result.stdout.splitlines()[-_TAIL_LINES:])
        msg = f"airflow db migrate ended with exit code {result.returncode}:\n{tail}"
        raise FatalError(msg)


def current_revision(file: Path) -> str | None:
    """Return the schema that the file has, None where there is none yet.

    Raises ConfigurationError where the file is not a readable database.
    """
    if not file.exists() or file.stat().st_size == 0:
        return None
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True)) as database:
            tables = database.execute(
                "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
            ).fetchone()
            if tables is None:
                return None
            row = database.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError as error:
        msg = (
            f"{file} can't be read ({error}); move it away and start again: it holds Airflow's "
            "run history, no market data"
        )
        raise ConfigurationError(msg) from error
    return None if row is None else str(row[0])


def installed_revisions() -> tuple[str, frozenset[str]]:
    """Return the newest schema of the installed Airflow, and all that it knows.

    Read off the migration files: asking Airflow takes seconds. Raises ConfigurationError where
    it is not installed.
    """
    spec = importlib.util.find_spec("airflow")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        versions = Path(folder) / "migrations" / "versions"
        if versions.is_dir():
            return _head(versions)
    msg = "apache-airflow is not installed in this Python; run `make setup`"
    raise ConfigurationError(msg)


def _head(versions: Path) -> tuple[str, frozenset[str]]:
    revisions: set[str] = set()
    below: set[str] = set()
    for path in versions.glob("*.py"):
        for name, value in _REVISION.findall(path.read_text(encoding="utf-8")):
            (revisions if name == "revision" else below).update(_WORD.findall(value))
    heads = revisions - below
    if len(heads) != 1:
        msg = f"{versions} has {len(heads)} newest schemas instead of one; run `make setup` again"
        raise ConfigurationError(msg)
    return heads.pop(), frozenset(revisions)
