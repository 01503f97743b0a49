"""One run over sources of stocks: each on its own, and what became of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bentley.domain.errors import BentleyError, ConfigurationError, FatalError
from bentley.settings import Settings
from bentley.sources import catalog
from bentley.stages import sentiment_pull, stock_pull
from bentley.stages.report import StageReport

PULLED, SKIPPED, FAILED = "pulled", "skipped", "failed"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What became of one source in a run; `said` is the reason, or the counts."""

    source: str
    state: str
    said: str
    rows_written: int = 0
    failures: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Make plain values for JSON and XCom."""
        return asdict(self)


def reason_to_skip(settings: Settings, name: str) -> str | None:
    """Say why a source can't be asked; None where it can."""
    return catalog.named(name).missing(settings)


def pull(
    settings: Settings,
    name: str,
    *,
    stale_before: int | None = None,
    again: bool = False,
    dag_run: str | None = None,
    progress: Progress | None = None,
) -> StageReport:
    """Pull one source, whatever its kind; see `stock_pull.pull` and `sentiment_pull.pull`."""
    source = catalog.named(name)
    if source.kind == "sentiment":
        return sentiment_pull.pull(settings, source, dag_run=dag_run, progress=progress)
    return stock_pull.pull(
        settings,
        source,
        stale_before=stale_before,
        again=again,
        dag_run=dag_run,
        progress=progress,
    )


def pulled(name: str, report: StageReport) -> Outcome:
    """The outcome of a source that gave what it had."""
    failures = [failure["message"] for failure in report.failures]
    if behind := report.details.get("behind"):
        late = ", ".join(f"{ticker} {count}" for ticker, count in behind.items())
        failures.append(f"sessions that are due and not there: {late}")
    return Outcome(name, PULLED, report.summary, report.rows_written, tuple(failures))


def skipped(name: str, reason: str) -> Outcome:
    """The outcome of a source that is not configured."""
    return Outcome(name, SKIPPED, reason)


def failed(name: str, error: Exception) -> Outcome:
    """The outcome of a source that failed."""
    return Outcome(name, FAILED, str(error))


def silent(name: str) -> Outcome:
    """The outcome of a source whose pull was killed, or ran out of time."""
    return Outcome(name, FAILED, "its pull ended without a word: see its log")


def run(
    settings: Settings,
    names: Sequence[str],
    *,
    again: bool = False,
    stale_before: int | None = None,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Pull sources one after the other; one that fails leaves the others whole."""
    stock_pull.wanted_tickers(settings)
    outcomes = []
    for name in names:
        reason = reason_to_skip(settings, name)
        if reason is not None:
            outcomes.append(skipped(name, reason))
            continue
        try:
            report = pull(
                settings,
                name,
                again=again,
                stale_before=stale_before,
                progress=None if progress is None else _beside(progress, name),
            )
        except BentleyError as error:
            outcomes.append(failed(name, error))
        else:
            outcomes.append(pulled(name, report))
    return outcomes


def _beside(progress: Progress, name: str) -> Progress:
    return lambda ticker: progress(f"{name} {ticker}")


def require_one(outcomes: Iterable[Outcome]) -> None:
    """Raise an error that names every source's reason where none gave anything.

    ConfigurationError where all were skipped, FatalError where one was asked and failed.
    """
    outcomes = list(outcomes)
    if not outcomes:
        msg = "no pull told what became of its source: see their logs"
        raise FatalError(msg)
    if any(one.state == PULLED for one in outcomes):
        return
    said = "; ".join(f"{one.source}: {one.said}" for one in outcomes)
    if all(one.state == SKIPPED for one in outcomes):
        msg = f"no source of stocks is configured ({said}): set a key, or name yahoo as a source"
        raise ConfigurationError(msg)
    msg = f"no source of stocks gave anything ({said})"
    raise FatalError(msg)


def table(outcomes: Iterable[Outcome]) -> str:
    """Write what each source gave as Markdown, for the page of a run."""
    lines = ["| source | | |", "| --- | --- | --- |"]
    for one in outcomes:
        lines.append(f"| {one.source} | {one.state} | {one.said} |")
        lines += [f"| | | {failure} |" for failure in one.failures]
    return "\n".join(lines)
