"""Each source of stocks against its documented API: rows, pages, and every way to say no."""

import json
import logging
import tarfile
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime

import httpx
import pytest
import yaml

from archive_support import ms
from bentley.domain import adjustment, sessions, stocks
from bentley.domain.errors import (
    ConfigurationError,
    FatalError,
    RetriableError,
    UnknownTickerError,
)
from bentley.domain.market import STOCK_SOURCES
from bentley.sources import alpha_vantage, catalog
from bentley.sources.source import Period
from market_server import KEYS, message
from stock_support import row

PRICED = [name for name in STOCK_SOURCES if name != "stocktwits"]


def days(first, last):
    return Period(ms(first), ms(last) + 86_400_000)


def pull(given, name, ticker="AAPL", period=None):
    period = period or days("2024-01-02", "2024-01-05")
    return catalog.named(name).pull(given, ticker, period)


def sifted(fetched):
    found = stocks.sift(fetched.rows, now=ms("2026-01-01"))
    assert found.rejected.is_empty()
    return found.prices


@pytest.fixture(autouse=True)
def _history(market):
    market.histories["AAPL"] = [
        row("2024-01-02", "100"),
        row("2024-01-03", "50", split="2"),
        row("2024-01-04", "51", dividend="0.25"),
        row("2024-01-05", "52"),
        row("2024-01-08", "13", split="4"),
    ]


def test_the_catalog_is_what_settings_may_name():
    assert tuple(source.name for source in catalog.SOURCES) == STOCK_SOURCES
    with pytest.raises(ConfigurationError, match="no source 'bloomberg': there are tiingo"):
        catalog.named("bloomberg")


@pytest.mark.parametrize("name", PRICED)
def test_raw_prices_are_the_same_from_every_source(given, name):
    found = sifted(pull(given, name))
    assert found["close"].to_list() == [100, 50, 51, 52]
    assert found["volume"].to_list() == [1000] * 4
    assert found["source"].to_list() == [name] * 4


@pytest.mark.parametrize("name", ["tiingo", "polygon", "yahoo"])
def test_events_are_the_same_from_every_source_that_tells_them(given, name):
    found = sifted(pull(given, name))
    assert found["split_factor"].to_list() == [1, 2, 1, 1]
    assert found["div_cash"].to_list() == [0, 0, Decimal("0.25"), 0]


@pytest.mark.parametrize("name", ["tiingo", "yahoo"])
def test_a_class_of_shares_is_asked_for_with_a_dash_and_stored_with_a_point(market, given, name):
    market.histories["BRK-B"] = [row("2024-01-02", "360")]
    found = sifted(pull(given, name, "BRK.B"))
    assert found["ticker"].to_list() == ["BRK.B"]
    assert "BRK-B" in market.requests(name)[-1].path


def test_polygon_asks_for_a_class_of_shares_with_a_point(market, given):
    market.histories["BRK.B"] = [row("2024-01-02", "360")]
    assert sifted(pull(given, "polygon", "BRK.B"))["ticker"].to_list() == ["BRK.B"]


def test_events_of_another_ticker_are_not_taken(market, given):
    """A server that doesn't know a filter answers with everybody's."""
    foreign = {"ticker": "MSFT", "execution_date": "2024-01-04", "split_from": 1, "split_to": 3}
    own = foreign | {"ticker": "AAPL", "execution_date": "2024-01-03", "split_to": 2}
    market.say("polygon", 200, {"status": "OK", "results": [foreign, own]}, path="/splits")
    assert sifted(pull(given, "polygon"))["split_factor"].to_list() == [1, 2, 1, 1]


def test_alpha_vantage_says_nothing_of_events(given):
    found = sifted(pull(given, "alpha_vantage"))
    assert found["split_factor"].to_list() == [None] * 4


