"""A real exchange on loopback over recorded klines, for the tests of this folder."""

from pathlib import Path

import httpx
import pytest

from bentley.services.exchange.recorded import RecordedMarket
from bentley.services.exchange.server import ExchangeServer

DATA = Path(__file__).resolve().parents[3] / "../shared/data"


@pytest.fixture(scope="session")
def klines_folder():
    folder = DATA / "binance_klines"
    if not folder.is_dir():
        pytest.skip(f"the recorded klines are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def recorded(klines_folder):
    return RecordedMarket(klines_folder)


@pytest.fixture(scope="session")
def server(recorded):
    with ExchangeServer(recorded, weight_limit=10**9) as server:
        yield server


@pytest.fixture
def exchange(server):
    server.reset()
    return server


@pytest.fixture
def client(exchange):
    with httpx.Client(base_url=exchange.url) as client:
        yield client
