"""What the tests of the KNIME engine share: a database to run on, nodes and settings to build."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from sqlalchemy import Engine, create_engine, make_url, text

from bentley.knime.writer import Bundle, NodeSpec
from bentley.knime.xmlconfig import Config

BASE = Bundle("KNIME Base Nodes", "org.knime.base", "KNIME Base nodes", "org.knime.features.base")

DECIMALS = (
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "taker_buy_base_volume",
    "taker_buy_quote_volume",
)
SOURCE_COLUMNS = (
    "symbol",
    "interval",
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "close_time",
    "quote_volume",
    "trades",
    "taker_buy_base_volume",
    "taker_buy_quote_volume",
    "is_closed",
    "batch_id",
)
LANDING_TEXTS = (*DECIMALS, "quality_flag", "reject_reason")
LANDING_DOUBLES = (
    "simple_return",
    "log_return",
    "true_range",
    "typical_price",
    "vwap",
    "taker_buy_share",
    "sma_20",
    "high_20",
    "low_20",
    "volume_20",
)


class Warehouse:
    """A database with the source and the landing table, reached by SQLAlchemy and by JDBC."""

    def __init__(self, engine: Engine, jdbc_url: str) -> None:
        self.engine = engine
        self.jdbc_url = jdbc_url
        self.mysql = engine.dialect.name == "mysql"
        self._create()

    def quote(self, name: str) -> str:
        return self.engine.dialect.identifier_preparer.quote_identifier(name)

    def _create(self) -> None:
        decimal = "DECIMAL(28,8)" if self.mysql else "TEXT"
        kinds = dict.fromkeys(DECIMALS, f"{decimal} NULL") | {
            "symbol": "VARCHAR(20) NOT NULL",
            "interval": "VARCHAR(4) NOT NULL",
            "open_time": "BIGINT NOT NULL",
            "close_time": "BIGINT NULL",
            "trades": "BIGINT NULL",
            "is_closed": "SMALLINT NOT NULL",
            "batch_id": "BIGINT NOT NULL",
        }
        columns = ", ".join(f"{self.quote(name)} {kinds[name]}" for name in SOURCE_COLUMNS)
        key = f"PRIMARY KEY (symbol, {self.quote('interval')}, open_time)"
        landing = (
            "batch_id BIGINT, symbol VARCHAR(20), "
            f"{self.quote('interval')} VARCHAR(4), open_time BIGINT, close_time BIGINT, "
            "trades BIGINT, source_batch_id BIGINT, "
            + ", ".join(f"{self.quote(name)} TEXT" for name in LANDING_TEXTS)
            + ", "
            + ", ".join(f"{self.quote(name)} DOUBLE" for name in LANDING_DOUBLES)
        )
        with self.engine.begin() as connection:
            connection.execute(text(f"CREATE TABLE binance_ohlcv ({columns}, {key})"))
            connection.execute(text(f"CREATE TABLE knime_landing ({landing})"))

    def put(self, rows: list[dict[str, object]]) -> None:
        """Replace the source's rows."""
        names = ", ".join(self.quote(name) for name in SOURCE_COLUMNS)
        marks = ", ".join(f":{name}" for name in SOURCE_COLUMNS)
        with self.engine.begin() as connection:
            connection.execute(text("DELETE FROM binance_ohlcv"))
            connection.execute(text("DELETE FROM knime_landing"))
            if rows:
                connection.execute(
                    text(f"INSERT INTO binance_ohlcv ({names}) VALUES ({marks})"), rows
                )

    def landing(self) -> list[dict[str, object]]:
        """The landing table in key order."""
        query = text("SELECT * FROM knime_landing ORDER BY symbol, open_time")
        with self.engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]


def sqlite_warehouse_in(folder: Path) -> Iterator[Warehouse]:
    path = folder / "warehouse.db"
    database = create_engine(f"sqlite:///{path}")
    yield Warehouse(database, f"jdbc:sqlite:{path}")
    database.dispose()


def mysql_warehouse(address: str) -> Iterator[Warehouse]:
    url = make_url(address)
    database = create_engine(url)
    secret = f"?user={url.username}&password={url.password}"
    yield Warehouse(database, f"jdbc:mysql://{url.host}:{url.port}/{url.database}{secret}")
    database.dispose()


def spec(name: str, factory: str, model: Config | None = None, **extra: object) -> NodeSpec:
    """A node of a test workflow."""
    return NodeSpec(name, factory, BASE, "", model or Config("model"), **extra)


def model(values: Mapping[str, object] | None = None) -> Config:
    """A node's settings from nested dicts, lists standing for arrays."""
    return _fill(Config("model"), values or {})


def _fill(config: Config, values: Mapping[str, object]) -> Config:
    for key, value in values.items():
        if isinstance(value, Mapping):
            _fill(config.sub(key), value)
        elif isinstance(value, list):
            config.put_array(key, value)
        elif isinstance(value, tuple):
            config.put(key, value[1], value[0])
        else:
            config.put(key, value)
    return config
