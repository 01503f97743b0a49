"""One way to ask a server over HTTP: with time limits, and tried again where that may help."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import httpx
import stamina
from pydantic import SecretStr

from bentley.domain.addresses import without_password
from bentley.domain.errors import ConfigurationError, FatalError, RetriableError
from bentley.sources.pace import Pace

# An attempt that failed is told by the error of the last; each one as a log line is noise.
stamina.instrumentation.set_on_retry_hooks([])

# They log whole addresses and headers, and some servers take their key in the address.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)

ATTEMPTS = 4
PATIENCE_SECONDS = 65.0
"""So long a patient caller waits where a server asks it to; a longer wait is handed on."""

_TIMEOUT_SECONDS = 10.0
_WHOLE_SECONDS = 120.0
_FILE_SECONDS = 1_800.0
_BLOCK_BYTES = 1 << 20
_LOCAL = {"127.0.0.1", "localhost", "::1"}
_TOO_MANY = {418, 429}
_FORBIDDEN = 403
_NO_KEY = 401
_NOT_FOUND = 404
_SERVER_FAULT = 500
_EXCERPT = 200

_Result = TypeVar("_Result")


class _PassingError(RetriableError):
    """Worth another try: after `retry_after` seconds where the server named a short wait."""


class Answer(NamedTuple):
    """What a server said: its status, its JSON (None for what is none), and its first words."""

    status: int
    body: Any
    excerpt: str


@dataclass(frozen=True)
class Server:
    """A server as it is asked: what each request bears, and how errors speak of it.

    `what` names it in errors, `setting` the variable that holds its address `base`. The `key` is
    struck out of every message. A wait that the server names is slept through up to `patience` seconds;
    `wait` stands in where it asks for fewer requests and names none. `pace` holds all processes
    together to the server's limit. `refusals` are words by which a 403 speaks of the key itself,
    in lower case.
    """

    what: str
    setting: str
    attempts: int = ATTEMPTS
    base: str = ""
    key: SecretStr | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    patience: float = 0.0
    wait: float | None = None
    pace: Pace | None = None
    refusals: tuple[str, ...] = ()

    def ask(self, path: str, params: Mapping[str, str] | None = None) -> httpx.Response:
        """GET a path below `base`; what is no passing trouble is the caller's to judge.

        Raises RetriableError when the server can't be reached or asks to wait (`retry_after` in
        seconds), FatalError when the address is none.
        """

        def get(address: str, **limits: Any) -> httpx.Response:
            return _get(address, params=params, headers=dict(self.headers), **limits)

        url = self.base + path
        return _patiently(lambda: _answered(get, url, self), attempts=self.attempts)

    def read(self, path: str, params: Mapping[str, str] | None = None) -> Answer:
        """GET a path below `base` and read what came as JSON, its numbers to the digit.

        Raises what `ask` raises, ConfigurationError where the key is refused, and FatalError where
        there is no such server at the address.
        """
        answer = self.ask(path, params)
        if self._refuses_key(answer):
            known = "is not set" if self.key is None else "is refused"
            msg = (
                f"{self.what} answered {answer.status_code}: its key {known}; check it "
                f"({self.excerpt(answer)})"
            )
            raise ConfigurationError(msg)
        if answer.status_code == _FORBIDDEN:  # said by the server itself, see `ask`
            msg = (
                f"{self.what} does not allow this with the key's plan ({self.excerpt(answer)}): "
                "ask for less, take another plan, or leave this source out"
            )
            raise FatalError(msg)
        try:
            body = json.loads(answer.text, parse_float=str, parse_int=str, parse_constant=str)
        except ValueError:
            body = None
        if answer.status_code == _NOT_FOUND and not isinstance(body, dict):
            msg = (
                f"{self.what} has nothing at {self.struck(without_password(self.base))} "
                f"({self.excerpt(answer)}): is {self.setting} its address?"
            )
            raise FatalError(msg)
        return Answer(answer.status_code, body, self.excerpt(answer))

    def _refuses_key(self, answer: httpx.Response) -> bool:
        if answer.status_code != _FORBIDDEN:
            return answer.status_code == _NO_KEY
        said = answer.text.lower()
        return any(words in said for words in self.refusals)

    def unread(self, answer: Answer) -> RetriableError:
        """Make the error for an answer that holds nothing that is known of this server."""
        said = "with what is not its usual answer"
        return RetriableError(f"{self.what} answered {answer.status} {said}: {answer.excerpt}")

    def limited(self, answer: Answer, wait: float) -> RetriableError:
        """Make the error for a limit that is told in words; `wait` in seconds."""
        msg = f"{self.what} asks for fewer requests: {answer.excerpt}"
        return RetriableError(msg, retry_after=wait)

    def struck(self, text: str) -> str:
        """Return a text without the secrets that it may repeat."""
        return text if self.key is None else text.replace(self.key.get_secret_value(), "***")

    def excerpt(self, answer: httpx.Response) -> str:
        """Quote the beginning of what was answered, as it may be shown."""
        try:
            text = answer.text
        except httpx.StreamError:  # a download that is no success is not read
            return ""
        # Struck before it is cut: half a secret is one still.
        return repr(self.struck(text)[:_EXCERPT])


def ask(url: str, *, what: str, setting: str, attempts: int = ATTEMPTS) -> httpx.Response:
    """GET an address that takes neither key nor headers; see `Server.ask`."""
    return Server(what, setting, attempts).ask(url)


def ask_json(url: str, *, what: str, setting: str, attempts: int = ATTEMPTS) -> tuple[int, Any]:
    """GET an address that answers in JSON; return the status with what it said.

    A success with an empty body, or with a page, is a passing trouble of what stands in between:
    it is tried again. Raises what `ask` raises.
    """

    def work() -> tuple[int, Any]:
        answer = _answered(_get, url, Server(what, setting))
        try:
            return answer.status_code, answer.json()
        except ValueError as error:
            if not answer.is_success:  # a refusal needs no words
                return answer.status_code, None
            msg = (
                f"{what} at {without_password(url)} answered {answer.status_code} with no JSON but "
                f"{answer.text[:80]!r}: is {setting} its address?"
            )
            raise _PassingError(msg) from error

    return _patiently(work, attempts=attempts)


def download(url: str, path: Path, *, what: str, setting: str) -> str:
    """Fetch a file to `path`, and return the SHA-256 of what came.

    Raises what `ask` raises, and RetriableError for an answer that is no success.
    """

    def fetch() -> str:
        digest = hashlib.sha256()

        def got(address: str, **limits: Any) -> httpx.Response:
            with (
                _opened(address, seconds=_FILE_SECONDS, **limits) as answer,
                path.open("wb") as file,
            ):
                if answer.is_success:
                    for block in answer.iter_bytes(_BLOCK_BYTES):
                        digest.update(block)
                        file.write(block)
                return answer

        answer = _answered(got, url, Server(what, setting))
        if not answer.is_success:
            msg = f"{what} at {without_password(url)} answered {answer.status_code}"
            raise _PassingError(msg)
        return digest.hexdigest()

    return _patiently(fetch, attempts=ATTEMPTS)


class _Bounded(httpx.SyncByteStream):
    """An answer's body that must have come by a deadline.

    httpx limits each read alone: a server that drips would hold its reader for ever.
    """

    def __init__(self, stream: httpx.SyncByteStream, deadline: float, seconds: float) -> None:
        self._stream = stream
        self._deadline = deadline
        self._seconds = seconds

    def __iter__(self) -> Iterator[bytes]:
        for block in self._stream:
            if time.monotonic() > self._deadline:
                msg = f"its answer has not come to an end within {self._seconds:g} s"
                raise httpx.ReadTimeout(msg)
            yield block

    def close(self) -> None:
        self._stream.close()


@contextmanager
def _opened(
    address: str, *, seconds: float, timeout: float, trust_env: bool, **request: Any
) -> Iterator[httpx.Response]:
    deadline = time.monotonic() + seconds
    with (
        httpx.Client(timeout=timeout, trust_env=trust_env) as client,
        client.stream("GET", address, **request) as answer,
    ):
        body = cast("httpx.SyncByteStream", answer.stream)
        answer.stream = _Bounded(body, deadline, seconds)
        yield answer


def _get(address: str, **request: Any) -> httpx.Response:
    with _opened(address, seconds=_WHOLE_SECONDS, **request) as answer:
        answer.read()
        return answer


def _patiently(work: Callable[[], _Result], *, attempts: int) -> _Result:
    # The attempts are the bound, for a wait that the server names may be longer than any clock's.
    for attempt in stamina.retry_context(
        on=_worth_another, attempts=attempts, timeout=None, wait_max=5.0
    ):
        with attempt:
            return work()
    raise AssertionError  # the last attempt raises


def _worth_another(error: Exception) -> bool | float:
    """Whether to try again; a number is the wait in seconds."""
    if not isinstance(error, _PassingError):
        return False
    return True if error.retry_after is None else error.retry_after


def _outside(url: str) -> bool:
    """Whether a proxy may have a say: it has no business with this machine's own addresses."""
    return httpx.URL(url).host not in _LOCAL


