"""Which exchange a run talks to, and that no origin ever overwrites another's bars."""

from __future__ import annotations

import time

import pytest

from bentley.domain.errors import ConfigurationError, FatalError, RetriableError
from bentley.services import market_choice
from bentley.services.market_choice import chosen
from bentley.warehouse.warehouse import Warehouse

OPEN = 1_600_002_000_000
HOUR = 3_600_000
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_asset_volume,trades,"
    "taker_buy_base,taker_buy_quote,ignore"
)


@pytest.fixture
def recording(tmp_path):
    folder = tmp_path / "some_klines"
    folder.mkdir()
    rows = [
        f"{OPEN + i * HOUR},10.0,12.0,9.0,11.0,5.0,{OPEN + (i + 1) * HOUR - 1},55.0,3,2.0,22.0,0"
        for i in range(10)
    ]
    (folder / "BTCUSDT-1h.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return folder


def test_a_replay_covers_every_row_with_its_clock_just_after_the_last(settings, recording):
    with chosen(settings(), recording) as choice:
        assert choice.settings.since == OPEN
        assert choice.settings.origin.startswith("replay:some_klines@")
        assert choice.settings.replayed
        assert market_choice.exchange.server_time(choice.settings.exchange_url) == OPEN + 10 * HOUR


def test_until_stops_the_replays_clock(settings, recording):
    given = settings(until=OPEN + 4 * HOUR)
    with chosen(given, recording) as choice:
        assert market_choice.exchange.server_time(choice.settings.exchange_url) == OPEN + 4 * HOUR


def test_a_folder_without_the_symbols_is_refused_with_what_it_has(settings, recording):
    with (
        pytest.raises(ConfigurationError, match=r"DOGEUSDT.*BTCUSDT"),
        chosen(settings(symbols="DOGEUSDT"), recording),
    ):
        pass


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"until": OPEN - HOUR}, "--until 2020-09-13T12:00:00Z leaves nothing"),
        ({"since": OPEN + 10 * HOUR}, "--since 2020-09-13T23:00:00Z leaves nothing"),
    ],
)
def test_a_range_without_a_recorded_bar_is_refused_with_what_is_recorded(
    settings, recording, given, said
):
    with pytest.raises(ConfigurationError) as caught, chosen(settings(**given), recording):
        pass
    assert said in str(caught.value)
    assert "BTCUSDT from 2020-09-13T13:00:00Z to 2020-09-13T23:00:00Z" in str(caught.value)


def test_a_start_in_the_future_is_refused(settings, monkeypatch):
    monkeypatch.setattr(market_choice.exchange, "server_time", lambda *_, **__: OPEN)
    with (
        pytest.raises(
            ConfigurationError, match=r"lies in the future: at http://exchange\.example it"
        ),
        chosen(settings(since=OPEN, exchange_url="http://u:secret@exchange.example"), None),
    ):
        pass
    with chosen(settings(exchange_url="http://u:secret@exchange.example"), None) as choice:
        assert choice.notice == "The exchange is http://exchange.example."


def test_no_generated_bar_lies_in_the_future(settings, monkeypatch):
    monkeypatch.setattr(market_choice.exchange, "server_time", _unreachable)
    with chosen(settings(until="2035-01-01"), None) as choice:
        now = _server_time(choice.settings.exchange_url)
        assert abs(now - time.time() * 1000) < 60_000
    with chosen(settings(until="2024-01-01"), None) as choice:
        assert _server_time(choice.settings.exchange_url) == 1_704_067_200_000
    with (
        pytest.raises(ConfigurationError, match=r"generated bars run from 2019-12-30"),
        chosen(settings(until="2019-01-01"), None),
    ):
        pass


@pytest.mark.parametrize("error", [RetriableError("no answer"), FatalError("a portal's page")])
def test_where_the_public_exchange_gives_no_answer_bars_are_generated(settings, monkeypatch, error):
    def ask(*_, **__):
        raise error

    monkeypatch.setattr(market_choice.exchange, "server_time", ask)
    with chosen(settings(), None) as choice:
        assert choice.settings.origin == f"generated:{market_choice.GENERATED_SEED}"
        assert "GENERATED" in choice.notice
        assert str(error) in choice.notice


def test_an_exchange_that_was_named_is_never_replaced(settings):
    named = settings(exchange_url="http://127.0.0.1:9")
    with pytest.raises(RetriableError, match=r"127\.0\.0\.1:9"), chosen(named, None):
        pass


def test_the_real_warehouse_takes_no_replayed_bar(settings):
    address = f"sqlite:///{settings().home}/mansa_bot.db"
    Warehouse.open(settings()).close()
    with pytest.raises(ConfigurationError, match="holds bars of origin 'exchange'"):
        Warehouse.open(_as_replay(settings, address))


_server_time = market_choice.exchange.server_time


def _unreachable(*_, **__):
    msg = "no answer"
    raise RetriableError(msg)


def _as_replay(settings, address):
    """Settings that would write replayed bars straight into the real file."""

    class Wrong(type(settings())):
        @property
        def database_url(self) -> str:
            return address

    return Wrong(home=settings().home, origin="replay:x")
