"""Runs any source that speaks the Airbyte protocol on stdout and hands over its rows in batches.

A batch carries the states that cover all rows up to it: commit the rows, then save the states.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from bentley.airbyte import protocol
from bentley.airbyte.failures import SourceConfigurationError, SourceRetriableError, verdict
from bentley.airbyte.masking import Masker
from bentley.airbyte.process import SourceProcess, folder_command
from bentley.airbyte.protocol import Failure
from bentley.domain.errors import ConfigurationError, FatalError

OnLog = Callable[[str, str], None]

COMMAND_SECONDS = 300.0
IDLE_SECONDS = 600.0
_LONGEST_LOG = 4_000
_KIT_SUMMARY = "Concurrent read failure"


@dataclass(frozen=True)
class Source:
    """A command that speaks the protocol, and what its environment needs beyond ours."""

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Rows of one stream, as the source gave them, and the states that cover all up to here."""

    stream: str
    rows: list[dict[str, Any]]
    states: tuple[dict[str, Any], ...] = ()


def declarative(folder: Path) -> Source:
    """A low-code connector's folder as a source; ConfigurationError where it is none."""
    if not (folder / "manifest.yaml").is_file():
        message = f"{folder} holds no manifest.yaml; name the folder of an Airbyte connector"
        raise ConfigurationError(message)
    return Source(folder_command(folder.resolve()))


def spec(source: Source) -> dict[str, Any]:
    """What the source can be told: its ConnectorSpecification."""
    return _answer(source, "spec", "SPEC", "spec", {})


def check(source: Source, config: Mapping[str, Any]) -> None:
    """Ask the source whether `config` serves; raises ConfigurationError with its reason."""
    status = _answer(source, "check", "CONNECTION_STATUS", "connectionStatus", config)
    if status.get("status") != "SUCCEEDED":
        reason = Masker(config)(str(status.get("message") or "it gives no reason"))
        message = f"the source refuses its configuration: {reason}"
        raise SourceConfigurationError(message)


def discover(source: Source, config: Mapping[str, Any]) -> dict[str, Any]:
    """The streams that the source offers: its AirbyteCatalog."""
    return _answer(source, "discover", "CATALOG", "catalog", config)


def read(
    source: Source,
    config: Mapping[str, Any],
    streams: Sequence[str],
    state: Sequence[Mapping[str, Any]] | None = None,
    *,
    catalog: Mapping[str, Any] | None = None,
    connector_spec: Mapping[str, Any] | None = None,
    batch_rows: int = 10_000,
    on_log: OnLog | None = None,
    timeout_s: float | None = None,
    idle_timeout_s: float | None = IDLE_SECONDS,
) -> Generator[Batch, None, None]:
    """Yield the source's rows; commit each batch before asking for the next.

    Without `catalog` the source is asked for it, which starts it once more. `connector_spec`
    names secrets beyond those that their names betray. Closing the iterator ends the source.

    Raises, after every row was handed over, a SourceError of the kind that the source's
    failures amount to, with `failures` naming each; RetriableError past a time limit.
    """
    masker = Masker(config, connector_spec)
    configured, missing = protocol.configured_catalog(
        discover(source, config) if catalog is None else catalog, streams
    )
    if missing:
        message = f"the source offers no stream {', '.join(missing)}"
        raise ConfigurationError(message)
    files = {"config": config, "catalog": configured}
    if state:
        files["state"] = list(state)  # type: ignore[assignment]
    reading = _Reading(batch_rows, masker, on_log)
    with (
        _arguments("read", files) as arguments,
        SourceProcess(
            (*source.command, *arguments),
            source.env,
            timeout_s=timeout_s,
            idle_timeout_s=idle_timeout_s,
        ) as process,
    ):
        yield from reading.batches(process)


