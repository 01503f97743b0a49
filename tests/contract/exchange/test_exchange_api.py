"""The exchange's endpoints as a client sees them, over recorded rows."""

import csv
import io
import json
from itertools import pairwise

import httpx
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentley.domain.errors import ConfigurationError
from bentley.services.exchange.recorded import RecordedMarket
from bentley.services.exchange.server import ExchangeServer, serve

HOUR = 3_600_000
DAY = 24 * HOUR
FIRST = 1_514_764_800_000
END = 1_609_459_200_000


@pytest.fixture(scope="module")
def rows(klines_folder):
    """BTCUSDT at 1h, rebuilt from the file without the code under test."""
    return read(klines_folder, "BTCUSDT-1h")


def read(folder, name):
    data = zstandard.ZstdDecompressor().stream_reader((folder / f"{name}.csv.zst").read_bytes())
    lines = list(csv.reader(io.TextIOWrapper(data, "ascii")))[1:]
    return [[int(c) if i in {0, 6, 8} else c for i, c in enumerate(line)] for line in lines]


def klines(client, **params):
    return client.get("/api/v3/klines", params={"symbol": "BTCUSDT", "interval": "1h"} | params)


def test_ping_and_time_answer_with_the_clock_just_after_the_last_row(client):
    assert client.get("/api/v3/ping").json() == {}
    assert client.get("/api/v3/time").json() == {"serverTime": END}


def test_server_says_what_it_is(client):
    headers = client.get("/api/v3/ping").headers
    assert headers.get_list("server") == ["bentley-replay-exchange"]
    assert headers["content-type"] == "application/json;charset=UTF-8"


def test_rows_are_served_to_the_character(client, rows):
    response = klines(client, startTime=FIRST, limit=1000)
    assert response.text == json.dumps(rows[:1000], separators=(",", ":"))


def test_default_limit_gives_the_last_500_rows(client, rows):
    assert klines(client).json() == rows[-500:]


@pytest.mark.parametrize(("limit", "served"), [(1, 1), (1000, 1000), (1001, 1000), (5000, 1000)])
def test_limit_is_cut_at_1000(client, rows, limit, served):
    assert klines(client, limit=limit).json() == rows[-served:]


def test_only_an_end_gives_the_rows_before_it(client, rows):
    assert klines(client, endTime=rows[700][0], limit=3).json() == rows[698:701]
    assert klines(client, endTime=rows[700][0] - 1, limit=3).json() == rows[697:700]


def test_start_and_end_are_inclusive(client, rows):
    got = klines(client, startTime=rows[10][0], endTime=rows[14][0]).json()
    assert got == rows[10:15]
    assert klines(client, startTime=rows[10][0] + 1, endTime=rows[14][0] - 1).json() == rows[11:14]


def test_a_range_backwards_or_beyond_the_clock_is_empty(client, rows):
    assert klines(client, startTime=rows[9][0], endTime=rows[8][0]).json() == []
    assert klines(client, startTime=END).json() == []


@pytest.mark.parametrize("zone", ["0", "8", "-1:00", "05:00", "14", "-12:00"])
def test_a_time_zone_in_which_the_hours_stay_is_served(client, rows, zone):
    assert klines(client, timeZone=zone, limit=2).json() == rows[-2:]


