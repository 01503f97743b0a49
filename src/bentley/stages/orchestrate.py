"""The end of a pipeline run: verified, reported in a file, in MLflow and in Airflow's note.

A run that does not get to its end is reported, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bentley.domain.clock import iso
from bentley.domain.errors import BentleyError, FatalError
from bentley.settings import Settings
from bentley.stages import stock_status
from bentley.stages import verify as checks
from bentley.stages.follow import Chain, Failure, follow
from bentley.stages.track import tracking_uri
from bentley.stages.verify import Verification, verify
from bentley.tracking.records import RunRecord
from bentley.tracking.runs import Tracker
from bentley.warehouse import ledger
from bentley.warehouse.warehouse import Warehouse

EXPERIMENT = "bentley-orchestration"


def verify_and_report(
    settings: Settings, *, pipeline_run: str, dag_run: str, attempt: int = 1
) -> dict[str, Any]:
    """Verify a pipeline run and write its report, whatever the verification finds.

    Each `attempt` has an MLflow run of its own: what it found is not what the next one finds.

    The caller decides what a check that did not hold means: `held` is in the result.
    """
    started = ledger.now_ms()
    chain = follow(settings, pipeline_run)
    found = verify(settings, pipeline_run=pipeline_run)
    shares = _shares(settings, found.exchange_time)
    text = report(chain, found, shares)
    picture = _picture(
        chain,
        [(check.name, bool(check.held), check.detail) for check in found.checks],
        f"origin: {found.origin}; exchange time {iso(found.exchange_time)}",
    )
    metrics = {
        "checks_held": sum(bool(check.held) for check in found.checks),
        "checks_failed": sum(not check.held for check in found.checks),
        "bars": sum(one.rows for one in found.series),
        "bars_processed": sum(one.processed for one in found.series),
        "bars_rejected": sum(one.rejected for one in found.series),
        "gaps": sum(one.gaps for one in found.series),
        "missing_bars": sum(one.missing_bars for one in found.series),
    }
    made = _Report(pipeline_run, dag_run, attempt, started, text, picture, metrics)
    file, url = made.write(settings), made.log(settings)
    return {
        "pipeline_run": pipeline_run,
        "held": found.held,
        "failed": checks.summary(found),
        "report": str(file),
        "mlflow": url,
        "note": brief(chain, found, url, shares),
        "stocks": shares,
    }


def _shares(settings: Settings, now: int) -> list[dict[str, Any]]:
    """How fresh the universe's stocks are; nothing where there are none, as in a replay."""
    if settings.replayed or not settings.tickers:
        return []
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        return stock_status.coverage(connection, settings.tickers, now=now)


def report_failure(
    settings: Settings, *, pipeline_run: str, dag_run: str, failure: Failure, attempt: int = 1
) -> dict[str, Any]:
    """Write the report of a pipeline run that did not get to its end; nothing is verified.

    It needs the warehouse alone: what is out of reach may be the reason that it has to name.
    """
    started = ledger.now_ms()
    chain = follow(settings, pipeline_run)
    lines = [
        f"**{failure.where} {failure.reason}**",
        f"Next step: {failure.step}",
        f"origin: {settings.origin}",
    ]
    text = "\n\n".join([*lines, f"Pipeline run {pipeline_run}", "\n".join(_stages(chain))]) + "\n"
    seen = [("the chain came to its end", False, f"{failure.where} {failure.reason}")]
    picture = _picture(chain, seen, f"origin: {settings.origin}; next step: {failure.step}")
    metrics = {f"{stage.stage}_rows_written": stage.rows_written for stage in chain.stages}
    made = _Report(pipeline_run, dag_run, attempt, started, text, picture, metrics)
    file, url = made.write(settings), None
    try:
        url = made.log(settings)
        lines.append(f"Report: {url}")
    except BentleyError as error:
        lines.append(f"The report is in {file} alone: {error}")
    return {
        "pipeline_run": pipeline_run,
        "held": False,
        "failed": failure.message,
        "report": str(file),
        "mlflow": url,
        "note": "\n\n".join(lines),
    }


