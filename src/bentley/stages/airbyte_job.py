"""A sync by an Airbyte server: its job is started, followed and cancelled, then folded in.

Whoever waits, a command or a trigger, looks from time to time; nothing is held meanwhile, and
no batch is open. A failure ahead of the fold gets a batch of its own, so that it is in the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace

import structlog

from bentley.airbyte.server import CANCELLED, FAILED, AirbyteServer, Job
from bentley.domain.errors import (
    BentleyError,
    ConfigurationError,
    FatalError,
    RetriableError,
    described,
)
from bentley.settings import Settings
from bentley.sources import exchange
from bentley.stages import intake, landing
from bentley.stages.report import StageReport
from bentley.warehouse import ledger, states
from bentley.warehouse.ledger import INGEST
from bentley.warehouse.warehouse import Warehouse

LOOK_SECONDS = 5.0

_REFUSALS = 5
"""What stands before a server refuses, too, while that starts anew: so often in a row counts."""

_REFUSED_SECONDS = 1.0
_CANCEL_SECONDS = 30.0
_OWN_JOBS = "airbyte-server-jobs"
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
    deadline = time.monotonic() + settings.stage_timeout_minutes * 60
    while True:
        with recorded(settings, pipeline_runs=runs, dag_run=dag_run):
            late = _wait(settings, job, deadline, progress)
        report = finish(
            settings,
            job,
            late=late,
            pipeline_runs=runs,
            dag_run=dag_run,
            again=again,
            progress=progress,
        )
        if report is not None:
            return report


def start(
    settings: Settings, *, pipeline_runs: Iterable[str] = (), dag_run: str | None = None
) -> Job:
    """Start a job, or take up the one that is at work already.

    That may be an own one, of a start whose answer was lost or whose process was killed.
    """
    with (
        recorded(settings, pipeline_runs=pipeline_runs, dag_run=dag_run),
        AirbyteServer.of(settings) as server,
    ):
        now, asked = server.login(), _kept(settings, "asked")
        if asked is not None and (now or 0) - asked > settings.stage_timeout_minutes * 60_000:
            asked = None
        _keep(settings, "asked", now if asked is None else asked)
        try:
            job = _start(settings, server)
        except BentleyError:
            if server.attempts == 1:  # an answer, and none was lost before it
                _keep(settings, "asked", asked)
            raise
        if asked is None and server.attempts > 1:
            asked = now
        since_asked = asked is not None and job.started is not None and job.started >= asked
        if job.id == _kept(settings, "job") or since_asked:
            job = replace(job, own=True)
        try:
            _keep(settings, "asked", None)
            if job.own:
                _keep(settings, "job", job.id)
        except BaseException:
            cancel(settings, job)
            raise
    _log.info("Airbyte's job is at work", job=job.id, own=job.own)
    return job


def _start(settings: Settings, server: AirbyteServer) -> Job:
    """Ask for a job in a thread: whatever interrupts that waits for the answer, and cancels it."""
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.start)
        try:
            return asked.result()
        except BaseException:
            if asked.exception() is None:
                cancel(settings, asked.result())
                with suppress(BentleyError):
                    _keep(settings, "asked", None)
            raise


def _kept(settings: Settings, what: str) -> int | None:
    """Read what is known of own jobs: when one was `asked` for, the last `job`, the `cancelled`."""
    name = f"{settings.airbyte_connection_id}/{what}"
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        found: int | None = states.load(connection, _OWN_JOBS, name)
        return found


def _keep(settings: Settings, what: str, value: int | None) -> None:
    name = f"{settings.airbyte_connection_id}/{what}"
    with Warehouse.open(settings) as warehouse, warehouse.writing() as connection:
        states.save(connection, _OWN_JOBS, name, value, batch_id=0)  # of no batch


class Watch:
    """Looks at a job from time to time."""

    def __init__(
        self,
        server: AirbyteServer,
        job_id: int,
        *,
        every: float = LOOK_SECONDS,
        seen: Callable[[Job], None] | None = None,
    ) -> None:
        self._server = server
        self._job_id = job_id
        self._every = every
        self._seen = seen
        self._refused = 0

    def look(self) -> float | None:
        """Look once: seconds to wait before the next look, None where `finish` has its turn.

        What may pass is waited out, as long as the server asks for. What won't is told by `finish`.
        """
        try:
            job = self._server.job(self._job_id)
        except BentleyError as error:
            _log.warning("Airbyte does not say how its job is", job=self._job_id, error=str(error))
            if isinstance(error, RetriableError):
                return max(self._every, error.retry_after or 0.0)
            self._refused += 1
            return self._every if self._refused < _REFUSALS else None
        self._refused = 0
        if self._seen is not None:
            self._seen(job)
        return None if job.ended else self._every


def cancel(settings: Settings, job: Job) -> bool:
    """Cancel a job of ours, and say whether that was done; another's is theirs to end."""
    if not job.own:
        return False
    with suppress(BentleyError):
        _keep(settings, "cancelled", job.id)
    deadline = time.monotonic() + _CANCEL_SECONDS
    try:
        with AirbyteServer.of(settings) as server:
            while True:
                try:
                    server.cancel(job.id)
                except RetriableError as error:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise
                    time.sleep(min(error.retry_after or _REFUSED_SECONDS, left))
                else:
                    return True
    except BentleyError as error:
        _log.warning("Airbyte's job could not be cancelled", job=job.id, error=str(error))
        return False


