"""What waits in the triggerer: for consumers left behind, stages to catch up, a chain, a job.

They ask the ledger, or an Airbyte server, in a thread of their own, and never hold a worker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import structlog
from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

_log = structlog.get_logger(__name__)

_LONGEST_PAUSE = 80.0
"""A consumer that comes back is woken within two minutes, also where nobody says that it was away."""


async def _asked(question: Callable[[], Any]) -> Any:
    """Ask the ledger; None while it can't be reached, so that the trigger lives on."""
    from bentley.domain.errors import BentleyError  # noqa: PLC0415 - not needed to parse a DAG

    try:
        return await asyncio.to_thread(question)
    except BentleyError as error:
        _log.warning("the ledger can't be read", error=str(error))
        return None


def _paused(settings: Any, dag_id: str) -> bool:
    """Whether a DAG is paused. A trigger can't ask its supervisor; where the API refuses: no."""
    from bentley.domain.errors import BentleyError  # noqa: PLC0415
    from bentley.services.airflow_api import AirflowClient  # noqa: PLC0415

    with AirflowClient(settings.airflow_url) as client:
        try:
            return client.dag(dag_id).is_paused
        except BentleyError as error:
            _log.warning("Airflow does not say whether a DAG is paused", error=str(error))
            return False


class UnconsumedTrigger(BaseEventTrigger):
    """Emits while committed batches stay unconsumed: Airflow's asset queue alone can lose sight.

    Events coalesce, strand behind a slow consumer, and are lost to a paused one; the ledger
    still has the batches. For a consumer that is paused nothing is emitted until it is unpaused:
    it would not hear it, and an asset's other consumers would run for nothing.
    """

    def __init__(
        self, consumers: list[str], *, after: float = 8.0, every: float = 2.0, again: float = 15.0
    ) -> None:
        super().__init__()
        self.consumers = consumers
        self.after = after
        self.every = every
        self.again = again

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Name the class and its arguments for the triggerer."""
        arguments = {
            "consumers": self.consumers,
            "after": self.after,
            "every": self.every,
            "again": self.again,
        }
        return "bentley_triggers.UnconsumedTrigger", arguments

    def _late(self) -> dict[str, Any] | None:
        from bentley import settings  # noqa: PLC0415
        from bentley.stages.follow import STAGES  # noqa: PLC0415
        from bentley.stages.pending import overdue  # noqa: PLC0415

        given = settings.load()
        for consumer in self.consumers:
            found = overdue(given, consumer, after_seconds=self.after)
            if found is not None and not _paused(given, STAGES[consumer]):
                return {"consumer": consumer, **found}
        return None

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look every few seconds; after an event, give its consumer time to start."""
        told, pause = None, self.again
        while True:
            late = await _asked(self._late)
            if late is None:
                await asyncio.sleep(self.every)
                continue
            # The same news again and again means a consumer that is stuck.
            pause = min(2 * pause, _LONGEST_PAUSE) if late == told else self.again
            told = late
            yield TriggerEvent(late)
            await asyncio.sleep(pause)


class CaughtUpTrigger(BaseTrigger):
    """Ends when `knime_processed` has taken in all that is committed in `binance_ohlcv`."""

    def __init__(self, *, every: float = 2.0) -> None:
        super().__init__()
        self.every = every

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Name the class and its arguments for the triggerer."""
        return "bentley_triggers.CaughtUpTrigger", {"every": self.every}

    @staticmethod
    def _done() -> bool:
        from bentley import settings  # noqa: PLC0415
        from bentley.stages.track import caught_up  # noqa: PLC0415

        return caught_up(settings.load())

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look again and again until it has."""
        while not await _asked(self._done):
            await asyncio.sleep(self.every)
        yield TriggerEvent(True)


