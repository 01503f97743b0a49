"""The replay exchange: Binance's spot REST API on loopback, over recorded or generated klines."""
