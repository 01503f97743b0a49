"""The datasets that couple the DAGs, and the watchers that wake a consumer left behind."""

from __future__ import annotations

from airflow.sdk import Asset, AssetWatcher
from bentley_triggers import UnconsumedTrigger

# The name is the public one. A URI that begins with mysql:// needs a host as soon as Airflow's
# MySQL provider is installed; it identifies the table and is never connected to.
BINANCE_OHLCV = Asset(
    name="mysql://mansa_bot/binance_ohlcv",
    uri="mysql://localhost:3307/mansa_bot/binance_ohlcv",
    group="mansa_bot",
    watchers=[
        AssetWatcher(
            name="bars nobody processed or logged",
            trigger=UnconsumedTrigger(["process", "track"]),
        )
    ],
)
KNIME_PROCESSED = Asset(
    name="mysql://mansa_bot/knime_processed",
    uri="mysql://localhost:3307/mansa_bot/knime_processed",
    group="mansa_bot",
    watchers=[
        AssetWatcher(name="batches nobody logged", trigger=UnconsumedTrigger(["track"])),
    ],
)
STOCK_PRICES = Asset(
    name="mysql://mansa_bot/stock_prices",
    uri="mysql://localhost:3307/mansa_bot/stock_prices",
    group="mansa_bot",
)
