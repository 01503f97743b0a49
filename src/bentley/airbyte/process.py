"""A source as a process: its lines in bounded memory, its time limits, its certain end."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil

from bentley.airbyte import guard
from bentley.airbyte.masking import SECRET_NAME
from bentley.domain.errors import ConfigurationError, FatalError, RetriableError

_CHUNK = 1 << 18
_PIPE_BYTES = 1 << 20
_LONGEST_LINE = 64 << 20
_TAIL_BYTES = 16_384
_END_SECONDS = 10.0
_OWN = re.compile(r"^(BENTLEY|AIRFLOW|MLFLOW|KNIME)_")


class SourceProcess:
    """A command below a guard that ends it with us; use it as a context.

    `idle_timeout_s` bounds the wait for the next output, `timeout_s` the whole run; the time
    that the caller takes between lines counts for the latter alone.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        timeout_s: float | None,
        idle_timeout_s: float | None,
    ) -> None:
        self._command = command
        self._env = _environment(env)
        self._idle = idle_timeout_s
        self._limit = timeout_s
        self._tail = bytearray()

    def __enter__(self) -> Self:
        """Start the command; ConfigurationError where it isn't there, at the first line."""
        self._deadline = None if self._limit is None else time.monotonic() + self._limit
        # -I: the guard must not import what the environment or the folder puts in its way
        self._process = subprocess.Popen(
            [sys.executable, "-I", guard.__file__, *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._env,
            start_new_session=True,
            bufsize=0,
            pipesize=_PIPE_BYTES,
        )
        self._drain = threading.Thread(target=self._keep_tail, daemon=True)
        self._drain.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the whole tree, whatever it is doing."""
        process = self._process
        streams = (process.stdin, process.stdout, process.stderr)
        if process.stdin is not None:
            process.stdin.close()  # the guard's signal to end all below it
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            _kill_tree(process.pid)
            process.wait()
        self._drain.join(_END_SECONDS)
        for stream in streams:
            if stream is not None:
                stream.close()

    @property
    def stderr(self) -> str:
        """The end of what it wrote to standard error."""
        return self._tail.decode(errors="replace").strip()

    def lines(self) -> Iterator[bytes]:
        """Each line of standard output, without its newline.

        What stands behind the last newline comes last, with `complete` set to False.

        Raises RetriableError past a time limit, FatalError for a line beyond 64 MB.
        """
        self.complete = True
        rest = b""
        for chunk in self._chunks():
            lines = (rest + chunk).split(b"\n") if b"\n" in chunk else [rest + chunk]
            rest = lines.pop()
            yield from lines
            if len(rest) > _LONGEST_LINE:
                message = f"the source sent a line of more than {_LONGEST_LINE >> 20} MB"
                raise FatalError(message)
        if rest.strip():
            self.complete = False
            yield rest

    def wait(self) -> int:
        """Exit code, with 128 + n for one ended by signal n."""
        try:
            code = self._process.wait(self._wait_seconds())
        except subprocess.TimeoutExpired:
            raise self._late() from None
        self._drain.join(_END_SECONDS)
        if code == guard.NOT_STARTED and "can't be started" in self.stderr:
            raise ConfigurationError(self.stderr)
        return code if code >= 0 else 128 - code

    def _chunks(self) -> Iterator[bytes]:
        if self._process.stdout is None:  # pragma: no cover - we asked for a pipe
            return
        descriptor = self._process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while True:
                if not selector.select(self._wait_seconds()):
                    raise self._late()
                chunk = os.read(descriptor, _CHUNK)
                if not chunk:
                    return
                yield chunk

    def _wait_seconds(self) -> float | None:
        left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        limits = [limit for limit in (left, self._idle) if limit is not None]
        return min(limits, default=None)

    def _late(self) -> RetriableError:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return RetriableError(f"the source took longer than {self._limit:g} s and was ended")
        return RetriableError(f"the source said nothing for {self._idle:g} s and was ended")

    def _keep_tail(self) -> None:
        stream = self._process.stderr
        if stream is None:  # pragma: no cover - we asked for a pipe
            return
        with contextlib.suppress(OSError, ValueError):
            while chunk := os.read(stream.fileno(), _CHUNK):
                self._tail += chunk
                del self._tail[:-_TAIL_BYTES]


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Our environment without our own settings and secrets, which are no source's business."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not _OWN.match(name) and not SECRET_NAME.search(name)
    }
    for name in ("NO_PROXY", "no_proxy"):  # an exchange on loopback is never behind a proxy
        ours[name] = ",".join(filter(None, (ours.get(name), "127.0.0.1", "localhost")))
    return ours | dict(extra)


def _kill_tree(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (*root.children(recursive=True), root):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def folder_command(folder: Path) -> tuple[str, ...]:
    """The command that runs a connector folder by this Python's kit."""
    return (sys.executable, "-P", "-m", "bentley.airbyte.kit", str(folder))
