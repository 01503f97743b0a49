"""A small client of Airflow's REST API (/api/v2), with the answers that Bentley reads as types."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from bentley.domain.errors import BentleyError, FatalError, RetriableError
from bentley.services.airflow_answers import AssetEvent, Dag, DagRun, ImportFailure, TaskInstance

NOTE_LENGTH = 1000

_PAGE = 100  # Airflow's own maximum
_POLL_SECONDS = 0.3
_DETAIL_LENGTH = 500


class AirflowClient:
    """Calls one Airflow; a context manager that closes its connections.

    Every call raises RetriableError where Airflow is out of reach, busy (429) or broken (5xx),
    and FatalError naming status and detail where it refuses (400, 401, 403, 404, 409, 422).
    Loopback is never asked through a proxy.
    """

    def __init__(
        self,
        base_url: str,
        *,
        username: str = "admin",
        password: str = "admin",  # noqa: S107  the laptop's public contract
        timeout: float = 30.0,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._login = {"username": username, "password": password}
        self._token: str | None = None
        self._http = httpx.Client(base_url=self.base_url, timeout=timeout, trust_env=False)

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

    def health(self) -> dict[str, str | None]:
        """Return the status by part: metadatabase, scheduler, triggerer, dag_processor."""
        parts = self._get("/monitor/health")
        return {part: (value or {}).get("status") for part, value in parts.items()}

    def dags(self) -> list[Dag]:
        """Return every DAG that is there now."""
        return [Dag.model_validate(item) for item in self._pages("/dags", "dags")]

    def dag(self, dag_id: str) -> Dag:
        """Return one DAG."""
        return Dag.model_validate(self._get(_path("dags", dag_id)))

    def pause(self, dag_id: str) -> Dag:
        """Stop the DAG from being started by its schedule or its assets."""
        return self._set_paused(dag_id, paused=True)

    def unpause(self, dag_id: str) -> Dag:
        """Let the DAG be started; unpause consumers before producers, or events are lost."""
        return self._set_paused(dag_id, paused=False)

    def parse(self, dag_id: str) -> None:
        """Ask for the DAG's file to be parsed now: what watches an asset is found only then."""
        token = self._get(_path("dags", dag_id))["file_token"]
        self._call("PUT", _path("parseDagFile", token))

    def trigger(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
        note: str | None = None,
    ) -> DagRun:
        """Start a run now; the same `run_id` twice is a FatalError with status 409."""
        body: dict[str, Any] = {"logical_date": None, "conf": dict(conf or {})}
        if run_id is not None:
            body["dag_run_id"] = run_id
        if note is not None:
            body["note"] = _shortened(note)
        return DagRun.model_validate(
            self._call("POST", _path("dags", dag_id, "dagRuns"), json=body)
        )

    def start(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        *,
        run_id: str,
        note: str | None = None,
    ) -> DagRun:
        """Start a run once, however often this is called for it.

        An earlier call may have arrived, and its answer have been lost.
        """
        try:
            return self.trigger(dag_id, conf, run_id=run_id, note=note)
        except FatalError as refused:
            try:
                return self.run(dag_id, run_id)
            except FatalError:
                raise refused from None

    def run(self, dag_id: str, run_id: str) -> DagRun:
        """Return one run."""
        return DagRun.model_validate(self._get(_run(dag_id, run_id)))

    def runs(self, dag_id: str = "~", *, limit: int = 25, state: str | None = None) -> list[DagRun]:
        """Return the newest runs first, of one DAG or of all (`~`)."""
        filters = {"order_by": "-run_after", **({"state": state} if state else {})}
        items = self._pages(_path("dags", dag_id, "dagRuns"), "dag_runs", filters, limit=limit)
        return [DagRun.model_validate(item) for item in items]

    def set_note(self, dag_id: str, run_id: str, note: str) -> DagRun:
        """Write the run's note; Airflow takes 1000 characters, what is longer is cut."""
        answer = self._call("PATCH", _run(dag_id, run_id), json={"note": _shortened(note)})
        return DagRun.model_validate(answer)

    def task_instances(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        """Return the run's tasks, each mapped one for itself."""
        items = self._pages(f"{_run(dag_id, run_id)}/taskInstances", "task_instances")
        return [TaskInstance.model_validate(item) for item in items]

    def xcom(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        key: str = "return_value",
        *,
        map_index: int = -1,
    ) -> Any:
        """Return what a task left under `key`."""
        path = f"{_task(dag_id, run_id, task_id)}/xcomEntries/{quote(key, safe='')}"
        return self._get(path, map_index=map_index, deserialize=True)["value"]

    def logs(
        self, dag_id: str, run_id: str, task_id: str, *, try_number: int = 1, map_index: int = -1
    ) -> str:
        """Return the log of one try as text, a line per message."""
        path = f"{_task(dag_id, run_id, task_id)}/logs/{try_number}"
        content = self._get(path, map_index=map_index, full_content=True)["content"]
        return "\n".join(_log_line(message) for message in content)

    def asset_events(
        self,
        *,
        name: str | None = None,
        source_dag_id: str | None = None,
        source_run_id: str | None = None,
        limit: int = 100,
    ) -> list[AssetEvent]:
        """Return the newest dataset events first; `name` is the asset's own, whole."""
        filters = {"order_by": "-timestamp"}
        if name is not None:
            filters["name_pattern"] = name
        if source_dag_id is not None:
            filters["source_dag_id"] = source_dag_id
        if source_run_id is not None:
            filters["source_run_id"] = source_run_id
        items = self._pages("/assets/events", "asset_events", filters, limit=limit)
        events = [AssetEvent.model_validate(item) for item in items]
        return [event for event in events if name is None or event.name == name]

    def import_errors(self) -> list[ImportFailure]:
        """Return the DAG files that could not be imported."""
        items = self._pages("/importErrors", "import_errors")
        return [ImportFailure.model_validate(item) for item in items]

    def wait_for_dag(
        self,
        dag_ids: Collection[str],
        *,
        since: datetime | None = None,
        timeout: float = 120.0,
        alive: Callable[[], None] = lambda: None,
    ) -> dict[str, Dag]:
        """Wait until every DAG named is parsed (after `since`, if given) and return them by id.

        `alive` is called at every look and raises where waiting is in vain. Raises FatalError
        with the stack trace as soon as a file fails to import while a DAG is missing, and
        RetriableError naming the DAGs that are missing after `timeout` seconds.
        """
        start, deadline = datetime.now(UTC), time.monotonic() + timeout
        while True:
            alive()
            found = {dag.dag_id: dag for dag in self.dags() if _is_parsed(dag, since)}
            missing = sorted(set(dag_ids) - found.keys())
            if not missing:
                return {dag_id: found[dag_id] for dag_id in dag_ids}
            late = time.monotonic() > deadline
            for failure in self.import_errors():
                # one from before may be mended by now, and only waits to be parsed again
                if late or failure.timestamp >= (since or start):
                    msg = f"{failure.filename} can't be imported:\n{failure.stack_trace}"
                    raise FatalError(msg)
            if late:
                msg = f"DAGs not parsed within {timeout:.0f} s: {', '.join(missing)}"
                raise RetriableError(msg)
            time.sleep(_POLL_SECONDS)

    def _set_paused(self, dag_id: str, *, paused: bool) -> Dag:
        body = {"is_paused": paused}
        return Dag.model_validate(self._call("PATCH", _path("dags", dag_id), json=body))

    def _pages(
        self,
        path: str,
        key: str,
        filters: Mapping[str, Any] | None = None,
        *,
        limit: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        offset = 0
        while limit is None or offset < limit:
            size = _PAGE if limit is None else min(_PAGE, limit - offset)
            items = self._get(path, limit=size, offset=offset, **(filters or {}))[key]
            yield from items
            offset += len(items)
            if len(items) < size:
                return

    def _get(self, path: str, **params: Any) -> Any:
        return self._call("GET", path, params=params)

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        """One request with the token, which is fetched anew where it has run out."""
        if self._token is None:
            self._token = self._sign_in()
        answer = self._send(method, f"/api/v2{path}", **arguments)
        if _is_token_refused(answer):
            self._token = self._sign_in()
            answer = self._send(method, f"/api/v2{path}", **arguments)
        return _read(answer)

    def _sign_in(self) -> str:
        self._token = None
        return str(_read(self._send("POST", "/auth/token", json=self._login))["access_token"])

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        headers = {"Accept": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            return self._http.request(method, path, headers=headers, **arguments)
        except httpx.TransportError as error:
            msg = f"Airflow at {self.base_url} is out of reach ({type(error).__name__}); is it up?"
            raise RetriableError(msg) from error


def _read(answer: httpx.Response) -> Any:
    if answer.is_success:
        try:
            return answer.json()
        except json.JSONDecodeError as error:
            msg = f"{_called(answer)} gave no JSON; is another server on that port?"
            raise FatalError(msg) from error
    raise _refusal(answer)


def _is_token_refused(answer: httpx.Response) -> bool:
    """Whether a new token may help: one from before Airflow's keys changed is a 403, not a 401."""
    if answer.status_code == httpx.codes.FORBIDDEN:
        return "token" in _detail(answer).lower()
    return answer.status_code == httpx.codes.UNAUTHORIZED


def _refusal(answer: httpx.Response) -> BentleyError:
    msg = f"{_called(answer)} gave {answer.status_code}: {_detail(answer)}"
    busy = answer.status_code == httpx.codes.TOO_MANY_REQUESTS
    if busy or answer.is_server_error:
        after = answer.headers.get("Retry-After", "")
        return RetriableError(msg, retry_after=float(after) if after.isdecimal() else None)
    return FatalError(msg)


def _called(answer: httpx.Response) -> str:
    return f"Airflow's {answer.request.method} {answer.request.url.path}"


def _detail(answer: httpx.Response) -> str:
    try:
        body = answer.json()
    except json.JSONDecodeError:
        return answer.text[:_DETAIL_LENGTH] or answer.reason_phrase
    detail = body.get("detail", body) if isinstance(body, dict) else body
    if isinstance(detail, list):  # a validation error: where and why, not the input itself
        detail = "; ".join(
            f"{'.'.join(map(str, fault.get('loc', ())))}: {fault.get('msg')}" for fault in detail
        )
    return str(detail)[:_DETAIL_LENGTH]


def _is_parsed(dag: Dag, since: datetime | None) -> bool:
    if dag.is_stale:
        return False
    return since is None or (dag.last_parsed_time is not None and dag.last_parsed_time >= since)


def _path(*parts: str) -> str:
    return "".join(f"/{quote(part, safe='~')}" for part in parts)


def _run(dag_id: str, run_id: str) -> str:
    return _path("dags", dag_id, "dagRuns", run_id)


def _task(dag_id: str, run_id: str, task_id: str) -> str:
    return f"{_run(dag_id, run_id)}{_path('taskInstances', task_id)}"


def _shortened(note: str) -> str:
    return note if len(note) <= NOTE_LENGTH else f"{note[: NOTE_LENGTH - 1]}…"


def _log_line(message: str | dict[str, Any]) -> str:
    if isinstance(message, str):
        return message
    parts = (message.get("timestamp"), message.get("level"), message.get("event"))
    line = " ".join(str(part) for part in parts if part)
    return f"{line} {json.dumps(message['error_detail'])}" if message.get("error_detail") else line
