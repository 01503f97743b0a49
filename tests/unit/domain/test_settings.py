"""The settings that users rely on."""

from __future__ import annotations

from pathlib import Path

import pytest

from bentley.domain.errors import ConfigurationError
from bentley.settings import PUBLIC_EXCHANGE, load


def test_the_defaults_are_the_contract():
    found = load()
    assert found.symbols == ("BTCUSDT", "ETHUSDT", "BNBUSDT", "ADAUSDT")
    assert found.intervals == ("1h",)
    assert (found.airflow_port, found.mlflow_port) == (8080, 5000)
    assert found.home == Path("var").resolve()
    assert found.database_url == f"sqlite:///{Path('var').resolve()}/mansa_bot.db"


def test_the_environment_and_a_file_are_read(monkeypatch):
    Path(".env").write_text("BENTLEY_SYMBOLS=ethusdt, btcusdt\nBENTLEY_AIRFLOW_PORT=8081\n")
    monkeypatch.setenv("BENTLEY_INTERVALS", "1m 1h")
    monkeypatch.setenv("BENTLEY_SINCE", "2024-01-01")
    found = load()
    assert found.symbols == ("ETHUSDT", "BTCUSDT")
    assert found.intervals == ("1m", "1h")
    assert found.since == 1_704_067_200_000
    assert found.airflow_port == 8081


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("BENTLEY_INTERVALS", "7h", "7h"),
        ("BENTLEY_SYMBOLS", "BTC/USDT", "BTC/USDT"),
        ("BENTLEY_SYMBOLS", "", "at least one symbol"),
        ("BENTLEY_SINCE", "soon", "soon"),
        ("BENTLEY_SINCE", "1960-01-01", "1960-01-01T00:00:00Z lies before 1970"),
        ("BENTLEY_AIRFLOW_PORT", "99999", "less than or equal to 65535"),
        ("BENTLEY_EXCHANGE_URL", "data.example", "data.example"),
        ("AIRBYTE_API_URL", "http://me:s3cret@host:8000", "'host:8000' is not the address of"),
        ("AIRBYTE_API_URL", "http://me:s3cret@host:8000/api/public/v1", "AIRBYTE_CLIENT_ID"),
        ("BENTLEY_AIRBYTE_TABLE", "bars; drop", "BENTLEY_AIRBYTE_TABLE"),
        ("BENTLEY_AIRBYTE_COLUMNS", "open_time", "written like open_time=opened_at"),
        ("BENTLEY_AIRBYTE_COLUMNS", "opened=open_time", "'opened' is no column of a bar"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load()
    assert name in str(caught.value)
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_replayed_bars_have_a_database_of_their_own():
    assert load(origin="replay:x").database_url.endswith("/var/replay/mansa_bot.db")
    address = "mysql+pymysql://u:p@h:3307/mansa_bot?ssl=1"
    replayed = load(origin="generated:7", warehouse_url=address)
    assert replayed.database_url == "mysql+pymysql://u:p@h:3307/mansa_bot_replay?ssl=1"
    assert load(warehouse_url=address).database_url == address


def test_the_exchange_is_named_without_its_path():
    assert load(exchange_url="https://x.example/api/v3/").exchange_url == "https://x.example"


def test_an_airbyte_server_syncs_no_replay():
    named = {"airbyte_connection_id": "c-1"}
    assert load(**named).synced_by_server
    assert not load(**named, origin="replay:x").synced_by_server
    assert not load().synced_by_server


@pytest.mark.parametrize("columns", ["close=open", "open=last close=LAST"])
def test_two_columns_of_a_bar_from_one_are_refused(columns):
    with pytest.raises(ConfigurationError, match="BENTLEY_AIRBYTE_COLUMNS"):
        load(airbyte_columns=columns)
    assert load(airbyte_columns="high=low low=high").landing_columns == {
        "high": "low",
        "low": "high",
    }


def test_the_landing_tables_columns_are_named_where_they_differ():
    assert load().landing_columns == {}
    found = load(airbyte_columns="open_time=opened_at, close=last").landing_columns
    assert found == {"open_time": "opened_at", "close": "last"}


def test_an_empty_exchange_is_unset(monkeypatch):
    monkeypatch.setenv("BENTLEY_EXCHANGE_URL", "")
    assert load().exchange_url == PUBLIC_EXCHANGE
    assert "exchange_url" not in load().model_fields_set


def test_a_symbol_is_named_once_however_it_is_written():
    assert load(symbols=["btcusdt", "BTCUSDT", "ethusdt"]).symbols == ("BTCUSDT", "ETHUSDT")


def test_a_wrong_exchange_is_named_without_its_password():
    with pytest.raises(ConfigurationError) as caught:
        load(exchange_url="ftp://user:secret@data.example")
    assert "data.example" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("since", ["2024-01-01", "2000-01-01", "1970-01-01", "946684800000"])
def test_a_child_gets_the_same_settings(monkeypatch, since):
    found = load(
        home="elsewhere",
        symbols="BTCUSDT",
        since=since,
        warehouse_url="mysql+pymysql://u:s3cret@h/db",
        origin="replay:x",
        knime_executable="/opt/knime",
        airbyte_connection_id="c-1",
        airbyte_client_id="me",
        airbyte_client_secret="s3cret, too",
        airbyte_columns="close=last",
    )
    for name, value in found.environment().items():
        monkeypatch.setenv(name, value)
    assert load() == found
    assert "s3cret" not in repr(found)


def test_rate_limits_are_read_and_written_alike(monkeypatch):
    monkeypatch.setenv("BENTLEY_RATE_LIMITS", "polygon=100/60, tiingo=10000/3600")
    found = load()
    assert found.rate_limits == {"polygon": (100, 60.0), "tiingo": (10_000, 3_600.0)}
    assert found.environment()["BENTLEY_RATE_LIMITS"] == "polygon=100/60,tiingo=10000/3600"
    monkeypatch.setenv("BENTLEY_RATE_LIMITS", "")
    assert load().rate_limits == {}


@pytest.mark.parametrize("text", ["polygon", "polygon=0/60", "nobody=1/60", "polygon=1/0", "=1/2"])
def test_a_rate_limit_that_is_none_is_named(text):
    with pytest.raises(ConfigurationError, match=r"BENTLEY_RATE_LIMITS.*written like polygon=100"):
        load(rate_limits=text)


@pytest.mark.parametrize("text", ["k-7\n", " k-7 ", "k-7"])
def test_what_surrounds_a_key_is_taken_away(text):
    found = load(tiingo_api_key=text).tiingo_api_key
    assert found is not None
    assert found.get_secret_value() == "k-7"


@pytest.mark.parametrize("text", ["sekr\u00e9t", "a b", "a\x00b"])
def test_a_key_that_can_be_none_is_refused_without_showing_it(text):
    with pytest.raises(ConfigurationError, match="TIINGO_API_KEY: a key holds no blanks") as caught:
        load(tiingo_api_key=text)
    assert text not in str(caught.value)


def test_keys_of_sources_reach_child_processes_and_are_shown_nowhere(monkeypatch):
    monkeypatch.setenv("TIINGO_API_KEY", "k-secret-1")
    found = load()
    assert "k-secret-1" not in repr(found)
    assert found.environment()["TIINGO_API_KEY"] == "k-secret-1"
    assert found.environment()["POLYGON_API_KEY"] == ""
    with pytest.raises(ConfigurationError, match=r"write it like https://api\.tiingo\.com"):
        load(tiingo_url="api.tiingo.com")