@pytest.mark.parametrize("name", PRICED)
def test_a_ticker_that_is_not_known(given, name):
    with pytest.raises(UnknownTickerError, match=r"knows no ticker GONE.*universe") as caught:
        pull(given, name, "GONE")
    assert caught.value.ticker == "GONE"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tiingo", r'answered 403: its key is refused.*{"detail": "Invalid token\."}'),
        ("polygon", r"answered 401: its key is refused.*Unknown API Key"),
    ],
)
def test_a_key_that_is_refused(market, settings, name, said):
    wrong = settings(**market.settings() | {f"{name}_api_key": "wrong-key-9"})
    with pytest.raises(ConfigurationError, match=said) as caught:
        pull(wrong, name)
    assert "wrong-key-9" not in str(caught.value)
    assert len(market.asked) == 1


@pytest.mark.parametrize("said", ["Please supply a token", "Invalid token."])
def test_either_refusal_of_tiingo_is_told_from_what_a_plan_does_not_include(market, given, said):
    market.say("tiingo", 403, {"detail": said}, Content_Type="application/json")
    with pytest.raises(ConfigurationError, match="answered 403: its key is refused"):
        pull(given, "tiingo")
    market.be_itself()
    other = "You do not have permission to access this resource"
    market.say("tiingo", 403, {"detail": other}, Content_Type="application/json")
    with pytest.raises(FatalError, match="does not allow this with the key's plan"):
        pull(given, "tiingo")


def test_a_key_that_alpha_vantage_refuses_with_status_200(market, settings):
    wrong = settings(**market.settings() | {"alpha_vantage_api_key": "wrong-key-9"})
    with pytest.raises(ConfigurationError, match="ALPHA_VANTAGE_API_KEY") as caught:
        pull(wrong, "alpha_vantage")
    assert "wrong-key-9" not in str(caught.value)


def test_which_sources_lack_their_key(settings):
    bare = settings()
    assert {source.name: source.missing(bare) for source in catalog.SOURCES} == {
        "tiingo": "TIINGO_API_KEY is not set",
        "polygon": "POLYGON_API_KEY is not set",
        "alpha_vantage": "ALPHA_VANTAGE_API_KEY is not set",
        "yahoo": None,
        "stocktwits": None,
    }


def bodies(recorded, api):
    found = json.loads((recorded / "rest_samples" / "error_bodies.json").read_text())
    return [one for one in found if one["api"] == api]


LIMITS = {
    ("tiingo", 200): 30 * 86_400,
    ("tiingo", 429): 3_600,
    ("yahoo", 429): 60,
}


@pytest.mark.parametrize("api", ["tiingo", "alpha_vantage", "yahoo"])
def test_every_recorded_error_is_told_apart(recorded, market, given, api, caplog):
    caplog.set_level(logging.DEBUG)
    for one in bodies(recorded, api):
        market.be_itself()
        market.say(api, one["status"], one["body"].replace("<KEY>", KEYS.get(api, "")))
        with pytest.raises((RetriableError, UnknownTickerError)) as caught:
            pull(given, api)
        if one["status"] == 404 or "Error Message" in one["body"]:
            assert isinstance(caught.value, UnknownTickerError)
        elif api == "alpha_vantage":
            per_day = "25 requests per day" in one["body"] and "per second" not in one["body"]
            assert caught.value.retry_after == (86_400 if per_day else 60)
        else:
            assert caught.value.retry_after == LIMITS[api, one["status"]]
        said = str(caught.value) + caplog.text
        assert not any(key in said for key in KEYS.values())


def test_a_premium_text_is_no_limit_and_a_short_history_is_told_as_such(market, given):
    today = datetime.now(UTC).date()
    market.histories["AAPL"] = [
        row(day.isoformat()) for day in sessions_until(today, alpha_vantage.COMPACT_SESSIONS + 50)
    ]
    refusal = {"Information": "Thank you! The outputsize=full parameter is a premium feature."}
    market.say("alpha_vantage", 200, refusal, times=1)
    period = Period(ms("2020-01-01"), ms(today.isoformat()) + 86_400_000)
    fetched = pull(given, "alpha_vantage", period=period)
    assert fetched.rows.height == 100
    assert fetched.since == ms(fetched.rows["session"].min())
    sizes = [one.query["outputsize"] for one in market.requests("alpha_vantage")]
    assert sizes == ["full", "compact"]


