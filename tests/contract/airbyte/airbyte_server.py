"""A stand-in for an Airbyte server, built from its published API contract (openapi of /jobs).

It shares no code with Bentley. Jobs go through the states of `script`; `faults` are answers to
be given instead of the right one, each once, to the first request whose method and path match.
"""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

PREFIX = "/api/public/v1"
CONNECTION = "e735894a-e773-4938-969f-45f53957b75b"
CLIENT = "b6b159ce-07f4-4699-94b3-3e85b318852e"
SECRET = "s3cret-of-the-application"
ENDED = {"succeeded", "failed", "cancelled"}
PROBLEMS = "https://reference.airbyte.com/reference/errors"


class AirbyteStandIn:
    """The server's state, and the server on a port of loopback; a context manager."""

    def __init__(self) -> None:
        self.script = ["succeeded"]
        self.faults: list[dict[str, Any]] = []
        self.jobs: dict[int, dict[str, Any]] = {}
        self.seen: list[tuple[str, str]] = []
        self.bodies: list[tuple[str, str]] = []
        self.tokens: dict[str, bool] = {}
        self.expires_in: int | None = 900
        self.now: float | None = None
        self.on_success = lambda: None
        stand_in = self

        class Handler(_Handler):
            server_state = stand_in

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}{PREFIX}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fault(self, method: str, path: str, status: int | None, **more: Any) -> None:
        """Give one wrong answer; status 0 drops the connection without any, and None gives the right one.

        It comes after `seconds`; with `done` a job was started all the same.
        """
        self.faults.append({"method": method, "path": path, "status": status, **more})

    def add_job(self, status: str = "running", kind: str = "sync") -> int:
        """A job that somebody else has started; it goes on by the rest of the script."""
        job_id = 100 + len(self.jobs)
        self.jobs[job_id] = {
            "jobId": job_id,
            "status": status,
            "jobType": kind,
            "connectionId": CONNECTION,
            "startTime": _text(time.time() if self.now is None else self.now),
            "_left": list(self.script),
        }
        return job_id

    def expire_tokens(self) -> None:
        self.tokens = dict.fromkeys(self.tokens, False)

    def calls(self, method: str, path: str = "") -> int:
        return sum(one == method and path in where for one, where in self.seen)


class _Handler(BaseHTTPRequestHandler):
    server_state: AirbyteStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        now = self.server_state.now
        return formatdate(now if timestamp is None and now is not None else timestamp, usegmt=True)

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_DELETE = do_GET  # noqa: N815 - http.server's names

    def _answer(self) -> None:
        state = self.server_state
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        split = urlsplit(self.path)
        path = split.path.removeprefix(PREFIX)
        state.seen.append((self.command, path))
        state.bodies.append((self.command, body))
        for fault in state.faults:
            if fault["method"] == self.command and path.startswith(fault["path"]):
                state.faults.remove(fault)
                if fault.get("done"):  # and only the answer is lost
                    state.add_job()
                time.sleep(fault.get("seconds", 0))
                if fault["status"] is None:  # it is late, and right
                    break
                if not fault["status"]:
                    self.close_connection = True
                    self.connection.close()
                    return
                self._give(fault["status"], fault.get("body", {}), fault.get("headers", {}))
                return
        if path == "/applications/token":
            self._token(parse_qs(body))
        elif not state.tokens.get(self.headers.get("Authorization", "").removeprefix("Bearer ")):
            self._problem(
                401, "invalid-api-key", "The API key in the Authorization header is invalid."
            )
        elif path == "/jobs":
            self._jobs(body, {name: one[0] for name, one in parse_qs(split.query).items()})
        elif path.startswith("/connections/"):
            self._connection(path.rpartition("/")[2])
        else:
            self._job(path)

    def _token(self, form: dict[str, list[str]]) -> None:
        state = self.server_state
        given = {name: one[0] for name, one in form.items()}
        right = {"grant_type": "client_credentials", "client_id": CLIENT, "client_secret": SECRET}
        if given != right:
            self._problem(403, "forbidden", f"not so: {given.get('client_secret')}")
            return
        token = f"token-{len(state.tokens)}"
        state.tokens[token] = True
        said = {"access_token": token, "token_type": "Bearer", "expires_in": state.expires_in}
        self._give(200, {name: one for name, one in said.items() if one is not None})

    def _jobs(self, body: str, query: dict[str, str]) -> None:
        state = self.server_state
        if self.command == "GET":
            allowed = {"connectionId", "limit", "offset", "jobType", "status", "orderBy"}
            assert set(query) <= allowed, query
            found = [
                _shown(job)
                for job in state.jobs.values()
                if job["connectionId"] == query["connectionId"]
                and query.get("jobType") in {None, job["jobType"]}
                and query.get("status") in {None, job["status"]}
            ]
            self._give(200, {"data": found[: int(query.get("limit", 20))]})
            return
        asked = json.loads(body)
        if asked["connectionId"] != CONNECTION:
            self._problem(404, "resource-not-found", "The requested resource could not be found.")
        elif any(job["status"] not in ENDED for job in state.jobs.values()):
            self._problem(409, "try-again-later", f"A sync is already running for: {CONNECTION}")
        else:
            self._give(200, _shown(state.jobs[state.add_job("pending", asked["jobType"])]))

    def _connection(self, name: str) -> None:
        if name == CONNECTION:
            self._give(200, {"connectionId": name, "status": "active"})
        else:
            self._problem(404, "resource-not-found", "The requested resource could not be found.")

    def _job(self, path: str) -> None:
        state = self.server_state
        job = state.jobs.get(int(path.rpartition("/")[2]))
        if job is None:
            self._problem(404, "resource-not-found", "The requested resource could not be found.")
            return
        if self.command == "DELETE" and job["status"] not in ENDED:
            job["status"] = "cancelled"
            job["_left"] = []
        elif job["_left"]:
            job["status"] = job["_left"].pop(0)
            if job["status"] == "succeeded":
                state.on_success()
        self._give(200, _shown(job))

    def _problem(self, status: int, title: str, detail: str) -> None:
        self._give(status, {"status": status, "type": PROBLEMS, "title": title, "detail": detail})

    def _give(self, status: int, said: Any, headers: dict[str, str] | None = None) -> None:
        page = said if isinstance(said, str) else json.dumps(said)
        content = page.encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _shown(job: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in job.items() if not name.startswith("_")}