class ChainTrigger(BaseTrigger):
    """Ends when a pipeline run is through, when nothing has moved for `stalled` seconds, or late.

    `deadline` is in seconds since the epoch.
    """

    def __init__(
        self, pipeline_run: str, *, deadline: float, every: float = 1.0, stalled: float = 20.0
    ) -> None:
        super().__init__()
        self.pipeline_run = pipeline_run
        self.deadline = deadline
        self.every = every
        self.stalled = stalled

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Name the class and its arguments for the triggerer."""
        arguments = {
            "pipeline_run": self.pipeline_run,
            "deadline": self.deadline,
            "every": self.every,
            "stalled": self.stalled,
        }
        return "bentley_triggers.ChainTrigger", arguments

    def _look(self) -> Any:
        from bentley import settings  # noqa: PLC0415
        from bentley.stages.follow import follow  # noqa: PLC0415

        return follow(settings.load(), self.pipeline_run)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch the ledger; the task that is woken says what a stall means."""
        loop = asyncio.get_running_loop()
        seen, since = None, loop.time()
        while True:
            chain = await _asked(self._look)
            if chain is not None and chain.done:
                yield TriggerEvent("done")
                return
            if time.time() >= self.deadline:
                yield TriggerEvent("late")
                return
            if chain != seen:
                seen, since = chain, loop.time()
            elif loop.time() - since >= self.stalled:
                yield TriggerEvent("stalled")
                return
            await asyncio.sleep(self.every)


class AirbyteJobTrigger(BaseTrigger):
    """Ends when a job of an Airbyte server has ended, or can't be followed any more, or is late.

    Airflow ends a trigger that has a timeout without a word to anyone, so the deadline is the
    trigger's own, in seconds since the epoch: the task that is woken cancels the job. `own` says
    whether the job is ours to cancel. The credentials are read from the settings, where it runs.
    """

    def __init__(self, job_id: int, *, own: bool, deadline: float, every: float = 5.0) -> None:
        super().__init__()
        self.job_id = job_id
        self.own = own
        self.deadline = deadline
        self.every = every

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Name the class and its arguments for the triggerer."""
        arguments = {
            "job_id": self.job_id,
            "own": self.own,
            "deadline": self.deadline,
            "every": self.every,
        }
        return "bentley_triggers.AirbyteJobTrigger", arguments

    def _watch(self) -> tuple[Any, Any]:
        from bentley import settings  # noqa: PLC0415
        from bentley.airbyte.server import AirbyteServer  # noqa: PLC0415
        from bentley.stages.airbyte_job import Watch  # noqa: PLC0415 - seconds, not on the loop

        server = AirbyteServer.of(settings.load())
        return server, Watch(server, self.job_id, every=self.every)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look every few seconds; the task that is woken says what the job's end means."""
        from bentley.domain.errors import BentleyError  # noqa: PLC0415

        try:
            server, watch = await asyncio.to_thread(self._watch)
        except BentleyError as error:
            _log.warning("Airbyte's job can't be followed", job=self.job_id, error=str(error))
            yield TriggerEvent("over")
            return
        with server:
            while True:
                pause = await asyncio.to_thread(watch.look)
                if pause is None:
                    break
                left = self.deadline - time.time()
                if left <= 0:
                    yield TriggerEvent("late")
                    return
                await asyncio.sleep(min(pause, left))
        yield TriggerEvent("over")

    async def on_kill(self) -> None:
        """Cancel the job: somebody has cleared the task, or marked it as failed or done.

        Airflow doesn't call this where the triggerer itself ends: the next one follows the job on.
        Where another triggerer has taken the trigger over it does: the task is then retried.
        """
        await asyncio.to_thread(self._cancel)

    def _cancel(self) -> None:
        from bentley import settings  # noqa: PLC0415
        from bentley.airbyte.server import Job  # noqa: PLC0415
        from bentley.stages.airbyte_job import cancel  # noqa: PLC0415

        cancel(settings.load(), Job(self.job_id, "", own=self.own))
