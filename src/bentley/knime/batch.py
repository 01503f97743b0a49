"""Running a workflow by KNIME's own batch application: the process, its time limit and its end.

Exit code 0 is where the checking begins, not where it ends: an unknown variable, a Try/Catch or
a DB Writer set to go on after errors all give 0. The caller reads the landing table.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TextIO
from urllib.parse import quote, quote_plus, unquote, unquote_plus

import psutil
from pydantic import SecretStr

from bentley.domain.errors import ConfigurationError, RetriableError
from bentley.knime import process_tree
from bentley.knime.exit_codes import failure
from bentley.knime.launcher import command, discover_launcher
from bentley.knime.private_run import PrivateRun, private_run

_TAIL_LINES = 200
_LINE_CHARS = 8_192
_POLL_S = 0.2
_LAST_WORDS_S = 2.0
_OURS = ("BENTLEY_", "AIRFLOW_", "AIRBYTE_", "MLFLOW_", "KNIME_EXECUTABLE")
_PASSWORDS = (
    re.compile(r"[?&;]password=([^&;]+)", re.IGNORECASE),
    re.compile(r"//[^/@:]*:([^@]+)@"),
)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """A run that KNIME called a success: its time in seconds and the last lines of its log."""

    exit_code: int
    seconds: float
    log_tail: tuple[str, ...]


def run_batch(
    executable: Path,
    workflow: Path,
    variables: Mapping[str, str | int | float],
    *,
    workspace_parent: Path,
    timeout_s: float,
    credentials: Mapping[str, SecretStr] | None = None,
    on_line: Callable[[str], None] | None = None,
    memory: str = "4g",
    threads: int = 2,
    grace_s: float = 10.0,
) -> BatchResult:
    """Run the workflow once, in a private workspace below `workspace_parent`, and wait for it.

    `variables` go to KNIME as arguments; `credentials` are workflow variables (a JDBC address
    with its password) that no argument, environment or log line shows. `on_line` gets each line
    of the log, in this thread. After `timeout_s` seconds, and on any exception, KNIME is asked to
    cancel, and after `grace_s` its whole process tree is ended.

    Raises ConfigurationError, FatalError or RetriableError as exit_codes says, RetriableError
    when the time is up.
    """
    launcher = discover_launcher(executable)
    secrets = {name: value.get_secret_value() for name, value in (credentials or {}).items()}
    both = sorted(set(secrets) & set(variables))
    if both:
        msg = f"workflow variable {', '.join(both)} is given both openly and as a credential"
        raise ConfigurationError(msg)
    log = _Log(on_line, _hidden(secrets.values()))
    with private_run(workflow, workspace_parent, variables=variables, secrets=secrets) as run:
        arguments = command(
            launcher,
            run.workflow,
            variables,
            workspace=run.workspace,
            temporary=run.temporary,
            memory=memory,
            threads=threads,
        )
        started = time.monotonic()
        exit_code = _execute(arguments, run, log, timeout_s=timeout_s, grace_s=grace_s)
        seconds = time.monotonic() - started
    error = failure(exit_code, log.tail)
    if error is not None:
        raise error
    return BatchResult(exit_code, seconds, tuple(log.tail))


def _execute(
    arguments: list[str], run: PrivateRun, log: _Log, *, timeout_s: float, grace_s: float
) -> int:
    process = _start(arguments, run, log.hidden)
    # taken while the process is ours to reap, so that the id can't mean another one
    root = psutil.Process(process.pid)
    reader = threading.Thread(target=log.read, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        _wait(process, log, timeout_s)
    except BaseException:
        run.cancel()
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
        raise
    finally:
        process_tree.end(run.id, root, grace_s=grace_s)
        exit_code = process.wait()
        reader.join(_LAST_WORDS_S)
    log.pass_on(0)
    return exit_code


def _wait(process: subprocess.Popen[str], log: _Log, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while process.poll() is None:
        log.pass_on(_POLL_S)
        if time.monotonic() > deadline:
            msg = (
                f"KNIME did not end within {timeout_s:g} s and was cancelled; raise"
                " BENTLEY_STAGE_TIMEOUT_MINUTES, or process a shorter range at once"
            )
            raise RetriableError(msg)


def _start(arguments: list[str], run: PrivateRun, hidden: tuple[str, ...]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            arguments,
            # a prompt finds no one here, instead of waiting for an answer for ever
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            cwd=run.folder,
            env=_environment(run.id, hidden),
            # Ctrl-C is ours to pass on: KNIME gets the chance to cancel cleanly
            start_new_session=True,
        )
    except OSError as error:
        msg = (
            f"KNIME's launcher {arguments[0]!r} could not be started ({error.strerror});"
            " check KNIME_EXECUTABLE"
        )
        raise ConfigurationError(msg) from error


def _environment(run_id: str, hidden: tuple[str, ...]) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OURS) and not any(secret in value for secret in hidden)
    }
    inherited[process_tree.MARK] = run_id
    if sys.platform == "linux":
        # Java reads its arguments in the locale's encoding, and a service often has none
        inherited["LC_ALL"] = "C.UTF-8"
    return inherited


def _hidden(secrets: Iterable[str]) -> tuple[str, ...]:
    found: set[str] = set()
    for secret in secrets:
        found.add(secret)
        for pattern in _PASSWORDS:
            for password in pattern.findall(secret):
                found.add(password)
                # a driver may write it plain, or encode it in a way of its own
                for plain in (unquote(password), unquote_plus(password)):
                    encoders = product((quote, quote_plus), ("", "/"))
                    found |= {plain, *(encode(plain, safe=safe) for encode, safe in encoders)}
    # the longest first, so that a password inside an address doesn't spoil hiding the whole
    return tuple(sorted(filter(None, found), key=len, reverse=True))


@dataclass(slots=True)
class _Log:
    """KNIME's output, read by a thread, passed on by the caller's, with every secret struck out."""

    on_line: Callable[[str], None] | None
    hidden: tuple[str, ...]
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))
    lines: SimpleQueue[str] = field(default_factory=SimpleQueue)

    def read(self, stream: TextIO) -> None:
        """Read to the end; what exceeds a line's bound is dropped, so that memory stays bounded."""
        longest = max(map(len, self.hidden), default=0)
        with stream:
            while line := stream.readline(_LINE_CHARS):
                if not line.endswith("\n") and len(line) == _LINE_CHARS:
                    _skip_line(stream)
                    # the cut may have gone through a secret, which is then not recognized
                    line = self._struck(line)[: -longest or None] + " ..."
                self.lines.put(line.rstrip())

    def pass_on(self, wait_s: float) -> None:
        """Pass on what is there, waiting `wait_s` seconds for a first line."""
        with suppress(Empty):
            line = self.lines.get(timeout=wait_s) if wait_s else self.lines.get_nowait()
            while True:
                self._take(line)
                line = self.lines.get_nowait()

    def _take(self, line: str) -> None:
        if line:
            line = self._struck(line)
            self.tail.append(line)
            if self.on_line is not None:
                self.on_line(line)

    def _struck(self, line: str) -> str:
        for secret in self.hidden:
            line = line.replace(secret, "***")
        return line


def _skip_line(stream: TextIO) -> None:
    while (rest := stream.readline(_LINE_CHARS)) and not rest.endswith("\n"):
        pass
