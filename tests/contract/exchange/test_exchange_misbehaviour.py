"""Rate limits, faults and tampered rows as a client meets them."""

import re
import time

import httpx
import pytest

from bentley.services.exchange.faults import KINDS
from bentley.services.exchange.server import ExchangeServer

HOUR = 3_600_000
PAST_MINUTE = 60_000


def klines(client, **params):
    return client.get("/api/v3/klines", params={"symbol": "BTCUSDT", "interval": "1h"} | params)


@pytest.fixture
def limited(recorded, monkeypatch):
    """A server with a limit of 10 and a real clock that the test moves; and the mover."""
    server = ExchangeServer(recorded, weight_limit=10)
    now = [PAST_MINUTE * 1000 + 15_000]
    monkeypatch.setattr(server.exchange.limiter, "_wall", lambda: now[0])
    with server, httpx.Client(base_url=server.url) as client:
        yield client, now


def test_past_the_limit_comes_429_with_the_time_to_wait(limited):
    client, now = limited
    for _ in range(5):
        assert klines(client).status_code == 200
    response = client.get("/api/v3/ping")
    assert response.status_code == 429
    assert response.headers["retry-after"] == "45"
    assert response.json() == {
        "code": -1003,
        "msg": "Too much request weight used; current limit is 10 request weight per 1 MINUTE. "
        "Please use WebSocket Streams for live updates to avoid polling the API.",
    }
    now[0] += 45_000
    assert client.get("/api/v3/ping").headers["x-mbx-used-weight-1m"] == "1"


def test_going_on_past_the_limit_ends_in_a_ban_until_a_time(limited):
    client, now = limited
    statuses = [klines(client).status_code for _ in range(17)]
    assert statuses == [200] * 5 + [429] * 10 + [418] * 2
    response = klines(client)
    assert response.headers["retry-after"] == "120"
    until = int(re.search(r"IP banned until (\d+)\. Please", response.json()["msg"])[1])
    assert (response.json()["code"], until) == (-1003, now[0] + 120_000)
    now[0] = until - 1
    assert klines(client).status_code == 418
    now[0] = until
    assert klines(client).status_code == 200


def test_a_second_ban_is_longer(limited):
    client, now = limited
    for wait in ("120", "240"):
        for _ in range(16):
            response = klines(client)
        assert (response.status_code, response.headers["retry-after"]) == (418, wait)
        now[0] += int(wait) * 1000


def test_the_limit_can_be_changed_and_forgotten(limited):
    client, _ = limited
    assert client.post("/control/limits", json={"limit": 2}).json() == {"limit": 2, "used": 0}
    assert [klines(client).status_code for _ in range(2)] == [200, 429]
    assert client.delete("/control/limits").json() == {"limit": 2, "used": 0}
    assert klines(client).status_code == 200


