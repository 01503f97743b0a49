"""Prices of stocks from sources to consensus: incrementally, through splits, past what fails."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
import sqlalchemy as sa

import market_server
import stock_support
from archive_support import ms
from bentley.domain import adjustment, sessions
from bentley.domain.errors import ConfigurationError, DataError, FatalError, RetriableError
from bentley.sources import catalog
from bentley.stages import closing, sentiment_pull, stock_consensus, stock_pull, stock_run
from bentley.warehouse import ledger
from bentley.warehouse import stocks as stored
from bentley.warehouse.schema import quarantine, stock_actions
from bentley.warehouse.warehouse import Warehouse
from stock_support import row

LONG_AGO = "2023-11-01"


@pytest.fixture(autouse=True)
def at(monkeypatch):
    """Set the clock of the pulls."""

    def set_to(text):
        monkeypatch.setattr(stock_pull, "clock", lambda: ms(text))
        monkeypatch.setattr(sentiment_pull, "clock", lambda: ms(text))

    set_to("2024-01-06T00:00:00")
    return set_to


@pytest.fixture
def given(market, settings, database_url):
    def make(*tickers, **more):
        usual = {"since": "2024-01-01", "tickers": tickers or ("AAPL",)}
        return settings(**{"warehouse_url": database_url} | usual | market.settings() | more)

    return make


def pull(settings, name="tiingo", **more):
    return stock_pull.pull(settings, catalog.named(name), **more)


def closes(settings, ticker="AAPL", source="tiingo", *, column="close"):
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        found = stored.prices(connection, ticker, source=source)
    return dict(
        zip((day.isoformat() for day in found["session"]), found[column].to_list(), strict=True)
    )


def test_a_first_pull_and_what_is_new_since(market, given):
    market.histories["AAPL"] = [row("2024-01-02"), row("2024-01-03", "101")]
    done = pull(given())
    assert (done.status, done.engine, done.rows_read, done.rows_written) == (
        "committed",
        "tiingo",
        2,
        2,
    )
    assert done.watermark == sessions.start_of(date(2024, 1, 3))
    market.histories["AAPL"] += [row("2024-01-04", "102"), row("2024-01-05", "103")]
    assert pull(given()).rows_written == 2
    assert closes(given()) == {
        "2024-01-02": 100,
        "2024-01-03": 101,
        "2024-01-04": 102,
        "2024-01-05": 103,
    }


def test_a_ticker_that_has_its_latest_session_is_left_alone_for_a_day(market, given, at):
    market.histories["AAPL"] = [row("2024-01-04"), row("2024-01-05")]
    pull(given())
    asked = len(market.asked)
    pull(given())
    assert len(market.asked) == asked
    pull(given(), stale_before=ms("2024-01-06T00:00:01"))
    assert len(market.asked) == asked + 1
    at("2024-01-06T21:00:00")
    pull(given())
    assert len(market.asked) == asked + 2


def test_every_pull_after_the_first_reads_a_few_sessions_alone(market, given):
    days = sessions.between(date(2023, 11, 1), date(2024, 1, 5))["session"]
    market.histories["AAPL"] = [row(day.isoformat()) for day in days]
    settings = given(since=LONG_AGO)
    assert pull(settings).rows_read == len(days)
    for _ in range(3):
        done = pull(settings, stale_before=2**53)
        assert done.rows_read == stock_pull.LOOKBACK_SESSIONS + 1


def test_a_history_that_a_source_does_not_have_is_asked_for_once(market, given, at):
    now = datetime.now(UTC)
    at(now.strftime("%Y-%m-%dT%H:%M:%S"))
    days = sessions.between(date(2023, 1, 3), sessions.latest(int(now.timestamp() * 1000)))
    market.histories["AAPL"] = [row(day.isoformat()) for day in days["session"]]
    refusal = {"Information": "The outputsize=full parameter is a premium feature."}
    market.say("alpha_vantage", 200, refusal, times=1)
    settings = given(since="2023-01-01")
    assert pull(settings, "alpha_vantage").rows_read == 100
    pull(settings, "alpha_vantage", stale_before=2**53)
    sizes = [one.query["outputsize"] for one in market.requests("alpha_vantage")]
    assert sizes == ["full", "compact", "compact"]


def test_one_that_lags_is_asked_every_time(market, given):
    market.histories["AAPL"] = [row("2024-01-04")]
    pull(given())
    pull(given())
    assert len(market.asked) == 2


def test_a_late_correction_is_taken(market, given):
    market.histories["AAPL"] = [row("2024-01-02"), row("2024-01-03")]
    pull(given())
    market.histories["AAPL"][0] = row("2024-01-02", "99.5")
    assert pull(given()).rows_written == 1
    assert closes(given())["2024-01-02"] == Decimal("99.5")


def test_a_session_that_has_not_closed_is_not_stored(market, given, at):
    at("2024-01-04T18:00:00")
    market.histories["AAPL"] = [row("2024-01-03"), row("2024-01-04", "55")]
    pull(given())
    assert list(closes(given())) == ["2024-01-03"]


def test_an_earlier_start_reads_the_head(market, given):
    market.histories["AAPL"] = [row("2023-12-29"), row("2024-01-02")]
    pull(given())
    assert list(closes(given())) == ["2024-01-02"]
    pull(given(since="2023-12-01"))
    assert list(closes(given())) == ["2023-12-29", "2024-01-02"]


@pytest.mark.parametrize("event", ["split", "dividend"])
def test_an_event_pulls_the_whole_adjusted_history_again(market, given, event):
    days = sessions.between(date(2023, 11, 1), date(2024, 1, 3))["session"]
    market.histories["AAPL"] = [row(day.isoformat()) for day in days]
    settings = given(since=LONG_AGO)
    pull(settings)
    factor = Decimal("0.5") if event == "split" else Decimal("0.99")
    now = {"adj": str(100 * factor), "adj_volume": "2000" if event == "split" else "1000"}
    market.histories["AAPL"] = [row(day.isoformat(), **now) for day in days] + [
        row("2024-01-04", "50", split="2")
        if event == "split"
        else row("2024-01-04", "99", dividend="1")
    ]
    done = pull(settings)
    assert done.details["reread"] == ["AAPL"]
    assert done.rows_written == len(days) + 1
    adjusted = closes(settings, column="adj_close")
    assert {adjusted[day.isoformat()] for day in days} == {100 * factor}
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        (kind,) = connection.scalars(sa.select(stock_actions.c.kind))
    assert kind == event
    assert pull(settings).rows_written == 0


def test_a_rewritten_history_is_seen_by_its_latest_prices(market, given):
    """The ex-day's own row is not there yet: only that stored prices are others now tells of it.

    So the level of the last row may be any: a dividend of 1 on 2024-01-04 makes it 0.99.
    """
    days = sessions.between(date(2023, 11, 1), date(2024, 1, 3))["session"]
    market.histories["AAPL"] = [row(day.isoformat()) for day in days]
    settings = given(since=LONG_AGO)
    pull(settings)
    market.histories["AAPL"] = [row(day.isoformat(), adj="99") for day in days]
    assert pull(settings).details["reread"] == ["AAPL"]
    assert set(closes(settings, column="adj_close").values()) == {99}
    market.histories["AAPL"] += [row("2024-01-04", "99", dividend="1"), row("2024-01-05", "99")]
    assert pull(settings).failures == ()


@pytest.mark.parametrize(
    ("now", "later", "more", "told"),
    [
        ("2024-01-06T00:00:00", [], {}, True),
        ("2024-01-08T04:59:59", [], {}, True),
        # From midnight in New York on it may be an ex-date that is not told yet.
        ("2024-01-08T05:00:00", [], {}, False),
        ("2024-01-08T20:00:00", [row("2024-01-08", "99")], {}, True),
        ("2024-01-08T20:00:00", [row("2024-01-08", "99", dividend="1")], {}, False),
        ("2024-01-09T20:00:00", [row("2024-01-09", "99")], {}, False),
        # What came after the end is not asked for.
        ("2024-01-06T00:00:00", [], {"until": "2024-01-06"}, False),
        ("2024-01-06T00:00:00", [], {"until": "2024-01-07"}, True),
    ],
)
def test_the_newest_session_is_not_adjusted(market, given, at, now, later, more, told):
    at(now)
    days = sessions.between(date(2023, 12, 20), date(2024, 1, 5))["session"]
    market.histories["AAPL"] = [row(day.isoformat(), adj="99") for day in days] + later
    settings = given(since="2023-12-20", **more)
    if told:
        said = r"at 1 session: on 2024-01-05 that nothing follows makes a factor of 1 for adj_close"
        with pytest.raises(FatalError, match=said):
            pull(settings)
    else:
        assert pull(settings).failures == ()
    assert set(closes(settings, column="adj_close").values()) == {99}


def test_a_price_that_is_not_adjusted_as_its_close_is_reported(market, given):
    market.histories["AAPL"] = [
        row("2024-01-03", adj="50", adj_volume="2000") | {"adj_open": "100", "adj_high": "100"},
        row("2024-01-04", "50", split="2"),
    ]
    said = r"at 1 session: on 2024-01-03 the close makes a factor of 0\.5 for adj_open.* one of 1\."
    with pytest.raises(FatalError, match=said):
        pull(given())


def test_a_volume_that_was_not_adjusted_is_reported(market, given):
    market.histories["AAPL"] = [
        row("2024-01-03", adj="50"),
        row("2024-01-04", "50", split="2"),
    ]
    said = r"on 2024-01-04 the splits make a factor of 2 for adj_volume.* one of 1\."
    with pytest.raises(FatalError, match=said):
        pull(given())


def test_killed_between_the_event_and_the_history_it_is_whole_after_the_next(
    market, given, monkeypatch
):
    days = sessions.between(date(2023, 11, 1), date(2024, 1, 3))["session"]
    market.histories["AAPL"] = [row(day.isoformat()) for day in days]
    settings = given(since=LONG_AGO)
    pull(settings)
    market.histories["AAPL"] = [
        row(day.isoformat(), adj="50", adj_volume="2000") for day in days
    ] + [row("2024-01-04", "50", split="2")]

    class Killed(BaseException):
        pass

    def die(*_args, **_named):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(stored, "upsert", die)
        with pytest.raises(Killed):
            pull(settings)
    assert "2024-01-04" not in closes(settings)
    pull(settings)
    assert set(closes(settings, column="adj_close").values()) == {50}


def test_adjusted_prices_that_do_not_follow_are_reported_and_kept(market, given):
    market.histories["AAPL"] = [
        row("2024-01-02", "100"),  # nobody divided it by the split
        row("2024-01-03", "50", split="2"),
    ]
    with pytest.raises(FatalError, match=r"1 of 1 tickers failed.*on 2024-01-03 .*factor of 2"):
        pull(given())
    assert len(closes(given())) == 2
    done = pull(given(max_failed_share=1))
    assert done.status == "committed"


def test_a_ticker_that_fails_leaves_the_others_whole(market, given):
    for ticker in ("AAPL", "IBM", "SPY", "BAC"):
        market.histories[ticker] = [row("2024-01-05")]
    settings = given("AAPL", "GONE", "IBM", "SPY", "BAC")
    done = pull(settings)
    assert [one["symbol"] for one in done.failures] == ["GONE"]
    assert "knows no ticker GONE" in done.failures[0]["message"]
    assert (done.status, done.rows_written) == ("committed", 4)
    settings = given("AAPL", "GONE", "GONE2", max_failed_share=0.5)
    with pytest.raises(FatalError, match=r"2 of 3 tickers failed, .*stored \(GONE: .*GONE2: "):
        pull(settings)
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        (latest,) = ledger.unconsumed(connection, ledger.CONSENSUS)[-1:]
    assert latest.rows_written == 4


def test_what_came_before_a_failure_stays_and_waits_for_the_consensus(market, given):
    market.histories["AAPL"] = [row("2024-01-05")]
    settings = given("AAPL", "GONE")
    with pytest.raises(FatalError):
        pull(settings)
    assert closes(settings) == {"2024-01-05": 100}
    assert stock_consensus.decide(settings).rows_written == 1


def test_a_limit_ends_the_asking_and_names_the_wait(market, given):
    market.histories["AAPL"] = [row("2024-01-05")]
    market.say(
        "tiingo", 429, '{"detail":"Error: over your hourly request allocation."}', ticker="B"
    )
    settings = given("AAPL", "B", "C", "D")
    with pytest.raises(RetriableError, match=r"3 of 4 tickers.*C: not asked") as caught:
        pull(settings)
    assert caught.value.retry_after == 3_600
    assert [one.path.split("/")[3] for one in market.asked] == ["AAPL", "B"]
    assert closes(settings) == {"2024-01-05": 100}


def test_a_source_that_is_down_is_not_asked_for_every_ticker(market, given, monkeypatch):
    monkeypatch.setattr("bentley.sources.http.ATTEMPTS", 1)
    market.say("tiingo", 200, "<html>maintenance</html>")
    with pytest.raises(RetriableError, match="5 of 5 tickers failed"):
        pull(given("A", "B", "C", "D", "E"))
    assert len(market.asked) == 3


def test_bad_rows_are_kept_with_their_reason_and_past_the_share_fail_the_ticker(market, given):
    days = sessions.between(date(2023, 11, 1), date(2024, 1, 5))["session"]
    market.histories["AAPL"] = [row(day.isoformat()) for day in days]
    market.histories["AAPL"][3] |= {"high": "1"}
    market.histories["AAPL"].append(row("2024-01-01"))
    settings = given(since=LONG_AGO)
    done = pull(settings)
    assert done.rows_rejected == 2
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        c = quarantine.c
        kept = connection.execute(
            sa.select(c.stage, c.symbol, c.open_time, c.reason).order_by(c.open_time)
        ).all()
    assert [tuple(one) for one in kept] == [
        ("stocks", "AAPL", "2023-11-06", "high 1 lies below open, low or close"),
        ("stocks", "AAPL", "2024-01-01", "2024-01-01 is no session of the exchange (XNYS)"),
    ]
    assert [(one["open_time"], one["reason"]) for one in done.rejects] == [
        (session, reason) for *_, session, reason in kept
    ]
    for bad in market.histories["AAPL"][:15]:
        bad["high"] = "1"
    with pytest.raises(FatalError, match="rows are bad"):
        pull(given(since="2023-10-02"))


def test_without_tickers_or_key_it_says_what_to_set(market, given, settings):
    with pytest.raises(ConfigurationError, match="no tickers: name some in BENTLEY_TICKERS"):
        pull(settings(**market.settings()))
    with pytest.raises(ConfigurationError, match="TIINGO_API_KEY is not set"):
        pull(given(tiingo_api_key=""))


@pytest.mark.parametrize("name", ["tiingo", "polygon"])
def test_a_refused_key_fails_at_once(market, given, name):
    settings = given("AAPL", "IBM", **{f"{name}_api_key": "wrong"})
    with pytest.raises(ConfigurationError, match="its key is refused"):
        pull(settings, name)
    assert len(market.asked) == 1
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        assert ledger.failing(connection, ledger.STOCKS)[0] == 1


def test_the_batch_of_a_process_that_died_is_closed_and_its_rows_count(market, given, monkeypatch):
    market.histories["AAPL"] = [row("2024-01-05")]
    settings = given()
    with monkeypatch.context() as patched:
        patched.setattr(stock_pull, "_close", lambda *_args, **_named: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pull(settings)
    pull(settings)
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        dead = ledger.get(connection, 1)
    assert (dead.status, dead.rows_written, dead.error) == ("failed", 1, closing.DEAD)
    assert stock_consensus.decide(settings).rows_written == 1


@pytest.mark.parametrize("ticker", ["aapl", "spy"])
def test_a_recorded_history_goes_through_with_its_splits_right(market, given, at, recorded, ticker):
    market.histories[ticker.upper()] = stock_support.history(recorded, ticker)
    at("2021-04-01T00:00:00")
    settings = given(ticker.upper(), since="1998-01-01")
    done = pull(settings)
    assert (done.rows_written, done.rows_rejected) == (5_849, 0)
    stock_consensus.decide(settings)
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        decided = stored.decided(connection, ticker.upper())
        prices = stored.prices(connection, ticker.upper())
    ours = adjustment.factors(decided)
    known = stock_support.factors(recorded, ticker)
    theirs = [next(one for one in known if one.day >= day) for day in decided["session"]]
    for name, of in (("price_factor", "price"), ("split_factor", "split")):
        expected = [float(getattr(one, of)) for one in theirs]
        apart = [abs(a - b) for a, b in zip(ours[name], expected, strict=True)]
        assert max(apart) < 1e-6
    for column, kept, one in zip(
        prices["adj_close"].to_list(), prices["close"].to_list(), theirs, strict=True
    ):
        assert abs(column / kept / (one.price * one.split) - 1) < 1e-6


def three(market):
    """Tiingo, Polygon and Yahoo of one history; each is then told to differ."""
    market.histories["AAPL"] = [row("2024-01-04", "100"), row("2024-01-05", "101")]


def test_the_consensus_of_sources(market, given):
    three(market)
    settings = given()
    for name in ("tiingo", "polygon", "yahoo"):
        pull(settings, name)
    done = stock_consensus.decide(settings)
    assert (done.rows_read, done.rows_written) == (6, 2)
    assert done.details["flags"] == {"ok": 2}
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        decided = stored.decided(connection, "AAPL")
        batch = ledger.get(connection, done.batch_id)
    assert decided["source"].to_list() == ["tiingo", "tiingo"]
    assert decided["sources"].to_list() == [3, 3]
    assert batch.parents == (1, 2, 3)
    assert stock_consensus.decide(settings).batch_id is None


def test_a_correction_of_any_source_changes_the_consensus(market, given):
    three(market)
    settings = given()
    pull(settings)
    stock_consensus.decide(settings)
    market.histories["AAPL"][0] = row("2024-01-04", "90")
    pull(settings, stale_before=ms("2024-02-01"))
    assert stock_consensus.decide(settings).rows_written == 1
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        assert stored.decided(connection, "AAPL")["close"].to_list() == [90, 101]


def test_another_order_decides_anew_on_request(market, given):
    three(market)
    pull(given())
    market.histories["AAPL"][0] = row("2024-01-04", "100.1")
    pull(given(), "yahoo")
    stock_consensus.decide(given())
    turned = given(sources=("yahoo", "tiingo"))
    assert stock_consensus.decide(turned).batch_id is None
    assert stock_consensus.decide(turned, again=True).rows_written == 2
    with Warehouse.open(turned) as warehouse, warehouse.reading() as connection:
        assert stored.decided(connection, "AAPL")["source"].to_list() == ["yahoo", "yahoo"]


def test_missing_sessions_are_told(market, given):
    market.histories["AAPL"] = [row("2024-01-02"), row("2024-01-05")]
    pull(given())
    done = stock_consensus.decide(given())
    assert done.details["missing_sessions"] == {"AAPL": 2}


def test_what_was_decided_is_announced_until_its_event_is_out(market, given):
    three(market)
    settings = given()
    pull(settings)
    assert stock_consensus.announcement(settings) is None
    stock_consensus.decide(settings)
    assert stock_consensus.decide(settings).batch_id is None
    news = {
        "batch_id": 2,
        "rows": 2,
        "watermark": sessions.start_of(date(2024, 1, 5)),
        "origin": "exchange",
    }
    assert stock_consensus.announcement(settings) == news
    market.histories["AAPL"][0] = row("2024-01-04", "90")
    pull(settings, stale_before=2**53)
    stock_consensus.decide(settings)
    both = news | {"batch_id": 4, "rows": 3, "watermark": sessions.start_of(date(2024, 1, 5))}
    assert stock_consensus.announcement(settings) == both
    stock_consensus.announced(settings, 2)
    assert stock_consensus.announcement(settings)["rows"] == 1
    stock_consensus.announced(settings, 4)
    assert stock_consensus.announcement(settings) is None


HOUR = 3_600_000


def test_sentiment_by_the_hour(market, given, at):
    noon = ms("2024-01-05T12:00:00")
    market.messages["AAPL"] = [
        market_server.message(at_, noon - at_ * 20 * 60_000, mark)
        for at_, mark in enumerate(("Bullish", "Bullish", None, "Bearish", "Bullish", None), 1)
    ]
    at("2024-01-05T12:10:00")
    settings = given()
    done = sentiment_pull.pull(settings, catalog.named("stocktwits"))
    assert (done.rows_read, done.rows_written) == (6, 24)
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        hours = stored.sentiment(connection, "AAPL")
    assert hours.tail(2).select("hour", "messages", "bullish", "bearish").rows() == [
        (noon - 2 * HOUR, 3, 1, 1),
        (noon - HOUR, 3, 2, 0),
    ]
    assert set(hours["available_at"]) == {ms("2024-01-05T12:10:00")}
    assert sentiment_pull.pull(settings, catalog.named("stocktwits")).rows_written == 0
    at("2024-01-05T13:00:01")
    assert sentiment_pull.pull(settings, catalog.named("stocktwits")).rows_written == 1


def test_hours_that_a_busy_stream_does_not_reach_are_not_made_up(market, given, at):
    noon = ms("2024-01-05T12:00:00")
    market.stream_reaches = 40
    market.messages["AAPL"] = [
        market_server.message(1000 - at_, noon - at_ * 2 * 60_000) for at_ in range(1, 200)
    ]
    at("2024-01-05T12:00:00")
    settings = given()
    done = sentiment_pull.pull(settings, catalog.named("stocktwits"))
    assert done.rows_written == 1
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        assert stored.sentiment(connection, "AAPL")["messages"].to_list() == [30]


def test_a_ticker_without_a_stream_is_named(given):
    with pytest.raises(FatalError, match="1 of 1 tickers failed"):
        sentiment_pull.pull(given(), catalog.named("stocktwits"))


def test_the_tickers_that_a_limit_left_out_are_the_first_of_the_next_pull(market, given):
    for ticker in ("A", "B", "C"):
        market.histories[ticker] = [row("2024-01-05")]
    settings = given("A", "B", "C")
    market.say("tiingo", 429, "slow", ticker="B", Retry_After="900")
    with pytest.raises(RetriableError, match="2 of 3 tickers failed") as caught:
        pull(settings)
    assert caught.value.retry_after == 900
    market.be_itself()
    market.say("tiingo", 429, "slow", ticker="A", Retry_After="900")
    with pytest.raises(RetriableError, match="1 of 3 tickers failed"):
        pull(settings, stale_before=2**53)
    assert [one.path.split("/")[3] for one in market.asked[2:]] == ["B", "C", "A"]


def test_a_limit_is_not_forgiven_as_a_few_failures_are():
    limit = {"F": RetriableError("used up", retry_after=600.0)}
    found = stock_pull.over_share(limit, 100, 0.2)
    assert isinstance(found, RetriableError)
    assert found.retry_after == 600
    assert stock_pull.over_share({"F": RetriableError("lost")}, 100, 0.2) is None


def test_all_of_a_ticker_is_read_again_once_a_week(market, given, at):
    days = sessions.between(date(2023, 11, 1), date(2024, 1, 5))["session"]
    market.histories["AAPL"] = [row(day.isoformat()) for day in days]
    settings = given(since=LONG_AGO)
    pull(settings)
    market.histories["AAPL"][2] = row("2023-11-03", "99")  # told long after
    at("2024-01-10T00:00:00")
    assert pull(settings).rows_written == 0
    at("2024-01-13T00:00:01")
    assert pull(settings).rows_written == 1
    assert closes(settings)["2023-11-03"] == 99
    assert pull(settings, stale_before=2**53).rows_read == stock_pull.LOOKBACK_SESSIONS + 1


def test_again_reads_everything_from_the_start_on(market, given):
    days = sessions.between(date(2023, 11, 1), date(2024, 1, 5))["session"]
    market.histories["AAPL"] = [row(day.isoformat()) for day in days]
    settings = given(since=LONG_AGO)
    pull(settings)
    market.histories["AAPL"][0] = row("2023-11-01", "99")
    assert pull(settings, again=True).rows_written == 1


def test_a_shorter_start_keeps_the_history_that_was_asked_for(market, given):
    """A split after it still pulls all of it again."""
    days = sessions.between(date(2023, 11, 1), date(2024, 1, 3))["session"]
    market.histories["AAPL"] = [row(day.isoformat()) for day in days]
    pull(given(since=LONG_AGO))
    for _ in range(2):
        pull(given(since="2023-12-20"), stale_before=2**53)
    market.histories["AAPL"] = [
        row(day.isoformat(), adj="50", adj_volume="2000") for day in days
    ] + [row("2024-01-04", "50", split="2")]
    pull(given(since="2023-12-20"))
    assert set(closes(given(), column="adj_close").values()) == {50}


def test_nothing_from_the_end_on_is_read(market, given):
    market.histories["AAPL"] = [row("2024-01-03"), row("2024-01-04"), row("2024-01-05")]
    pull(given(until="2024-01-05"))
    assert list(closes(given())) == ["2024-01-03", "2024-01-04"]


def test_a_period_that_ended_before_what_is_stored_stops_no_other_ticker(market, given):
    market.histories["AAPL"] = [row("2024-01-05")]
    market.histories["IBM"] = [row("2023-12-28")]
    pull(given())
    done = pull(given("AAPL", "IBM", since="2023-12-01", until="2023-12-30"))
    assert done.failures == ()
    assert list(closes(given(), "IBM")) == ["2023-12-28"]


def test_a_refused_row_that_bears_an_event_is_told(market, given):
    market.histories["AAPL"] = [
        row("2024-01-02", "100", adj="25"),
        row("2024-01-03", "25", split="4") | {"high": "1"},
        row("2024-01-04", "25"),
    ]
    with pytest.raises(FatalError, match=r"dividend was told of 2024-01-03.*refused \(high 1 lies"):
        pull(given())


def test_a_history_that_does_not_follow_is_reported_every_time(market, given):
    market.histories["AAPL"] = [row("2024-01-02", "100"), row("2024-01-03", "50", split="2")]
    days = sessions.between(date(2024, 1, 4), date(2024, 1, 5))["session"]
    market.histories["AAPL"] += [row(day.isoformat(), "50") for day in days]
    for _ in range(2):
        with pytest.raises(FatalError, match="factor of 2"):
            pull(given(), stale_before=2**53)


def test_other_last_digits_are_no_rewritten_history(market, given):
    days = sessions.between(date(2023, 11, 1), date(2024, 1, 5))["session"]
    market.histories["AAPL"] = [row(day.isoformat()) for day in days]
    settings = given(since=LONG_AGO)
    pull(settings)
    market.histories["AAPL"] = [row(day.isoformat(), adj="100.00001") for day in days]
    done = pull(settings, stale_before=2**53)
    assert done.details["reread"] == []


def test_what_is_due_and_not_there_is_named(market, given):
    market.histories["AAPL"] = [row("2024-01-03")]
    market.histories["NONE"] = []
    done = pull(given("AAPL", "NONE"))
    assert done.details["behind"] == {"AAPL": 2, "NONE": 4}
    said = stock_run.pulled("tiingo", done).failures
    assert said == ("sessions that are due and not there: AAPL 2, NONE 4",)


def test_a_limit_ends_the_asking_for_sentiment_too(market, given):
    market.say("stocktwits", 429, "slow", Retry_After="3600")
    with pytest.raises(RetriableError, match="3 of 3 tickers failed") as caught:
        sentiment_pull.pull(given("A", "B", "C"), catalog.named("stocktwits"))
    assert caught.value.retry_after == 3_600
    assert len(market.asked) == 1


def test_an_hour_is_available_once_it_was_read_and_not_before(market, given, monkeypatch):
    times = iter(ms(f"2024-01-05T12:{minute:02}:00") for minute in range(10))
    monkeypatch.setattr(sentiment_pull, "clock", lambda: next(times))
    market.messages["AAPL"] = []
    sentiment_pull.pull(given(), catalog.named("stocktwits"))
    with Warehouse.open(given()) as warehouse, warehouse.reading() as connection:
        (available,) = set(stored.sentiment(connection, "AAPL")["available_at"])
    assert available == ms("2024-01-05T12:01:00")


@pytest.mark.parametrize("stage", ["consensus", "sentiment"])
def test_a_dead_batch_is_closed_by_the_next(market, given, stage):
    market.messages["AAPL"] = []
    market.histories["AAPL"] = [row("2024-01-05")]
    settings = given()
    pull(settings)
    engine = "bentley" if stage == "consensus" else "stocktwits"
    name = ledger.CONSENSUS if stage == "consensus" else ledger.SENTIMENT
    with Warehouse.open(settings) as warehouse, warehouse.writing() as connection:
        dead = ledger.begin(connection, name, engine=engine)
    if stage == "consensus":
        stock_consensus.decide(settings)
    else:
        sentiment_pull.pull(settings, catalog.named("stocktwits"))
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        found = ledger.get(connection, dead)
    assert (found.status, found.error) == ("failed", closing.DEAD)


def test_a_run_over_no_outcome_is_no_success():
    with pytest.raises(FatalError, match="no pull told"):
        stock_run.require_one([])
    with pytest.raises(FatalError, match="tiingo: its pull ended without a word"):
        stock_run.require_one([stock_run.silent("tiingo")])
    with pytest.raises(ConfigurationError, match="no source of stocks is configured"):
        stock_run.require_one([stock_run.skipped("tiingo", "no key")])


def test_errors_of_the_data_are_not_retried():
    failures = {"A": DataError("wrong"), "B": RetriableError("slow")}
    assert isinstance(stock_pull.over_share(failures, 2, 0.2), FatalError)
    assert stock_pull.over_share(failures, 10, 0.2) is None
