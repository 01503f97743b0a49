"""A sync by an Airbyte server: its job is started, followed and cancelled, then folded in.

Whoever waits, a command or a trigger, looks from time to time; nothing is held meanwhile, and
no batch is open. A failure ahead of the fold gets a batch of its own, so that it is in the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import structlog

from bentley.airbyte.server import CANCELLED, FAILED, AirbyteServer, Job
from bentley.domain.errors import BentleyError, ConfigurationError, FatalError, RetriableError
from bentley.settings import Settings
from bentley.sources import exchange
from bentley.stages import intake, landing
from bentley.stages.report import StageReport
from bentley.warehouse import ledger
from bentley.warehouse.ledger import INGEST
from bentley.warehouse.warehouse import Warehouse

LOOK_SECONDS = 5.0

_LOCK_SECONDS = 60.0
_ROOM_SECONDS = 1.0
"""After another's job was cancelled, there is room for ours: it may be that of a cleared task."""

_SKEW_MS = landing.CLOCKS_APART_MS // 2
"""A clock that is found ahead by more is refused; the rest is for what the look itself takes."""

_log = structlog.get_logger(__name__)


def sync(
    settings: Settings,
    *,
    pipeline_runs: Iterable[str] = (),
    dag_run: str | None = None,
    again: bool = False,
    progress: Callable[[int], None] | None = None,
) -> StageReport:
    """Start a job, wait for its end within the stage's time limit, and fold in what it brought.

    Whatever interrupts the wait cancels the job, where it is ours. Raises what `finish` raises.
    """
    runs = sorted(pipeline_runs)
    job = start(settings, pipeline_runs=runs, dag_run=dag_run)
    with recorded(settings, pipeline_runs=runs, dag_run=dag_run):
        _wait(settings, job, progress)
    return finish(
        settings, job, pipeline_runs=runs, dag_run=dag_run, again=again, progress=progress
    )


def start(
    settings: Settings, *, pipeline_runs: Iterable[str] = (), dag_run: str | None = None
) -> Job:
    """Start a job, or take up the one that is at work already."""
    with (
        recorded(settings, pipeline_runs=pipeline_runs, dag_run=dag_run),
        AirbyteServer.of(settings) as server,
    ):
        job = server.start()
    _log.info("Airbyte's job is at work", job=job.id, own=job.own)
    return job


def look(
    server: AirbyteServer,
    job_id: int,
    *,
    every: float = LOOK_SECONDS,
    seen: Callable[[Job], None] | None = None,
) -> float | None:
    """Look at a job once: seconds to wait before the next look, None where `finish` has its turn.

    What may pass is waited out, as long as the server asks for. What won't is told by `finish`.
    """
    try:
        job = server.job(job_id)
    except RetriableError as error:
        _log.warning("Airbyte does not say how its job is", job=job_id, error=str(error))
        return max(every, error.retry_after or 0.0)
    except BentleyError:
        return None
    if seen is not None:
        seen(job)
    return None if job.ended else every


def cancel(settings: Settings, job: Job) -> None:
    """Cancel a job of ours; one that somebody else has started is theirs to end."""
    if not job.own:
        return
    try:
        with AirbyteServer.of(settings) as server:
            server.cancel(job.id)
    except BentleyError as error:
        _log.warning("Airbyte's job could not be cancelled", job=job.id, error=str(error))


def finish(
    settings: Settings,
    job: Job,
    *,
    pipeline_runs: Iterable[str] = (),
    dag_run: str | None = None,
    again: bool = False,
    progress: Callable[[int], None] | None = None,
) -> StageReport:
    """See that the job has succeeded, and fold in what it brought.

    One that is still at work has had its time: it is cancelled. Raises RetriableError for that
    and for a job that failed, FatalError where somebody has cancelled it, and what `fold` raises.
    """
    runs = sorted(pipeline_runs)
    with recorded(settings, pipeline_runs=runs, dag_run=dag_run):
        found = _require_success(settings, job)
    return landing.fold(
        settings,
        job_id=job.id,
        started=None if found.rows == 0 else found.started,
        pipeline_runs=runs,
        dag_run=dag_run,
        again=again,
        progress=progress,
    )


@contextmanager
def recorded(
    settings: Settings, *, pipeline_runs: Iterable[str], dag_run: str | None
) -> Iterator[None]:
    """Put what fails here into the ledger, as a batch that failed."""
    try:
        yield
    except BaseException as error:
        # Where the ledger is out of reach, the error itself is what must be seen.
        with (
            suppress(BentleyError),
            Warehouse.open(settings) as warehouse,
            warehouse.alone(INGEST, wait_seconds=_LOCK_SECONDS),
        ):
            with warehouse.writing() as connection:
                batch_id = ledger.begin(
                    connection,
                    INGEST,
                    engine=landing.ENGINE,
                    pipeline_runs=pipeline_runs,
                    dag_run=dag_run,
                )
            intake.close(warehouse, batch_id, error=f"{type(error).__name__}: {error}")
        raise


def _wait(settings: Settings, job: Job, progress: Callable[[int], None] | None) -> None:
    deadline = time.monotonic() + settings.stage_timeout_minutes * 60
    told = ""

    def seen(found: Job) -> None:
        nonlocal told
        if found.status != told:
            told = found.status
            _log.info("Airbyte's job goes on", job=found.id, state=told, rows=found.rows)
        if progress is not None:
            progress(found.rows or 0)

    try:
        with AirbyteServer.of(settings) as server:
            while (pause := look(server, job.id, every=LOOK_SECONDS, seen=seen)) is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                time.sleep(min(pause, left))
    except BaseException:
        cancel(settings, job)
        raise


def _require_success(settings: Settings, job: Job) -> Job:
    with AirbyteServer.of(settings) as server:
        try:
            found = server.job(job.id, patiently=True)
        except RetriableError:
            raise  # it may be near its end: the next try takes it up
        except BentleyError:
            cancel(settings, job)
            raise
        if not found.ended:
            cancel(settings, job)
            raise RetriableError(_late(settings, job))
        if found.status == FAILED:
            msg = f"Airbyte's job {job.id} failed: its log is on the connection's page in Airbyte"
            raise RetriableError(msg)
        if found.status == CANCELLED:
            msg = f"Airbyte's job {job.id} was cancelled in Airbyte"
            if job.own:
                raise FatalError(msg)
            raise RetriableError(msg, retry_after=_ROOM_SECONDS)
        _check_clock(settings, server.clock)
        return found


def _late(settings: Settings, job: Job) -> str:
    became = "was cancelled" if job.own else "goes on: it is not ours"
    return (
        f"Airbyte's job {job.id} did not end within {settings.stage_timeout_minutes:g} minutes and "
        f"{became}; raise BENTLEY_STAGE_TIMEOUT_MINUTES, or see what it waits for in Airbyte"
    )


def _check_clock(settings: Settings, clock: int | None) -> None:
    """Refuse rows that are stamped by a clock that runs ahead: it tells what is closed."""
    if clock is None:
        return
    ahead = clock - exchange.server_time(settings.exchange_url)
    if ahead > _SKEW_MS:
        msg = (
            f"Airbyte's clock is {ahead / 1000:.0f} s ahead of the exchange's at "
            "BENTLEY_EXCHANGE_URL: set it, or a candle that is still forming passes for a closed one"
        )
        raise ConfigurationError(msg)