def test_a_period_that_ended_long_ago_needs_the_full_history(market, given):
    today = datetime.now(UTC).date()
    market.histories["AAPL"] = [row(day.isoformat()) for day in sessions_until(today, 400)]
    last = ms(market.histories["AAPL"][0]["session"]) + 1
    assert pull(given, "alpha_vantage", period=Period(last - 86_400_000, last)).rows.height == 1
    assert market.asked[0].query["outputsize"] == "full"


def sessions_until(last, count):
    return sessions.between(sessions.before(last, count), last)["session"][:count]


def test_recorded_tiingo_rows_come_to_the_digit(recorded, market, given):
    text = (recorded / "rest_samples/excerpts/tiingo_daily_AAPL_2023_excerpt.json").read_text()
    market.say("tiingo", 200, text)
    fetched = pull(given, "tiingo", period=days("2023-02-09", "2023-02-13"))
    first = fetched.rows.row(0, named=True)
    assert first["session"] == "2023-02-09"
    assert first["adj_close"] == "149.6405769631"
    assert first["split_factor"] == "1.0"
    prices = sifted(fetched)
    assert prices.height == 3
    assert adjustment.mismatches(prices).is_empty()


@pytest.mark.parametrize("cassette", ["ticker_price", "ticker_price_with_date"])
def test_recorded_cassettes_of_tiingo(recorded, market, given, cassette):
    loaded = yaml.safe_load((recorded / f"rest_samples/tiingo_python/{cassette}.yaml").read_text())
    body = loaded["interactions"][0]["response"]["body"]["string"]
    market.say("tiingo", 200, body)
    fetched = pull(given, "tiingo", "GOOGL", days("2015-01-01", "2018-12-31"))
    expected = [str(one["date"])[:10] for one in json.loads(body)]
    assert fetched.rows["session"].to_list() == expected
    assert adjustment.mismatches(sifted(fetched), newest=True).is_empty()


def test_recorded_polygon_bars_come_to_the_digit(recorded, market, given):
    with tarfile.open(recorded / "rest_samples/polygon_mocks.tar") as archive:
        path = "test_rest/mocks/v2/aggs/ticker/AAPL/range/1/day/2005-04-01/2005-04-04.json"
        opened = archive.extractfile(path)
        assert opened is not None
        market.say("polygon", 200, opened.read().decode(), times=1)
    fetched = pull(given, "polygon", period=days("2005-04-01", "2005-04-04"))
    assert fetched.rows.select("session", "close", "volume").rows() == [
        ("2005-04-01", "1.4604", "642646396.0"),
        ("2005-04-04", "1.4675", "578172308.0"),
    ]


def test_a_recorded_chart_of_yahoo(recorded, market, given):
    text = (recorded / "rest_samples/excerpts/yahoo_v8_chart_AAPL_1d.json").read_text()
    market.say("yahoo", 200, text)
    fetched = pull(given, "yahoo", period=days("2023-11-20", "2023-11-20"))
    (only,) = fetched.rows.to_dicts()
    assert (only["session"], only["close"]) == ("2023-11-20", "191.4499969482422")


def test_polygon_pages_are_asked_of_the_configured_server(market, given):
    market.polygon_page = 2
    assert pull(given, "polygon").rows.height == 4
    bars = [one for one in market.requests("polygon") if "/v2/aggs" in one.path]
    assert [one.query.get("cursor") for one in bars] == [None, "2"]
    assert all(KEYS["polygon"] not in json.dumps(one.query) for one in market.asked)


def test_a_known_ticker_without_bars_is_no_error(market, given):
    market.histories["NEW"] = []
    assert pull(given, "polygon", "NEW").rows.is_empty()


def test_yahoo_multiplies_every_later_split_back(market, given):
    """A split behind the period's end has divided its answers, too."""
    told = market_quote(market)
    assert told["close"] == [12.5, 12.5, 12.75, 13.0]
    assert sifted(pull(given, "yahoo"))["close"].to_list() == [100, 50, 51, 52]


