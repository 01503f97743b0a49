"""The connector run as a process, by our runner and by the kit's own command, against the
replay exchange. A process start costs seconds, so reads are shared among assertions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from hashlib import md5
from pathlib import Path

import pytest
import yaml

from bentley.airbyte import protocol, runner
from bentley.airbyte.failures import SourceConfigurationError, SourceRetriableError
from bentley.domain import intervals
from bentley.domain.bars import FIELDS
from bentley.domain.errors import ConfigurationError, RetriableError
from bentley.services.exchange.generated import GeneratedMarket
from bentley.services.exchange.recorded import RecordedMarket
from bentley.services.exchange.server import ExchangeServer

REPOSITORY = Path(__file__).resolve().parents[3]
FOLDER = REPOSITORY / "connectors" / "source-binance"
RECORDED = REPOSITORY / "../shared/data/binance_klines"
SOURCE = runner.declarative(FOLDER)
CATALOG = protocol.incremental_catalog(["klines"])
HOUR = intervals.millis("1h")
START = 1_577_836_800_000  # 2020-01-01
NOW = START + 2_500 * HOUR + HOUR // 2


@pytest.fixture
def exchange():
    with ExchangeServer(GeneratedMarket(7, ["BTCUSDT", "ETHUSDT", "ADAUSDT"]), now=NOW) as server:
        yield server


def config(server, **more):
    return {
        "base_url": server.url,
        "symbols": ["BTCUSDT"],
        "intervals": ["1h"],
        "start_time": START,
        **more,
    }


def _plain(row):
    """A row without the time of its answer, which differs from run to run."""
    answered = row.pop("answered_at")
    assert abs(answered / 1000 - time.time()) < 120
    return row


def read(given, state=None, **options):
    """Rows, states and the error of one run."""
    rows, states = [], []
    try:
        for batch in runner.read(SOURCE, given, ["klines"], state, catalog=CATALOG, **options):
            rows += map(_plain, batch.rows)
            states += batch.states
    except (SourceConfigurationError, RetriableError) as error:
        return rows, states[-1:] or list(state or []), error
    return rows, states[-1:] or list(state or []), None


def served(server, symbol, interval, start=START, end=None):
    """What the exchange itself holds, as records."""
    market, now = server.exchange.market, server.now
    rows = market.klines(symbol, interval, start, end, 1_000_000, now)
    return [{"symbol": symbol, "interval": interval, **_named(row)} for row in rows]


def _named(row):
    return dict(zip(FIELDS[2:], row, strict=False))


def by_key(rows):
    return {(row["symbol"], row["interval"], row["open_time"]): row for row in rows}


def test_all_symbols_and_intervals_then_only_what_is_new(exchange):
    given = config(exchange, symbols=["BTCUSDT", "NOPEUSDT", "ETHUSDT"], intervals=["1h", "4h"])
    rows, states, error = read(given)

    expected = [
        row
        for symbol in ("BTCUSDT", "ETHUSDT")
        for interval in ("1h", "4h")
        for row in served(exchange, symbol, interval)
    ]
    assert len(expected) > 6_000
    assert by_key(rows) == by_key(expected)
    assert len(rows) == len(expected)
    assert tuple(rows[0]) == FIELDS
    assert all(isinstance(rows[0][name], str) for name in ("open", "volume", "quote_volume"))
    assert any(row["close_time"] >= NOW for row in rows), "the forming candle comes too"

    assert isinstance(error, SourceConfigurationError)
    assert error.orderly
    assert {
        (failure.detail["symbol"], failure.detail["interval"], failure.detail["code"])
        for failure in error.failures
    } == {("NOPEUSDT", "1h", -1121), ("NOPEUSDT", "4h", -1121)}
    assert "NOPEUSDT 1h" in str(error)
    assert "no such symbol" in str(error)

    # The next sync: two hours later, a late correction, and a symbol that is asked for anew.
    exchange.advance(2 * HOUR)
    last = max(row["open_time"] for row in rows if row["interval"] == "1h")
    changed = last - 3 * HOUR
    exchange.rows(
        [
            {
                "symbol": "BTCUSDT",
                "interval": "1h",
                "open_time": changed,
                "cells": {"volume": "1.10"},
            }
        ]
    )
    given = config(exchange, symbols=["BTCUSDT", "ADAUSDT"])
    again, later, error = read(given, states)
    assert error is None
    btc = [row for row in again if row["symbol"] == "BTCUSDT"]
    assert [row["open_time"] for row in btc] == [last + n * HOUR for n in range(-3, 3)]
    assert btc[0]["volume"] == "1.10"
    before = by_key(rows)["BTCUSDT", "1h", last]
    assert btc[3]["volume"] != before["volume"], "the candle that was forming has closed"
    ada = [row for row in again if row["symbol"] == "ADAUSDT"]
    assert ada == served(exchange, "ADAUSDT", "1h"), "a symbol added later has its whole past"
    positions = {
        tuple(sorted(state["partition"].items())): state["cursor"]["open_time"]
        for state in later[0]["stream"]["stream_state"]["states"]
    }
    assert positions[("interval", "1h"), ("symbol", "BTCUSDT")] == str(last + 2 * HOUR)


def test_a_range_and_its_pages_end_where_they_should(exchange):
    given = config(
        exchange, start_time=START + 1, end_time=START + 21 * HOUR, page_limit=10, lookback_bars=5
    )
    rows, states, error = read(given)
    assert error is None
    times = [row["open_time"] for row in rows]
    assert times == [START + n * HOUR for n in range(1, 21)], "end_time is exclusive"
    pages = exchange.requests()["paths"]["/api/v3/klines"]
    assert sum(pages.values()) <= 3

    rows, _, error = read(given | {"end_time": START + 22 * HOUR}, states)
    assert error is None
    assert [row["open_time"] for row in rows] == [START + n * HOUR for n in range(15, 22)]


def test_a_start_that_moved_past_the_position_leaves_no_hole(exchange):
    _, states, _ = read(config(exchange, end_time=START + 9 * HOUR))
    later = config(exchange, start_time=START + 40 * HOUR, end_time=START + 50 * HOUR)
    rows, after, error = read(later, states)
    assert error is None
    assert [row["open_time"] for row in rows] == [START + n * HOUR for n in range(8, 50)]

    rows, kept, error = read(config(exchange, end_time=START + 20 * HOUR), after)
    assert (rows, error) == ([], None), "a range before the position is no step back"
    cursors = [state["stream"]["stream_state"]["states"][0]["cursor"] for state in (*after, *kept)]
    assert cursors == [{"open_time": str(START + 49 * HOUR)}] * 2


def test_a_range_without_bars_stores_no_position(exchange):
    _, states, error = read(config(exchange, start_time=NOW + 9 * HOUR))
    assert error is None
    rows, _, _ = read(config(exchange, end_time=START + 5 * HOUR), states)
    assert len(rows) == 5


def test_what_passes_is_waited_for_and_nothing_is_lost_or_doubled(exchange):
    kinds = ["429", "500", "half_body", "refuse", "not_json", "empty", "403_page", "503", "418"]
    exchange.faults(
        [
            {"kind": kind, "count": 1, "after": 1 + 3 * n}
            | ({"retry_after": 1} if kind in {"429", "418"} else {})
            for n, kind in enumerate(kinds)
        ]
    )
    rows, _, error = read(config(exchange, symbols=["BTCUSDT", "ETHUSDT"], page_limit=100))
    assert error is None
    assert [fault["struck"] for fault in exchange.exchange.faults.listed()] == [1] * len(kinds)
    expected = served(exchange, "BTCUSDT", "1h") + served(exchange, "ETHUSDT", "1h")
    assert Counter(map(_key, rows)) == Counter(map(_key, expected))
    assert by_key(rows) == by_key(expected)


def _key(row):
    return row["symbol"], row["open_time"]


def test_a_ban_is_no_reason_to_sleep_for_long(exchange):
    exchange.faults([{"kind": "418", "retry_after": 600, "every": 1}])
    rows, _, error = read(config(exchange))
    assert rows == []
    assert isinstance(error, SourceRetriableError)
    assert error.retry_after == pytest.approx(600, abs=5)
    assert "418" in str(error)
    assert "asks for 600 s" in str(error)


def test_a_refusal_by_the_cdn_fails_as_passing_and_says_what_to_try(exchange):
    exchange.faults([{"kind": "403_page", "every": 1}])
    rows, _, error = read(config(exchange, max_retries=1))
    assert rows == []
    assert isinstance(error, SourceRetriableError)
    assert "BTCUSDT 1h" in str(error)
    assert "try another base_url" in str(error)
    assert "<" not in str(error).split("403")[1]


def test_an_exchange_out_of_reach_is_a_retriable_error():
    server = ExchangeServer(GeneratedMarket(7, ["BTCUSDT"]), now=NOW)
    server.stop()
    rows, _, error = read(config(server, max_retries=0))
    assert rows == []
    assert isinstance(error, SourceRetriableError)
    assert "no answer from the exchange" in str(error)


def test_recorded_rows_come_through_to_the_character():
    if not RECORDED.is_dir():
        pytest.skip(f"the recorded klines are not at {RECORDED}")
    with ExchangeServer(RecordedMarket(RECORDED, ["BNBUSDT"])) as server:
        start = 1_517_000_000_000  # over the outage of February 2018 and early closes
        end = 1_525_000_000_000
        rows, _, error = read(
            config(server, symbols=["BNBUSDT"], intervals=["1h", "1d"], start_time=start)
            | {"end_time": end}
        )
        expected = [
            row
            for interval in ("1h", "1d")
            for row in served(server, "BNBUSDT", interval, start, end - 1)
        ]
    assert error is None
    assert len(expected) > 2_000
    assert by_key(rows) == by_key(expected)


def test_spec_check_and_discover(exchange):
    properties = runner.spec(SOURCE)["connectionSpecification"]["properties"]
    assert set(properties["intervals"]["items"]["enum"]) == set(intervals.MILLIS)
    runner.check(SOURCE, config(exchange))
    with pytest.raises(ConfigurationError, match="NOPEUSDT"):
        runner.check(SOURCE, config(exchange, symbols=["NOPEUSDT"]))
    (stream,) = runner.discover(SOURCE, config(exchange))["streams"]
    assert tuple(stream["json_schema"]["properties"]) == (*FIELDS, "answered_at")
    assert stream["source_defined_primary_key"] == [["symbol"], ["interval"], ["open_time"]]
    assert stream["default_cursor_field"] == ["open_time"]
    assert "incremental" in stream["supported_sync_modes"]


def test_a_wrong_configuration_is_refused_by_its_specification(exchange):
    with pytest.raises(ConfigurationError, match="1M"):
        runner.check(SOURCE, config(exchange, intervals=["1M"]))


def imported():
    """What Airbyte adds to the configuration of a connector that was imported into its Builder."""
    code = (FOLDER / "components.py").read_text(encoding="utf-8")
    return {
        "__injected_declarative_manifest": yaml.safe_load((FOLDER / "manifest.yaml").read_text()),
        "__injected_components_py": code,
        "__injected_components_py_checksums": {"md5": md5(code.encode()).hexdigest()},
    }


@pytest.mark.parametrize(
    ("more", "files"),
    [
        (
            dict,
            (
                *("--manifest-path", FOLDER / "manifest.yaml"),
                *("--components-path", FOLDER / "components.py"),
            ),
        ),
        (imported, ()),
    ],
    ids=["folder", "imported"],
)
def test_the_kits_own_command_runs_it(exchange, tmp_path, more, files):
    given = config(exchange, end_time=START + 9 * HOUR, **more())
    (tmp_path / "config.json").write_text(json.dumps(given))
    configured, _ = protocol.configured_catalog(CATALOG, ["klines"])
    (tmp_path / "catalog.json").write_text(json.dumps(configured))

    def kit(*arguments):
        done = subprocess.run(
            [
                Path(sys.executable).parent / "source-declarative-manifest",
                *arguments,
                *files,
            ],
            cwd=tmp_path,
            env={**os.environ, "AIRBYTE_ENABLE_UNSAFE_CODE": "true"},
            capture_output=True,
            check=True,
            timeout=60,
        )
        messages = [protocol.parse(line) for line in done.stdout.splitlines()]
        return Counter(message["type"] for message in messages if message), messages

    given = ("--config", "config.json")
    _, messages = kit("check", *given)
    assert {"type": "CONNECTION_STATUS", "connectionStatus": {"status": "SUCCEEDED"}} in messages
    assert kit("discover", *given)[0]["CATALOG"] == 1
    counted, messages = kit("read", *given, "--catalog", "catalog.json")
    assert counted["RECORD"] == 9
    assert counted["STATE"] >= 1
    rows = [
        _plain(message["record"]["data"]) for message in messages if message["type"] == "RECORD"
    ]
    assert rows == served(exchange, "BTCUSDT", "1h", START, START + 8 * HOUR)