@given(
    start=st.none() | st.integers(FIRST - DAY, END + DAY),
    end=st.none() | st.integers(FIRST - DAY, END + DAY),
    limit=st.none() | st.integers(1, 1100),
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_range_is_what_the_file_holds(client, rows, start, end, limit):
    fitting = [
        row for row in rows if (start is None or row[0] >= start) and (end is None or row[0] <= end)
    ]
    count = min(limit or 500, 1000)
    expected = fitting[-count:] if start is None else fitting[:count]
    given_ = {"startTime": start, "endTime": end, "limit": limit}
    params = {name: value for name, value in given_.items() if value is not None}
    assert klines(client, **params).json() == expected


LONG = "^[0-9]{1,20}$"
SYMBOL = r"^[\w\-._&&[^a-z]]{1,50}$"
BAD = [
    ("", -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."),
    ("fromId=1", -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."),
    (
        "symbol=BTCUSDT",
        -1102,
        "Mandatory parameter 'interval' was not sent, was empty/null, or malformed.",
    ),
    (
        "fromId=1&symbol=BTCUSDT&interval=1h",
        -1104,
        "Not all sent parameters were read; read '2' parameter(s) but was sent '3'.",
    ),
    (
        "symbol=BTCUSDT&interval=1h&startTime=1&endTime=2&limit=3&timeZone=0&x=1",
        -1101,
        "Too many parameters; expected '6' and received '7'.",
    ),
    (
        "symbol=BTCUSDT&symbol=BTCUSDT&interval=1h",
        -1101,
        "Duplicate values for a parameter detected.",
    ),
    ("symbol=&interval=1h", -1105, "Parameter 'symbol' was empty."),
    ("symbol=BTCUSDT&interval=", -1105, "Parameter 'interval' was empty."),
    ("symbol=BTCUSDT&interval=1h&limit=", -1105, "Parameter 'limit' was empty."),
    (
        "symbol=btcusdt&interval=1h",
        -1100,
        f"Illegal characters found in parameter 'symbol'; legal range is '{SYMBOL}'.",
    ),
    *(
        (
            f"symbol=BTCUSDT&interval=1h&{name}={value}",
            -1100,
            f"Illegal characters found in parameter '{name}'; legal range is '{LONG}'.",
        )
        for name in ("startTime", "endTime", "limit")
        for value in ("-1", "1.5", "now", "1" * 21)
    ),
    (
        "symbol=BTCUSDT&interval=1h&startTime=99999999999999999999",
        -1108,
        "Parameter 'startTime' overflowed.",
    ),
    ("symbol=BTCUSDT&interval=1h&limit=0", -1130, "Data sent for parameter 'limit' is not valid."),
    *(
        (
            f"symbol=BTCUSDT&interval={interval}&timeZone={zone}",
            -1130,
            "Data sent for parameter 'timeZone' is not valid.",
        )
        for interval, zone in (
            *(("1h", zone) for zone in ("05:45", "15", "-12:30", "14:01", "UTC", "1:60")),
            ("4h", "1"),
            ("1d", "8"),
        )
    ),
    ("symbol=NOSUCH&interval=1h", -1121, "Invalid symbol."),
    ("symbol=NOSUCH&interval=7h", -1121, "Invalid symbol."),
    ("symbol=BTCUSDT&interval=7h", -1120, "Invalid interval."),
    ("symbol=BTCUSDT&interval=1H", -1120, "Invalid interval."),
    ("symbol=BTCUSDT&interval=5m", -1120, "Invalid interval."),
    ("symbol=BTCUSDT&interval=1M", -1120, "Invalid interval."),
]


@pytest.mark.parametrize(("query", "code", "text"), BAD)
def test_a_wrong_request_gets_binances_error(client, query, code, text):
    response = client.get(f"/api/v3/klines?{query}")
    assert response.status_code == 400
    assert response.json() == {"code": code, "msg": text}
    assert response.headers["x-mbx-used-weight"] == "2"


@pytest.mark.parametrize("path", ["ping", "time"])
def test_endpoints_without_parameters_refuse_any(client, path):
    response = client.get(f"/api/v3/{path}?a=1")
    text = "Too many parameters; expected '0' and received '1'."
    assert (response.status_code, response.json()) == (400, {"code": -1101, "msg": text})


def test_an_unknown_path_is_a_page(client):
    response = client.get("/api/v3/depth")
    assert (response.status_code, response.text) == (
        404,
        "<html><body><h2>404 Not found</h2></body></html>",
    )


def test_exchange_info_lists_every_symbol(client):
    info = client.get("/api/v3/exchangeInfo").json()
    assert [
        (s["symbol"], s["status"], s["baseAsset"], s["quoteAsset"]) for s in info["symbols"]
    ] == [
        ("ADAUSDT", "TRADING", "ADA", "USDT"),
        ("BNBUSDT", "TRADING", "BNB", "USDT"),
        ("BTCUSDT", "TRADING", "BTC", "USDT"),
        ("ETHUSDT", "TRADING", "ETH", "USDT"),
    ]
    assert info["serverTime"] == END
    assert info["rateLimits"][0]["rateLimitType"] == "REQUEST_WEIGHT"


def test_exchange_info_takes_symbols(client):
    def names(query):
        found = client.get(f"/api/v3/exchangeInfo?{query}").json()
        return [one["symbol"] for one in found["symbols"]]

    assert names("symbol=ETHUSDT") == ["ETHUSDT"]
    assert names('symbols=["ETHUSDT","ADAUSDT"]') == ["ETHUSDT", "ADAUSDT"]
    assert len(names("symbolStatus=TRADING")) == 4
    assert names("symbolStatus=BREAK") == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("symbol=NOSUCH", -1121),
        ('symbols=["ETHUSDT","NOSUCH"]', -1121),
        ("symbols=ETHUSDT", -1100),
        ('symbols=["ETHUSDT","ETHUSDT"]', -1151),
        ('symbol=ETHUSDT&symbols=["BTCUSDT"]', -1106),
        ("symbol=ETHUSDT&symbolStatus=TRADING", -1106),
        ("symbolStatus=OPEN", -1122),
        ("showPermissionSets=maybe", -1100),
        ("bogus=1", -1104),
    ],
)
def test_exchange_info_refuses(client, query, code):
    response = client.get(f"/api/v3/exchangeInfo?{query}")
    assert (response.status_code, response.json()["code"]) == (400, code)


def test_a_symbol_that_ended_is_on_break(exchange, client):
    exchange.set_clock(END + 3 * DAY)
    symbols = client.get("/api/v3/exchangeInfo").json()["symbols"]
    assert {one["status"] for one in symbols} == {"BREAK"}


def test_weights_add_up(client):
    for path, used in [("ping", 1), ("time", 2), ("exchangeInfo", 22)]:
        headers = client.get(f"/api/v3/{path}").headers
        assert headers["x-mbx-used-weight"] == headers["x-mbx-used-weight-1m"] == str(used)
    assert klines(client).headers["x-mbx-used-weight-1m"] == "24"


def test_the_clock_is_set_and_advanced(client, rows):
    now = rows[100][0]
    assert client.post("/control/clock", json={"now": now}).json() == {"now": now, "running": False}
    assert klines(client, limit=2, endTime=now - 1).json() == rows[98:100]
    assert client.post("/control/clock", json={"advance_ms": HOUR}).json()["now"] == now + HOUR
    assert client.get("/control/clock").json()["now"] == now + HOUR
    assert client.get("/api/v3/time").json() == {"serverTime": now + HOUR}
    assert klines(client, limit=2, endTime=now).json() == rows[99:101]


@pytest.mark.parametrize(
    "body", [b"x", b"[]", b"{}", b'{"now":1,"advance_ms":1}', b'{"now":"1"}', b'{"advance_ms":-1}']
)
def test_a_wrong_clock_is_refused_and_changes_nothing(client, body):
    response = client.post("/control/clock", content=body)
    assert response.status_code == 400
    assert response.json()["error"]
    assert client.get("/api/v3/time").json() == {"serverTime": END}


def test_a_candle_closes_only_after_its_close_time(exchange, client, rows):
    row = rows[200]
    exchange.set_clock(row[6])
    assert klines(client, limit=1).json()[0][5] == "0.00000000"
    exchange.set_clock(row[6] + 1)
    assert klines(client, limit=1, endTime=row[0]).json() == [row]


def test_a_forming_hour_without_shorter_bars_shows_its_open_alone(exchange, client, rows):
    row = rows[300]
    exchange.set_clock(row[0] + HOUR // 2)
    zero = "0.00000000"
    assert klines(client, limit=2).json() == [
        rows[299],
        [row[0], row[1], row[1], row[1], row[1], zero, row[0] + HOUR - 1, zero, 0, zero, zero, "0"],
    ]


def test_a_forming_day_is_the_sum_of_its_finished_hours(exchange, client, klines_folder, rows):
    day = next(r for r in read(klines_folder, "BTCUSDT-1d") if r[0] == 1_600_041_600_000)
    hours = [row for row in rows if day[0] <= row[0] < day[0] + 13 * HOUR]
    exchange.set_clock(day[0] + 13 * HOUR + 1)
    got = klines(client, interval="1d", limit=1).json()[0]
    assert got[:2] == day[:2]
    assert float(got[2]) == max(float(row[2]) for row in hours)
    assert float(got[3]) == min(float(row[3]) for row in hours)
    assert got[4] == hours[-1][4]
    units = sum(int(row[5].replace(".", "")) for row in hours)
    assert got[5] == f"{units // 10**8}.{units % 10**8:08d}"
    assert got[8] == sum(row[8] for row in hours)
    assert got[6] == day[0] + DAY - 1


def test_an_outage_serves_no_candle_of_its_hours(exchange, client, klines_folder):
    hours = [row[0] for row in read(klines_folder, "BTCUSDT-1h")]
    before, after = next((a, b) for a, b in pairwise(hours) if b - a > 3 * HOUR)
    exchange.set_clock(before + 2 * HOUR + 5)
    assert klines(client, limit=1).json()[0][0] == before
    exchange.set_clock(after)
    assert klines(client, limit=1).json()[0][0] == after


def test_counters_tell_paths_and_statuses(client):
    client.get("/api/v3/ping")
    klines(client)
    klines(client, symbol="NOSUCH")
    assert client.get("/control/requests").json() == {
        "total": 3,
        "paths": {"/api/v3/ping": {"200": 1}, "/api/v3/klines": {"200": 1, "400": 1}},
    }
    assert client.delete("/control/requests").json() == {"total": 0, "paths": {}}


def test_control_costs_no_weight(client):
    client.get("/control/requests")
    client.post("/control/clock", json={"advance_ms": 1})
    assert client.get("/control/limits").json()["used"] == 0
    assert client.get("/control/origin").json() == {"origin": "replay:binance_klines"}


def test_a_busy_port_is_named_before_anything_starts(exchange, recorded):
    port = int(exchange.url.rsplit(":", 1)[1])
    with pytest.raises(ConfigurationError, match=rf"port {port} .*--port"):
        serve(recorded, port=port)
    with pytest.raises(ConfigurationError, match=f"port {port} "):
        ExchangeServer(recorded, port=port)


def test_a_broken_row_is_an_internal_error_not_a_short_answer(tmp_path, caplog):
    row = "1600000000000,1,1,1,1,1,1600003599999,1,1,1,1,0\n"
    (tmp_path / "BTCUSDT-1h.csv").write_text(row + "nonsense\n")
    with (
        ExchangeServer(RecordedMarket(tmp_path), now=1_600_003_600_000) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        response = klines(client)
    assert (response.status_code, response.json()["code"]) == (500, -1001)
    assert "BTCUSDT-1h.csv, line 2: 1 cells instead of 12" in caplog.text
