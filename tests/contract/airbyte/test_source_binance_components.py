"""The connector's own code, on answers built by hand: what a process test would make slow."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
import warnings
from pathlib import Path

import pytest
import requests

FILE = Path(__file__).resolve().parents[3] / "connectors" / "source-binance" / "components.py"
URL = "http://exchange/api/v3/klines?symbol=BTCUSDT&interval=1h&limit=3&startTime=100&endTime=900"
ROW = [200, "1.10", "1.20", "1.00", "1.15", "5", 299, "6", 7, "3", "4", "0"]


@pytest.fixture(scope="module")
def components():
    with warnings.catch_warnings():  # the kit's own imports warn
        warnings.simplefilter("ignore")
        spec = importlib.util.spec_from_file_location("source_binance_components", FILE)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def answer(status=200, body=b"[]", **headers):
    response = requests.Response()
    response.status_code = status
    response._content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    response.request = requests.Request("GET", URL).prepare()
    return response


def extract(components, rows, **headers):
    extractor = components.KlineExtractor(config={}, parameters={})
    body = rows if isinstance(rows, bytes) else json.dumps(rows).encode()
    return list(extractor.extract_records(answer(body=body, **headers)))


def test_cells_stay_text_even_where_the_exchange_sends_numbers(components):
    (row,) = extract(components, [ROW])
    assert row["open"] == "1.10"
    assert (row["open_time"], row["trades"], row["taker_buy_quote_volume"]) == (200, 7, "4")
    body = json.dumps([ROW, ROW]).replace('"1.20"', "1.2000000000000000001").encode()
    rows = extract(components, body)
    assert [row["high"] for row in rows] == ["1.2000000000000000001"] * 2


@pytest.mark.parametrize(
    ("headers", "answered"),
    [
        ({"Date": "Tue, 14 Nov 2023 22:13:20 GMT"}, 1_700_000_000_000),
        ({"Date": "today"}, None),
        ({}, None),
    ],
)
def test_a_row_bears_the_time_of_its_answer(components, headers, answered):
    (row,) = extract(components, [ROW], **headers)
    assert row["answered_at"] == answered


def test_odd_rows_are_handed_on_for_the_reader_to_reject(components):
    rows = extract(components, [ROW[:3], ["soon", *ROW[1:]], [None, *ROW[1:]]])
    assert rows[0]["close"] is None
    assert rows[1]["open_time"] == "soon"
    assert rows[2]["open_time"] is None


def test_a_time_in_microseconds_is_cut_so_that_the_cursor_stays_in_milliseconds(components):
    url = URL.replace("startTime=100", "startTime=1600000000000")
    url = url.replace("endTime=900", "endTime=1600000003600")
    response = answer(body=[[1_600_000_003_599_999, *ROW[1:]]])
    response.request = requests.Request("GET", url).prepare()
    (row,) = components.KlineExtractor(config={}, parameters={}).extract_records(response)
    assert row["open_time"] == 1_600_000_003_599


@pytest.mark.parametrize("opened", [99, 901, "4102444800000"])
def test_a_bar_outside_the_range_cannot_move_the_cursor(components, opened):
    with pytest.raises(Exception, match="outside 100 to 900") as caught:
        extract(components, [[opened, *ROW[1:]]])
    assert caught.value.failure_type.value == "system_error"


@pytest.mark.parametrize(
    ("rows", "token"),
    [
        ([ROW] * 3, 201),
        ([ROW] * 2, None),
        ([ROW, ROW, [900, *ROW[1:]]], None),
        ([ROW, ROW, [899, *ROW[1:]]], 900),
        ([ROW, [300, *ROW[1:]], ["soon", *ROW[1:]]], 301),
        ([["soon", *ROW[1:]]] * 3, 101),
        ([], None),
    ],
)
def test_the_next_page(components, rows, token):
    records = extract(components, rows)
    pages = components.NextOpenTime(config={}, parameters={})
    last = records[-1] if records else None
    assert pages.next_page_token(answer(body=rows), len(records), last) == token


def interpret(components, response, **config):
    handler = components.ExchangeErrorHandler(config=config, parameters={})
    resolution = handler.interpret_response(response)
    waits = [strategy.backoff_time(response, 1) for strategy in handler.backoff_strategies]
    return (
        resolution.response_action.value,
        resolution.failure_type,
        resolution.error_message,
        waits,
    )


@pytest.mark.parametrize(
    ("response", "action", "wait"),
    [
        (answer(200, b"[]"), "SUCCESS", None),
        (answer(200, b'[ [1,"2"] ]'), "SUCCESS", None),
        (answer(200, b"[ ]"), "SUCCESS", None),
        (answer(200, b"[[1,"), "RETRY", None),
        (answer(200, b'[[1,"2"]'), "RETRY", None),
        (answer(200, b""), "RETRY", None),
        (answer(200, b"<html>busy</html>"), "RETRY", None),
        (answer(429, {"code": -1003, "msg": "slow"}, Retry_After="7"), "RATE_LIMITED", 7),
        (answer(400, {"code": -1003, "msg": "slow"}), "RATE_LIMITED", None),
        (answer(500, {"code": -1001, "msg": "internal"}), "RETRY", None),
        (answer(503, b"<html/>", Retry_After="3"), "RETRY", 3),
        (answer(403, b"<HTML><B>Request blocked.</B></HTML>"), "RETRY", None),
        (requests.ConnectionError("reset"), "RETRY", None),
    ],
)
def test_what_passes_is_tried_again_after_the_servers_own_wait(components, response, action, wait):
    got, _, message, waits = interpret(components, response)
    assert got == action
    assert waits == [wait]
    assert action == "SUCCESS" or isinstance(response, Exception) or "BTCUSDT 1h" in message


def test_a_ban_is_waited_for_until_the_time_in_its_message(components):
    def ban(until):
        return answer(418, {"code": -1003, "msg": f"Way too much; IP banned until {until:.0f}."})

    now = time.time() * 1000
    action, _, _, (wait,) = interpret(components, ban(now + 30_000))
    assert action == "RATE_LIMITED"
    assert wait == pytest.approx(30, abs=5)
    assert interpret(components, ban(now - 5_000))[3] == [0.1], "a ban that is over"
    with pytest.raises(Exception, match="asks for") as caught:
        interpret(components, ban(now + 30_000), max_wait_seconds=10)
    assert caught.value.failure_type.value == "transient_error"


@pytest.mark.parametrize(
    ("response", "kind", "text", "detail"),
    [
        (answer(400, {"code": -1121, "msg": "Invalid symbol."}), "config_error", "no such symbol",
         {"code": -1121}),
        (answer(400, {"code": -1120, "msg": "Invalid interval."}), "config_error",
         "no such interval", {"code": -1120}),
        (answer(400, {"code": -1102, "msg": "Mandatory"}), "system_error", "-1102",
         {"code": -1102}),
        (answer(404, b"<html>nginx</html>"), "config_error", "404", {"code": None}),
        (answer(451, {"code": 0, "msg": "restricted location"}), "config_error",
         "not served in this region", {"status": 451}),
        (answer(418, {"code": -1003}, Retry_After="500"), "transient_error", "asks for 500 s",
         {"retry_after": 500}),
        (answer(503, b"", Retry_After="3600"), "transient_error", "asks for 3600 s",
         {"retry_after": 3600}),
    ],
)  # fmt: skip
def test_what_stays_fails_at_once_and_says_which_partition(
    components, response, kind, text, detail
):
    with pytest.raises(Exception, match=text) as caught:
        interpret(components, response)
    error = caught.value
    assert error.failure_type.value == kind
    assert error.message.startswith("BTCUSDT 1h: ")
    given = json.loads(error.internal_message)
    assert (given["symbol"], given["interval"]) == ("BTCUSDT", "1h")
    assert detail.items() <= given.items()


def test_every_recorded_error_is_told_apart(components, recorded):
    known = {
        (418, -1003): "RATE_LIMITED",
        (429, -1003): "RATE_LIMITED",
        (403, None): "RETRY",
        (400, -1121): "config_error",
        (400, -1120): "config_error",
        (400, -1100): "system_error",
        (400, -1102): "system_error",
        (400, -1104): "system_error",
    }
    found = json.loads((recorded / "rest_samples" / "error_bodies.json").read_text())
    errors = [one for one in found if one["api"] == "binance" and one["status"]]
    told = set()
    for one in errors:
        body = one["body"].encode()
        code = json.loads(body)["code"] if body.startswith(b"{") else None
        response = answer(one["status"], body)
        expected = known[one["status"], code]
        told.add((one["status"], code))
        if expected in {"RATE_LIMITED", "RETRY"}:
            action, kind, message, _ = interpret(components, response)
            assert action == expected
            assert kind.value == "transient_error"
            assert message.startswith(f"BTCUSDT 1h: the exchange answered {one['status']} ")
        else:
            with pytest.raises(components.AirbyteTracedException) as caught:
                interpret(components, response)
            assert caught.value.failure_type.value == expected
            assert json.loads(caught.value.internal_message)["code"] == code
        # Nor is it a page of bars where what stands between makes a success of it.
        assert interpret(components, answer(200, body))[0] == "RETRY"
    assert told == known.keys()


def test_the_stream_wide_cursor_is_dropped(components):
    migration = components.PerPartitionState(config={}, parameters={})
    states = [{"partition": {"symbol": "A", "interval": "1h"}, "cursor": {"open_time": "5"}}]
    state = {"states": states, "state": {"open_time": "9"}, "lookback_window": 4}
    assert migration.should_migrate(state)
    assert migration.migrate(state)["states"] == states
    assert not migration.should_migrate(migration.migrate(state))
    assert not migration.should_migrate({})