def finish(
    settings: Settings,
    job: Job,
    *,
    late: bool = True,
    pipeline_runs: Iterable[str] = (),
    dag_run: str | None = None,
    again: bool = False,
    progress: Callable[[int], None] | None = None,
) -> StageReport | None:
    """See that the job has succeeded, and fold in what it brought; None where it is still at work.

    Where it is `late` it has had its time, and is cancelled. Raises RetriableError for that and
    for a job that failed, FatalError where somebody has cancelled it, and what `fold` raises.
    """
    runs = sorted(pipeline_runs)
    with recorded(settings, pipeline_runs=runs, dag_run=dag_run):
        found = _succeeded(settings, job, late=late)
    if found is None:
        return None
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
            intake.close(warehouse, batch_id, error=described(error))
        raise


def _wait(
    settings: Settings, job: Job, deadline: float, progress: Callable[[int], None] | None
) -> bool:
    """Wait until `finish` has its turn, and say whether that is because the time is over."""
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
            watch = Watch(server, job.id, every=LOOK_SECONDS, seen=seen)
            while (pause := watch.look()) is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return True
                time.sleep(min(pause, left))
    except BaseException:
        cancel(settings, job)
        raise
    return False


def _succeeded(settings: Settings, job: Job, *, late: bool) -> Job | None:
    with AirbyteServer.of(settings) as server:
        try:
            found = _found(server, job)
        except BentleyError as error:
            # One that can't be seen may be near its end: the next try takes it up.
            if late or not isinstance(error, RetriableError):
                cancel(settings, job)
            raise
        if not found.ended:
            if not late:
                return None
            raise RetriableError(_late(settings, job, cancelled=cancel(settings, job)))
        if found.status == FAILED:
            msg = f"Airbyte's job {job.id} failed: its log is on the connection's page in Airbyte"
            raise RetriableError(msg)
        if found.status == CANCELLED:
            msg = f"Airbyte's job {job.id} was cancelled in Airbyte"
            if job.own and _kept(settings, "cancelled") == job.id:
                msg = f"Airbyte's job {job.id} was cancelled by Bentley"
            elif job.own:
                raise FatalError(msg)
            raise RetriableError(msg, retry_after=_ROOM_SECONDS)
        _check_clock(settings, server.clock)
        return found


def _found(server: AirbyteServer, job: Job) -> Job:
    """Ask how the job is, a few times where that is refused."""
    for _ in range(_REFUSALS - 1):
        try:
            return server.job(job.id, patiently=True)
        except RetriableError:
            raise
        except BentleyError:
            time.sleep(_REFUSED_SECONDS)
    return server.job(job.id, patiently=True)


def _late(settings: Settings, job: Job, *, cancelled: bool) -> str:
    became = "could not be cancelled" if job.own else "goes on: it is not ours"
    if cancelled:
        became = "was cancelled"
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
