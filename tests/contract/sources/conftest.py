"""The stand-in of the stocks' sources, and settings that lead there."""

import pytest

import market_server


@pytest.fixture
def market():
    with market_server.serve() as market:
        yield market


@pytest.fixture
def given(market, settings):
    return settings(**market.settings())
