"""The stand-in of the stocks' sources, and settings that lead there."""

import pytest


@pytest.fixture
def given(market, settings):
    return settings(**market.settings())
