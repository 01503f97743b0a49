"""One way to ask a server over HTTP: with time limits, and tried again where that may help."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import stamina

from bentley.domain.addresses import without_password
from bentley.domain.errors import FatalError, RetriableError

# An attempt that failed is told by the error of the last; each one as a log line is noise.
stamina.instrumentation.set_on_retry_hooks([])

ATTEMPTS = 4
_TIMEOUT_SECONDS = 10.0
_BLOCK_BYTES = 1 << 20
_LOCAL = {"127.0.0.1", "localhost", "::1"}
_TOO_MANY = {418, 429}
_FORBIDDEN = 403
_SERVER_FAULT = 500

_Result = TypeVar("_Result")


class _PassingError(RetriableError):
    """Worth another try within a few seconds; a wait that the server named is the caller's."""


def ask(url: str, *, what: str, setting: str, attempts: int = ATTEMPTS) -> httpx.Response:
    """GET an address; every answer but those of a passing trouble is the caller's to judge.

    `what` names the server in errors, `setting` the variable that holds its address. Raises
    RetriableError when it can't be reached or asks to wait (`retry_after` in seconds),
    FatalError when the address is none.
    """
    return _patiently(
        lambda: _answered(httpx.get, url, what=what, setting=setting), attempts=attempts
    )


def ask_json(url: str, *, what: str, setting: str, attempts: int = ATTEMPTS) -> tuple[int, Any]:
    """GET an address that answers in JSON; return the status with what it said.

    A success with an empty body, or with a page, is a passing trouble of what stands in between:
    it is tried again. Raises what `ask` raises.
    """

    def work() -> tuple[int, Any]:
        answer = _answered(httpx.get, url, what=what, setting=setting)
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

        def got(address: str, *, timeout: float, trust_env: bool) -> httpx.Response:
            with (
                httpx.Client(timeout=timeout, trust_env=trust_env) as client,
                client.stream("GET", address) as answer,
                path.open("wb") as file,
            ):
                if answer.is_success:
                    for block in answer.iter_bytes(_BLOCK_BYTES):
                        digest.update(block)
                        file.write(block)
                return answer

        answer = _answered(got, url, what=what, setting=setting)
        if not answer.is_success:
            msg = f"{what} at {without_password(url)} answered {answer.status_code}"
            raise _PassingError(msg)
        return digest.hexdigest()

    return _patiently(fetch, attempts=ATTEMPTS)


def _patiently(work: Callable[[], _Result], *, attempts: int) -> _Result:
    for attempt in stamina.retry_context(on=_PassingError, attempts=attempts, wait_max=5.0):
        with attempt:
            return work()
    raise AssertionError  # the last attempt raises


def _outside(url: str) -> bool:
    """Whether a proxy may have a say: it has no business with this machine's own addresses."""
    return httpx.URL(url).host not in _LOCAL


def _answered(
    get: Callable[..., httpx.Response], url: str, *, what: str, setting: str
) -> httpx.Response:
    shown = without_password(url)
    try:
        answer = get(url, timeout=_TIMEOUT_SECONDS, trust_env=_outside(url))
    except httpx.RequestError as error:
        msg = f"{what} at {shown} can't be reached ({error})"
        raise _PassingError(msg) from error
    except httpx.InvalidURL as error:
        msg = f"{shown} is not a web address: set {setting}"
        raise FatalError(msg) from error
    code = answer.status_code
    if code in _TOO_MANY:
        wait = answer.headers.get("Retry-After", "")
        msg = f"{what} at {shown} answered {code}: it asks for fewer requests"
        raise RetriableError(msg, retry_after=float(wait) if wait.isdecimal() else None)
    if code >= _SERVER_FAULT or code == _FORBIDDEN:
        msg = f"{what} at {shown} answered {code}"
        raise _PassingError(msg)
    return answer