class _Reading:
    """One run of `read`: what is buffered, what was said, what went wrong."""

    def __init__(self, batch_rows: int, masker: Masker, on_log: OnLog | None) -> None:
        self._limit = batch_rows
        self._mask = masker
        self._on_log = on_log
        self._buffers: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._failures: dict[tuple[str, str | None], Failure] = {}
        self._summary: Failure | None = None
        self._unfinished: set[str] = set()
        self._cut = False

    def batches(self, process: SourceProcess) -> Iterator[Batch]:
        buffered = 0
        for line in process.lines():
            message = self.message(line, process)
            if message is None:
                continue
            if message["type"] == "RECORD":
                record = message["record"]
                buffer = self._buffers[record["stream"]]
                buffer.append(record["data"])
                buffered += 1
                if buffered >= self._limit:
                    yield self._take(record["stream"])
                    buffered = sum(map(len, self._buffers.values()))
            elif message["type"] == "STATE":
                yield from self._flush(message["state"])
                buffered = 0
            else:
                self.note(message)
        yield from self._flush(None)
        self.finish(process)

    def message(self, line: bytes, process: SourceProcess) -> dict[str, Any] | None:
        try:
            message = protocol.parse(line)
        except FatalError as error:
            if process.complete:
                raise FatalError(self._mask(str(error))) from None
            self._cut = True
            return None
        if message is None and line.strip():
            if not process.complete and line.lstrip().startswith(b"{"):
                self._cut = True
            self._log("INFO", line.decode(errors="replace"))
        return message

    def _take(self, stream: str) -> Batch:
        return Batch(stream, self._buffers.pop(stream))

    def _flush(self, state: dict[str, Any] | None) -> Iterator[Batch]:
        """Hand over all that is buffered; the state goes with the last, which it covers."""
        rest = [self._take(stream) for stream in list(self._buffers)]
        if state is None:
            yield from rest
            return
        *before, last = rest or [Batch(_stream(state), [])]
        yield from before
        yield Batch(last.stream, last.rows, (state,))

    def note(self, message: dict[str, Any]) -> None:
        if message["type"] == "LOG":
            log = message.get("log") or {}
            self._log(str(log.get("level", "INFO")), str(log.get("message", "")))
        elif message["type"] == "TRACE":
            self._trace(message.get("trace") or {})

    def _trace(self, trace: dict[str, Any]) -> None:
        if trace.get("type") == "STREAM_STATUS":
            status = trace.get("stream_status") or {}
            name = str((status.get("stream_descriptor") or {}).get("name"))
            if status.get("status") == "INCOMPLETE":
                self._unfinished.add(name)
            elif status.get("status") == "COMPLETE":
                self._unfinished.discard(name)
        elif trace.get("type") == "ERROR":
            said = protocol.failure(trace)
            failure = Failure(
                self._mask(said.message), said.stream, said.kind, self._mask.deep(said.detail)
            )
            if (trace.get("error") or {}).get("internal_message") == _KIT_SUMMARY:
                self._summary = failure
            else:
                self._failures.setdefault((failure.message, failure.stream), failure)

    def finish(self, process: SourceProcess) -> None:
        code = process.wait()
        failures = list(self._failures.values()) or [f for f in (self._summary,) if f]
        error = verdict(failures, code=code, stderr=self._mask(process.stderr), cut=self._cut)
        if error is not None:
            raise error
        if self._unfinished:
            names = ", ".join(sorted(self._unfinished))
            message = f"the source left {names} incomplete and gave no reason"
            raise SourceRetriableError(message)

    def _log(self, level: str, text: str) -> None:
        if self._on_log is not None:
            self._on_log(level, self._mask(text)[:_LONGEST_LOG])


def _stream(state: Mapping[str, Any]) -> str:
    descriptor = (state.get("stream") or {}).get("stream_descriptor") or {}
    return str(descriptor.get("name") or "")


def _answer(
    source: Source, command: str, kind: str, field_name: str, config: Mapping[str, Any]
) -> dict[str, Any]:
    """The one message of `kind` that a short command gives; errors as for `read`."""
    files = {} if command == "spec" else {"config": config}
    masker = Masker(config)
    reading = _Reading(1, masker, None)
    answer: dict[str, Any] | None = None
    with (
        _arguments(command, files) as arguments,
        SourceProcess(
            (*source.command, *arguments),
            source.env,
            timeout_s=COMMAND_SECONDS,
            idle_timeout_s=None,
        ) as process,
    ):
        for line in process.lines():
            message = reading.message(line, process)
            if message is not None and message["type"] == kind:
                answer = message[field_name]
            elif message is not None:
                reading.note(message)
        if answer is None:
            reading.finish(process)
            text = f"the source gave no {kind} to {command}"
            raise FatalError(text)
    return answer


@contextmanager
def _arguments(command: str, files: Mapping[str, Any]) -> Iterator[list[str]]:
    """A command's arguments; what they hold goes by files that only we can read."""
    with tempfile.TemporaryDirectory(prefix="bentley-airbyte-") as folder:
        arguments = [command]
        for name, content in files.items():
            path = Path(folder) / f"{name}.json"
            path.touch(mode=0o600)
            path.write_bytes(orjson.dumps(content))
            arguments += [f"--{name}", str(path)]
        yield arguments
