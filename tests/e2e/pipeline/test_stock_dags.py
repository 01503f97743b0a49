"""The DAGs of stocks on a real Airflow, against a stand-in that serves recorded histories."""

from __future__ import annotations

import time

import pytest
import sqlalchemy as sa

import market_server
import stock_support
from bentley import settings as bentley_settings
from bentley.domain import adjustment
from bentley.services.run import STOCKS, TIINGO, services
from bentley.warehouse import stocks as stored
from bentley.warehouse.schema import stock_consensus, stock_prices
from bentley.warehouse.warehouse import Warehouse
from support import free_port

ASSET = "mysql://mansa_bot/stock_prices"
SOURCES = ("tiingo", "polygon", "alpha_vantage", "yahoo", "stocktwits")


@pytest.fixture(scope="module")
def market(recorded):
    with market_server.serve() as market:
        for ticker in ("aapl", "spy"):
            market.histories[ticker.upper()] = stock_support.history(recorded, ticker)
            now = int(time.time() * 1000)
            market.messages[ticker.upper()] = [
                market_server.message(at, now - (100 - at) * 900_000, "Bullish")
                for at in range(100)
            ]
        yield market


@pytest.fixture(scope="module")
def airflow(market, tmp_path_factory, migrated):
    """An Airflow of its own: these need no exchange, and years before its bars begin."""
    settings = bentley_settings.load(
        home=migrated(tmp_path_factory.mktemp("stocks")),
        exchange_url="http://127.0.0.1:9",
        tickers="AAPL SPY",
        since="1998-01-01",
        until="2021-04-01",
        rate_limits="polygon=100/1 alpha_vantage=100/1",
        airflow_port=free_port(),
        mlflow_port=free_port(),
        **market.settings(),
    )
    with services(settings, say=lambda _: None) as up, up.client() as client:
        assert up.configured() == [STOCKS, TIINGO]
        up.patiently(lambda: client.wait_for_dag(up.configured(), alive=up.group.check))
        for dag_id in up.configured():
            client.unpause(dag_id)
        yield settings, client
    # what is left of it holds no key
    for file in settings.home.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not [key for key in market_server.KEYS.values() if key.encode() in content], file


def run(client, dag_id):
    """Run a DAG to its end; its state, and the states of its tasks by what they are of."""
    run_id = client.trigger(dag_id).run_id
    deadline = time.monotonic() + 240
    while not (found := client.run(dag_id, run_id)).finished:
        assert time.monotonic() < deadline, client.task_instances(dag_id, run_id)
        time.sleep(0.5)
    tasks = {
        (one.task_id, one.map_index): one.state for one in client.task_instances(dag_id, run_id)
    }
    return found, tasks


def test_a_source_that_fails_leaves_the_others_whole(airflow, market):
    _, client = airflow
    market.say("polygon", 429, '{"status":"ERROR"}', Retry_After="7200")
    found, tasks = run(client, STOCKS)
    market.be_itself()
    assert found.state == "success", tasks
    assert sorted(state for (name, _), state in tasks.items() if name == "pull") == [
        "failed",
        *["success"] * 4,
    ]
    assert "| polygon | failed | 2 of 2 tickers failed" in (found.note or "")
    assert "| tiingo | pulled |" in (found.note or "")


def test_every_source_gives_its_prices_and_the_consensus_is_announced(airflow):
    settings, client = airflow
    found, tasks = run(client, STOCKS)
    assert found.state == "success", tasks
    assert {tasks["pull", at] for at in range(5)} == {"success"}
    for name in SOURCES:
        assert f"| {name} | pulled |" in (found.note or "")
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        counts = dict(
            connection.execute(
                sa.select(stock_prices.c.source, sa.func.count()).group_by(stock_prices.c.source)
            ).all()
        )
        flags = connection.scalars(sa.select(stock_consensus.c.quality_flag).distinct()).all()
        decided = stored.decided(connection, "AAPL")
        hours = stored.sentiment(connection, "AAPL")
    assert counts == dict.fromkeys(SOURCES[:4], 2 * 5849)
    assert (decided.height, decided["sources"].min()) == (5_849, 4)
    assert set(flags) <= {"ok", "dividends_differ"}
    assert hours["bullish"].sum() > 90
    events = client.asset_events(name=ASSET)
    assert [event.extra["rows"] for event in events] == [2 * 5_849] * 2
    split = adjustment.factors(decided)["split_factor"]
    assert split[0] == pytest.approx(1 / 112, abs=1e-9)


def test_a_correction_by_the_daily_pull(airflow, market):
    settings, client = airflow
    last = market.histories["SPY"][-1]
    last |= {"close": "396.4", "adj_close": "396.4"}
    found, tasks = run(client, TIINGO)
    assert found.state == "success", tasks
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        decided = stored.decided(connection, "SPY")
    assert decided["session"][-1].isoformat() == last["session"]
    assert float(decided["close"][-1]) == 396.4
    assert decided["quality_flag"][-1] == "ok"
    events = client.asset_events(name=ASSET)
    assert next(event.extra["rows"] for event in events) == 1


def test_a_run_in_which_no_source_gives_anything_fails_and_names_each(airflow, market):
    _, client = airflow
    market.say("tiingo", 404, '{"detail":"Error: Ticker not found"}')
    found, tasks = run(client, TIINGO)
    market.be_itself()
    assert found.state == "failed"
    assert tasks["pull", -1] == "failed"
    assert "AAPL: Tiingo knows no ticker AAPL" in (found.note or "")
    assert "2 of 2 tickers failed" in (found.note or "")