def market_quote(market):
    wanted = {"period1": ms("2024-01-02") // 1000, "period2": ms("2024-01-06") // 1000}
    answer = httpx.get(f"{market.url}/v8/finance/chart/AAPL", params=wanted)
    return answer.json()["chart"]["result"][0]["indicators"]["quote"][0]


def test_nulls_of_yahoo(market, given):
    opened = [ms(f"2024-01-0{day}") // 1000 + 52_200 for day in (2, 3, 4)]
    quote = {name: [1.5, None, 1.5] for name in ("open", "high", "low")}
    quote |= {"close": [1.5, None, None], "volume": [10, None, 10]}
    result = {"meta": {}, "timestamp": opened, "indicators": {"quote": [quote]}}
    market.say("yahoo", 200, {"chart": {"result": [result], "error": None}})
    fetched = pull(given, "yahoo")
    assert fetched.rows["session"].to_list() == ["2024-01-02", "2024-01-04"]
    found = stocks.sift(fetched.rows, now=ms("2026-01-01"))
    assert found.rejected["reason"].to_list() == ["close is missing"]


@pytest.mark.parametrize("name", PRICED)
@pytest.mark.parametrize(
    ("status", "body"),
    [(200, ""), (200, "<html>proxy</html>"), (200, "[1"), (200, '"words"'), (200, "{}")],
)
def test_an_answer_that_is_none_may_pass(market, given, name, status, body):
    market.say(name, status, body)
    with pytest.raises(RetriableError, match=f"answered {status}"):
        pull(given, name)


@pytest.mark.parametrize("name", PRICED)
def test_half_a_body_and_a_server_fault_are_tried_again(market, given, name):
    market.say(name, 200, "[" * 1000, times=1, cut=True)
    market.say(name, 503, "down", times=1)
    assert sifted(pull(given, name)).height == 4


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("tiingo", ["x"]),
        ("tiingo", [None]),
        ("polygon", {"status": "OK", "results": [{"o": 1}]}),
        ("yahoo", {"chart": {"result": [None], "error": None}}),
        ("yahoo", {"chart": {"result": [{"meta": {"exchangeTimezoneName": "Mars/North"}}]}}),
        ("alpha_vantage", {"Time Series (Daily)": {"2024-01-02": None}}),
        ("stocktwits", {"messages": [{"id": 1}]}),
        ("stocktwits", {"messages": [{"id": 1, "created_at": None}]}),
    ],
)
def test_an_answer_of_another_form_is_told_and_stops_nothing_else(market, given, name, body):
    market.say(name, 200, body)
    with pytest.raises(RetriableError, match="for AAPL in another form than it documents"):
        pull(given, name)


def test_what_the_plan_does_not_include_is_not_the_keys_fault(market, given):
    said = "Your plan doesn't include this data timeframe."
    market.say(
        "polygon",
        403,
        {"status": "NOT_AUTHORIZED", "message": said},
        Content_Type="application/json",
    )
    with pytest.raises(FatalError, match=r"does not allow this with the key's plan.*timeframe"):
        pull(given, "polygon")


@pytest.mark.parametrize("name", ["tiingo", "polygon"])
def test_a_refusal_that_repeats_the_key_does_not_show_it(market, given, name):
    field = {"tiingo": "detail", "polygon": "message"}[name]
    market.histories["AAPL"] = []
    market.say(name, 404, {field: f"no AAPL for {KEYS[name]}"})
    with pytest.raises(UnknownTickerError) as caught:
        pull(given, name)
    assert KEYS[name] not in str(caught.value)


def test_pages_that_lead_in_a_circle_end(market, given):
    address = "https://api.polygon.io/v2/aggs/ticker/AAPL/range/1/day/a/b?cursor=7"
    market.say("polygon", 200, {"status": "OK", "results": [{"t": 0}], "next_url": address})
    with pytest.raises(RetriableError, match="the same next page of AAPL again and again"):
        pull(given, "polygon")
    assert len(market.asked) == 2


def test_an_event_without_a_bar_is_not_lost(market, given):
    splits = [{"ticker": "AAPL", "execution_date": "2024-01-03", "split_from": 1, "split_to": 4}]
    del market.histories["AAPL"][1]
    market.say("polygon", 200, {"status": "OK", "results": splits}, path="splits")
    rows = pull(given, "polygon").rows
    (alone,) = rows.filter(session="2024-01-03").to_dicts()
    assert (alone["split_factor"], alone["close"]) == ("4", None)


