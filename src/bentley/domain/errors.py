"""The one tree of errors, grouped by what the caller does next.

    BentleyError
    ├── ConfigurationError   the caller must change something first  (exit 2, Airflow fails at once)
    ├── FatalError           running it again gives the same         (exit 1, Airflow fails at once)
    │   └── UnknownTickerError   a source doesn't know the ticker
    ├── RetriableError       running it again may well work          (exit 1, Airflow retries)
    └── DataError            the data is not fit to be passed on     (exit 1, Airflow fails at once)

A message names the offending value and the remedy; it never holds a secret.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2


def described(error: BaseException) -> str:
    """Name an error's kind and what it says; one that someone asked for is no error of a kind."""
    said = str(error)
    if isinstance(error, KeyboardInterrupt):
        return f"stopped by {said or 'Ctrl-C'}"
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


class BentleyError(Exception):
    """Root of every error that Bentley raises on purpose."""

    exit_code = EXIT_FAILURE


class ConfigurationError(BentleyError):
    """A setting, an argument or the machine is not as it must be."""

    exit_code = EXIT_USAGE


class FatalError(BentleyError):
    """The work failed and would fail again."""


class UnknownTickerError(FatalError):
    """A source doesn't know `ticker`; other tickers of the same source are not touched by it."""

    def __init__(self, message: str, *, ticker: str) -> None:
        super().__init__(message)
        self.ticker = ticker


class RetriableError(BentleyError):
    """The work failed for a passing reason.

    `retry_after` is the server's own wish in seconds, or None where it gave none.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DataError(BentleyError):
    """Too much of the data is wrong for the rest to be trusted."""

    def __init__(self, message: str, *, rejected: int = 0, read: int = 0) -> None:
        super().__init__(message)
        self.rejected = rejected
        self.read = read
