"""What any server may answer is told apart: wait, try again, or give up."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import stamina

from archive_support import dripping, served
from bentley.domain.errors import FatalError, RetriableError
from bentley.sources import exchange, http


@contextmanager
def answering(*answers: tuple[int, dict[str, str], bytes]) -> Iterator[tuple[str, list[str]]]:
    """Answer each request in turn, the last for ever; yield the address and what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, headers, body = answers[min(len(asked), len(answers) - 1)]
            asked.append(self.path)
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://user:pw-7@127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()


GOOD = (200, {}, b'{"serverTime": 1700000000000}')


@pytest.mark.parametrize(
    "first",
    [
        (200, {}, b""),
        (200, {}, b"<html>sign in</html>"),
        (200, {"Content-Encoding": "gzip"}, gzip.compress(GOOD[2])[:-20]),
        (200, {"Content-Encoding": "gzip"}, b"no gzip"),
        (403, {}, b"<html>"),
        (500, {}, b""),
        (503, {}, b"{}"),
    ],
)
def test_a_passing_trouble_is_tried_again(first):
    with answering(first, GOOD) as (url, asked):
        assert exchange.server_time(url) == 1_700_000_000_000
    assert asked == ["/api/v3/time"] * 2


@pytest.mark.parametrize(
    "answer",
    [
        (404, {}, b"<html>not here</html>"),
        (400, {}, b'{"code": -1100}'),
        (200, {}, b"[]"),
        (200, {}, b'{"serverTime": null}'),
        (200, {}, b'{"serverTime": 1e400}'),
        (200, {}, b'{"serverTime": -1}'),
        (200, {}, b'{"serverTime": 17000000000000000000000}'),
    ],
)
def test_what_is_no_exchange_is_said_at_once_and_without_its_password(answer):
    with (
        answering(answer) as (url, asked),
        pytest.raises(FatalError, match="BENTLEY_EXCHANGE_URL an exchange") as caught,
    ):
        exchange.server_time(url)
    assert "pw-7" not in str(caught.value)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("given", "wait"), [("17", 17.0), ("\N{SUPERSCRIPT TWO}", None), ("soon", None), ("", None)]
)
def test_a_wait_that_the_server_names_is_the_callers(given, wait):
    headers = {"Retry-After": given.encode().decode("latin-1")}
    with (
        answering((429, headers, b"")) as (url, asked),
        pytest.raises(RetriableError, match="fewer requests") as caught,
    ):
        exchange.server_time(url)
    assert caught.value.retry_after == wait
    assert len(asked) == 1


def test_a_page_for_ever_is_an_error_that_may_pass():
    with (
        answering((200, {}, b"<html>sign in</html>")) as (url, asked),
        pytest.raises(RetriableError, match="no JSON but '<html>sign in") as caught,
    ):
        exchange.server_time(url, attempts=2)
    assert "pw-7" not in str(caught.value)
    assert len(asked) == 2


def test_an_answer_that_drips_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr(http, "_WHOLE_SECONDS", 0.5)
    (tmp_path / "a.zip").write_bytes(bytes(1_000))
    with served(tmp_path) as site:
        site.faults = [dripping] * 2
        started = time.monotonic()
        with pytest.raises(RetriableError, match=r"not come to an end within 0\.5 s"):
            http.ask(f"{site.url}/a.zip", what="it", setting="IT", attempts=2)
        assert time.monotonic() - started < 15
        assert len(site.archives()) == 2


@pytest.fixture
def _without_waits():
    with stamina.set_testing(True, attempts=http.ATTEMPTS, cap=True):
        yield


def recorded_errors(recorded):
    found = json.loads((recorded / "rest_samples" / "error_bodies.json").read_text())
    return [one for one in found if one["api"] == "binance" and one["status"]]


PASSING = {403, 418, 429}
CALLERS_FAULT = {400}


@pytest.mark.usefixtures("_without_waits")
def test_every_recorded_error_of_the_exchange_is_told_apart(recorded):
    errors = recorded_errors(recorded)
    assert {one["status"] for one in errors} == PASSING | CALLERS_FAULT
    for one in errors:
        kind = RetriableError if one["status"] in PASSING else FatalError
        with answering((one["status"], {}, one["body"].encode())) as (url, asked):
            for ask in (
                lambda at: exchange.klines(at, "BTCUSDT", "1h", start=0, limit=3),
                exchange.server_time,
            ):
                with pytest.raises(kind) as caught:
                    ask(url)
                assert "pw-7" not in str(caught.value)
            tried = http.ATTEMPTS if one["status"] == 403 else 1
            assert len(asked) == 2 * tried
            if "-1121" in one["body"]:
                assert exchange.status(url, "BTCUSDT") == "UNKNOWN"
                continue
            with pytest.raises(kind):
                exchange.status(url, "BTCUSDT")


@pytest.mark.usefixtures("_without_waits")
def test_no_recorded_error_of_the_exchange_is_data_even_as_a_success(recorded):
    for one in recorded_errors(recorded):
        with answering((200, {}, one["body"].encode())) as (url, _):
            kind = FatalError if one["body"].startswith("{") else RetriableError
            with pytest.raises(kind):
                exchange.klines(url, "BTCUSDT", "1h", start=0, limit=3)
            with pytest.raises(kind):
                exchange.status(url, "BTCUSDT")


def test_the_state_of_a_symbol():
    trading = (200, {}, b'{"symbols": [{"status": "BREAK"}]}')
    unknown = (400, {}, b'{"code": -1121, "msg": "Invalid symbol."}')
    other = (400, {}, b'{"code": -1100, "msg": "Illegal characters, like -1121"}')
    with answering(trading, unknown, other) as (url, _):
        assert exchange.status(url, "LUNAUSDT") == "BREAK"
        assert exchange.status(url, "XUSDT") == "UNKNOWN"
        with pytest.raises(FatalError, match="does not describe YUSDT"):
            exchange.status(url, "YUSDT")