@pytest.mark.parametrize("given_limit", ["tiingo=20/1", ""])
def test_a_limit_of_an_hour_is_one_whatever_the_plan_lets_in(market, settings, given_limit):
    paid = settings(**market.settings(), rate_limits=given_limit)
    market.say("tiingo", 429, {"detail": "over your hourly request allocation"})
    with pytest.raises(RetriableError) as caught:
        pull(paid, "tiingo")
    assert caught.value.retry_after == 3_600


def test_a_date_to_come_back_at_is_a_wait(market, given):
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)
    market.say("tiingo", 429, "slow", Retry_After=when)
    with pytest.raises(RetriableError) as caught:
        pull(given, "tiingo")
    assert 590 < (caught.value.retry_after or 0) <= 600


@pytest.mark.parametrize("name", STOCK_SOURCES)
def test_a_page_instead_of_the_server_is_no_unknown_ticker(market, given, name):
    market.say(name, 404, "<html>nginx</html>")
    with pytest.raises(FatalError, match=f"is BENTLEY_{name.upper()}_URL its address") as caught:
        pull(given, name)
    assert not isinstance(caught.value, UnknownTickerError)


def test_a_period_of_yahoo_without_trades(market, given):
    said = "Data doesn't exist for startDate = 1, endDate = 2"
    error = {"code": "Bad Request", "description": said}
    market.say("yahoo", 400, {"chart": {"result": None, "error": error}})
    assert pull(given, "yahoo").rows.is_empty()


def test_a_short_wait_that_the_server_names_is_waited_out(market, given):
    market.say("tiingo", 429, "slow", times=1, Retry_After="1")
    assert sifted(pull(given, "tiingo")).height == 4


def test_a_long_wait_is_handed_on(market, given):
    market.say("tiingo", 429, "slow", Retry_After="900")
    with pytest.raises(RetriableError) as caught:
        pull(given, "tiingo")
    assert caught.value.retry_after == 900
    assert len(market.asked) == 1


def test_no_key_in_any_log(market, given, caplog):
    caplog.set_level(logging.DEBUG)
    for name in PRICED:
        pull(given, name)
    market.say("alpha_vantage", 500, f"our key {KEYS['alpha_vantage']}")
    with pytest.raises(RetriableError) as caught:
        pull(given, "alpha_vantage")
    assert not any(key in caplog.text + str(caught.value) for key in KEYS.values())


HOUR = 3_600_000
NOON = ms("2024-01-02T12:00:00")


def stream(given, since, until):
    fetched = pull(given, "stocktwits", period=Period(since, until))
    return fetched.rows["message_id"].to_list(), fetched.since


def test_messages_of_a_period_page_by_page(market, given):
    marks = ("Bullish", "Bearish", None)
    market.messages["AAPL"] = [
        message(at, NOON - (100 - at) * 60_000, marks[at % 3]) for at in range(100)
    ]
    found, since = stream(given, NOON - HOUR, NOON)
    assert found == [str(at) for at in range(40, 100)]
    assert since == NOON - HOUR
    assert len(market.asked) == 3
    rows = pull(given, "stocktwits", period=Period(NOON - HOUR, NOON)).rows
    assert rows["sentiment"].to_list()[:3] == ["Bearish", None, "Bullish"]


def test_a_stream_that_ends_before_the_period_began_is_whole(market, given):
    market.messages["AAPL"] = [message(1, NOON - 1000)]
    assert stream(given, NOON - HOUR, NOON) == (["1"], NOON - HOUR)


def test_a_busy_stream_is_whole_from_the_first_full_hour_on(market, given):
    market.stream_reaches = 90
    market.messages["AAPL"] = [message(at, NOON - (200 - at) * 60_000) for at in range(200)]
    found, since = stream(given, NOON - 3 * HOUR, NOON)
    assert since == NOON - HOUR
    assert found == [str(at) for at in range(140, 200)]


def test_a_stream_that_nobody_knows(given):
    with pytest.raises(UnknownTickerError):
        pull(given, "stocktwits", "GONE")
