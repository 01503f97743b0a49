"""How Airflow takes Bentley's errors: what would fail again fails at once, the rest is retried."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy


class BentleyRetryPolicy(RetryPolicy):
    """Retry what may pass, after the server's own Retry-After where it gave one."""

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Any = None
    ) -> RetryDecision:
        """Decide by the error's place in the tree of `bentley.domain.errors`."""
        # Imported here: DAG files are parsed often, and parsing needs none of it.
        from bentley.domain.errors import BentleyError, RetriableError  # noqa: PLC0415

        if isinstance(exception, RetriableError):
            wait = exception.retry_after
            delay = None if wait is None else timedelta(seconds=wait)
            return RetryDecision.retry(delay=delay, reason=str(exception))
        if isinstance(exception, BentleyError):
            return RetryDecision.fail(reason=str(exception))
        return RetryDecision.default()
