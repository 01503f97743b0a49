"""The one place that calls MLflow: short waits, no telemetry, credentials kept apart, our errors."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from bentley.domain.addresses import without_password
from bentley.domain.errors import (
    BentleyError,
    ConfigurationError,
    FatalError,
    RetriableError,
)
from bentley.tracking.records import clip

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_STATUS = re.compile(r"failed with error code (\d{3})")
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_REFUSED = {401, 403}
_PASSING = {408, 429}
_CLIENT_FAULT = range(400, 500)
_UNAVAILABLE = 503
_STRANGER = 0
_environment = threading.RLock()


class Edge:
    """Calls one MLflow server, whose address is `uri`, without user and password.

    Raises ConfigurationError where the address is not one of a web server.
    """

    def __init__(self, tracking_uri: str, *, timeout_s: float) -> None:
        self.uri = without_password(tracking_uri).rstrip("/")
        parts = _web_address(tracking_uri, self.uri)
        self._user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        self._loopback = parts.hostname if parts.hostname in _LOOPBACK else None
        self._timeout_s = max(1, round(timeout_s))
        self._client: MlflowClient | None = None

    @contextmanager
    def call(self, doing: str, *, retries: int = 0) -> Iterator[MlflowClient]:
        """Lend the client for one call; `doing` completes the sentence "MLflow could not ...".

        MLflow takes its waits and credentials from the process's environment alone, so they
        stand there only while a call runs, and calls take turns. `retries` above 0 fits calls
        that may be repeated: a repeated create makes a second run.

        Raises RetriableError, FatalError or ConfigurationError in place of MLflow's errors.
        """
        with _environment, _scoped(self._knobs(retries)):
            try:
                if self._client is None:
                    from mlflow.tracking import MlflowClient  # noqa: PLC0415 - 1 s to import

                    self._client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
                yield self._client
            except BentleyError:
                raise
            except Exception as error:
                translated = self._translate(error, doing)
                if translated is None:
                    raise
                raise translated from error

    def _knobs(self, retries: int) -> dict[str, str]:
        knobs = {
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries),
            "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(self._timeout_s),
            "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # it may name hours
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # `--json` owns standard output
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
            "MLFLOW_TRUNCATE_LONG_VALUES": "false",
        }
        if self._user is not None:
            knobs["MLFLOW_TRACKING_USERNAME"] = self._user
            knobs["MLFLOW_TRACKING_PASSWORD"] = self._password or ""
        if self._loopback:
            for name in ("NO_PROXY", "no_proxy"):
                others = os.environ.get(name)
                knobs[name] = f"{others},{self._loopback}" if others else self._loopback
        return knobs

    def _translate(self, error: Exception, doing: str) -> BentleyError | None:
        what = f"MLflow at {self.uri} could not {doing}: {self._reason(error)}"
        status = _status(error)
        if status is None:
            return None
        if status == _STRANGER:
            return ConfigurationError(
                f"{what}; what answers there is no MLflow server: correct MLFLOW_TRACKING_URI"
            )
        if status in _REFUSED:
            return ConfigurationError(
                f"{what}; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD "
                "(or MLFLOW_TRACKING_TOKEN) to an account that may do this"
            )
        if status in _CLIENT_FAULT and status not in _PASSING:
            return FatalError(f"{what}; the server refused it as it is, so correct it first")
        return RetriableError(
            f"{what}; start the server (`bentley run` does) or correct MLFLOW_TRACKING_URI, "
            "then run this again"
        )

    def _reason(self, error: Exception) -> str:
        text = " ".join(str(error).split())
        for secret in filter(None, (self._password, os.environ.get("MLFLOW_TRACKING_TOKEN"))):
            text = text.replace(secret, "***")
        return clip(text, 400)


def _web_address(given: str, shown: str) -> SplitResult:
    remedy = "set MLFLOW_TRACKING_URI to a server's address like http://127.0.0.1:5000"
    try:
        parts = urlsplit(given)
        well_formed = parts.scheme in {"http", "https"} and bool(parts.hostname)
        _ = parts.port  # raises where it is no number
    except ValueError:
        well_formed = False
    if not well_formed:
        msg = f"{shown!r} is not the address of an MLflow server; {remedy}"
        raise ConfigurationError(msg)
    return parts


def _status(error: Exception) -> int | None:
    """Return the HTTP status that an error stands for, or None where it is not MLflow's.

    No answer counts as 503 (unavailable), and an answer that no MLflow server gives as _STRANGER.
    """
    import requests  # noqa: PLC0415 - a module of mlflow's, loaded with it
    from mlflow.exceptions import (  # noqa: PLC0415 - 1 s to import
        ERROR_CODE_TO_HTTP_STATUS,
        InvalidUrlException,
        MlflowException,
        RestException,
    )

    if isinstance(error, MlflowException):
        if (
            isinstance(error, InvalidUrlException)
            or "not in a valid JSON format" in error.message
            or (isinstance(error, RestException) and not error.json.get("error_code"))
        ):
            return _STRANGER
        found = _STATUS.search(error.message)
        return int(found[1]) if found else ERROR_CODE_TO_HTTP_STATUS.get(error.error_code, 500)
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code
    if isinstance(error, (requests.exceptions.JSONDecodeError, json.JSONDecodeError)):
        return _STRANGER
    if isinstance(error, requests.RequestException):
        return _UNAVAILABLE
    return None


@contextmanager
def _scoped(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
