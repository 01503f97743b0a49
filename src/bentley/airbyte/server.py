"""A client of an Airbyte server's public API, own or cloud: starts, watches and cancels a sync.

The contract is Airbyte's published one: a token for an application's credentials, then /jobs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import httpx
import stamina

from bentley.airbyte.masking import Masker
from bentley.domain.addresses import without_password
from bentley.domain.clock import parse_time
from bentley.domain.errors import ConfigurationError, FatalError, RetriableError
from bentley.settings import Settings

# An attempt that failed is told by the error of the last; each one as a log line is noise.
stamina.instrumentation.set_on_retry_hooks([])

SUCCEEDED = "succeeded"
FAILED = "failed"
CANCELLED = "cancelled"
ENDED = frozenset({SUCCEEDED, FAILED, CANCELLED})
ACTIVE = ("running", "incomplete", "pending", "queued")
"""A job is `incomplete` between an attempt that failed and the next one."""

_ATTEMPTS = 4
_TIMEOUT_SECONDS = 20.0
_RENEWED_EARLY_SECONDS = 10.0
_LOCAL = {"127.0.0.1", "localhost", "::1"}
_REFUSED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_LONGEST_WORDS = 300


class _PassingError(RetriableError):
    """Worth another try within a few seconds; a wait that the server named is the caller's."""


@dataclass(frozen=True)
class Job:
    """A job as the server tells of it; `own` where it was our request that started it.

    `started` is in UTC milliseconds, by the server's clock.
    """

    id: int
    status: str
    rows: int | None = None
    own: bool = True
    started: int | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status in ENDED