def _picture(chain: Chain, seen: Sequence[tuple[str, bool, str]], subtitle: str) -> bytes:
    from bentley.tracking import chain_picture  # noqa: PLC0415 - matplotlib is slow

    return chain_picture.chain(
        [(s.dag_id, s.state, s.rows_written, s.seconds) for s in chain.stages],
        seen,
        title=f"Pipeline run {chain.pipeline_run}",
        subtitle=subtitle,
    )


@dataclass(frozen=True)
class _Report:
    """A report that is written: kept in a file beside its picture, and in MLflow."""

    pipeline_run: str
    dag_run: str
    attempt: int
    started: int
    text: str
    picture: bytes
    metrics: Mapping[str, float]

    @property
    def stem(self) -> str:
        return re.sub(r"[^\w.+-]", "_", self.pipeline_run)

    def write(self, settings: Settings) -> Path:
        settings.reports.mkdir(parents=True, exist_ok=True)
        file = settings.reports / f"{self.stem}.md"
        file.write_text(self.text, encoding="utf-8")
        (settings.reports / f"{self.stem}.png").write_bytes(self.picture)
        return file

    def log(self, settings: Settings) -> str:
        with Warehouse.open(settings) as warehouse:
            claim = f"{warehouse.name}:master:{self.stem[:150]}:{self.attempt}"
        record = RunRecord(
            experiment=EXPERIMENT,
            name=self.stem,
            claim=claim,
            started_ms=self.started,
            ended_ms=ledger.now_ms(),
            params={"origin": settings.origin, "pipeline_run": self.pipeline_run},
            metrics=self.metrics,
            tags={"bentley.origin": settings.origin, "airflow.run": self.dag_run},
            note=self.text,
            artifacts={"report.md": self.text, "report.png": self.picture},
        )
        return Tracker(tracking_uri(settings)).log(record).url


def require(result: dict[str, Any]) -> None:
    """Raise FatalError naming every check that did not hold."""
    if not result["held"]:
        raise FatalError(result["failed"])


def brief(
    chain: Chain, found: Verification, url: str, shares: Sequence[Mapping[str, Any]] = ()
) -> str:
    """Write what fits an Airflow note: the verdict, what did not hold, and where the rest is."""
    held = sum(bool(check.held) for check in found.checks)
    bars = sum(one.rows for one in found.series)
    verdict = "every check held" if found.held else "a check did not hold"
    lines = [
        f"**{verdict}** ({held} of {len(found.checks)}) · origin: {found.origin} · {bars} bars",
        f"Report: {url}",
        *(f"Batch {run['batch_id']}: {run['url']}" for run in found.mlflow[:2]),
        *(f"FAILED {check.name}: {check.detail}" for check in found.checks if not check.held),
        ", ".join(f"{s.stage} {s.state}, {s.rows_written} written" for s in chain.stages),
    ]
    if shares:
        lines.append(f"stocks: {stock_status.brief(shares)}")
    return "\n\n".join(lines)


def report(chain: Chain, found: Verification, shares: Sequence[Mapping[str, Any]] = ()) -> str:
    """Write the report as Markdown."""
    verdict = "every check held" if found.held else "a check did not hold"
    lines = [
        f"**{verdict}** · origin: {found.origin} · exchange time {iso(found.exchange_time)}",
        "",
        f"Pipeline run {chain.pipeline_run}",
        "",
        *_stages(chain),
    ]
    lines += ["", "| check | held | seen |", "| --- | --- | --- |"]
    lines += [
        f"| {check.name} | {'yes' if check.held else '**no**'} | {check.detail} |"
        for check in found.checks
    ]
    lines += ["", *checks.table(found), ""]
    if shares:
        lines += [*stock_status.table(shares), ""]
    lines += [f"MLflow run of batch {run['batch_id']}: {run['url']}" for run in found.mlflow]
    return "\n".join(lines) + "\n"


def _stages(chain: Chain) -> list[str]:
    return [
        "| stage | state | read | written | rejected | seconds |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        *(
            f"| {s.dag_id} | {s.state} | {s.rows_read} | {s.rows_written} | {s.rows_rejected} "
            f"| {s.seconds:.1f} |"
            for s in chain.stages
        ),
    ]
