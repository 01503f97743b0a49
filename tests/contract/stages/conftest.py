"""The chain's stages on real parts: the connector, an exchange on loopback, an MLflow server."""

import pytest

from bentley.services.exchange.generated import GeneratedMarket
from bentley.services.exchange.server import ExchangeServer
from bentley.warehouse.warehouse import Warehouse
from unit.stages.mlflow_support import shared_mlflow

HOUR = 3_600_000
NOW = 1_700_002_800_000 + HOUR // 2
"""Half past an hour: the last bar of every series is still forming."""


@pytest.fixture(scope="session")
def mlflow_uri(request):
    return shared_mlflow(request.config)


@pytest.fixture(scope="session")
def exchange_server():
    market = GeneratedMarket(7, ["BTCUSDT", "ETHUSDT"])
    with ExchangeServer(market, now=NOW, weight_limit=10**9) as server:
        yield server


@pytest.fixture
def exchange(exchange_server):
    exchange_server.reset()
    return exchange_server


@pytest.fixture
def configured(settings, database_url, exchange):
    """Settings of an empty database and the exchange, with what a test adds."""

    def make(**more):
        given = {
            "warehouse_url": database_url,
            "exchange_url": exchange.url,
            "symbols": ["BTCUSDT"],
            "history_days": 3,
        }
        return settings(**(given | more))

    return make


@pytest.fixture
def warehouse(configured):
    with Warehouse.open(configured()) as warehouse:
        yield warehouse