class AirbyteServer:
    """Calls one server about one connection; a context manager that closes its own.

    Every call raises RetriableError where the server is out of reach, busy (429, with its
    `retry_after`) or broken (5xx), and ConfigurationError naming the setting where it refuses.
    Loopback is never asked through a proxy.
    """

    def __init__(self, url: str, connection_id: str, client_id: str, client_secret: str) -> None:
        self.connection_id = connection_id
        self.clock: int | None = None
        """The server's own time at its last answer, in UTC milliseconds cut to the second."""
        self.attempts = 0
        """How often the last call was made."""
        self._url = url
        self._shown = without_password(url)
        self._login = {"client_id": client_id, "client_secret": client_secret}
        self._token: str | None = None
        self._renewed_at = 0.0
        self._http = httpx.Client(
            timeout=_TIMEOUT_SECONDS, trust_env=httpx.URL(url).host not in _LOCAL
        )

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Make the client that the settings ask for; ConfigurationError where some are missing."""
        secret = settings.airbyte_client_secret
        given = {
            "AIRBYTE_CONNECTION_ID": settings.airbyte_connection_id,
            "AIRBYTE_CLIENT_ID": settings.airbyte_client_id,
            "AIRBYTE_CLIENT_SECRET": secret and secret.get_secret_value(),
        }
        missing = [name for name, value in given.items() if not value]
        if missing:
            msg = (
                f"{' and '.join(missing)} must be set, too, for an Airbyte server to do the syncs: "
                "take them from an application of that server (Settings, Applications)"
            )
            raise ConfigurationError(msg)
        return cls(settings.airbyte_api_url, *(str(value) for value in given.values()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def login(self) -> int | None:
        """Get a token, and tell the server's clock."""
        for attempt in stamina.retry_context(on=_PassingError, attempts=_ATTEMPTS, wait_max=5.0):
            with attempt:
                self._fetch_token()
        return self.clock

    def start(self) -> Job:
        """Start a sync, or find the one that is at work already (`own` is False then).

        Its state is for `job` to judge: one that nobody knows is at work, too.
        """
        body = {"connectionId": self.connection_id, "jobType": "sync"}
        answer = self._call("POST", "/jobs", json=body)
        if answer.status_code != HTTPStatus.CONFLICT:
            return _job(self._said(answer))
        attempts = self.attempts
        for status in ACTIVE:
            found = self._jobs(status=status, limit=1)
            self.attempts = attempts
            if found:
                return replace(_job(found[0]), own=False)
        msg = (
            f"Airbyte at {self._shown} starts no sync now ({self._words(answer)}), and lists none "
            "that is at work: a reset or a refresh may be running, or a job may just have ended"
        )
        raise RetriableError(msg)

    def job(self, job_id: int, *, patiently: bool = False) -> Job:
        """Tell how far a job is; asked once, unless `patiently`: whoever waits asks again anyway.

        Raises FatalError for a state that is in no version of the contract that is known here.
        """
        attempts = _ATTEMPTS if patiently else 1
        found = _job(self._said(self._call("GET", f"/jobs/{job_id}", attempts=attempts)))
        if found.status not in ENDED and found.status not in ACTIVE:
            known = ", ".join(sorted({*ACTIVE, *ENDED}))
            msg = f"job {found.id} of Airbyte is in the state {found.status!r}; known are {known}"
            raise FatalError(msg)
        return found

    def cancel(self, job_id: int) -> None:
        """Ask for a job's end."""
        self._said(self._call("DELETE", f"/jobs/{job_id}", attempts=2))

    def check(self) -> None:
        """Ask for the connection, to see that it, the address and the credentials are right."""
        self._said(self._call("GET", f"/connections/{self.connection_id}"))

    def _jobs(self, **filters: Any) -> list[Any]:
        sought = {"connectionId": self.connection_id, "jobType": "sync", **filters}
        found = self._said(self._call("GET", "/jobs", params=sought)).get("data")
        return found if isinstance(found, list) else []

    def _call(
        self, method: str, path: str, *, attempts: int = _ATTEMPTS, **sent: Any
    ) -> httpx.Response:
        for attempt in stamina.retry_context(on=_PassingError, attempts=attempts, wait_max=5.0):
            with attempt:
                self.attempts = attempt.num
                answer = self._authorized(method, path, **sent)
                if answer.status_code in _REFUSED:
                    # It may have expired ahead of its time: a new one decides.
                    self._token = None
                    answer = self._authorized(method, path, **sent)
                if answer.status_code in _REFUSED:
                    msg = (
                        f"Airbyte at {self._shown} refuses a new token, too "
                        f"({self._words(answer)}): may the application of AIRBYTE_CLIENT_ID use "
                        "the connection of AIRBYTE_CONNECTION_ID?"
                    )
                    raise ConfigurationError(msg)
                return answer
        raise AssertionError  # the last attempt raises

    def _authorized(self, method: str, path: str, **sent: Any) -> httpx.Response:
        if self._token is None or time.monotonic() >= self._renewed_at:
            self._fetch_token()
        headers = {"Authorization": f"Bearer {self._token}"}
        return self._send(method, path, headers=headers, **sent)

    def _fetch_token(self) -> None:
        form = {"grant_type": "client_credentials", **self._login}
        answer = self._send("POST", "/applications/token", data=form)
        if answer.is_client_error and answer.status_code != HTTPStatus.NOT_FOUND:
            msg = (
                f"Airbyte at {self._shown} gives no token ({self._words(answer)}): check "
                "AIRBYTE_CLIENT_ID and AIRBYTE_CLIENT_SECRET"
            )
            raise ConfigurationError(msg)
        try:
            said = answer.raise_for_status().json()
            self._token = str(said["access_token"])
            lasts = float(said.get("expires_in", "inf"))
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError, AttributeError):
            msg = (
                f"{self._shown} answered {answer.status_code} and gave no token: is AIRBYTE_API_URL "
                "the address of Airbyte's API, like http://host:8000/api/public/v1?"
            )
            raise ConfigurationError(msg) from None
        self._renewed_at = time.monotonic() + lasts - _RENEWED_EARLY_SECONDS

    def _send(self, method: str, path: str, **sent: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, self._url + path, **sent)
        except httpx.RequestError as error:
            msg = f"Airbyte at {self._shown} can't be reached ({error})"
            raise _PassingError(msg) from error
        self.clock = _date(answer) or self.clock
        code = answer.status_code
        late = code in {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
        if late or answer.is_server_error:
            wait = _wished(answer)
            msg = f"Airbyte at {self._shown} answered {code}: {self._words(answer)}"
            if wait is not None or code == HTTPStatus.TOO_MANY_REQUESTS:
                raise RetriableError(msg, retry_after=wait)
            raise _PassingError(msg)
        return answer

    def _said(self, answer: httpx.Response) -> dict[str, Any]:
        """Read an answer's JSON; all that is sent of the user's is the connection's id."""
        if answer.is_client_error:
            words, code = self._words(answer), answer.status_code
            msg = (
                f"Airbyte at {self._shown} answered {code} ({words}): check AIRBYTE_CONNECTION_ID "
                f"{self.connection_id!r}"
            )
            raise ConfigurationError(msg)
        try:
            said = answer.json() if answer.is_success else None
        except ValueError:
            said = None
        if not isinstance(said, dict):
            msg = f"Airbyte at {self._shown} answered {answer.status_code} with no JSON"
            raise RetriableError(msg)
        return said

    def _words(self, answer: httpx.Response) -> str:
        """Say what the server said of its error, in a line and without a secret."""
        try:
            said = answer.json()
            words = [said.get(name) for name in ("title", "detail", "message")]
            words.append((said.get("data") or {}).get("message"))
        except (ValueError, AttributeError):
            words = [answer.text]
        mask = Masker(self._login | {"access_token": self._token or ""})
        text = ": ".join(str(word) for word in words if word) or answer.reason_phrase
        return " ".join(mask(text).split())[:_LONGEST_WORDS]


def _job(said: dict[str, Any]) -> Job:
    try:
        rows = said.get("rowsSynced")
        found = Job(
            int(said["jobId"]),
            str(said["status"]),
            None if rows is None else int(rows),
            started=_started(said.get("startTime")),
        )
    except (KeyError, TypeError, ValueError):
        msg = f"Airbyte describes a job without its jobId and status: {sorted(said)}"
        raise FatalError(msg) from None
    return found


def _started(said: Any) -> int | None:
    try:
        return parse_time(str(said))
    except ConfigurationError:
        return None


def _wished(answer: httpx.Response) -> float | None:
    """The wait in seconds that Retry-After names, as a number or as a date; None without one."""
    said = answer.headers.get("Retry-After", "")
    if said.isascii() and said.isdecimal():
        return float(said)
    try:
        until = parsedate_to_datetime(said).timestamp()
    except ValueError:
        return None
    return max(0.0, until - (time.time() if (now := _date(answer)) is None else now / 1000))


def _date(answer: httpx.Response) -> int | None:
    try:
        return int(parsedate_to_datetime(answer.headers["Date"]).timestamp()) * 1000
    except (KeyError, ValueError):
        return None