def _answered(get: Callable[..., httpx.Response], url: str, server: Server) -> httpx.Response:
    address = server.struck(without_password(url))
    shown = f"{server.what} at {address}"
    if server.pace is not None:
        server.pace.take(server.what, patience=server.patience)
    try:
        answer = get(url, timeout=_TIMEOUT_SECONDS, trust_env=_outside(url))
    except httpx.RequestError as error:
        msg = f"{shown} can't be reached ({server.struck(str(error))})"
        raise _PassingError(msg) from error
    except httpx.InvalidURL as error:
        msg = f"{address} is not a web address: set {server.setting}"
        raise FatalError(msg) from error
    code = answer.status_code
    named = _wished(answer)
    kind = _PassingError if named is not None and named <= server.patience else RetriableError
    if code in _TOO_MANY:
        msg = f"{shown} answered {code}: it asks for fewer requests {server.excerpt(answer)}"
        raise kind(msg.rstrip(), retry_after=server.wait if named is None else named)
    if code >= _SERVER_FAULT or (code == _FORBIDDEN and not _in_json(answer)):
        msg = f"{shown} answered {code}"
        if named is None:
            raise _PassingError(msg)
        raise kind(msg, retry_after=named)
    return answer


def _in_json(answer: httpx.Response) -> bool:
    """Whether the server itself speaks: what stands before it refuses with a page."""
    return "json" in answer.headers.get("Content-Type", "")


def _wished(answer: httpx.Response) -> float | None:
    """The wait in seconds that Retry-After names, as a number or as a date; None without one."""
    said = answer.headers.get("Retry-After", "")
    if said.isascii() and said.isdecimal():
        return float(said)
    try:
        until = parsedate_to_datetime(said)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