def test_429_and_418_and_500_on_command(client):
    faults = [
        {"kind": "429", "retry_after": 7},
        {"kind": "418", "retry_after": 300},
        {"kind": "500"},
    ]
    assert client.post("/control/faults", json=faults).status_code == 200
    before = time.time_ns() // 1_000_000
    answers = [client.get("/api/v3/time") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [429, 418, 500, 200]
    assert [answer.headers.get("retry-after") for answer in answers] == ["7", "300", None, None]
    assert [answer.json().get("code") for answer in answers] == [-1003, -1003, -1001, None]
    until = int(re.search(r"until (\d+)\.", answers[1].json()["msg"])[1])
    assert 0 <= until - before - 300_000 < 10_000


def test_403_is_cloudfronts_page(client, exchange):
    exchange.faults([{"kind": "403_page"}])
    response = klines(client)
    assert response.status_code == 403
    assert "cloudfront" in response.text
    assert response.headers["content-type"] == "text/html"


def test_half_a_body_breaks_off(client, exchange):
    exchange.faults([{"kind": "half_body"}])
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        klines(client)
    assert klines(client).status_code == 200


def test_half_a_body_states_the_whole_length(client, exchange):
    whole = klines(client, limit=10)
    exchange.faults([{"kind": "half_body"}])
    params = {"symbol": "BTCUSDT", "interval": "1h", "limit": 10}
    got = b""
    with client.stream("GET", "/api/v3/klines", params=params) as response:
        assert response.headers["content-length"] == whole.headers["content-length"]
        with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012 what came before counts too
            for part in response.iter_raw():
                got += part
    assert got == whole.content[: len(whole.content) // 2]


def test_refuse_closes_without_an_answer(client, exchange):
    exchange.faults([{"kind": "refuse"}])
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        klines(client)
    assert klines(client).status_code == 200
    assert exchange.requests()["paths"]["/api/v3/klines"] == {"refuse": 1, "200": 1}


def test_slow_is_right_but_late(client, exchange):
    exchange.faults([{"kind": "slow", "delay": 0.3}])
    start = time.monotonic()
    assert klines(client, limit=1).status_code == 200
    assert time.monotonic() - start >= 0.3


def test_a_slow_answer_does_not_hold_up_others(client, exchange):
    exchange.faults([{"kind": "slow", "delay": 30}])
    with pytest.raises(httpx.ReadTimeout):
        client.get("/api/v3/time", timeout=0.2)
    assert client.get("/api/v3/time", timeout=5).status_code == 200


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [("502", 502, "502"), ("503", 503, "503"), ("not_json", 200, "<html>"), ("empty", 200, "")],
)
def test_gateway_pages(client, exchange, kind, status, body):
    exchange.faults([{"kind": kind}])
    response = klines(client)
    assert response.status_code == status
    assert body in response.text
    assert not response.text.startswith("[")


def test_count_every_after_and_path_are_kept(client, exchange):
    exchange.faults([{"kind": "500", "count": 2, "every": 3, "after": 1, "path": "/api/v3/klines"}])
    statuses = []
    for _ in range(12):
        assert client.get("/api/v3/ping").status_code == 200
        statuses.append(klines(client, limit=1).status_code)
    assert [i for i, status in enumerate(statuses) if status == 500] == [3, 6]


def test_every_without_count_goes_on_until_deleted(client, exchange):
    exchange.faults([{"kind": "500", "every": 2}])
    statuses = [client.get("/api/v3/ping").status_code for _ in range(6)]
    assert statuses == [200, 500] * 3
    assert client.get("/control/faults").json()[0]["struck"] == 3
    assert client.delete("/control/faults").json() == []
    assert {client.get("/api/v3/ping").status_code for _ in range(4)} == {200}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"kind": "404"}, "404"),
        ({}, "None"),
        ({"kind": "500", "count": 0}, "count 0"),
        ({"kind": "500", "often": 1}, "often"),
        ({"kind": "slow", "delay": "long"}, "delay 'long'"),
        ("500", "'500'"),
    ],
)
def test_a_wrong_fault_is_refused_with_its_reason(client, fault, said):
    response = client.post("/control/faults", json=[fault])
    assert response.status_code == 400
    assert said in response.json()["error"]
    assert client.get("/control/faults").json() == []


def test_every_kind_of_fault_leaves_the_server_well(client, exchange):
    for kind in KINDS:
        exchange.faults([{"kind": kind, "delay": 0.01}])
        try:
            klines(client, limit=1)
        except httpx.RemoteProtocolError:
            assert kind in {"half_body", "refuse"}
        assert klines(client, limit=1).status_code == 200


def test_rows_are_tampered_with_and_restored(client):
    good = klines(client, limit=3).json()
    at = good[1][0]
    change = {"symbol": "BTCUSDT", "interval": "1h", "open_time": at}
    bad = change | {"cells": {"high": "abc", "trades": None}, "duplicates": [{"close": "1.5"}]}
    assert client.post("/control/rows", json=bad).status_code == 200
    first, tampered, repeated, last = klines(client, startTime=good[0][0]).json()
    assert [first, last] == [good[0], good[2]]
    assert (tampered[2], tampered[8], tampered[4]) == ("abc", None, good[1][4])
    assert repeated == [*good[1][:4], "1.5", *good[1][5:]]
    client.post("/control/rows", json=[change | {"missing": True}])
    assert klines(client, startTime=good[0][0]).json() == [good[0], good[2]]
    client.delete("/control/rows")
    assert klines(client, limit=3).json() == good


def test_a_change_shows_only_once_the_row_has_closed(client, exchange):
    row = klines(client, limit=1).json()[0]
    change = {"symbol": "BTCUSDT", "interval": "1h", "open_time": row[0], "cells": {"open": "7.0"}}
    exchange.rows([change])
    exchange.set_clock(row[6])
    assert klines(client, limit=1).json()[0][1] == row[1]
    exchange.advance(1)
    assert klines(client, limit=1).json()[0][1] == "7.0"
    exchange.clear_rows()
    assert klines(client, limit=1).json() == [row]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"symbol": "BTCUSDT"}, "open_time"),
        ({"symbol": "B", "interval": "1h", "open_time": 1, "cells": {"hi": "1"}}, "hi"),
        ({"symbol": "B", "interval": "1h", "open_time": 1, "duplicates": {}}, "duplicates"),
        ({"symbol": "B", "interval": "1h", "open_time": 1, "extra": 1}, "extra"),
    ],
)
def test_a_wrong_change_is_refused_with_its_reason(client, change, said):
    response = client.post("/control/rows", json=change)
    assert response.status_code == 400
    assert said in response.json()["error"]


def test_pages_of_1000_rows_come_fast(client):
    params = {"limit": 1000, "startTime": 1_514_764_800_000}
    klines(client, **params)
    start = time.process_time()
    for _ in range(50):
        assert klines(client, **params).status_code == 200
    # the client's share included, and room for a busy machine: the goal is 10 ms a request
    assert time.process_time() - start < 1.5
